//! Calls that take time: 202 and an address to ask at, in the shapes that clients meet.
//!
//! What was asked for is done when the call is accepted, as far as anybody can see; only the telling takes time.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::knobs::AsyncReply;
use super::registry::State;
use super::{Task, reply};
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;

/// What operations call themselves that are not over: clients must not know all words.
const UNDER_WAY: [&str; 3] = ["InProgress", "Running", "ResolvingDNS"];

/// How a call ended.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) status: StatusCode,
    pub(super) body: Option<Value>,
    /// The body that comes with 202.
    pub(super) accepted: Option<Value>,
}

impl Done {
    pub(super) fn with(body: Value) -> Done {
        Done { status: StatusCode::OK, body: Some(body), accepted: None }
    }

    pub(super) fn without_body(status: StatusCode) -> Done {
        Done { status, body: None, accepted: None }
    }

    pub(super) fn into_reply(self) -> Reply {
        match &self.body {
            Some(body) => reply::json(self.status, body),
            None => reply::empty(self.status),
        }
    }
}

/// A call that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    how: AsyncReply,
    outcome: Outcome<Done>,
    started: Moment,
    polls: u32,
    polls_left: u32,
}

/// Answers a call whose outcome is known, in the way that was chosen.
pub(super) fn conclude(
    task: &Task<'_>,
    state: &mut State,
    how: AsyncReply,
    outcome: Outcome<Done>,
) -> Outcome<Reply> {
    let nothing_to_do = matches!(&outcome, Ok(done) if done.status == StatusCode::NO_CONTENT);
    if how == AsyncReply::AtOnce || nothing_to_do || (outcome.is_err() && !state.knobs.late_refusals) {
        return outcome.map(Done::into_reply);
    }
    let accepted = outcome.as_ref().ok().and_then(|done| done.accepted.clone());
    let polls = state.knobs.polls;
    let operation = Operation { how, outcome, started: task.now, polls, polls_left: polls };
    let mut reply = match accepted {
        Some(body) => reply::json(StatusCode::ACCEPTED, &body),
        None => reply::empty(StatusCode::ACCEPTED),
    };
    let id = task.service.fresh_id().to_string();
    announce(task, state, &mut reply, how, &id);
    state.operations.insert(id, operation);
    Ok(reply)
}

/// Says where to ask next, and when.
fn announce(task: &Task<'_>, state: &State, reply: &mut Reply, how: AsyncReply, id: &str) {
    let url = format!(
        "{}/subscriptions/{}/providers/Microsoft.Compute/locations/westeurope/DiskOperations/{id}?p={}",
        task.service.endpoint, task.service.arm.subscription, "0a1b2c3d"
    );
    let version = task.version();
    if matches!(how, AsyncReply::AsyncOperation | AsyncReply::Both) {
        reply.set("azure-asyncoperation", &format!("{url}&api-version={version}"));
    }
    if matches!(how, AsyncReply::Location | AsyncReply::Both) {
        reply.set("location", &format!("{url}&monitor=true&api-version={version}"));
    }
    if let Some(seconds) = state.knobs.retry_after {
        reply.set("retry-after", &seconds.to_string());
    }
}

/// Answers whoever asks how an operation is getting on.
pub(super) fn poll(task: &Task<'_>, state: &mut State) -> Outcome<Reply> {
    let id = task.route.name.to_ascii_lowercase();
    let is_monitor = task.request.param("monitor") == Some("true");
    let Some(operation) = state.operations.get_mut(&id) else {
        let text = format!("The entity was not found: operation '{id}'.");
        return Err(Failure::from(ErrorCode::NotFound).saying(text));
    };
    if operation.polls_left > 0 {
        operation.polls_left -= 1;
        let operation = operation.clone();
        return Ok(under_way(task, state, id, &operation, is_monitor));
    }
    if is_monitor {
        return operation.outcome.clone().map(Done::into_reply);
    }
    let mut body = json!({
        "startTime": operation.started.offset_text(),
        "endTime": task.now.offset_text(),
        "status": if operation.outcome.is_ok() { "Succeeded" } else { "Failed" },
        "name": id,
    });
    match &operation.outcome {
        Ok(Done { body: Some(output), .. }) => body["properties"] = json!({ "output": output }),
        Ok(_) => {}
        Err(failure) => body["error"] = reply::error_body(failure),
    }
    Ok(reply::json(StatusCode::OK, &body))
}

fn under_way(
    task: &Task<'_>,
    state: &mut State,
    mut id: String,
    operation: &Operation,
    is_monitor: bool,
) -> Reply {
    let usual = if is_monitor { StatusCode::ACCEPTED } else { StatusCode::OK };
    let other = if is_monitor { StatusCode::OK } else { StatusCode::ACCEPTED };
    let status = if state.knobs.poll_status_misleads { other } else { usual };
    let asked = (operation.polls - operation.polls_left) as usize;
    let word = UNDER_WAY[asked.saturating_sub(1) % UNDER_WAY.len()];
    let body = json!({ "startTime": operation.started.offset_text(), "status": word, "name": id });
    // An unexpected 200 under Location is told from the end by its body.
    let has_body = if is_monitor { state.knobs.poll_status_misleads } else { !state.knobs.poll_without_body };
    let mut reply = if has_body { reply::json(status, &body) } else { reply::empty(status) };
    if state.knobs.poll_moves {
        let old = std::mem::replace(&mut id, task.service.fresh_id().to_string());
        if let Some(operation) = state.operations.remove(&old) {
            state.operations.insert(id.clone(), operation);
        }
        announce(task, state, &mut reply, operation.how, &id);
    } else if let Some(seconds) = state.knobs.retry_after {
        reply.set("retry-after", &seconds.to_string());
    }
    reply
}
