//! What the host takes to which a disk's content is uploaded: pages, and little besides.
//!
//! It takes no MD5 and no conditions; clients of the service are known to leave those out. What it answers to them, or to
//! other calls, is not: the codes here are those that the service has for such a thing.

use crate::call::Call;
use crate::config::Knobs;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::request::Request;

const CRC64: &str = "x-ms-content-crc64";

/// The headers that are not taken with any call.
const UNSUPPORTED: [&str; 2] = ["content-md5", "x-ms-lease-id"];

/// The beginnings of the names of conditions.
const CONDITIONS: [&str; 2] = ["if-", "x-ms-if-"];

/// Whether a request with a SAS for writing is one that is served.
pub(super) fn check(knobs: &Knobs, request: &Request) -> Outcome<()> {
    let is_served = match request.call {
        Call::PutPage | Call::ClearPages => true,
        Call::GetBlob | Call::HeadBlob | Call::PageRanges => knobs.upload_can_be_read,
        _ => false,
    };
    if !is_served {
        return Err(ErrorCode::AuthorizationPermissionMismatch.into());
    }
    let sent = |name: &&str| request.headers.contains_key(*name);
    if let Some(name) = UNSUPPORTED.iter().find(|name| sent(name)) {
        return Err(Failure::unsupported_header(name));
    }
    if sent(&CRC64) && !knobs.upload_takes_crc64 {
        return Err(Failure::unsupported_header(CRC64));
    }
    let is_condition = |name: &&str| CONDITIONS.iter().any(|start| name.starts_with(start));
    match request.headers.keys().map(hyper::header::HeaderName::as_str).find(is_condition) {
        Some(name) => Err(Failure::from(ErrorCode::ConditionHeadersNotSupported).element("HeaderName", name)),
        None => Ok(()),
    }
}
