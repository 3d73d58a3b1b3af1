//! Azure Resource Manager: disks, snapshots, and the grants of their SAS (Microsoft.Compute).
//!
//! ```text
//! id     the name of a disk or snapshot      model       what the service shows of them
//! mod    one call, with token and retries    operation   what is finished later
//! change make, tag, grant, revoke, delete
//! ```

mod change;
pub mod id;
pub mod model;
mod operation;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use url::Url;

use super::client::{Client, describe};
use super::failure::{CallError, CallResult, Cause};
use super::meter::Meter;
use super::reply::ServiceReply;
use super::resource::{PlainHttp, Role, is_loopback};
use super::retry::Retry;
use crate::error::{Error, ErrorKind, Result};

pub use change::Access;
pub use id::{ArmId, ArmKind};
pub use model::{ManagedDisk, ManagedSnapshot};

/// The version that every call asks for: documented for disks and snapshots alike.
pub const API_VERSION: &str = "2024-03-02";
/// The version for storage accounts, of which only the region is asked for.
const STORAGE_VERSION: &str = "2023-01-01";
/// The longest grant that the service makes: 60 days (since 2025; azure-cli issue 29431).
pub const LONGEST_GRANT: Duration = Duration::from_hours(60 * 24);
/// The shortest.
pub const SHORTEST_GRANT: Duration = Duration::from_secs(30);

/// A page of a list has at most some hundred snapshots of a few KiB.
const LARGEST_REPLY: usize = 32 << 20;
/// Pages of a list that are followed.
const MOST_PAGES: usize = 10_000;
/// What does not stand in a path segment as it is.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Where Azure Resource Manager is.
#[derive(Clone, Debug)]
pub struct ArmEndpoint(Url);

impl Default for ArmEndpoint {
    fn default() -> Self {
        Self::parse(Self::PUBLIC, PlainHttp::LoopbackOnly).unwrap_or_else(|_| unreachable!("a constant"))
    }
}

impl ArmEndpoint {
    /// The public cloud.
    pub const PUBLIC: &str = "https://management.azure.com";

    /// The endpoint of a cloud. Tokens are sent there, so it must be https, or this machine.
    ///
    /// # Errors
    /// When it is not the URL of a host.
    pub fn parse(text: &str, plain: PlainHttp) -> Result<Self> {
        let usage =
            |why: String| Error::new(ErrorKind::Usage, "use the endpoint of Azure Resource Manager", why);
        let url = Url::parse(text.trim().trim_end_matches('/')).map_err(|error| usage(error.to_string()))?;
        if url.host_str().is_none_or(str::is_empty)
            || !matches!(url.path(), "" | "/")
            || url.query().is_some()
        {
            return Err(usage("it must be scheme and host alone".to_owned())
                .next(format!("for the public cloud: {}", Self::PUBLIC)));
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback(&url) || plain == PlainHttp::Anywhere => Ok(Self(url)),
            "http" => Err(Error::new(
                ErrorKind::Insecure,
                "use the endpoint of Azure Resource Manager",
                "plain http would send the token in clear text",
            )),
            _ => Err(usage("its scheme is not https".to_owned())),
        }
    }

    fn scope(&self) -> String {
        format!("{}.default", self.0)
    }

    /// Whether a link of a reply leads to the same service: tokens go nowhere else. Operations may be at a region's
    /// own host below it.
    fn owns(&self, url: &Url) -> bool {
        let (ours, theirs) = (self.0.host_str().unwrap_or_default(), url.host_str().unwrap_or_default());
        let below = theirs.strip_suffix(ours).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        below && url.scheme() == self.0.scheme() && url.port() == self.0.port()
    }
}

/// A client of Azure Resource Manager.
#[derive(Clone)]
pub struct Arm {
    client: Client,
    endpoint: ArmEndpoint,
    meter: Arc<Meter>,
}

impl std::fmt::Debug for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arm").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What is asked for, and of what.
pub(crate) struct Ask<'a> {
    call: &'static str,
    on: &'a (dyn std::fmt::Display + Sync),
}

/// One reply.
pub(crate) struct Reply {
    status: u16,
    /// `Azure-AsyncOperation`
    status_at: Option<String>,
    location: Option<String>,
    retry_after: Option<Duration>,
    /// What it says if it is no success.
    refusal: ServiceReply,
    /// `Null` when there is none, or none that is JSON.
    body: Value,
}

/// Where to list snapshots.
#[derive(Clone, Debug)]
pub enum ListScope {
    /// All of a subscription.
    Subscription(String),
    /// Those of one resource group.
    Group(String, String),
}

impl std::fmt::Display for ListScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Subscription(subscription) => write!(f, "/subscriptions/{subscription}"),
            Self::Group(subscription, group) => {
                write!(f, "/subscriptions/{subscription}/resourceGroups/{group}")
            }
        }
    }
}

impl Arm {
    /// A client that signs in with the tokens of `client` and counts on `meter`.
    pub fn new(client: Client, endpoint: ArmEndpoint, meter: Arc<Meter>) -> Self {
        Self { client, endpoint, meter }
    }

    /// Disks Get.
    pub async fn disk(&self, id: &ArmId) -> CallResult<ManagedDisk> {
        let ask = Ask { call: "Disks Get", on: id };
        let reply = self.repeat(&ask, Method::GET, &self.url(id, ""), None).await?;
        ManagedDisk::read(reply.body).map_err(|why| self.error(&ask, Cause::Protocol(why)))
    }

    /// Snapshots Get.
    pub async fn snapshot(&self, id: &ArmId) -> CallResult<ManagedSnapshot> {
        let ask = Ask { call: "Snapshots Get", on: id };
        let reply = self.repeat(&ask, Method::GET, &self.url(id, ""), None).await?;
        ManagedSnapshot::read(reply.body).map_err(|why| self.error(&ask, Cause::Protocol(why)))
    }

    /// Storage Accounts Get Properties: the account's region.
    pub async fn region_of_account(&self, id: &ArmId) -> CallResult<String> {
        let ask = Ask { call: "Storage Accounts Get Properties", on: id };
        let url = self.url_in(id, "", STORAGE_VERSION);
        let reply = self.repeat(&ask, Method::GET, &url, None).await?;
        let region = reply.body.get("location").and_then(Value::as_str).map(str::to_owned);
        region.ok_or_else(|| self.error(&ask, Cause::Protocol("the reply names no region".to_owned())))
    }

    /// Snapshots List, all pages.
    pub async fn snapshots(&self, scope: &ListScope) -> CallResult<Vec<ManagedSnapshot>> {
        let ask = Ask { call: "Snapshots List", on: scope };
        let mut url = self.url(scope, "/providers/Microsoft.Compute/snapshots");
        let mut seen = std::collections::HashSet::new();
        let mut all = Vec::new();
        while seen.len() < MOST_PAGES {
            if !seen.insert(url.clone()) {
                return Err(self.error(
                    &ask,
                    Cause::Protocol("a page of the list leads back to one before it".to_owned()),
                ));
            }
            let reply = self.repeat(&ask, Method::GET, &url, None).await?;
            let page: model::Page = serde_json::from_value(reply.body)
                .map_err(|error| self.error(&ask, Cause::Protocol(error.to_string())))?;
            for value in page.value {
                all.push(ManagedSnapshot::read(value).map_err(|why| self.error(&ask, Cause::Protocol(why)))?);
            }
            match page.next_link.filter(|link| !link.is_empty()) {
                Some(link) => url = self.checked(&ask, &link)?,
                None => return Ok(all),
            }
        }
        Err(self.error(&ask, Cause::Protocol(format!("the list has more than {MOST_PAGES} pages"))))
    }

    /// How calls are counted, and what they wait for.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    #[allow(clippy::unused_self, reason = "reads like the error of an endpoint")]
    pub(crate) fn error(&self, ask: &Ask<'_>, cause: Cause) -> CallError {
        CallError::of(ask.call, Role::Manager, ask.on, cause)
    }

    fn url(&self, on: &(dyn std::fmt::Display + Sync), rest: &str) -> String {
        self.url_in(on, rest, API_VERSION)
    }

    fn url_in(&self, on: &(dyn std::fmt::Display + Sync), rest: &str, version: &str) -> String {
        let path: Vec<String> =
            on.to_string().split('/').map(|part| utf8_percent_encode(part, SEGMENT).to_string()).collect();
        format!(
            "{}{}{rest}?api-version={version}",
            self.endpoint.0.as_str().trim_end_matches('/'),
            path.join("/")
        )
    }

    /// A link of a reply, if a token may be sent there.
    fn checked(&self, ask: &Ask<'_>, link: &str) -> CallResult<String> {
        match Url::parse(link) {
            Ok(url) if self.endpoint.owns(&url) => Ok(link.to_owned()),
            _ => Err(self.error(
                ask,
                Cause::Protocol(
                    "a link in the reply leads to another host: no token is sent there".to_owned(),
                ),
            )),
        }
    }

    async fn poll(&self, ask: &Ask<'_>, url: &str) -> CallResult<Reply> {
        let url = self.checked(ask, url)?;
        self.retry()
            .run(|| async {
                // A poll may carry the end of its operation under a status code that says otherwise.
                let reply = self.send_once(ask, Method::GET, &url, None).await?;
                let says_enough =
                    operation::has_known_status(&reply.body) || operation::find_sas(&reply.body).is_some();
                if reply.status < 500 && says_enough { Ok(reply) } else { self.succeeded(ask, reply) }
            })
            .await
    }

    fn retry(&self) -> Retry<'_> {
        Retry { policy: self.client.retry, meter: &self.meter, sas: Vec::new() }
    }

    async fn repeat(
        &self,
        ask: &Ask<'_>,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> CallResult<Reply> {
        self.retry()
            .run(|| async {
                let reply = self.send_once(ask, method.clone(), url, body).await?;
                self.succeeded(ask, reply)
            })
            .await
    }

    async fn send_once(
        &self,
        ask: &Ask<'_>,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> CallResult<Reply> {
        let limit = self.client.timeouts.call;
        let working = async {
            let mut request = self
                .client
                .http(is_loopback(&self.endpoint.0))
                .request(method, url)
                .header(AUTHORIZATION, self.token(ask).await?)
                .header("x-ms-client-request-id", uuid::Uuid::new_v4().to_string());
            if let Some(body) = body {
                request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
            } else {
                request = request.header(reqwest::header::CONTENT_LENGTH, 0);
            }
            self.meter.sent(0);
            let response = request.send().await.map_err(|error| {
                let cause = if error.is_connect() { Cause::Connect } else { Cause::Broken };
                self.error(ask, cause(describe(error)))
            })?;
            self.meter.answered();
            self.read(ask, response).await
        };
        tokio::time::timeout(limit, working).await.unwrap_or_else(|_| {
            Err(self
                .error(ask, Cause::Broken(format!("it was not complete after {} s", limit.as_secs_f32()))))
        })
    }

    async fn read(&self, ask: &Ask<'_>, response: reqwest::Response) -> CallResult<Reply> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        tracing::trace!(call = ask.call, status, "reply");
        let mut bytes = BytesMut::new();
        let mut stream = response.bytes_stream();
        while let Some(frame) = stream.next().await {
            bytes.extend_from_slice(&frame.map_err(|error| self.error(ask, Cause::Broken(describe(error))))?);
            if bytes.len() > LARGEST_REPLY {
                return Err(self.error(ask, Cause::Protocol("the reply is too large".to_owned())));
            }
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let body: Value = serde_json::from_slice(text).unwrap_or_default();
        Ok(Reply {
            status,
            status_at: header("azure-asyncoperation").map(str::to_owned),
            location: header("location").map(str::to_owned),
            refusal: ServiceReply::parse_json(status, header, &body),
            retry_after: header("retry-after").and_then(super::reply::parse_retry_after),
            body,
        })
    }

    fn succeeded(&self, ask: &Ask<'_>, reply: Reply) -> CallResult<Reply> {
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        Err(self.error(ask, Cause::Service(Box::new(reply.refusal))))
    }

    async fn token(&self, ask: &Ask<'_>) -> CallResult<HeaderValue> {
        let none = || self.error(ask, Cause::Token("no sign-in was given".to_owned()));
        let tokens = self.client.tokens.as_ref().ok_or_else(none)?;
        let token = tokens.get(&self.endpoint.scope(), self.client.timeouts.call).await.map_err(|none| {
            let why = format!("signing in failed: {}", none.why);
            self.error(ask, if none.had_before { Cause::TokenRefresh(why) } else { Cause::Token(why) })
        })?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| self.error(ask, Cause::Token("the token holds control characters".to_owned())))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
