//! Storage accounts, as far as a client wants to know where one is: all are where the emulator is.

use hyper::StatusCode;
use serde_json::json;

use super::registry::{DEFAULT_GROUP, DEFAULT_LOCATION};
use super::{Task, reply};
use crate::call::Role;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;

pub(super) fn get(task: &Task<'_>) -> Outcome<Reply> {
    let (group, name) = (&task.route.group, task.route.name.to_ascii_lowercase());
    let account = task.service.store.account(&name).filter(|account| account.role == Role::Account);
    let Some(account) = account.filter(|_| group.eq_ignore_ascii_case(DEFAULT_GROUP)) else {
        let text = format!(
            "The Resource 'Microsoft.Storage/storageAccounts/{name}' under resource group '{group}' was not found."
        );
        return Err(Failure::from(ErrorCode::ResourceNotFound).saying(text));
    };
    let subscription = task.service.arm.subscription;
    let body = json!({
        "id": format!(
            "/subscriptions/{subscription}/resourceGroups/{DEFAULT_GROUP}/providers/Microsoft.Storage/storageAccounts/{}",
            account.name
        ),
        "name": account.name,
        "type": "Microsoft.Storage/storageAccounts",
        "location": DEFAULT_LOCATION,
    });
    Ok(reply::json(StatusCode::OK, &body))
}
