//! How far a restore to this machine came: a small file beside the target, for the run that goes on.
//!
//! It is replaced as a whole, so it is the old one or the new one and never half of each.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::path::Format;
use super::{failure, sys};
use crate::error::{Error, ErrorKind, Result};

const VERSION: u32 = 1;

/// What is restored, and into which file. A state that says anything else is of another restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subject {
    version: u32,
    /// What is restored, as the caller names it.
    identity: String,
    /// Length of the image, with its footer.
    length: u64,
    format: Format,
    in_place: bool,
    /// Which file or device is written: one that was put in its place begins anew.
    file: String,
}

impl Subject {
    pub(super) fn new(identity: &str, length: u64, format: Format, in_place: bool, file: String) -> Self {
        Self { version: VERSION, identity: identity.to_owned(), length, format, in_place, file }
    }
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    #[serde(flatten)]
    pub(super) subject: Subject,
    /// Everything up to here is on the disk; what it means is the caller's.
    pub(super) checkpoint: String,
    /// The footer of a raw target, which has no room for it, in Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    footer: Option<String>,
}

impl State {
    pub(super) fn new(subject: Subject, checkpoint: String, footer: Option<&[u8]>) -> Self {
        Self { subject, checkpoint, footer: footer.map(|bytes| BASE64.encode(bytes)) }
    }

    pub(super) fn footer(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.footer.as_ref()?).ok()
    }
}

/// Where the state is.
#[derive(Clone, Debug)]
pub(super) struct StateFile(pub(super) PathBuf);

impl StateFile {
    /// The state of `subject`, if that is what the file holds. Anything else is no state to go on from.
    pub(super) fn read(&self, subject: &Subject) -> Option<State> {
        let text = fs::read(&self.0).ok()?;
        let state: State = serde_json::from_slice(&text).ok()?;
        (state.subject == *subject).then_some(state)
    }

    /// A file that holds anything but a state is somebody's, and is not replaced.
    pub(super) fn refuse_other(&self) -> Result<()> {
        let is_other = fs::read(&self.0)
            .is_ok_and(|held| !held.is_empty() && serde_json::from_slice::<State>(&held).is_err());
        if !is_other {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Usage,
            "use the state file",
            "it holds something else than the state of a restore",
        )
        .on(self.0.display())
        .next("name a file that does not exist: --state-file restore.state"))
    }

    /// Replaces the state.
    pub(super) fn write(&self, state: &State) -> Result<()> {
        self.replace(state)
            .map_err(|error| failure::writing("write the state file", self.0.display(), &error))
    }

    fn replace(&self, state: &State) -> io::Result<()> {
        let mut name = self.0.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.0)?;
        sys::sync_folder(folder_of(&self.0))
    }

    /// Removes the state, for good: it does not come back after a power cut.
    pub(super) fn remove(&self) -> Result<()> {
        let removed = match fs::remove_file(&self.0) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Ok(()) => sys::sync_folder(folder_of(&self.0)),
            failed => failed,
        };
        removed.map_err(|error| failure::writing("remove the state file", self.0.display(), &error))
    }
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn subject() -> Subject {
        Subject::new("disk@point", 1 << 20, Format::Raw, false, "7".to_owned())
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_only_by_its_own_subject() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile(folder.path().join("state"));
        assert_eq!(file.read(&subject()), None);
        for footer in [None, Some(&[5_u8; 512][..])] {
            let state = State::new(subject(), "offset 4096 \u{fc}".to_owned(), footer);
            file.write(&state).unwrap();
            assert_eq!(file.read(&subject()), Some(state.clone()));
            assert_eq!(state.footer().as_deref(), footer);
        }
        for other in [
            Subject::new("disk@other", 1 << 20, Format::Raw, false, "7".to_owned()),
            Subject::new("disk@point", 2 << 20, Format::Raw, false, "7".to_owned()),
            Subject::new("disk@point", 1 << 20, Format::Vhd, false, "7".to_owned()),
            Subject::new("disk@point", 1 << 20, Format::Raw, true, "7".to_owned()),
            Subject::new("disk@point", 1 << 20, Format::Raw, false, "8".to_owned()),
        ] {
            assert_eq!(file.read(&other), None);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.read(&subject()), None);
    }

    #[test]
    fn garbage_is_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile(folder.path().join("state"));
        for garbage in ["", "{}", "[1]", "{\"version\":2}", "\0\0\0"] {
            fs::write(&file.0, garbage).unwrap();
            assert_eq!(file.read(&subject()), None);
        }
    }

    #[test]
    fn the_folder_of_a_bare_name_is_this_one() {
        assert_eq!(folder_of(Path::new("disk.vhd")), Path::new("."));
        assert_eq!(folder_of(Path::new("/disk.vhd")), Path::new("/"));
        assert_eq!(folder_of(Path::new("a/disk.vhd")), Path::new("a"));
    }
}
