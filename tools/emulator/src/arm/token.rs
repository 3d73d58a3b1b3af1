//! Tokens: the managed identity's endpoint that gives them, and the check of what a request brings.
//!
//! A token looks like those of the service, and ends by the machine's clock, because clients go by that.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::registry::Registry;
use super::reply;
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::request::Request;
use crate::service::Service;
use crate::store::hmac_sha256;

/// The resource that tokens for management are made for.
pub(super) const MANAGEMENT: &str = "https://management.azure.com/";

/// What else a token for management may name, besides the emulator itself.
const AUDIENCES: [&str; 5] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://management.core.chinacloudapi.cn",
    "https://management.chinacloudapi.cn",
    "https://management.usgovcloudapi.net",
];

/// The versions of the identity endpoint, and the headers that prove that the request comes from the application.
const IDENTITY_VERSIONS: [(&str, &str); 2] = [("2019-08-01", "x-identity-header"), ("2017-09-01", "secret")];

/// A token for `audience`, and the full second at which it ends.
pub(super) fn make(registry: &Registry, audience: &str, lifetime: Duration) -> (String, u64) {
    let now = Moment::of_machine();
    let ends = now.plus(lifetime).seconds();
    let claims = json!({
        "aud": audience,
        "iss": format!("https://sts.windows.net/{}/", registry.client_id),
        "iat": now.seconds(),
        "nbf": now.seconds(),
        "exp": ends,
        "appid": registry.client_id.to_string(),
        "oid": registry.object_id.to_string(),
        "ver": "1.0",
    });
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "HS256" })), encode(&claims));
    let signature = signature(registry, &signed);
    (format!("{signed}.{signature}"), ends)
}

/// Checks the token of a management request.
pub(super) fn check(service: &Service, request: &Request) -> Outcome<()> {
    let Some(header) = request.header("authorization")? else {
        let failure = Failure::from(ErrorCode::AuthenticationFailed).with_status(StatusCode::UNAUTHORIZED);
        return Err(challenge(
            failure.saying("Authentication failed. The 'Authorization' header is missing."),
        ));
    };
    let claims = claims(&service.arm, header)
        .ok_or_else(|| challenge(ErrorCode::InvalidAuthenticationToken.into()))?;
    let audience = claims["aud"].as_str().unwrap_or_default().trim_end_matches('/');
    if !AUDIENCES.contains(&audience) && audience != service.endpoint {
        let text = format!(
            "The access token has been obtained for wrong audience or resource '{audience}'. \
             It should exactly match with one of the allowed audiences '{}'.",
            AUDIENCES.join("','")
        );
        return Err(challenge(Failure::from(ErrorCode::InvalidAuthenticationTokenAudience).saying(text)));
    }
    let (now, ends) = (Moment::of_machine(), claims["exp"].as_u64().unwrap_or_default());
    if ends <= now.seconds() {
        let (ended, now) = (Moment::from_seconds(ends).twelve_hour_text(), now.twelve_hour_text());
        let text =
            format!("The access token expiry UTC time '{ended}' is earlier than current UTC time '{now}'.");
        return Err(challenge(Failure::from(ErrorCode::ExpiredAuthenticationToken).saying(text)));
    }
    Ok(())
}

/// What a token that was made here says.
fn claims(registry: &Registry, header: &str) -> Option<Value> {
    let (scheme, token) = header.split_once(' ')?;
    let (signed, given) = token.trim().rsplit_once('.')?;
    if !scheme.eq_ignore_ascii_case("Bearer") || given != signature(registry, signed) {
        return None;
    }
    let (_, claims) = signed.split_once('.')?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

fn signature(registry: &Registry, signed: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(hmac_sha256(registry.token_key.as_bytes(), signed))
}

fn challenge(failure: Failure) -> Failure {
    let authority = "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000";
    let (code, text) = (failure.code.name(), failure.text.clone());
    let challenge = format!(
        "Bearer authorization_uri=\"{authority}\", error=\"invalid_token\", error_description=\"{code}: {text}\""
    );
    failure.header("www-authenticate", challenge)
}

/// Checks that a request to the identity endpoint comes from the application.
pub(super) fn check_identity(service: &Service, request: &Request) -> Outcome<()> {
    let version = request.param("api-version").unwrap_or_default();
    let Some((_, header)) = IDENTITY_VERSIONS.iter().find(|(known, _)| *known == version) else {
        let text = format!("The api-version '{version}' is not supported.");
        return Err(Failure::from(ErrorCode::InvalidApiVersionParameter).saying(text));
    };
    if request.header(header)? != Some(&service.arm.identity_header) {
        let failure = Failure::from(ErrorCode::AuthenticationFailed).with_status(StatusCode::UNAUTHORIZED);
        return Err(failure.saying(format!("The header {header} is missing or wrong.")));
    }
    Ok(())
}

/// Gives a token of the managed identity.
pub(super) fn identity(service: &Service, request: &Request) -> Outcome<Reply> {
    let Some(resource) = request.param("resource").filter(|resource| !resource.is_empty()) else {
        return Err(reply::invalid("resource", "The parameter 'resource' is missing."));
    };
    let lifetime = service.arm.lock().token_lifetime;
    let (token, ends) = make(&service.arm, resource, lifetime);
    let body = json!({
        "access_token": token,
        "expires_on": ends.to_string(),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": service.arm.client_id.to_string(),
    });
    Ok(reply::json(StatusCode::OK, &body))
}
