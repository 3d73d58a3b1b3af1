//! Access to a disk itself, and what stands in its way.

use std::time::Duration;

use serde_json::{Value, json};
use snapferry_emulator::{ArmKnobs, Call, Fault, FaultKind};

use super::{World, assert_refused, json_of, sas_of};
use crate::client::{HOUR, get, put};

#[tokio::test]
async fn a_disk_is_exported_as_it_is_when_access_is_given() {
    let world = World::new().await;
    let id = world.disk.arm_id();
    world.disk.write(0, &[1; 512]).unwrap();
    let image = world.disk.read_image(0, u64::MAX);
    let url = sas_of(&world.begin_disk(&id, "Read").await);
    assert!(url.contains("/md-impexp-") && url.contains("?sv=2018-03-28&sr=b&si="), "{url}");
    assert_eq!(
        (world.disk_state(&id).await.as_str(), world.arm.active_grants()),
        ("ActiveSAS", vec![id.clone()])
    );
    world.disk.write(0, &[2; 512]).unwrap();
    assert_eq!(get(&url, &[]).await.body, image);
    assert_eq!(put(&format!("{url}&comp=page"), &[("x-ms-page-write", "clear")]).await.status, 403);
    assert_refused(&world.begin_disk(&id, "Read").await, 409, "OperationNotAllowed", "for disk 'data'");

    assert_eq!(world.end_disk(&id).await.status, 200);
    assert_eq!(world.end_disk(&id).await.status, 200);
    assert_eq!(get(&url, &[]).await.refusal(), (403, "AuthenticationFailed"));
    assert_eq!(world.disk_state(&id).await, "Unattached");
    let again = sas_of(&world.begin_disk(&id, "Read").await);
    assert_eq!(get(&again, &[]).await.body, world.disk.read_image(0, u64::MAX));
    world.emulator.advance_clock(HOUR);
    assert_eq!(world.disk_state(&id).await, "Unattached");
    let stats = world.emulator.stats();
    let requests = [Call::DiskBeginGetAccess, Call::DiskEndGetAccess].map(|call| stats.of(call).requests);
    assert_eq!(requests, [3, 2]);
    assert_eq!(stats.of(Call::BeginGetAccess).requests, 0);
}

#[tokio::test]
async fn what_is_asked_for_must_make_sense() {
    let world = World::new().await;
    let path = format!("{}/beginGetAccess", world.disk.arm_id());
    for (body, says) in [
        (json!({ "durationInSeconds": 60 }), "access"),
        (json!({ "access": "None", "durationInSeconds": 60 }), "'None'"),
        (json!({ "access": "Read", "durationInSeconds": 29 }), "30 to 5184000"),
        (json!({ "access": "Read", "durationInSeconds": 60, "fileFormat": "VHDX" }), "for this disk"),
    ] {
        assert_refused(&world.ask("POST", &path, body).await, 400, "InvalidParameter", says);
    }
    let write = world.begin_disk(&world.disk.arm_id(), "Write").await;
    assert_refused(&write, 409, "OperationNotAllowed", "not in the state ReadyToUpload");
    let gone = world.begin_disk(&world.disk_id("gone"), "Read").await;
    assert_refused(&gone, 404, "ResourceNotFound", "disks/gone");
    assert_refused(&world.end_disk(&world.disk_id("gone")).await, 404, "ResourceNotFound", "disks/gone");
}

#[tokio::test]
async fn a_disk_with_a_sas_out_is_not_deleted() {
    let world = World::new().await;
    let id = world.disk.arm_id();
    let url = sas_of(&world.begin_disk(&id, "Read").await);
    let refused = world.ask("DELETE", &id, Value::Null).await;
    assert_refused(&refused, 409, "OperationNotAllowed", "active shared access signature");
    assert_eq!(get(&url, &[]).await.status, 200);
    assert_eq!(world.end_disk(&id).await.status, 200);
    assert_eq!(world.ask("DELETE", &id, Value::Null).await.status, 200);
    assert_eq!(world.get(&id).await.status, 404);

    let other = world.emulator.create_disk("other", 512).unwrap();
    let url = sas_of(&world.begin_disk(&other.arm_id(), "Read").await);
    other.delete();
    assert_eq!(get(&url, &[]).await.refusal(), (403, "AuthenticationFailed"));
}

#[tokio::test]
async fn access_is_denied_and_throttled() {
    let world = World::new().await;
    let id = world.disk.arm_id();
    world.arm.deny("Microsoft.Compute/disks/beginGetAccess/action");
    let denied = world.begin_disk(&id, "Read").await;
    assert_refused(&denied, 403, "AuthorizationFailed", &format!("over scope '{id}'"));
    world.arm.deny("Microsoft.Compute/disks/endGetAccess/action");
    let denied = world.end_disk(&id).await;
    assert_refused(&denied, 403, "AuthorizationFailed", "'Microsoft.Compute/disks/endGetAccess/action'");
    world.arm.deny("Microsoft.Compute/disks/delete");
    let denied = world.ask("DELETE", &id, Value::Null).await;
    assert_refused(&denied, 403, "AuthorizationFailed", "'Microsoft.Compute/disks/delete'");
    world.disk.snapshot();
    assert_eq!(world.begin("data-1").await.status, 200);
    world.arm.allow_all();

    let throttled = FaultKind::TooManyRequests { seconds: 3 };
    world.emulator.faults().add(Fault::new(throttled).on(Call::DiskBeginGetAccess));
    let answer = world.begin_disk(&id, "Read").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3")));
    world.set(ArmKnobs { lower_case_sas: true, ..ArmKnobs::default() });
    assert!(json_of(&world.begin_disk(&id, "Read").await)["accessSas"].as_str().is_some());
    world.emulator.advance_clock(Duration::from_hours(1));
    assert!(world.arm.active_grants().is_empty());
}
