//! What the operating system says of a file, in words that tell what to do.

use std::fmt::Display;
use std::io;

use crate::error::{Error, ErrorKind};

/// A file or a folder that is to be written cannot be.
pub(super) fn writing(tried: &str, on: impl Display, error: &io::Error) -> Error {
    let (why, next) = match error.kind() {
        io::ErrorKind::StorageFull => ("no space is left", "free some, then run the same command again"),
        io::ErrorKind::QuotaExceeded => {
            ("the quota is used up", "free some or have it raised, then run the same command again")
        }
        io::ErrorKind::PermissionDenied => {
            ("permission denied", "run as a user who may write there, or write elsewhere")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ("it can only be read", "mount it for writing, or write elsewhere")
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            ("there is no such folder", "make the folder first: mkdir -p")
        }
        io::ErrorKind::FileTooLarge => {
            ("the file system cannot hold so large a file", "write to another file system")
        }
        _ => {
            let why = format!("the operating system says: {error}");
            return Error::new(ErrorKind::Output, tried, why).on(on);
        }
    };
    Error::new(ErrorKind::Output, tried, why).on(on).next(next)
}

/// A file that is to be read cannot be.
pub(super) fn reading(on: impl Display, error: &io::Error) -> Error {
    let tried = "read the image";
    let refuse = |kind, why: &str, next: &str| Error::new(kind, tried, why).on(&on).next(next);
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            refuse(ErrorKind::NotFound, "there is no such file", "check the path: ls -l")
        }
        io::ErrorKind::PermissionDenied => {
            refuse(ErrorKind::SourceUnsuitable, "permission denied", "run as a user who may read it")
        }
        io::ErrorKind::UnexpectedEof => refuse(
            ErrorKind::SourceUnsuitable,
            "it became shorter while it was read",
            "read a file that nobody writes to, then run the same command again",
        ),
        _ => {
            let why = format!("the operating system says: {error}");
            Error::new(ErrorKind::SourceUnsuitable, tried, why).on(on)
        }
    }
}

/// Something that our own callers never ask for.
pub(super) fn defect(tried: &str, on: impl Display, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Internal, tried, why).on(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_output_and_says_what_to_do() {
        for kind in [
            io::ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
            io::ErrorKind::NotFound,
            io::ErrorKind::FileTooLarge,
        ] {
            let error = writing("write the image", "file:d.vhd", &kind.into());
            assert_eq!(error.kind(), ErrorKind::Output);
            assert!(error.advice().is_some(), "{kind}");
        }
        let error = writing("write the image", "file:d.vhd", &io::Error::other("Input/output error"));
        assert_eq!(error.kind(), ErrorKind::Output);
        assert!(error.why().ends_with("Input/output error"));
    }

    #[test]
    fn what_cannot_be_read_is_missing_or_unsuitable() {
        let kind = |kind: io::ErrorKind| reading("file:d.vhd", &kind.into()).kind();
        assert_eq!(kind(io::ErrorKind::NotFound), ErrorKind::NotFound);
        assert_eq!(kind(io::ErrorKind::PermissionDenied), ErrorKind::SourceUnsuitable);
        assert_eq!(kind(io::ErrorKind::UnexpectedEof), ErrorKind::SourceUnsuitable);
        assert_eq!(kind(io::ErrorKind::Other), ErrorKind::SourceUnsuitable);
    }
}
