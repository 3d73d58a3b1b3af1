//! Set Blob Metadata, and the rules that metadata obeys wherever it is sent.
//!
//! Names are kept in lower case: the HTTP library hands them over like that, and clients compare them without case.

use std::collections::BTreeMap;

use hyper::StatusCode;

use super::Task;
use crate::error::{ErrorCode, Outcome};
use crate::reply::Reply;
use crate::request::Request;

const PREFIX: &str = "x-ms-meta-";

/// Bytes of all names and values.
const LIMIT: usize = 8 * 1024;

/// Replaces all metadata by what was sent.
pub(super) fn set_metadata(task: &Task<'_>) -> Outcome<Reply> {
    let metadata = sent_metadata(task.request)?;
    let blob = task.blob()?;
    let mut blob = blob.lock();
    let writable = task.writable(&mut blob)?;
    writable.version.metadata = metadata;
    Ok(writable.changed(task, StatusCode::OK).with("x-ms-request-server-encrypted", "true"))
}

/// The metadata in a request's headers.
pub(super) fn sent_metadata(request: &Request) -> Outcome<BTreeMap<String, String>> {
    let mut metadata = BTreeMap::new();
    let mut bytes = 0;
    for (header, value) in &request.headers {
        let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
        let value = value.to_str().map_err(|_| ErrorCode::InvalidMetadata)?;
        check_name(name)?;
        bytes += name.len() + value.len();
        if metadata.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(ErrorCode::InvalidMetadata.into());
        }
    }
    if bytes > LIMIT {
        return Err(ErrorCode::MetadataTooLarge.into());
    }
    Ok(metadata)
}

/// Names are identifiers: letters, digits and underscores, no digit first.
fn check_name(name: &str) -> Outcome<()> {
    let Some(first) = name.bytes().next() else { return Err(ErrorCode::EmptyMetadataKey.into()) };
    let inside = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if first.is_ascii_digit() || !inside {
        return Err(ErrorCode::InvalidMetadata.into());
    }
    Ok(())
}

/// Shows metadata as headers of a reply.
pub(super) fn show_metadata(reply: &mut Reply, metadata: &BTreeMap<String, String>) {
    for (name, value) in metadata {
        reply.set(&format!("{PREFIX}{name}"), value);
    }
}
