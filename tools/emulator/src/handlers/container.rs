//! Create Container, Get Container Properties, Delete Container.

use hyper::StatusCode;

use super::Task;
use super::metadata::{sent_metadata, show_metadata};
use crate::clock::Moment;
use crate::error::{ErrorCode, Outcome};
use crate::reply::Reply;

pub(super) fn create(task: &Task<'_>) -> Outcome<Reply> {
    let metadata = sent_metadata(task.request)?;
    let changed = task.service.clock.tick();
    if !task.account.add_container(&task.request.target.container, changed, metadata) {
        return Err(ErrorCode::ContainerAlreadyExists.into());
    }
    Ok(reply(StatusCode::CREATED, changed))
}

pub(super) fn properties(task: &Task<'_>) -> Outcome<Reply> {
    let container = task.container()?;
    let mut reply = reply(StatusCode::OK, container.changed)
        .with("x-ms-lease-status", "unlocked")
        .with("x-ms-lease-state", "available")
        .with("x-ms-has-immutability-policy", "false")
        .with("x-ms-has-legal-hold", "false");
    show_metadata(&mut reply, &container.metadata);
    Ok(reply)
}

pub(super) fn delete(task: &Task<'_>) -> Outcome<Reply> {
    let removed = task.account.containers.write().remove(&task.request.target.container);
    removed.ok_or(ErrorCode::ContainerNotFound)?;
    Ok(Reply::new(StatusCode::ACCEPTED))
}

fn reply(status: StatusCode, changed: Moment) -> Reply {
    Reply::new(status)
        .with("etag", format!("\"{}\"", changed.etag_text()))
        .with("last-modified", changed.http_text())
}
