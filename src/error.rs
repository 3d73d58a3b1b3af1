//! Errors as a person or a scheduler needs them: what was tried, on what, why it failed, whether trying again
//! helps, and what to type next.

use std::fmt;

/// The result of everything that the engine does.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it. Every kind has its own exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect of snapferry itself.
    Internal,
    /// An argument, an environment variable or a URL that cannot be used as written.
    Usage,
    /// The service refused the SAS or the token: expired, revoked, or made for something else.
    AccessDenied,
    /// The SAS or the role is valid but lacks a permission.
    PermissionMissing,
    /// A snapshot, blob, container or account that does not exist.
    NotFound,
    /// The source is not a page blob with the image of a disk.
    SourceUnsuitable,
    /// The disk does not fit into one page blob (8 TiB including the footer).
    TooLarge,
    /// The disk grew across 4 TiB between the two snapshots: Azure cannot diff them.
    GrowthAcross4Tib,
    /// The previous snapshot is not older than the source.
    SnapshotOrder,
    /// The two snapshots are not of one family, so they cannot be diffed.
    DifferentFamilies,
    /// A difference was asked for, but the base blob does not exist.
    BaseMissing,
    /// The base blob is in the middle of another step, or carries no marker of ours.
    BaseNotClean,
    /// The base blob is clean at another snapshot than the previous one.
    BaseElsewhere,
    /// The base blob and the previous snapshot have different sizes.
    BaseSizeMismatch,
    /// Somebody wrote to the base blob after its last point was sealed.
    BaseModified,
    /// A full copy was asked for, but the target exists.
    TargetExists,
    /// Another writer holds the lease on the base blob.
    LeaseHeld,
    /// The lease or the generation was lost in the middle of a run: another writer took over.
    LeaseLost,
    /// The service or the network did not recover within the time budget.
    Unavailable,
    /// Bytes did not match their checksum, or what was written is not what was planned.
    Corruption,
    /// The service answered what its protocol does not allow.
    Protocol,
    /// Our own output could not be written.
    Output,
    /// Plain http to a host that is not this machine.
    Insecure,
    /// The service refuses because of the state of the blob or the account: immutability, limits, a pending copy.
    Refused,
    /// A SAS is out for a snapshot that is to be read, and it may be somebody else's.
    SasOut,
    /// Two images that should be equal are not: a point and its source or record.
    Differs,
    /// A disk, device or file cannot be restored to as it is: its size, its state, its kind.
    TargetUnsuitable,
    /// A benchmark is slower than the one before it, by more than was allowed.
    Slower,
    /// Ended by the user.
    Interrupted,
}

/// Whether trying the same thing again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It passes by itself: the same command later goes on.
    Passes,
    /// Somebody has to change something first.
    NeedsUser,
    /// A defect, here or in the service: report it.
    Bug,
}

impl ErrorKind {
    /// Every kind, in the order of the exit codes.
    pub const ALL: [Self; 29] = [
        Self::Internal,
        Self::Usage,
        Self::AccessDenied,
        Self::PermissionMissing,
        Self::NotFound,
        Self::SourceUnsuitable,
        Self::TooLarge,
        Self::GrowthAcross4Tib,
        Self::SnapshotOrder,
        Self::DifferentFamilies,
        Self::BaseMissing,
        Self::BaseNotClean,
        Self::BaseElsewhere,
        Self::BaseSizeMismatch,
        Self::BaseModified,
        Self::TargetExists,
        Self::LeaseHeld,
        Self::LeaseLost,
        Self::Unavailable,
        Self::Corruption,
        Self::Protocol,
        Self::Output,
        Self::Insecure,
        Self::Refused,
        Self::SasOut,
        Self::Differs,
        Self::TargetUnsuitable,
        Self::Slower,
        Self::Interrupted,
    ];

    /// The process exit code of this kind. Part of the public interface: a number is never reused.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::AccessDenied => 3,
            Self::PermissionMissing => 4,
            Self::NotFound => 5,
            Self::SourceUnsuitable => 6,
            Self::TooLarge => 7,
            Self::GrowthAcross4Tib => 8,
            Self::SnapshotOrder => 9,
            Self::DifferentFamilies => 10,
            Self::BaseMissing => 11,
            Self::BaseNotClean => 12,
            Self::BaseElsewhere => 13,
            Self::BaseSizeMismatch => 14,
            Self::BaseModified => 15,
            Self::TargetExists => 16,
            Self::LeaseHeld => 17,
            Self::LeaseLost => 18,
            Self::Unavailable => 19,
            Self::Corruption => 20,
            Self::Protocol => 21,
            Self::Output => 22,
            Self::Insecure => 23,
            Self::Refused => 24,
            Self::SasOut => 25,
            Self::Differs => 26,
            Self::TargetUnsuitable => 27,
            Self::Slower => 28,
            Self::Interrupted => 130,
        }
    }

    /// The stable name of this kind, as in JSON and in the README.
    pub fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::AccessDenied => "access-denied",
            Self::PermissionMissing => "permission-missing",
            Self::NotFound => "not-found",
            Self::SourceUnsuitable => "source-unsuitable",
            Self::TooLarge => "too-large",
            Self::GrowthAcross4Tib => "growth-across-4tib",
            Self::SnapshotOrder => "snapshot-order",
            Self::DifferentFamilies => "different-families",
            Self::BaseMissing => "base-missing",
            Self::BaseNotClean => "base-not-clean",
            Self::BaseElsewhere => "base-elsewhere",
            Self::BaseSizeMismatch => "base-size-mismatch",
            Self::BaseModified => "base-modified",
            Self::TargetExists => "target-exists",
            Self::LeaseHeld => "lease-held",
            Self::LeaseLost => "lease-lost",
            Self::Unavailable => "unavailable",
            Self::Corruption => "corruption",
            Self::Protocol => "protocol",
            Self::Output => "output",
            Self::Insecure => "insecure",
            Self::Refused => "refused",
            Self::SasOut => "sas-out",
            Self::Differs => "differs",
            Self::TargetUnsuitable => "target-unsuitable",
            Self::Slower => "slower",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether the same command can succeed later.
    pub fn remedy(self) -> Remedy {
        match self {
            Self::Internal | Self::Protocol => Remedy::Bug,
            Self::LeaseHeld
            | Self::LeaseLost
            | Self::Unavailable
            | Self::Corruption
            | Self::SasOut
            | Self::Interrupted => Remedy::Passes,
            _ => Remedy::NeedsUser,
        }
    }
}

impl Remedy {
    /// One sentence for the person who reads the error.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Passes => "the same command can succeed when it is run again",
            Self::NeedsUser => "the same command fails again until something is changed",
            Self::Bug => "this is a defect: please report it with the text above",
        }
    }

    /// The stable name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::NeedsUser => "needs-user",
            Self::Bug => "bug",
        }
    }
}

/// An error with everything that is known about it. It never holds a SAS, a key or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    tried: String,
    on: Option<String>,
    why: String,
    next: Option<String>,
}

impl Error {
    /// An error of `kind` while trying to `tried` (an infinitive: "read the source snapshot").
    pub fn new(kind: ErrorKind, tried: impl Into<String>, why: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, tried: tried.into(), on: None, why: why.into(), next: None }))
    }

    /// Names what it was tried on. Must be free of secrets.
    #[must_use]
    pub fn on(mut self, what: impl fmt::Display) -> Self {
        self.0.on = Some(what.to_string());
        self
    }

    /// Names the next thing to do, at best a command.
    #[must_use]
    pub fn next(mut self, advice: impl Into<String>) -> Self {
        self.0.next = Some(advice.into());
        self
    }

    /// The kind, which decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was tried.
    pub fn tried(&self) -> &str {
        &self.0.tried
    }

    /// What it was tried on, without secrets.
    pub fn subject(&self) -> Option<&str> {
        self.0.on.as_deref()
    }

    /// Why it failed.
    pub fn why(&self) -> &str {
        &self.0.why
    }

    /// What to do next.
    pub fn advice(&self) -> Option<&str> {
        self.0.next.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.0.tried)?;
        if let Some(on) = &self.0.on {
            write!(f, " ({on})")?;
        }
        write!(f, ": {}", self.0.why)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_its_own_exit_code_and_name() {
        let codes: HashSet<u8> = ErrorKind::ALL.iter().map(|kind| kind.exit_code()).collect();
        let names: HashSet<&str> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert_eq!(names.len(), ErrorKind::ALL.len());
        assert!(!codes.contains(&0));
    }
}
