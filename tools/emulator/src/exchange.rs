//! One request and what becomes of it: checked, held back by limits or met by a fault, taken in, handled, noted down.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Response};

use crate::auth::{self, Permit};
use crate::body::{self, Mishap, RequestBody};
use crate::call::Role;
use crate::control;
use crate::cut::{Cut, Scissors};
use crate::error::{ErrorCode, Outcome};
use crate::fault::{Asking, FaultKind, spoil};
use crate::handlers;
use crate::journal::{CallStats, RequestRecord};
use crate::late::LateWrite;
use crate::link::Shaper;
use crate::outgoing::{Outgoing, Trouble};
use crate::reply::{Reply, ReplyBody};
use crate::request::Request;
use crate::service::Service;
use crate::source;

/// Answers a request, or says that its connection is to be cut.
pub(crate) async fn answer(
    service: &Arc<Service>,
    scissors: &Scissors,
    parts: Parts,
    incoming: Incoming,
) -> Result<Response<Outgoing>, Cut> {
    if control::is_for_emulator(&parts) {
        let now = service.clock.now();
        let reply = control::answer(service, &parts, incoming).await;
        let response = reply.finish(service.fresh_id(), None, None, now);
        return Ok(response.map(|body| Outgoing::new(body, None, None, scissors, None)));
    }
    let in_flight = Some(service.in_flight.enter());
    let id = service.fresh_id();
    let role = Role::of_path(parts.uri.path());
    let request = match Request::parse(parts) {
        Ok(request) => Arc::new(request),
        Err(failure) => {
            let now = service.clock.now();
            let response = Reply::refusal(role, &failure, id, now).finish(id, None, None, now);
            return Ok(response.map(|body| Outgoing::new(body, None, None, scissors, in_flight)));
        }
    };
    let shaper = service.shaper();
    let mut exchange = Exchange { service, request: &request, shaper: &shaper, fault: None, bytes_in: 0 };
    let ending = exchange.end(incoming).await;

    let now = service.clock.now();
    let to_reply = |outcome: Outcome<Reply>| {
        let mut reply = outcome.unwrap_or_else(|failure| Reply::refusal(role, &failure, id, now));
        if request.method == Method::HEAD {
            reply.body = ReplyBody::Empty;
        }
        reply
    };
    let (reply, is_cut) = match ending {
        Ending::Answered(outcome) => (Some(to_reply(outcome)), false),
        Ending::Cut(outcome) => (outcome.map(to_reply), true),
    };
    let fault = exchange.fault.as_ref();
    // Noted before any waiting, because a client may give up in the meantime.
    let noted = Noted { bytes_in: exchange.bytes_in, fault: fault.map(FaultKind::name), late: false };
    note(service, &request, reply.as_ref(), noted);
    let wait = shaper.latency() + fault.map_or(Duration::ZERO, FaultKind::hold);
    if wait > Duration::ZERO {
        tokio::time::sleep(wait).await;
    }
    let reply = reply.filter(|_| !is_cut).ok_or(Cut)?;
    let trouble = fault.and_then(|fault| trouble(service, fault, &reply));
    let pace = shaper.reply_pace(&request);
    let response = reply.finish(id, request.client_id(), request.version().ok().flatten(), now);
    Ok(response.map(|body| Outgoing::new(body, pace, trouble, scissors, in_flight)))
}

/// How a request ends.
enum Ending {
    Answered(Outcome<Reply>),
    /// The connection is cut; the reply that nobody gets, if it came to one.
    Cut(Option<Outcome<Reply>>),
}

/// A request on its way to a reply.
struct Exchange<'a> {
    service: &'a Arc<Service>,
    request: &'a Arc<Request>,
    shaper: &'a Shaper,
    /// What the request met.
    fault: Option<FaultKind>,
    bytes_in: u64,
}

impl Exchange<'_> {
    async fn end(&mut self, incoming: Incoming) -> Ending {
        let (service, request) = (self.service, self.request);
        let permit = match self.admit() {
            Ok(permit) => permit,
            Err(failure) => {
                body::drain(request, incoming, self.shaper).await;
                return Ending::Answered(Err(failure));
            }
        };
        let body = match self.receive(&permit, incoming).await {
            Ok(body) => body,
            Err(failure) => return Ending::Answered(Err(failure)),
        };
        let handled = || handlers::answer(service, request, &permit, &body);
        match self.fault {
            Some(FaultKind::CutBeforeApply | FaultKind::CutInRequest | FaultKind::Stall { .. }) => {
                Ending::Cut(None)
            }
            Some(FaultKind::CutAfterApply) => Ending::Cut(Some(handled())),
            Some(FaultKind::DelayedApply { after }) => {
                self.apply_later(after, permit, body);
                Ending::Cut(None)
            }
            Some(FaultKind::LateDuplicate { after }) => {
                let outcome = handled();
                self.apply_later(after, permit, body);
                Ending::Answered(outcome)
            }
            Some(FaultKind::BadPageList(how)) => {
                let mut outcome = handled();
                if let Ok(reply) = &mut outcome {
                    spoil(reply, request, how);
                }
                Ending::Answered(outcome)
            }
            _ => Ending::Answered(handled()),
        }
    }

    /// Checks who asks and the limits of the blob, and picks the fault. Nothing of the body is read yet.
    fn admit(&mut self) -> Outcome<Permit> {
        if self.request.role != Role::Management {
            self.request.version()?;
        }
        let permit = auth::authorise(self.service, self.request)?;
        self.shaper.admit(self.request)?;
        let now = self.service.clock.now();
        self.fault = self.service.plan.pick(Asking::of(self.request), now);
        let role = self.request.role;
        match self.fault.as_ref().and_then(|fault| fault.refusal(role, now)) {
            Some(failure) => {
                if failure.code == ErrorCode::ServerBusy {
                    self.shaper.give_back(self.request);
                }
                Err(failure)
            }
            None => Ok(permit),
        }
    }

    /// Takes in the request's body, and what it wants to have read elsewhere.
    async fn receive(&mut self, permit: &Permit, incoming: Incoming) -> Outcome<RequestBody> {
        let mishap = self.mishap();
        let mut body = body::receive(self.service, self.request, incoming, self.shaper, mishap).await?;
        self.bytes_in = body.len();
        let is_lost = matches!(
            self.fault,
            Some(FaultKind::CutBeforeApply | FaultKind::CutInRequest | FaultKind::Stall { .. })
        );
        if !is_lost {
            body.source = source::fetch(self.service, self.request, permit).await?;
        }
        Ok(body)
    }

    /// What a fault does to the body of the request.
    fn mishap(&self) -> Option<Mishap> {
        let length = self.request.content_length().ok().flatten().unwrap_or(0);
        let somewhere = || self.service.plan.random_below(length);
        match self.fault {
            Some(FaultKind::CutInRequest) => Some(Mishap::Ends { position: somewhere() }),
            Some(FaultKind::FlipByteInRequest) => Some(Mishap::Flips { position: somewhere() }),
            _ => None,
        }
    }

    fn apply_later(&self, after: Duration, permit: Permit, body: RequestBody) {
        let fault = self.fault.as_ref().map_or("", FaultKind::name);
        let write = LateWrite { request: Arc::clone(self.request), permit, body, fault };
        self.service.late.add(self.service, after, write);
    }
}

/// What a fault does to the body of a reply.
fn trouble(service: &Service, fault: &FaultKind, reply: &Reply) -> Option<Trouble> {
    let length = reply.body.remaining();
    match *fault {
        FaultKind::TruncateBody { keep } => Some(Trouble::Ends { position: keep, stalled: Duration::ZERO }),
        FaultKind::CutInReply => {
            let position = service.plan.random_below(length);
            Some(Trouble::Ends { position, stalled: Duration::ZERO })
        }
        FaultKind::StallBody { after_bytes, lasting } => {
            Some(Trouble::Ends { position: after_bytes, stalled: lasting })
        }
        FaultKind::FlipByteInReply if reply.error.is_none() => {
            Some(Trouble::Flips { position: service.plan.random_below(length) })
        }
        _ => None,
    }
}

/// What is noted of a request besides itself and its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    pub(crate) bytes_in: u64,
    pub(crate) fault: Option<&'static str>,
    pub(crate) late: bool,
}

/// Counts a request, and keeps a record of it if that is wanted. A cut connection may have no reply.
pub(crate) fn note(service: &Service, request: &Request, reply: Option<&Reply>, noted: Noted) {
    let refused = reply.is_some_and(|reply| reply.error.is_some());
    let bytes_out = reply.map_or(0, |reply| reply.body.remaining());
    let counts = CallStats { requests: 1, refused: u64::from(refused), bytes_in: noted.bytes_in, bytes_out };
    service.journal.count(request.call, counts);
    service.journal.record(|| record(request, reply, noted));
}

fn record(request: &Request, reply: Option<&Reply>, noted: Noted) -> RequestRecord {
    let interesting = |name: &str| {
        let prefixes = ["x-ms-", "if-"];
        let names = ["range", "content-length", "content-md5", "authorization", "x-identity-header"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name)
    };
    let headers = request.headers.iter().filter(|(name, _)| interesting(name.as_str()));
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    RequestRecord {
        call: request.call,
        method: request.method.to_string(),
        path_and_query: request.path_and_query.clone(),
        account: request.target.account.clone(),
        container: request.target.container.clone(),
        blob: request.target.blob.clone(),
        snapshot: request.param("snapshot").map(str::to_owned),
        headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
        status: reply.map_or(0, |reply| reply.status.as_u16()),
        error: reply.and_then(|reply| reply.error).map(ErrorCode::name),
        fault: noted.fault,
        late: noted.late,
    }
}
