//! An [`Endpoint`] as the official SDK's transport.
//!
//! The SDK's clients are built on the bare URL. Its requests come here with their own query parameters, and go
//! out behind the SAS; its errors are turned back into ours.

use async_trait::async_trait;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Method, Request as SdkRequest};
use bytes::BytesMut;
use reqwest::header::{HeaderMap, HeaderName};

use super::endpoint::{Endpoint, Outgoing};
use super::failure::{CallError, CallResult, Cause};
use super::reply::{ServiceReply, scrub};

/// A list of five thousand snapshots with their metadata is about half of it.
const LARGEST_REPLY: usize = 32 << 20;

#[async_trait]
impl HttpClient for Endpoint {
    /// One attempt of an SDK call. The body is buffered: page data does not come this way.
    async fn execute_request(&self, request: &SdkRequest) -> azure_core::Result<AsyncRawResponse> {
        const CALL: &str = "SDK call";
        self.execute(CALL, request).await.map_err(|error| {
            azure_core::Error::with_error(azure_core::error::ErrorKind::Io, error, "the call failed")
        })
    }
}

impl Endpoint {
    async fn execute(&self, call: &'static str, request: &SdkRequest) -> CallResult<AsyncRawResponse> {
        let Body::Bytes(body) = request.body() else {
            return Err(self.error(call, Cause::Protocol("the SDK sent a stream".to_owned())));
        };
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers().iter() {
            if let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) {
                headers.insert(name, self.header_value(call, value.as_str())?);
            }
        }
        let method = match request.method() {
            Method::Delete => reqwest::Method::DELETE,
            Method::Get => reqwest::Method::GET,
            Method::Head => reqwest::Method::HEAD,
            Method::Put => reqwest::Method::PUT,
            other => return Err(self.error(call, Cause::Protocol(format!("the SDK used method {other}")))),
        };
        let mut base = request.url().clone();
        base.set_query(None);
        let url = self.url(&base, request.url().query().unwrap_or_default());
        let outgoing = Outgoing { method, url, headers, body: vec![body.clone()] };
        self.count_request();
        let response = self.dispatch(call, outgoing).await?;
        tracing::trace!(
            method = %request.method(),
            query = request.url().query().unwrap_or_default(),
            role = %self.resource().role(),
            status = response.status().as_u16(),
            "reply"
        );
        let status = response.status().as_u16();
        let mut reply_headers = azure_core::http::headers::Headers::new();
        for (name, value) in response.headers() {
            match value.to_str() {
                Ok(value) => reply_headers.insert(name.as_str().to_owned(), value.to_owned()),
                // It would be erased by the next marker, because metadata is written as a whole.
                Err(_) if name.as_str().starts_with("x-ms-meta-") => {
                    let why = format!("the metadata {name} holds characters that cannot be written back");
                    return Err(self.error(call, Cause::Protocol(why)));
                }
                Err(_) => {}
            }
        }
        let reading = async {
            let mut reply = BytesMut::new();
            let mut stream = response.bytes_stream();
            while let Some(frame) = self.next_frame(call, &mut stream).await? {
                reply.extend_from_slice(&frame);
                if reply.len() > LARGEST_REPLY {
                    return Err(self.error(call, Cause::Protocol("the reply is too large".to_owned())));
                }
            }
            Ok(reply)
        };
        let reply = self.within_call(call, reading).await?;
        Ok(AsyncRawResponse::from_bytes(status.into(), reply_headers, reply.freeze()))
    }

    /// Turns an error of the SDK back into ours.
    pub(crate) fn error_of_sdk(&self, call: &'static str, error: azure_core::Error) -> CallError {
        if let azure_core::error::ErrorKind::HttpResponse { status, error_code, raw_response } = error.kind()
        {
            let headers = raw_response.as_ref().map(|raw| raw.headers());
            let body = raw_response.as_ref().map(|raw| raw.body().as_ref()).unwrap_or_default();
            let mut reply = ServiceReply::parse(
                (*status).into(),
                |name| {
                    let name = azure_core::http::headers::HeaderName::from(name.to_owned());
                    headers.and_then(|headers| headers.get_optional_str(&name))
                },
                body,
            );
            if reply.code.is_empty()
                && let Some(code) = error_code
            {
                reply.code = scrub(code);
            }
            return self.error(call, Cause::Service(Box::new(reply)));
        }
        match error.into_downcast::<CallError>() {
            Ok(ours) => CallError { call, ..ours },
            Err(other) => self.error(call, Cause::Protocol(scrub(&other.to_string()))),
        }
    }
}
