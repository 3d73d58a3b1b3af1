//! The suite while it runs over one server: how it calls, and what it makes of the answers.

use std::collections::BTreeSet;
use std::sync::Mutex;

use reqwest::{Method, Response};
use snapferry::azure::crc64::Crc64;
use snapferry::azure::failure::CallResult;
use snapferry::azure::{Against, Cause, Fence, Metadata, PageBlob, Properties, Role};
use snapferry::range::{ExtentKind, PageRange};

use crate::judges::{FAR_AWAY, account_sas, container_sas};
use crate::{AZURITE_DIFFERS, world};

pub const CONTAINER: &str = "conformance";
/// Two lease ids.
pub const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
pub const B: &str = "bbbbbbbb-0000-4000-8000-000000000002";

/// The time of no snapshot.
pub const NEVER: &str = "2020-01-01T00:00:00.0000000Z";

pub struct Suite {
    /// `http://127.0.0.1:PORT/account`.
    pub account: String,
    is_azurite: bool,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    checks: BTreeSet<&'static str>,
    wrong: usize,
}

impl Suite {
    pub fn new(account: String, is_azurite: bool) -> Self {
        Self { account, is_azurite, heard: Mutex::default() }
    }

    /// Notes what the server did in `check`, where Azure does `azure`.
    pub fn check(&self, check: &'static str, azure: &str, server: impl AsRef<str>) {
        let server = server.as_ref();
        let mut heard = self.heard.lock().unwrap();
        assert!(heard.checks.insert(check), "two checks are called '{check}'");
        let rows = AZURITE_DIFFERS.iter().filter(|_| self.is_azurite);
        let row = rows.flat_map(|row| row.checks.iter().map(move |named| (row, named)));
        let row = row.into_iter().find(|(_, (named, _))| *named == check);
        // At once and not at the end: a later check may need what this one did not get.
        match row {
            None if server == azure => return,
            None => eprintln!("{check}: '{server}', where Azure does '{azure}'"),
            Some((_, (_, azurite))) if server == *azurite && server != azure => return,
            Some((row, (_, azurite))) => eprintln!(
                "{check}: '{server}', where Azure does '{azure}' ({}) and Azurite did '{azurite}' ({}): the table \
                 is out of date",
                row.source, row.accepted
            ),
        }
        heard.wrong += 1;
    }

    /// Fails if a check did, or if the table names one that there is not.
    pub fn assert_all_right(&self) {
        let heard = self.heard.lock().unwrap();
        let (wrong, all) = (heard.wrong, heard.checks.len());
        assert!(wrong == 0, "{wrong} of {all} checks went wrong, see above");
        for (check, _) in AZURITE_DIFFERS.iter().flat_map(|row| row.checks) {
            assert!(heard.checks.contains(check), "the table names no check: '{check}'");
        }
    }

    /// The URL of a blob with a SAS of its container.
    pub fn url(&self, blob: &str, permissions: &str) -> String {
        format!("{}/{CONTAINER}/{blob}?{}", self.account, container_sas(CONTAINER, permissions, FAR_AWAY))
    }

    /// The URL of a blob with a SAS of the account.
    pub fn account_url(&self, blob: &str) -> String {
        format!("{}/{CONTAINER}/{blob}?{}", self.account, account_sas("rcwdl", FAR_AWAY))
    }

    pub fn blob(&self, name: &str) -> PageBlob {
        connect(&self.url(name, "rcwdl"))
    }

    /// A snapshot of a blob, by a SAS that all servers take for it.
    pub fn snapshot(&self, blob: &str, time: &str) -> PageBlob {
        connect(&format!("{}&snapshot={time}", self.account_url(blob)))
    }

    /// A blob of `length` bytes under the lease `A`, and what is needed to write to it.
    pub async fn leased(&self, name: &str, length: u64) -> (PageBlob, Fence) {
        let blob = self.blob(name);
        blob.create(length, 1, &Metadata::new()).await.unwrap();
        blob.acquire_lease(Some(A), 60).await.unwrap();
        (blob, fence(A, 1))
    }

    /// A call that the client does not have; `own` are further parameters of its query.
    pub async fn raw(
        &self,
        method: Method,
        blob: &str,
        own: &str,
        headers: Headers<'_>,
        body: Vec<u8>,
    ) -> Response {
        world::raw(method, &format!("{}{own}", self.url(blob, "rcwdl")), headers, body).await
    }

    /// Put Page of `bytes` at the blob's start, unless `headers` say another range.
    pub async fn put(&self, blob: &str, headers: Headers<'_>, bytes: Vec<u8>) -> Response {
        let range = format!("bytes=0-{}", bytes.len() - 1);
        let mut all = vec![("x-ms-page-write", "update"), ("x-ms-range", &range)];
        all.retain(|(name, _)| headers.iter().all(|(given, _)| given != name));
        all.extend(headers);
        self.raw(Method::PUT, blob, "&comp=page", &all, bytes).await
    }
}

pub fn connect(url: &str) -> PageBlob {
    PageBlob::connect(world::url(Role::Target, url), &world::client()).unwrap()
}

pub type Headers<'a> = &'a [(&'static str, &'a str)];

/// What became of a call, in a few words.
pub fn said<T>(result: CallResult<T>) -> String {
    match result.map_err(|error| error.cause) {
        Ok(_) => "done".to_owned(),
        Err(Cause::Service(reply)) => format!("{} {}", reply.status, reply.code).trim_end().to_owned(),
        Err(Cause::Corrupt(_)) => "corrupt".to_owned(),
        Err(other) => other.to_string(),
    }
}

pub fn answered(response: &Response) -> String {
    let status = response.status().as_u16();
    match header(response, "x-ms-error-code") {
        "" => status.to_string(),
        code => format!("{status} {code}"),
    }
}

pub fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub fn described(properties: &Properties) -> String {
    let Properties { length, blob_type, sequence_number, lease_state, metadata, .. } = properties;
    format!("{length} bytes of {blob_type}, number {sequence_number}, {lease_state}, {metadata:?}")
}

pub fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end).unwrap()
}

pub fn fence(lease_id: &str, generation: u64) -> Fence {
    Fence { lease_id: lease_id.to_owned(), generation }
}

pub fn changed(before: &Properties, after: &Properties) -> &'static str {
    if before.etag == after.etag { "same ETag" } else { "other ETag" }
}

pub async fn put(blob: &PageBlob, start: u64, bytes: &[u8], fence: &Fence) -> String {
    let range = range(start, start + bytes.len() as u64);
    said(blob.put_pages(range, vec![bytes.to_vec().into()], Crc64::of(bytes), fence).await)
}

/// Whether `blob` holds `expected`, and nothing else.
pub async fn holds(blob: &PageBlob, expected: &[u8]) -> String {
    let length = blob.properties().await.unwrap().length;
    let bytes = blob.read(range(0, length)).await.unwrap().concat();
    if bytes.len() != expected.len() {
        return format!("{} bytes instead of {}", bytes.len(), expected.len());
    }
    match bytes.iter().zip(expected).position(|(one, other)| one != other) {
        None => "as expected".to_owned(),
        Some(at) => format!("differs at {at}"),
    }
}

/// The ranges of a page list.
pub async fn listed(blob: &PageBlob, window: PageRange, against: &Against) -> String {
    let mut list = match blob.page_list_once(window, against, None).await {
        Ok(list) => list,
        Err(error) => return said::<()>(Err(error)),
    };
    let mut ranges = Vec::new();
    while let Some(extent) = list.next().await.unwrap() {
        let kind = if extent.kind == ExtentKind::Clear { "clear " } else { "" };
        ranges.push(format!("{kind}{}", extent.range));
    }
    ranges.join(" ")
}
