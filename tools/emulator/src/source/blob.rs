//! A whole blob as a source: taken over directly if it is here, and read over HTTP otherwise.

use std::collections::BTreeMap;

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use quick_xml::Reader;
use quick_xml::events::Event;
use reqwest::{RequestBuilder, Url};

use super::remote::{Remote, number, text};
use super::{SOURCE_AUTHORIZATION, range, refused, unverified};
use crate::auth;
use crate::body::PUT_PAGE_LIMIT;
use crate::call::Role;
use crate::clock::Moment;
use crate::conditions::{Conditions, Purpose};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::range::PAGE;
use crate::request::{Request, Target};
use crate::service::Service;
use crate::store::blob::{Content, ContentHeaders, Version};
use crate::store::pages::Pages;

/// The largest page blob.
const LONGEST: u64 = 8 << 40;

/// What Copy Blob takes over from its source.
#[derive(Clone, Debug)]
pub(crate) struct SourceBlob {
    pub(crate) content: Content,
    pub(crate) content_headers: ContentHeaders,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) sequence_number: u64,
}

impl From<Version> for SourceBlob {
    fn from(version: Version) -> SourceBlob {
        let Version { content, content_headers, metadata, sequence_number, .. } = version;
        SourceBlob { content, content_headers, metadata, sequence_number }
    }
}

pub(super) async fn fetch(service: &Service, request: &Request, url: Url) -> Outcome<SourceBlob> {
    let fetched = if is_own(service, &url) {
        read_own(service, request, &url)
    } else {
        read_remote(&Remote::new(service, request, url)?).await
    };
    let is_conditional = Conditions::of_source(request)?.is_some();
    fetched.map_err(|failure| match failure.status {
        StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED if is_conditional => {
            ErrorCode::SourceConditionNotMet.into()
        }
        _ => failure,
    })
}

/// The blob of this emulator that a URL names, and the snapshot of it; none if the URL names anything else.
pub(crate) fn own_blob(service: &Service, url: &str) -> Option<(Target, Option<Moment>)> {
    let url = Url::parse(url).ok().filter(|url| is_own(service, url))?;
    let target = Target::parse(url.path()).ok().filter(|target| !target.blob.is_empty())?;
    let snapshot = url.query_pairs().find(|(name, _)| name == "snapshot");
    let snapshot = match snapshot {
        Some((_, time)) => Some(Moment::from_iso(&time)?),
        None => None,
    };
    Some((target, snapshot))
}

fn is_own(service: &Service, url: &Url) -> bool {
    let Ok(own) = Url::parse(&service.endpoint) else { return false };
    let same_host = url.host_str() == own.host_str() || url.host_str() == Some("localhost");
    same_host && url.scheme() == own.scheme() && url.port_or_known_default() == own.port_or_known_default()
}

/// Reads a blob of this emulator, after the checks that a request to it would undergo.
fn read_own(service: &Service, request: &Request, url: &Url) -> Outcome<SourceBlob> {
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut head = hyper::Request::builder().method("HEAD").uri(format!("{}{query}", url.path()));
    for (name, from) in [("x-ms-version", "x-ms-version"), ("authorization", SOURCE_AUTHORIZATION)] {
        if let Some(value) = request.header(from)? {
            head = head.header(name, value);
        }
    }
    let source = head.body(()).map_err(|_| unverified())?;
    let source = Request::parse(source.into_parts().0).map_err(|failure| told(&failure))?;
    // Who may do anything with an account need not sign its blobs again. A SAS does not say that much.
    let has_own_credential = source.param("sig").is_some() || source.header("authorization")?.is_some();
    let is_trusted = source.target.account == request.target.account
        && request.param("sig").is_none()
        && !has_own_credential;
    if !is_trusted {
        auth::authorise(service, &source).map_err(|failure| told(&failure))?;
    }
    let not_found = |code: ErrorCode| told(&code.into());
    let account = service.store.account(&source.target.account);
    let account = account.ok_or_else(|| not_found(ErrorCode::ResourceNotFound))?;
    let container = account.container(&source.target.container);
    let container = container.ok_or_else(|| not_found(ErrorCode::ContainerNotFound))?;
    let blob = container.blob(&source.target.blob).ok_or_else(|| not_found(ErrorCode::BlobNotFound))?;
    let blob = blob.lock();
    let version = blob.version(source.snapshot().map_err(|failure| told(&failure))?);
    let version = version.ok_or_else(|| not_found(ErrorCode::BlobNotFound))?;
    if account.role == Role::DiskExport && service.knobs().copy_from_incremental_refused {
        return Err(ErrorCode::CopySourceCannotBeIncrementalCopyBlob.into());
    }
    Conditions::of_source(request)?.check(Purpose::Write, Some(version.validators()))?;
    Ok(version.clone().into())
}

/// What a source's refusal becomes for whoever asked for the copy.
fn told(failure: &Failure) -> Failure {
    refused(failure.status, failure.code.name())
}

async fn read_remote(remote: &Remote<'_>) -> Outcome<SourceBlob> {
    let request = remote.with_conditions(remote.request(Method::HEAD, "")?)?;
    let head = remote.send(request, StatusCode::OK).await?;
    let headers = head.headers();
    if text(headers, "x-ms-blob-type") != Some("PageBlob") {
        // Block blobs are copied inside one emulator only: no client of this one needs more.
        return Err(ErrorCode::NotImplemented.into());
    }
    let length =
        number(headers, "content-length").filter(|length| length.is_multiple_of(PAGE) && *length <= LONGEST);
    let length = length.ok_or_else(unverified)?;
    // From here on, only this state of the source is wanted.
    let etag = text(headers, "etag").ok_or_else(unverified)?;
    let same = |request: RequestBuilder| request.header("if-match", etag);

    let mut pages = Pages::new(length);
    let mut marker: Option<String> = None;
    let mut done_to = 0;
    loop {
        let parameters = match &marker {
            None => "comp=pagelist".to_owned(),
            Some(marker) => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("comp", "pagelist").append_pair("marker", marker).finish()
            }
        };
        let request = same(remote.request(Method::GET, &parameters)?);
        let list = remote.send(request, StatusCode::OK).await?;
        let list = list.text().await.map_err(|_| unverified())?;
        let (ranges, next) = parse_list(&list).ok_or_else(unverified)?;
        let before = done_to;
        for range in ranges {
            let fits = done_to <= range.start && range.start < range.end && range.end <= length;
            if !fits || !range.start.is_multiple_of(PAGE) || !range.end.is_multiple_of(PAGE) {
                return Err(unverified());
            }
            done_to = range.end;
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start + PUT_PAGE_LIMIT);
                let request = same(remote.request(Method::GET, "")?);
                pages.write(&range::read(remote, request, &(start..end), start).await?);
                start = end;
            }
        }
        marker = next;
        // A list that goes on without getting on would never end.
        match &marker {
            None => break,
            Some(_) if done_to == before => return Err(unverified()),
            Some(_) => {}
        }
    }
    Ok(SourceBlob {
        content: Content::Pages(pages),
        content_headers: content_headers(headers),
        metadata: metadata(headers),
        sequence_number: number(headers, "x-ms-blob-sequence-number").unwrap_or_default(),
    })
}

fn content_headers(headers: &HeaderMap) -> ContentHeaders {
    let owned = |name| text(headers, name).map(str::to_owned);
    ContentHeaders {
        content_type: owned("content-type"),
        encoding: owned("content-encoding"),
        language: owned("content-language"),
        disposition: owned("content-disposition"),
        cache_control: owned("cache-control"),
        md5: owned("content-md5"),
    }
}

fn metadata(headers: &HeaderMap) -> BTreeMap<String, String> {
    let named = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("x-ms-meta-")?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    named.collect()
}

/// The ranges of a page list, and the marker of the next part.
fn parse_list(xml: &str) -> Option<(Vec<std::ops::Range<u64>>, Option<String>)> {
    let mut reader = Reader::from_str(xml.trim_start_matches('\u{feff}'));
    let (mut ranges, mut marker, mut start, mut content) = (Vec::new(), None, None, String::new());
    loop {
        match reader.read_event().ok()? {
            Event::Start(_) => content.clear(),
            Event::Text(bytes) => content.push_str(&bytes),
            Event::End(element) => match element.name().as_ref() {
                "Start" => start = Some(content.trim().parse::<u64>().ok()?),
                "End" => ranges.push(start.take()?..content.trim().parse::<u64>().ok()?.checked_add(1)?),
                "NextMarker" => marker = Some(content.clone()).filter(|text| !text.is_empty()),
                _ => {}
            },
            Event::Eof => return Some((ranges, marker)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_list_is_read() {
        let xml = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList><PageRange><Start>0</Start>\
             <End>511</End></PageRange><PageRange><Start>4096</Start><End>8191</End></PageRange>\
             <NextMarker>2!16!x</NextMarker></PageList>";
        assert_eq!(parse_list(xml), Some((vec![0..512, 4096..8192], Some("2!16!x".to_owned()))));
        assert_eq!(parse_list("<PageList><NextMarker/></PageList>"), Some((vec![], None)));
        for wrong in ["<PageList><End>1</End></PageList>", "<Start>x</Start>", "<PageList></Page>"] {
            assert_eq!(parse_list(wrong), None, "{wrong}");
        }
    }
}
