//! Writes an image to this machine, in any order and many ranges at once, so that a run that was ended goes on.
//!
//! ```text
//! open     refuse what is unfit, lock, go on from the state or begin anew
//! write    bytes to their place            zero   a hole, or zeros where holes cannot be punched
//! note     data to the disk, then the state: in this order, so the state never leads
//! finish   data to the disk, the final name, the folder, and no state any more
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep};

use super::path::ImagePath;
use super::state::State;
use super::target::{Target, Unopened, Wish};
use super::{blocking, failure};
use crate::error::{Error, ErrorKind, Result};
use crate::range::PageRange;

/// How long a target that is held is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// How an image is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterOptions {
    /// A file of the final name is replaced, when all of the new one is there.
    pub overwrite: bool,
    /// An existing file is written where it is, without a temporary name. A device always is.
    pub in_place: bool,
    /// A device is written to even if it is mounted or otherwise in use.
    pub force: bool,
    /// About how many bytes of data there will be, to warn of a file system with too little room.
    pub expected_data: Option<u64>,
    /// Where the state is kept. By default beside a file, and nowhere for a device.
    pub state_file: Option<PathBuf>,
}

/// Where an image that is written goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It begins: a new file is all zeros; in place, the bytes are whatever they were.
    Fresh,
    /// All that was written before this checkpoint was noted is there; what was written after it may be.
    At(String),
}

/// An image that is being written, by all clones of it. Dropped without [`ImageWriter::finish`], it can be gone on with.
#[derive(Clone, Debug)]
pub struct ImageWriter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Target,
    overwrite: bool,
    /// Whether it may still be written to. A write whose task was dropped may be under way, or still to come,
    /// when the image is finished.
    is_open: RwLock<bool>,
    /// One note at a time, so that an older one does not replace a newer one.
    noting: Mutex<()>,
    /// Whether the disk once failed to take the data. It is then not asked again: Linux may have dropped what
    /// it could not write, and say next time that all is well.
    is_broken: AtomicBool,
}

impl ImageWriter {
    /// Opens a target for an image of `length` bytes, its footer included.
    ///
    /// `identity` says what is restored. A run that was ended goes on if it wrote the same identity, length and
    /// format to the same file; otherwise it begins anew.
    ///
    /// # Errors
    /// Before anything is written: [`ErrorKind::TargetExists`], [`ErrorKind::TargetUnsuitable`],
    /// [`ErrorKind::LeaseHeld`] when another process is writing to it and does not end within a few seconds,
    /// [`ErrorKind::Output`] when the folder is missing or cannot be written to, [`ErrorKind::NotFound`] when there is
    /// nothing to be written in place.
    pub async fn open(
        path: &ImagePath,
        length: u64,
        identity: &str,
        options: WriterOptions,
    ) -> Result<(Self, Resumed)> {
        let overwrite = options.overwrite;
        let wish = Wish { path: path.clone(), length, identity: identity.to_owned(), options };
        let (target, state) = open_patiently(wish).await?;
        let (is_open, noting, is_broken) = (RwLock::new(true), Mutex::new(()), AtomicBool::new(false));
        let writer = Self(Arc::new(Inner { target, overwrite, is_open, noting, is_broken }));
        Ok((writer, state.map_or(Resumed::Fresh, |state| Resumed::At(state.checkpoint))))
    }

    /// Length of the image, with its footer.
    pub fn length(&self) -> u64 {
        self.0.target.storage.length
    }

    /// The final name, or the device.
    pub fn path(&self) -> &Path {
        &self.0.target.path
    }

    /// Whether what this restore has not written reads as zeros, so that gaps need no [`zero`](Self::zero): so
    /// it is in a new file, also when it is gone on with, and not in place.
    pub fn gaps_are_zero(&self) -> bool {
        self.0.target.partial.is_some()
    }

    /// Writes `frames`, one after the other, to `range`. Many ranges can be written at once.
    ///
    /// The footer of a raw image has no place in the file: it is kept in mind for [`read`](Self::read) and in
    /// the state.
    pub async fn write(&self, range: PageRange, frames: &[Bytes]) -> Result<()> {
        let (inner, frames) = (Arc::clone(&self.0), frames.to_vec());
        blocking(move || inner.change(|target| target.storage.write(range, frames))).await
    }

    /// Makes `range` read as zeros, whatever it held: by a hole where that can be, otherwise by writing them.
    pub async fn zero(&self, range: PageRange) -> Result<()> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.change(|target| target.storage.zero(range))).await
    }

    /// Reads `range` back. The footer of a raw image is the one that was last written, in this run or before the
    /// checkpoint that it goes on from; before that it is zeros, which no footer is.
    pub async fn read(&self, range: PageRange) -> Result<Vec<Bytes>> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.target.storage.read(range)).await
    }

    /// Notes a checkpoint: all writes that had returned before this call are on the disk when the next run is
    /// told of it. What the text means is the caller's.
    pub async fn note(&self, checkpoint: &str) -> Result<()> {
        let (inner, checkpoint) = (Arc::clone(&self.0), checkpoint.to_owned());
        blocking(move || inner.change(|_| inner.note(checkpoint))).await
    }

    /// Ends the image: all of it is on the disk, under its final name, and the state is gone. Returns where.
    ///
    /// # Errors
    /// [`ErrorKind::TargetExists`] when a file of that name appeared meanwhile; nothing is lost, and the next
    /// run goes on.
    pub async fn finish(self) -> Result<PathBuf> {
        blocking(move || self.0.close(Inner::finish)).await
    }

    /// Gives it up: removes the temporary file and the state. What was written in place stays written.
    pub async fn discard(self) -> Result<()> {
        blocking(move || self.0.close(Inner::discard)).await
    }
}

/// Opens a target. One that is held is asked for again for a while: of a run that was ended, a write may still be
/// under way, and the lock lasts as long as that.
async fn open_patiently(wish: Wish) -> Result<(Target, Option<State>)> {
    let (wish, until) = (Arc::new(wish), Instant::now() + PATIENCE);
    loop {
        let wish = Arc::clone(&wish);
        match blocking(move || Ok(Target::open(&wish))).await? {
            Ok(opened) => return Ok(opened),
            Err(Unopened::Held(_)) if Instant::now() < until => sleep(ASKED_EVERY).await,
            Err(Unopened::Held(error) | Unopened::Unfit(error)) => return Err(error),
        }
    }
}

impl Inner {
    /// Does something to the target, unless it is closed.
    fn change<T>(&self, change: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
        let is_open = self.is_open.read().unwrap_or_else(PoisonError::into_inner);
        if *is_open {
            return change(&self.target);
        }
        Err(failure::defect("write the image", &self.target.storage.name, "it is finished already"))
    }

    /// Waits for what is under way, then does the last thing that is done.
    fn close<T>(&self, last: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let mut is_open = self.is_open.write().unwrap_or_else(PoisonError::into_inner);
        *is_open = false;
        last(self)
    }

    fn note(&self, checkpoint: String) -> Result<()> {
        let _one = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        self.sync()?;
        let Some(file) = &self.target.state else { return Ok(()) };
        let footer = self.target.storage.footer().clone();
        file.write(&State::new(self.target.subject.clone(), checkpoint, footer.as_deref()))
    }

    fn finish(&self) -> Result<PathBuf> {
        self.sync()?;
        let (held, needed) = (self.target.held()?, self.target.storage.stored());
        if held != needed && !self.target.storage.is_device {
            let why = format!("another process made it {held} bytes long instead of {needed}");
            return Err(Error::new(ErrorKind::Output, "finish the image", why)
                .on(&self.target.storage.name)
                .next("run the same command again: it begins anew"));
        }
        self.target.publish(self.overwrite)?;
        if let Some(state) = &self.target.state {
            state.remove()?;
        }
        Ok(self.target.path.clone())
    }

    fn discard(&self) -> Result<()> {
        if let Some(partial) = &self.target.partial {
            self.target.remove_partial(partial)?;
        }
        self.target.state.as_ref().map_or(Ok(()), super::state::StateFile::remove)
    }

    /// Brings the data to the disk.
    fn sync(&self) -> Result<()> {
        let storage = &self.target.storage;
        if self.is_broken.load(Ordering::Relaxed) {
            let why = "the disk failed before, and what it lost is not known";
            return Err(Error::new(ErrorKind::Output, "bring the image to the disk", why)
                .on(&storage.name)
                .next("run the same command again: it goes on from the last checkpoint"));
        }
        storage.file.sync_data().map_err(|error| {
            self.is_broken.store(true, Ordering::Relaxed);
            failure::writing("bring the image to the disk", &storage.name, &error)
        })
    }
}

#[cfg(test)]
mod tests;
