//! One URL, and everything that a request to it needs: connection, time-outs, rights, pace, count, retries.
//!
//! The official SDK runs over an [`Endpoint`] as its transport. It never sees a SAS: its clients are built on
//! the bare URL, and the endpoint puts the query back, byte for byte, on the way out (the SDK would sort and
//! re-encode it). Nor does it hold a token: the endpoint adds the bearer header.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::allowance::{Learned, Turn};
use super::client::{Client, Timeouts, describe};
use super::failure::{CallError, CallResult, Cause};
use super::meter::{Meter, Moving};
use super::pace::Pace;
use super::reply::ServiceReply;
use super::resource::Resource;
use super::retry::{Retry, RetryPolicy};
use super::tokens::Tokens;
use crate::budget::Budget;

/// The service version that every request asks for: the newest with recorded traffic behind the facts that
/// this client is built on.
pub const SERVICE_VERSION: &str = "2021-12-02";

/// Scope of tokens for storage accounts.
const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";
/// Scope of tokens for disks that demand SAS and token together. The two slashes are meant: the audience ends
/// in one (azcopy asks for the same).
const DISK_SCOPE: &str = "https://disk.azure.com//.default";

/// Which `Authorization` header goes with the SAS, if any.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bearer {
    None = 0,
    Storage = 1,
    Disk = 2,
}

/// A request of our own: what the SDK has no call for, and page data.
pub(crate) struct Request {
    pub(crate) call: &'static str,
    pub(crate) method: reqwest::Method,
    /// Own query parameters, encoded, appended after the SAS.
    pub(crate) query: Cow<'static, str>,
    pub(crate) headers: Vec<(&'static str, Secretive)>,
    pub(crate) body: Vec<Bytes>,
    /// Bytes that the reply is expected to hold, or that the service is to read from elsewhere, for the pace.
    pub(crate) reply_bytes: u64,
}

impl Request {
    /// Bytes that it moves, in whichever direction.
    fn moves(&self) -> u64 {
        let body: u64 = self.body.iter().map(|frame| frame.len() as u64).sum();
        body.max(self.reply_bytes)
    }
}

/// A header value that may be a secret.
pub(crate) enum Secretive {
    Plain(String),
    Secret(String),
    /// The URL of another resource, with its SAS as it is when the request leaves.
    UrlOf(Resource),
}

impl From<String> for Secretive {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl From<&str> for Secretive {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

/// A request as it leaves, but for what the endpoint adds to all of them.
pub(super) struct Outgoing {
    pub(super) method: reqwest::Method,
    /// The whole URL, SAS included.
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<Bytes>,
}

/// See the module.
pub struct Endpoint {
    resource: Resource,
    http: reqwest::Client,
    timeouts: Timeouts,
    retry: RetryPolicy,
    tokens: Option<Tokens>,
    bearer: AtomicU8,
    pace: Arc<Pace>,
    meter: Arc<Meter>,
    budget: Option<Budget>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint for `resource`.
    pub fn new(resource: Resource, client: &Client, pace: Arc<Pace>, meter: Arc<Meter>) -> Arc<Self> {
        let http = client.http(resource.is_loopback()).clone();
        let bearer = if resource.is_signed() { Bearer::None } else { Bearer::Storage };
        Arc::new(Self {
            resource,
            http,
            timeouts: client.timeouts,
            retry: client.retry,
            tokens: client.tokens.clone(),
            bearer: AtomicU8::new(bearer as u8),
            pace,
            meter,
            budget: client.budget.clone(),
        })
    }

    /// The same way to another resource of the same account.
    pub(crate) fn to(&self, resource: Resource) -> Arc<Self> {
        Arc::new(Self {
            resource,
            http: self.http.clone(),
            timeouts: self.timeouts,
            retry: self.retry,
            tokens: self.tokens.clone(),
            bearer: AtomicU8::new(self.bearer.load(Ordering::Relaxed)),
            pace: Arc::clone(&self.pace),
            meter: Arc::clone(&self.meter),
            budget: self.budget.clone(),
        })
    }

    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    pub(crate) fn retry(&self) -> Retry<'_> {
        Retry { policy: self.retry, meter: &self.meter, sas: vec![self.resource.sas().clone()] }
    }

    pub(super) fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    pub(super) fn learned(&self) -> Learned {
        self.pace.learned()
    }

    pub(super) fn waiting(&self, reason: &str, wait: Duration) -> super::meter::Waiting<'_> {
        self.meter.waiting_because(reason.to_owned(), wait)
    }

    pub(crate) fn error(&self, call: &'static str, cause: Cause) -> CallError {
        CallError::new(call, &self.resource, cause)
    }

    /// Whether this disk demands a token besides the SAS, as far as is known; remembers it when `error` says so.
    pub(crate) fn learns_to_send_token(&self, error: &CallError) -> bool {
        let Cause::Service(reply) = &error.cause else { return false };
        reply.wants_disk_token
            && self.tokens.is_some()
            && self.bearer.swap(Bearer::Disk as u8, Ordering::Relaxed) != Bearer::Disk as u8
    }

    /// Whether requests carry a token, besides the SAS or in its place.
    pub(crate) fn sends_token(&self) -> bool {
        self.bearer.load(Ordering::Relaxed) != Bearer::None as u8
    }

    /// The turn of another service that is to read `bytes` from here for us. Caps are those of what moves through this
    /// machine.
    pub(crate) async fn turn_of_another(&self, bytes: u64) -> Turn {
        if let Some(turn) = self.pace.turn_now(bytes) {
            return turn;
        }
        let _shown = self.meter.wait_for_turn();
        self.pace.turn(bytes).await
    }

    /// What became of that.
    pub(crate) fn learn_from_another<T>(&self, turn: Turn, bytes: u64, outcome: &CallResult<T>) {
        self.pace.learn_from_another(turn, bytes, outcome);
        if outcome.as_ref().is_err_and(CallError::is_refusal_of_source_for_load) {
            self.meter.refused_to_another();
        }
    }

    /// Makes one attempt and hands back a reply of success, its body unread.
    pub(crate) async fn send(&self, request: &Request) -> CallResult<reqwest::Response> {
        let turn = self.wait_for_turn(request).await;
        let outcome = self.send_in_turn(request).await;
        self.pace.learn(turn, request.moves(), &outcome);
        outcome
    }

    /// The same for a request that moves data: how long it takes, from here on, counts.
    pub(crate) async fn send_moving(&self, request: &Request) -> CallResult<(reqwest::Response, Moving<'_>)> {
        let turn = self.wait_for_turn(request).await;
        let moving = self.meter.begin_move();
        let outcome = self.send_in_turn(request).await;
        self.pace.learn(turn, request.moves(), &outcome);
        Ok((outcome?, moving))
    }

    async fn wait_for_turn(&self, request: &Request) -> Turn {
        if self.pace.is_capped() {
            let _shown = self.meter.wait_for_cap();
            self.pace.admit(request.moves()).await;
        }
        if let Some(turn) = self.pace.turn_now(request.moves()) {
            return turn;
        }
        let _shown = self.meter.wait_for_turn();
        self.pace.turn(request.moves()).await
    }

    /// First its turn, then the SAS: one that was renewed meanwhile is shown in its new form.
    async fn send_in_turn(&self, request: &Request) -> CallResult<reqwest::Response> {
        let call = request.call;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let (text, secret) = match value {
                Secretive::Plain(text) => (Cow::from(text), false),
                Secretive::Secret(text) => (Cow::from(text), true),
                Secretive::UrlOf(resource) => (Cow::from(resource.expose_url()), true),
            };
            let mut value = self.header_value(call, &text)?;
            value.set_sensitive(secret);
            headers.insert(HeaderName::from_static(name), value);
        }
        let outgoing = Outgoing {
            method: request.method.clone(),
            url: self.url(self.resource.address(), &request.query),
            headers,
            body: request.body.clone(),
        };
        let response = self.dispatch(call, outgoing).await?;
        let status = response.status();
        tracing::trace!(call, role = %self.resource.role(), status = status.as_u16(), "reply");
        if status.is_success() {
            return Ok(response);
        }
        Err(self.error(call, Cause::Service(Box::new(self.read_error(response).await))))
    }

    /// Counts a request that does not wait for its turn: a lease that is renewed too late is lost.
    pub(super) fn count_request(&self) {
        self.pace.count_request();
    }

    /// Sends one request whose turn it is, whatever the reply's status: counted, with rights, within its time.
    pub(super) async fn dispatch(
        &self,
        call: &'static str,
        outgoing: Outgoing,
    ) -> CallResult<reqwest::Response> {
        let Outgoing { method, url, mut headers, body } = outgoing;
        let length: u64 = body.iter().map(|frame| frame.len() as u64).sum();
        headers.extend(self.common_headers(call).await?);
        if method == reqwest::Method::PUT {
            headers.insert(reqwest::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut builder = self.http.request(method, url).headers(headers);
        if length > 0 {
            let stream = futures::stream::iter(body.into_iter().map(Ok::<_, std::convert::Infallible>));
            builder = builder.body(reqwest::Body::wrap_stream(stream));
        }
        self.meter.sent(length);
        let response = self.bounded(call, self.timeouts.call, builder.send()).await?;
        self.meter.answered();
        Ok(response)
    }

    /// Reads the body of a reply that must hold exactly `expected` bytes, as the frames it comes in. `look` sees each of
    /// them while it is fresh.
    pub(crate) async fn read_frames(
        &self,
        call: &'static str,
        response: reqwest::Response,
        expected: u64,
        look: &mut (dyn FnMut(&[u8]) + Send),
    ) -> CallResult<Vec<Bytes>> {
        let reading = async {
            let mut frames = Vec::new();
            let mut length = 0;
            let mut stream = response.bytes_stream();
            while let Some(frame) = self.next_frame(call, &mut stream).await? {
                length += frame.len() as u64;
                if length > expected {
                    break;
                }
                look(&frame);
                frames.push(frame);
            }
            if length == expected {
                Ok(frames)
            } else {
                let why = format!("the body has {length} bytes or more where {expected} were asked for");
                Err(self.error(call, Cause::Corrupt(why)))
            }
        };
        self.within_call(call, reading).await
    }

    /// Ends what takes longer than a call may.
    pub(super) async fn within_call<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = CallResult<T>>,
    ) -> CallResult<T> {
        let limit = self.timeouts.call;
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(self.error(call, self.too_slow(limit))))
    }

    /// The next piece of a body, or `None` at its end. Fails when none comes for the stall time.
    pub(crate) async fn next_frame(
        &self,
        call: &'static str,
        stream: &mut (impl futures::Stream<Item = reqwest::Result<Bytes>> + Unpin),
    ) -> CallResult<Option<Bytes>> {
        let next = tokio::time::timeout(self.timeouts.stall, stream.next())
            .await
            .map_err(|_| self.error(call, self.too_slow(self.timeouts.stall)))?;
        match next {
            Some(Ok(frame)) => {
                self.meter.received(frame.len() as u64);
                Ok(Some(frame))
            }
            Some(Err(error)) => Err(self.error(call, Cause::Broken(describe(error)))),
            None => Ok(None),
        }
    }

    async fn read_error(&self, response: reqwest::Response) -> ServiceReply {
        const MOST: usize = 64 << 10;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = BytesMut::new();
        let reading = async {
            let mut stream = response.bytes_stream();
            while let Ok(Some(frame)) = self.next_frame("error reply", &mut stream).await {
                body.extend_from_slice(&frame);
                if body.len() > MOST {
                    break;
                }
            }
        };
        // What came in time tells enough.
        let _ = tokio::time::timeout(self.timeouts.stall, reading).await;
        ServiceReply::parse(status, |name| headers.get(name).and_then(|value| value.to_str().ok()), &body)
    }

    /// Scheme, host and path, then the SAS as it was given, then our own parameters.
    pub(super) fn url(&self, base: &Url, own: &str) -> String {
        let sas = self.resource.sas().expose();
        let query =
            [&*sas, own].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("&");
        if query.is_empty() { base.to_string() } else { format!("{base}?{query}") }
    }

    async fn common_headers(&self, call: &'static str) -> CallResult<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-version", HeaderValue::from_static(SERVICE_VERSION));
        let id = uuid::Uuid::new_v4().to_string();
        headers.insert("x-ms-client-request-id", self.header_value(call, &id)?);
        if let Some(token) = self.bearer_header(call).await? {
            headers.insert(reqwest::header::AUTHORIZATION, token);
        }
        Ok(headers)
    }

    async fn bearer_header(&self, call: &'static str) -> CallResult<Option<HeaderValue>> {
        let kind = self.bearer.load(Ordering::Relaxed);
        if kind == Bearer::None as u8 {
            return Ok(None);
        }
        let scope = if kind == Bearer::Disk as u8 { DISK_SCOPE } else { STORAGE_SCOPE };
        if !self.resource.may_see_token() {
            let why = "a token is not sent to a host that is not Azure's; give a URL with a SAS".to_owned();
            return Err(self.error(call, Cause::Token(why)));
        }
        let Some(tokens) = &self.tokens else {
            let why = "the URL has no SAS, and no sign-in was given".to_owned();
            return Err(self.error(call, Cause::Token(why)));
        };
        let token = tokens.get(scope, self.timeouts.call).await.map_err(|none| {
            let why = if self.resource.is_signed() {
                none.why
            } else {
                format!("the URL holds no SAS (no sig=), and signing in failed: {}", none.why)
            };
            let cause = if none.had_before { Cause::TokenRefresh(why) } else { Cause::Token(why) };
            self.error(call, cause)
        })?;
        let mut value = self.header_value(call, &format!("Bearer {token}"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    pub(super) fn header_value(&self, call: &'static str, text: &str) -> CallResult<HeaderValue> {
        HeaderValue::from_str(text).map_err(|_| {
            self.error(call, Cause::Protocol("a header value holds control characters".to_owned()))
        })
    }

    async fn bounded<T>(
        &self,
        call: &'static str,
        limit: Duration,
        work: impl Future<Output = reqwest::Result<T>>,
    ) -> CallResult<T> {
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.is_connect() => Err(self.error(call, Cause::Connect(describe(error)))),
            Ok(Err(error)) => Err(self.error(call, Cause::Broken(describe(error)))),
            Err(_) => Err(self.error(call, self.too_slow(limit))),
        }
    }

    #[allow(clippy::unused_self)]
    fn too_slow(&self, limit: Duration) -> Cause {
        Cause::TooSlow(format!("it was not complete after {} s", limit.as_secs_f32()))
    }
}
