//! Whether a request may do what it asks for.
//!
//! An account that nobody made is answered with 404 `ResourceNotFound`, standing in for a host name that does not
//! resolve. The source address of a SAS (`sip`) is part of its signature, but is not compared with the client's.
//!
//! An ordinary account takes a SAS, a signature with its key, or a bearer token. Nobody issues tokens here, so any token
//! has all rights, over plain HTTP too; `Knobs::bearer_without_rights` takes them away.

pub(crate) mod sas;
mod shared_key;
mod upload;

use crate::arm;
use crate::call::{Call, Role};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::request::Request;
use crate::service::Service;
use crate::store::{Access, AccountEntry};

/// The resource that a token for an Entra-secured disk is made for.
const DISK_RESOURCE: &str = "https://disk.azure.com/";
const STORAGE_RESOURCE: &str = "https://storage.azure.com/";

/// The permissions of a key, and of a token.
const ALL_PERMISSIONS: &str = "racwdl";

/// What an authorised request may do, where the call alone does not decide it.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    /// The letters of `sp`.
    permissions: String,
}

impl Permit {
    pub(crate) fn has(&self, permission: char) -> bool {
        self.permissions.contains(permission)
    }
}

/// Checks signature or token, time and permission of a request.
pub(crate) fn authorise(service: &Service, request: &Request) -> Outcome<Permit> {
    if request.role == Role::Management {
        arm::authorise(service, request)?;
        return Ok(Permit { permissions: String::new() });
    }
    let account = service.store.account(&request.target.account).ok_or(ErrorCode::ResourceNotFound)?;
    match account.role {
        Role::DiskExport => authorise_export(service, &account, request),
        _ => authorise_account(service, &account, request),
    }
}

fn authorise_export(service: &Service, account: &AccountEntry, request: &Request) -> Outcome<Permit> {
    if request.param("sig").is_none() {
        return Err(unauthenticated(DISK_RESOURCE));
    }
    let grant = sas::check_grant(account, &request.target, request.query(), service.clock.now())?;
    let has_token = request.header("authorization")?.is_some_and(|value| value.starts_with("Bearer "));
    if (grant.needs_bearer || service.knobs().export_needs_bearer) && !has_token {
        return Err(unauthenticated(DISK_RESOURCE));
    }
    let reads =
        matches!(request.call, Call::GetBlob | Call::HeadBlob | Call::PageRanges | Call::PageRangesDiff);
    match grant.access {
        Access::Read if reads => Ok(Permit { permissions: "r".to_owned() }),
        Access::Read => Err(ErrorCode::AuthorizationPermissionMismatch.into()),
        Access::Write => {
            upload::check(&service.knobs(), request)?;
            Ok(Permit { permissions: "w".to_owned() })
        }
    }
}

fn authorise_account(service: &Service, account: &AccountEntry, request: &Request) -> Outcome<Permit> {
    if request.param("sig").is_none() {
        check_header(service, account, request)?;
        return Ok(Permit { permissions: ALL_PERMISSIONS.to_owned() });
    }
    let permissions = sas::check_signed(service, account, request)?;
    let enough = needed(request.call).chars().any(|permission| permissions.contains(permission));
    if !enough {
        return Err(ErrorCode::AuthorizationPermissionMismatch.into());
    }
    Ok(Permit { permissions })
}

/// Checks the `Authorization` header of a request without SAS.
fn check_header(service: &Service, account: &AccountEntry, request: &Request) -> Outcome<()> {
    let Some(header) = request.header("authorization")? else {
        return Err(unauthenticated(STORAGE_RESOURCE));
    };
    let (scheme, credential) = header.split_once(' ').unwrap_or((header, ""));
    let credential = credential.trim();
    if scheme.eq_ignore_ascii_case("Bearer") {
        if credential.is_empty() || credential.contains(char::is_whitespace) {
            let failure = Failure::from(ErrorCode::InvalidAuthenticationInfo);
            return Err(challenge(failure, STORAGE_RESOURCE));
        }
        if service.knobs().bearer_without_rights {
            return Err(ErrorCode::AuthorizationPermissionMismatch.into());
        }
        return Ok(());
    }
    match credential.split_once(':') {
        Some(parts) if scheme.eq_ignore_ascii_case("SharedKey") => {
            shared_key::check(account, request, parts, service.clock.now())
        }
        _ => {
            let failure = Failure::from(ErrorCode::InvalidAuthenticationInfo);
            let detail = "Authentication information is not given in the correct format. \
                 Check the value of Authorization header.";
            let status = hyper::StatusCode::BAD_REQUEST;
            Err(Failure { status, ..failure }.element("AuthenticationErrorDetail", detail))
        }
    }
}

/// The permissions of which one is enough for a call. Put Blob, Put Block List and Copy Blob ask for more if they
/// overwrite.
fn needed(call: Call) -> &'static str {
    match call {
        Call::ListContainers | Call::ListBlobs => "l",
        Call::ContainerProperties
        | Call::GetBlob
        | Call::HeadBlob
        | Call::GetBlockList
        | Call::PageRanges
        | Call::PageRangesDiff => "r",
        Call::CreateContainer
        | Call::PutBlob
        | Call::PutBlock
        | Call::PutBlockList
        | Call::CopyBlob
        | Call::SnapshotBlob
        | Call::IncrementalCopy => "cw",
        Call::DeleteContainer | Call::DeleteBlob => "d",
        Call::PutPage
        | Call::ClearPages
        | Call::PutPageFromUrl
        | Call::SetProperties
        | Call::SetMetadata
        | Call::AbortCopy
        | Call::Lease => "w",
        _ => ALL_PERMISSIONS,
    }
}

fn unauthenticated(resource: &str) -> Failure {
    challenge(Failure::from(ErrorCode::NoAuthenticationInformation), resource)
}

/// Says where tokens are to be had, and for what.
fn challenge(failure: Failure, resource: &str) -> Failure {
    let authority = "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/oauth2/authorize";
    let challenge = format!("Bearer authorization_uri={authority} resource_id={resource}");
    failure.header("www-authenticate", challenge)
}
