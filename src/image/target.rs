//! The file or device that an image is written to: found fit, opened, locked, given the right length, and known
//! to hold either nothing yet or what a state says.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::path::ImagePath;
use super::state::{State, StateFile, Subject, folder_of};
use super::storage::{Storage, stored};
use super::writer::WriterOptions;
use super::{device, failure, sys};
use crate::error::{Error, ErrorKind, Result};
use crate::range::PAGE;

/// An open target.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) storage: Storage,
    pub(super) subject: Subject,
    pub(super) state: Option<StateFile>,
    /// Its final name.
    pub(super) path: PathBuf,
    /// The name that it has until it is finished; `None` in place.
    pub(super) partial: Option<PathBuf>,
}

/// What is restored, from the caller.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) path: ImagePath,
    pub(super) length: u64,
    pub(super) identity: String,
    pub(super) options: WriterOptions,
}

type Opened<T> = std::result::Result<T, Unopened>;

/// Why a target was not opened.
#[derive(Debug)]
pub(super) enum Unopened {
    /// Somebody has it: another process, or a write of a task in this one that was dropped and has yet to end.
    Held(Error),
    /// Waiting changes nothing.
    Unfit(Error),
}

impl From<Error> for Unopened {
    fn from(error: Error) -> Self {
        Self::Unfit(error)
    }
}

impl Target {
    /// Opens the target, with the state that it goes on from.
    pub(super) fn open(wish: &Wish) -> Opened<(Self, Option<State>)> {
        if wish.length < 2 * PAGE || !wish.length.is_multiple_of(PAGE) {
            let why = format!("no image has {} bytes", wish.length);
            return Err(failure::defect("write the image", &wish.path, why).into());
        }
        let is_device = wish.path.is_device();
        let path = if is_device { wish.path.path().to_owned() } else { behind_link(wish.path.path()) };
        let in_place = is_device || wish.options.in_place;
        let partial = if in_place { None } else { Some(beside(&path, "partial")?) };
        let file = match &partial {
            Some(partial) => new_file(wish, &path, partial)?,
            None => existing(wish, &path)?,
        };
        let which = match file.metadata() {
            Ok(known) if known.is_file() => which(&known),
            Ok(known) => which_device(&path, &known),
            Err(error) => return Err(failure::writing("look at the image", &wish.path, &error).into()),
        };
        let state = match &wish.options.state_file {
            Some(named) => {
                let named = StateFile(named.clone());
                named.refuse_other()?;
                Some(named)
            }
            None if is_device => None,
            None => Some(StateFile(beside(&path, "state")?)),
        };
        let format = wish.path.format();
        let name = wish.path.to_string();
        let storage = Storage::new(file, name, wish.length, format, is_device, wish.options.expected_data);
        let subject = Subject::new(&wish.identity, wish.length, format, in_place, which);
        let target = Self { storage, subject, state, path, partial };
        let resumed = target.prepare()?;
        target.warn_of_space();
        Ok((target, resumed))
    }

    /// Makes the file what the state says, or else what a new one is.
    fn prepare(&self) -> Result<Option<State>> {
        let held = self.held()?;
        let fits = self.partial.is_none() || held == self.storage.stored();
        if let Some(state) = self.state.as_ref().and_then(|file| file.read(&self.subject)).filter(|_| fits) {
            *self.storage.footer() = state.footer().map(Into::into);
            return Ok(Some(state));
        }
        // The old state goes first, for good: it must not describe what is written from here on.
        if let Some(state) = &self.state {
            if state.0.exists() {
                let name = &self.storage.name;
                tracing::info!(
                    "{name}: what an earlier run left is of another restore; this one begins anew"
                );
            }
            state.remove()?;
        }
        if self.partial.is_some() {
            self.resize(0)?;
        }
        if !self.storage.is_device && self.held()? < self.storage.stored() {
            self.resize(self.storage.stored())?;
        }
        Ok(None)
    }

    /// Bytes in the file or on the device.
    pub(super) fn held(&self) -> Result<u64> {
        let file = &self.storage.file;
        let held = if self.storage.is_device {
            device::length(file)
        } else {
            file.metadata().map(|known| known.len())
        };
        held.map_err(|error| failure::writing("look at the image", &self.storage.name, &error))
    }

    fn resize(&self, length: u64) -> Result<()> {
        self.storage.file.set_len(length).map_err(|error| {
            // An empty file that nobody can use is not left lying about.
            if let Some(partial) = &self.partial {
                let _ = self.remove_partial(partial);
            }
            failure::writing("make room for the image", &self.storage.name, &error)
        })
    }

    /// Says early what may happen late. Not an error: the file system may compress, or be one that grows.
    fn warn_of_space(&self) {
        let (Some(expected), Some(_)) = (self.storage.expected(), &self.partial) else { return };
        let (Ok(free), Ok(known)) = (sys::free_bytes(&self.storage.file), self.storage.file.metadata())
        else {
            return;
        };
        let missing = expected.saturating_sub(known.blocks().saturating_mul(512)).saturating_sub(free);
        if missing > 0 {
            let name = &self.storage.name;
            tracing::warn!(
                "{name}: the file system has {free} bytes free, about {missing} fewer than will be written"
            );
        }
    }

    /// Gives the file its final name. It must be whole and on the disk.
    pub(super) fn publish(&self, overwrite: bool) -> Result<()> {
        let Some(partial) = &self.partial else { return Ok(()) };
        let failed = |error| failure::writing("give the image its name", self.path.display(), &error);
        if !is_named(&self.storage.file, partial) {
            let why = format!("{} was renamed or replaced by another process", partial.display());
            return Err(Error::new(ErrorKind::Output, "give the image its name", why)
                .on(self.path.display())
                .next("run the same command again"));
        }
        let renamed =
            if overwrite { fs::rename(partial, &self.path) } else { sys::rename_new(partial, &self.path) };
        match renamed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(&self.path)),
            renamed => renamed.map_err(failed)?,
        }
        sys::sync_folder(folder_of(&self.path)).map_err(failed)
    }

    /// Removes the temporary file, unless the name is another file's by now.
    pub(super) fn remove_partial(&self, partial: &Path) -> Result<()> {
        if !is_named(&self.storage.file, partial) {
            return Ok(());
        }
        fs::remove_file(partial)
            .map_err(|error| failure::writing("remove the unfinished file", partial.display(), &error))
    }
}

/// Opens the temporary file of a new image, and makes sure that this process alone has it.
fn new_file(wish: &Wish, path: &Path, partial: &Path) -> Opened<File> {
    match fs::symlink_metadata(path) {
        Ok(known) if !known.is_file() => {
            return Err(unsuitable(wish, "it is no file").next("name a file: file:disk.vhd").into());
        }
        Ok(_) if !wish.options.overwrite => return Err(exists(path).into()),
        _ => {}
    }
    let failed = |error| failure::writing("make the file", partial.display(), &error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(NO_LINK)
        .open(partial)
        .map_err(failed)?;
    lock(wish, &file)?;
    // Between the opening and the lock, another process may have finished it: then it has its final name.
    if is_named(&file, partial) { Ok(file) } else { Err(held_elsewhere(wish)) }
}

/// Opens a file or device that is written in place.
fn existing(wish: &Wish, path: &Path) -> Opened<File> {
    let is_device = wish.path.is_device();
    let exclusive = is_device && !wish.options.force;
    if exclusive {
        device::refuse_in_use(path)?;
    }
    let flags = if exclusive { EXCLUSIVE } else { 0 };
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, "write to the image", "there is no such file")
                .on(&wish.path)
                .next("check the path: ls -l")
                .into()
        }
        io::ErrorKind::ResourceBusy => {
            let why = "it is in use: mounted, part of a RAID or LVM, or written to by another process";
            Unopened::Held(device::in_use(path, why))
        }
        io::ErrorKind::IsADirectory => unsuitable(wish, "it is a folder").next("name a file in it").into(),
        _ => failure::writing("open the image", &wish.path, &error).into(),
    })?;
    let known = file.metadata().map_err(|error| failure::writing("look at the image", &wish.path, &error))?;
    let is_kind = if is_device { known.file_type().is_block_device() } else { known.is_file() };
    if !is_kind {
        return Err(unsuitable(wish, "it is neither a file nor a block device").into());
    }
    lock(wish, &file)?;
    check_length(wish, &file)?;
    Ok(file)
}

/// A device must have room for the disk. A file that is longer than the image is the image of another disk.
fn check_length(wish: &Wish, file: &File) -> Result<()> {
    let failed = |error| failure::writing("look at the image", &wish.path, &error);
    let needed = stored(wish.length, wish.path.format());
    if wish.path.is_device() {
        let room = device::length(file).map_err(failed)?;
        if room < needed {
            return Err(unsuitable(wish, format!("it has {room} bytes, the disk has {needed}"))
                .next("use a device that is as large as the disk or larger"));
        }
        return Ok(());
    }
    let held = file.metadata().map_err(failed)?.len();
    if held > needed {
        return Err(unsuitable(wish, format!("it has {held} bytes, the image only {needed}"))
            .next("name the file that is an older state of the same disk"));
    }
    Ok(())
}

/// Takes the lock that lasts as long as the file is open.
fn lock(wish: &Wish, file: &File) -> Opened<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(held_elsewhere(wish)),
        Err(TryLockError::Error(error)) => {
            let name = &wish.path;
            tracing::warn!(%error, "{name}: the file system has no locks; run one restore to it at a time");
            Ok(())
        }
    }
}

/// Tells a file from one that was put in its place: its inode, and when that was made, because a number that was
/// given up is soon another file's.
fn which(known: &fs::Metadata) -> String {
    let made = known.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    format!("{} of {}", known.ino(), made.unwrap_or_default().as_nanos())
}

/// A name like /dev/sdb is another device after a restart, or when another one is plugged in.
fn which_device(path: &Path, known: &fs::Metadata) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let number = known.rdev();
    let sequence =
        format!("/sys/dev/block/{}:{}/diskseq", rustix::fs::major(number), rustix::fs::minor(number));
    let sequence = fs::read_to_string(sequence).unwrap_or_default();
    format!("{} {number} {} {}", path.display(), sequence.trim(), boot.trim())
}

/// Whether a name leads to this very file.
fn is_named(file: &File, path: &Path) -> bool {
    let named = fs::symlink_metadata(path).map(|known| (known.dev(), known.ino()));
    let open = file.metadata().map(|known| (known.dev(), known.ino()));
    matches!((named, open), (Ok(named), Ok(open)) if named == open)
}

/// `.disk.vhd.snapferry-WHAT`, beside `disk.vhd`.
fn beside(path: &Path, what: &str) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let why = "the name of the file is missing";
        return Err(Error::new(ErrorKind::Usage, "write the image", why).on(path.display()));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".snapferry-{what}"));
    Ok(folder_of(path).join(hidden))
}

/// The file that a link leads to: it is replaced there, and the link stays.
fn behind_link(path: &Path) -> PathBuf {
    let is_link = fs::symlink_metadata(path).is_ok_and(|known| known.is_symlink());
    let target = if is_link { fs::canonicalize(path).ok() } else { None };
    target.unwrap_or_else(|| path.to_owned())
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::TargetExists, "write the image", "there is a file of this name")
        .on(path.display())
        .next("name another file, move this one away, or add --overwrite to replace it")
}

fn unsuitable(wish: &Wish, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::TargetUnsuitable, "write to the image", why).on(&wish.path)
}

fn held_elsewhere(wish: &Wish) -> Unopened {
    let held = Error::new(ErrorKind::LeaseHeld, "write to the image", "another process is writing to it");
    Unopened::Held(held.on(&wish.path).next("wait until it has ended, then run the same command again"))
}

/// A device is opened exclusively: Linux refuses that while it is mounted.
const EXCLUSIVE: i32 = rustix::fs::OFlags::EXCL.bits().cast_signed();
/// A link under the temporary name was put there by somebody else and is not followed.
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
