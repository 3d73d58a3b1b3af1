//! beginGetAccess and endGetAccess.

use std::time::Duration;

use serde_json::{Value, json};
use snapferry_emulator::{ArmKnobs, Call, SecondGrant};

use super::{World, assert_refused, json_of, sas_of};
use crate::client::{HOUR, get, put};

async fn opens(url: &str) -> bool {
    let answer = get(url, &[("x-ms-range", "bytes=0-511")]).await;
    assert!(answer.status == 206 || answer.refusal() == (403, "AuthenticationFailed"), "{}", answer.text());
    answer.status == 206
}

#[tokio::test]
async fn a_sas_opens_its_snapshot_until_it_is_ended() {
    let world = World::new().await;
    let snapshot = world.disk.snapshot();
    let own = snapshot.grant();
    assert_eq!(world.properties("data-1").await["diskState"], "Unattached");
    let url = sas_of(&world.begin("data-1").await);
    // Of the same kind as one that a test makes: only policy and signature differ.
    let start = |url: &str| url.split("&si=").next().unwrap().to_owned();
    assert_eq!(start(&url), start(&own));
    assert!(opens(&url).await);
    assert_eq!(put(&format!("{url}&comp=metadata"), &[]).await.status, 403);
    assert_eq!(world.properties("data-1").await["diskState"], "ActiveSAS");
    assert_eq!(world.arm.active_grants(), [snapshot.arm_id()]);

    assert_eq!(world.end("data-1").await.status, 200);
    assert_eq!((opens(&url).await, opens(&own).await), (false, true));
    assert_eq!(world.properties("data-1").await["diskState"], "Unattached");
    assert_eq!(world.end("data-1").await.status, 200);
    assert!(world.arm.active_grants().is_empty());

    let url = sas_of(&world.begin("data-1").await);
    snapshot.revoke();
    assert!(!opens(&url).await && world.arm.active_grants().is_empty());
    let stats = world.emulator.stats();
    assert_eq!((stats.of(Call::BeginGetAccess).requests, stats.of(Call::EndGetAccess).requests), (2, 2));
}

#[tokio::test]
async fn a_sas_ends_with_its_duration() {
    let world = World::new().await;
    world.disk.snapshot();
    let url = sas_of(&world.begin_with("data-1", json!({ "access": "Read", "durationInSeconds": 30 })).await);
    world.emulator.advance_clock(Duration::from_secs(29));
    assert!(opens(&url).await);
    world.emulator.advance_clock(Duration::from_secs(1));
    assert!(!opens(&url).await);
    assert_eq!(world.properties("data-1").await["diskState"], "Unattached");
    assert_eq!(world.begin("data-1").await.status, 200);
}

#[tokio::test]
async fn what_is_asked_for_must_make_sense() {
    let world = World::new().await;
    world.disk.snapshot();
    for (body, says) in [
        (json!({ "access": "Write", "durationInSeconds": 60 }), "'Read' only"),
        (json!({ "durationInSeconds": 60 }), "access"),
        (json!({ "access": "Read" }), "durationInSeconds"),
        (json!({ "access": "Read", "durationInSeconds": 29 }), "30 to 5184000"),
        (json!({ "access": "Read", "durationInSeconds": 5_184_001 }), "30 to 5184000"),
        (json!({ "access": "Read", "durationInSeconds": "60" }), "durationInSeconds"),
        (
            json!({ "access": "Read", "durationInSeconds": 60, "fileFormat": "VHDX" }),
            "'VHDX' is not supported",
        ),
        (json!({ "access": "Read", "durationInSeconds": 60, "fileFormat": "raw" }), "'raw' is invalid"),
    ] {
        assert_refused(&world.begin_with("data-1", body).await, 400, "InvalidParameter", says);
    }
    let body = json!({ "access": "Read", "durationInSeconds": 5_184_000, "fileFormat": "VHD" });
    assert_eq!(world.begin_with("data-1", body).await.status, 200);
    assert_refused(&world.begin("gone").await, 404, "ResourceNotFound", "snapshots/gone");
}

#[tokio::test]
async fn a_second_grant_is_refused_or_one_of_three_things() {
    let world = World::new().await;
    world.disk.snapshot();
    let first = sas_of(&world.begin("data-1").await);
    assert_refused(
        &world.begin("data-1").await,
        409,
        "OperationNotAllowed",
        "active shared access signature",
    );
    let second_with = async |second_grant| {
        world.set(ArmKnobs { second_grant, ..ArmKnobs::default() });
        sas_of(&world.begin("data-1").await)
    };
    assert_eq!(second_with(SecondGrant::Same).await, first);
    let beside = second_with(SecondGrant::NewBesideOld).await;
    assert_ne!(beside, first);
    assert!(opens(&first).await && opens(&beside).await);
    let instead = second_with(SecondGrant::NewInsteadOfOld).await;
    assert_eq!((opens(&first).await, opens(&beside).await, opens(&instead).await), (false, false, true));
}

#[tokio::test]
async fn a_family_has_five_grants_at_most() {
    let world = World::new().await;
    let snapshots: Vec<_> = (0..7).map(|_| world.disk.snapshot()).collect();
    // Those that tests make do not count.
    for snapshot in &snapshots {
        snapshot.grant();
    }
    for number in 1..=5 {
        assert_eq!(world.begin(&format!("data-{number}")).await.status, 200);
    }
    let refused = world.begin("data-6").await;
    assert_refused(&refused, 409, "OperationNotAllowed", "At most 5 incremental snapshots of the same");
    assert_eq!(world.arm.active_grants().len(), 5);
    let other = world.emulator.create_disk("other", 512).unwrap().snapshot();
    assert_eq!(world.begin(other.name()).await.status, 200);
    world.disk.full_snapshot_named("full");
    assert_eq!(world.begin("full").await.status, 200);
    assert_eq!(world.end("data-2").await.status, 200);
    assert_eq!(world.begin("data-6").await.status, 200);
    world.set(ArmKnobs { family_grant_limit: 6, ..ArmKnobs::default() });
    assert_eq!(world.begin("data-7").await.status, 200);
}

#[tokio::test]
async fn what_is_incomplete_or_closed_is_not_accessed() {
    let world = World::new().await;
    let snapshot = world.disk.snapshot();
    snapshot.set_completion(99.5);
    assert_eq!(world.properties("data-1").await["completionPercent"], 99.5);
    assert_refused(&world.begin("data-1").await, 409, "OperationNotAllowed", "completionPercent is 99.5");
    snapshot.set_completion(100.0);
    snapshot.set_public_network_access(false);
    assert_eq!(world.properties("data-1").await["publicNetworkAccess"], "Disabled");
    assert_refused(
        &world.begin("data-1").await,
        409,
        "OperationNotAllowed",
        "Access not permitted for resource",
    );
    let body =
        json!({ "properties": { "publicNetworkAccess": "Enabled", "networkAccessPolicy": "DenyAll" } });
    assert_eq!(world.ask("PATCH", &snapshot.arm_id(), body).await.status, 200);
    assert_eq!(world.begin("data-1").await.status, 409);
    let body = json!({ "properties": { "networkAccessPolicy": "AllowAll" } });
    assert_eq!(world.ask("PATCH", &snapshot.arm_id(), body).await.status, 200);
    assert_eq!(world.begin("data-1").await.status, 200);
}

#[tokio::test]
async fn large_sectors_are_no_vhd() {
    let world = World::new().await;
    let snapshot = world.disk.snapshot();
    let footer = |bytes: &[u8]| bytes[bytes.len() - 512..].starts_with(b"conectix");
    assert!(footer(&snapshot.read(0, u64::MAX)));
    snapshot.set_sector_size(4096);
    let asked = |format: Value| json!({ "access": "Read", "durationInSeconds": 60, "fileFormat": format });
    let refused = world.begin_with("data-1", asked(json!("VHD"))).await;
    assert_refused(&refused, 400, "InvalidParameter", "only 'VHDX'");
    for format in [json!("VHDX"), Value::Null] {
        let url = sas_of(&world.begin_with("data-1", asked(format)).await);
        let bytes = get(&url, &[]).await.body;
        assert!(!footer(&bytes) && bytes == snapshot.read(0, u64::MAX));
        assert_eq!(world.end("data-1").await.status, 200);
    }
    assert_eq!(world.properties("data-1").await["creationData"]["logicalSectorSize"], 4096);
    snapshot.set_sector_size(512);
    assert!(footer(&snapshot.read(0, u64::MAX)));
}

#[tokio::test]
async fn an_entra_secured_snapshot_needs_a_token_besides() {
    let world = World::new().await;
    let body = json!({
        "location": "westeurope",
        "properties": {
            "incremental": true,
            "dataAccessAuthMode": "AzureActiveDirectory",
            "creationData": { "createOption": "Copy", "sourceResourceId": world.disk.arm_id() },
        },
    });
    assert_eq!(world.ask("PUT", &world.snapshot_id("secured"), body).await.status, 200);
    let url = sas_of(&world.begin("secured").await);
    let refused = get(&url, &[]).await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").unwrap().contains("https://disk.azure.com/"));
    assert_eq!(get(&url, &[("authorization", "Bearer any")]).await.status, 200);
}

#[tokio::test]
async fn the_field_is_spelt_in_two_ways() {
    let world = World::new().await;
    world.disk.snapshot();
    world.set(ArmKnobs { lower_case_sas: true, ..ArmKnobs::default() });
    let body = json_of(&world.begin("data-1").await);
    assert!(body["accessSas"].as_str().unwrap().contains("&sig=") && body["accessSAS"].is_null());
    world.emulator.advance_clock(HOUR);
    assert!(world.arm.active_grants().is_empty());
}
