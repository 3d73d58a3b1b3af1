//! Snapshots: what they show, and how they are made, changed and deleted.

use serde_json::{Value, json};
use snapferry_emulator::{ArmKnobs, Call};

use super::{MIB, World, assert_refused, json_of, sas_of};
use crate::client::get;

fn copy_of(disk: &str, incremental: bool) -> Value {
    json!({
        "location": "West Europe",
        "tags": { "run": "7" },
        "properties": {
            "incremental": incremental,
            "creationData": { "createOption": "Copy", "sourceResourceId": disk },
        },
    })
}

#[tokio::test]
async fn a_snapshot_shows_what_it_is() {
    let world = World::new().await;
    let snapshot = world.disk.snapshot();
    let answer = world.get(&snapshot.arm_id()).await;
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    let body = json_of(&answer);
    let expected = json!({
        "name": "data-1",
        "id": world.snapshot_id("data-1"),
        "type": "Microsoft.Compute/snapshots",
        "location": "westeurope",
        "tags": {},
        "sku": { "name": "Standard_LRS", "tier": "Standard" },
        "properties": {
            "creationData": {
                "createOption": "Copy",
                "sourceResourceId": world.disk.arm_id(),
                "sourceUniqueId": world.disk.unique_id(),
                "logicalSectorSize": 512,
            },
            "diskSizeGB": 1,
            "diskSizeBytes": MIB,
            "diskState": "Unattached",
            "encryption": { "type": "EncryptionAtRestWithPlatformKey" },
            "incremental": true,
            "incrementalSnapshotFamilyId": body["properties"]["incrementalSnapshotFamilyId"],
            "completionPercent": 100.0,
            "networkAccessPolicy": "AllowAll",
            "publicNetworkAccess": "Enabled",
            "provisioningState": "Succeeded",
            "timeCreated": snapshot.time_created(),
            "uniqueId": snapshot.unique_id(),
        },
    });
    assert_eq!(body, expected);
    assert!(body["properties"]["incrementalSnapshotFamilyId"].as_str().is_some());
    assert_eq!((snapshot.name(), snapshot.arm_id()), ("data-1", world.snapshot_id("data-1")));
}

#[tokio::test]
async fn times_differ_from_those_in_urls_and_keep_their_order() {
    let world = World::new().await;
    let first = world.disk.snapshot();
    let time = first.time().trim_end_matches('Z');
    let created = first.time_created();
    assert!(created.ends_with("+00:00") && created.len() == time.len() + 6, "{created}");
    assert_ne!(created.trim_end_matches("+00:00"), time);
    // Even where the distance shrinks between two snapshots.
    world.set(ArmKnobs { time_created_offset_ms: -5000, ..ArmKnobs::default() });
    let second = world.disk.snapshot();
    assert!(second.time_created() > first.time_created());
    world.set(ArmKnobs { time_created_offset_ms: 0, ..ArmKnobs::default() });
    world.emulator.advance_clock(std::time::Duration::from_secs(1));
    let third = world.disk.snapshot();
    assert_eq!(third.time_created().replace("+00:00", "Z"), third.time());
}

#[tokio::test]
async fn a_client_takes_incremental_and_full_snapshots() {
    let world = World::new().await;
    world.disk.write(512, &[7; 512]).unwrap();
    let body = copy_of(&world.disk.arm_id().to_uppercase().replace("/SUBSCRIPTIONS", "/subscriptions"), true);
    let made = world.ask("PUT", &world.snapshot_id("one"), body.clone()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(json_of(&made)["tags"], json!({ "run": "7" }));
    let snapshot = world.arm.snapshot(&world.snapshot_id("ONE")).unwrap();
    assert_eq!(snapshot.read(512, 512), [7; 512]);
    // It is of the same family as those that a test takes, and a diff between them works.
    world.disk.write(1024, &[8; 512]).unwrap();
    let second = world.disk.snapshot();
    let family = "incrementalSnapshotFamilyId";
    assert_eq!(world.properties("one").await[family], world.properties(second.name()).await[family]);
    let url = format!("{}&comp=pagelist", second.grant());
    let diff = get(&url, &[("x-ms-previous-snapshot-url", &snapshot.grant())]).await;
    assert!(diff.text().contains("<Start>1024</Start><End>1535</End>"), "{}", diff.text());

    let made = world.ask("PUT", &world.snapshot_id("full"), copy_of(&world.disk.arm_id(), false)).await;
    assert_eq!(made.status, 200);
    let full = world.properties("full").await;
    assert_eq!(
        (&full["incremental"], &full[family], &full["completionPercent"]),
        (&json!(false), &Value::Null, &Value::Null)
    );
    let url = sas_of(&world.begin("full").await);
    assert!(url.contains("/md-impexp-") && url.contains("sr=b&") && !url.contains("snapshot="), "{url}");
    let bytes = get(&url, &[]).await;
    assert_eq!((bytes.status, &bytes.body[1024..1536]), (200, [8; 512].as_slice()));
    assert_eq!(world.disk.full_snapshot_named("more").read(1024, 1), [8]);
    // What is written later is in neither.
    world.disk.write(1024, &[9; 512]).unwrap();
    assert_eq!(get(&url, &[]).await.body[1024], 8);
}

#[tokio::test]
async fn a_repeated_put_is_harmless_and_another_is_refused() {
    let world = World::new().await;
    let id = world.snapshot_id("one");
    let first = json_of(&world.ask("PUT", &id, copy_of(&world.disk.arm_id(), true)).await);
    world.disk.write(0, &[1; 512]).unwrap();
    let again = json_of(&world.ask("PUT", &id, copy_of(&world.disk.arm_id(), true)).await);
    assert_eq!(first["properties"]["uniqueId"], again["properties"]["uniqueId"]);
    let other = world.emulator.create_disk("other", MIB).unwrap();
    let refused = world.ask("PUT", &id, copy_of(&other.arm_id(), true)).await;
    assert_refused(&refused, 409, "PropertyChangeNotAllowed", "creationData.sourceResourceId");
    let refused = world.ask("PUT", &id, copy_of(&world.disk.arm_id(), false)).await;
    assert_refused(&refused, 409, "PropertyChangeNotAllowed", "incremental");
}

#[tokio::test]
async fn what_cannot_be_made_is_refused() {
    let world = World::new().await;
    let disk = world.disk.arm_id();
    let with = |pointer: &str, value: Value| {
        let mut body = copy_of(&disk, true);
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let source = "/properties/creationData/sourceResourceId";
    let option = "/properties/creationData/createOption";
    for (body, status, code, says) in [
        (Value::from("text"), 400, "InvalidRequestContent", "deserialized"),
        (with("/location", Value::Null), 400, "InvalidParameter", "location"),
        (with("/location", json!("northeurope")), 400, "InvalidParameter", "region"),
        (
            with(source, json!(disk.replace("/data", "/gone"))),
            404,
            "ResourceNotFound",
            "'Microsoft.Compute/disks/gone'",
        ),
        (with(source, json!("data")), 400, "InvalidParameter", "no id"),
        (with(option, json!("Import")), 400, "NotImplemented", "Import"),
        (with("/properties/incremental", json!("yes")), 400, "InvalidParameter", "incremental"),
        (with("/tags", json!({ "a": 1 })), 400, "InvalidParameter", "tags"),
    ] {
        let refused = world.ask("PUT", &world.snapshot_id("new"), body).await;
        assert_refused(&refused, status, code, says);
    }
    let long = world.ask("PUT", &world.snapshot_id(&"x".repeat(81)), copy_of(&disk, true)).await;
    assert_refused(&long, 400, "InvalidResourceName", "xxx");
    let nowhere = world.snapshot_id("new").replace("/disks/", "/none/");
    let refused = world.ask("PUT", &nowhere, copy_of(&disk, true)).await;
    assert_refused(&refused, 404, "ResourceGroupNotFound", "'none'");
    let missing = world.get(&world.snapshot_id("new")).await;
    assert_refused(
        &missing,
        404,
        "ResourceNotFound",
        "The Resource 'Microsoft.Compute/snapshots/new' under resource group 'disks' was not found.",
    );
}

#[tokio::test]
async fn tags_change_and_deletion_is_final() {
    let world = World::new().await;
    let snapshot = world.disk.snapshot();
    let id = snapshot.arm_id();
    let changed = world.ask("PATCH", &id, json!({ "tags": { "sealed": "yes" } })).await;
    assert_eq!((changed.status, &json_of(&changed)["tags"]), (200, &json!({ "sealed": "yes" })));
    assert_eq!(json_of(&world.get(&id).await)["tags"], json!({ "sealed": "yes" }));

    let url = sas_of(&world.begin("data-1").await);
    let refused = world.ask("DELETE", &id, Value::Null).await;
    assert_refused(&refused, 409, "OperationNotAllowed", "EndGetAccess");
    assert_eq!(world.end("data-1").await.status, 200);
    let own = snapshot.grant();
    assert_eq!(world.ask("DELETE", &id, Value::Null).await.status, 200);
    assert_eq!(world.ask("DELETE", &id, Value::Null).await.status, 204);
    assert_eq!(world.get(&id).await.status, 404);
    for url in [url, own] {
        assert_eq!(get(&url, &[]).await.refusal(), (403, "AuthenticationFailed"));
    }
    assert_eq!(world.emulator.stats().of(Call::ArmDeleteSnapshot).requests, 3);
    // The number is not used again, and a test's deletion is the same thing.
    let next = world.disk.snapshot();
    assert_eq!(next.name(), "data-2");
    next.delete();
    assert_eq!(world.get(&next.arm_id()).await.status, 404);
    // A snapshot that takes another one's name replaces it.
    let old = world.disk.snapshot_named("nightly");
    let new = world.disk.snapshot_named("nightly");
    assert_eq!(world.properties("nightly").await["uniqueId"], json!(new.unique_id()));
    assert_ne!(old.unique_id(), new.unique_id());
    old.delete();
    assert_eq!(world.get(&new.arm_id()).await.status, 200);
}

#[tokio::test]
async fn requests_are_recorded_with_call_path_and_names() {
    let world = World::new().await;
    world.get(&world.snapshot_id("gone")).await;
    let record = world.emulator.requests().pop().unwrap();
    assert_eq!(
        (record.call, record.status, record.error),
        (Call::ArmGetSnapshot, 404, Some("ResourceNotFound"))
    );
    assert!(record.path_and_query.starts_with(&world.snapshot_id("gone")), "{}", record.path_and_query);
    let names = (record.account.as_str(), record.container.as_str(), record.blob.as_str());
    assert_eq!(names, ("", "disks", "gone"));
}
