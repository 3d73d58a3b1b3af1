//! Lists of disks and snapshots, page by page, in the order of their names.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::registry::State;
use super::resource::Key;
use super::{Task, reply, view};
use crate::error::Outcome;
use crate::reply::Reply;

pub(super) fn snapshots(task: &Task<'_>, state: &State) -> Outcome<Reply> {
    page(task, state, &state.snapshots, |entry| view::snapshot(task.service, entry, task.now))
}

pub(super) fn disks(task: &Task<'_>, state: &State) -> Outcome<Reply> {
    page(task, state, &state.disks, |entry| view::disk(task.service, entry, task.now))
}

fn page<T>(
    task: &Task<'_>,
    state: &State,
    all: &BTreeMap<Key, Arc<T>>,
    show: impl Fn(&T) -> Value,
) -> Outcome<Reply> {
    let group = if task.route.group.is_empty() { None } else { Some(task.group(state)?.to_lowercase()) };
    let start = match task.request.param("$skiptoken") {
        Some(token) => Bound::Excluded(read_token(token)?),
        None => Bound::Unbounded,
    };
    let listed = all.range((start, Bound::Unbounded));
    let mut rest = listed.filter(|((of, _), _)| group.as_ref().is_none_or(|group| group == of)).peekable();
    let mut last = None;
    let mut page = Vec::new();
    while page.len() < state.knobs.page_size.max(1)
        && let Some((key, entry)) = rest.next()
    {
        page.push(show(entry));
        last = Some(key);
    }
    let more = rest.peek().is_some() || state.knobs.empty_last_page;
    let mut body = json!({ "value": page });
    if let Some(last) = last.filter(|_| more) {
        body["nextLink"] = json!(next_link(task, last));
    }
    Ok(reply::json(StatusCode::OK, &body))
}

fn next_link(task: &Task<'_>, last: &Key) -> String {
    let path = task.request.path_and_query.split('?').next().unwrap_or_default();
    let token = BASE64_URL_SAFE_NO_PAD.encode(format!("{}/{}", last.0, last.1));
    format!("{}{path}?api-version={}&$skiptoken={token}", task.service.endpoint, task.version())
}

fn read_token(token: &str) -> Outcome<Key> {
    let text = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let key = text.as_deref().and_then(|text| text.split_once('/'));
    key.map(|(group, name)| (group.to_owned(), name.to_owned()))
        .ok_or_else(|| reply::invalid("$skiptoken", "The provided $skiptoken value is invalid."))
}
