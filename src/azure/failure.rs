//! How a call to Azure fails: what the service or the network said, typed, free of secrets, and judged: does
//! it pass by itself, does it need the user, or is it a defect?

use std::fmt;

use super::reply::ServiceReply;
use super::resource::{Resource, Role};
use crate::error::{Error, ErrorKind};

/// The result of one call.
pub type CallResult<T> = Result<T, CallError>;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The service answered with an error.
    Service(Box<ServiceReply>),
    /// No connection: nothing was sent.
    Connect(String),
    /// No reply in time, or the connection broke: a write may or may not have been applied.
    Broken(String),
    /// The reply was not complete in its time.
    TooSlow(String),
    /// Bytes arrived that do not match their checksum or length.
    Corrupt(String),
    /// A reply that the protocol does not allow.
    Protocol(String),
    /// No token could be had.
    Token(String),
    /// No new token could be had where there was one before.
    TokenRefresh(String),
    /// No call at all: this machine's own disk, in the place of a blob.
    Local(Box<Error>),
}

/// One call that failed, after as many attempts as its budget allowed.
#[derive(Clone, Debug)]
pub struct CallError {
    /// The call, in the service's words ("Put Page").
    pub call: &'static str,
    /// Which URL it was made on.
    pub role: Role,
    /// The URL without its SAS.
    pub on: String,
    /// Why it failed.
    pub cause: Cause,
    /// How many attempts were made.
    pub attempts: u32,
    /// Whether the call may have been done all the same: an earlier attempt got no reply, or the operation was
    /// accepted and its end not seen.
    pub may_be_done: bool,
}

/// What can be expected of the same call later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It passes by itself: throttling, time-outs, broken connections.
    Passes,
    /// Somebody must change something: rights, names, states.
    NeedsUser,
    /// A defect: the request or the reply was malformed.
    Bug,
}

impl CallError {
    pub(crate) fn new(call: &'static str, resource: &Resource, cause: Cause) -> Self {
        Self::of(call, resource.role(), resource, cause)
    }

    /// An error of a call on something that is named otherwise.
    pub(crate) fn of(call: &'static str, role: Role, on: impl fmt::Display, cause: Cause) -> Self {
        Self { call, role, on: on.to_string(), cause, attempts: 1, may_be_done: false }
    }

    /// Judges the failure. The retry layer repeats exactly what [`Class::Passes`].
    pub fn class(&self) -> Class {
        match &self.cause {
            Cause::Connect(_)
            | Cause::Broken(_)
            | Cause::TooSlow(_)
            | Cause::Corrupt(_)
            | Cause::TokenRefresh(_) => Class::Passes,
            Cause::Protocol(_) => Class::Bug,
            Cause::Token(_) | Cause::Local(_) => Class::NeedsUser,
            Cause::Service(reply) => reply.class(),
        }
    }

    /// The error code of the service, or an empty string.
    pub fn code(&self) -> &str {
        if let Cause::Service(reply) = &self.cause { &reply.code } else { "" }
    }

    /// The HTTP status of an error reply.
    pub fn status(&self) -> Option<u16> {
        if let Cause::Service(reply) = &self.cause { Some(reply.status) } else { None }
    }

    /// Whether a write of this outcome may have been applied, or may still be.
    ///
    /// A received status below 500, or a 503, is certain (Put Page remarks of the REST reference).
    pub fn outcome_is_unknown(&self) -> bool {
        match &self.cause {
            Cause::Service(reply) => reply.status >= 500 && reply.status != 503,
            Cause::Broken(_) | Cause::TooSlow(_) | Cause::Corrupt(_) => true,
            Cause::Connect(_)
            | Cause::Protocol(_)
            | Cause::Token(_)
            | Cause::TokenRefresh(_)
            | Cause::Local(_) => false,
        }
    }

    /// Whether it is the *source* of a server-side copy that was refused or did not answer. The status is then the one of
    /// the source; what code it gave is told by newer versions of the service only.
    pub fn is_of_copy_source(&self) -> bool {
        match &self.cause {
            Cause::Service(reply) => reply.is_of_copy_source(),
            _ => false,
        }
    }

    /// Whether the source of a server-side copy has too much to do.
    pub fn is_refusal_of_source_for_load(&self) -> bool {
        matches!(&self.cause, Cause::Service(reply) if reply.is_refusal_of_source_for_load())
    }

    /// Whether the service says that it has too much to do.
    pub fn is_refusal_for_load(&self) -> bool {
        matches!(&self.cause, Cause::Service(reply) if reply.is_refusal_for_load())
    }

    /// Whether it took longer than it may: too much was on its way at once.
    pub fn is_too_slow(&self) -> bool {
        matches!(self.cause, Cause::TooSlow(_)) || self.code() == "OperationTimedOut"
    }

    /// Whether the service refuses the SAS as such: it ended or was revoked. A HEAD has no code.
    pub fn refuses_sas(&self) -> bool {
        self.role != Role::Manager
            && self.status() == Some(403)
            && matches!(self.code(), "" | "AuthenticationFailed")
    }

    /// Whether our lease or our generation no longer holds: another writer took over.
    ///
    /// The REST reference's lease table says 409 for a wrong id, its error table 412: both count.
    pub fn is_fenced(&self) -> bool {
        matches!(
            self.code(),
            "LeaseIdMissing"
                | "LeaseIdMismatchWithBlobOperation"
                | "LeaseIdMismatchWithLeaseOperation"
                | "LeaseLost"
                | "LeaseNotPresentWithBlobOperation"
                | "LeaseNotPresentWithLeaseOperation"
                | "LeaseIsBrokenAndCannotBeRenewed"
                | "SequenceNumberConditionNotMet"
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(reply) => {
                write!(f, "the service answered {}", reply.status)?;
                if !reply.code.is_empty() {
                    write!(f, " {}", reply.code)?;
                }
                for part in [&reply.message, &reply.detail] {
                    if !part.is_empty() {
                        write!(f, ", {}", part.trim_end_matches('.'))?;
                    }
                }
                if let Some(code) = &reply.copy_source_code {
                    write!(f, ", copy source: {code}")?;
                }
                if !reply.request_id.is_empty() {
                    write!(f, " (request {})", reply.request_id)?;
                }
                Ok(())
            }
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) | Self::TooSlow(why) => write!(f, "no complete reply: {why}"),
            Self::Corrupt(why) => write!(f, "bytes were changed on the way: {why}"),
            Self::Protocol(why) => write!(f, "the reply is not what the protocol allows: {why}"),
            Self::Token(why) | Self::TokenRefresh(why) => write!(f, "no token: {why}"),
            Self::Local(error) => write!(f, "{error}"),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on the {} ({}): {}", self.call, self.role, self.on, self.cause)
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for Error {
    /// The general reading of a failed call; where the engine knows better, it maps before this.
    fn from(error: CallError) -> Self {
        let kind = match &error.cause {
            Cause::Service(reply) => service_kind(reply, error.role),
            Cause::Connect(_) | Cause::Broken(_) | Cause::TooSlow(_) | Cause::TokenRefresh(_) => {
                ErrorKind::Unavailable
            }
            Cause::Corrupt(_) => ErrorKind::Corruption,
            Cause::Protocol(_) => ErrorKind::Protocol,
            Cause::Token(_) => ErrorKind::AccessDenied,
            Cause::Local(error) => return (**error).clone(),
        };
        let again =
            if error.attempts > 1 { format!(" ({} attempts)", error.attempts) } else { String::new() };
        let made = Self::new(
            kind,
            format!("complete {} on the {}", error.call, error.role),
            format!("{}{again}", error.cause),
        )
        .on(&error.on);
        match advice(kind, &error) {
            Some(advice) => made.next(advice),
            None => made,
        }
    }
}

fn service_kind(reply: &ServiceReply, role: Role) -> ErrorKind {
    if role == Role::Manager {
        return manager_kind(reply);
    }
    match reply.code.as_str() {
        "AuthorizationPermissionMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "InsufficientAccountPermissions" => ErrorKind::PermissionMissing,
        "BlobNotFound" if role == Role::Target => ErrorKind::BaseMissing,
        "BlobAlreadyExists" => ErrorKind::TargetExists,
        "InvalidBlobType" if role == Role::Target => ErrorKind::BaseNotClean,
        "InvalidBlobType" => ErrorKind::SourceUnsuitable,
        // Premium page blobs: one snapshot in ten minutes. (Misspelt so on the wire.)
        "SnaphotOperationRateExceeded" => ErrorKind::Unavailable,
        "PreviousSnapshotCannotBeNewer" => ErrorKind::SnapshotOrder,
        "PreviousSnapshotNotFound"
        | "PreviousSnapshotOperationNotSupported"
        | "BlobOverwritten"
        | "BlobGenerationMismatch"
        | "UnsupportedHeaderForNonManagedDisksAccount" => ErrorKind::DifferentFamilies,
        "LeaseAlreadyPresent" | "LeaseIsBreakingAndCannotBeAcquired" => ErrorKind::LeaseHeld,
        code if code.starts_with("Lease") || code == "SequenceNumberConditionNotMet" => ErrorKind::LeaseLost,
        _ => match reply.status {
            401 | 403 => ErrorKind::AccessDenied,
            404 => ErrorKind::NotFound,
            _ => match reply.class() {
                Class::Passes => ErrorKind::Unavailable,
                Class::NeedsUser => ErrorKind::Refused,
                Class::Bug => ErrorKind::Protocol,
            },
        },
    }
}

/// What Azure Resource Manager says, by its codes (section 5.6 of the REST errors; azure-mgmt-compute).
fn manager_kind(reply: &ServiceReply) -> ErrorKind {
    match (reply.status, reply.code.as_str()) {
        (_, "AuthorizationFailed" | "LinkedAuthorizationFailed") => ErrorKind::PermissionMissing,
        (401 | 403, _) => ErrorKind::AccessDenied,
        (404, _) => ErrorKind::NotFound,
        _ if reply.class() == Class::Passes => ErrorKind::Unavailable,
        _ => ErrorKind::Refused,
    }
}

/// The action that a refusal names: "does not have authorization to perform action 'X' over scope 'Y'".
fn action_of(message: &str) -> Option<&str> {
    message.split_once("action '")?.1.split('\'').next().filter(|action| action.contains('/'))
}

/// The action that a call needs, for a refusal that does not name it (Azure RBAC, Microsoft.Compute).
fn action_for(call: &str) -> Option<&'static str> {
    Some(match call {
        "Disks Get" => "Microsoft.Compute/disks/read",
        "Snapshots Get" | "Snapshots List" => "Microsoft.Compute/snapshots/read",
        "Snapshots Grant Access" => "Microsoft.Compute/snapshots/beginGetAccess/action",
        "Snapshots Revoke Access" => "Microsoft.Compute/snapshots/endGetAccess/action",
        "Snapshots Create Or Update" => "Microsoft.Compute/snapshots/write",
        "Disks Grant Access" => "Microsoft.Compute/disks/beginGetAccess/action",
        "Disks Revoke Access" => "Microsoft.Compute/disks/endGetAccess/action",
        "Disks Create Or Update" | "Disks Update" => "Microsoft.Compute/disks/write",
        "Storage Accounts Get Properties" => "Microsoft.Storage/storageAccounts/read",
        "Disks Delete" => "Microsoft.Compute/disks/delete",
        _ => return None,
    })
}

fn manager_advice(kind: ErrorKind, error: &CallError) -> Option<String> {
    let message = if let Cause::Service(reply) = &error.cause { reply.message.as_str() } else { "" };
    Some(match (kind, action_of(message).or(action_for(error.call))) {
        (ErrorKind::PermissionMissing, Some(action)) => {
            let role = match action {
                action if action.ends_with("/read") => "Reader",
                action if action.starts_with("Microsoft.Compute/disks/") => "Contributor",
                _ => "Disk Snapshot Contributor",
            };
            format!(
                "the signed-in identity lacks the action {action}: the role {role} on the resource group has it; --login-type signs in as somebody else"
            )
        }
        (ErrorKind::AccessDenied, _) => {
            "sign in again: az login, or choose another identity with --login-type".to_owned()
        }
        (ErrorKind::NotFound, _) if error.call.starts_with("Disks") => {
            "check the id, and the subscription that you are signed in to: az account show, az group list, az disk list"
                .to_owned()
        }
        (ErrorKind::NotFound, _) => {
            "check the id, and the subscription that you are signed in to: az account show, az snapshot list"
                .to_owned()
        }
        (ErrorKind::Unavailable, _) => {
            "run the same command again; --retry-for gives the service more time".to_owned()
        }
        _ => return None,
    })
}

fn advice(kind: ErrorKind, error: &CallError) -> Option<String> {
    let role = error.role;
    if role == Role::Manager {
        return manager_advice(kind, error);
    }
    match error.code() {
        "AuthorizationFailure" => {
            return Some(format!(
                "the firewall or the private endpoint of the {role} does not let this machine in"
            ));
        }
        "MetadataTooLarge" => {
            return Some(
                "the blob's own metadata leaves no room for the marker: remove some (8 KiB in all)"
                    .to_owned(),
            );
        }
        "AuthorizationSourceIPMismatch" => {
            return Some("the SAS is for other IP addresses (sip=)".to_owned());
        }
        "AuthorizationProtocolMismatch" => return Some("the SAS is for https only (spr=)".to_owned()),
        "ContainerNotFound" if role == Role::Target => {
            return Some(
                "create the container first: az storage container create --name <container>".to_owned(),
            );
        }
        _ => {}
    }
    Some(match kind {
        ErrorKind::AccessDenied if role == Role::Disk => {
            "look at who may reach the disk (az disk show --query networkAccessPolicy), and run the same command again"
                .to_owned()
        }
        ErrorKind::AccessDenied if role == Role::Target => {
            "give --target a SAS that is valid now, or leave the SAS out and sign in: az login".to_owned()
        }
        ErrorKind::AccessDenied => format!(
            "grant the {role} snapshot again and give the new URL: az snapshot grant-access --name <snapshot> \
             --resource-group <group> --duration-in-seconds 3600 --access-level Read"
        ),
        ErrorKind::PermissionMissing => match permission_for(error.call) {
            Some(letter) => format!(
                "{} needs permission '{letter}' in the SAS (sp=), or the role Storage Blob Data Contributor",
                error.call
            ),
            None => return None,
        },
        ErrorKind::NotFound => format!("check the {role} URL: az storage blob show, or az snapshot list"),
        ErrorKind::Unavailable => {
            "run the same command again; --retry-for gives the service more time".to_owned()
        }
        _ => return None,
    })
}

/// The SAS permission that a call needs (create-account-sas and create-service-sas of the REST reference).
fn permission_for(call: &str) -> Option<&'static str> {
    Some(match call {
        "Get Blob" | "Get Blob Properties" | "Get Page Ranges" | "Get Page Ranges Diff" => "r",
        "Put Page"
        | "Put Page From URL"
        | "Clear Pages"
        | "Set Blob Properties"
        | "Set Blob Metadata"
        | "Lease Blob" => "w",
        "Put Blob" | "Snapshot Blob" => "c' or 'w",
        "Delete Blob" => "d",
        "List Blobs" => "l",
        _ => return None,
    })
}
