//! Replies in JSON, and refusals in the form that management gives them.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::error::{ErrorCode, Failure};
use crate::reply::{Reply, ReplyBody};

const SERVER: &str = "Microsoft-HTTPAPI/2.0";

/// The requests that a subscription has left, which nothing here uses up.
const REMAINING: [(&str, &str); 3] = [
    ("x-ms-ratelimit-remaining-subscription-reads", "11999"),
    ("x-ms-ratelimit-remaining-subscription-writes", "1199"),
    ("x-ms-ratelimit-remaining-resource", "Microsoft.Compute/HighCostDiskHydrate3Min;1000"),
];

/// A reply with a body.
pub(super) fn json(status: StatusCode, body: &Value) -> Reply {
    let mut reply = empty(status).with("content-type", "application/json; charset=utf-8");
    reply.body = ReplyBody::Whole(Some(Bytes::from(body.to_string())));
    reply
}

/// A reply without one.
pub(super) fn empty(status: StatusCode) -> Reply {
    Reply::new(status).with("server", SERVER).with("cache-control", "no-cache")
}

/// What successful replies tell besides.
pub(super) fn with_remaining(mut reply: Reply) -> Reply {
    for (name, value) in REMAINING {
        reply.set(name, value);
    }
    reply
}

/// The body of a refusal; its status and headers are set by whoever sends it.
pub(crate) fn refusal(failure: &Failure) -> Reply {
    json(failure.status, &json!({ "error": error_body(failure) }))
}

/// Code, message, target and details.
pub(super) fn error_body(failure: &Failure) -> Value {
    let mut error = json!({ "code": failure.code.name(), "message": failure.text });
    if let Some((_, target)) = failure.elements.iter().find(|(name, _)| *name == TARGET) {
        error["target"] = json!(target);
    }
    if let Some(details) = &failure.details {
        error["details"] = details.clone();
    }
    error
}

const TARGET: &str = "target";

/// 400 that names the parameter.
pub(super) fn invalid(parameter: &str, text: impl Into<String>) -> Failure {
    Failure::from(ErrorCode::InvalidParameter).saying(text.into()).element(TARGET, parameter)
}

/// 429: too many requests in the last minutes.
pub(crate) fn throttled(seconds: u64, now: Moment) -> Failure {
    let group = "HighCostGet3Min";
    let counts = json!({
        "operationGroup": group,
        "startTime": now.moved_by_milliseconds(-180_000).offset_text(),
        "endTime": now.offset_text(),
        "allowedRequestCount": 190,
        "measuredRequestCount": 231,
    });
    let text =
        "The server rejected the request because too many requests have been received for this subscription.";
    let detail = json!([{ "code": "TooManyRequests", "target": group, "message": counts.to_string() }]);
    let failure = Failure::from(ErrorCode::OperationNotAllowed)
        .with_status(StatusCode::TOO_MANY_REQUESTS)
        .saying(text)
        .header("retry-after", seconds.to_string())
        .header("x-ms-request-charge", "1")
        .header("x-ms-ratelimit-remaining-resource", format!("Microsoft.Compute/{group};0"))
        .header("x-ms-ratelimit-remaining-resource", "Microsoft.Compute/HighCostGet30Min;1107");
    Failure { details: Some(detail), ..failure }
}
