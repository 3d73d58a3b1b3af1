//! What a request wants to be read from elsewhere (`x-ms-copy-source`), fetched before its handler runs.
//!
//! Put Page From URL reads its range over HTTP always, from this emulator too: so the source's statistics, faults and
//! limits apply, as they do with the service. Copy Blob reads a blob of this emulator directly, and one of another over
//! HTTP. Sources are looked for on loopback only: nothing that is sent here leaves the machine.

mod blob;
mod range;
mod remote;

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use hyper::StatusCode;
use reqwest::Url;

use crate::auth::Permit;
use crate::call::Call;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::handlers;
use crate::request::Request;
use crate::service::Service;
use crate::store::pages::PageData;

pub(crate) use self::blob::{SourceBlob, own_blob};
use self::remote::Remote;

/// The header that names a source.
pub(crate) const SOURCE_HEADER: &str = "x-ms-copy-source";

/// The token for the source, if it takes one.
const SOURCE_AUTHORIZATION: &str = "x-ms-copy-source-authorization";

/// The longest source URL.
const URL_LIMIT: usize = 2048;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For one request to the source, with its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What was read.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// For Put Page From URL, cut for the place where it is to be written.
    Pages(PageData),
    /// For Copy Blob.
    Blob(Box<SourceBlob>),
}

/// The HTTP client with which sources are read, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    client: OnceLock<reqwest::Client>,
}

impl Fetcher {
    fn client(&self) -> Outcome<reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        // Another emulator's certificate is known to nobody. Not to check it is safe where only loopback is reached.
        let client = reqwest::Client::builder()
            .no_proxy()
            // A connection that is used again and found cut would be replaced silently, and a fault there be hidden.
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|_| ErrorCode::InternalError)?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

/// Reads what the request wants to be read, if it is of a kind that does.
pub(crate) async fn fetch(service: &Service, request: &Request, permit: &Permit) -> Outcome<Option<Source>> {
    match request.call {
        Call::PutPageFromUrl => {
            let ranges = handlers::check_put_page_from_url(service, request, permit)?;
            let remote = Remote::new(service, request, source_url(request)?)?;
            let data = range::fetch(&remote, &ranges).await?;
            Ok(Some(Source::Pages(data)))
        }
        Call::CopyBlob => {
            handlers::check_copy_blob(service, request, permit)?;
            let source = blob::fetch(service, request, source_url(request)?).await?;
            Ok(Some(Source::Blob(Box::new(source))))
        }
        _ => Ok(None),
    }
}

/// The source's URL, if it is one, and one on this machine.
fn source_url(request: &Request) -> Outcome<Url> {
    let text = request.required_header(SOURCE_HEADER)?;
    let bad = || Failure::bad_header(SOURCE_HEADER, text);
    if text.len() > URL_LIMIT {
        return Err(bad());
    }
    let url = Url::parse(text).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad());
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        let failure = Failure { status: StatusCode::BAD_REQUEST, ..unverified() };
        return Err(failure.element("Reason", "The emulator reads sources on loopback only."));
    }
    Ok(url)
}

/// The source could not be reached, or did not answer as a blob does.
fn unverified() -> Failure {
    ErrorCode::CannotVerifyCopySource.into()
}

/// The source refused: its status becomes the one of the reply, and its code is told besides.
fn refused(status: StatusCode, code: &str) -> Failure {
    let is_error = status.is_client_error() || status.is_server_error() || status == StatusCode::NOT_MODIFIED;
    if !is_error {
        return unverified();
    }
    Failure { status, ..unverified() }
        .header("x-ms-copy-source-status-code", status.as_str())
        .header("x-ms-copy-source-error-code", code)
        .element("CopySourceStatusCode", status.as_str())
        .element("CopySourceErrorCode", code)
}
