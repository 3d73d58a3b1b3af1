//! One chunk of a comparison: what both sides hold is read, and each leaf is judged.

use crate::azure::crc64::Crc64;
use crate::azure::failure::CallResult;
use crate::copy::chunk::Source;
use crate::copy::scan::ZeroRule;
use crate::leaf::{self, LEAF, Sums, leaf_of};
use crate::range::{PAGE, PageRange};
use crate::record::Expect;

use super::differences::Wrong;

/// Whatever is read comes as one piece.
const AS_ONE: ZeroRule = ZeroRule { shortest_run: u64::MAX, trim_edges: false };

/// What is to be done for one chunk.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// What is compared of it: ascending, whole leaves.
    pub(super) scope: Vec<PageRange>,
    /// What is read of that, because one of the sides holds something there: ascending, whole leaves. The rest is zero on
    /// all sides that can be read.
    pub(super) reads: Vec<PageRange>,
    /// Number of the first leaf of `expected`.
    pub(super) first: u64,
    /// What the leaves must be; `None` without a record.
    pub(super) expected: Option<Vec<Expect>>,
    /// Which of these the point's own step wrote.
    pub(super) written: Option<Vec<bool>>,
    /// Length of the image.
    pub(super) length: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) found: Vec<(PageRange, Wrong)>,
    pub(super) compared: u64,
    pub(super) read: u64,
    pub(super) unknown: u64,
}

/// A range of one side that was read.
struct Held {
    range: PageRange,
    /// Empty where only checksums are compared.
    bytes: Vec<u8>,
    sums: Sums,
}

/// One leaf of one side.
#[derive(Clone, Copy)]
struct Leaf<'a> {
    /// `None` where nothing was read: zeros.
    bytes: Option<&'a [u8]>,
    sum: Crc64,
}

pub(super) async fn look(task: Task, image: Source, source: Option<Source>) -> CallResult<Looked> {
    let mut looked = Looked::default();
    let wants_bytes = source.is_some();
    let mut reads = task.reads.iter().copied();
    let mut held: Option<(Held, Option<Held>)> = None;
    for leaf in task.scope.iter().flat_map(|scope| leaves(*scope, task.length)) {
        while held.as_ref().is_none_or(|(image, _)| image.range.end() <= leaf.start()) {
            let Some(range) = reads.next() else { break };
            looked.read += range.len();
            held = Some(match &source {
                None => (read(&image, range, wants_bytes).await?, None),
                Some(source) => {
                    let (image, source) = futures::try_join!(
                        read(&image, range, wants_bytes),
                        read(source, range, wants_bytes)
                    )?;
                    (image, Some(source))
                }
            });
        }
        let of_image = of(held.as_ref().map(|(image, _)| image), leaf);
        let of_source = held.as_ref().and_then(|(_, source)| source.as_ref());
        let of_source = source.is_some().then(|| of(of_source, leaf));
        looked.judge(leaf, of_image, of_source, task.expect(leaf), task.was_read(leaf));
    }
    Ok(looked)
}

impl Task {
    fn expect(&self, leaf: PageRange) -> Expect {
        let index = usize::try_from(leaf_of(leaf.start()) - self.first).unwrap_or(usize::MAX);
        let expected = self.expected.as_ref().and_then(|expected| expected.get(index));
        expected.copied().unwrap_or(Expect::Unknown)
    }
}

impl Task {
    /// Whether the step that made the point read the leaf from this very source. What it did not read, or only cleared, it
    /// took from the page list, and so did the record.
    fn was_read(&self, leaf: PageRange) -> bool {
        let index = usize::try_from(leaf_of(leaf.start()) - self.first).unwrap_or(usize::MAX);
        let written = self.written.as_ref().and_then(|written| written.get(index));
        written == Some(&true) && matches!(self.expect(leaf), Expect::Sum(_))
    }
}

impl Looked {
    fn judge(
        &mut self,
        leaf: PageRange,
        image: Leaf<'_>,
        source: Option<Leaf<'_>>,
        expect: Expect,
        was_read: bool,
    ) {
        self.compared += leaf.len();
        let is_recorded = expect.is_met_by(image.sum, leaf.len());
        let Some(source) = source else {
            match is_recorded {
                Some(true) => {}
                Some(false) => self.found.push((leaf, Wrong::Unclear)),
                None => self.unknown += leaf.len(),
            }
            return;
        };
        let pages = differing_pages(leaf, image.bytes, source.bytes);
        if pages.is_empty() {
            if is_recorded == Some(false) {
                self.found.push((leaf, Wrong::Record));
            }
            return;
        }
        let wrong = match (is_recorded, expect.is_met_by(source.sum, leaf.len())) {
            (Some(false), Some(true)) => Wrong::Point,
            (Some(true), Some(false)) if was_read => Wrong::Source,
            (Some(true), Some(false)) => Wrong::List,
            _ => Wrong::Unclear,
        };
        self.found.extend(pages.into_iter().map(|page| (page, wrong)));
    }
}

async fn read(side: &Source, range: PageRange, wants_bytes: bool) -> CallResult<Held> {
    let scanned = side.read(range, AS_ONE).await?;
    let mut bytes = Vec::new();
    if wants_bytes {
        for piece in &scanned.pieces {
            match &piece.data {
                Some((frames, _)) => frames.iter().for_each(|frame| bytes.extend_from_slice(frame)),
                None => bytes.resize(bytes.len() + usize::try_from(piece.range.len()).unwrap_or_default(), 0),
            }
        }
    }
    Ok(Held { range, bytes, sums: scanned.sums })
}

fn of(held: Option<&Held>, leaf: PageRange) -> Leaf<'_> {
    let nothing = Leaf { bytes: None, sum: Crc64::of_zeros(leaf.len()) };
    let Some(held) = held.filter(|held| held.range.intersection(leaf) == Some(leaf)) else { return nothing };
    let from = usize::try_from(leaf.start() - held.range.start()).unwrap_or(usize::MAX);
    let length = usize::try_from(leaf.len()).unwrap_or(usize::MAX);
    let bytes = held.bytes.get(from..from.saturating_add(length));
    let index = usize::try_from((leaf.start() - held.range.start()) / LEAF).unwrap_or(usize::MAX);
    match &held.sums {
        Sums::Zeros => Leaf { bytes, ..nothing },
        Sums::Leaves(sums) => match sums.get(index) {
            Some(sum) => Leaf { bytes, sum: Crc64::from_parts(*sum, leaf.len()) },
            None => nothing,
        },
    }
}

fn leaves(range: PageRange, length: u64) -> impl Iterator<Item = PageRange> {
    (leaf_of(range.start())..range.end().div_ceil(LEAF))
        .filter_map(move |number| leaf::range_of(number, length))
}

fn differing_pages(leaf: PageRange, one: Option<&[u8]>, other: Option<&[u8]>) -> Vec<PageRange> {
    if one == other {
        return Vec::new();
    }
    let zeros = [0; 512];
    let page_of = |bytes: Option<&'_ [u8]>, at: u64| -> Vec<u8> {
        let from = usize::try_from(at - leaf.start()).unwrap_or(usize::MAX);
        let page = bytes.and_then(|bytes| bytes.get(from..from.saturating_add(zeros.len())));
        page.unwrap_or(&zeros).to_vec()
    };
    let pages = (leaf.start()..leaf.end()).step_by(zeros.len());
    pages
        .filter(|at| page_of(one, *at) != page_of(other, *at))
        .filter_map(|at| PageRange::new(at, at + PAGE).ok())
        .collect()
}
