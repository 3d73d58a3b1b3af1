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
