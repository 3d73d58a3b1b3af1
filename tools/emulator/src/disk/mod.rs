//! A managed disk and its snapshots.
//!
//! The disk is a page blob that no client sees, in an export account of its own: the raw bytes and a VHD footer. Its
//! incremental snapshots are snapshots of that blob, which is why their URLs differ only in their query. A full snapshot
//! is a blob of its own, and so is what a SAS for the disk itself opens.

mod hidden;
mod snapshot;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(crate) use self::hidden::{HiddenBlob, OF_FULL, OF_INCREMENTAL};
pub use self::snapshot::DiskSnapshot;

use crate::arm::{DiskEntry, NewDisk, NewSnapshot};
use crate::generate::{Generator, Pattern};
use crate::range::PAGE;
use crate::service::Service;
use crate::store::pages::{BLOCK, PageData, Pages};
use crate::vhd::{BadFooter, FOOTER, Footer};

/// How much of a file is read and compared at a time.
const FILE_STEP: u64 = 1 << 20;

/// The largest disk.
const SIZE_LIMIT: u64 = 64 << 40;

/// A disk cannot be made, or not be changed like that.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Another disk has that name.
    #[error("there is a disk named '{0}' already")]
    Exists(String),
    /// Disks are made of sectors of 512 bytes.
    #[error("{0} is not a multiple of 512")]
    Unaligned(u64),
    /// No service has such disks.
    #[error("{0} bytes are more than the 64 TiB that a disk may have")]
    TooLarge(u64),
    /// The range is not inside the disk.
    #[error("the range from {start} to {end} is not inside the disk of {length} bytes")]
    OutOfRange {
        /// First byte.
        start: u64,
        /// The byte after the last.
        end: u64,
        /// Bytes of the disk.
        length: u64,
    },
    /// Disks never shrink.
    #[error("the disk has {0} bytes and cannot shrink")]
    Shrinks(u64),
    /// Generated disks are made of whole blocks.
    #[error("{0} is not a multiple of 64 KiB, as the size of a generated disk is")]
    Uneven(u64),
    /// The pattern names more data than there is room for.
    #[error(
        "a disk of {bytes} bytes has no room for '{pattern}': extents of whole sectors that do not touch"
    )]
    DoesNotFit {
        /// What was asked for.
        pattern: Pattern,
        /// Bytes of the disk.
        bytes: u64,
    },
    /// A file to be applied is not as large as the disk.
    #[error("the file holds {file} bytes of disk, but the disk has {disk}")]
    OtherSize {
        /// Bytes of the file, without a footer.
        file: u64,
        /// Bytes of the disk.
        disk: u64,
    },
    /// The file is no fixed VHD.
    #[error("not a fixed VHD: {0}")]
    Vhd(#[from] BadFooter),
    /// The file cannot be read.
    #[error("cannot read the file: {0}")]
    File(#[from] io::Error),
}

/// A managed disk. Lengths and offsets are in bytes and without the footer.
#[derive(Clone)]
pub struct Disk {
    service: Arc<Service>,
    entry: Arc<DiskEntry>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Disk").field("id", &self.arm_id()).finish_non_exhaustive()
    }
}

impl Disk {
    /// A disk of `bytes` that holds nothing.
    pub(crate) fn create(
        service: Arc<Service>,
        group: &str,
        name: &str,
        bytes: u64,
    ) -> Result<Disk, DiskError> {
        let unique_id = service.fresh_id().into_bytes();
        let footer = Footer::new(bytes, service.clock.now().seconds(), unique_id);
        Disk::with_footer(service, group, name, bytes, &footer)
    }

    /// A disk with the content of a raw file; blocks of zeros hold nothing.
    pub(crate) fn load_raw(
        service: Arc<Service>,
        group: &str,
        name: &str,
        path: &Path,
    ) -> Result<Disk, DiskError> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let disk = Disk::create(service, group, name, bytes)?;
        disk.apply_file(&mut file, bytes)?;
        Ok(disk)
    }

    /// A disk with content and footer of a fixed VHD.
    pub(crate) fn load_vhd(
        service: Arc<Service>,
        group: &str,
        name: &str,
        path: &Path,
    ) -> Result<Disk, DiskError> {
        let mut file = File::open(path)?;
        let (bytes, footer) = read_footer(&mut file)?;
        let disk = Disk::with_footer(service, group, name, bytes, &footer)?;
        disk.apply_file(&mut file, bytes)?;
        Ok(disk)
    }

    /// A disk whose content is computed.
    pub(crate) fn generate(
        service: Arc<Service>,
        group: &str,
        name: &str,
        bytes: u64,
        (base, changes): (Pattern, Pattern),
    ) -> Result<Disk, DiskError> {
        check_size(bytes)?;
        if !bytes.is_multiple_of(BLOCK) {
            return Err(DiskError::Uneven(bytes));
        }
        if let Some(pattern) = [base, changes].into_iter().find(|pattern| !pattern.fits(bytes)) {
            return Err(DiskError::DoesNotFit { pattern, bytes });
        }
        let seed = service.store.derived_seed("generated disk", name);
        let generator = Generator::new(seed, bytes, base, changes);
        let unique_id = service.fresh_id().into_bytes();
        let footer = Footer::new(bytes, service.clock.now().seconds(), unique_id);
        Disk::with_pages_and_footer(
            service,
            (group, name),
            Pages::generated(bytes + FOOTER, bytes, generator),
            &footer,
        )
    }

    /// A disk that management knows already.
    pub(crate) fn of(service: Arc<Service>, entry: Arc<DiskEntry>) -> Disk {
        Disk { service, entry }
    }

    fn with_footer(
        service: Arc<Service>,
        group: &str,
        name: &str,
        bytes: u64,
        footer: &Footer,
    ) -> Result<Disk, DiskError> {
        check_size(bytes)?;
        Disk::with_pages_and_footer(service, (group, name), Pages::new(bytes + FOOTER), footer)
    }

    /// The footer goes to the last page.
    fn with_pages_and_footer(
        service: Arc<Service>,
        (group, name): (&str, &str),
        mut pages: Pages,
        footer: &Footer,
    ) -> Result<Disk, DiskError> {
        pages.write(&PageData::of(pages.len() - FOOTER, footer.bytes()));
        let entry = service.arm.lock().add_disk(&service, NewDisk::plain(group, name, pages));
        let entry = entry.ok_or_else(|| DiskError::Exists(name.to_owned()))?;
        Ok(Disk { service, entry })
    }

    /// The disk's name.
    pub fn name(&self) -> &str {
        &self.entry.id.name
    }

    /// The id of its resource: `/subscriptions/.../resourceGroups/.../providers/Microsoft.Compute/disks/...`.
    pub fn arm_id(&self) -> String {
        self.service.arm.id_of(&self.entry.id)
    }

    /// What tells it apart from a disk that had its name before.
    pub fn unique_id(&self) -> String {
        self.entry.unique_id.to_string()
    }

    /// Bytes of the disk.
    #[allow(clippy::len_without_is_empty, reason = "a disk is never empty in that sense")]
    pub fn len(&self) -> u64 {
        self.with_pages(|pages| pages.len() - FOOTER)
    }

    /// Writes whole sectors.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let range = self.sectors(offset, bytes.len() as u64)?;
        let data = PageData::of(range.start, bytes);
        self.with_pages(|pages| pages.write(&data));
        Ok(())
    }

    /// Gives whole sectors back, as a guest does with an unmap: they hold nothing then.
    pub fn clear(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let range = self.sectors(offset, length)?;
        self.with_pages(|pages| pages.clear(range));
        Ok(())
    }

    /// The bytes from `offset` on, at most `length`: fewer if the disk ends before.
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        self.with_pages(|pages| read_clipped(pages, pages.len() - FOOTER, offset, length))
    }

    /// `diskState`, such as `Unattached`, `ReadyToUpload`, `ActiveUpload` or `ActiveSAS`.
    pub fn state(&self) -> &'static str {
        self.entry.state_text(self.service.clock.now())
    }

    /// Bytes of the disk's image: the disk and its footer.
    pub fn image_len(&self) -> u64 {
        self.entry.with_image(|pages| pages.len())
    }

    /// The bytes of the disk's image from `offset` on, at most `length`. While an upload is not complete, they are what
    /// has arrived of it.
    pub fn read_image(&self, offset: u64, length: u64) -> Vec<u8> {
        self.entry.with_image(|pages| read_clipped(pages, pages.len(), offset, length))
    }

    /// Makes the disk larger; its footer moves to the new end.
    pub fn grow(&self, bytes: u64) -> Result<(), DiskError> {
        check_size(bytes)?;
        self.with_pages(|pages| {
            let old = pages.len() - FOOTER;
            if bytes < old {
                return Err(DiskError::Shrinks(old));
            }
            if bytes > old {
                let mut footer = [0; 512];
                footer.copy_from_slice(&pages.view(old..old + FOOTER).to_vec());
                let footer = Footer::parse(&footer, old)?.resized(bytes);
                pages.grow_with_footer(bytes + FOOTER, footer.bytes());
            }
            Ok(())
        })
    }

    /// Makes the disk hold what a raw file of its size holds, by writing the sectors that differ. Sectors that became zero
    /// are written as zeros, so they are reported as data. Returns the bytes written.
    pub fn apply_raw(&self, path: &Path) -> Result<u64, DiskError> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        self.apply_sized(&mut file, bytes)
    }

    /// The same with a fixed VHD, whose footer is checked and left alone.
    pub fn apply_vhd(&self, path: &Path) -> Result<u64, DiskError> {
        let mut file = File::open(path)?;
        let (bytes, _) = read_footer(&mut file)?;
        self.apply_sized(&mut file, bytes)
    }

    /// Takes an incremental snapshot. Its time is later than that of any snapshot before. Its resource is in the disk's
    /// resource group, and is named `<disk>-<n>`, counted from 1.
    pub fn snapshot(&self) -> DiskSnapshot {
        self.take(NewSnapshot::numbered())
    }

    /// The same with another name. A snapshot that has it already is deleted first.
    pub fn snapshot_named(&self, name: &str) -> DiskSnapshot {
        self.take(NewSnapshot::named(name))
    }

    /// Takes a full snapshot: a blob of its own, which cannot be compared with anything.
    pub fn full_snapshot_named(&self, name: &str) -> DiskSnapshot {
        self.take(NewSnapshot { incremental: false, ..NewSnapshot::named(name) })
    }

    /// Deletes the disk's resource. Its snapshots stay and can be read; its name can be used again, for another disk.
    pub fn delete(&self) {
        self.service.arm.lock().remove_disk(&self.entry);
    }

    fn take(&self, new: NewSnapshot) -> DiskSnapshot {
        let service = &self.service;
        let entry = service.arm.lock().snapshot_disk(service, &self.entry, new);
        DiskSnapshot::of(Arc::clone(service), entry)
    }

    fn apply_sized(&self, file: &mut File, bytes: u64) -> Result<u64, DiskError> {
        let disk = self.len();
        if bytes != disk {
            return Err(DiskError::OtherSize { file: bytes, disk });
        }
        self.apply_file(file, bytes)
    }

    fn apply_file(&self, file: &mut File, bytes: u64) -> Result<u64, DiskError> {
        file.seek(SeekFrom::Start(0))?;
        let mut written = 0;
        let mut offset = 0;
        let mut step = vec![0; usize::try_from(FILE_STEP.min(bytes)).unwrap_or_default()];
        while offset < bytes {
            let length = usize::try_from((bytes - offset).min(FILE_STEP)).unwrap_or_default();
            let wanted = &mut step[..length];
            file.read_exact(wanted)?;
            let present = self.read(offset, wanted.len() as u64);
            for run in differing_runs(wanted, &present) {
                self.write(offset + run.start as u64, &wanted[run.clone()])?;
                written += run.len() as u64;
            }
            offset += length as u64;
        }
        Ok(written)
    }

    fn sectors(&self, start: u64, bytes: u64) -> Result<Range<u64>, DiskError> {
        check_aligned(start)?;
        check_aligned(bytes)?;
        let (end, length) = (start.saturating_add(bytes), self.len());
        if end > length {
            return Err(DiskError::OutOfRange { start, end, length });
        }
        Ok(start..end)
    }

    fn with_pages<T>(&self, act: impl FnOnce(&mut Pages) -> T) -> T {
        self.entry.hidden.with_pages(act)
    }
}

fn read_clipped(pages: &Pages, length: u64, offset: u64, most: u64) -> Vec<u8> {
    let end = offset.saturating_add(most).min(length);
    pages.view(offset.min(end)..end).to_vec()
}

pub(crate) fn check_size(bytes: u64) -> Result<(), DiskError> {
    if bytes <= SIZE_LIMIT { check_aligned(bytes) } else { Err(DiskError::TooLarge(bytes)) }
}

fn check_aligned(number: u64) -> Result<(), DiskError> {
    if number.is_multiple_of(PAGE) { Ok(()) } else { Err(DiskError::Unaligned(number)) }
}

/// Size of the disk in a VHD file, and its footer.
fn read_footer(file: &mut File) -> Result<(u64, Footer), DiskError> {
    let length = file.metadata()?.len();
    let bytes = length.checked_sub(FOOTER).ok_or(BadFooter::Cookie)?;
    file.seek(SeekFrom::Start(bytes))?;
    let mut footer = [0; 512];
    file.read_exact(&mut footer)?;
    Ok((bytes, Footer::parse(&footer, bytes)?))
}

/// The runs of sectors in which two equally long stretches differ.
fn differing_runs(wanted: &[u8], present: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let sectors = wanted.chunks(512).zip(present.chunks(512)).enumerate();
    for (sector, _) in sectors.filter(|(_, (wanted, present))| wanted != present) {
        let range = sector * 512..(sector + 1) * 512;
        match runs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => runs.push(range),
        }
    }
    runs
}
