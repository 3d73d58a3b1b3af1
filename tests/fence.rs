//! One writer: of a writer that was overtaken, paused or killed nothing lands, and the work goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod scene;
mod world;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use scene::{LEASE_LAPSES, to_be_overtaken};
use snapferry::ErrorKind;
use snapferry::azure::crc64::Crc64;
use snapferry::azure::{Fence, PageBlob, Role};
use snapferry::base::Base;
use snapferry::base::lease::LeaseOptions;
use snapferry::copy::frontier::Checkpoint;
use snapferry::copy::keeper::Keeper;
use snapferry::range::PageRange;
use snapferry_emulator::{Call, DiskSnapshot, Fault, FaultKind};
use world::{MIB, World, noise, raw, snapferry, text, url};

async fn two_snapshots(world: &World) -> (DiskSnapshot, DiskSnapshot) {
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    world.copy(&first, None).await.unwrap();
    disk.write(MIB, &noise(2, MIB)).unwrap();
    (first, disk.snapshot())
}

#[tokio::test]
async fn no_write_of_an_overtaken_writer_lands_whatever_it_tries() {
    let world = World::new().await;
    let (first, second) = two_snapshots(&world).await;
    let blob = PageBlob::connect(url(Role::Target, &world.target_url()), &world.client).unwrap();
    let mut loser = to_be_overtaken(&blob, &first, &second).await;
    let stale = loser.fence();

    world.target.advance_clock(LEASE_LAPSES);
    let report = world.copy(&second, Some(&first)).await.unwrap();
    world.assert_identical(&report, &second);

    let page = PageRange::new(0, 512).unwrap();
    let junk = vec![0xee; 512];
    let put = |fence: Fence| {
        let (blob, junk) = (blob.clone(), junk.clone());
        async move { blob.put_pages(page, vec![Bytes::from(junk.clone())], Crc64::of(&junk), &fence).await }
    };
    assert!(
        put(stale.clone()).await.unwrap_err().is_fenced(),
        "a write with lease and generation of the loser"
    );
    assert!(blob.clear_pages(page, &stale).await.unwrap_err().is_fenced());
    assert!(loser.note(Checkpoint::default()).await.unwrap_err().is_fenced(), "a checkpoint of the loser");
    assert!(loser.seal(Checkpoint { offset: second.len(), ..Checkpoint::default() }).await.is_err());

    // Each half of the fence holds by itself: a new lease with the old generation, and no lease at all.
    let now = Base::own(&blob, LeaseOptions::default()).await.unwrap().fence();
    assert!(now.generation > stale.generation);
    let old_generation = Fence { lease_id: now.lease_id.clone(), generation: stale.generation };
    assert_eq!(put(old_generation).await.unwrap_err().code(), "SequenceNumberConditionNotMet");
    let old_lease = Fence { lease_id: stale.lease_id.clone(), generation: now.generation };
    assert!(put(old_lease).await.unwrap_err().is_fenced());
    let base = world.base(None).unwrap();
    assert!(base.read(0, base.len()) == second.read(0, second.len()), "the base still equals its last point");
    assert_eq!((world.points(), world.state().as_deref()), (2, Some("clean")));
}

#[tokio::test]
async fn of_two_runs_of_one_step_at_once_one_writes() {
    let world = World::new().await;
    let (first, second) = two_snapshots(&world).await;
    let (one, two) = tokio::join!(world.copy(&second, Some(&first)), world.copy(&second, Some(&first)));
    let kinds: Vec<_> =
        [&one, &two].iter().filter_map(|run| run.as_ref().err()).map(snapferry::Error::kind).collect();
    assert!(kinds.is_empty() || kinds == [ErrorKind::LeaseHeld], "{kinds:?}");
    let report = one.or(two).unwrap();
    world.assert_identical(&report, &second);
    assert_eq!(world.points(), 2);
}

/// A seal that a crash interrupted: before the snapshot was made, and after.
#[tokio::test]
async fn a_seal_that_was_interrupted_is_finished_and_never_made_twice() {
    for point_was_made in [true, false] {
        let world = World::new().await;
        let (first, second) = two_snapshots(&world).await;
        let sealed = world.copy(&second, Some(&first)).await.unwrap();
        // Back to the moment before "clean" was written.
        let mut metadata = world.base(None).unwrap().metadata().clone();
        metadata.insert("snapferry_state".to_owned(), "sealing".to_owned());
        metadata.insert("snapferry_point".to_owned(), "none".to_owned());
        let headers: Vec<(&'static str, &str)> = metadata
            .iter()
            .map(|(name, value)| (&*Box::leak(format!("x-ms-meta-{name}").into_boxed_str()), value.as_str()))
            .collect();
        let set =
            raw(Method::PUT, &format!("{}&comp=metadata", world.target_url()), &headers, Vec::new()).await;
        assert_eq!(set.status().as_u16(), 200);
        if !point_was_made {
            let point = format!("{}&snapshot={}", world.target_url(), sealed.point.point);
            assert_eq!(raw(Method::DELETE, &point, &[], Vec::new()).await.status().as_u16(), 202);
        }
        let again = world.copy(&second, Some(&first)).await.unwrap();
        world.assert_identical(&again, &second);
        assert_eq!(again.point.point == sealed.point.point, point_was_made);
        assert_eq!((world.points(), world.state().as_deref()), (2, Some("clean")));
    }
}

/// A backup job may snapshot the base while it is torn: its snapshot carries our marker, and is no point.
#[tokio::test]
async fn a_snapshot_that_somebody_else_took_of_a_torn_base_is_never_taken_for_the_point() {
    let world = World::new().await;
    let snapshot = large_snapshot(&world);
    let mut torn = None;
    world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::PutPage).skip(3).always());
    for after_the_snapshot in [false, true] {
        assert!(world.copy(&snapshot, None).await.is_err());
        assert_eq!(world.state().as_deref(), Some("applying"));
        let foreign =
            raw(Method::PUT, &format!("{}&comp=snapshot", world.target_url()), &[], Vec::new()).await;
        assert_eq!(foreign.status().as_u16(), 201);
        torn = world.base(None).unwrap().snapshots().last().cloned();
        world.target.faults().clear();
        if !after_the_snapshot {
            world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::PutPage).skip(3).always());
        }
    }
    // The reply to our own snapshot is lost: what is found in the list must be ours.
    world.target.faults().add(Fault::new(FaultKind::CutBeforeApply).on(Call::SnapshotBlob));
    let report = world.copy(&snapshot, None).await.unwrap();
    assert_ne!(Some(&report.point.point), torn.as_ref());
    world.assert_identical(&report, &snapshot);
    let blob = PageBlob::connect(url(Role::Target, &world.target_url()), &world.client).unwrap();
    let points = snapferry::base::points::points(&blob).await.unwrap();
    assert_eq!(points.len(), 1, "torn snapshots are not listed as points");
}

/// A copy in a process of its own that is slow enough to be caught in the middle.
struct Slow {
    child: Child,
}

impl Slow {
    async fn start(world: &World, source: &DiskSnapshot) -> Self {
        let mut command = snapferry();
        command.args([
            "copy",
            "--quiet",
            "--rate-limit",
            "8MiB/s",
            "--concurrency",
            "2",
            "--checkpoint-every",
            "50ms",
        ]);
        command.args([
            "--chunk-size",
            "256KiB",
            "--source",
            &source.grant(),
            "--target",
            &world.target_url(),
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let mut slow = Self { child };
        for _ in 0..2000 {
            let checkpoint =
                world.base(None).and_then(|base| base.metadata().get("snapferry_checkpoint").cloned());
            if checkpoint.is_some_and(|offset| offset.parse::<u64>().unwrap() > 0) {
                return slow;
            }
            assert!(slow.child.try_wait().unwrap().is_none(), "it ended before it could be caught");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the copy never wrote a checkpoint");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    async fn end(self) -> (Option<i32>, String) {
        let output =
            tokio::task::spawn_blocking(move || self.child.wait_with_output().unwrap()).await.unwrap();
        (output.status.code(), text(&output.stderr))
    }
}

fn large_snapshot(world: &World) -> DiskSnapshot {
    let disk = world.disk(64 * MIB);
    disk.write(0, &noise(1, 32 * MIB)).unwrap();
    disk.snapshot()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_writer_that_wakes_up_finds_itself_fenced() {
    let world = World::new().await;
    let snapshot = large_snapshot(&world);
    let paused = Slow::start(&world, &snapshot).await;
    paused.signal("-STOP");
    world.target.advance_clock(LEASE_LAPSES);
    let report = world.copy(&snapshot, None).await.unwrap();
    world.assert_identical(&report, &snapshot);
    assert!(report.resumed_from.is_some());
    paused.signal("-CONT");
    let (code, stderr) = paused.end().await;
    assert_eq!(code, Some(18), "{stderr}");
    assert!(stderr.contains("its marker was last written by"), "who may hold it: {stderr}");
    world.assert_identical(&report, &snapshot);
    let base = world.base(None).unwrap();
    assert!(base.read(0, base.len()) == snapshot.read(0, snapshot.len()));
    assert_eq!((world.points(), world.state().as_deref()), (1, Some("clean")));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_goes_on_from_its_checkpoint_on_another_machine() {
    let world = World::new().await;
    let snapshot = large_snapshot(&world);
    let killed = Slow::start(&world, &snapshot).await;
    killed.signal("-KILL");
    killed.end().await;
    assert_eq!(world.state().as_deref(), Some("applying"), "a torn base says so");
    assert_eq!(world.copy(&snapshot, None).await.unwrap_err().kind(), ErrorKind::LeaseHeld);
    world.target.advance_clock(LEASE_LAPSES);
    let report = world.copy(&snapshot, None).await.unwrap();
    world.assert_identical(&report, &snapshot);
    let resumed = report.resumed_from.expect("it goes on where the checkpoint stands");
    assert!(resumed > 0 && report.bytes_sent <= 32 * MIB + 512 - resumed);
    let whole = Crc64::of(&snapshot.read(0, snapshot.len()));
    assert_eq!(report.point.digest, Some(format!("{:016x}", whole.value())), "the digest spans both runs");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_releases_its_lease_and_says_how_to_go_on() {
    for signal in ["-INT", "-TERM"] {
        let world = World::new().await;
        let snapshot = large_snapshot(&world);
        let interrupted = Slow::start(&world, &snapshot).await;
        interrupted.signal(signal);
        let (code, stderr) = interrupted.end().await;
        assert_eq!(code, Some(130), "{stderr}");
        assert!(stderr.contains("the same command goes on"), "{stderr}");
        let report = world.copy(&snapshot, None).await.unwrap();
        assert!(report.resumed_from.is_some_and(|offset| offset > 0));
        world.assert_identical(&report, &snapshot);
    }
}

/// The farewell waits for a service that does not answer; whoever asks twice does not.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_interruption_ends_at_once() {
    let world = World::new().await;
    let snapshot = large_snapshot(&world);
    let interrupted = Slow::start(&world, &snapshot).await;
    let lasting = Duration::from_mins(1);
    world.target.faults().add(Fault::new(FaultKind::Stall { lasting }).always());
    interrupted.signal("-INT");
    tokio::time::sleep(Duration::from_millis(500)).await;
    interrupted.signal("-INT");
    let (code, stderr) = interrupted.end().await;
    assert_eq!(code, Some(130));
    assert!(stderr.contains("once more ends at once") && !stderr.contains("exit code"), "{stderr}");
}
