//! A disk's chain: what is copied, in which order, from what, and what is left at the source.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use snapferry::ErrorKind;
use snapferry::chain::outline::Wanted;
use snapferry_emulator::{Call, Disk, DiskSnapshot};
use world::manager::Heard;
use world::{MIB, World, noise};

/// A disk with `count` snapshots, each with changes of its own.
fn chain(world: &World, count: u64) -> (Disk, Vec<DiskSnapshot>) {
    let disk = world.disk(8 * MIB);
    let snapshots = (0..count).map(|number| change(&disk, number)).collect();
    (disk, snapshots)
}

fn change(disk: &Disk, number: u64) -> DiskSnapshot {
    disk.write(number % 7 * MIB, &noise(number + 1, MIB / 2)).unwrap();
    disk.clear((number + 3) % 7 * MIB, MIB / 4).unwrap();
    disk.snapshot()
}

fn all(snapshots: &[DiskSnapshot]) -> Vec<&DiskSnapshot> {
    snapshots.iter().collect()
}

#[tokio::test]
async fn every_snapshot_that_is_missing_is_copied_in_order() {
    let world = World::new().await;
    let (disk, mut snapshots) = chain(&world, 4);
    let heard = Heard::default();
    let report = world.sync_telling(&world.job(&disk), &heard).await.unwrap();
    world.assert_points(&all(&snapshots));
    assert_eq!(report.steps.len(), 4);
    assert!(report.steps[0].from.is_none() && report.steps[1..].iter().all(|step| step.from.is_some()));
    assert_eq!(report.keep.unwrap().to_string(), snapshots[3].arm_id());
    assert!(heard.0.lock().unwrap()[0].starts_with("found disk-1 disk-2 disk-3 disk-4"));

    let again = world.sync(&world.job(&disk)).await.unwrap();
    assert!(again.steps.is_empty(), "nothing is left to do");
    snapshots.push(change(&disk, 4));
    assert_eq!(world.sync(&world.job(&disk)).await.unwrap().steps.len(), 1);
    world.assert_points(&all(&snapshots));
    let deleted = world.source.stats().of(Call::ArmDeleteSnapshot).requests;
    assert_eq!(deleted, 0, "nothing is ever deleted at the source");
}

#[tokio::test]
async fn of_a_chain_only_what_is_wanted_is_copied() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 5);
    let mut job = world.job(&disk);
    job.wanted.until = Some("DISK-2".to_owned());
    world.sync(&job).await.unwrap();
    world.assert_points(&all(&snapshots[..2]));
    job.wanted = Wanted { skip_intermediate: true, ..Wanted::default() };
    let report = world.sync(&job).await.unwrap();
    world.assert_points(&[&snapshots[0], &snapshots[1], &snapshots[4]]);
    assert_eq!(report.skipped.len(), 2);
    job.wanted = Wanted { until: Some("nobody".to_owned()), ..Wanted::default() };
    assert_eq!(world.sync(&job).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn snapshots_that_were_deleted_before_they_were_copied_are_passed_over() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 10);
    snapshots[3].delete();
    snapshots[6].delete();
    world.sync(&world.job(&disk)).await.unwrap();
    let rest: Vec<_> =
        snapshots.iter().enumerate().filter(|(at, _)| ![3, 6].contains(at)).map(|(_, one)| one).collect();
    world.assert_points(&rest);
}

#[tokio::test]
async fn a_disk_that_grows_twice_is_followed() {
    let world = World::new().await;
    let disk = world.disk(4 * MIB);
    let mut snapshots = vec![change(&disk, 0)];
    for (number, size) in [(1, 6 * MIB), (2, 9 * MIB)] {
        disk.grow(size).unwrap();
        disk.write(size - MIB / 2, &noise(number, MIB / 2)).unwrap();
        snapshots.push(disk.snapshot());
    }
    world.sync(&world.job(&disk)).await.unwrap();
    world.assert_points(&all(&snapshots));
}

/// Azure makes no differences across 4 TiB.
#[tokio::test]
async fn growth_across_4_tib_is_told_and_begun_anew_when_the_user_says_so() {
    const TIB: u64 = 1 << 40;
    let world = World::new().await;
    let disk = world.disk(4 * TIB);
    let first = change(&disk, 0);
    disk.grow(4 * TIB + 512 * MIB).unwrap();
    let second = change(&disk, 1);
    let third = change(&disk, 2);
    let mut job = world.job(&disk);
    let error = world.sync(&job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GrowthAcross4Tib);
    assert!(error.advice().unwrap().contains("--rebase"), "{error}");
    job.wanted.rebase = true;
    let report = world.sync(&job).await.unwrap();
    let whole = report.steps.iter().filter(|step| step.from.is_none()).count();
    assert_eq!(whole, 2, "the first, and the one behind the boundary");
    assert_eq!(report.steps.len(), 3);
    for (snapshot, step) in [&first, &second, &third].into_iter().zip(&report.steps) {
        let point = world.base(Some(&step.point.point)).unwrap();
        assert_eq!(point.len(), snapshot.len());
        for at in (0..9).map(|at| at * MIB).chain([snapshot.len() - MIB]) {
            let length = MIB.min(snapshot.len() - at);
            assert!(point.read(at, length) == snapshot.read(at, length), "{} at {at}", snapshot.name());
        }
    }
    assert!(world.source.arm().active_grants().is_empty());
}

#[tokio::test]
async fn a_base_whose_snapshot_was_deleted_is_begun_anew_only_when_the_user_says_so() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 2);
    let mut job = world.job(&disk);
    world.sync(&job).await.unwrap();
    snapshots[1].delete();
    assert!(world.sync(&job).await.unwrap().steps.is_empty(), "nothing newer: nothing to do");
    let third = change(&disk, 7);
    let error = world.sync(&job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseElsewhere);
    assert!(error.why().contains("deleted") && error.advice().unwrap().contains("--rebase"), "{error}");
    let before = world.points();
    job.wanted.rebase = true;
    let report = world.sync(&job).await.unwrap();
    assert!(report.steps.len() == 1 && report.steps[0].from.is_none());
    world.assert_identical(&report.steps[0], &third);
    assert_eq!(world.points(), before + 1, "the old points stay");
    let fourth = change(&disk, 8);
    let report = world.sync(&world.job(&disk)).await.unwrap();
    assert!(report.steps[0].from.is_some(), "and it goes on by differences");
    world.assert_identical(&report.steps[0], &fourth);
}

#[tokio::test]
async fn a_disk_that_was_made_anew_under_its_name_does_not_join() {
    let world = World::new().await;
    let (disk, old) = chain(&world, 2);
    world.sync(&world.job(&disk)).await.unwrap();
    world.source.delete_disk("disk");
    let anew = world.disk(8 * MIB);
    assert_eq!(anew.arm_id(), disk.arm_id());
    let snapshot = anew.snapshot_named("anew-1");
    let error = world.sync(&world.job(&anew)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DifferentFamilies);
    world.assert_points(&all(&old));

    // In a container each has a blob of its own.
    let mut job = world.job(&anew);
    job.destination = snapferry::azure::Destination::parse(
        &world.container_url(),
        snapferry::azure::PlainHttp::LoopbackOnly,
    )
    .unwrap();
    let report = world.sync(&job).await.unwrap();
    assert_eq!(report.left_out.len(), 2, "those of the old disk");
    let blob = report.target.rsplit('/').next().unwrap();
    let point = world.account.read_blob(world::CONTAINER, blob, Some(&report.steps[0].point.point)).unwrap();
    world::assert_same_bytes(&point, &snapshot);
}

#[tokio::test]
async fn the_snapshots_of_a_deleted_disk_are_copied() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 3);
    world.source.delete_disk("disk");
    world.sync(&world.job(&disk)).await.unwrap();
    world.assert_points(&all(&snapshots));
}

/// A base that `copy` made names its snapshots by their URLs alone.
#[tokio::test]
async fn a_base_that_was_made_by_copy_is_taken_on() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 4);
    world.copy(&snapshots[0], None).await.unwrap();
    world.copy(&snapshots[1], Some(&snapshots[0])).await.unwrap();
    let report = world.sync(&world.job(&disk)).await.unwrap();
    assert_eq!(report.steps.len(), 2);
    world.assert_points(&all(&snapshots));
}

#[tokio::test]
async fn a_snapshot_that_is_deleted_in_mid_copy_tears_nothing_for_good() {
    for roll_back in [false, true] {
        let mut world = World::new().await;
        world.settings.plan.chunk = 64 << 10;
        world.settings.copy.concurrency = 2;
        let disk = world.disk(8 * MIB);
        let first = change(&disk, 0);
        world.sync(&world.job(&disk)).await.unwrap();
        disk.write(0, &noise(9, 8 * MIB)).unwrap();
        let second = disk.snapshot();
        let third = change(&disk, 3);
        world.source.set_link(snapferry_emulator::Link {
            latency: std::time::Duration::from_millis(5),
            ..snapferry_emulator::Link::default()
        });
        let mut job = world.job(&disk);
        job.roll_back = roll_back;
        let before = world.target.stats().of(Call::PutPage).requests;
        let result = tokio::select! {
            result = world.sync(&job) => result,
            () = async {
                while world.target.stats().of(Call::PutPage).requests < before + 40 {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                second.delete();
                std::future::pending::<()>().await;
            } => unreachable!(),
        };
        if roll_back {
            result.unwrap();
        } else {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BaseNotClean);
            assert!(error.advice().unwrap().contains("snapferry rollback"), "{error}");
            assert_eq!(world.state().as_deref(), Some("applying"));
            job.roll_back = true;
            world.sync(&job).await.unwrap();
        }
        world.assert_points(&[&first, &third]);
    }
}

#[tokio::test]
async fn of_two_runs_on_one_target_at_once_nothing_is_copied_twice() {
    for _ in 0..5 {
        let world = World::new().await;
        let (disk, snapshots) = chain(&world, 3);
        let job = world.job(&disk);
        let (one, two) = tokio::join!(world.sync(&job), world.sync(&job));
        for error in [&one, &two].into_iter().filter_map(|run| run.as_ref().err()) {
            assert!(
                matches!(error.kind(), ErrorKind::LeaseHeld | ErrorKind::LeaseLost | ErrorKind::SasOut),
                "{error}"
            );
        }
        // Whoever lost runs again, as a scheduler would.
        let mut again = world.job(&disk);
        again.grants.revoke_active = true;
        world.sync(&again).await.unwrap();
        world.assert_points(&all(&snapshots));
    }
}

#[tokio::test]
async fn a_target_that_is_throttled_slows_a_chain_and_does_not_break_it() {
    let mut world = World::new().await;
    world.settings.plan.chunk = 64 << 10;
    world.target.set_link(snapferry_emulator::Link {
        blob_requests_per_second: Some(40),
        ..snapferry_emulator::Link::default()
    });
    let (disk, snapshots) = chain(&world, 4);
    let report = world.sync(&world.job(&disk)).await.unwrap();
    assert!(report.steps.iter().map(|step| step.retries).sum::<u64>() > 0, "it was refused, and tried again");
    world.assert_points(&all(&snapshots));
}

async fn until_told(heard: &Heard, wanted: &str) {
    while !heard.0.lock().unwrap().iter().any(|line| line == wanted) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_snapshot_that_is_not_whole_is_waited_for() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 3);
    snapshots[1].set_completion(40.0);
    let heard = Heard::default();
    let job = world.job(&disk);
    let (report, ()) = tokio::join!(world.sync_telling(&job, &heard), async {
        until_told(&heard, "waits disk-2").await;
        assert_eq!(world.points(), 1, "nothing passes it");
        snapshots[1].set_completion(100.0);
    });
    assert_eq!(report.unwrap().steps.len(), 3);
    world.assert_points(&all(&snapshots));
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_before_anything_is_written() {
    let world = World::new().await;
    let disk = world.disk(MIB);
    let job = world.job(&disk);
    assert_eq!(world.sync(&job).await.unwrap_err().kind(), ErrorKind::NotFound, "no snapshots");
    disk.full_snapshot_named("full");
    let error = world.sync(&job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceUnsuitable);
    assert!(error.why().contains("full snapshot"), "{error}");
    let large_sectors = disk.snapshot();
    large_sectors.set_sector_size(4096);
    let error = world.sync(&job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceUnsuitable);
    large_sectors.delete();
    disk.full_snapshot_named("full").delete();
    let large_sectors = disk.snapshot();
    large_sectors.set_sector_size(4096);
    let error = world.sync(&job).await.unwrap_err();
    assert!(error.why().contains("VHDX") && error.why().contains("managed-copy"), "{error}");
    disk.snapshot();
    for action in [
        "Microsoft.Compute/disks/read",
        "Microsoft.Compute/snapshots/read",
        "Microsoft.Compute/snapshots/beginGetAccess/action",
    ] {
        world.source.arm().deny(action);
        let error = world.sync(&job).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionMissing, "{error}");
        assert!(error.advice().unwrap().contains(action), "{action}: {:?}", error.advice());
        world.source.arm().allow_all();
    }
    assert!(world.base(None).is_none());
    let foreign = world.account.container_sas(world::CONTAINER, world::BASE, "rcwdl", world::HOUR);
    let made = world::raw(
        reqwest::Method::PUT,
        &foreign,
        &[("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "512")],
        Vec::new(),
    )
    .await;
    assert_eq!(made.status(), 201);
    assert_eq!(world.sync(&job).await.unwrap_err().kind(), ErrorKind::TargetExists);
    assert!(world.source.arm().active_grants().is_empty());
}

#[tokio::test]
async fn a_base_of_another_disk_is_not_taken_for_this_one() {
    let world = World::new().await;
    let other = world.source.create_disk("other", MIB).unwrap();
    let theirs = other.snapshot();
    world.copy(&theirs, None).await.unwrap();
    let (disk, _) = chain(&world, 2);
    for rebase in [false, true] {
        let mut job = world.job(&disk);
        job.wanted.rebase = rebase;
        let error = world.sync(&job).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DifferentFamilies, "{error}");
    }
    world.assert_points(&[&theirs]);
}

#[tokio::test]
async fn a_snapshot_that_is_deleted_while_it_is_waited_for_is_passed_over() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 3);
    snapshots[1].set_completion(40.0);
    let heard = Heard::default();
    let job = world.job(&disk);
    let (report, ()) = tokio::join!(world.sync_telling(&job, &heard), async {
        until_told(&heard, "waits disk-2").await;
        snapshots[1].delete();
    });
    assert_eq!(report.unwrap().steps.len(), 2);
    world.assert_points(&[&snapshots[0], &snapshots[2]]);
}

/// Bytes that no run of ours wrote.
async fn write_foreign_page(world: &World) {
    let url = format!("{}&comp=page", world.target_url());
    let headers = [("x-ms-page-write", "update"), ("x-ms-range", "bytes=512-1023")];
    let put = world::raw(reqwest::Method::PUT, &url, &headers, vec![0xee; 512]).await;
    assert_eq!(put.status(), 201);
}

async fn delete_point(world: &World, time: &str) {
    let time: String = url::form_urlencoded::byte_serialize(time.as_bytes()).collect();
    let url = format!("{}&snapshot={time}", world.target_url());
    let deleted = world::raw(reqwest::Method::DELETE, &url, &[], Vec::new()).await;
    assert_eq!(deleted.status(), 202);
}

#[tokio::test]
async fn a_base_that_somebody_else_wrote_to_has_two_ways_out() {
    for by_rollback in [true, false] {
        let world = World::new().await;
        let (disk, mut snapshots) = chain(&world, 2);
        let mut job = world.job(&disk);
        world.sync(&job).await.unwrap();
        write_foreign_page(&world).await;
        snapshots.push(change(&disk, 5));
        assert_eq!(world.sync(&job).await.unwrap_err().kind(), ErrorKind::BaseModified);
        if by_rollback {
            let (progress, cancel) = Default::default();
            let target = world::url(snapferry::azure::Role::Target, &world.target_url());
            let back =
                snapferry::rollback::rollback(&target, &world.client, &world.settings, &progress, &cancel)
                    .await
                    .unwrap();
            assert_eq!(back.outcome, "rolled-back");
        } else {
            job.wanted.rebase = true;
        }
        let report = world.sync(&job).await.unwrap();
        assert_eq!(report.steps[0].from.is_some(), by_rollback);
        world.assert_points(&all(&snapshots));
    }
}

/// Without its last point nobody can tell whether a base is what it says.
#[tokio::test]
async fn a_base_whose_last_point_was_deleted_is_not_built_upon() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 2);
    let mut job = world.job(&disk);
    let report = world.sync(&job).await.unwrap();
    delete_point(&world, &report.steps[1].point.point).await;
    let report = world.sync(&job).await.unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("point was deleted")), "{report:?}");
    write_foreign_page(&world).await;
    let third = change(&disk, 5);
    assert_eq!(world.sync(&job).await.unwrap_err().kind(), ErrorKind::BaseModified);
    job.wanted.rebase = true;
    world.sync(&job).await.unwrap();
    world.assert_points(&[&snapshots[0], &third]);

    // And the snapshot at the source that the next difference begins at.
    third.delete();
    let report = world.sync(&world.job(&disk)).await.unwrap();
    assert!(report.keep.is_none());
    assert!(report.warnings.iter().any(|warning| warning.contains("at the source")), "{report:?}");
}

#[tokio::test]
async fn a_forecast_of_a_torn_base_tells_where_it_goes_on() {
    let mut world = World::new().await;
    world.settings.plan.chunk = 64 << 10;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 8 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    let job = world.job(&disk);
    let kind = snapferry_emulator::FaultKind::Forbidden;
    world.target.faults().add(snapferry_emulator::Fault::new(kind).on(Call::PutPage).skip(60).always());
    world.sync(&job).await.unwrap_err();
    world.target.faults().clear();
    let (progress, cancel) = Default::default();
    let (arm, client) = (world.arm(), world.signed_in());
    let (_, forecasts) =
        snapferry::sync::forecast(&job, &arm, &client, &world.settings, &progress, &cancel).await.unwrap();
    assert_eq!(forecasts[0].plan.action, "go-on");
    let foretold = forecasts[0].plan.resumes_from.unwrap();
    let report = world.sync(&job).await.unwrap();
    assert_eq!(report.steps[0].resumed_from, Some(foretold));
    assert_eq!(report.steps[0].totals.bytes_changed, forecasts[0].plan.totals.bytes_changed);
    world.assert_points(&[&snapshot]);
}

#[tokio::test]
async fn ids_are_compared_without_case() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 2);
    let mut job = world.job(&disk);
    let plain = snapferry::azure::PlainHttp::LoopbackOnly;
    job.destination = snapferry::azure::Destination::parse(&world.container_url(), plain).unwrap();
    let report = world.sync(&job).await.unwrap();
    job.disk = snapferry::azure::ArmId::parse(
        snapferry::azure::ArmKind::Disk,
        &disk
            .arm_id()
            .replace("/disks/disk", "/disks/DISK")
            .replace("resourceGroups/disks", "resourcegroups/DISKS"),
    )
    .unwrap();
    let again = world.sync(&job).await.unwrap();
    assert_eq!((again.steps.len(), &again.target), (0, &report.target));
    assert_eq!(report.steps.len(), snapshots.len());
}
