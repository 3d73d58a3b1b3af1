//! Set Blob Properties: size, sequence number, content headers.

use hyper::StatusCode;

use super::Task;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::range::PAGE;
use crate::reply::Reply;
use crate::request::Request;
use crate::store::blob::{Content, ContentHeaders};

/// The largest page blob.
const LONGEST: u64 = 8 << 40;

/// The largest sequence number.
const LARGEST_NUMBER: u64 = i64::MAX.unsigned_abs();

/// What a request does to the sequence number.
#[derive(Clone, Copy, Debug)]
enum NumberAction {
    /// Take the larger of the old and the given one.
    Max(u64),
    Update(u64),
    Increment,
}

pub(super) fn set_properties(task: &Task<'_>) -> Outcome<Reply> {
    let request = task.request;
    let length = sent_length(request)?;
    let action = sent_action(request)?;
    let content_headers = sent_content_headers(request)?;
    // A call that sets one of the content headers removes the others; one that only resizes or numbers leaves them.
    let names = ["type", "encoding", "language", "disposition", "md5"]
        .map(|name| format!("x-ms-blob-content-{name}"));
    let mut sent = names.iter().map(String::as_str).chain(["x-ms-blob-cache-control"]);
    let replaces_headers =
        sent.any(|name| request.headers.contains_key(name)) || (length.is_none() && action.is_none());

    let blob = task.blob()?;
    let mut blob = blob.lock();
    let writable = task.writable(&mut blob)?;
    let version = &mut *writable.version;
    if length.is_some() || action.is_some() {
        let Content::Pages(pages) = &mut version.content else {
            return Err(ErrorCode::InvalidBlobType.into());
        };
        version.sequence_number = next_number(version.sequence_number, action)?;
        if let Some(length) = length {
            pages.resize(length);
        }
    }
    if replaces_headers {
        version.content_headers = content_headers;
    }
    let page_number = matches!(version.content, Content::Pages(_)).then_some(version.sequence_number);
    let mut reply = writable.changed(task, StatusCode::OK);
    if let Some(number) = page_number {
        reply.set("x-ms-blob-sequence-number", &number.to_string());
    }
    Ok(reply)
}

/// `x-ms-blob-content-length`, if it is a length that a page blob may have.
pub(super) fn sent_length(request: &Request) -> Outcome<Option<u64>> {
    let name = "x-ms-blob-content-length";
    match request.number_header(name)? {
        Some(length) if !length.is_multiple_of(PAGE) => Err(Failure::bad_header(name, &length.to_string())),
        Some(length) if length > LONGEST => Err(ErrorCode::RequestBodyTooLarge.into()),
        length => Ok(length),
    }
}

/// The content headers in a request; the MD5 among them is stored without a look at the content.
pub(super) fn sent_content_headers(request: &Request) -> Outcome<ContentHeaders> {
    let text = |name| request.header(name).map(|text| text.map(str::to_owned));
    Ok(ContentHeaders {
        content_type: text("x-ms-blob-content-type")?,
        encoding: text("x-ms-blob-content-encoding")?,
        language: text("x-ms-blob-content-language")?,
        disposition: text("x-ms-blob-content-disposition")?,
        cache_control: text("x-ms-blob-cache-control")?,
        md5: text("x-ms-blob-content-md5")?,
    })
}

fn sent_action(request: &Request) -> Outcome<Option<NumberAction>> {
    let name = "x-ms-sequence-number-action";
    let number_name = "x-ms-blob-sequence-number";
    let number = request.number_header(number_name)?;
    let needed = || number.ok_or_else(|| Failure::missing_header(number_name));
    match (request.header(name)?, number) {
        (None, _) => Ok(None),
        (Some("max"), _) => needed().map(|number| Some(NumberAction::Max(number))),
        (Some("update"), _) => needed().map(|number| Some(NumberAction::Update(number))),
        (Some("increment"), None) => Ok(Some(NumberAction::Increment)),
        (Some("increment"), Some(number)) => Err(Failure::bad_header(number_name, &number.to_string())),
        (Some(other), _) => Err(Failure::bad_header(name, other)),
    }
}

fn next_number(number: u64, action: Option<NumberAction>) -> Outcome<u64> {
    match action {
        None => Ok(number),
        Some(NumberAction::Max(other)) => Ok(number.max(other)),
        Some(NumberAction::Update(other)) => Ok(other),
        Some(NumberAction::Increment) if number == LARGEST_NUMBER => {
            Err(ErrorCode::SequenceNumberIncrementTooLarge.into())
        }
        Some(NumberAction::Increment) => Ok(number + 1),
    }
}
