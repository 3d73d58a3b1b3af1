//! `If-*` headers: which combinations are allowed, and whether a version of a blob meets them.

use crate::clock::Moment;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::request::Request;

/// What stands before the names of conditions that are about a copy's source.
pub(crate) const SOURCE_PREFIX: &str = "x-ms-source-";

/// Why conditions are asked: an unmet one is answered differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Unmet `If-None-Match` and `If-Modified-Since` mean 304, the others 412.
    Read,
    /// All mean 412.
    Write,
}

/// What conditions look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators {
    pub(crate) etag: Moment,
    pub(crate) last_modified: Moment,
}

/// The conditions of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    match_etag: Option<String>,
    none_match_etag: Option<String>,
    modified_since: Option<Moment>,
    unmodified_since: Option<Moment>,
}

impl Conditions {
    /// Reads the conditions and refuses combinations that the service refuses.
    pub(crate) fn of(request: &Request) -> Outcome<Conditions> {
        Conditions::read(request, "")
    }

    /// The same for the conditions that a copy puts on its source.
    pub(crate) fn of_source(request: &Request) -> Outcome<Conditions> {
        Conditions::read(request, SOURCE_PREFIX)
    }

    fn read(request: &Request, prefix: &str) -> Outcome<Conditions> {
        let text = |name| request.header(&format!("{prefix}{name}"));
        let etag = |name| text(name).map(|text| text.map(str::to_owned));
        let time = |name| match text(name)? {
            None => Ok(None),
            Some(text) => {
                let bad = || Failure::bad_header(&format!("{prefix}{name}"), text);
                Moment::from_http(text).map(Some).ok_or_else(bad)
            }
        };
        let conditions = Conditions {
            match_etag: etag("if-match")?,
            none_match_etag: etag("if-none-match")?,
            modified_since: time("if-modified-since")?,
            unmodified_since: time("if-unmodified-since")?,
        };
        let wants_same = conditions.match_etag.is_some() || conditions.unmodified_since.is_some();
        let wants_other = conditions.none_match_etag.is_some() || conditions.modified_since.is_some();
        if wants_same && wants_other {
            return Err(ErrorCode::MultipleConditionHeadersNotSupported.into());
        }
        Ok(conditions)
    }

    /// Whether there are any.
    pub(crate) fn is_some(&self) -> bool {
        let Conditions { match_etag, none_match_etag, modified_since, unmodified_since } = self;
        match_etag.is_some()
            || none_match_etag.is_some()
            || modified_since.is_some()
            || unmodified_since.is_some()
    }

    /// Whether the request is to create something and to leave alone what is there.
    pub(crate) fn only_if_absent(&self) -> bool {
        self.none_match_etag.as_deref() == Some("*")
    }

    /// Checks the conditions against a blob; `None` is a blob that does not exist, which only a write can address.
    ///
    /// Of an allowed pair the ETag decides, and the time is not looked at.
    pub(crate) fn check(&self, purpose: Purpose, blob: Option<Validators>) -> Outcome<()> {
        let unmet_same = match (&self.match_etag, self.unmodified_since, blob) {
            (None, None, _) => false,
            (Some(_), _, None) | (None, Some(_), None) => true,
            (Some(etag), _, Some(blob)) => !matches(etag, blob.etag),
            (None, Some(time), Some(blob)) => blob.last_modified.seconds() > time.seconds(),
        };
        if unmet_same {
            return Err(ErrorCode::ConditionNotMet.into());
        }
        let unmet_other = match (&self.none_match_etag, self.modified_since, blob) {
            (None, None, _) | (_, _, None) => false,
            (Some(etag), _, Some(blob)) => matches(etag, blob.etag),
            (None, Some(time), Some(blob)) => blob.last_modified.seconds() <= time.seconds(),
        };
        if unmet_other {
            return Err(match purpose {
                Purpose::Read => Failure::not_modified(),
                Purpose::Write => ErrorCode::ConditionNotMet.into(),
            });
        }
        Ok(())
    }
}

fn matches(given: &str, etag: Moment) -> bool {
    given == "*" || given.trim_matches('"') == etag.etag_text()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LAST_MODIFIED: &str = "Fri, 27 Jan 2023 22:27:23 GMT";
    const BEFORE: &str = "Fri, 27 Jan 2023 22:27:22 GMT";

    fn blob() -> Validators {
        let time = Moment::from_iso("2023-01-27T22:27:23.4547704Z").unwrap();
        Validators { etag: time, last_modified: time }
    }

    fn status(headers: &[(&str, &str)], purpose: Purpose, blob: Option<Validators>) -> u16 {
        let mut builder = hyper::Request::builder().uri("/a/c/b");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = Request::parse(builder.body(()).unwrap().into_parts().0).unwrap();
        match Conditions::of(&request).and_then(|conditions| conditions.check(purpose, blob)) {
            Ok(()) => 200,
            Err(failure) => failure.status.as_u16(),
        }
    }

    #[test]
    fn each_condition_alone() {
        let etag = format!("\"{}\"", blob().etag.etag_text());
        let cases: [(&str, &str, u16, u16); 12] = [
            ("if-match", &etag, 200, 200),
            ("if-match", "*", 200, 200),
            ("if-match", "\"0x1\"", 412, 412),
            ("if-none-match", &etag, 304, 412),
            ("if-none-match", "*", 304, 412),
            ("if-none-match", "\"0x1\"", 200, 200),
            ("if-modified-since", BEFORE, 200, 200),
            ("if-modified-since", LAST_MODIFIED, 304, 412),
            ("if-unmodified-since", BEFORE, 412, 412),
            ("if-unmodified-since", LAST_MODIFIED, 200, 200),
            ("if-modified-since", "yesterday", 400, 400),
            ("if-unmodified-since", "yesterday", 400, 400),
        ];
        for (name, value, read, write) in cases {
            assert_eq!(status(&[(name, value)], Purpose::Read, Some(blob())), read, "read, {name}: {value}");
            assert_eq!(
                status(&[(name, value)], Purpose::Write, Some(blob())),
                write,
                "write, {name}: {value}"
            );
        }
    }

    #[test]
    fn pairs() {
        let etag = blob().etag.etag_text();
        let read = |headers: &[(&str, &str)]| status(headers, Purpose::Read, Some(blob()));
        assert_eq!(read(&[("if-match", &etag), ("if-unmodified-since", BEFORE)]), 200);
        assert_eq!(read(&[("if-none-match", "\"0x1\""), ("if-modified-since", LAST_MODIFIED)]), 200);
        assert_eq!(read(&[("if-match", &etag), ("if-none-match", "\"0x1\"")]), 400);
        assert_eq!(read(&[("if-match", &etag), ("if-modified-since", BEFORE)]), 400);
        assert_eq!(read(&[("if-unmodified-since", LAST_MODIFIED), ("if-modified-since", BEFORE)]), 400);
    }

    #[test]
    fn a_blob_that_does_not_exist() {
        let write = |headers: &[(&str, &str)]| status(headers, Purpose::Write, None);
        assert_eq!(write(&[("if-none-match", "*")]), 200);
        assert_eq!(write(&[("if-match", "*")]), 412);
        assert_eq!(write(&[("if-unmodified-since", LAST_MODIFIED)]), 412);
        assert_eq!(write(&[]), 200);
    }
}
