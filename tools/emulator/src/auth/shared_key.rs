//! `Authorization: SharedKey account:signature`: a signature with the account's key over the request's head.
//!
//! The canonical resource is the account's name followed by the path as sent. Here every path begins with the account,
//! so its name stands there twice, as with other emulators that serve `devstoreaccount1`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sas::sign;
use crate::clock::Moment;
use crate::error::{Failure, Outcome};
use crate::request::Request;
use crate::store::AccountEntry;

/// How far a request's date may be from the time here.
const LARGEST_SKEW: Duration = Duration::from_mins(15);

/// The headers that are signed by their place; those named `x-ms-*` are signed by name.
const SIGNED_HEADERS: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// Checks `account:signature`; nothing else than those two was read of the header so far.
pub(super) fn check(
    account: &AccountEntry,
    request: &Request,
    (name, signature): (&str, &str),
    now: Moment,
) -> Outcome<()> {
    if name != account.name {
        return Err(Failure::unauthenticated("The account in the Authorization header is another one."));
    }
    check_date(request, now)?;
    let string_to_sign = string_to_sign(account, request)?;
    if sign(account, &string_to_sign) == signature {
        return Ok(());
    }
    let detail = format!(
        "The MAC signature found in the HTTP request '{signature}' is not the same as any computed signature. \
         Server used following string to sign: '{string_to_sign}'."
    );
    Err(Failure::unauthenticated(detail))
}

fn check_date(request: &Request, now: Moment) -> Outcome<()> {
    let text = match request.header("x-ms-date")? {
        Some(text) => Some(text),
        None => request.header("date")?,
    };
    let Some(text) = text else {
        return Err(Failure::unauthenticated("Neither x-ms-date nor Date is given."));
    };
    let Some(date) = Moment::from_http(text) else {
        return Err(Failure::unauthenticated(format!("The date is not a valid time: '{text}'")));
    };
    if now.since(date).max(date.since(now)) > LARGEST_SKEW {
        return Err(Failure::unauthenticated(format!("Request date header too old or too new: '{text}'")));
    }
    Ok(())
}

fn string_to_sign(account: &AccountEntry, request: &Request) -> Outcome<String> {
    let dated_by_name = request.header("x-ms-date")?.is_some();
    let mut text = format!("{}\n", request.method);
    for name in SIGNED_HEADERS {
        let value = request.header(name)?.unwrap_or_default();
        let is_left_out = (name == "content-length" && value == "0") || (name == "date" && dated_by_name);
        text.push_str(if is_left_out { "" } else { value });
        text.push('\n');
    }
    text.push_str(&canonical_headers(request)?);
    text.push_str(&canonical_resource(account, request));
    Ok(text)
}

fn canonical_headers(request: &Request) -> Outcome<String> {
    // A header that stands several times is one line, its values in their order.
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in request.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ms-")) {
        let value = value.to_str().map_err(|_| Failure::bad_header(name.as_str(), "not ASCII"))?;
        values.entry(name.as_str()).or_default().push(value.trim());
    }
    let mut text = String::new();
    for (name, values) in values {
        text.extend([name, ":", &values.join(","), "\n"]);
    }
    Ok(text)
}

fn canonical_resource(account: &AccountEntry, request: &Request) -> String {
    let (path, query) = request.path_and_query.split_once('?').unwrap_or((&request.path_and_query, ""));
    // A parameter that stands several times is one line, its values sorted; this is not how `Request::param` reads it.
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        values.entry(name.to_ascii_lowercase()).or_default().push(value.into_owned());
    }
    let mut text = format!("/{}{path}", account.name);
    for (name, mut values) in values {
        values.sort_unstable();
        text.extend(["\n", &name, ":", &values.join(",")]);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::ErrorCode;
    use crate::store::Store;

    const DATE: &str = "Fri, 27 Jan 2023 22:27:23 GMT";

    fn request(headers: &[(&str, &str)]) -> Request {
        let uri = "/devstoreaccount1/box/a%20b?timeout=30&comp=page&include=b&include=a";
        let mut builder = hyper::Request::builder().method("PUT").uri(uri).header("content-length", "0");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        Request::parse(builder.body(()).unwrap().into_parts().0).unwrap()
    }

    #[test]
    fn the_account_stands_twice_and_names_are_sorted() {
        let account = Store::new(0).account_or_new("devstoreaccount1");
        let request = request(&[
            ("x-ms-version", "2021-12-02"),
            ("x-ms-date", DATE),
            ("date", "ignored"),
            ("x-ms-range", " bytes=0-511 "),
            ("if-match", "*"),
        ]);
        let expected = "PUT\n\n\n\n\n\n\n\n*\n\n\n\n\
             x-ms-date:Fri, 27 Jan 2023 22:27:23 GMT\nx-ms-range:bytes=0-511\nx-ms-version:2021-12-02\n\
             /devstoreaccount1/devstoreaccount1/box/a%20b\ncomp:page\ninclude:a,b\ntimeout:30";
        assert_eq!(string_to_sign(&account, &request).unwrap(), expected);
    }

    #[test]
    fn a_date_far_away_is_refused() {
        let account = Store::new(0).account_or_new("devstoreaccount1");
        let now = Moment::from_http(DATE).unwrap();
        let signature = sign(&account, &string_to_sign(&account, &request(&[("date", DATE)])).unwrap());
        let check = |now| {
            check(&account, &request(&[("date", DATE)]), ("devstoreaccount1", &signature), now)
                .map_err(|failure| failure.code)
        };
        assert_eq!(check(now), Ok(()));
        assert_eq!(check(now.plus(LARGEST_SKEW)), Ok(()));
        let later = now.plus(LARGEST_SKEW + Duration::from_secs(1));
        assert_eq!(check(later), Err(ErrorCode::AuthenticationFailed));
    }
}
