//! An image on this machine, read as if the service had exported it: the bytes of a fixed VHD.

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;

use bytes::Bytes;

use super::path::{Format, ImagePath};
use super::storage::read_at;
use super::{blocking, device, failure, sys};
use crate::azure::crc64::Crc64;
use crate::error::{Error, ErrorKind, Result};
use crate::range::{PAGE, PageRange};
use crate::vhd;

/// Azure makes disks only of images whose disk is a whole number of these.
const MIB: u64 = 1 << 20;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Reads a file or a device as the bytes of a fixed VHD. Clones share the open file.
#[derive(Clone, Debug)]
pub struct ImageReader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: ImagePath,
    file: File,
    /// Bytes in the file or on the device.
    held: u64,
    /// Length of the image, with its footer.
    length: u64,
    /// The footer that was made; a VHD file has its own.
    footer: Option<Bytes>,
    seen: Seen,
}

/// What tells a file that was changed from one that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    length: u64,
    modified: (i64, i64),
    /// Changes with the content and with everything else, and nobody sets it back.
    changed: (i64, i64),
    file: (u64, u64),
}

impl ImageReader {
    /// Opens an image.
    ///
    /// A VHD file must end in the footer of a fixed VHD that fits it. To the bytes of a raw file or of a device,
    /// zeros are added up to a whole MiB, and a footer, which is the same whenever a file of this name and
    /// length is opened.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::SourceUnsuitable`] when it is not such an image.
    pub async fn open(path: &ImagePath) -> Result<Self> {
        let path = path.clone();
        blocking(move || Inner::open(path).map(|inner| Self(Arc::new(inner)))).await
    }

    /// Length of the image in bytes, with its footer.
    pub fn length(&self) -> u64 {
        self.0.length
    }

    /// Its file's name, without the folder.
    pub fn name(&self) -> String {
        self.0.path.name()
    }

    /// What was opened.
    pub fn path(&self) -> &ImagePath {
        &self.0.path
    }

    /// Since when it is what it is: the time of its last change, which, unlike that of the last write, cannot be set back.
    /// A device does not say: then it is now.
    pub fn changed(&self) -> jiff::Timestamp {
        if self.0.path.is_device() {
            return jiff::Timestamp::now();
        }
        let (seconds, nanoseconds) = self.0.seen.changed.max(self.0.seen.modified);
        let nanoseconds = i32::try_from(nanoseconds).unwrap_or_default();
        jiff::Timestamp::new(seconds, nanoseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Reads a range. A file that became shorter meanwhile is an error and not zeros.
    pub async fn read(&self, range: PageRange) -> Result<Vec<Bytes>> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.read(range)).await
    }

    /// Where, within a range, the image may hold anything but zeros: in order, apart from each other, the footer
    /// always among them. All of the range where the file system cannot tell.
    pub async fn data_ranges(&self, within: PageRange) -> Result<Vec<PageRange>> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.data_ranges(within)).await
    }

    /// Makes sure that the file is the one that was opened: the same length, times and inode. What was
    /// read is an image of one moment only if this holds after the last read. Of a device only the length shows.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnsuitable`] when it was changed while it was read.
    pub async fn unchanged(&self) -> Result<()> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.unchanged()).await
    }
}

impl Inner {
    fn open(path: ImagePath) -> Result<Self> {
        let failed = |error| failure::reading(&path, &error);
        let file = File::open(path.path()).map_err(failed)?;
        let known = file.metadata().map_err(failed)?;
        let held = held(&file, &known, &path)?;
        if path.is_device() {
            warn_of_use(&path);
        }
        let seen = Seen::of(&known, held);
        let (length, footer) = match path.format() {
            Format::Vhd => {
                check_footer(&file, held, &path)?;
                (held, None)
            }
            Format::Raw => {
                let disk = whole_mib(held).ok_or_else(|| refuse(&path, "it is larger than any disk"))?;
                (disk + PAGE, Some(vhd::footer(disk, unique_id(&path.name())).to_vec().into()))
            }
        };
        Ok(Self { path, file, held, length, footer, seen })
    }

    fn read(&self, range: PageRange) -> Result<Vec<Bytes>> {
        self.check(range)?;
        let mut frames = Vec::with_capacity(2);
        let on_disk = clip(range, 0..self.held);
        if !on_disk.is_empty() {
            frames.push(read_at(&self.file, &on_disk).map_err(|error| failure::reading(&self.path, &error))?);
        }
        if let Some(footer) = &self.footer {
            let disk = self.length - PAGE;
            frames.extend(zeros(clip(range, self.held..disk)));
            if range.end() > disk {
                frames.push(footer.clone());
            }
        }
        Ok(frames)
    }

    fn data_ranges(&self, within: PageRange) -> Result<Vec<PageRange>> {
        self.check(within)?;
        let held = clip(within, 0..self.held);
        let found =
            sys::data(&self.file, held.clone()).map_err(|error| failure::reading(&self.path, &error))?;
        let mut data = found.unwrap_or_else(|| vec![held]);
        data.push(clip(within, self.length - PAGE..self.length));
        Ok(whole_pages(data))
    }

    fn unchanged(&self) -> Result<()> {
        let failed = |error| failure::reading(&self.path, &error);
        // By its name: a file that another one took the place of is no longer the image.
        let now = std::fs::metadata(self.path.path()).map_err(failed)?;
        let same = if self.path.is_device() {
            device::length(&self.file).map_err(failed)? == self.held
        } else {
            let written = self.file.metadata().map_err(failed)?;
            Seen::of(&now, now.len()) == self.seen && Seen::of(&written, written.len()) == self.seen
        };
        if same {
            return Ok(());
        }
        Err(refuse(&self.path, "it was changed while it was read")
            .next("stop what writes to it, or read a copy of it, then run the same command again"))
    }

    fn check(&self, range: PageRange) -> Result<()> {
        if range.end() <= self.length {
            return Ok(());
        }
        let why = format!("{range} is not within its {} bytes", self.length);
        Err(failure::defect("read the image", &self.path, why))
    }
}

impl Seen {
    fn of(known: &Metadata, length: u64) -> Self {
        Self {
            length,
            modified: (known.mtime(), known.mtime_nsec()),
            changed: (known.ctime(), known.ctime_nsec()),
            file: (known.dev(), known.ino()),
        }
    }
}

/// Bytes in the file or on the device.
fn held(file: &File, known: &Metadata, path: &ImagePath) -> Result<u64> {
    let held = if known.file_type().is_block_device() {
        device::length(file).map_err(|error| failure::reading(path, &error))?
    } else if known.is_file() {
        known.len()
    } else {
        return Err(refuse(path, "it is neither a file nor a block device"));
    };
    if held == 0 { Err(refuse(path, "it is empty")) } else { Ok(held) }
}

fn warn_of_use(path: &ImagePath) {
    if let Ok(Some(user)) = device::user_of(path.path()) {
        tracing::warn!("{path}: {user}. What is read while it is written to is no image of one moment");
    }
}

/// A VHD file must be a fixed one, whole, and of pages.
fn check_footer(file: &File, held: u64, path: &ImagePath) -> Result<()> {
    let last = held.checked_sub(PAGE).filter(|disk| *disk > 0 && held.is_multiple_of(PAGE));
    let Some(disk) = last else {
        return Err(refuse(path, format!("{held} bytes are no disk and a footer"))
            .next("for a file with the bytes of a disk and no footer: --format raw"));
    };
    let page = read_at(file, &(disk..held)).map_err(|error| failure::reading(path, &error))?;
    if vhd::is_dynamic(&page) {
        let fixed = path.path().with_extension("fixed.vhd");
        return Err(refuse(path, "it is a dynamic VHD, which holds the disk in another order").next(
            format!(
                "qemu-img convert -f vpc -O vpc -o subformat=fixed,force_size {} {}",
                path.path().display(),
                fixed.display()
            ),
        ));
    }
    match vhd::inspect(&page, held) {
        vhd::Footer::Valid => {}
        vhd::Footer::Absent => {
            return Err(refuse(path, "it does not end in the footer of a VHD")
                .next("for a file with the bytes of a disk and no footer: --format raw"));
        }
        vhd::Footer::Broken(why) => {
            return Err(refuse(path, format!("its footer does not fit: {why}"))
                .next("the file may be cut off or made by another program: qemu-img info -f vpc"));
        }
    }
    if !disk.is_multiple_of(MIB) {
        tracing::warn!(
            "{path}: its disk is not a whole number of MiB, and Azure makes no disk of such an image"
        );
    }
    Ok(())
}

fn refuse(path: &ImagePath, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::SourceUnsuitable, "read the image", why).on(path)
}

/// The next whole MiB, with room for the footer after it.
fn whole_mib(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(MIB).filter(|disk| disk.checked_add(PAGE).is_some())
}

/// An identity for the footer that follows from the name alone, so that the same file makes the same image.
fn unique_id(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (high, low) = bytes.split_at_mut(8);
    high.copy_from_slice(&Crc64::of(name.as_bytes()).value().to_be_bytes());
    low.copy_from_slice(&Crc64::of(format!("snapferry {name}").as_bytes()).value().to_be_bytes());
    uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()
}

/// The part of a range within other bounds; empty when there is none.
fn clip(range: PageRange, bounds: Range<u64>) -> Range<u64> {
    let start = range.start().max(bounds.start);
    start..range.end().min(bounds.end).max(start)
}

/// Zeros, without memory for them.
fn zeros(range: Range<u64>) -> impl Iterator<Item = Bytes> {
    let frame = Bytes::from_static(&ZEROS);
    let starts = range.clone().step_by(ZEROS.len());
    starts
        .map(move |at| frame.slice(..usize::try_from(range.end - at).unwrap_or(ZEROS.len()).min(ZEROS.len())))
}

/// Ranges of bytes in order, as ranges of the pages that they touch, joined where they meet.
fn whole_pages(ranges: Vec<Range<u64>>) -> Vec<PageRange> {
    let mut pages: Vec<PageRange> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        let (start, end) = (range.start - range.start % PAGE, range.end.next_multiple_of(PAGE));
        let joined = pages.pop_if(|last| last.end() >= start);
        let start = joined.map_or(start, PageRange::start);
        let end = joined.map_or(end, |last| last.end().max(end));
        pages.extend(PageRange::new(start, end));
    }
    pages
}

#[cfg(test)]
mod tests;
