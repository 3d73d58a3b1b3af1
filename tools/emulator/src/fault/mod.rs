//! Scripted faults: what shall go wrong, for which requests, and how often.
//!
//! A fault is picked once per request, when its head is known and its signature is checked, and nothing is read or
//! applied yet. It is carried out in `exchange`.

mod bad_list;
mod plan;
mod refusal;
mod text;

use std::time::Duration;

pub(crate) use self::bad_list::spoil;
pub use self::plan::Faults;
pub(crate) use self::plan::{Asking, Plan};
pub use self::text::BadFault;

use crate::call::{Call, Role};

/// Something that goes wrong with some requests.
///
/// In text: `CALL[:OPTION,...]:KIND[=VALUE,...]`. `CALL` is the name of a [`Call`], or `any`. The options are `skip=N`,
/// `times=N` or `times=always`, `chance=P` from 0 to 1, `role=export`, `role=account` or `role=management`, and
/// `blob=NAME`, percent-encoded if it holds `,`, `:` or `%`. The kinds are the [names](FaultKind::name) of [`FaultKind`], with their values:
///
/// ```text
/// server-busy[=busy|ingress|egress|operations]     retry-after=SECONDS
/// operation-timed-out[=TIME]    internal-error    not-supported    forbidden    forbidden-after=TIME
/// cut-before-apply    cut-after-apply    cut-in-request    cut-in-reply    late-duplicate=TIME    delayed-apply=TIME
/// truncate-body=BYTES    stall=TIME    stall-body=BYTES,TIME    flip-byte-in-reply    flip-byte-in-request
/// bad-page-list=overlapping|misordered|misaligned|out-of-bounds|false-clear    too-many-requests=SECONDS
/// ```
///
/// `TIME` is a number with `ms`, `s`, `m` or `h`; `BYTES` one without a unit, or with `KiB`, `MiB` or `GiB`.
///
/// ```
/// use snapferry_emulator::{BusyText, Call, Fault, FaultKind};
///
/// let fault: Fault = "put-page:skip=3,times=2:server-busy=ingress".parse()?;
/// assert_eq!(fault, Fault::new(FaultKind::ServerBusy(BusyText::Ingress)).on(Call::PutPage).skip(3).times(2));
/// # Ok::<(), snapferry_emulator::BadFault>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The only call that it meets; any if absent.
    pub call: Option<Call>,
    /// The only kind of account that it meets.
    pub role: Option<Role>,
    /// The only blob that it meets, by name without account and container; of a management call, the resource.
    pub blob: Option<String>,
    /// How many requests that it could meet pass first.
    pub skip: u64,
    /// How many requests it meets after that; `u64::MAX` means no end.
    pub times: u64,
    /// The probability with which it meets a request, from 0 to 1.
    pub chance: f64,
    /// What happens to a request that it meets.
    pub kind: FaultKind,
}

impl Fault {
    /// A fault that meets the next request to which its kind can happen; [`FaultKind::ForbiddenAfter`] meets all of them.
    pub fn new(kind: FaultKind) -> Fault {
        let times = if matches!(kind, FaultKind::ForbiddenAfter(_)) { u64::MAX } else { 1 };
        Fault { call: None, role: None, blob: None, skip: 0, times, chance: 1.0, kind }
    }

    /// Meets only this call.
    #[must_use]
    pub fn on(self, call: Call) -> Fault {
        Fault { call: Some(call), ..self }
    }

    /// Meets only requests to this kind of account.
    #[must_use]
    pub fn at(self, role: Role) -> Fault {
        Fault { role: Some(role), ..self }
    }

    /// Meets only requests to blobs of this name.
    #[must_use]
    pub fn of_blob(self, name: impl Into<String>) -> Fault {
        Fault { blob: Some(name.into()), ..self }
    }

    /// Lets this many requests pass first.
    #[must_use]
    pub fn skip(self, requests: u64) -> Fault {
        Fault { skip: requests, ..self }
    }

    /// Meets this many requests; `u64::MAX` means no end.
    #[must_use]
    pub fn times(self, requests: u64) -> Fault {
        Fault { times: requests, ..self }
    }

    /// Meets as many requests as there are.
    #[must_use]
    pub fn always(self) -> Fault {
        self.times(u64::MAX)
    }

    /// Meets a request only with this probability, from 0 to 1. One that is spared uses up neither `skip` nor `times`.
    #[must_use]
    pub fn chance(self, probability: f64) -> Fault {
        Fault { chance: probability, ..self }
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// 503 `ServerBusy`.
    ServerBusy(BusyText),
    /// 503 `ServerBusy` with a `Retry-After` header.
    RetryAfter {
        /// What the header says.
        seconds: u64,
    },
    /// 500 `OperationTimedOut`, some time after the request arrived. Nothing is applied.
    OperationTimedOut {
        /// How long the reply takes.
        after: Duration,
    },
    /// 500 `InternalError`. Nothing is applied.
    InternalError,
    /// 403 `AuthenticationFailed` with the details of a SAS that has expired; of management, 403 `AuthorizationFailed`.
    Forbidden,
    /// Nothing until this time has passed since the fault was added, on the clock that [`Emulator::advance_clock`] moves;
    /// `Forbidden` from then on.
    ///
    /// [`Emulator::advance_clock`]: crate::Emulator::advance_clock
    ForbiddenAfter(Duration),
    /// The request is taken in, not applied, and the connection is cut instead of a reply.
    CutBeforeApply,
    /// The request is applied, and the connection is cut instead of a reply.
    CutAfterApply,
    /// The connection is cut while the request's body arrives, somewhere in it; nothing is applied. Requests with a body
    /// only.
    CutInRequest,
    /// The connection is cut while the reply's body is sent, somewhere in it. The request is applied.
    CutInReply,
    /// The reply's body ends early, and the connection with it. `Content-Length` tells the full length; of a page list, which
    /// has none, the final chunk is missing. A body that is not longer is left alone.
    TruncateBody {
        /// Bytes of the body that are sent.
        keep: u64,
    },
    /// One bit of what a Get Blob returns is changed. Checksums in headers are those of the true bytes.
    FlipByteInReply,
    /// One bit of what a Put Page, Put Block or Put Blob sends is changed before anything looks at it.
    FlipByteInRequest,
    /// A write is applied and answered, and applied once more later, as a request of its own that is subject to the lease,
    /// sequence number and `If-*` conditions of that time.
    LateDuplicate {
        /// How much later.
        after: Duration,
    },
    /// The connection is cut instead of a reply, and the write is applied later, if its conditions are met at that time.
    DelayedApply {
        /// How much later.
        after: Duration,
    },
    /// The request is taken in and not applied, nothing comes back for some time, then the connection is cut.
    Stall {
        /// How long nothing comes.
        lasting: Duration,
    },
    /// The reply's body stops for some time, then the connection is cut. A body that is not longer is left alone.
    StallBody {
        /// Bytes of the body that are sent before that.
        after_bytes: u64,
        /// How long nothing comes.
        lasting: Duration,
    },
    /// 501 `NotImplemented`.
    NotSupported,
    /// A page list that breaks the protocol instead of the true one.
    BadPageList(BadPageList),
    /// 429 with a `Retry-After` header. Management calls only.
    TooManyRequests {
        /// What the header says.
        seconds: u64,
    },
}

impl FaultKind {
    /// The name in text, such as `server-busy`.
    pub const fn name(&self) -> &'static str {
        match self {
            FaultKind::ServerBusy(_) => "server-busy",
            FaultKind::RetryAfter { .. } => "retry-after",
            FaultKind::OperationTimedOut { .. } => "operation-timed-out",
            FaultKind::InternalError => "internal-error",
            FaultKind::Forbidden => "forbidden",
            FaultKind::ForbiddenAfter(_) => "forbidden-after",
            FaultKind::CutBeforeApply => "cut-before-apply",
            FaultKind::CutAfterApply => "cut-after-apply",
            FaultKind::CutInRequest => "cut-in-request",
            FaultKind::CutInReply => "cut-in-reply",
            FaultKind::TruncateBody { .. } => "truncate-body",
            FaultKind::FlipByteInReply => "flip-byte-in-reply",
            FaultKind::FlipByteInRequest => "flip-byte-in-request",
            FaultKind::LateDuplicate { .. } => "late-duplicate",
            FaultKind::DelayedApply { .. } => "delayed-apply",
            FaultKind::Stall { .. } => "stall",
            FaultKind::StallBody { .. } => "stall-body",
            FaultKind::NotSupported => "not-supported",
            FaultKind::BadPageList(_) => "bad-page-list",
            FaultKind::TooManyRequests { .. } => "too-many-requests",
        }
    }
}

/// The texts that come with 503 `ServerBusy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyText {
    /// "The server is busy."
    #[default]
    Busy,
    /// "Ingress is over the account limit."
    Ingress,
    /// "Egress is over the account limit."
    Egress,
    /// "Operations per second is over the account limit."
    Operations,
}

impl BusyText {
    /// The text.
    pub const fn text(self) -> &'static str {
        match self {
            BusyText::Busy => "The server is busy.",
            BusyText::Ingress => "Ingress is over the account limit.",
            BusyText::Egress => "Egress is over the account limit.",
            BusyText::Operations => "Operations per second is over the account limit.",
        }
    }
}

/// The ways in which a page list can break the protocol. The list holds nothing else then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPageList {
    /// Two ranges share a page.
    Overlapping,
    /// A range comes after one that lies behind it.
    Misordered,
    /// A range is not made of whole pages.
    Misaligned,
    /// A range lies past the blob's end.
    OutOfBounds,
    /// A difference names pages for clearing that were not cleared, and shows only later that it is wrong: ranges are
    /// misordered at its end.
    FalseClear,
}
