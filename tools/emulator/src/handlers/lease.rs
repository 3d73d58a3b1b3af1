//! Lease Blob: reads the action, lets the state machine decide, and tells the new state. A lease call changes neither
//! ETag nor Last-Modified.

use std::time::Duration;

use hyper::StatusCode;
use uuid::Uuid;

use super::Task;
use crate::conditions::{Conditions, Purpose};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;

pub(super) fn lease_blob(task: &Task<'_>) -> Outcome<Reply> {
    let request = task.request;
    let action = request.required_header("x-ms-lease-action")?;
    let proposed = task.guid_header("x-ms-proposed-lease-id")?;
    let given = || task.lease_id()?.ok_or_else(|| Failure::missing_header("x-ms-lease-id"));
    task.refuse_snapshot()?;

    let blob = task.blob()?;
    let blob = &mut *blob.lock();
    let live = blob.live.as_ref().ok_or(ErrorCode::BlobNotFound)?;
    Conditions::of(request)?.check(Purpose::Write, Some(live.validators()))?;
    let reply = |status| Reply::new(status).with_validators(live);
    let with_id = |reply: Reply, id: Uuid| reply.with("x-ms-lease-id", id.to_string());

    let (now, lease) = (task.now, &mut blob.lease);
    match action.to_ascii_lowercase().as_str() {
        "acquire" => {
            let reply = reply(StatusCode::CREATED);
            let id = lease.acquire(now, proposed, task.service.fresh_id(), duration(task)?)?;
            Ok(with_id(reply, id))
        }
        "renew" => {
            let (reply, id) = (reply(StatusCode::OK), given()?);
            lease.renew(now, id)?;
            Ok(with_id(reply, id))
        }
        "change" => {
            let (reply, id) = (reply(StatusCode::OK), given()?);
            let proposed = proposed.ok_or_else(|| Failure::missing_header("x-ms-proposed-lease-id"))?;
            lease.change(now, id, proposed)?;
            Ok(with_id(reply, proposed))
        }
        "release" => {
            let (reply, id) = (reply(StatusCode::OK), given()?);
            lease.release(id)?;
            Ok(reply)
        }
        "break" => {
            let reply = reply(StatusCode::ACCEPTED);
            let left = lease.break_it(now, break_period(task)?)?;
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            Ok(reply.with("x-ms-lease-time", seconds.to_string()))
        }
        _ => Err(Failure::bad_header("x-ms-lease-action", action)),
    }
}

/// How long an acquired lease lasts; none is for ever.
fn duration(task: &Task<'_>) -> Outcome<Option<Duration>> {
    let name = "x-ms-lease-duration";
    let text = task.request.required_header(name)?;
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(seconds @ 15..=60) => Ok(Some(Duration::from_secs(seconds.unsigned_abs()))),
        _ => Err(Failure::bad_header(name, text)),
    }
}

fn break_period(task: &Task<'_>) -> Outcome<Option<Duration>> {
    let name = "x-ms-lease-break-period";
    match task.request.number_header(name)? {
        None => Ok(None),
        Some(seconds @ 0..=60) => Ok(Some(Duration::from_secs(seconds))),
        Some(other) => Err(Failure::bad_header(name, &other.to_string())),
    }
}
