//! Faults of the management side.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapferry_emulator::{Call, Fault, FaultKind, Role};

use super::{VERSION, World, assert_refused, json_of};
use crate::client::HOUR;

#[tokio::test]
async fn too_many_requests() {
    let world = World::new().await;
    world.disk.snapshot();
    world.emulator.faults().add("begin-get-access:too-many-requests=17".parse().unwrap());
    let answer = world.begin("data-1").await;
    assert_refused(&answer, 429, "OperationNotAllowed", "too many requests");
    assert_eq!(answer.header("retry-after"), Some("17"));
    assert_eq!(
        answer.header("x-ms-ratelimit-remaining-resource"),
        Some("Microsoft.Compute/HighCostGet3Min;0")
    );
    let detail = &json_of(&answer)["error"]["details"][0];
    assert_eq!(detail["code"], "TooManyRequests");
    let counts: Value = serde_json::from_str(detail["message"].as_str().unwrap()).unwrap();
    assert!(counts["measuredRequestCount"].as_u64() > counts["allowedRequestCount"].as_u64());
    let record = world.emulator.requests().pop().unwrap();
    assert_eq!(
        (record.call, record.status, record.fault),
        (Call::BeginGetAccess, 429, Some("too-many-requests"))
    );
    assert!(world.arm.active_grants().is_empty());
    assert_eq!(world.begin("data-1").await.status, 200);
}

#[tokio::test]
async fn refusals_are_json() {
    let world = World::new().await;
    let id = world.disk.arm_id();
    for (kind, status, code) in [
        (FaultKind::ServerBusy(snapferry_emulator::BusyText::Busy), 503, "ServerBusy"),
        (FaultKind::RetryAfter { seconds: 2 }, 503, "ServerBusy"),
        (FaultKind::InternalError, 500, "InternalError"),
        (FaultKind::OperationTimedOut { after: Duration::ZERO }, 500, "OperationTimedOut"),
        (FaultKind::Forbidden, 403, "AuthorizationFailed"),
        (FaultKind::NotSupported, 501, "NotImplemented"),
    ] {
        world.emulator.faults().add(Fault::new(kind).at(Role::Management));
        assert_refused(&world.get(&id).await, status, code, "");
    }
    assert_eq!(world.get(&id).await.status, 200);
    let stats = world.emulator.stats().of(Call::ArmGetDisk);
    assert_eq!((stats.requests, stats.refused), (7, 6));
}

/// Sends a request that gets no reply.
async fn fails(world: &World, method: &str, path: &str, body: Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}{path}?api-version={VERSION}", world.arm.endpoint());
    let request = http.request(method.parse().unwrap(), url).bearer_auth(&world.token);
    let sent = request.body(body.to_string()).send().await;
    let broken = match sent {
        Ok(response) => response.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(broken);
}

#[tokio::test]
async fn a_lost_reply_leaves_what_was_done() {
    let world = World::new().await;
    world.disk.snapshot();
    let begin = format!("{}/beginGetAccess", world.snapshot_id("data-1"));
    let asked = json!({ "access": "Read", "durationInSeconds": 60 });
    world.emulator.faults().add(Fault::new(FaultKind::CutBeforeApply).on(Call::BeginGetAccess));
    fails(&world, "POST", &begin, asked.clone()).await;
    assert!(world.arm.active_grants().is_empty());
    world
        .emulator
        .faults()
        .add(Fault::new(FaultKind::CutAfterApply).on(Call::BeginGetAccess).of_blob("data-1"));
    fails(&world, "POST", &begin, asked.clone()).await;
    assert_eq!(world.arm.active_grants(), [world.snapshot_id("data-1")]);
    // The client does not know its SAS, and must end it to get one.
    assert_eq!(world.begin("data-1").await.status, 409);
    assert_eq!((world.end("data-1").await.status, world.begin("data-1").await.status), (200, 200));

    world.emulator.faults().add(Fault::new(FaultKind::TruncateBody { keep: 10 }).on(Call::ArmGetSnapshot));
    fails(&world, "GET", &world.snapshot_id("data-1"), Value::Null).await;
    world.emulator.faults().add("arm-list-snapshots:stall=60ms".parse().unwrap());
    let list = format!("/subscriptions/{}/providers/Microsoft.Compute/snapshots", world.arm.subscription());
    let start = Instant::now();
    fails(&world, "GET", &list, Value::Null).await;
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert_eq!(world.emulator.faults().fired(), 4);
}

#[tokio::test]
async fn a_change_may_be_applied_late_or_twice() {
    let world = World::new().await;
    let snapshot = world.disk.snapshot();
    let url = format!("{}/beginGetAccess", snapshot.arm_id());
    let asked = json!({ "access": "Read", "durationInSeconds": 60 });
    let late = async |number: usize| loop {
        let records = world.emulator.requests();
        if let Some(record) = records.into_iter().filter(|record| record.late).nth(number) {
            return (record.status, record.error);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    world.emulator.faults().add("begin-get-access:delayed-apply=20ms".parse().unwrap());
    fails(&world, "POST", &url, asked).await;
    assert_eq!(late(0).await, (200, None));
    assert_eq!(world.arm.active_grants(), [snapshot.arm_id()]);

    // Deleted, made again by somebody, and deleted by the request that the network repeats.
    snapshot.revoke();
    world.emulator.faults().add("arm-delete-snapshot:late-duplicate=20ms".parse().unwrap());
    assert_eq!(world.ask("DELETE", &snapshot.arm_id(), Value::Null).await.status, 200);
    let again = world.disk.snapshot_named(snapshot.name());
    assert_eq!(late(1).await, (200, None));
    assert_eq!(world.get(&again.arm_id()).await.status, 404);
}

#[tokio::test]
async fn faults_meet_only_requests_with_a_good_token() {
    let world = World::new().await;
    world.emulator.faults().add(Fault::new(FaultKind::InternalError).at(Role::Management));
    let expired = world.arm.token(Duration::ZERO);
    let url = format!("{}{}?api-version={VERSION}", world.arm.endpoint(), world.disk.arm_id());
    let bearer = format!("Bearer {expired}");
    assert_eq!(crate::client::get(&url, &[("authorization", &bearer)]).await.status, 401);
    assert_eq!(world.get(&world.disk.arm_id()).await.status, 500);
    // Faults for accounts pass management by, and a token's endpoint has faults of its own.
    world.emulator.faults().add(Fault::new(FaultKind::InternalError).at(Role::Account));
    assert_eq!(world.get(&world.disk.arm_id()).await.status, 200);
    world.emulator.faults().add("identity-token:too-many-requests=1".parse().unwrap());
    let (endpoint, header) = world.arm.identity();
    let url = format!("{endpoint}?resource=https://management.azure.com/&api-version=2019-08-01");
    let ask = async || crate::client::get(&url, &[("x-identity-header", &header)]).await.status;
    assert_eq!((ask().await, ask().await), (429, 200));
    assert!(!world.arm.token(HOUR).is_empty());
}
