//! A managed disk and its incremental snapshots.
//!
//! The disk is a page blob that no client sees, in an export account of its own: the raw bytes and a VHD footer. Its
//! snapshots are snapshots of that blob, which is why their URLs differ only in their query.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::auth::sas;
use crate::clock::Moment;
use crate::range::PAGE;
use crate::request::Target;
use crate::service::Service;
use crate::store::blob::{Blob, Content, ContentHeaders, Version};
use crate::store::pages::{PageData, Pages};
use crate::store::{AccountEntry, Grant};
use crate::vhd::{BadFooter, FOOTER, Footer};

/// How much of a file is read and compared at a time.
const FILE_STEP: u64 = 1 << 20;

/// The largest disk.
const SIZE_LIMIT: u64 = 64 << 40;

/// The name of every exported blob.
const BLOB_NAME: &str = "abcd";

/// The sequence number that exported blobs show.
const SEQUENCE_NUMBER: u64 = 2;

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
    inner: Arc<DiskInner>,
}

struct DiskInner {
    name: String,
    service: Arc<Service>,
    account: Arc<AccountEntry>,
    target: Target,
    blob: Arc<Mutex<Blob>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Disk").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Disk {
    /// A disk of `bytes` that holds nothing.
    pub(crate) fn create(service: Arc<Service>, name: &str, bytes: u64) -> Result<Disk, DiskError> {
        let unique_id = service.fresh_id().into_bytes();
        let footer = Footer::new(bytes, service.clock.now().seconds(), unique_id);
        Disk::with_footer(service, name, bytes, &footer)
    }

    /// A disk with the content of a raw file; blocks of zeros hold nothing.
    pub(crate) fn load_raw(service: Arc<Service>, name: &str, path: &Path) -> Result<Disk, DiskError> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let disk = Disk::create(service, name, bytes)?;
        disk.apply_file(&mut file, bytes)?;
        Ok(disk)
    }

    /// A disk with content and footer of a fixed VHD.
    pub(crate) fn load_vhd(service: Arc<Service>, name: &str, path: &Path) -> Result<Disk, DiskError> {
        let mut file = File::open(path)?;
        let (bytes, footer) = read_footer(&mut file)?;
        let disk = Disk::with_footer(service, name, bytes, &footer)?;
        disk.apply_file(&mut file, bytes)?;
        Ok(disk)
    }

    fn with_footer(
        service: Arc<Service>,
        name: &str,
        bytes: u64,
        footer: &Footer,
    ) -> Result<Disk, DiskError> {
        check_size(bytes)?;
        let derived = |purpose| service.store.derived_text(purpose, name, 12);
        let (account_name, container) =
            (format!("md-{}", derived("disk account")), derived("disk container"));
        let account = service.store.account_or_new(&account_name);
        let tick = service.clock.tick();
        if !account.add_container(&container, tick, std::collections::BTreeMap::new()) {
            return Err(DiskError::Exists(name.to_owned()));
        }
        let target = Target { account: account_name, container, blob: BLOB_NAME.to_owned() };
        let blob = account.container(&target.container).map(|container| container.blob_or_new(BLOB_NAME));
        let blob = blob.unwrap_or_default();

        let mut pages = Pages::new(bytes + FOOTER);
        pages.write(&PageData::of(bytes, footer.bytes()));
        // The service shows the checksum that the blob had when it was first made, whatever its bytes are by now.
        let stale_md5 = service.store.derived_text("stale checksum", name, 16);
        let md5 = crate::checksum::md5([&bytes::Bytes::from(stale_md5)]);
        let content_headers =
            ContentHeaders { md5: Some(crate::checksum::md5_text(md5)), ..ContentHeaders::default() };
        blob.lock().live = Some(Version {
            content: Content::Pages(pages),
            content_headers,
            metadata: std::iter::once(("pirtag".to_owned(), "1".to_owned())).collect(),
            sequence_number: SEQUENCE_NUMBER,
            created: tick,
            etag: tick,
            last_modified: tick,
            incarnation: tick,
            copy: None,
        });
        let inner = DiskInner { name: name.to_owned(), service, account, target, blob };
        Ok(Disk { inner: Arc::new(inner) })
    }

    /// The disk's name.
    pub fn name(&self) -> &str {
        &self.inner.name
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

    /// Takes an incremental snapshot. Its time is later than that of any snapshot before.
    pub fn snapshot(&self) -> DiskSnapshot {
        let time = self.inner.service.clock.tick();
        let mut blob = self.inner.blob.lock();
        let version = blob.take_snapshot(time);
        let pages = version.and_then(|version| {
            version.touch(time);
            match &version.content {
                Content::Pages(pages) => Some(pages.clone()),
                Content::Block(_) => None,
            }
        });
        let pages = pages.unwrap_or_else(|| Pages::new(FOOTER));
        DiskSnapshot { disk: self.clone(), time, time_text: time.snapshot_text(), pages }
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
        let mut blob = self.inner.blob.lock();
        match blob.live.as_mut().map(|version| &mut version.content) {
            Some(Content::Pages(pages)) => act(pages),
            // Nothing else is ever stored under an export account.
            _ => act(&mut Pages::new(FOOTER)),
        }
    }
}

/// An incremental snapshot of a disk. Lengths and offsets are in bytes of the exported VHD, footer included.
#[derive(Clone)]
pub struct DiskSnapshot {
    disk: Disk,
    time: Moment,
    time_text: String,
    pages: Pages,
}

impl fmt::Debug for DiskSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DiskSnapshot")
            .field("disk", &self.disk.inner.name)
            .field("time", &self.time_text)
            .finish_non_exhaustive()
    }
}

impl DiskSnapshot {
    /// When it was taken, as in its URL: seven fractional digits.
    pub fn time(&self) -> &str {
        &self.time_text
    }

    /// Bytes of the export: the disk and its footer.
    #[allow(clippy::len_without_is_empty, reason = "there is always a footer")]
    pub fn len(&self) -> u64 {
        self.pages.len()
    }

    /// The bytes from `offset` on, at most `length`: fewer if the export ends before. Works after `delete`, too.
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        read_clipped(&self.pages, self.pages.len(), offset, length)
    }

    /// Grants read access until it is revoked: a URL with a SAS.
    pub fn grant(&self) -> String {
        self.grant_until(None)
    }

    /// Grants read access for some time on the emulator's clock. As with the service, the URL does not tell.
    pub fn grant_for(&self, duration: Duration) -> String {
        self.grant_until(Some(self.disk.inner.service.clock.now().plus(duration)))
    }

    /// Ends all access that was granted to this snapshot.
    pub fn revoke(&self) {
        self.disk.inner.account.grants.lock().retain(|_, grant| grant.snapshot != self.time);
    }

    /// Deletes the snapshot, and ends access to it.
    pub fn delete(&self) {
        self.revoke();
        self.disk.inner.blob.lock().snapshots.remove(&self.time);
    }

    fn grant_until(&self, lapses: Option<Moment>) -> String {
        let disk = &self.disk.inner;
        let service = &disk.service;
        let policy = service.store.derived_text("policy", &service.fresh_id().to_string(), 64);
        disk.account.grants.lock().insert(policy.clone(), Grant { snapshot: self.time, lapses });
        let query = sas::make_grant(&disk.account, &disk.target, self.time, &policy);
        let Target { account, container, blob } = &disk.target;
        format!("{}/{account}/{container}/{blob}?{query}", service.endpoint)
    }
}

fn read_clipped(pages: &Pages, length: u64, offset: u64, most: u64) -> Vec<u8> {
    let end = offset.saturating_add(most).min(length);
    pages.view(offset.min(end)..end).to_vec()
}

fn check_size(bytes: u64) -> Result<(), DiskError> {
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
