//! Runs that were ended or overtaken while the service was at work.

use std::time::Duration;

use snapferry::ErrorKind;
use snapferry::azure::{PageBlob, Role};
use snapferry::range::PageRange;
use snapferry::step::{Mode, Verify};
use snapferry::verify::{RecordState, Verdict};
use snapferry_emulator::{Call, DiskSnapshot, Fault, FaultKind, Knobs};

use crate::scene::{CHUNK, LEASE_LAPSES, copying, interrupted, to_be_overtaken};
use crate::world::{MIB, World, assert_same_bytes, noise, url};
use crate::{assert_pulled, change, reads_before, verified, world};

const LATER: Duration = Duration::from_secs(2);

/// What `interrupted` leaves behind when nobody says farewell.
async fn killed(
    world: &World,
    call: Call,
    requests: u64,
    source: &DiskSnapshot,
    previous: Option<&DiskSnapshot>,
) {
    let faults = world.target.faults();
    let before = faults.fired();
    let held_up = FaultKind::Stall { lasting: Duration::from_mins(1) };
    faults.add(Fault::new(held_up).on(call).skip(requests).always());
    let is_noted = || {
        let base = world.base(None);
        base.is_some_and(|base| base.metadata()["snapferry_checkpoint"].parse::<u64>().unwrap() > 0)
    };
    let watch = async {
        while faults.fired() == before || !is_noted() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        result = world.copy(source, previous) => panic!("it ended: {result:?}"),
        () = watch => {}
    }
    faults.clear();
    world.target.advance_clock(LEASE_LAPSES);
}

#[tokio::test]
async fn a_killed_run_is_gone_on_with_in_the_other_mode() {
    for (killed_in, call) in [(Mode::Server, Call::PutPageFromUrl), (Mode::Stream, Call::PutPage)] {
        let (mut world, disk, first) = world(Knobs::default()).await;
        world.settings.copy.concurrency = 2;
        world.settings.mode = Mode::Stream;
        world.copy(&first, None).await.unwrap();
        let second = change(&disk);
        let already = world.target.stats().of(call).requests;
        assert!(already == 0 || killed_in == Mode::Stream);
        world.settings.mode = killed_in;
        killed(&world, call, 7, &second, Some(&first)).await;
        let torn = world.base(None).unwrap().metadata().clone();
        assert_eq!(torn.contains_key("snapferry_record"), killed_in == Mode::Stream, "{torn:?}");
        world.settings.mode = if killed_in == Mode::Server { Mode::Stream } else { Mode::Server };
        let report = world.copy(&second, Some(&first)).await.unwrap();
        assert!(report.resumed_from.is_some_and(|offset| offset > 0));
        assert_eq!(report.mode, Some(world.settings.mode));
        assert_pulled(&world, &report, &second);
        let seen = verified(&world, &report, Some(&second)).await.unwrap();
        assert_eq!((seen.verdict, seen.record), (Verdict::Equal, RecordState::None));
    }
}

#[tokio::test]
async fn a_run_that_ends_before_its_first_checkpoint_takes_no_record_away_from_the_next() {
    let (mut world, disk, first) = world(Knobs::default()).await;
    world.settings.mode = Mode::Stream;
    world.copy(&first, None).await.unwrap();
    let second = change(&disk);
    world.settings.mode = Mode::Server;
    world.settings.copy.concurrency = 1;
    let step = world.step(&second, Some(&first));
    let torn = interrupted(&world, Call::PutPageFromUrl, 0, copying(&world, &step)).await;
    assert_eq!(torn.unwrap_err().kind(), ErrorKind::Interrupted);
    world.settings.mode = Mode::Stream;
    let report = world.copy(&second, Some(&first)).await.unwrap();
    world.assert_identical(&report, &second);
    assert!(report.point.recorded && report.point.bytes_pulled == 0);
}

/// What an earlier run had pulled passed nobody: a run that goes on looks at it, too.
#[tokio::test]
async fn a_wrong_byte_that_a_killed_run_left_is_found_by_the_one_that_goes_on() {
    for (seed, mode) in [(1, Mode::Stream), (2, Mode::Server)] {
        let (mut world, disk, first) = world(Knobs::default()).await;
        world.copy(&first, None).await.unwrap();
        for at in [0, 2, 4, 6] {
            disk.write(at * MIB, &noise(seed, CHUNK)).unwrap();
        }
        let second = disk.snapshot();
        world.settings.copy.concurrency = 1;
        let reads = reads_of_a_difference(&world, &second, &first).await;
        world.source.faults().add(Fault::new(FaultKind::FlipByteInReply).on(Call::GetBlob).skip(reads));
        killed(&world, Call::PutPageFromUrl, 3, &second, Some(&first)).await;
        world.source.faults().clear();
        world.settings.mode = mode;
        let error = world.copy(&second, Some(&first)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert_eq!(world.points(), 1, "nothing was sealed");
        let report = world.copy(&second, Some(&first)).await.unwrap();
        assert_eq!(report.resumed_from, None, "it begins again");
        assert_same_bytes(&world.base(Some(&report.point.point)).unwrap(), &second);
    }
}

async fn reads_of_a_difference(world: &World, second: &DiskSnapshot, first: &DiskSnapshot) -> u64 {
    let before = world.source.stats().of(Call::GetBlob).requests;
    world.plan(second, Some(first)).await.unwrap();
    world.source.stats().of(Call::GetBlob).requests - before
}

#[tokio::test]
async fn a_wrong_byte_that_the_service_wrote_is_found_before_the_seal() {
    for (verify, is_found) in [(Verify::Full, true), (Verify::None, false)] {
        let (mut world, _, first) = world(Knobs::default()).await;
        world.settings.verify = verify;
        let reads = reads_before(&world, &first).await;
        world.source.faults().add(Fault::new(FaultKind::FlipByteInReply).on(Call::GetBlob).skip(reads + 5));
        let ended = world.copy(&first, None).await;
        if is_found {
            let error = ended.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            assert_eq!(world.points(), 0);
            let report = world.copy(&first, None).await.unwrap();
            assert_pulled(&world, &report, &first);
            assert!(report.verified.unwrap().bytes >= first.len());
        } else {
            // Whoever asks for no check gets none; the point claims none either, and its source tells.
            let report = ended.unwrap();
            assert!(report.verified.is_none() && !report.point.recorded && report.point.digest.is_none());
            let seen = verified(&world, &report, Some(&first)).await.unwrap();
            assert_eq!((seen.verdict, seen.differing_ranges), (Verdict::DiffersFromSource, 1));
        }
    }
}

#[tokio::test]
async fn a_late_pull_of_an_overtaken_writer_does_not_land() {
    let (mut world, disk, first) = world(Knobs::default()).await;
    world.copy(&first, None).await.unwrap();
    let second = change(&disk);
    let blob = PageBlob::connect(url(Role::Target, &world.target_url()), &world.client).unwrap();
    let old = PageBlob::connect(url(Role::Source, &first.grant()), &world.client).unwrap();
    let loser = to_be_overtaken(&blob, &first, &second).await;
    let stale = loser.fence();

    // Let in by the fence when it is sent, and delayed in the network until the other writer is done.
    world.target.faults().add(Fault::new(FaultKind::DelayedApply { after: LATER }).on(Call::PutPageFromUrl));
    let range = PageRange::new(MIB, MIB + CHUNK).unwrap();
    let delayed = blob.put_pages_from_url(range, &old, &stale, Some(Duration::ZERO)).await;
    assert!(delayed.is_err());
    world.target.advance_clock(LEASE_LAPSES);
    world.settings.verify = Verify::Full;
    let report = world.copy(&second, Some(&first)).await.unwrap();
    assert_pulled(&world, &report, &second);
    let refused = blob.put_pages_from_url(range, &old, &stale, None).await.unwrap_err();
    assert!(refused.is_fenced(), "{refused}");
    let late = || -> Vec<u16> {
        let requests = world.target.requests();
        requests.iter().filter(|request| request.late).map(|request| request.status).collect()
    };
    while late().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(late(), [412]);
    assert_same_bytes(&world.base(None).unwrap(), &second);
    drop(loser);
}
