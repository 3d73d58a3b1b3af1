//! A file that is written as a whole or not at all, and of which it is known beforehand that it can be.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::azure::reply::scrub;
use crate::error::{Error, ErrorKind, Result};

/// A file that is going to be written.
pub(super) struct WholeFile {
    path: PathBuf,
    option: &'static str,
    what: &'static str,
}

impl WholeFile {
    /// A file that is going to be written to `path`, which was given as `option`, with `what` in it. It is tried now: nobody
    /// shall wait for hours to learn that it cannot be.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when nothing can be written there.
    pub(super) fn at(path: &Path, option: &'static str, what: &'static str) -> Result<Self> {
        let file = Self { path: path.to_owned(), option, what };
        if file.path.is_dir() {
            return Err(file.unwritable(&"it is a folder"));
        }
        if file.path.file_name().is_none() {
            return Err(file.unwritable(&"it names no file"));
        }
        let trial = file.beside();
        std::fs::File::create_new(&trial)
            .and_then(|_| std::fs::remove_file(&trial))
            .map_err(|error| file.unwritable(&error))?;
        Ok(file)
    }

    /// All of it or nothing: whoever looks at the path sees the old file or the new one.
    pub(super) fn write(&self, text: &str) -> Result<()> {
        let new = self.beside();
        let written = std::fs::File::create_new(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&new, &self.path));
        if written.is_err() {
            // What is left of it is of no use to anybody.
            let _ = std::fs::remove_file(&new);
        }
        written.map_err(|error| self.unwritable(&error))
    }

    /// A name in the same folder that nobody has.
    fn beside(&self) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
        self.path.with_file_name(name)
    }

    pub(super) fn unwritable(&self, why: &impl ToString) -> Error {
        Error::new(ErrorKind::Output, format!("write the {}", self.what), why.to_string())
            .on(scrub(&self.path.display().to_string()))
            .next(format!("give {} a file in a folder that can be written to", self.option))
    }
}
