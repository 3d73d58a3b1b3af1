//! Giving a SAS for a snapshot, and ending it.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;

use super::Task;
use super::input::Input;
use super::knobs::{ArmKnobs, SecondGrant};
use super::operations::Done;
use super::registry::State;
use super::reply::invalid;
use super::resource::SnapshotEntry;
use super::snapshots::check_complete;
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure, Outcome};

/// For how many seconds a SAS may be asked.
const SHORTEST: i64 = 30;
const LONGEST: i64 = 5_184_000;

pub(super) fn begin(task: &Task<'_>, state: &State, input: &Input) -> Outcome<Done> {
    let entry = task.snapshot(state)?;
    if input.required_text("/access")? != "Read" {
        return Err(invalid("access", "Snapshots can be accessed with 'Read' only."));
    }
    let duration = duration(input)?;
    check_format("snapshot", entry.state().sector_size, input.text("/fileFormat")?)?;
    check_network(&entry)?;
    check_complete(&entry)?;
    let url = grant(task, state, &entry, task.now.plus(duration))?;
    Ok(granted(&state.knobs, &url))
}

pub(super) fn granted(knobs: &ArmKnobs, url: &str) -> Done {
    let field = if knobs.lower_case_sas { "accessSas" } else { "accessSAS" };
    Done::with(json!({ field: url }))
}

/// Fine if there is nothing to end. A SAS that a test made itself stays.
pub(super) fn end(task: &Task<'_>, state: &State) -> Outcome<Done> {
    task.snapshot(state)?.revoke_managed();
    Ok(Done::without_body(StatusCode::OK))
}

pub(super) fn duration(input: &Input) -> Outcome<Duration> {
    let seconds = input.number("/durationInSeconds")?.unwrap_or_default();
    if !(SHORTEST..=LONGEST).contains(&seconds) {
        let text =
            format!("The value '{seconds}' of 'durationInSeconds' is not from {SHORTEST} to {LONGEST}.");
        return Err(invalid("durationInSeconds", text));
    }
    Ok(Duration::from_secs(seconds.unsigned_abs()))
}

/// Large sectors are exported as VHDX, all others as VHD.
pub(super) fn check_format(kind: &str, sector_size: u32, format: Option<&str>) -> Outcome<()> {
    let own = if sector_size == 512 { "VHD" } else { "VHDX" };
    match format {
        None => Ok(()),
        Some(format) if format == own => Ok(()),
        Some(format @ ("VHD" | "VHDX")) => {
            let text = format!("The file format '{format}' is not supported for this {kind}, only '{own}'.");
            Err(invalid("fileFormat", text))
        }
        Some(format) => Err(invalid("fileFormat", format!("The value '{format}' is invalid."))),
    }
}

fn check_network(entry: &SnapshotEntry) -> Outcome<()> {
    let state = entry.state();
    if state.public_network_access && state.network_access_policy != "DenyAll" {
        return Ok(());
    }
    let text = format!("Access not permitted for resource: '{}'.", entry.id.name);
    Err(Failure::from(ErrorCode::OperationNotAllowed).saying(text))
}

/// The URL with the SAS, if there may be one more.
fn grant(task: &Task<'_>, state: &State, entry: &SnapshotEntry, lapses: Moment) -> Outcome<String> {
    let service = task.service;
    if let Some(present) = entry.managed_urls(service).into_iter().next() {
        return match state.knobs.second_grant {
            SecondGrant::Refused => Err(outstanding("snapshot", &entry.id.name, ANOTHER)),
            SecondGrant::Same => Ok(present),
            SecondGrant::NewBesideOld => Ok(entry.grant(service, Some(lapses), true)),
            SecondGrant::NewInsteadOfOld => {
                entry.revoke_managed();
                Ok(entry.grant(service, Some(lapses), true))
            }
        };
    }
    let limit = state.knobs.family_grant_limit;
    let in_family = |other: &SnapshotEntry| entry.family.is_some() && other.family == entry.family;
    let accessed = state
        .snapshots
        .values()
        .filter(|other| in_family(other) && other.has_managed_access(task.now))
        .count();
    if entry.family.is_some() && accessed >= limit {
        let text = format!(
            "At most {limit} incremental snapshots of the same incremental snapshot family can have an active shared \
             access signature at the same time."
        );
        return Err(Failure::from(ErrorCode::OperationNotAllowed).saying(text));
    }
    Ok(entry.grant(service, Some(lapses), true))
}

/// What a SAS that is out stands in the way of.
pub(super) const ANOTHER: &str = "asking for another one";

/// 409: there is a SAS that has to be ended first.
pub(super) fn outstanding(kind: &str, name: &str, before: &str) -> Failure {
    let text = format!(
        "There is an active shared access signature outstanding for {kind} '{name}'. \
         Call EndGetAccess before {before}."
    );
    Failure::from(ErrorCode::OperationNotAllowed).saying(text)
}
