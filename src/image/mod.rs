//! Images on this machine: VHD files, raw files and block devices, to be read as a disk is exported and to be
//! written as one is restored.
//!
//! ```text
//!                     what the service exports, and what every range here is in
//!                     ┌─ bytes of the disk ──────────────────────────┬ footer ┐
//!                     └──────────────────────────────────────────────┴────────┘
//!  file, VHD          the same bytes ───────────────────────────────── and this
//!  file, raw          the same bytes ────────────────────┐ read: zeros up to a whole MiB, and a footer is made
//!  block device       the same bytes ────────────────────┘ written: the footer is kept in mind, not on the disk
//!
//!  reader ── path                    writer ─┬─ target    which file is opened, under which name, locked
//!                                            ├─ storage   bytes to their places, zeros, holes
//!                                            ├─ state     how far it came, for the next run
//!                                            └─ device    whether a device is in use
//! ```
//!
//! **Nothing half-written under the final name.** A new file grows under a temporary name beside its final
//! one, and gets that name when all of it is on the disk. What ended before goes on where the state file says:
//! the state is written after the data is on the disk, so it may lag behind, never lead.
//!
//! **In place.** A block device, and a file that is brought up to date, have no temporary name. Between the
//! first write and [`ImageWriter::finish`] they hold neither the old image nor the new.

mod device;
mod failure;
mod path;
mod reader;
mod state;
mod storage;
mod sys;
mod target;
mod writer;

pub use path::{Format, ImagePath};
pub use reader::ImageReader;
pub use writer::{ImageWriter, Resumed, WriterOptions};

use crate::error::{Error, ErrorKind, Result};

/// Runs file I/O where it blocks no task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::new(ErrorKind::Internal, "wait for the file", error.to_string())),
    }
}
