//! Disks whose content is uploaded.

use std::time::Duration;

use serde_json::{Value, json};
use snapferry_emulator::{ArmKnobs, AsyncReply, Knobs, SecondGrant};

use super::{MIB, World, assert_refused, json_of, sas_of};
use crate::client::{Answer, and, elements, get, put, send};

const DISK: u64 = 20 * MIB;
const SIZE: u64 = DISK + 512;

fn upload(size: &Value) -> Value {
    let creation = json!({ "createOption": "Upload", "uploadSizeBytes": size });
    json!({ "location": "westeurope", "properties": { "creationData": creation } })
}

/// The footer of a disk of that size.
fn footer(world: &World, bytes: u64) -> Vec<u8> {
    let model = world.emulator.create_disk("model", bytes).unwrap();
    model.delete();
    model.read_image(bytes, 512)
}

async fn write(url: &str, offset: u64, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
    let range = format!("bytes={offset}-{}", offset + body.len() as u64 - 1);
    let mut all = vec![("x-ms-page-write", "update"), ("x-ms-range", range.as_str())];
    all.extend_from_slice(headers);
    send("PUT", &and(url, "comp=page"), &all, body).await
}

async fn clear(url: &str, range: &str) -> Answer {
    put(&and(url, "comp=page"), &[("x-ms-page-write", "clear"), ("x-ms-range", range)]).await
}

impl World {
    async fn make_upload(&self) -> String {
        let id = self.disk_id("up");
        let made = self.ask("PUT", &id, upload(&json!(SIZE))).await;
        assert_eq!(made.status, 200, "{}", made.text());
        id
    }

    pub(super) async fn begin_disk(&self, id: &str, access: &str) -> Answer {
        let body = json!({ "access": access, "durationInSeconds": 3600 });
        self.ask("POST", &format!("{id}/beginGetAccess"), body).await
    }

    pub(super) async fn end_disk(&self, id: &str) -> Answer {
        self.ask("POST", &format!("{id}/endGetAccess"), Value::Null).await
    }

    pub(super) async fn disk_state(&self, id: &str) -> String {
        let state = json_of(&self.get(id).await)["properties"]["diskState"].as_str().unwrap().to_owned();
        assert_eq!(self.arm.disk(id).unwrap().state(), state);
        state
    }
}

#[tokio::test]
async fn what_is_uploaded_is_what_the_disk_holds() {
    let world = World::new().await;
    let made = world.ask("PUT", &world.disk_id("up"), upload(&json!(SIZE))).await;
    let body = json_of(&made);
    let properties = &body["properties"];
    assert_eq!((made.status, &properties["diskState"]), (200, &json!("ReadyToUpload")));
    assert_eq!((&properties["diskSizeBytes"], &properties["diskSizeGB"]), (&json!(DISK), &json!(1)));
    assert_eq!(properties["provisioningState"], "Succeeded");
    assert_eq!(properties["creationData"]["uploadSizeBytes"], SIZE);

    let id = world.disk_id("up");
    let url = sas_of(&world.begin_disk(&id, "Write").await);
    assert_eq!(world.disk_state(&id).await, "ActiveUpload");
    assert_eq!(world.arm.active_grants(), [id.as_str()]);
    let (path, query) = url.split_once('?').unwrap();
    assert!(path.starts_with(&format!("{}/md-impexp-", world.emulator.endpoint())), "{path}");
    assert!(path.ends_with("/abcd") && query.starts_with("sv=2018-03-28&sr=b&si="), "{url}");
    let policy = query.split(['=', '&']).nth(5).unwrap();
    assert_eq!((policy.len(), policy.matches('-').count()), (36, 4), "{policy}");

    let written = write(&url, 4096, vec![b'b'; 1024], &[("x-ms-content-crc64", "pK+ypU+jreM=")]).await;
    assert_eq!((written.status, written.header("x-ms-content-crc64")), (201, Some("pK+ypU+jreM=")));
    assert_eq!(write(&url, MIB, vec![7; 4096], &[]).await.status, 201);
    assert_eq!(clear(&url, "bytes=1048576-1049087").await.status, 201);
    assert_eq!(write(&url, DISK, footer(&world, DISK), &[]).await.status, 201);
    let disk = world.arm.disk(&id).unwrap();
    assert_eq!((disk.image_len(), disk.read_image(5119, 2)), (SIZE, vec![b'b', 0]));

    let ended = world.end_disk(&id).await;
    assert_eq!((ended.status, ended.body.len()), (200, 0));
    assert_eq!(world.disk_state(&id).await, "Unattached");
    assert_eq!(write(&url, 0, vec![1; 512], &[]).await.refusal(), (403, "AuthenticationFailed"));
    assert!(world.arm.active_grants().is_empty());
    let image = disk.read_image(0, u64::MAX);
    assert_eq!((image.len() as u64, &image[4096..5120]), (SIZE, &[b'b'; 1024][..]));
    assert_eq!(image[1_048_576..1_049_089], [vec![0; 512], vec![7]].concat());

    // It is a disk like any other now: its snapshots, and the disk itself, are exported as they were uploaded.
    let snapshot = disk.snapshot();
    assert_eq!(snapshot.read(0, u64::MAX), image);
    let read = get(&sas_of(&world.begin(snapshot.name()).await), &[]).await;
    assert_eq!(read.body, image);
    let read = sas_of(&world.begin_disk(&id, "Read").await);
    assert_eq!(get(&read, &[]).await.body, image);
    assert_eq!(world.begin_disk(&id, "Write").await.status, 409);
    disk.write(0, &[9; 512]).unwrap();
    assert_eq!(disk.snapshot().read(0, 1), [9]);
}

#[tokio::test]
async fn an_upload_without_a_footer_is_not_over() {
    let world = World::new().await;
    let id = world.make_upload().await;
    // Nothing was begun, so there is nothing to end.
    assert_eq!(world.end_disk(&id).await.status, 200);
    assert_eq!(world.disk_state(&id).await, "ReadyToUpload");
    let creation = json!({ "createOption": "Copy", "sourceResourceId": id });
    let body =
        json!({ "location": "westeurope", "properties": { "incremental": true, "creationData": creation } });
    let refused = world.ask("PUT", &world.snapshot_id("s"), body).await;
    assert_refused(&refused, 409, "OperationNotAllowed", "upload is complete");
    assert_refused(&world.begin_disk(&id, "Read").await, 409, "OperationNotAllowed", "upload is complete");

    let other_size = footer(&world, 2 * DISK);
    let mut changed = footer(&world, DISK);
    changed[100] ^= 1;
    let mut dynamic = footer(&world, DISK);
    dynamic[63] = 3;
    for (last, says) in [
        (vec![0; 512], "is expected to have cookie value 'conectix'."),
        (other_size, "size in the footer"),
        (changed, "checksum"),
        (dynamic, "fixed kind"),
    ] {
        let url = sas_of(&world.begin_disk(&id, "Write").await);
        assert_eq!(write(&url, DISK, last, &[]).await.status, 201);
        let refused = world.end_disk(&id).await;
        assert_refused(&refused, 409, "InvalidVhd", says);
        assert!(refused.text().contains(url.split('?').next().unwrap()), "{}", refused.text());
        assert_eq!(world.disk_state(&id).await, "ReadyToUpload");
        assert_eq!(write(&url, 0, vec![1; 512], &[]).await.refusal(), (403, "AuthenticationFailed"));
    }
    // What was uploaded is still there: only the footer is missing.
    let url = sas_of(&world.begin_disk(&id, "Write").await);
    write(&url, 0, vec![5; 512], &[]).await;
    world.end_disk(&id).await;
    let url = sas_of(&world.begin_disk(&id, "Write").await);
    write(&url, DISK, footer(&world, DISK), &[]).await;
    assert_eq!(world.end_disk(&id).await.status, 200);
    assert_eq!(world.arm.disk(&id).unwrap().read(0, 512), [5; 512]);
}

#[tokio::test]
async fn an_upload_outlives_its_sas() {
    let world = World::new().await;
    let id = world.make_upload().await;
    let first = sas_of(&world.begin_disk(&id, "Write").await);
    write(&first, DISK, footer(&world, DISK), &[]).await;
    assert_refused(&world.begin_disk(&id, "Write").await, 409, "OperationNotAllowed", "for disk 'up'");
    for second_grant in [SecondGrant::Same, SecondGrant::NewBesideOld, SecondGrant::NewInsteadOfOld] {
        world.set(ArmKnobs { second_grant, ..ArmKnobs::default() });
        let next = sas_of(&world.begin_disk(&id, "Write").await);
        assert_eq!(next == first, second_grant == SecondGrant::Same);
        assert_eq!(write(&next, 0, vec![1; 512], &[]).await.status, 201);
        let first_is_good = second_grant != SecondGrant::NewInsteadOfOld;
        assert_eq!(write(&first, 0, vec![1; 512], &[]).await.status == 201, first_is_good);
    }
    world.emulator.advance_clock(Duration::from_hours(2));
    assert_eq!(world.disk_state(&id).await, "ActiveUpload");
    assert!(world.arm.active_grants().is_empty());
    let url = sas_of(&world.begin_disk(&id, "Write").await);
    assert_eq!(write(&url, 512, vec![2; 512], &[]).await.status, 201);
    world.emulator.advance_clock(Duration::from_hours(2));
    assert_eq!(world.end_disk(&id).await.status, 200);
    assert_eq!(world.disk_state(&id).await, "Unattached");
    assert_eq!(world.arm.disk(&id).unwrap().read(0, 1024), [[1; 512], [2; 512]].concat());
}

#[tokio::test]
async fn sizes_that_no_upload_may_have() {
    let world = World::new().await;
    let id = world.disk_id("up");
    for (size, says) in [
        (Value::Null, "uploadSizeBytes"),
        (json!("20972032"), "uploadSizeBytes"),
        (json!(-512), "is not from 20972032 to 35183298347520"),
        (json!(20_971_520), "is not from 20972032 to 35183298347520"),
        (json!(35_183_298_348_032_i64), "is not from 20972032 to 35183298347520"),
        (json!(SIZE + 512), "is not a whole number of MiB and a footer"),
        (json!(21 * MIB), "is not a whole number of MiB and a footer"),
        (json!(SIZE + 1), "is not a whole number of MiB and a footer"),
    ] {
        let refused = world.ask("PUT", &id, upload(&size)).await;
        assert_refused(&refused, 400, "InvalidParameter", says);
        assert_eq!(json_of(&refused)["error"]["target"], "uploadSizeBytes");
    }
    assert_eq!(world.get(&id).await.status, 404);
    let largest = world.ask("PUT", &id, upload(&json!(35_183_298_347_520_u64))).await;
    assert_eq!(json_of(&largest)["properties"]["diskSizeGB"], 32_767);
    assert_eq!(world.ask("PUT", &id, upload(&json!(35_183_298_347_520_u64))).await.status, 200);
    let other = world.ask("PUT", &id, upload(&json!(SIZE))).await;
    assert_refused(&other, 409, "PropertyChangeNotAllowed", "creationData");
}

#[tokio::test]
async fn the_host_of_an_upload_takes_little_besides_pages() {
    let world = World::new().await;
    let id = world.make_upload().await;
    let url = sas_of(&world.begin_disk(&id, "Write").await);
    let page = async |header: (&str, &str)| write(&url, 0, vec![b'b'; 1024], &[header]).await;
    let lease = "0000000a-0000-0000-0000-00000000000a";
    for (name, value, code) in [
        ("content-md5", "kutf/uauL+w61xx3dTFXjw==", "UnsupportedHeader"),
        ("x-ms-lease-id", lease, "UnsupportedHeader"),
        ("if-match", "*", "ConditionHeadersNotSupported"),
        ("if-none-match", "*", "ConditionHeadersNotSupported"),
        ("if-unmodified-since", "Fri, 27 Jan 2023 22:27:23 GMT", "ConditionHeadersNotSupported"),
        ("x-ms-if-sequence-number-le", "7", "ConditionHeadersNotSupported"),
    ] {
        let refused = page((name, value)).await;
        assert_eq!(refused.refusal(), (400, code), "{name}");
        assert!(refused.text().contains(&format!("<HeaderName>{name}</HeaderName>")), "{}", refused.text());
    }
    assert_eq!(page(("x-ms-content-crc64", "AAAAAAAAAAA=")).await.refusal(), (400, "Crc64Mismatch"));
    let source = ("x-ms-copy-source", url.as_str());
    assert_eq!(page(source).await.refusal(), (403, "AuthorizationPermissionMismatch"));
    for comp in ["metadata", "snapshot", "properties", "lease"] {
        let refused = put(&and(&url, &format!("comp={comp}")), &[]).await;
        assert_eq!(refused.refusal(), (403, "AuthorizationPermissionMismatch"), "{comp}");
    }
    for method in ["GET", "HEAD", "DELETE", "PUT"] {
        let refused = send(method, &url, &[], Vec::new()).await;
        assert_eq!(refused.refusal(), (403, "AuthorizationPermissionMismatch"), "{method}");
    }
    let list = and(&url, "comp=pagelist");
    assert_eq!(get(&list, &[]).await.refusal(), (403, "AuthorizationPermissionMismatch"));
    assert_eq!(page(("x-ms-client-request-id", "1")).await.status, 201);
    assert_eq!(write(&url, DISK, vec![1; 1024], &[]).await.refusal(), (416, "InvalidPageRange"));

    world.emulator.set_knobs(Knobs { upload_can_be_read: true, ..Knobs::default() });
    assert_eq!(elements(&get(&list, &[]).await), [('+', 0..1024)]);
    let read = get(&url, &[("x-ms-range", "bytes=0-1023")]).await;
    assert_eq!((read.status, read.body), (206, vec![b'b'; 1024]));
    let head = send("HEAD", &url, &[], Vec::new()).await;
    assert_eq!(head.header("content-length"), Some(SIZE.to_string().as_str()));
    assert_eq!(get(&url, &[("if-match", "*")]).await.refusal(), (400, "ConditionHeadersNotSupported"));

    world.emulator.set_knobs(Knobs { upload_takes_crc64: false, ..Knobs::default() });
    assert_eq!(page(("x-ms-content-crc64", "pK+ypU+jreM=")).await.refusal(), (400, "UnsupportedHeader"));
    let plain = page(("x-ms-client-request-id", "1")).await;
    assert_eq!((plain.status, plain.header("x-ms-content-crc64")), (201, None));
    assert_eq!(plain.header("content-md5"), None);
}

#[tokio::test]
async fn an_upload_may_take_its_time_and_fail_late() {
    let world = World::new().await;
    let both = AsyncReply::AsyncOperation;
    world.set(ArmKnobs {
        begin_access: both,
        other_changes: both,
        late_refusals: true,
        polls: 0,
        ..ArmKnobs::default()
    });
    let id = world.disk_id("up");
    let outcome = async |accepted: Answer| {
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        let url = accepted.header("azure-asyncoperation").unwrap().to_owned();
        json_of(&world.ask_url("GET", &url, Value::Null).await)
    };
    let made = outcome(world.ask("PUT", &id, upload(&json!(SIZE))).await).await;
    assert_eq!(made["properties"]["output"]["properties"]["diskState"], "ReadyToUpload");
    let begun = outcome(world.begin_disk(&id, "Write").await).await;
    let url = begun["properties"]["output"]["accessSAS"].as_str().unwrap().to_owned();
    let failed = outcome(world.end_disk(&id).await).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("Failed"), &json!("InvalidVhd")));
    assert_eq!(write(&url, 0, vec![1; 512], &[]).await.status, 403);
    let begun = outcome(world.begin_disk(&id, "Write").await).await;
    let url = begun["properties"]["output"]["accessSAS"].as_str().unwrap().to_owned();
    write(&url, DISK, footer(&world, DISK), &[]).await;
    assert_eq!(outcome(world.end_disk(&id).await).await["status"], "Succeeded");
    assert_eq!(world.disk_state(&id).await, "Unattached");
}
