//! Diffs against the recordings, and against a model that keeps a whole state per snapshot.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::store::pages::PageData;

/// More extents than any list here has.
const ALL: usize = usize::MAX;

const KINDS: [ExtentKind; 2] = [ExtentKind::Data, ExtentKind::Clear];

fn write(pages: &mut Pages, range: Range<u64>, byte: u8) {
    let bytes = vec![byte; usize::try_from(range.end - range.start).unwrap()];
    pages.write(&PageData::of(range.start, &bytes));
}

fn data(range: Range<u64>) -> Extent {
    Extent { kind: ExtentKind::Data, range }
}

fn clear(range: Range<u64>) -> Extent {
    Extent { kind: ExtentKind::Clear, range }
}

#[test]
fn alternating_writes_and_clears_come_interleaved() {
    let mut pages = Pages::new(4096);
    write(&mut pages, 0..4096, b'b');
    let older = pages.freeze();
    for page in 0..8 {
        let range = page * 512..(page + 1) * 512;
        if page % 2 == 0 { write(&mut pages, range, b'a') } else { pages.clear(range) }
    }
    let extents = changes(&pages, &older, &(0..4096), &Knobs::default(), ALL);
    let expected: Vec<Extent> = (0..8_u64)
        .map(|page| Extent { kind: KINDS[usize::from(page % 2 == 1)], range: page * 512..page * 512 + 512 })
        .collect();
    assert_eq!(extents, expected);
}

#[test]
fn a_clear_alone() {
    let mut pages = Pages::new(6144);
    write(&mut pages, 0..2048, 1);
    write(&mut pages, 4096..6144, 1);
    let older = pages.freeze();
    pages.clear(4096..5120);
    assert_eq!(allocated(&pages, &(0..6144), ALL), [data(0..2048), data(5120..6144)]);
    assert_eq!(changes(&pages, &older, &(0..6144), &Knobs::default(), ALL), [clear(4096..5120)]);
}

#[test]
fn the_last_of_write_and_clear_counts() {
    let mut pages = Pages::new(4096);
    write(&mut pages, 0..1024, 1);
    let older = pages.freeze();
    write(&mut pages, 0..512, 2);
    pages.clear(0..512);
    pages.clear(512..1024);
    write(&mut pages, 512..1024, 1);
    write(&mut pages, 2048..2560, 1);
    pages.clear(2048..2560);
    assert_eq!(changes(&pages, &older, &(0..4096), &Knobs::default(), ALL), [clear(0..512), data(512..1024)]);
    let knobs = Knobs { clear_of_unwritten_reported: true, ..Knobs::default() };
    let expected = [clear(0..512), data(512..1024), clear(2048..2560)];
    assert_eq!(changes(&pages, &older, &(0..4096), &knobs, ALL), expected);
}

#[test]
fn ranges_join_over_the_edges_of_blocks_and_are_cut_on_demand() {
    let mut pages = Pages::new(4 * BLOCK);
    let older = pages.freeze();
    write(&mut pages, BLOCK - 512..3 * BLOCK + 512, 1);
    let extents = changes(&pages, &older, &(0..4 * BLOCK), &Knobs::default(), ALL);
    assert_eq!(extents, [data(BLOCK - 512..3 * BLOCK + 512)]);
    let pieces = cut(&extents, 2 * BLOCK);
    assert_eq!(pieces, [data(BLOCK - 512..2 * BLOCK), data(2 * BLOCK..3 * BLOCK + 512)]);
}

#[test]
fn footers_after_growth() {
    let mut pages = Pages::new(4096 + 512);
    write(&mut pages, 0..512, 1);
    write(&mut pages, 4096..4608, b'f');
    let older = pages.freeze();
    pages.grow_with_footer(8192 + 512, &[b'g'; 512]);
    let window = 0..pages.len();
    let diff = |pages: &Pages, knobs: &Knobs| changes(pages, &older, &window, knobs, ALL);
    assert_eq!(diff(&pages, &Knobs::default()), [data(8192..8704)]);
    let knobs = Knobs { old_footer_reported: true, new_footer_reported: false, ..Knobs::default() };
    assert_eq!(diff(&pages, &knobs), [clear(4096..4608)]);
    write(&mut pages, 4096..4608, 2);
    assert_eq!(diff(&pages, &Knobs::default()), [data(4096..4608), data(8192..8704)]);
}

/// A step of a blob's life; pages are counted from 0.
#[derive(Clone, Debug)]
enum Step {
    Write(Range<u64>),
    Clear(Range<u64>),
    Resize(u64),
    Snapshot,
}

const MOST_PAGES: u64 = 300;

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..MOST_PAGES, 1..40_u64).prop_map(|(start, length)| start..start + length);
    prop_oneof![
        6 => range().prop_map(Step::Write),
        4 => range().prop_map(Step::Clear),
        1 => (1..=MOST_PAGES).prop_map(Step::Resize),
        2 => Just(Step::Snapshot),
    ]
}

/// What a diff must know of a page: its content, and when it was last written and cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ModelPage {
    content: Option<u8>,
    written: usize,
    cleared: usize,
}

#[derive(Clone, Debug)]
struct Model {
    pages: Vec<ModelPage>,
    taken_at: usize,
}

impl Model {
    fn expected(&self, older: &Model, page: usize, knobs: &Knobs) -> Option<ExtentKind> {
        let now = self.pages[page];
        let then = older.pages.get(page).copied().unwrap_or_default();
        match (then.content, now.content) {
            (_, Some(_)) => (now.written > older.taken_at).then_some(ExtentKind::Data),
            (Some(_), None) => Some(ExtentKind::Clear),
            (None, None) => {
                let cleared = knobs.clear_of_unwritten_reported && now.cleared > older.taken_at;
                cleared.then_some(ExtentKind::Clear)
            }
        }
    }
}

/// Runs the steps on the store and on the model, and returns the states at each snapshot and at the end.
fn run(steps: &[Step]) -> Vec<(Pages, Model)> {
    let mut pages = Pages::new(100 * PAGE);
    let mut model = Model { pages: vec![ModelPage::default(); 100], taken_at: 0 };
    let mut states = Vec::new();
    for (time, step) in steps.iter().enumerate() {
        let time = time + 1;
        let byte = u8::try_from(time % 251).unwrap() + 1;
        let inside = |range: &Range<u64>| {
            let end = range.end.min(pages.len() / PAGE);
            range.start.min(end)..end
        };
        let indexes =
            |range: &Range<u64>| usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        match step {
            Step::Write(range) => {
                let range = inside(range);
                write(&mut pages, range.start * PAGE..range.end * PAGE, byte);
                for page in &mut model.pages[indexes(&range)] {
                    (page.content, page.written) = (Some(byte), time);
                }
            }
            Step::Clear(range) => {
                let range = inside(range);
                pages.clear(range.start * PAGE..range.end * PAGE);
                for page in &mut model.pages[indexes(&range)] {
                    (page.content, page.cleared) = (None, time);
                }
            }
            Step::Resize(length) => {
                pages.resize(length * PAGE);
                model.pages.resize(usize::try_from(*length).unwrap(), ModelPage::default());
            }
            Step::Snapshot => {
                let frozen = Model { taken_at: time, ..model.clone() };
                states.push((pages.freeze(), frozen));
            }
        }
    }
    states.push((pages, Model { taken_at: steps.len() + 1, ..model }));
    states
}

/// Checks order and alignment, and returns what is said of each page of the window.
fn by_page(extents: &[Extent], window: &Range<u64>) -> Vec<Option<ExtentKind>> {
    let mut kinds = vec![None; usize::try_from(window.end.div_ceil(PAGE)).unwrap()];
    let mut end = window.start;
    for extent in extents {
        assert!(extent.range.start >= end && extent.range.end <= window.end && !extent.range.is_empty());
        assert!(extent.range.start % PAGE == 0 && extent.range.end % PAGE == 0);
        end = extent.range.end;
        for page in extent.range.start / PAGE..extent.range.end / PAGE {
            kinds[usize::try_from(page).unwrap()] = Some(extent.kind);
        }
    }
    kinds
}

proptest! {
    #[test]
    fn diffs_and_bytes_agree_with_the_model(
        steps in prop::collection::vec(step(), 1..40),
        clears in any::<bool>(),
        window in (0..MOST_PAGES, 1..MOST_PAGES),
    ) {
        let states = run(&steps);
        // A clear of pages that a shrink dropped may or may not be remembered over a growth; no service tells.
        let resized = steps.iter().any(|step| matches!(step, Step::Resize(_)));
        let knobs = Knobs { clear_of_unwritten_reported: clears && !resized, ..Knobs::default() };
        for (newer_at, (newer, newer_model)) in states.iter().enumerate() {
            let contents = newer.view(0..newer.len()).to_vec();
            for (page, bytes) in contents.chunks(512).enumerate() {
                let content = newer_model.pages[page].content.unwrap_or(0);
                prop_assert!(bytes.iter().all(|byte| *byte == content));
            }
            let end = ((window.0 + window.1) * PAGE).min(newer.len());
            let window = (window.0 * PAGE).min(end)..end;
            for (older, older_model) in &states[..newer_at] {
                let kinds = by_page(&changes(newer, older, &window, &knobs, ALL), &window);
                let pages = window.start / PAGE..window.end / PAGE;
                for page in pages.map(|page| usize::try_from(page).unwrap()) {
                    prop_assert_eq!(kinds[page], newer_model.expected(older_model, page, &knobs), "page {}", page);
                }
            }
        }
    }

    #[test]
    fn coarse_diffs_lose_nothing_and_stay_true(
        steps in prop::collection::vec(step(), 1..40),
        granule in prop::sample::select(vec![1024_u64, 4096, 12_800, 65_536, 131_072]),
        window in (0..MOST_PAGES, 1..MOST_PAGES),
    ) {
        let states = run(&steps);
        let exact = Knobs::default();
        let coarse = Knobs { diff_granularity: granule, ..Knobs::default() };
        for (newer_at, (newer, _)) in states.iter().enumerate() {
            let end = ((window.0 + window.1) * PAGE).min(newer.len());
            let window = (window.0 * PAGE).min(end)..end;
            for (older, _) in &states[..newer_at] {
                let fine = by_page(&changes(newer, older, &window, &exact, ALL), &window);
                let kinds = by_page(&changes(newer, older, &window, &coarse, ALL), &window);
                for page in window.start / PAGE..window.end / PAGE {
                    let (fine, kind) = (fine[usize::try_from(page).unwrap()], kinds[usize::try_from(page).unwrap()]);
                    prop_assert!(fine.is_none() || kind.is_some(), "page {} is lost", page);
                    let holds_data = newer.has_data(&(page * PAGE..(page + 1) * PAGE));
                    prop_assert!(kind != Some(ExtentKind::Clear) || !holds_data, "page {} is not clear", page);
                    prop_assert!(fine != Some(ExtentKind::Data) || kind == Some(ExtentKind::Data));
                }
            }
        }
    }
}
