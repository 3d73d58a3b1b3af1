//! Shared access signatures: checking the three kinds, and making them.
//!
//! - *Service SAS* (`sr=b|bs|c`): names its permissions and its end, signed with the account's key.
//! - *Account SAS* (`ss`, `srt`): the same for a whole account.
//! - *Grant* of an export account (`si`): names only a stored policy, which this side can revoke at any time.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::call::Call;
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::request::{Request, Target};
use crate::service::Service;
use crate::store::{AccountEntry, Grant, hmac_sha256};

/// The service version that an account's own SAS are made for.
const VERSION: &str = "2021-12-02";

/// The versions for which the service makes the SAS of incremental and of full disk snapshots.
const GRANT_VERSION: &str = "2018-11-09";
const FULL_GRANT_VERSION: &str = "2018-03-28";

/// From these versions on, the string to sign has more lines.
const SIGNS_RESOURCE_SINCE: &str = "2018-11-09";
const SIGNS_ENCRYPTION_SCOPE_SINCE: &str = "2020-12-06";

type Query = BTreeMap<String, String>;

/// Checks the SAS of a request to an export account. It may say neither permissions nor times: the stored policy does.
pub(crate) fn check_grant(
    account: &AccountEntry,
    target: &Target,
    query: &Query,
    now: Moment,
) -> Outcome<Grant> {
    let resource_kind = field(query, "sr");
    if !matches!(resource_kind, "b" | "bs") {
        let detail = "sr is mandatory. It must be bs for a disk snapshot, and b for a full one.";
        return Err(Failure::unauthenticated(detail));
    }
    check_signature(account, query, &service_string(account, target, query))?;
    if let Some(twice) = ["sp", "st", "se"].into_iter().find(|name| query.contains_key(*name)) {
        let detail = format!("{twice} is given by the stored access policy and must not be repeated.");
        return Err(Failure::unauthenticated(detail));
    }
    let grant = account.grants.lock().get(field(query, "si")).cloned();
    let grant = grant.ok_or_else(|| Failure::unauthenticated("The stored access policy does not exist."))?;
    if grant.is_over(now) {
        return Err(outside_time_frame("", grant.lapses, now));
    }
    let snapshot = field(query, "snapshot");
    let fits = match grant.snapshot {
        Some(time) => resource_kind == "bs" && Moment::from_iso(snapshot) == Some(time),
        None => resource_kind == "b" && snapshot.is_empty(),
    };
    if !fits {
        return Err(Failure::unauthenticated("The stored access policy is for another snapshot."));
    }
    Ok(grant)
}

/// Checks the SAS of a request to an ordinary account, except whether its permissions are enough. Returns them.
pub(crate) fn check_signed(service: &Service, account: &AccountEntry, request: &Request) -> Outcome<String> {
    let query = request.query();
    if query.contains_key("ss") {
        check_signature(account, query, &account_string(account, query))?;
        check_account_scope(request, query)?;
    } else {
        check_signature(account, query, &service_string(account, &request.target, query))?;
        check_service_scope(request, query)?;
    }
    check_time(query, service.clock.now())?;
    if field(query, "spr") == "https" && !service.endpoint.starts_with("https:") {
        return Err(ErrorCode::AuthorizationProtocolMismatch.into());
    }
    match field(query, "sp") {
        "" => Err(Failure::unauthenticated("sp is mandatory. Cannot be empty")),
        permissions => Ok(permissions.to_owned()),
    }
}

fn check_signature(account: &AccountEntry, query: &Query, string_to_sign: &str) -> Outcome<()> {
    if sign(account, string_to_sign) == field(query, "sig") {
        return Ok(());
    }
    let detail = format!("Signature did not match. String to sign used was {string_to_sign}");
    Err(Failure::unauthenticated(detail))
}

fn check_time(query: &Query, now: Moment) -> Outcome<()> {
    let read = |name| match field(query, name) {
        "" => Ok(None),
        text => match Moment::from_iso(text) {
            Some(time) => Ok(Some(time)),
            None => Err(Failure::unauthenticated(format!("{name} is not a valid time: {text}"))),
        },
    };
    let (starts, ends) = (read("st")?, read("se")?);
    if ends.is_none() {
        return Err(Failure::unauthenticated("se is mandatory. Cannot be empty"));
    }
    if starts.is_some_and(|starts| now < starts) || ends.is_some_and(|ends| ends <= now) {
        return Err(outside_time_frame(field(query, "st"), ends, now));
    }
    Ok(())
}

fn outside_time_frame(start: &str, ends: Option<Moment>, now: Moment) -> Failure {
    let end = ends.map(Moment::http_text).unwrap_or_default();
    let now = now.http_text();
    let detail = format!(
        "Signature not valid in the specified time frame: Start [{start}] - Expiry [{end}] - Current [{now}]"
    );
    Failure::unauthenticated(detail)
}

fn check_account_scope(request: &Request, query: &Query) -> Outcome<()> {
    if !field(query, "ss").contains('b') {
        return Err(ErrorCode::AuthorizationServiceMismatch.into());
    }
    let resource_type = match request.call {
        Call::ListContainers => 's',
        Call::CreateContainer | Call::ContainerProperties | Call::DeleteContainer | Call::ListBlobs => 'c',
        _ => 'o',
    };
    if !field(query, "srt").contains(resource_type) {
        return Err(ErrorCode::AuthorizationResourceTypeMismatch.into());
    }
    Ok(())
}

/// A SAS for a blob reaches the blob and its snapshots, one for a snapshot only that, one for a container also its list.
fn check_service_scope(request: &Request, query: &Query) -> Outcome<()> {
    let on_blob = !request.target.blob.is_empty();
    let fits = match field(query, "sr") {
        "b" => on_blob,
        "bs" => on_blob && query.contains_key("snapshot"),
        "c" => on_blob || request.call == Call::ListBlobs,
        _ => return Err(Failure::unauthenticated("sr is mandatory. It must be b, bs or c.")),
    };
    if fits { Ok(()) } else { Err(ErrorCode::AuthorizationResourceTypeMismatch.into()) }
}

/// What a service SAS, or a grant, signs.
fn service_string(account: &AccountEntry, target: &Target, query: &Query) -> String {
    let mut resource = format!("/blob/{}/{}", account.name, target.container);
    let resource_kind = field(query, "sr");
    if resource_kind != "c" {
        resource = format!("{resource}/{}", target.blob);
    }
    let version = field(query, "sv");
    let mut lines = vec![field(query, "sp"), field(query, "st"), field(query, "se"), &resource];
    lines.extend(["si", "sip", "spr", "sv"].map(|name| field(query, name)));
    if version >= SIGNS_RESOURCE_SINCE {
        lines.push(resource_kind);
        lines.push(if resource_kind == "bs" { field(query, "snapshot") } else { "" });
    }
    if version >= SIGNS_ENCRYPTION_SCOPE_SINCE {
        lines.push(field(query, "ses"));
    }
    lines.extend(["rscc", "rscd", "rsce", "rscl", "rsct"].map(|name| field(query, name)));
    lines.join("\n")
}

/// What an account SAS signs: each line ended, the last one too.
fn account_string(account: &AccountEntry, query: &Query) -> String {
    let mut lines = vec![account.name.as_str()];
    lines.extend(["sp", "ss", "srt", "st", "se", "sip", "spr", "sv"].map(|name| field(query, name)));
    if field(query, "sv") >= SIGNS_ENCRYPTION_SCOPE_SINCE {
        lines.push(field(query, "ses"));
    }
    lines.push("");
    lines.join("\n")
}

pub(super) fn sign(account: &AccountEntry, string_to_sign: &str) -> String {
    BASE64_STANDARD.encode(hmac_sha256(&account.key, string_to_sign))
}

fn field<'a>(query: &'a Query, name: &str) -> &'a str {
    query.get(name).map_or("", String::as_str)
}

/// The query of a service SAS for a blob (`b`) or a container (`c`).
pub(crate) fn make_service_sas(
    account: &AccountEntry,
    target: &Target,
    resource_kind: &'static str,
    permissions: &str,
    ends: Moment,
) -> String {
    let ends = ends.up_to_second().second_text();
    let fields = [("sv", VERSION), ("se", &ends), ("sr", resource_kind), ("sp", permissions)];
    signed_query(account, &fields, |query| service_string(account, target, query))
}

/// The query of an account SAS for everything in the account's blob service.
pub(crate) fn make_account_sas(account: &AccountEntry, permissions: &str, ends: Moment) -> String {
    let ends = ends.up_to_second().second_text();
    let fields = [("sv", VERSION), ("ss", "b"), ("srt", "sco"), ("se", &ends), ("sp", permissions)];
    signed_query(account, &fields, |query| account_string(account, query))
}

/// The query of the SAS for a disk's snapshot, in the order in which the service writes it.
pub(crate) fn make_grant(
    account: &AccountEntry,
    target: &Target,
    snapshot: Option<Moment>,
    policy: &str,
) -> String {
    let time = snapshot.map(Moment::snapshot_text);
    let fields = match &time {
        Some(time) => vec![("snapshot", time.as_str()), ("sv", GRANT_VERSION), ("sr", "bs"), ("si", policy)],
        None => vec![("sv", FULL_GRANT_VERSION), ("sr", "b"), ("si", policy)],
    };
    signed_query(account, &fields, |query| service_string(account, target, query))
}

fn signed_query(
    account: &AccountEntry,
    fields: &[(&str, &str)],
    string_to_sign: impl FnOnce(&Query) -> String,
) -> String {
    let query = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let signature = sign(account, &string_to_sign(&query));
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(fields);
    text.append_pair("sig", &signature);
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn query(text: &str) -> Query {
        form_urlencoded::parse(text.as_bytes()).into_owned().collect()
    }

    #[test]
    fn strings_to_sign_have_the_lines_of_their_version() {
        let account = Store::new(0).account_or_new("acc");
        let target = Target { account: "acc".into(), container: "box".into(), blob: "a/b".into() };
        let lines = |sv: &str| {
            service_string(&account, &target, &query(&format!("sv={sv}&sr=b&sp=r"))).split('\n').count()
        };
        assert_eq!(
            (lines("2018-03-28"), lines("2018-11-09"), lines("2020-10-02"), lines("2020-12-06")),
            (13, 15, 15, 16)
        );
        let grant = query("snapshot=S&sv=2018-11-09&sr=bs&si=P&sig=x");
        let expected = "\n\n\n/blob/acc/box/a/b\nP\n\n\n2018-11-09\nbs\nS\n\n\n\n\n";
        assert_eq!(service_string(&account, &target, &grant), expected);
        let account_wide = query("sv=2021-12-02&ss=b&srt=sco&se=E&sp=r");
        assert_eq!(account_string(&account, &account_wide), "acc\nr\nb\nsco\n\nE\n\n\n2021-12-02\n\n");
    }

    #[test]
    fn the_well_known_account_signs_with_its_key() {
        let account = Store::new(7).account_or_new("devstoreaccount1");
        assert_eq!(account.key.len(), 64);
        assert_eq!(account.key[..2], [0x11, 0xbc]);
    }
}
