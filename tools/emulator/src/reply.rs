//! A reply in the making: status, headers, a body of frames, and the headers that every reply has.

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use quick_xml::escape::escape;
use uuid::Uuid;

use crate::arm;
use crate::call::Role;
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure};
use crate::store::blob::Version;
use crate::store::pages::PageView;

const SERVER: &str = "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0";

/// The byte-order mark and the declaration with which every body of XML begins.
const XML_START: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";

/// A reply to one request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ReplyBody,
    pub(crate) error: Option<ErrorCode>,
}

impl Reply {
    pub(crate) fn new(status: StatusCode) -> Reply {
        Reply { status, headers: HeaderMap::new(), body: ReplyBody::Empty, error: None }
    }

    /// A listing; the service sends those in chunks, without telling their length.
    pub(crate) fn listing(xml: &str) -> Reply {
        let body = ReplyBody::Chunked(Some(xml_body(xml)));
        Reply { body, ..Reply::new(StatusCode::OK) }.with("content-type", "application/xml")
    }

    /// JSON from the management side, XML from accounts.
    pub(crate) fn refusal(role: Role, failure: &Failure, id: Uuid, now: Moment) -> Reply {
        let mut reply = if role == Role::Management {
            arm::refusal(failure)
        } else {
            Reply::new(failure.status).with("x-ms-error-code", failure.code.name())
        };
        reply.error = Some(failure.code);
        for (name, value) in &failure.headers {
            reply.add(name, value);
        }
        if role == Role::Management {
            return reply;
        }
        if failure.status != StatusCode::NOT_MODIFIED {
            reply.set("content-type", "application/xml");
            reply.body = ReplyBody::Whole(Some(xml_body(&error_xml(failure, id, now))));
        }
        reply
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Reply {
        self.set(name, value.as_ref());
        self
    }

    /// `ETag` and `Last-Modified`.
    pub(crate) fn with_validators(self, version: &Version) -> Reply {
        self.with("etag", format!("\"{}\"", version.etag.etag_text()))
            .with("last-modified", version.last_modified.http_text())
    }

    /// Sets a header; a value that no header can hold is left out.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            self.headers.insert(name, value);
        }
    }

    /// Adds a header; another of that name stays.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            self.headers.append(name, value);
        }
    }

    /// Adds what every reply says, and makes it one that can be sent.
    pub(crate) fn finish(
        mut self,
        id: Uuid,
        client_id: Option<&str>,
        version: Option<&str>,
        now: Moment,
    ) -> Response<ReplyBody> {
        if !self.headers.contains_key("server") {
            self.set("server", SERVER);
        }
        self.set("date", &now.http_text());
        self.set("x-ms-request-id", &id.to_string());
        if let Some(client_id) = client_id {
            self.set("x-ms-client-request-id", client_id);
        }
        if let Some(version) = version {
            self.set("x-ms-version", version);
        }
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// A reply's body, in frames.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    Empty,
    Whole(Option<Bytes>),
    /// Sent without telling its length first.
    Chunked(Option<Bytes>),
    /// Bytes of a blob, taken from its blocks as they are sent.
    Pages(PageView),
}

impl ReplyBody {
    /// Bytes that are still to be sent.
    pub(crate) fn remaining(&self) -> u64 {
        match self {
            ReplyBody::Empty => 0,
            ReplyBody::Whole(bytes) | ReplyBody::Chunked(bytes) => {
                bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)
            }
            ReplyBody::Pages(view) => view.remaining(),
        }
    }

    /// The next bytes, as many as are at hand in one piece.
    pub(crate) fn take_frame(&mut self) -> Option<Bytes> {
        match self {
            ReplyBody::Empty => None,
            ReplyBody::Whole(bytes) | ReplyBody::Chunked(bytes) => bytes.take(),
            ReplyBody::Pages(view) => view.next(),
        }
    }
}

fn xml_body(xml: &str) -> Bytes {
    Bytes::from([XML_START, xml].concat())
}

fn error_xml(failure: &Failure, id: Uuid, now: Moment) -> String {
    let code = failure.code;
    let time = now.snapshot_text();
    let mut xml = format!("<Error><Code>{}</Code><Message>{}\n", code.name(), escape(failure.text.as_ref()));
    // Writing to a string cannot fail.
    let _ = write!(xml, "RequestId:{id}\nTime:{time}</Message>");
    for (name, text) in &failure.elements {
        let _ = write!(xml, "<{name}>{}</{name}>", escape(text.as_str()));
    }
    xml.push_str("</Error>");
    xml
}
