//! 202 in its shapes.

use serde_json::{Value, json};
use snapferry_emulator::{ArmKnobs, AsyncReply, Call};

use super::{World, assert_refused, json_of, refusal};
use crate::client::{Answer, get};

const ASYNC: &str = "azure-asyncoperation";

async fn prepared(knobs: ArmKnobs) -> World {
    let world = World::new().await;
    world.disk.snapshot();
    world.set(knobs);
    world
}

async fn poll(world: &World, answer: &Answer, header: &str) -> Answer {
    world.ask_url("GET", answer.header(header).unwrap(), Value::Null).await
}

async fn opens(sas: &Value) -> bool {
    get(sas.as_str().unwrap(), &[]).await.status == 200
}

#[tokio::test]
async fn the_header_azure_asyncoperation_leads_to_a_status() {
    let world = prepared(ArmKnobs {
        begin_access: AsyncReply::AsyncOperation,
        polls: 2,
        retry_after: Some(3),
        ..ArmKnobs::default()
    })
    .await;
    let accepted = world.begin("data-1").await;
    assert_eq!(
        (accepted.status, accepted.header("retry-after"), accepted.header("location")),
        (202, Some("3"), None)
    );
    assert!(accepted.body.is_empty());
    for word in ["InProgress", "Running"] {
        let answer = poll(&world, &accepted, ASYNC).await;
        assert_eq!((answer.status, &json_of(&answer)["status"]), (200, &json!(word)));
        assert_eq!(answer.header("retry-after"), Some("3"));
    }
    for _ in 0..2 {
        let answer = poll(&world, &accepted, ASYNC).await;
        let body = json_of(&answer);
        assert_eq!(
            (answer.status, &body["status"], answer.header("retry-after")),
            (200, &json!("Succeeded"), None)
        );
        assert!(body["startTime"].is_string() && body["endTime"].is_string() && body["name"].is_string());
        assert!(opens(&body["properties"]["output"]["accessSAS"]).await);
    }
    assert_eq!(world.emulator.stats().of(Call::ArmPoll).requests, 4);
    world.arm.deny("Microsoft.Compute/locations/diskOperations/read");
    assert_eq!(refusal(&poll(&world, &accepted, ASYNC).await), (403, "AuthorizationFailed".to_owned()));
}

#[tokio::test]
async fn the_header_location_leads_to_the_outcome() {
    let world = prepared(ArmKnobs { begin_access: AsyncReply::Location, ..ArmKnobs::default() }).await;
    let accepted = world.begin("data-1").await;
    assert_eq!((accepted.status, accepted.header(ASYNC)), (202, None));
    let first = poll(&world, &accepted, "location").await;
    assert_eq!((first.status, first.body.is_empty()), (202, true));
    let last = poll(&world, &accepted, "location").await;
    assert_eq!(last.status, 200);
    assert!(opens(&json_of(&last)["accessSAS"]).await);
}

#[tokio::test]
async fn both_headers_lead_to_the_same_operation() {
    let world = prepared(ArmKnobs {
        begin_access: AsyncReply::Both,
        polls: 1,
        lower_case_sas: true,
        ..ArmKnobs::default()
    })
    .await;
    let accepted = world.begin("data-1").await;
    assert_eq!(json_of(&poll(&world, &accepted, ASYNC).await)["status"], "InProgress");
    let status = json_of(&poll(&world, &accepted, ASYNC).await);
    let outcome = json_of(&poll(&world, &accepted, "location").await);
    assert_eq!(status["properties"]["output"], outcome);
    assert!(opens(&outcome["accessSas"]).await);
}

#[tokio::test]
async fn polls_may_come_without_a_body_or_with_a_misleading_status() {
    let knobs = ArmKnobs { begin_access: AsyncReply::Both, poll_without_body: true, ..ArmKnobs::default() };
    let world = prepared(knobs.clone()).await;
    let accepted = world.begin("data-1").await;
    let first = poll(&world, &accepted, ASYNC).await;
    assert_eq!((first.status, first.body.is_empty()), (200, true));
    assert_eq!(json_of(&poll(&world, &accepted, ASYNC).await)["status"], "Succeeded");

    world.set(ArmKnobs { poll_without_body: false, poll_status_misleads: true, ..knobs });
    world.end("data-1").await;
    let accepted = world.begin("data-1").await;
    let first = poll(&world, &accepted, ASYNC).await;
    assert_eq!((first.status, &json_of(&first)["status"]), (202, &json!("InProgress")));
    world.end("data-1").await;
    let accepted = world.begin("data-1").await;
    let first = poll(&world, &accepted, "location").await;
    assert_eq!((first.status, &json_of(&first)["accessSAS"]), (200, &Value::Null));
    assert!(opens(&json_of(&poll(&world, &accepted, "location").await)["accessSAS"]).await);
}

#[tokio::test]
async fn a_poll_may_send_the_client_elsewhere() {
    let world = prepared(ArmKnobs {
        begin_access: AsyncReply::Both,
        polls: 2,
        poll_moves: true,
        ..ArmKnobs::default()
    })
    .await;
    let accepted = world.begin("data-1").await;
    let first = poll(&world, &accepted, ASYNC).await;
    assert_ne!(first.header(ASYNC), accepted.header(ASYNC));
    assert_refused(&poll(&world, &accepted, ASYNC).await, 404, "NotFound", "not found");
    let second = poll(&world, &first, ASYNC).await;
    let last = poll(&world, &second, "location").await;
    assert!(opens(&json_of(&last)["accessSAS"]).await);
}

#[tokio::test]
async fn a_refusal_may_be_told_late() {
    let knobs = ArmKnobs { begin_access: AsyncReply::Both, late_refusals: true, ..ArmKnobs::default() };
    let world = prepared(knobs).await;
    world.begin("data-1").await;
    let accepted = world.begin("data-1").await;
    assert_eq!(accepted.status, 202);
    poll(&world, &accepted, ASYNC).await;
    let body = json_of(&poll(&world, &accepted, ASYNC).await);
    assert_eq!((&body["status"], &body["error"]["code"]), (&json!("Failed"), &json!("OperationNotAllowed")));
    assert_eq!(refusal(&poll(&world, &accepted, "location").await), (409, "OperationNotAllowed".to_owned()));
    world.set(ArmKnobs { begin_access: AsyncReply::Both, ..ArmKnobs::default() });
    assert_eq!(world.begin("data-1").await.status, 409);
}

#[tokio::test]
async fn making_and_deleting_takes_time_too() {
    let world = prepared(ArmKnobs { other_changes: AsyncReply::Both, ..ArmKnobs::default() }).await;
    let body = json!({
        "location": "westeurope",
        "properties": {
            "incremental": true,
            "creationData": { "createOption": "Copy", "sourceResourceId": world.disk.arm_id() },
        },
    });
    let accepted = world.ask("PUT", &world.snapshot_id("new"), body).await;
    assert_eq!(
        (accepted.status, &json_of(&accepted)["properties"]["provisioningState"]),
        (202, &json!("Updating"))
    );
    poll(&world, &accepted, ASYNC).await;
    assert_eq!(json_of(&poll(&world, &accepted, ASYNC).await)["status"], "Succeeded");
    assert_eq!(json_of(&poll(&world, &accepted, "location").await)["name"], "new");
    assert_eq!(world.end("new").await.status, 202);

    let accepted = world.ask("DELETE", &world.snapshot_id("new"), Value::Null).await;
    assert_eq!(accepted.status, 202);
    assert_eq!(poll(&world, &accepted, "location").await.status, 202);
    let last = poll(&world, &accepted, "location").await;
    assert_eq!((last.status, last.body.is_empty()), (200, true));
    assert_eq!(world.get(&world.snapshot_id("new")).await.status, 404);
    assert_eq!(world.ask("DELETE", &world.snapshot_id("new"), Value::Null).await.status, 204);
}
