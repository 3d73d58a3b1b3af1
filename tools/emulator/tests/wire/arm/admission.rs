//! Who may ask: tokens, versions, subscriptions, actions; and where tokens come from.

use std::time::Duration;

use serde_json::Value;
use snapferry_emulator::Call;

use super::{VERSION, World, assert_refused, json_of};
use crate::client::{HOUR, get};

#[tokio::test]
async fn a_request_needs_a_token_of_ours_that_is_good() {
    let world = World::new().await;
    let url = format!("{}{}?api-version={VERSION}", world.arm.endpoint(), world.disk.arm_id());
    let ask = async |header: &str| get(&url, &[("authorization", header)]).await;

    let bare = get(&url, &[]).await;
    assert_refused(&bare, 401, "AuthenticationFailed", "'Authorization' header is missing");
    assert!(bare.header("www-authenticate").unwrap().starts_with("Bearer authorization_uri="));
    let good = world.arm.token(HOUR);
    assert_eq!(ask(&format!("Bearer {good}")).await.status, 200);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let others_token = snapferry_emulator::Emulator::start(snapferry_emulator::Config {
        seed: 1,
        ..snapferry_emulator::Config::default()
    });
    let others_token = others_token.await.unwrap().arm().token(HOUR);
    for wrong in
        ["Bearer", "Bearer x", "Basic eDp5", &format!("Bearer {signed}.x"), &format!("Bearer {others_token}")]
    {
        assert_refused(&ask(wrong).await, 401, "InvalidAuthenticationToken", "The access token is invalid");
    }
    let expired = ask(&format!("Bearer {}", world.arm.token(Duration::ZERO))).await;
    assert_refused(&expired, 401, "ExpiredAuthenticationToken", "The access token expiry UTC time '");
    assert_refused(&expired, 401, "ExpiredAuthenticationToken", "is earlier than current UTC time '");
    // The clock that SAS go by does not age tokens.
    world.emulator.advance_clock(2 * HOUR);
    assert_eq!(ask(&format!("Bearer {good}")).await.status, 200);
}

#[tokio::test]
async fn the_identity_endpoint_gives_tokens() {
    let world = World::new().await;
    let (endpoint, header) = world.arm.identity();
    let url = |resource: &str, version: &str| format!("{endpoint}?resource={resource}&api-version={version}");
    let management = "https%3A%2F%2Fmanagement.azure.com";
    let ask = async |resource: &str, version: &str, name: &str| {
        get(&url(resource, version), &[(name, &header)]).await
    };

    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    world.arm.set_token_lifetime(HOUR);
    let answer = ask(management, "2019-08-01", "X-IDENTITY-HEADER").await;
    let body = json_of(&answer);
    let ends: u64 = body["expires_on"].as_str().unwrap().parse().unwrap();
    assert!((before + 3600..before + 3610).contains(&ends), "{body}");
    assert_eq!(
        (&body["token_type"], &body["resource"]),
        (&"Bearer".into(), &"https://management.azure.com".into())
    );
    assert!(body["client_id"].as_str().is_some());
    let use_token = async |body: &Value| {
        let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap());
        let url = format!("{}{}?api-version={VERSION}", world.arm.endpoint(), world.disk.arm_id());
        get(&url, &[("authorization", &bearer)]).await
    };
    assert_eq!(use_token(&body).await.status, 200);
    let older = json_of(&ask(management, "2017-09-01", "secret").await);
    assert_eq!(use_token(&older).await.status, 200);

    let storage =
        json_of(&ask("https%3A%2F%2Fstorage.azure.com%2F", "2019-08-01", "X-IDENTITY-HEADER").await);
    let refused = use_token(&storage).await;
    assert_refused(&refused, 401, "InvalidAuthenticationTokenAudience", "https://storage.azure.com");
    world.arm.set_token_lifetime(Duration::ZERO);
    let expired = json_of(&ask(management, "2019-08-01", "X-IDENTITY-HEADER").await);
    assert_refused(&use_token(&expired).await, 401, "ExpiredAuthenticationToken", "");

    let wrong = [("x-identity-header", "guessed")];
    assert_eq!(get(&url(management, "2019-08-01"), &wrong).await.status, 401);
    assert_eq!(get(&url(management, "2019-08-01"), &[("secret", &header)]).await.status, 401);
    assert_eq!(ask(management, "2018-01-01", "X-IDENTITY-HEADER").await.status, 400);
    assert_eq!(ask("", "2019-08-01", "X-IDENTITY-HEADER").await.status, 400);
    assert_eq!(world.emulator.stats().of(Call::IdentityToken).requests, 8);
}

#[tokio::test]
async fn a_request_names_a_known_version_subscription_and_resource_type() {
    let world = World::new().await;
    let endpoint = world.arm.endpoint();
    let id = world.disk.arm_id();
    let ask = async |path: &str| world.ask_url("GET", &format!("{endpoint}{path}"), Value::Null).await;
    let missing = ask(&id).await;
    assert_refused(&missing, 400, "MissingApiVersionParameter", "api-version");
    let unknown = ask(&format!("{id}?api-version=2015-01-01")).await;
    assert_refused(&unknown, 400, "NoRegisteredProviderFound", "'2015-01-01' for type 'disks'");

    let stranger = id.replace(&world.arm.subscription(), "00000000-0000-0000-0000-000000000001");
    let refused = world.get(&stranger).await;
    assert_refused(&refused, 404, "SubscriptionNotFound", "'00000000-0000-0000-0000-000000000001' could not");
    let nowhere = world.get(&id.replace("/disks/providers", "/elsewhere/providers")).await;
    assert_refused(&nowhere, 404, "ResourceGroupNotFound", "Resource group 'elsewhere' could not be found.");
    let image = world.get(&id.replace("/disks/data", "/images/data")).await;
    assert_refused(&image, 404, "InvalidResourceType", "Microsoft.Compute/images");
    let posted = world.ask("POST", &id, Value::Null).await;
    assert_refused(&posted, 405, "UnsupportedHttpVerb", "POST");
    assert_eq!(world.emulator.stats().of(Call::Unsupported).requests, 2);
    // Whatever is fixed in a path is compared without case.
    let spelt = id
        .replace("resourceGroups/disks", "RESOURCEGROUPS/Disks")
        .replace("Compute/disks/data", "compute/DISKS/DATA");
    let answer = world.get(&spelt).await;
    assert_eq!(json_of(&answer)["id"], Value::from(id));
}

#[tokio::test]
async fn actions_are_denied_and_allowed_again() {
    let world = World::new().await;
    world.disk.snapshot();
    world.arm.deny("Microsoft.Compute/snapshots/READ");
    let scope = world.snapshot_id("data-1");
    let refused = world.get(&scope).await;
    assert_refused(
        &refused,
        403,
        "AuthorizationFailed",
        &format!(
            "does not have authorization to perform action 'Microsoft.Compute/snapshots/read' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
        ),
    );
    assert_eq!(world.get(scope.rsplit_once('/').unwrap().0).await.status, 403);
    assert_eq!(world.get(&world.disk.arm_id()).await.status, 200);
    world.arm.deny("Microsoft.Compute/snapshots/beginGetAccess/action");
    let refused = world.begin("data-1").await;
    assert_refused(&refused, 403, "AuthorizationFailed", &format!("over scope '{scope}'"));
    assert_eq!(world.end("data-1").await.status, 200);
    world.arm.allow_all();
    assert_eq!((world.get(&scope).await.status, world.begin("data-1").await.status), (200, 200));
}
