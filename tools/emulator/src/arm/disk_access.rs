//! Giving a SAS for a disk itself, to read it or to write its upload, and ending it.

use hyper::StatusCode;

use super::Task;
use super::access::{ANOTHER, check_format, duration, granted, outstanding};
use super::input::Input;
use super::knobs::SecondGrant;
use super::operations::Done;
use super::registry::State;
use super::reply::invalid;
use super::transfer::Stage;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::store::Access;

pub(super) fn begin(task: &Task<'_>, state: &mut State, input: &Input) -> Outcome<Done> {
    let entry = task.disk(state)?;
    let access = match input.required_text("/access")? {
        "Read" => Access::Read,
        "Write" => Access::Write,
        other => return Err(invalid("access", format!("The value '{other}' is invalid."))),
    };
    let lapses = task.now.plus(duration(input)?);
    check_format("disk", entry.sector_size, input.text("/fileFormat")?)?;
    match (access, entry.stage()) {
        (Access::Read, _) => entry.check_filled()?,
        (Access::Write, Stage::Filled) => {
            let text = format!("The disk '{}' is not in the state ReadyToUpload.", entry.id.name);
            return Err(Failure::from(ErrorCode::OperationNotAllowed).saying(text));
        }
        (Access::Write, _) => {}
    }
    if let Some(present) = entry.managed_urls(task.service).into_iter().next() {
        match state.knobs.second_grant {
            SecondGrant::Refused => return Err(outstanding("disk", &entry.id.name, ANOTHER)),
            SecondGrant::Same => return Ok(granted(&state.knobs, &present)),
            SecondGrant::NewBesideOld => {}
            SecondGrant::NewInsteadOfOld => entry.revoke_managed(),
        }
    }
    let url = entry.grant(task.service, state, access, lapses);
    Ok(granted(&state.knobs, &url))
}

/// Fine if there is nothing to end.
pub(super) fn end(task: &Task<'_>, state: &State) -> Outcome<Done> {
    task.disk(state)?.end_access(task.service)?;
    Ok(Done::without_body(StatusCode::OK))
}
