//! Page lists: the pages that hold data, and the pages that changed between two states of one blob.
//!
//! A page that was written since the older state and holds data is *data*; a page that held data then and holds none
//! now is *clear*. Both come in one order of addresses, neighbours of one kind joined.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rangemap::RangeMap;

use super::ground::between_blocks;
use super::pages::{BLOCK, Block, Pages, block_indexes, window_bits};
use crate::config::Knobs;
use crate::range::{PAGE, round_outwards};

/// What a page list says about a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    Data,
    Clear,
}

/// A range of bytes of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) kind: ExtentKind,
    pub(crate) range: Range<u64>,
}

/// The pages of `window` that hold data: all, or a little more than the first `enough` extents, the last of which may not
/// be whole. A sink tells of none.
pub(crate) fn allocated(pages: &Pages, window: &Range<u64>, enough: usize) -> Vec<Extent> {
    let mut extents = Vec::new();
    if pages.is_sink() {
        return extents;
    }
    let stored = pages.blocks.range(block_indexes(window)).map(|(index, _)| *index);
    for (free, next) in between_blocks(stored, window) {
        push_ground(&mut extents, pages, 0, free, enough);
        if let Some(index) = next
            && let Some(block) = pages.blocks.get(&index)
        {
            push_block(&mut extents, index, block.present & window_bits(index, window), 0);
        }
        if extents.len() > enough {
            break;
        }
    }
    extents
}

/// The pages of `window` that changed from `older` to `newer`, as `knobs` want them reported: all, or at least the first
/// `enough` extents and what begins the next. Nothing ever changes of a sink.
pub(crate) fn changes(
    newer: &Pages,
    older: &Pages,
    window: &Range<u64>,
    knobs: &Knobs,
    enough: usize,
) -> Vec<Extent> {
    if newer.is_sink() {
        return Vec::new();
    }
    let granule = knobs.diff_granularity.div_ceil(PAGE).max(1).saturating_mul(PAGE);
    let around_window = round_outwards(window, granule, newer.len());
    let moved_footer = newer.footer_moves.iter().any(|moved| moved.epoch > older.epoch);
    let adds_clears = knobs.clear_of_unwritten_reported;
    let joins_more = adds_clears || moved_footer || granule > PAGE;
    let enough = if joins_more { usize::MAX } else { enough };
    let mut extents = page_changes(newer, older, &around_window, enough);

    if joins_more {
        let mut reported: RangeMap<u64, ExtentKind> = RangeMap::new();
        if adds_clears {
            add_clears_of_unwritten(&mut reported, newer, older, &around_window);
        }
        reported.extend(extents.into_iter().map(|extent| (extent.range, extent.kind)));
        hide_footers(&mut reported, newer, older, knobs);
        let coarse = coarsen(&reported, newer, granule);
        extents = coarse.into_iter().map(|(range, kind)| Extent { kind, range }).collect();
    }
    extents.iter().filter_map(|extent| clip(extent, window)).collect()
}

/// `extents` with more edges: at every multiple of `unit` bytes.
pub(crate) fn cut(extents: &[Extent], unit: u64) -> Vec<Extent> {
    let unit = unit.div_ceil(PAGE).max(1).saturating_mul(PAGE);
    let mut pieces = Vec::new();
    for extent in extents {
        let mut start = extent.range.start;
        while start < extent.range.end {
            let end = (start - start % unit).saturating_add(unit).min(extent.range.end);
            pieces.push(Extent { kind: extent.kind, range: start..end });
            start = end;
        }
    }
    pieces
}

fn page_changes(newer: &Pages, older: &Pages, window: &Range<u64>, enough: usize) -> Vec<Extent> {
    let mut extents = Vec::new();
    let stored = indexes_of_either(&newer.blocks, &older.blocks, &block_indexes(window));
    for (free, next) in between_blocks(stored, window) {
        push_ground(&mut extents, newer, older.epoch, free, enough);
        if let Some(index) = next {
            push_changes(&mut extents, newer, older, index, window);
        }
        if extents.len() > enough {
            break;
        }
    }
    extents
}

/// Appends what changed in one block that is stored in one of two states at least.
fn push_changes(extents: &mut Vec<Extent>, newer: &Pages, older: &Pages, index: u64, window: &Range<u64>) {
    let (new, old) = (newer.block(index), older.block(index));
    if let (Some(new), Some(old)) = (&new, &old)
        && Arc::ptr_eq(new, old)
    {
        return;
    }
    let present = new.as_ref().map_or(0, |block| block.present);
    let data = new.as_ref().map_or(0, |block| block.written_after(older.epoch));
    // A page that only rot allocated was never written.
    let clear = old.as_ref().map_or(0, |block| block.written_after(0)) & !present;
    let inside = window_bits(index, window);
    push_block(extents, index, data & inside, clear & inside);
}

/// Appends what was generated in `window` after `epoch`, where no block is stored.
fn push_ground(extents: &mut Vec<Extent>, pages: &Pages, epoch: u32, window: Range<u64>, enough: usize) {
    let Some(ground) = &pages.ground else { return };
    for run in ground.written_after(epoch, window) {
        push_joined(extents, ExtentKind::Data, run);
        if extents.len() > enough {
            return;
        }
    }
}

type Blocks = BTreeMap<u64, Arc<Block>>;

/// The numbers of the blocks that exist in `a` or in `b`, in order.
fn indexes_of_either(a: &Blocks, b: &Blocks, range: &Range<u64>) -> Vec<u64> {
    let mut indexes = Vec::new();
    let mut from_a = a.range(range.clone()).map(|(index, _)| *index).peekable();
    let mut from_b = b.range(range.clone()).map(|(index, _)| *index).peekable();
    while let Some(index) = [from_a.peek(), from_b.peek()].into_iter().flatten().min().copied() {
        from_a.next_if_eq(&index);
        from_b.next_if_eq(&index);
        indexes.push(index);
    }
    indexes
}

/// Appends the runs of pages in two bit sets of a block; no page is in both.
fn push_block(extents: &mut Vec<Extent>, index: u64, data: u128, clear: u128) {
    let mut page = 0;
    while page < u128::BITS {
        let skipped = ((data | clear) >> page).trailing_zeros();
        page += skipped;
        if page >= u128::BITS {
            return;
        }
        let (kind, set) =
            if (data >> page) & 1 == 1 { (ExtentKind::Data, data) } else { (ExtentKind::Clear, clear) };
        let run = (!(set >> page)).trailing_zeros();
        let start = index * BLOCK + u64::from(page) * PAGE;
        push_joined(extents, kind, start..start + u64::from(run) * PAGE);
        page += run;
    }
}

fn push_joined(extents: &mut Vec<Extent>, kind: ExtentKind, range: Range<u64>) {
    match extents.last_mut() {
        Some(last) if last.kind == kind && last.range.end == range.start => last.range.end = range.end,
        _ => extents.push(Extent { kind, range }),
    }
}

/// Adds what was cleared since `older` and holds nothing, whether or not it held something then.
fn add_clears_of_unwritten(
    reported: &mut RangeMap<u64, ExtentKind>,
    newer: &Pages,
    older: &Pages,
    window: &Range<u64>,
) {
    for (range, epoch) in newer.cleared.overlapping(window) {
        let range = range.start.max(window.start)..range.end.min(window.end);
        if *epoch > older.epoch && !range.is_empty() {
            reported.insert(range, ExtentKind::Clear);
        }
    }
    for extent in allocated(newer, window, usize::MAX) {
        reported.remove(extent.range);
    }
}

/// Takes away what the service may not report of a footer that moved: the page it left, the page it went to.
fn hide_footers(reported: &mut RangeMap<u64, ExtentKind>, newer: &Pages, older: &Pages, knobs: &Knobs) {
    let mut moved = false;
    for footer in newer.footer_moves.iter().filter(|moved| moved.epoch > older.epoch) {
        moved = true;
        let left = footer.old_page..footer.old_page + PAGE;
        if !knobs.old_footer_reported && !newer.has_data(&left) {
            reported.remove(left);
        }
    }
    if moved && !knobs.new_footer_reported && newer.len() >= PAGE {
        reported.remove(newer.len() - PAGE..newer.len());
    }
}

/// Reports whole granules: one in which anything changed is clear if nothing is left in it, and data otherwise. Both are
/// true of every page in it: data reads as the newer state does, clear reads as zeros.
fn coarsen(reported: &RangeMap<u64, ExtentKind>, newer: &Pages, granule: u64) -> RangeMap<u64, ExtentKind> {
    if granule == PAGE {
        return reported.clone();
    }
    let mut coarse = RangeMap::new();
    for (range, kind) in reported.iter() {
        let whole = round_outwards(range, granule, newer.len());
        match kind {
            ExtentKind::Data => coarse.insert(whole, ExtentKind::Data),
            ExtentKind::Clear => {
                // Only the granules at the two ends can hold pages outside `range`.
                let first = round_outwards(&(range.start..range.start + 1), granule, newer.len());
                let last = round_outwards(&(range.end - 1..range.end), granule, newer.len());
                coarse.insert(whole, ExtentKind::Clear);
                for end in [first, last] {
                    if newer.has_data(&end) {
                        coarse.insert(end, ExtentKind::Data);
                    }
                }
            }
        }
    }
    coarse
}

fn clip(extent: &Extent, window: &Range<u64>) -> Option<Extent> {
    let range = extent.range.start.max(window.start)..extent.range.end.min(window.end);
    (!range.is_empty()).then_some(Extent { kind: extent.kind, range })
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
