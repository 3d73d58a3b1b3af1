//! CopyStart: snapshots of one region that become snapshots of another.

use std::time::Duration;

use serde_json::{Value, json};
use snapferry_emulator::{ArmKnobs, DiskSnapshot};

use super::{World, assert_refused, json_of, sas_of};
use crate::client::{Answer, get};

/// The time of 10 per cent. What a test takes itself is nothing against it.
const STEP: Duration = Duration::from_secs(1000);

/// Copies get on while the test lets time pass, as good as not otherwise.
async fn slow() -> World {
    let world = World::new().await;
    world.set(ArmKnobs { copy_percent_per_second: 0.01, ..ArmKnobs::default() });
    world
}

async fn start(world: &World, source: &str, name: &str) -> Answer {
    let body = json!({
        "location": "northeurope",
        "properties": {
            "incremental": true,
            "creationData": { "createOption": "CopyStart", "sourceResourceId": source },
        },
    });
    world.ask("PUT", &world.snapshot_id(name), body).await
}

/// Completed tens of per cent.
async fn tens(world: &World, name: &str) -> usize {
    let percent = world.properties(name).await["completionPercent"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&percent));
    (0..10).filter(|tens| percent >= f64::from(tens + 1) * 10.0).count()
}

fn copy(world: &World, name: &str) -> DiskSnapshot {
    world.arm.snapshot(&world.snapshot_id(name)).unwrap()
}

#[tokio::test]
async fn a_copy_gets_on_with_time_and_then_holds_what_its_source_holds() {
    let world = slow().await;
    world.disk.write(512, &[7; 512]).unwrap();
    let source = world.disk.snapshot();
    let started = start(&world, &source.arm_id(), "copy").await;
    assert_eq!((started.status, json_of(&started)["location"].as_str()), (200, Some("northeurope")));
    assert_eq!(tens(&world, "copy").await, 0);
    assert_refused(&world.begin("copy").await, 409, "OperationNotAllowed", "background copy");
    world.emulator.advance_clock(5 * STEP);
    assert_eq!(tens(&world, "copy").await, 5);
    world.emulator.advance_clock(5 * STEP);
    assert_eq!(tens(&world, "copy").await, 10);

    let properties = world.properties("copy").await;
    assert_eq!(properties["creationData"]["createOption"], "CopyStart");
    assert_eq!(properties["creationData"]["sourceResourceId"], json!(source.arm_id()));
    assert_eq!(properties["creationData"]["sourceUniqueId"], json!(source.unique_id()));
    let family = "incrementalSnapshotFamilyId";
    assert_ne!(properties[family], world.properties(source.name()).await[family]);
    let url = sas_of(&world.begin("copy").await);
    let path = |url: &str| url.split('?').next().unwrap().to_owned();
    assert_ne!(path(&url), path(&source.grant()));
    assert_eq!(get(&url, &[]).await.body, source.read(0, u64::MAX));
    // It needs its source no more.
    source.delete();
    assert_eq!(world.properties("copy").await["copyCompletionError"], Value::Null);
    assert_eq!(tens(&world, "copy").await, 10);
}

#[tokio::test]
async fn copies_of_a_disk_go_one_after_the_other_in_the_order_of_their_making() {
    let world = slow().await;
    for (name, snapshot) in [("b", world.disk.snapshot()), ("a", world.disk.snapshot())] {
        assert_eq!(start(&world, &snapshot.arm_id(), name).await.status, 200);
    }
    let other = world.emulator.create_disk("other", 512).unwrap().snapshot();
    assert_eq!(start(&world, &other.arm_id(), "c").await.status, 200);
    world.emulator.advance_clock(6 * STEP);
    assert_eq!((tens(&world, "b").await, tens(&world, "a").await, tens(&world, "c").await), (6, 0, 6));
    world.emulator.advance_clock(6 * STEP);
    assert_eq!((tens(&world, "b").await, tens(&world, "a").await, tens(&world, "c").await), (10, 2, 10));
    // A stopped service, and a test that does not want to wait.
    world.set(ArmKnobs { copy_percent_per_second: 0.0, ..ArmKnobs::default() });
    world.emulator.advance_clock(60 * STEP);
    assert_eq!(tens(&world, "a").await, 2);
    copy(&world, "a").set_completion(100.0);
    assert_eq!(world.begin("a").await.status, 200);
}

#[tokio::test]
async fn a_copy_whose_source_goes_does_not_complete() {
    let world = slow().await;
    let (first, second) = (world.disk.snapshot(), world.disk.snapshot());
    start(&world, &first.arm_id(), "first").await;
    start(&world, &second.arm_id(), "second").await;
    world.emulator.advance_clock(2 * STEP);
    assert_eq!(world.ask("DELETE", &first.arm_id(), Value::Null).await.status, 200);
    world.emulator.advance_clock(20 * STEP);
    let properties = world.properties("first").await;
    assert_eq!(properties["copyCompletionError"]["errorCode"], "CopySourceNotFound");
    assert!(!properties["copyCompletionError"]["errorMessage"].as_str().unwrap().is_empty());
    assert_eq!((tens(&world, "first").await, tens(&world, "second").await), (2, 10));
    assert_eq!(world.begin("first").await.status, 409);
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused() {
    let world = slow().await;
    let full = world.disk.full_snapshot_named("full");
    let refused = start(&world, &full.arm_id(), "copy").await;
    assert_refused(&refused, 400, "InvalidParameter", "must be incremental");
    let gone = start(&world, &world.snapshot_id("gone"), "copy").await;
    assert_refused(&gone, 404, "ResourceNotFound", "snapshots/gone");
    let disk = start(&world, &world.disk.arm_id(), "copy").await;
    assert_refused(&disk, 400, "InvalidParameter", "snapshots");
    let source = world.disk.snapshot();
    start(&world, &source.arm_id(), "copy").await;
    let refused = start(&world, &world.snapshot_id("copy"), "copy-of-copy").await;
    assert_refused(&refused, 409, "OperationNotAllowed", "background copy");
    let url = format!("{}{}?api-version=2020-09-30", world.arm.endpoint(), world.snapshot_id("old"));
    let body = json!({
        "location": "northeurope",
        "properties": {
            "incremental": true,
            "creationData": { "createOption": "CopyStart", "sourceResourceId": source.arm_id() },
        },
    });
    assert_refused(&world.ask_url("PUT", &url, body).await, 400, "InvalidParameter", "api-version");
}

#[tokio::test]
async fn a_region_takes_a_number_of_copies_at_a_time() {
    let world = slow().await;
    let knobs = ArmKnobs {
        copy_percent_per_second: 0.01,
        copies_per_region: 2,
        copy_keeps_family: true,
        ..ArmKnobs::default()
    };
    world.set(knobs);
    let source = world.disk.snapshot();
    for name in ["one", "two"] {
        assert_eq!(start(&world, &source.arm_id(), name).await.status, 200);
    }
    assert_refused(&start(&world, &source.arm_id(), "three").await, 409, "OperationNotAllowed", "At most 2");
    world.emulator.advance_clock(10 * STEP);
    assert_eq!(start(&world, &source.arm_id(), "three").await.status, 200);
    let family = "incrementalSnapshotFamilyId";
    assert_eq!(world.properties("one").await[family], world.properties(source.name()).await[family]);
}
