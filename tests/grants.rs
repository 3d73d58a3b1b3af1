//! Access to snapshots: granted when it is needed, renewed in mid-copy, ended on every way out, and nobody else's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::time::Duration;

use snapferry::sync::SyncReport;
use snapferry::{Error, ErrorKind};
use snapferry_emulator::{
    ArmKnobs, AsyncReply, Call, Disk, DiskSnapshot, Fault, FaultKind, Link, SecondGrant,
};
use world::manager::Heard;
use world::{MIB, World, noise};

const LIFE: Duration = Duration::from_secs(30);

/// A world in which a copy takes some hundred requests, so that much can happen in its middle.
async fn slow_world() -> (World, Disk, DiskSnapshot) {
    let mut world = World::new().await;
    world.settings.plan.chunk = 64 << 10;
    world.settings.copy.concurrency = 4;
    world.source.set_link(Link { latency: Duration::from_millis(4), ..Link::default() });
    let disk = world.disk(16 * MIB);
    disk.write(0, &noise(1, 16 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    (world, disk, snapshot)
}

/// Does `act` each time another quarter of the pages is written, at most `times` times.
async fn in_the_middle(world: &World, times: u64, act: impl Fn()) {
    for time in 1..=times {
        while world.target.stats().of(Call::PutPage).requests < time * 256 / (times + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        act();
    }
}

/// A chain copied while `act` happens in the middle of its first step.
async fn copied_while(world: &World, disk: &Disk, times: u64, act: impl Fn()) -> Result<SyncReport, Error> {
    let mut job = world.job(disk);
    job.grants.duration = LIFE;
    let heard = Heard::default();
    tokio::select! {
        result = world.sync_telling(&job, &heard) => result,
        () = async { in_the_middle(world, times, act).await; std::future::pending::<()>().await } => unreachable!(),
    }
}

#[tokio::test]
async fn a_copy_outlives_its_sas_three_times() {
    let second_grants =
        [SecondGrant::Refused, SecondGrant::Same, SecondGrant::NewBesideOld, SecondGrant::NewInsteadOfOld];
    for second_grant in second_grants {
        let (world, disk, snapshot) = slow_world().await;
        world.source.arm().set_knobs(ArmKnobs { second_grant, ..ArmKnobs::default() });
        let advance = || world.source.advance_clock(LIFE + Duration::from_secs(1));
        let report = copied_while(&world, &disk, 3, advance).await.unwrap();
        world.assert_points(&[&snapshot]);
        let granted = world.source.stats().of(Call::BeginGetAccess).requests;
        assert!(granted >= 4, "{second_grant:?}: {granted} grants");
        assert_eq!(report.steps[0].bytes_sent, 16 * MIB + 512, "every byte once");
    }
}

#[tokio::test]
async fn a_sas_that_is_revoked_in_mid_copy_is_asked_for_again() {
    let (world, disk, snapshot) = slow_world().await;
    let id = snapshot.arm_id();
    let arm = world.source.arm();
    let revoke = || {
        let url = format!("{}{id}/endGetAccess?api-version=2024-03-02", arm.endpoint());
        let token = arm.token(Duration::from_mins(1));
        tokio::spawn(async move { reqwest_post(&url, &token).await });
    };
    copied_while(&world, &disk, 3, revoke).await.unwrap();
    world.assert_points(&[&snapshot]);
    assert!(world.source.stats().of(Call::BeginGetAccess).requests >= 2);
}

async fn reqwest_post(url: &str, token: &str) {
    let bearer = format!("Bearer {token}");
    let reply = world::raw(reqwest::Method::POST, url, &[("authorization", &bearer)], Vec::new()).await;
    assert!(reply.status().is_success(), "{}", reply.status());
}

#[tokio::test]
async fn grants_are_followed_through_every_odd_way_of_answering() {
    for (begin_access, lower_case_sas) in
        [(AsyncReply::AsyncOperation, false), (AsyncReply::Location, true), (AsyncReply::Both, false)]
    {
        for odd in 0..4 {
            let world = World::new().await;
            world.source.arm().set_knobs(ArmKnobs {
                begin_access,
                other_changes: begin_access,
                lower_case_sas,
                polls: 3,
                poll_without_body: odd == 1,
                poll_moves: odd == 2,
                poll_status_misleads: odd == 3,
                retry_after: Some(0),
                ..ArmKnobs::default()
            });
            let disk = world.disk(MIB);
            disk.write(0, &noise(1, MIB)).unwrap();
            let snapshot = disk.snapshot();
            world.sync(&world.job(&disk)).await.unwrap();
            world.assert_points(&[&snapshot]);
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_an_hour_changes_nothing() {
    let (world, disk, snapshot) = slow_world().await;
    // Both services are an hour ahead of this machine, and a SAS ends in the middle.
    for region in [&world.source, &world.target] {
        region.advance_clock(Duration::from_hours(1));
    }
    copied_while(&world, &disk, 1, || world.source.advance_clock(LIFE)).await.unwrap();
    world.assert_points(&[&snapshot]);
}

#[tokio::test]
async fn a_throttled_resource_manager_is_given_its_time() {
    let world = World::new().await;
    let disk = world.disk(MIB);
    let snapshot = disk.snapshot();
    for call in [Call::ArmGetDisk, Call::ArmListSnapshots, Call::BeginGetAccess, Call::EndGetAccess] {
        let kind = FaultKind::TooManyRequests { seconds: 1 };
        world.source.faults().add(Fault::new(kind).on(call));
    }
    let report = world.sync(&world.job(&disk)).await.unwrap();
    world.assert_points(&[&snapshot]);
    assert!(report.seconds >= 4.0, "Retry-After is waited for, four times: {}", report.seconds);
}

#[tokio::test]
async fn a_sas_that_somebody_else_has_out_is_left_alone_unless_the_user_says_so() {
    // Also where the service would let two be out: the end of ours would be the end of theirs.
    for second_grant in [SecondGrant::Refused, SecondGrant::Same, SecondGrant::NewBesideOld] {
        let world = World::new().await;
        world.source.arm().set_knobs(ArmKnobs { second_grant, ..ArmKnobs::default() });
        let disk = world.disk(MIB);
        let snapshot = disk.snapshot();
        let id = snapshot.arm_id();
        grant_by_hand(&world, &id).await;
        let error = world.sync(&world.job(&disk)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SasOut);
        let advice = error.advice().unwrap();
        assert!(advice.contains(&format!("snapferry access revoke --snapshot {id}")), "{advice}");
        assert_eq!(world.source.arm().active_grants(), [id], "it is still theirs");
        assert!(world.base(None).is_none(), "nothing was written");
        let mut job = world.job(&disk);
        job.grants.revoke_active = true;
        world.sync(&job).await.unwrap();
        world.assert_points(&[&snapshot]);
    }
}

/// A grant whose reply never came may have been made.
#[tokio::test]
async fn a_grant_whose_reply_was_lost_is_ended_too() {
    for kind in [FaultKind::CutAfterApply, FaultKind::InternalError] {
        let mut world = World::new().await;
        world.retry_for = Some(Duration::ZERO);
        let disk = world.disk(MIB);
        disk.snapshot();
        let faults = world.source.faults();
        faults.add(Fault::new(kind.clone()).on(Call::BeginGetAccess));
        assert_eq!(world.sync(&world.job(&disk)).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(world.source.arm().active_grants().is_empty());
        // With time for another attempt, which finds the SAS that nobody has seen.
        world.retry_for = None;
        faults.add(Fault::new(kind).on(Call::BeginGetAccess));
        assert_eq!(world.sync(&world.job(&disk)).await.unwrap().steps.len(), 1);
        assert!(world.source.arm().active_grants().is_empty());
    }
}

#[tokio::test]
async fn what_a_crash_left_behind_is_taken_over_by_the_next_run() {
    let (world, disk, snapshot) = slow_world().await;
    let mut job = world.job(&disk);
    job.grants.duration = Duration::from_hours(1);
    // Dropped in its middle, as by a crash: neither lease nor grant is given back.
    tokio::select! {
        _ = world.sync(&job) => panic!("it was to be dropped"),
        () = in_the_middle(&world, 1, || ()) => {}
    }
    assert_eq!(world.source.arm().active_grants(), [snapshot.arm_id()]);
    world.target.advance_clock(Duration::from_secs(61));
    let report = world.sync(&job).await.unwrap();
    assert!(report.steps[0].resumed_from.is_some_and(|offset| offset > 0));
    world.assert_points(&[&snapshot]);
}

#[tokio::test]
async fn no_more_than_five_snapshots_of_a_disk_have_a_sas() {
    // Refused at once, or accepted and refused by the poll: neither is a reason to end what others have out.
    for late_refusals in [false, true] {
        five_at_most(late_refusals).await;
    }
}

async fn five_at_most(late_refusals: bool) {
    let world = World::new().await;
    let disk = world.disk(MIB);
    let snapshots: Vec<_> = (0..8).map(|_| disk.snapshot()).collect();
    for snapshot in &snapshots[3..] {
        grant_by_hand(&world, &snapshot.arm_id()).await;
    }
    let begin_access = if late_refusals { AsyncReply::AsyncOperation } else { AsyncReply::AtOnce };
    let knobs = ArmKnobs { late_refusals, begin_access, retry_after: Some(0), ..ArmKnobs::default() };
    world.source.arm().set_knobs(knobs);
    let error = world.sync(&world.job(&disk)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.advice().unwrap().contains("at most five"), "{error}: {:?}", error.advice());
    let others = world.source.arm().active_grants();
    assert_eq!(others.len(), 5);
}

/// However a run ends, nothing of its own is left out.
#[tokio::test]
async fn access_is_ended_on_every_way_out() {
    // A target that refuses.
    let world = World::new().await;
    let disk = world.disk(MIB);
    disk.snapshot();
    world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::PutBlob).always());
    assert!(world.sync(&world.job(&disk)).await.is_err());
    assert!(world.source.arm().active_grants().is_empty());

    // A user who interrupts.
    let (world, disk, _) = slow_world().await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let (arm, client, job) = (world.arm(), world.signed_in(), world.job(&disk));
    let heard = Heard::default();
    let (result, ()) = tokio::join!(
        snapferry::sync::sync(&job, &arm, &client, &world.settings, &heard, &cancel),
        in_the_middle(&world, 1, || cancel.cancel())
    );
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(world.source.arm().active_grants().is_empty());

    // A forecast.
    let progress = snapferry::progress::Progress::default();
    let cancel = tokio_util::sync::CancellationToken::new();
    let (_, forecasts) =
        snapferry::sync::forecast(&job, &arm, &client, &world.settings, &progress, &cancel).await.unwrap();
    assert_eq!(forecasts.len(), 1);
    assert!(world.source.arm().active_grants().is_empty());
}

async fn grant_by_hand(world: &World, id: &str) {
    let arm = world.source.arm();
    let bearer = format!("Bearer {}", arm.token(Duration::from_mins(1)));
    let url = format!("{}{id}/beginGetAccess?api-version=2024-03-02", arm.endpoint());
    let body = br#"{"access":"Read","durationInSeconds":3600}"#.to_vec();
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let reply = world::raw(reqwest::Method::POST, &url, &headers, body).await;
    assert!(reply.status().is_success(), "{}", reply.status());
}

/// A copy of hours sees snapshots made while it runs; what it gave back at its end is asked for again.
#[tokio::test]
async fn a_snapshot_that_is_made_during_the_last_step_is_copied_too() {
    let (world, disk, first) = slow_world().await;
    let second = std::sync::Mutex::new(None);
    let report = copied_while(&world, &disk, 1, || {
        *second.lock().unwrap() = Some(disk.snapshot());
    })
    .await
    .unwrap();
    assert_eq!(report.steps.len(), 2);
    let second = second.into_inner().unwrap().unwrap();
    world.assert_points(&[&first, &second]);
}

#[tokio::test]
async fn a_forecast_leaves_a_running_copy_its_access() {
    let (world, disk, snapshot) = slow_world().await;
    let (arm, client, job) = (world.arm(), world.signed_in(), world.job(&disk));
    let foretell = async {
        in_the_middle(&world, 1, || ()).await;
        let progress = snapferry::progress::Progress::default();
        let cancel = tokio_util::sync::CancellationToken::new();
        snapferry::sync::forecast(&job, &arm, &client, &world.settings, &progress, &cancel).await
    };
    let (copied, foretold) = tokio::join!(world.sync(&job), foretell);
    assert_eq!(foretold.unwrap_err().kind(), ErrorKind::LeaseHeld);
    copied.unwrap();
    world.assert_points(&[&snapshot]);
    let stats = world.source.stats();
    assert_eq!((stats.of(Call::BeginGetAccess).requests, stats.of(Call::EndGetAccess).requests), (1, 1));
}

/// Of two runs that find a crash's leftovers together, only one takes them.
#[tokio::test]
async fn two_runs_after_a_crash_leave_each_other_their_access() {
    let (world, disk, snapshot) = slow_world().await;
    let job = world.job(&disk);
    tokio::select! {
        _ = world.sync(&job) => panic!("it was to be dropped"),
        () = in_the_middle(&world, 1, || ()) => {}
    }
    world.target.advance_clock(Duration::from_secs(61));
    let (one, two) = tokio::join!(world.sync(&job), world.sync(&job));
    let refused: Vec<_> = [&one, &two].iter().filter_map(|run| run.as_ref().err()).map(Error::kind).collect();
    assert_eq!(refused, [ErrorKind::LeaseHeld]);
    world.assert_points(&[&snapshot]);
    // What the crash left was ended once, and what the winner had once.
    assert_eq!(world.source.stats().of(Call::EndGetAccess).requests, 2);
}

#[tokio::test]
async fn access_whose_end_is_refused_is_ended_later() {
    let world = World::new().await;
    let disk = world.disk(MIB);
    let first = disk.snapshot();
    let second = disk.snapshot();
    // The ends after the steps; the one on the way out succeeds.
    world.source.faults().add(Fault::new(FaultKind::Forbidden).on(Call::EndGetAccess).times(2));
    let report = world.sync(&world.job(&disk)).await.unwrap();
    assert!(report.not_ended.is_empty(), "{:?}", report.not_ended);
    world.assert_points(&[&first, &second]);

    // And what cannot be ended at all is told.
    let third = disk.snapshot();
    world.source.faults().add(Fault::new(FaultKind::Forbidden).on(Call::EndGetAccess).always());
    let report = world.sync(&world.job(&disk)).await.unwrap();
    let told: Vec<_> = report.not_ended.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "both of the step: {told:?}");
    assert!(told.contains(&third.arm_id()) && told == world.source.arm().active_grants());
}
