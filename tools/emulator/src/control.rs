//! Paths under `/-/`: what scripts ask of the emulator itself. No account of the service can have that name.
//!
//! Whoever reaches the port may ask: it listens on loopback only.

use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;

use crate::counters::Counters;
use crate::fault::Fault;
use crate::link::Link;
use crate::reply::{Reply, ReplyBody};
use crate::service::Service;

const PREFIX: &str = "/-/";

/// The longest body.
const LIMIT: usize = 64 << 10;

/// Whether a request is one for the emulator itself.
pub(crate) fn is_for_emulator(parts: &Parts) -> bool {
    parts.uri.path().starts_with(PREFIX)
}

pub(crate) async fn answer(service: &Service, parts: &Parts, incoming: Incoming) -> Reply {
    let Ok(body) = Limited::new(incoming, LIMIT).collect().await else {
        return bad("the body cannot be read, or is longer than 64 KiB");
    };
    let body = body.to_bytes();
    let Ok(text) = std::str::from_utf8(&body) else { return bad("the body is not text") };
    let name = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    match (parts.method.as_str(), name) {
        ("GET", "counters") => show(&Counters::of(service)),
        ("POST", "counters/reset") => show(&Counters::reset(service)),
        ("POST", "link") => match text.trim() {
            "" => set_link(service, Link::default()),
            text => match text.parse() {
                Ok(link) => set_link(service, link),
                Err(error) => bad(&error.to_string()),
            },
        },
        ("POST", "faults") => add_faults(service, text),
        ("POST", "faults/clear") => {
            service.plan.clear();
            Reply::new(StatusCode::NO_CONTENT)
        }
        _ => plain(StatusCode::NOT_FOUND, "GET counters, POST counters/reset, link, faults or faults/clear"),
    }
}

fn set_link(service: &Service, link: Link) -> Reply {
    service.set_link(link);
    Reply::new(StatusCode::NO_CONTENT)
}

/// Adds all faults or none.
fn add_faults(service: &Service, text: &str) -> Reply {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.map(str::parse).collect::<Result<Vec<Fault>, _>>() {
        Ok(faults) => {
            for fault in faults {
                service.plan.add(fault, service.clock.now());
            }
            Reply::new(StatusCode::NO_CONTENT)
        }
        Err(error) => bad(&error.to_string()),
    }
}

fn show(counters: &Counters) -> Reply {
    let body = ReplyBody::Whole(Some(counters.to_json().to_string().into()));
    Reply { body, ..Reply::new(StatusCode::OK) }.with("content-type", "application/json")
}

fn bad(text: &str) -> Reply {
    plain(StatusCode::BAD_REQUEST, text)
}

fn plain(status: StatusCode, text: &str) -> Reply {
    let body = ReplyBody::Whole(Some(format!("{text}\n").into()));
    Reply { body, ..Reply::new(status) }.with("content-type", "text/plain")
}
