//! Management: the Azure Resource Manager's side of disks and snapshots, in JSON, and a managed identity's endpoint.
//!
//! ```text
//! route -> admit (token) -> snapshots, access, disks, disk_access, accounts, list -> operations -> reply
//! (Call)                        |            disk_content, transfer        (202, polls)
//!                               `-> registry > resource > disk::HiddenBlob
//! ```
//!
//! Each call holds the registry's lock from its first look to its last change, so it applies wholly or not at all.

mod access;
mod accounts;
mod admit;
mod api;
mod copies;
mod disk_access;
mod disk_content;
mod disks;
mod input;
mod knobs;
mod list;
mod operations;
mod registry;
mod reply;
mod resource;
mod route;
mod snapshots;
mod token;
mod transfer;
mod view;

use hyper::StatusCode;

pub use self::api::Arm;
pub use self::knobs::{ArmKnobs, AsyncReply, SecondGrant};

pub(crate) use self::admit::authorise;
pub(crate) use self::registry::{DEFAULT_GROUP, NewDisk, NewSnapshot, Registry};
pub(crate) use self::reply::{refusal, throttled};
pub(crate) use self::resource::{DiskEntry, SnapshotEntry};
pub(crate) use self::route::Route;

use self::input::Input;
use self::operations::Done;
use self::registry::State;
use crate::body::RequestBody;
use crate::call::Call;
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::request::Request;
use crate::service::Service;

/// Answers an admitted request.
pub(crate) fn answer(service: &Service, request: &Request, body: &RequestBody) -> Outcome<Reply> {
    let Some(route) = &request.route else { return Err(ErrorCode::NotFound.into()) };
    if request.call == Call::IdentityToken {
        return token::identity(service, request);
    }
    let task = Task { service, request, route, now: service.clock.now() };
    let mut state = service.arm.lock();
    state.settle(task.now);
    let reply = task.answer(&mut state, body)?;
    Ok(reply::with_remaining(reply))
}

/// One request being served.
struct Task<'a> {
    service: &'a Service,
    request: &'a Request,
    route: &'a Route,
    now: Moment,
}

impl Task<'_> {
    fn answer(&self, state: &mut State, body: &RequestBody) -> Outcome<Reply> {
        let knobs = state.knobs.clone();
        let input = || Input::parse(&body.joined());
        match self.request.call {
            Call::ArmListSnapshots => list::snapshots(self, state),
            Call::ArmListDisks => list::disks(self, state),
            Call::ArmGetSnapshot => snapshots::get(self, state),
            Call::ArmGetDisk => disks::get(self, state),
            Call::ArmGetAccount => accounts::get(self),
            Call::ArmPoll => operations::poll(self, state),
            Call::BeginGetAccess => {
                let outcome = input().and_then(|input| access::begin(self, state, &input));
                self.conclude(state, knobs.begin_access, outcome)
            }
            Call::EndGetAccess => {
                let outcome = access::end(self, state);
                self.conclude(state, knobs.other_changes, outcome)
            }
            Call::ArmPutSnapshot => {
                let outcome = input().and_then(|input| snapshots::put(self, state, &input));
                self.conclude(state, knobs.other_changes, outcome)
            }
            // Tags are changed at once, whatever the rest takes.
            Call::ArmPatchSnapshot => {
                input().and_then(|input| snapshots::patch(self, state, &input)).map(Done::into_reply)
            }
            Call::ArmDeleteSnapshot => {
                let outcome = snapshots::delete(self, state);
                self.conclude(state, knobs.other_changes, outcome)
            }
            Call::ArmPutDisk => {
                let outcome = input().and_then(|input| disks::put(self, state, &input));
                self.conclude(state, knobs.other_changes, outcome)
            }
            Call::ArmPatchDisk => {
                input().and_then(|input| disks::patch(self, state, &input)).map(Done::into_reply)
            }
            Call::DiskBeginGetAccess => {
                let outcome = input().and_then(|input| disk_access::begin(self, state, &input));
                self.conclude(state, knobs.begin_access, outcome)
            }
            Call::DiskEndGetAccess => {
                let outcome = disk_access::end(self, state);
                self.conclude(state, knobs.other_changes, outcome)
            }
            Call::ArmDeleteDisk => {
                let outcome = disks::delete(self, state);
                self.conclude(state, knobs.other_changes, outcome)
            }
            _ => Err(self.unserved()),
        }
    }

    fn conclude(&self, state: &mut State, how: AsyncReply, outcome: Outcome<Done>) -> Outcome<Reply> {
        operations::conclude(self, state, how, outcome)
    }

    /// The version that the request asks for; versions are dates and compare as text.
    fn version(&self) -> &str {
        self.request.param("api-version").unwrap_or_default()
    }

    fn unserved(&self) -> Failure {
        let resource_type = &self.route.resource_type;
        if ["Microsoft.Compute/disks", "Microsoft.Compute/snapshots"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(resource_type))
        {
            let text =
                format!("The requested resource does not support http method '{}'.", self.request.method);
            return Failure::from(ErrorCode::UnsupportedHttpVerb)
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
                .saying(text);
        }
        let text = format!(
            "The resource type '{resource_type}' could not be found for api version '{}'.",
            self.version()
        );
        Failure::from(ErrorCode::InvalidResourceType).saying(text)
    }

    /// The resource group of the request, as it is spelt.
    fn group(&self, state: &State) -> Outcome<String> {
        let name = &self.route.group;
        state.group(name).map(str::to_owned).ok_or_else(|| {
            let text = format!("Resource group '{name}' could not be found.");
            Failure::from(ErrorCode::ResourceGroupNotFound).saying(text)
        })
    }
}
