//! Requests to a source over HTTP.

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use reqwest::{RequestBuilder, Response, Url};

use super::{SOURCE_AUTHORIZATION, refused, unverified};
use crate::conditions::SOURCE_PREFIX;
use crate::error::{ErrorCode, Outcome};
use crate::request::Request;
use crate::service::Service;

/// The version in which a source is asked if the request names none.
const VERSION: &str = "2021-12-02";

/// A source, and the request for which it is read.
pub(super) struct Remote<'a> {
    client: reqwest::Client,
    url: Url,
    request: &'a Request,
    incremental_refused: bool,
}

impl<'a> Remote<'a> {
    pub(super) fn new(service: &Service, request: &'a Request, url: Url) -> Outcome<Remote<'a>> {
        let incremental_refused = service.knobs().copy_from_incremental_refused;
        Ok(Remote { client: service.fetcher.client()?, url, request, incremental_refused })
    }

    /// A request to the source, with `parameters` appended to its query and the token that was sent for it.
    pub(super) fn request(&self, method: Method, parameters: &str) -> Outcome<RequestBuilder> {
        let mut url = self.url.clone();
        if !parameters.is_empty() {
            // What is signed must stay byte for byte, so the query is not parsed and written anew.
            let query = match url.query().filter(|query| !query.is_empty()) {
                Some(query) => format!("{query}&{parameters}"),
                None => parameters.to_owned(),
            };
            url.set_query(Some(&query));
        }
        let version = self.request.version()?.unwrap_or(VERSION);
        let builder = self.client.request(method, url).header("x-ms-version", version);
        Ok(match self.request.header(SOURCE_AUTHORIZATION)? {
            Some(authorization) => builder.header("authorization", authorization),
            None => builder,
        })
    }

    /// Adds the conditions that the request puts on its source.
    pub(super) fn with_conditions(&self, mut builder: RequestBuilder) -> Outcome<RequestBuilder> {
        for name in ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"] {
            if let Some(value) = self.request.header(&format!("{SOURCE_PREFIX}{name}"))? {
                builder = builder.header(name, value);
            }
        }
        Ok(builder)
    }

    /// Sends a request; only the status that is expected is a success.
    pub(super) async fn send(&self, builder: RequestBuilder, expected: StatusCode) -> Outcome<Response> {
        let response = builder.send().await.map_err(|_| unverified())?;
        if response.status() != expected {
            let code = text(response.headers(), "x-ms-error-code").unwrap_or_default();
            return Err(refused(response.status(), code));
        }
        if self.incremental_refused && text(response.headers(), "x-ms-incremental-copy") == Some("true") {
            return Err(ErrorCode::CopySourceCannotBeIncrementalCopyBlob.into());
        }
        Ok(response)
    }
}

/// A header's value.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// A header that holds a number.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}
