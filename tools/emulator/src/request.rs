//! A request's head, read once: what it addresses, which call it is, and typed access to its parameters and headers.

use std::collections::BTreeMap;

use crate::arm::Route;
use crate::call::{Call, Role};
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::range::ByteRange;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Method, Uri};
use percent_encoding::percent_decode_str;

/// The longest `x-ms-client-request-id` that is echoed.
const CLIENT_ID_LIMIT: usize = 1024;

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) call: Call,
    pub(crate) role: Role,
    /// Of a management request: no account, the resource group, the resource's name.
    pub(crate) target: Target,
    /// What a management request addresses.
    pub(crate) route: Option<Route>,
    /// As received.
    pub(crate) path_and_query: String,
    /// Decoded, names in lower case. A parameter given twice has both values, joined by a comma: it then fits no
    /// signature, which is what happens to such requests.
    query: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
}

/// What a path addresses, decoded. An absent name is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) account: String,
    pub(crate) container: String,
    pub(crate) blob: String,
}

impl Target {
    /// Reads `/account/container/blob/with/slashes`.
    pub(crate) fn parse(path: &str) -> Outcome<Target> {
        let mut names = path.strip_prefix('/').unwrap_or(path).splitn(3, '/');
        let mut next_name = || decode(names.next().unwrap_or_default());
        let target = Target { account: next_name()?, container: next_name()?, blob: next_name()? };
        if target.account.is_empty() || (target.container.is_empty() && !target.blob.is_empty()) {
            return Err(ErrorCode::InvalidUri.into());
        }
        Ok(target)
    }
}

impl Request {
    pub(crate) fn parse(parts: Parts) -> Outcome<Request> {
        let query = parse_query(&parts.uri);
        let path_and_query = path_and_query(&parts.uri).to_owned();
        let role = Role::of_path(parts.uri.path());
        let (target, call, route) = if role == Role::Management {
            let route = Route::parse(&parts.method, parts.uri.path())?;
            (route.target(), route.call, Some(route))
        } else {
            let target = Target::parse(parts.uri.path())?;
            let call = classify(&parts.method, &target, &query, &parts.headers);
            (target, call, None)
        };
        let Parts { method, headers, .. } = parts;
        Ok(Request { method, call, role, target, route, path_and_query, query, headers })
    }

    /// A query parameter, if it is there; it may be empty.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// All query parameters, decoded, in the order of their names.
    pub(crate) fn query(&self) -> &BTreeMap<String, String> {
        &self.query
    }

    /// The snapshot that the request addresses, if it is not the blob itself.
    pub(crate) fn snapshot(&self) -> Outcome<Option<Moment>> {
        self.time_param("snapshot")
    }

    /// A query parameter that names a snapshot.
    pub(crate) fn time_param(&self, name: &str) -> Outcome<Option<Moment>> {
        let Some(text) = self.param(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let reason = "The value is not a snapshot's time.";
        Moment::from_iso(text).map(Some).ok_or_else(|| Failure::bad_parameter(name, text, reason))
    }

    /// A header's value, without the blanks around it. An empty header counts as absent.
    pub(crate) fn header(&self, name: &str) -> Outcome<Option<&str>> {
        let Some(value) = self.headers.get(name) else { return Ok(None) };
        let text = value.to_str().map_err(|_| Failure::bad_header(name, "not ASCII"))?.trim();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    pub(crate) fn required_header(&self, name: &str) -> Outcome<&str> {
        self.header(name)?.ok_or_else(|| Failure::missing_header(name))
    }

    /// A header that holds a number from 0 to 2^63-1.
    pub(crate) fn number_header(&self, name: &str) -> Outcome<Option<u64>> {
        let Some(text) = self.header(name)? else { return Ok(None) };
        let number = text.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
        number.map(Some).ok_or_else(|| Failure::bad_header(name, text))
    }

    /// A header that holds `true` or `false`; absent is `false`.
    pub(crate) fn flag_header(&self, name: &str) -> Outcome<bool> {
        match self.header(name)? {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(Failure::bad_header(name, text)),
        }
    }

    /// The range asked for: `x-ms-range` wins over `Range`.
    pub(crate) fn range(&self) -> Outcome<Option<ByteRange>> {
        for name in ["x-ms-range", "range"] {
            if let Some(text) = self.header(name)? {
                return ByteRange::parse(text).map(Some).ok_or_else(|| Failure::bad_header(name, text));
            }
        }
        Ok(None)
    }

    pub(crate) fn content_length(&self) -> Outcome<Option<u64>> {
        self.number_header("content-length")
    }

    /// The service version that the request asks for: its header, or the one that its SAS was made for.
    pub(crate) fn version(&self) -> Outcome<Option<&str>> {
        let Some(version) = self.header("x-ms-version")? else { return Ok(self.param("sv")) };
        let shape = version.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
        if !shape.eq(*b"0000-00-00") {
            return Err(Failure::bad_header("x-ms-version", version));
        }
        Ok(Some(version))
    }

    /// Whether the version asked for is at least `needed`; versions are dates and compare as text.
    pub(crate) fn version_is_at_least(&self, needed: &str) -> Outcome<bool> {
        Ok(self.version()?.is_some_and(|version| version >= needed))
    }

    pub(crate) fn client_id(&self) -> Option<&str> {
        let text = self.headers.get("x-ms-client-request-id")?.to_str().ok()?;
        Some(text).filter(|text| text.len() <= CLIENT_ID_LIMIT)
    }

    /// Headers that change what a call means and that the emulator does not know: ignoring them would be a lie.
    pub(crate) fn refuse_unserved_headers(&self) -> Outcome<()> {
        let unserved = [
            "x-ms-if-tags",
            "x-ms-tags",
            "x-ms-structured-body",
            "x-ms-encryption-key",
            "x-ms-encryption-scope",
            "x-ms-source-if-tags",
            "x-ms-source-lease-id",
            "x-ms-source-encryption-key",
        ];
        match unserved.into_iter().find(|name| self.headers.contains_key(*name)) {
            Some(name) => Err(Failure::unsupported_header(name)),
            None => Ok(()),
        }
    }
}

pub(crate) fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path_and_query| path_and_query.as_str())
}

/// The parameters of a query, decoded; see `Request::query`.
pub(crate) fn parse_query(uri: &Uri) -> BTreeMap<String, String> {
    let mut query: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let name = name.to_ascii_lowercase();
        match query.get_mut(&name) {
            Some(earlier) => {
                earlier.push(',');
                earlier.push_str(&value);
            }
            None => {
                query.insert(name, value.into_owned());
            }
        }
    }
    query
}

fn classify(method: &Method, target: &Target, query: &BTreeMap<String, String>, headers: &HeaderMap) -> Call {
    let param = |name: &str| query.get(name).map_or("", String::as_str);
    let comp = param("comp");
    if target.container.is_empty() {
        return match (method.as_str(), comp) {
            ("GET", "list") => Call::ListContainers,
            _ => Call::Unsupported,
        };
    }
    if target.blob.is_empty() {
        return match (method.as_str(), param("restype"), comp) {
            ("GET", "container", "list") => Call::ListBlobs,
            ("PUT", "container", "") => Call::CreateContainer,
            ("GET" | "HEAD", "container", "") => Call::ContainerProperties,
            ("DELETE", "container", "") => Call::DeleteContainer,
            _ => Call::Unsupported,
        };
    }
    let has = |name: &str| headers.contains_key(name);
    match (method.as_str(), comp) {
        ("GET", "") => Call::GetBlob,
        ("HEAD", "") => Call::HeadBlob,
        ("DELETE", "") => Call::DeleteBlob,
        ("PUT", "") if has("x-ms-copy-source") => Call::CopyBlob,
        ("PUT", "") => Call::PutBlob,
        ("PUT", "page") if has("x-ms-copy-source") => Call::PutPageFromUrl,
        ("PUT", "page") => {
            let clears = headers.get("x-ms-page-write").is_some_and(|write| write.as_bytes() == b"clear");
            if clears { Call::ClearPages } else { Call::PutPage }
        }
        ("PUT", "block") => Call::PutBlock,
        ("PUT", "blocklist") => Call::PutBlockList,
        ("GET", "blocklist") => Call::GetBlockList,
        ("GET", "pagelist") => {
            let compares = query.contains_key("prevsnapshot") || has("x-ms-previous-snapshot-url");
            if compares { Call::PageRangesDiff } else { Call::PageRanges }
        }
        ("PUT", "properties") => Call::SetProperties,
        ("PUT", "metadata") => Call::SetMetadata,
        ("PUT", "snapshot") => Call::SnapshotBlob,
        ("PUT", "copy") => Call::AbortCopy,
        ("PUT", "lease") => Call::Lease,
        ("PUT", "incrementalcopy") => Call::IncrementalCopy,
        _ => Call::Unsupported,
    }
}

/// Decodes a part of a path.
pub(crate) fn decode(text: &str) -> Outcome<String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| Failure::from(ErrorCode::InvalidUri))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut builder = hyper::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        Request::parse(builder.body(()).unwrap().into_parts().0).unwrap()
    }

    #[test]
    fn names_are_decoded_and_a_blob_may_hold_slashes() {
        let target = Target::parse("/acc/box/a%20b/c%2Fd").unwrap();
        assert_eq!(target, Target { account: "acc".into(), container: "box".into(), blob: "a b/c/d".into() });
        assert!(Target::parse("/").is_err());
        assert!(Target::parse("/acc//blob").is_err());
        assert!(Target::parse("/acc/box/%FF").is_err());
    }

    /// Method, URI, headers, and the call that they make.
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Call);

    #[test]
    fn calls_are_told_apart() {
        let cases: [Case<'_>; 15] = [
            ("PUT", "/a/c?restype=container", &[], Call::CreateContainer),
            ("GET", "/a/c?restype=container&comp=list", &[], Call::ListBlobs),
            ("PUT", "/a/c/b", &[], Call::PutBlob),
            ("PUT", "/a/c/b", &[("x-ms-copy-source", "http://h/a/c/s")], Call::CopyBlob),
            ("PUT", "/a/c/b?comp=page", &[("x-ms-page-write", "update")], Call::PutPage),
            ("PUT", "/a/c/b?comp=page", &[("x-ms-page-write", "clear")], Call::ClearPages),
            ("PUT", "/a/c/b?comp=page", &[("x-ms-copy-source", "http://h/a/c/s")], Call::PutPageFromUrl),
            ("GET", "/a/c/b?comp=pagelist", &[], Call::PageRanges),
            ("GET", "/a/c/b?comp=pagelist&prevsnapshot=x", &[], Call::PageRangesDiff),
            ("GET", "/md-a/c/b?comp=pagelist", &[("x-ms-previous-snapshot-url", "x")], Call::PageRangesDiff),
            ("PUT", "/a/c/b?comp=block&blockid=AA%3D%3D", &[], Call::PutBlock),
            ("PUT", "/a/c/b?comp=blocklist", &[], Call::PutBlockList),
            ("GET", "/a/c/b?comp=blocklist", &[], Call::GetBlockList),
            ("POST", "/a/c/b", &[], Call::Unsupported),
            ("GET", "/a/c/b?comp=tags", &[], Call::Unsupported),
        ];
        for (method, uri, headers, call) in cases {
            assert_eq!(request(method, uri, headers).call, call, "{method} {uri}");
        }
    }

    #[test]
    fn a_repeated_parameter_keeps_both_values() {
        let request = request("GET", "/md-a/c/abcd?snapshot=2&sig=a%2Bb&SNAPSHOT=1", &[]);
        assert_eq!(request.param("snapshot"), Some("2,1"));
        assert_eq!(request.param("sig"), Some("a+b"));
        assert!(request.snapshot().is_err());
    }

    #[test]
    fn x_ms_range_wins_over_range() {
        let headers = [("range", "bytes=0-511"), ("x-ms-range", "bytes=512-1023")];
        let range = request("GET", "/a/c/b", &headers).range().unwrap().unwrap();
        assert_eq!(range.within(4096), Some(512..1024));
    }

    #[test]
    fn a_version_is_a_date() {
        assert!(
            request("GET", "/a/c/b", &[("x-ms-version", "2021-12-02")])
                .version_is_at_least("2020-10-02")
                .unwrap()
        );
        assert!(!request("GET", "/a/c/b?sv=2018-11-09", &[]).version_is_at_least("2019-07-07").unwrap());
        assert!(request("GET", "/a/c/b", &[("x-ms-version", "new")]).version().is_err());
    }
}
