//! Disks that are made of a page blob.

use serde_json::{Value, json};
use snapferry_emulator::{Account, ArmKnobs, AsyncReply, Config, Emulator};

use super::{MIB, World, assert_refused, json_of};
use crate::client::{HOUR, and, put, send};

const CONTAINER: &str = "box";
const LENGTH: u64 = MIB + 512;

fn import(uri: &str, account_id: &str) -> Value {
    let creation = json!({ "createOption": "Import", "sourceUri": uri, "storageAccountId": account_id });
    json!({ "location": "westeurope", "properties": { "creationData": creation } })
}

/// A page blob with the image of a disk of 1 MiB, in which one page is filled. Returns its URL with a SAS.
async fn make_blob(world: &World, account: &Account, name: &str, byte: u8) -> String {
    account.create_container(CONTAINER);
    let url = account.container_sas(CONTAINER, name, "racwd", HOUR);
    let headers = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", &LENGTH.to_string())];
    assert_eq!(put(&url, &headers).await.status, 201);
    write(&url, 4096, vec![byte; 512]).await;
    write(&url, MIB, world.disk.read_image(MIB, 512)).await;
    url
}

async fn write(url: &str, offset: u64, body: Vec<u8>) {
    let range = format!("bytes={offset}-{}", offset + body.len() as u64 - 1);
    let headers = [("x-ms-page-write", "update"), ("x-ms-range", range.as_str())];
    assert_eq!(send("PUT", &and(url, "comp=page"), &headers, body).await.status, 201);
}

async fn snapshot(url: &str) -> String {
    put(&and(url, "comp=snapshot"), &[]).await.header("x-ms-snapshot").unwrap().to_owned()
}

#[tokio::test]
async fn a_disk_is_made_of_a_blob_or_a_snapshot() {
    let world = World::new().await;
    let account = world.emulator.account("target");
    let sas = make_blob(&world, &account, "base", 1).await;
    let time = snapshot(&sas).await;
    write(&sas, 4096, vec![2; 512]).await;
    let plain = account.blob_url(CONTAINER, "base");
    let of_snapshot = format!("{plain}?snapshot={}", time.replace(':', "%3A"));
    for (name, uri, version, shown) in [
        ("a", plain.clone(), None, &plain),
        ("b", sas.clone(), None, &plain),
        ("c", of_snapshot.clone(), Some(time.as_str()), &of_snapshot),
    ] {
        let body = import(&uri, &account.arm_id());
        let made = world.ask("PUT", &world.disk_id(name), body.clone()).await;
        assert_eq!(made.status, 200, "{}", made.text());
        let properties = json_of(&made)["properties"].clone();
        assert_eq!(
            (&properties["diskState"], &properties["diskSizeBytes"]),
            (&json!("Unattached"), &json!(MIB))
        );
        assert_eq!(properties["creationData"]["sourceUri"], json!(shown));
        assert_eq!(properties["creationData"]["storageAccountId"], json!(account.arm_id()));
        let disk = world.arm.disk(&world.disk_id(name)).unwrap();
        let blob = account.read_blob(CONTAINER, "base", version).unwrap();
        assert_eq!((disk.image_len(), disk.read_image(0, LENGTH)), (LENGTH, blob.read(0, LENGTH)));
        // Asked for again, it is the same disk.
        assert_eq!(world.ask("PUT", &world.disk_id(name), body).await.status, 200);
    }
    let changed = world.ask("PUT", &world.disk_id("c"), import(&plain, &account.arm_id())).await;
    assert_refused(&changed, 409, "PropertyChangeNotAllowed", "creationData");
    // The disk has nothing to do with the blob from there on.
    let disk = world.arm.disk(&world.disk_id("a")).unwrap();
    disk.write(4096, &[3; 512]).unwrap();
    write(&sas, 0, vec![4; 512]).await;
    assert_eq!(account.read_blob(CONTAINER, "base", None).unwrap().read(4096, 1), [2]);
    assert_eq!((disk.snapshot().read(4096, 1), disk.read(0, 1)), (vec![3], vec![0]));
}

#[tokio::test]
async fn the_account_of_a_blob_is_where_the_emulator_is() {
    let world = World::new().await;
    let account = world.emulator.account("target");
    let ask = async |id: &str, version: &str| {
        let url = format!("{}{id}?api-version={version}", world.emulator.endpoint());
        world.ask_url("GET", &url, Value::Null).await
    };
    let shown = ask(&account.arm_id(), "2023-01-01").await;
    assert_eq!(shown.status, 200, "{}", shown.text());
    assert_eq!(json_of(&shown)["location"], "westeurope");
    assert_eq!(json_of(&shown)["id"], account.arm_id());
    let nobody = ask(&account.arm_id().replace("/target", "/nobody"), "2023-01-01").await;
    assert_refused(&nobody, 404, "ResourceNotFound", "nobody");
    assert_eq!(ask(&account.arm_id(), "2024-03-02").await.status, 400);
    world.arm.deny("Microsoft.Storage/storageAccounts/read");
    assert_eq!(ask(&account.arm_id(), "2023-01-01").await.status, 403);
}

#[tokio::test]
async fn an_import_takes_its_time() {
    let world = World::new().await;
    let account = world.emulator.account("target");
    make_blob(&world, &account, "base", 1).await;
    world.set(ArmKnobs { other_changes: AsyncReply::AsyncOperation, polls: 0, ..ArmKnobs::default() });
    let body = import(&account.blob_url(CONTAINER, "base"), &account.arm_id());
    let accepted = world.ask("PUT", &world.disk_id("a"), body).await;
    assert_eq!(accepted.status, 202);
    assert_eq!(json_of(&accepted)["properties"]["provisioningState"], "Updating");
    let poll = accepted.header("azure-asyncoperation").unwrap().to_owned();
    let over = json_of(&world.ask_url("GET", &poll, Value::Null).await);
    assert_eq!((&over["status"], &over["properties"]["output"]["name"]), (&json!("Succeeded"), &json!("a")));
}

#[tokio::test]
async fn what_cannot_be_imported() {
    let world = World::new().await;
    let account = world.emulator.account("target");
    let sas = make_blob(&world, &account, "base", 1).await;
    let plain = account.blob_url(CONTAINER, "base");
    let elsewhere = Emulator::start(Config::default()).await.unwrap();
    let far = elsewhere.account("target");
    far.create_container(CONTAINER);
    let block = account.container_sas(CONTAINER, "block", "racwd", HOUR);
    assert_eq!(put(&block, &[("x-ms-blob-type", "BlockBlob")]).await.status, 201);
    let empty = account.container_sas(CONTAINER, "empty", "racwd", HOUR);
    let headers = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "0")];
    assert_eq!(put(&empty, &headers).await.status, 201);

    let (id, nowhere) = (account.arm_id(), account.arm_id().replace("/target", "/other"));
    let exported = world.disk.snapshot().grant();
    let disk_account = exported.split('/').nth(3).unwrap().to_owned();
    let url = |name: &str| account.blob_url(CONTAINER, name);
    for (uri, account_id, target, says) in [
        (String::new(), id.as_str(), "sourceUri", "missing"),
        (plain.clone(), "", "storageAccountId", "missing"),
        ("base".to_owned(), &id, "sourceUri", "not in an account of the region"),
        (far.blob_url(CONTAINER, "base"), &id, "sourceUri", "not in an account of the region"),
        (plain.clone(), &nowhere, "storageAccountId", "not in the storage account 'other'"),
        (plain.replace("/target/", "/other/"), &nowhere, "storageAccountId", "no storage account 'other'"),
        (exported, &disk_account, "storageAccountId", "no storage account"),
        (url("none"), &id, "sourceUri", "does not exist"),
        (format!("{plain}?snapshot=2026-01-01T00:00:00.0000000Z"), &id, "sourceUri", "does not exist"),
        (url("block"), &id, "sourceUri", "not a page blob"),
    ] {
        let refused = world.ask("PUT", &world.disk_id("a"), import(&uri, account_id)).await;
        assert_refused(&refused, 400, "InvalidParameter", says);
        assert_eq!(json_of(&refused)["error"]["target"], target, "{uri}");
    }
    let refused = world.ask("PUT", &world.disk_id("a"), import(&url("empty"), &id)).await;
    assert_refused(&refused, 409, "InvalidVhd", "'conectix'");

    let time = snapshot(&sas).await;
    write(&sas, MIB, vec![0; 512]).await;
    let refused = world.ask("PUT", &world.disk_id("a"), import(&sas, &id)).await;
    assert_refused(&refused, 409, "InvalidVhd", &format!("disk 'base' with blob {plain} is not"));
    let body = import(&format!("{plain}?snapshot={time}"), &id);
    account.set_premium(true);
    let refused = world.ask("PUT", &world.disk_id("a"), body.clone()).await;
    assert_refused(&refused, 400, "InvalidParameter", "premium");
    assert_eq!(world.get(&world.disk_id("a")).await.status, 404);
    account.set_premium(false);
    assert_eq!(world.ask("PUT", &world.disk_id("a"), body).await.status, 200);
}

#[tokio::test]
async fn the_size_must_be_whole_mebibytes() {
    let world = World::new().await;
    let account = world.emulator.account("target");
    account.create_container(CONTAINER);
    let image = world.emulator.create_disk("odd", MIB + 512).unwrap().read_image(0, u64::MAX);
    let url = account.container_sas(CONTAINER, "odd", "racwd", HOUR);
    let headers = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", &image.len().to_string())];
    assert_eq!(put(&url, &headers).await.status, 201);
    write(&url, 0, image).await;
    let refused = world.ask("PUT", &world.disk_id("a"), import(&url, &account.arm_id())).await;
    assert_refused(&refused, 409, "InvalidVhd", "unsupported virtual size of 1049088 bytes");
}
