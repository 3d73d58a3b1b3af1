//! An error reply of the service: its status, its headers and its XML body, read leniently (it may come from a
//! proxy) and scrubbed of signatures and tokens.

use std::time::Duration;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::failure::Class;

/// What the challenge of a disk names that demands a token besides its SAS.
const DISK_AUDIENCE: &str = "https://disk.azure.com/";

/// An error reply of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceReply {
    /// HTTP status.
    pub status: u16,
    /// `x-ms-error-code`, or the `Code` of the body; empty when there is neither.
    pub code: String,
    /// The service's message, without its request id and time lines, scrubbed of signatures.
    pub message: String,
    /// `AuthenticationErrorDetail`, scrubbed.
    pub detail: String,
    /// `x-ms-request-id`, for a support case.
    pub request_id: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// `x-ms-copy-source-error-code`: the code that the *source* of a server-side copy answered.
    pub copy_source_code: Option<String>,
    /// Whether `WWW-Authenticate` asks for a token of the disk service besides the SAS.
    pub wants_disk_token: bool,
}

impl ServiceReply {
    /// Whether it is the *source* of a server-side copy that was refused, or did not answer.
    pub fn is_of_copy_source(&self) -> bool {
        self.code == "CannotVerifyCopySource" || self.copy_source_code.is_some()
    }

    /// Whether the source of a server-side copy has too much to do.
    pub fn is_refusal_of_source_for_load(&self) -> bool {
        let told = self.copy_source_code.as_deref();
        self.is_of_copy_source()
            && (matches!(self.status, 429 | 503) || matches!(told, Some("ServerBusy" | "OperationTimedOut")))
    }

    /// Whether the service says that it has too much to do. What it says of the source of a copy is not of itself.
    pub fn is_refusal_for_load(&self) -> bool {
        let is_load = self.status == 503 || self.status == 429 || self.code == "OperationTimedOut";
        is_load && !self.is_of_copy_source()
    }

    pub(super) fn class(&self) -> Class {
        if self.copy_source_code.as_deref().is_some_and(is_passing_code) {
            return Class::Passes;
        }
        match self.status {
            408 | 429 | 500 | 502 | 503 | 504 => Class::Passes,
            // 3xx and 407 come from a proxy or a portal on the way.
            300..=399 | 401 | 403 | 404 | 407 | 409 | 412 => Class::NeedsUser,
            400 if self.code == "MetadataTooLarge" => Class::NeedsUser,
            _ => Class::Bug,
        }
    }

    /// Builds the reply from its status, its headers and the start of its body (a HEAD has none).
    pub fn parse<'h>(status: u16, header: impl Fn(&str) -> Option<&'h str>, body: &[u8]) -> Self {
        let text = |name: &str| header(name).map(scrub).unwrap_or_default();
        let mut reply = Self {
            status,
            code: text("x-ms-error-code"),
            request_id: text("x-ms-request-id"),
            retry_after: header("retry-after").and_then(parse_retry_after),
            copy_source_code: header("x-ms-copy-source-error-code").map(scrub),
            wants_disk_token: header("www-authenticate").is_some_and(|asked| asked.contains(DISK_AUDIENCE)),
            ..Self::default()
        };
        for (name, value) in error_elements(body) {
            match name.as_str() {
                "Code" if reply.code.is_empty() => reply.code = value,
                "Message" => reply.message = first_line(&value),
                "AuthenticationErrorDetail" => reply.detail = first_line(&value),
                "CopySourceErrorCode" => reply.copy_source_code = Some(value),
                _ => {}
            }
        }
        reply
    }

    /// The same for a reply of Azure Resource Manager, whose body is JSON: `{"error": {"code", "message"}}`, or the
    /// inner part alone.
    pub fn parse_json<'h>(
        status: u16,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &serde_json::Value,
    ) -> Self {
        let inner = body.get("error").unwrap_or(body);
        let text =
            |name: &str| scrub(inner.get(name).and_then(serde_json::Value::as_str).unwrap_or_default());
        Self {
            status,
            code: text("code"),
            message: first_line(&text("message")),
            request_id: header("x-ms-request-id").map(scrub).unwrap_or_default(),
            retry_after: header("retry-after").and_then(parse_retry_after),
            ..Self::default()
        }
    }
}

fn is_passing_code(code: &str) -> bool {
    matches!(code, "OperationTimedOut" | "InternalError" | "ServerBusy")
}

/// The child elements of `<Error>` with their scrubbed texts. Anything that is not such a document gives none:
/// an error reply may come from a proxy.
pub fn error_elements(body: &[u8]) -> Vec<(String, String)> {
    const MOST: usize = 32;
    let mut reader = Reader::from_reader(body);
    let mut buffer = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let mut text = String::new();
    while found.len() < MOST {
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Start(start)) => {
                open.push(start.name().as_ref().to_owned());
                text.clear();
            }
            Ok(Event::Text(part)) => text.push_str(&part),
            Ok(Event::GeneralRef(name)) => text.push_str(resolve_reference(&name)),
            Ok(Event::End(_)) => {
                if let (2, Some("Error"), Some(name)) =
                    (open.len(), open.first().map(String::as_str), open.last())
                {
                    found.push((name.clone(), scrub(&text)));
                }
                open.pop();
                text.clear();
            }
            Ok(Event::Eof) | Err(_) => break,
            Ok(_) => {}
        }
        buffer.clear();
    }
    found
}

fn resolve_reference(name: &str) -> &'static str {
    match name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        _ => " ",
    }
}

/// Seconds, or an HTTP date that is turned into a time from now.
pub(super) fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    let wait = date.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// The service appends "RequestId:…\nTime:…" to its messages; the id is kept elsewhere.
fn first_line(text: &str) -> String {
    const MOST: usize = 400;
    text.lines().next().unwrap_or_default().chars().take(MOST).collect()
}

/// Blots out signatures and tokens in a text that came from outside.
pub fn scrub(text: &str) -> String {
    // The name of a stored policy (si) is no key, but it names a grant: nobody needs it in a log.
    const MARKS: [&str; 8] =
        ["sig=", "sig%3d", "sig%253d", "&si=", "?si=", "bearer ", "sharedkey ", "accountkey="];
    let lower = text.to_ascii_lowercase();
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let next = MARKS
            .iter()
            .filter_map(|mark| lower[at..].find(mark).map(|found| (at + found, mark.len())))
            .min();
        let Some((start, length)) = next else { break };
        let secret = start + length;
        clean.push_str(&text[at..secret]);
        clean.push_str("REDACTED");
        at = lower[secret..]
            .find(|c: char| c == '&' || c == '"' || c == '\'' || c == '<' || c == '>' || c.is_whitespace())
            .map_or(text.len(), |end| secret + end);
    }
    clean.push_str(&text[at..]);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request. Make sure.\nRequestId:601a3ee1\nTime:2021-08-05T20:15:52Z</Message><AuthenticationErrorDetail>Signature did not match. String to sign used was r &amp; w sig=abc%2F&amp;x</AuthenticationErrorDetail></Error>";

    #[test]
    fn an_error_body_is_read_with_its_mark_and_scrubbed() {
        let reply = ServiceReply::parse(403, |_| None, BODY.as_bytes());
        assert_eq!(reply.code, "AuthenticationFailed");
        assert_eq!(reply.message, "Server failed to authenticate the request. Make sure.");
        assert_eq!(reply.detail, "Signature did not match. String to sign used was r & w sig=REDACTED&x");
    }

    #[test]
    fn a_head_error_has_only_headers() {
        let reply =
            ServiceReply::parse(404, |name| (name == "x-ms-error-code").then_some("BlobNotFound"), b"");
        assert_eq!((reply.code.as_str(), reply.message.as_str()), ("BlobNotFound", ""));
    }

    #[test]
    fn signatures_and_tokens_are_blotted_out() {
        for (dirty, secret) in [
            ("https://h/c/b?sv=1&sig=abc%2Bdef%3D&se=2", "abc"),
            ("source https%3A%2F%2Fh%3Fsig%3Dabcdef rest", "abcdef"),
            ("Authorization: Bearer eyJhbGciOi.x.y rest", "eyJ"),
            ("SIG=UPPER", "UPPER"),
            ("é sig=ü&é", "ü"),
        ] {
            let clean = scrub(dirty);
            assert!(!clean.contains(secret) && clean.contains("REDACTED"), "{clean}");
        }
        assert_eq!(scrub("nothing here"), "nothing here");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon"), None);
    }

    #[test]
    fn throttling_passes_and_refusals_need_the_user() {
        let class = |status, code: &str| {
            ServiceReply { status, code: code.to_owned(), ..ServiceReply::default() }.class()
        };
        assert_eq!(class(503, "ServerBusy"), Class::Passes);
        assert_eq!(class(500, "OperationTimedOut"), Class::Passes);
        assert_eq!(class(403, "AuthenticationFailed"), Class::NeedsUser);
        assert_eq!(class(412, "LeaseLost"), Class::NeedsUser);
        assert_eq!(class(400, "InvalidHeaderValue"), Class::Bug);
        assert_eq!(class(416, "InvalidRange"), Class::Bug);
    }
}
