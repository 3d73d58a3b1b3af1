//! Disks: made, shown, deleted, and made again under the same name.

use serde_json::{Value, json};

use super::{MIB, World, assert_refused, json_of, sas_of};
use crate::client::get;

#[tokio::test]
async fn a_client_makes_an_empty_disk_and_one_from_a_snapshot() {
    let world = World::new().await;
    let empty = json!({
        "location": "westeurope",
        "properties": { "creationData": { "createOption": "Empty" }, "diskSizeGB": 4 },
    });
    let made = world.ask("PUT", &world.disk_id("new"), empty).await;
    let body = json_of(&made);
    assert_eq!((made.status, &body["properties"]["diskSizeBytes"]), (200, &json!(4_u64 << 30)));
    assert_eq!(body["properties"]["diskState"], "Unattached");
    let disk = world.arm.disk(&world.disk_id("new")).unwrap();
    assert_eq!(
        (disk.len(), disk.unique_id()),
        (4 << 30, body["properties"]["uniqueId"].as_str().unwrap().to_owned())
    );

    world.disk.write(512, &[7; 512]).unwrap();
    let snapshot = world.disk.snapshot();
    let from = |id: &str| {
        let creation = json!({ "createOption": "Copy", "sourceResourceId": id });
        json!({ "location": "westeurope", "properties": { "creationData": creation } })
    };
    let made = world.ask("PUT", &world.disk_id("restored"), from(&snapshot.arm_id())).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let restored = world.arm.disk(&world.disk_id("restored")).unwrap();
    assert_eq!((restored.len(), restored.read(512, 512)), (MIB, vec![7; 512]));
    // They are two disks from there on, with families of their own.
    restored.write(512, &[8; 512]).unwrap();
    assert_eq!(snapshot.read(512, 1), [7]);
    let family = "incrementalSnapshotFamilyId";
    let copied = restored.snapshot();
    assert_ne!(
        world.properties(copied.name()).await[family],
        world.properties(snapshot.name()).await[family]
    );

    let gone = world.ask("PUT", &world.disk_id("other"), from(&world.snapshot_id("gone"))).await;
    assert_refused(&gone, 404, "ResourceNotFound", "snapshots/gone");
    let mut restore = from("");
    restore["properties"]["creationData"]["createOption"] = json!("Restore");
    let refused = world.ask("PUT", &world.disk_id("other"), restore).await;
    assert_refused(&refused, 400, "NotImplemented", "Restore");
}

#[tokio::test]
async fn tags_are_changed() {
    let world = World::new().await;
    let id = world.disk.arm_id();
    let changed = world.ask("PATCH", &id, json!({ "tags": { "kept": "2" } })).await;
    assert_eq!((changed.status, &json_of(&changed)["tags"]), (200, &json!({ "kept": "2" })));
    assert_eq!(world.ask("PATCH", &id, json!({})).await.status, 200);
    assert_eq!(json_of(&world.get(&id).await)["tags"], json!({ "kept": "2" }));
    assert_refused(
        &world.ask("PATCH", &id, json!({ "tags": { "a": 1 } })).await,
        400,
        "InvalidParameter",
        "tags",
    );
    let creation = json!({ "creationData": { "createOption": "Empty" } });
    let again = json!({ "location": "westeurope", "tags": {}, "properties": creation });
    assert_eq!(json_of(&world.ask("PUT", &id, again).await)["tags"], json!({}));
    world.arm.deny("Microsoft.Compute/disks/write");
    let denied = world.ask("PATCH", &id, json!({ "tags": {} })).await;
    assert_refused(&denied, 403, "AuthorizationFailed", "Microsoft.Compute/disks/write");
    world.arm.allow_all();
    let gone = world.ask("PATCH", &world.disk_id("gone"), json!({ "tags": {} })).await;
    assert_refused(&gone, 404, "ResourceNotFound", "disks/gone");
}

#[tokio::test]
async fn a_disk_that_is_made_again_has_nothing_to_do_with_the_old_one() {
    let world = World::new().await;
    world.disk.write(0, &[1; 512]).unwrap();
    let old = world.disk.snapshot();
    assert!(world.emulator.delete_disk("data"));
    assert!(!world.emulator.delete_disk("data"));
    assert_eq!(world.get(&world.disk.arm_id()).await.status, 404);
    let old_url = sas_of(&world.begin(old.name()).await);
    assert_eq!(get(&old_url, &[]).await.body[0], 1);

    let again = world.emulator.create_disk("data", MIB).unwrap();
    assert_eq!(again.arm_id(), world.disk.arm_id());
    assert_ne!(again.unique_id(), world.disk.unique_id());
    // The name `data-1` is that of the old disk's snapshot still.
    let new = again.snapshot();
    assert_eq!(new.name(), "data-2");
    let (before, after) = (world.properties(old.name()).await, world.properties(new.name()).await);
    for (field, same) in [
        ("/creationData/sourceResourceId", true),
        ("/creationData/sourceUniqueId", false),
        ("/incrementalSnapshotFamilyId", false),
    ] {
        assert_eq!(before.pointer(field) == after.pointer(field), same, "{field}");
    }
    let path = |url: &str| url.split('?').next().unwrap().to_owned();
    assert_ne!(path(&old_url), path(&new.grant()));

    assert_eq!(world.ask("DELETE", &again.arm_id(), Value::Null).await.status, 200);
    assert_eq!(world.ask("DELETE", &again.arm_id(), Value::Null).await.status, 204);
    assert_eq!(get(&new.grant(), &[]).await.status, 200);
}

#[tokio::test]
async fn a_name_is_taken_in_its_group_whatever_its_case() {
    let world = World::new().await;
    assert!(world.emulator.create_disk("DATA", MIB).is_err());
    let other = world.emulator.create_disk_in("other", "data", MIB).unwrap();
    assert!(world.emulator.create_disk_in("OTHER", "data", MIB).is_err());
    assert!(other.snapshot().arm_id().contains("/resourceGroups/other/"));
    let path = |url: String| url.split('?').next().unwrap().to_owned();
    assert_ne!(path(other.snapshot().grant()), path(world.disk.snapshot().grant()));
}
