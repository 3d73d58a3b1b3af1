//! Any history of a disk, under any settings, against any way in which the service may word its answers: after
//! each step the point equals a reference model that is nothing but a vector of bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use proptest::prelude::*;
use snapferry::plan::PlanOptions;
use snapferry_emulator::{Config, Knobs};
use world::World;

const PAGE: u64 = 512;
const FIRST_PAGES: u64 = 2048;

#[derive(Clone, Debug)]
enum Event {
    Write { at: u64, pages: u64, seed: u64 },
    Zero { at: u64, pages: u64 },
    Clear { at: u64, pages: u64 },
    Grow { pages: u64 },
    Snapshot,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<u64>(), 1_u64..300, any::<u64>()).prop_map(|(at, pages, seed)| Event::Write { at, pages, seed }),
        2 => (any::<u64>(), 1_u64..300).prop_map(|(at, pages)| Event::Zero { at, pages }),
        3 => (any::<u64>(), 1_u64..600).prop_map(|(at, pages)| Event::Clear { at, pages }),
        1 => (1_u64..900).prop_map(|pages| Event::Grow { pages }),
        3 => Just(Event::Snapshot),
    ]
}

#[derive(Clone, Debug)]
struct Ways {
    chunk: u64,
    /// Zero stands for as wide as pays.
    join_gap: u64,
    zero_run: u64,
    window: u64,
    concurrency: usize,
    granularity: u64,
    cut: Option<u64>,
    maxresults: Option<usize>,
    booleans: (bool, bool, bool),
}

fn ways() -> impl Strategy<Value = Ways> {
    (
        1_u64..200,
        0_u64..64,
        1_u64..64,
        100_u64..3000,
        1_usize..9,
        1_u64..9,
        proptest::option::of(1_u64..50),
        proptest::option::of(1_usize..9),
        any::<(bool, bool, bool)>(),
    )
        .prop_map(|(chunk, gap, zero, window, concurrency, granularity, cut, maxresults, booleans)| {
            Ways {
                chunk: chunk * PAGE,
                join_gap: gap * PAGE,
                zero_run: zero * PAGE,
                window: window * PAGE,
                concurrency,
                granularity: granularity * PAGE,
                cut: cut.map(|pages| pages * PAGE),
                maxresults,
                booleans,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_point_equals_its_snapshot(events in proptest::collection::vec(event(), 1..40), ways in ways()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(events, &ways));
    }
}

async fn check(mut events: Vec<Event>, ways: &Ways) {
    let (clear_of_unwritten_reported, old_footer_reported, new_footer_reported) = ways.booleans;
    let knobs = Knobs {
        diff_granularity: ways.granularity,
        page_list_cut: ways.cut,
        default_maxresults: ways.maxresults,
        clear_of_unwritten_reported,
        old_footer_reported,
        new_footer_reported,
        ..Knobs::default()
    };
    let mut world = World::with(Config { knobs, ..Config::default() }, Config::default()).await;
    world.settings.plan =
        PlanOptions { chunk: ways.chunk, join_gap: (ways.join_gap > 0).then_some(ways.join_gap) };
    world.settings.zero_run = ways.zero_run;
    world.settings.listing.window = ways.window;
    world.settings.copy.concurrency = ways.concurrency;

    let disk = world.disk(FIRST_PAGES * PAGE);
    let mut model = vec![0_u8; usize::try_from(FIRST_PAGES * PAGE).unwrap()];
    let mut sealed = Vec::new();
    let mut previous = None;
    events.push(Event::Snapshot);
    for event in events {
        match event {
            Event::Write { at, pages, seed } => {
                let (at, length) = place(&model, at, pages);
                let mut bytes = world::noise(seed, length);
                // Some pages of what is written are zeros.
                bytes
                    .chunks_mut(512)
                    .enumerate()
                    .filter(|(i, _)| (seed >> (i % 64)).is_multiple_of(4))
                    .for_each(|(_, page)| page.fill(0));
                disk.write(at, &bytes).unwrap();
                put(&mut model, at, &bytes);
            }
            Event::Zero { at, pages } => {
                let (at, length) = place(&model, at, pages);
                let zeros = vec![0; usize::try_from(length).unwrap()];
                disk.write(at, &zeros).unwrap();
                put(&mut model, at, &zeros);
            }
            Event::Clear { at, pages } => {
                let (at, length) = place(&model, at, pages);
                disk.clear(at, length).unwrap();
                put(&mut model, at, &vec![0; usize::try_from(length).unwrap()]);
            }
            Event::Grow { pages } => {
                model.resize(model.len() + usize::try_from(pages * PAGE).unwrap(), 0);
                disk.grow(model.len() as u64).unwrap();
            }
            Event::Snapshot => {
                let snapshot = disk.snapshot();
                let report = world.copy(&snapshot, previous.as_ref()).await.unwrap();
                sealed.push((report, model.clone()));
                previous = Some(snapshot);
            }
        }
    }
    // Later steps must not have changed earlier points.
    for (report, model) in &sealed {
        let point = world.base(Some(&report.point.point)).unwrap();
        assert_eq!(point.len(), model.len() as u64 + PAGE);
        assert!(point.read(0, model.len() as u64) == *model, "a point differs from the model");
        let footer = point.read(model.len() as u64, PAGE);
        assert_eq!(snapferry::vhd::inspect(&footer, point.len()), snapferry::vhd::Footer::Valid);
    }
}

/// A place for `pages` pages in the model, and their length in bytes.
fn place(model: &[u8], at: u64, pages: u64) -> (u64, u64) {
    let all = model.len() as u64 / PAGE;
    let start = at % all;
    (start * PAGE, pages.min(all - start) * PAGE)
}

fn put(model: &mut [u8], at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).unwrap();
    model[at..at + bytes.len()].copy_from_slice(bytes);
}
