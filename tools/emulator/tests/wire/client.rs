//! A client without opinions: it sends what it is told, and shows what came back.

use std::ops::Range;
use std::time::Duration;

use reqwest::Method;
use snapferry_emulator::{Account, Config, Emulator, Knobs};

pub(crate) const VERSION: &str = "2021-12-02";
pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Status and error code.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        (self.status, self.header("x-ms-error-code").unwrap_or_default())
    }

    pub(crate) fn etag(&self) -> String {
        self.header("etag").unwrap().to_owned()
    }
}

pub(crate) async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
    if !headers.iter().any(|(name, _)| *name == "x-ms-version") {
        request = request.header("x-ms-version", VERSION);
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    if method == "PUT" {
        request = request.header("content-length", body.len());
    }
    let response = request.body(body).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

pub(crate) async fn put(url: &str, headers: &[(&str, &str)]) -> Answer {
    send("PUT", url, headers, Vec::new()).await
}

pub(crate) async fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    send("GET", url, headers, Vec::new()).await
}

/// `url` with more parameters; it has some already.
pub(crate) fn and(url: &str, parameters: &str) -> String {
    format!("{url}&{parameters}")
}

/// An emulator with an account, a container and the URL of a page blob there.
pub(crate) struct Fixture {
    pub(crate) emulator: Emulator,
    pub(crate) account: Account,
    pub(crate) url: String,
}

pub(crate) const CONTAINER: &str = "box";
pub(crate) const BLOB: &str = "disk";

impl Fixture {
    /// Without the blob.
    pub(crate) async fn empty() -> Fixture {
        let emulator = Emulator::start(Config { record: true, ..Config::default() }).await.unwrap();
        let account = emulator.account("target");
        account.create_container(CONTAINER);
        let url = account.container_sas(CONTAINER, BLOB, "racwdl", HOUR);
        Fixture { emulator, account, url }
    }

    /// With a page blob of `length` bytes.
    pub(crate) async fn with_blob(length: u64) -> Fixture {
        let fixture = Fixture::empty().await;
        let headers = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", &length.to_string())];
        assert_eq!(put(&fixture.url, &headers).await.status, 201);
        fixture
    }

    pub(crate) async fn write(&self, range: Range<u64>, byte: u8) -> Answer {
        self.write_if(range, byte, &[]).await
    }

    /// Writes with additional headers.
    pub(crate) async fn write_if(&self, range: Range<u64>, byte: u8, headers: &[(&str, &str)]) -> Answer {
        let text = range_text(&range);
        let mut all = vec![("x-ms-page-write", "update"), ("x-ms-range", text.as_str())];
        all.extend_from_slice(headers);
        let body = vec![byte; usize::try_from(range.end - range.start).unwrap()];
        send("PUT", &and(&self.url, "comp=page"), &all, body).await
    }

    pub(crate) async fn clear(&self, range: Range<u64>) -> Answer {
        let text = range_text(&range);
        put(&and(&self.url, "comp=page"), &[("x-ms-page-write", "clear"), ("x-ms-range", &text)]).await
    }

    /// Takes a snapshot, and returns its time as a query parameter's value.
    pub(crate) async fn snapshot(&self) -> String {
        let answer = put(&and(&self.url, "comp=snapshot"), &[]).await;
        assert_eq!(answer.status, 201);
        answer.header("x-ms-snapshot").unwrap().replace(':', "%3A")
    }

    pub(crate) fn set(&self, knobs: Knobs) {
        self.emulator.set_knobs(knobs);
    }
}

pub(crate) fn range_text(range: &Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end - 1)
}

/// The elements of a page list in the order in which they came: `+` for data, `-` for clear.
pub(crate) fn elements(answer: &Answer) -> Vec<(char, Range<u64>)> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let start = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList>";
    let mut rest = text.strip_prefix(start).expect("mark, declaration, newline");
    let mut elements = Vec::new();
    while !rest.starts_with("<NextMarker>") && !rest.starts_with("</PageList>") {
        let kind = if rest.starts_with("<PageRange>") { '+' } else { '-' };
        let number = |tag: &str| -> u64 {
            let (_, after) = rest.split_once(&format!("<{tag}>")).unwrap();
            after.split_once('<').unwrap().0.parse().unwrap()
        };
        elements.push((kind, number("Start")..number("End") + 1));
        rest = rest.split_once("Range>").unwrap().1.split_once("Range>").unwrap().1;
    }
    elements
}

pub(crate) fn next_marker(answer: &Answer) -> Option<String> {
    let (_, after) = answer.text().split_once("<NextMarker>")?;
    Some(after.split_once('<')?.0.to_owned())
}
