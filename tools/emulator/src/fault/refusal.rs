//! The faults that are an ordinary refusal.

use std::time::Duration;

use super::FaultKind;
use crate::arm;
use crate::call::Role;
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure};

impl FaultKind {
    /// What the request is refused with, if that is all that happens to it.
    pub(crate) fn refusal(&self, role: Role, now: Moment) -> Option<Failure> {
        match self {
            FaultKind::Forbidden | FaultKind::ForbiddenAfter(_) if role == Role::Management => {
                Some(ErrorCode::AuthorizationFailed.into())
            }
            FaultKind::TooManyRequests { seconds } => Some(arm::throttled(*seconds, now)),
            FaultKind::ServerBusy(text) => Some(Failure::from(ErrorCode::ServerBusy).saying(text.text())),
            FaultKind::RetryAfter { seconds } => {
                Some(Failure::from(ErrorCode::ServerBusy).header("retry-after", seconds.to_string()))
            }
            FaultKind::OperationTimedOut { .. } => Some(ErrorCode::OperationTimedOut.into()),
            FaultKind::InternalError => Some(ErrorCode::InternalError.into()),
            FaultKind::Forbidden | FaultKind::ForbiddenAfter(_) => Some(expired(now)),
            FaultKind::NotSupported => Some(ErrorCode::NotImplemented.into()),
            _ => None,
        }
    }

    /// How long it takes until the refusal, or the end of the connection, comes.
    pub(crate) fn hold(&self) -> Duration {
        match self {
            FaultKind::OperationTimedOut { after } => *after,
            FaultKind::Stall { lasting } => *lasting,
            _ => Duration::ZERO,
        }
    }
}

/// The refusal of a SAS that ends now.
fn expired(now: Moment) -> Failure {
    let now = now.http_text();
    let detail = format!(
        "Signature not valid in the specified time frame: Start [] - Expiry [{now}] - Current [{now}]"
    );
    Failure::unauthenticated(detail)
}
