//! Every fault that the emulator can script, on every call that the engine makes: an identical point or a clean
//! error, and after a clean error the same step goes on. Never a sealed wrong point.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::time::Duration;

use snapferry::azure::{Client, PageBlob, RetryPolicy, Role, Timeouts};
use snapferry::base::points::points;
use snapferry::step::Report;
use snapferry::{ErrorKind, Result};
use snapferry_emulator::{BadPageList, BusyText, Call, Config, DiskSnapshot, Fault, FaultKind, Knobs};
use world::{MIB, World, noise};

const SOON: Duration = Duration::from_millis(60);

/// A world whose client gives up on a silent connection soon.
async fn impatient() -> World {
    let mut world = World::new().await;
    world.client.timeouts.call = Duration::from_millis(700);
    world.client.timeouts.stall = Duration::from_millis(300);
    world.client.retry.budget = Duration::from_secs(10);
    world.client.retry.longest_wait = Duration::from_millis(50);
    world.settings.plan.chunk = 256 << 10;
    world
}

async fn listed_points(world: &World) -> usize {
    let target = world::url(Role::Target, &world.target_url());
    points(&PageBlob::connect(target, &world.client).unwrap()).await.unwrap().len()
}

fn add(world: &World, fault: &Fault) {
    world.source.faults().add(fault.clone());
    world.target.faults().add(fault.clone());
}

fn clear(world: &World) {
    world.source.faults().clear();
    world.target.faults().clear();
}

fn fired(world: &World) -> u64 {
    world.source.faults().fired() + world.target.faults().fired()
}

/// Runs a step under faults. If it fails, it must have failed cleanly, and must go on once the faults are gone.
async fn through(
    world: &World,
    source: &DiskSnapshot,
    previous: Option<&DiskSnapshot>,
    sealed: usize,
    what: &str,
) -> Report {
    let first: Result<Report> = world.copy(source, previous).await;
    clear(world);
    let report = match first {
        Ok(report) => report,
        Err(error) => {
            let allowed = [
                ErrorKind::Unavailable,
                ErrorKind::Corruption,
                ErrorKind::AccessDenied,
                ErrorKind::Protocol,
                ErrorKind::LeaseHeld,
                ErrorKind::LeaseLost,
            ];
            assert!(allowed.contains(&error.kind()), "{what}: {error}");
            // Whatever is torn says so; a point that exists is right.
            world.target.advance_clock(Duration::from_secs(61));
            world
                .copy(source, previous)
                .await
                .unwrap_or_else(|error| panic!("{what}: it does not go on: {error}"))
        }
    };
    if what.contains("Late") || what.contains("Delayed") || what.contains("seed") {
        // What was delayed has its chance to do harm.
        tokio::time::sleep(2 * SOON).await;
    }
    world.assert_identical(&report, source);
    let base = world.base(None).unwrap();
    assert!(
        base.read(0, base.len()) == source.read(0, source.len()),
        "{what}: the base differs from its point"
    );
    assert_eq!(world.state().as_deref(), Some("clean"), "{what}");
    assert_eq!(listed_points(world).await, sealed, "{what}: sealed once");
    if !what.contains("Duplicate") && !what.contains("seed") {
        // Not even a snapshot too many, unless the network itself doubled the request.
        assert_eq!(world.points(), sealed, "{what}: one snapshot");
    }
    report
}

async fn full_and_difference(world: &World, fault: &Fault) {
    let what = format!("{fault:?}");
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 2 * MIB)).unwrap();
    let first = disk.snapshot();
    add(world, fault);
    through(world, &first, None, 1, &what).await;
    disk.write(MIB, &noise(2, MIB)).unwrap();
    disk.clear(0, 512 * 1024).unwrap();
    disk.grow(9 * MIB).unwrap();
    let second = disk.snapshot();
    add(world, fault);
    through(world, &second, Some(&first), 2, &what).await;
}

fn calls() -> [Call; 11] {
    [
        Call::GetBlob,
        Call::HeadBlob,
        Call::PageRanges,
        Call::PageRangesDiff,
        Call::PutBlob,
        Call::PutPage,
        Call::ClearPages,
        Call::SetProperties,
        Call::SetMetadata,
        Call::SnapshotBlob,
        Call::Lease,
    ]
}

/// One kind of fault on each call in turn, in the first requests and a little later.
async fn on_every_call(kind: FaultKind) {
    let mut met = 0;
    for call in calls() {
        for skip in [0, 2] {
            let world = impatient().await;
            full_and_difference(&world, &Fault::new(kind.clone()).on(call).skip(skip).times(2)).await;
            met += fired(&world);
        }
    }
    assert!(met > 0, "{kind:?} never happened");
}

#[tokio::test]
async fn throttling_in_each_of_its_words_is_waited_out() {
    for text in [BusyText::Busy, BusyText::Ingress, BusyText::Egress, BusyText::Operations] {
        on_every_call(FaultKind::ServerBusy(text)).await;
    }
    on_every_call(FaultKind::RetryAfter { seconds: 0 }).await;
}

#[tokio::test]
async fn errors_of_the_server_are_waited_out() {
    on_every_call(FaultKind::InternalError).await;
    on_every_call(FaultKind::OperationTimedOut { after: Duration::from_millis(5) }).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_before_the_request_is_applied_does_no_harm() {
    on_every_call(FaultKind::CutBeforeApply).await;
}

#[tokio::test]
async fn a_reply_that_is_lost_after_the_request_was_applied_does_no_harm() {
    on_every_call(FaultKind::CutAfterApply).await;
}

#[tokio::test]
async fn a_request_that_is_applied_late_or_twice_does_no_harm() {
    on_every_call(FaultKind::LateDuplicate { after: SOON }).await;
    on_every_call(FaultKind::DelayedApply { after: SOON }).await;
}

#[tokio::test]
async fn a_reply_that_is_cut_short_is_never_taken_for_whole() {
    for keep in [0, 1, 100, 4096] {
        on_every_call(FaultKind::TruncateBody { keep }).await;
    }
}

#[tokio::test]
async fn bytes_that_are_changed_on_the_way_are_found_in_both_directions() {
    for kind in [FaultKind::FlipByteInReply, FaultKind::FlipByteInRequest] {
        for call in [Call::GetBlob, Call::PutPage] {
            let world = impatient().await;
            full_and_difference(&world, &Fault::new(kind.clone()).on(call).skip(3).times(3)).await;
        }
    }
    for kind in [FaultKind::FlipByteInReply, FaultKind::FlipByteInRequest] {
        let world = impatient().await;
        let disk = world.disk(8 * MIB);
        disk.write(0, &noise(1, 2 * MIB)).unwrap();
        let snapshot = disk.snapshot();
        // The first reads (probe, footer) pass, the data never does.
        add(&world, &Fault::new(kind.clone()).skip(3).always());
        let error = world.copy(&snapshot, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{kind:?}: {error}");
        assert_eq!(world.points(), 0);
        assert_ne!(world.state().as_deref(), Some("clean"));
    }
}

#[tokio::test]
async fn silence_is_never_waited_for_without_end() {
    let lasting = Duration::from_secs(30);
    for call in calls() {
        let world = impatient().await;
        full_and_difference(&world, &Fault::new(FaultKind::Stall { lasting }).on(call).times(1)).await;
    }
    for call in [Call::GetBlob, Call::PageRanges, Call::PageRangesDiff] {
        let world = impatient().await;
        let stall = FaultKind::StallBody { after_bytes: 60, lasting };
        full_and_difference(&world, &Fault::new(stall).on(call).times(2)).await;
        assert!(fired(&world) > 0);
    }
}

#[tokio::test]
async fn a_sas_that_ends_in_the_middle_leaves_a_base_that_goes_on() {
    for call in [Call::GetBlob, Call::PutPage, Call::SetMetadata, Call::PageRangesDiff] {
        let world = impatient().await;
        full_and_difference(&world, &Fault::new(FaultKind::Forbidden).on(call).skip(2).always()).await;
    }
    let world = impatient().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 2 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    add(&world, &Fault::new(FaultKind::Forbidden).on(Call::GetBlob).skip(6).always());
    let error = world.copy(&snapshot, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.to_string().contains("the source"), "{error}");
    assert!(error.advice().unwrap().contains("grant-access"));
    assert_eq!(world.state().as_deref(), Some("applying"));
}

#[tokio::test]
async fn a_page_list_that_breaks_the_protocol_is_never_built_upon() {
    // Sizes whose pages are and are not a multiple of three, the length of the pattern of the bad lists; one bad
    // reply among good ones, and only bad ones.
    for list in
        [BadPageList::Overlapping, BadPageList::Misordered, BadPageList::Misaligned, BadPageList::OutOfBounds]
    {
        for (size, times) in [(8, 1), (8, u64::MAX), (64, 1), (64, u64::MAX)] {
            let mut world = impatient().await;
            world.settings.plan.join_gap = Some(0);
            let disk = world.disk(size * MIB);
            disk.write(0, &noise(1, MIB)).unwrap();
            let first = disk.snapshot();
            let bad = Fault::new(FaultKind::BadPageList(list)).times(times);
            add(&world, &bad);
            let error = world.copy(&first, None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{list:?}, {size} MiB: {error}");
            assert!(world.base(None).is_none_or(|base| base.snapshots().is_empty()));
            assert_ne!(world.state().as_deref(), Some("clean"));

            clear(&world);
            world.target.advance_clock(Duration::from_mins(2));
            world.copy(&first, None).await.unwrap();
            disk.write(2 * MIB, &noise(2, MIB)).unwrap();
            let second = disk.snapshot();
            world.source.faults().add(bad);
            let error = world.copy(&second, Some(&first)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{list:?}, {size} MiB: {error}");
            assert_eq!(world.points(), 1);
        }
    }
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_no_wrong_point_is_sealed() {
    for seed in 0..6 {
        let config = || Config {
            seed,
            knobs: Knobs { page_list_cut: Some(8192), ..Knobs::default() },
            ..Config::default()
        };
        let mut world = World::with(config(), config()).await;
        let patient = impatient().await;
        world.client = patient.client;
        world.settings.plan.chunk = 64 << 10;
        let disk = world.disk(8 * MIB);
        disk.write(0, &noise(seed, 3 * MIB)).unwrap();
        let mut previous = None;
        for round in 0..3 {
            for kind in [
                FaultKind::ServerBusy(BusyText::Busy),
                FaultKind::InternalError,
                FaultKind::CutBeforeApply,
                FaultKind::CutAfterApply,
                FaultKind::LateDuplicate { after: SOON },
                FaultKind::DelayedApply { after: SOON },
                FaultKind::FlipByteInReply,
                FaultKind::FlipByteInRequest,
                FaultKind::TruncateBody { keep: 700 },
            ] {
                add(&world, &Fault::new(kind).always().chance(0.02));
            }
            let snapshot = disk.snapshot();
            let sealed = usize::try_from(round).unwrap() + 1;
            let what = format!("seed {seed}, round {round}");
            through(&world, &snapshot, previous.as_ref(), sealed, &what).await;
            disk.write(round * MIB, &noise(seed + round + 1, MIB + 512)).unwrap();
            disk.clear((round + 3) * MIB, MIB).unwrap();
            previous = Some(snapshot);
        }
    }
}

/// The default window of 4 MiB chunks does not fit through this link within the time of a call: it must narrow
/// before everything in it times out together.
#[tokio::test]
async fn a_link_that_is_too_slow_for_the_window_is_not_filled_with_it() {
    use snapferry_emulator::Link;
    let mut world = World::new().await;
    let timeouts = Timeouts {
        connect: Duration::from_secs(2),
        call: Duration::from_secs(3),
        stall: Duration::from_secs(3),
    };
    let retry = RetryPolicy { budget: Duration::from_secs(6), ..RetryPolicy::default() };
    world.client = Client::new(timeouts, retry, None).unwrap();
    world.settings.copy.concurrency = 32;
    world.source.set_link(Link { bytes_per_second: Some(16 * MIB), ..Link::default() });
    let disk = world.disk(256 * MIB);
    disk.write(0, &noise(1, 128 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    let report = world.copy(&snapshot, None).await.unwrap();
    world.assert_identical(&report, &snapshot);
}

#[tokio::test]
async fn a_service_that_allows_little_is_not_run_against() {
    use snapferry_emulator::Link;
    let world = impatient().await;
    world.target.set_link(Link { blob_requests_per_second: Some(200), ..Link::default() });
    let disk = world.disk(16 * MIB);
    for i in 0..400 {
        disk.write(i * 40 * 1024, &noise(i, 512)).unwrap();
    }
    let mut world = world;
    world.settings.plan.join_gap = Some(0);
    let snapshot = disk.snapshot();
    let report = world.copy(&snapshot, None).await.unwrap();
    world.assert_identical(&report, &snapshot);
    assert!(report.retries > 0, "it was refused, and waited");
}

/// A lower bound on time cannot be broken by a busy machine: what went over the wire took at least as long as the
/// caps say, retries included.
#[tokio::test]
async fn caps_hold_for_what_goes_over_the_wire_retries_included() {
    let mut world = impatient().await;
    world.settings.plan.join_gap = Some(0);
    world.settings.caps.requests_per_second = Some(200);
    let disk = world.disk(16 * MIB);
    for i in 0..100 {
        disk.write(i * 64 * 1024, &noise(i, 512)).unwrap();
    }
    add(&world, &Fault::new(FaultKind::InternalError).on(Call::PutPage).chance(0.5).times(100));
    let snapshot = disk.snapshot();
    let report = world.copy(&snapshot, None).await.unwrap();
    let puts = world.target.stats().of(Call::PutPage).requests;
    assert!(puts > 150, "half of them were made again");
    // A quarter of a second's worth may go at once.
    let least = f64::from(u32::try_from(puts).unwrap() - 50) / 200.0;
    assert!(report.seconds >= least, "{puts} writes in {} s", report.seconds);

    let mut world = impatient().await;
    world.settings.plan.chunk = 64 << 10;
    world.settings.caps.bytes_per_second = Some(8 * MIB);
    let disk = world.disk(16 * MIB);
    disk.write(0, &noise(1, 6 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    let report = world.copy(&snapshot, None).await.unwrap();
    assert!(report.seconds >= 6.0 / 8.0, "6 MiB at 8 MiB/s in {} s", report.seconds);
}

/// What a list said before it proved wrong was copied already: it is not trusted, and its checkpoints go with it.
#[tokio::test]
async fn a_list_that_proves_wrong_takes_its_checkpoints_with_it() {
    let mut world = impatient().await;
    world.settings.plan.join_gap = Some(0);
    world.settings.listing.window = 16 * MIB;
    let disk = world.disk(64 * MIB);
    for i in 0..64 {
        disk.write(i * MIB + 4096, &noise(i, 512 * 1024)).unwrap();
    }
    let snapshot = disk.snapshot();
    world.source.faults().add(Fault::new(FaultKind::BadPageList(BadPageList::Misordered)).skip(2));
    let error = world.copy(&snapshot, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    let base = world.base(None).unwrap();
    assert!(!base.allocated_ranges().is_empty(), "something was copied before it showed");
    assert_eq!(base.metadata().get("snapferry_checkpoint").map(String::as_str), Some("0"));
    let report = world.copy(&snapshot, None).await.unwrap();
    world.assert_identical(&report, &snapshot);
}

/// Data that a wrong list had copied comes from the source and is right; what it had cleared is lost to the base.
#[tokio::test]
async fn what_a_wrong_list_had_cleared_is_never_sealed() {
    let mut world = impatient().await;
    world.settings.plan.join_gap = Some(0);
    world.settings.copy.concurrency = 1;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 8 * MIB)).unwrap();
    let first = disk.snapshot();
    let point = world.copy(&first, None).await.unwrap();
    disk.write(4 * MIB, &noise(2, MIB)).unwrap();
    let second = disk.snapshot();
    let lie = Fault::new(FaultKind::BadPageList(BadPageList::FalseClear)).on(Call::PageRangesDiff);
    world.source.faults().add(lie);
    let error = world.copy(&second, Some(&first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(world.base(None).unwrap().read(0, 4096).iter().all(|byte| *byte == 0), "it was cleared");

    let error = world.copy(&second, Some(&first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseNotClean, "{error}");
    assert!(error.advice().unwrap().contains("snapferry rollback"), "{error}");
    let (progress, cancel) = Default::default();
    let target = world::url(snapferry::azure::Role::Target, &world.target_url());
    snapferry::rollback::rollback(&target, &world.client, &world.settings, &progress, &cancel).await.unwrap();
    let report = world.copy(&second, Some(&first)).await.unwrap();
    world.assert_identical(&report, &second);
    world.assert_identical(&point, &first);
}
