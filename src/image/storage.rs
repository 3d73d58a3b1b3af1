//! The bytes of an image in an open file or device: each range to its place, zeros without writing them where
//! that can be, the footer where there is room for it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::path::Format;
use super::{failure, sys};
use crate::error::{Error, ErrorKind, Result};
use crate::range::{PAGE, PageRange};

/// A device is asked to zero whole grains only: a smaller range may be less than one of its blocks.
const GRAIN: u64 = 64 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An image that is written.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) file: File,
    /// What a person calls it.
    pub(super) name: String,
    /// Length of the image, with its footer.
    pub(super) length: u64,
    pub(super) format: Format,
    pub(super) is_device: bool,
    /// The last page of a raw image, which has no place in the file.
    footer: Mutex<Option<Bytes>>,
    /// Bytes that were written, and how many there will be, for the person whose disk is full.
    written: AtomicU64,
    expected: Option<u64>,
}

impl Storage {
    pub(super) fn new(
        file: File,
        name: String,
        length: u64,
        format: Format,
        is_device: bool,
        expected: Option<u64>,
    ) -> Self {
        let (footer, written) = (Mutex::new(None), AtomicU64::new(0));
        Self { file, name, length, format, is_device, footer, written, expected }
    }

    /// Bytes of the image that have a place in the file.
    pub(super) fn stored(&self) -> u64 {
        stored(self.length, self.format)
    }

    /// About how many bytes of data there will be.
    pub(super) fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// The footer that was written to a raw image.
    pub(super) fn footer(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.footer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes `frames` to `range`.
    pub(super) fn write(&self, range: PageRange, frames: Vec<Bytes>) -> Result<()> {
        self.check(range)?;
        let total: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        if total != range.len() {
            let why = format!("{total} bytes are not the {} of {range}", range.len());
            return Err(failure::defect("write the image", &self.name, why));
        }
        let (on_disk, footer) = self.split(range);
        let (frames, last) = cut(frames, on_disk.end - on_disk.start);
        let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        sys::write_all(&self.file, &mut slices, on_disk.start).map_err(|error| self.explain(&error))?;
        self.written.fetch_add(total, Ordering::Relaxed);
        if footer {
            *self.footer() = Some(last.concat().into());
        }
        Ok(())
    }

    /// Makes `range` read as zeros, whatever it held.
    pub(super) fn zero(&self, range: PageRange) -> Result<()> {
        self.check(range)?;
        let (on_disk, footer) = self.split(range);
        if footer {
            *self.footer() = None;
        }
        self.zero_stored(on_disk).map_err(|error| self.explain(&error))
    }

    fn zero_stored(&self, range: Range<u64>) -> io::Result<()> {
        let inner = if self.is_device { grains(&range) } else { range.clone() };
        if inner.is_empty() || !sys::punch(&self.file, inner.clone(), self.is_device)? {
            return self.fill(range);
        }
        self.fill(range.start..inner.start)?;
        self.fill(inner.end..range.end)
    }

    /// Writes zeros to a range, except where it holds none but zeros already.
    fn fill(&self, range: Range<u64>) -> io::Result<()> {
        let held = sys::data(&self.file, range.clone())?.unwrap_or_else(|| vec![range]);
        for Range { start: mut at, end } in held {
            while at < end {
                let length = (end - at).min(ZEROS.len() as u64);
                let zeros = ZEROS.get(..usize::try_from(length).unwrap_or(ZEROS.len())).unwrap_or(&ZEROS);
                sys::write_all(&self.file, &mut [IoSlice::new(zeros)], at)?;
                at += length;
            }
        }
        Ok(())
    }

    /// Reads `range`. The footer of a raw image is the one that was written, or zeros while there is none.
    pub(super) fn read(&self, range: PageRange) -> Result<Vec<Bytes>> {
        self.check(range)?;
        let (on_disk, footer) = self.split(range);
        let mut frames = Vec::with_capacity(2);
        if !on_disk.is_empty() {
            let bytes = read_at(&self.file, &on_disk);
            frames.push(bytes.map_err(|error| failure::writing("read back the image", &self.name, &error))?);
        }
        if footer {
            frames.push(self.footer().clone().unwrap_or_else(|| Bytes::from_static(&[0; 512])));
        }
        Ok(frames)
    }

    /// The part of a range that has a place in the file, and whether it also holds the page that has none.
    fn split(&self, range: PageRange) -> (Range<u64>, bool) {
        let stored = self.stored();
        (range.start().min(stored)..range.end().min(stored), range.end() > stored)
    }

    fn check(&self, range: PageRange) -> Result<()> {
        if range.end() <= self.length {
            return Ok(());
        }
        let why = format!("{range} is not within its {} bytes", self.length);
        Err(failure::defect("find the place in the image", &self.name, why))
    }

    fn explain(&self, error: &io::Error) -> Error {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if !is_full {
            return failure::writing("write the image", &self.name, error);
        }
        let written = self.written.load(Ordering::Relaxed);
        let of = self.expected.map(|bytes| format!(" of about {bytes}")).unwrap_or_default();
        let why = format!("no space left: this run wrote {written} bytes{of}");
        Error::new(ErrorKind::Output, "write the image", why)
            .on(&self.name)
            .next("free some and run the same command: it goes on")
    }
}

/// Bytes of an image of `length` that have a place in a file of this format.
pub(super) fn stored(length: u64, format: Format) -> u64 {
    match format {
        Format::Vhd => length,
        Format::Raw => length.saturating_sub(PAGE),
    }
}

/// Reads a range of a file that must be there.
pub(super) fn read_at(file: &File, range: &Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

/// The whole grains within a range; empty when there is none.
fn grains(range: &Range<u64>) -> Range<u64> {
    let start = range.start.next_multiple_of(GRAIN);
    start..(range.end - range.end % GRAIN).max(start)
}

/// Splits frames after `at` bytes, without copying them.
fn cut(frames: Vec<Bytes>, at: u64) -> (Vec<Bytes>, Vec<Bytes>) {
    let (mut low, mut high, mut left) = (Vec::with_capacity(frames.len()), Vec::new(), at);
    for mut frame in frames {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(frame.len());
        let head = frame.split_to(here);
        left -= head.len() as u64;
        low.push(head);
        if !frame.is_empty() {
            high.push(frame);
        }
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn storage(file: File, format: Format, is_device: bool) -> Storage {
        Storage::new(file, "file:d".to_owned(), (1 << 20) + 512, format, is_device, Some(1 << 20))
    }

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(start, end).unwrap()
    }

    #[test]
    fn a_full_disk_is_told_with_how_far_it_came() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error =
            storage(full, Format::Vhd, false).write(range(0, 512), vec![vec![1; 512].into()]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Output);
        assert_eq!(error.why(), "no space left: this run wrote 0 bytes of about 1048576");
        assert!(error.advice().unwrap().ends_with("it goes on"));
    }

    #[test]
    fn what_is_outside_or_of_another_length_is_refused() {
        let storage = storage(tempfile::tempfile().unwrap(), Format::Vhd, false);
        let frames = || vec![Bytes::from(vec![1; 512])];
        for refused in [
            storage.write(range(1 << 20, (1 << 20) + 1024), frames()),
            storage.write(range(0, 1024), frames()),
            storage.zero(range(1 << 21, (1 << 21) + 512)),
            storage.read(range(1 << 21, (1 << 21) + 512)).map(drop),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Internal);
        }
    }

    proptest! {
        #[test]
        fn frames_are_cut_anywhere(lengths in prop::collection::vec(0_usize..40, 0..12), at in 0_u64..600) {
            let mut next = 0_u8;
            let frames: Vec<Bytes> = lengths.iter().map(|length| {
                (0..*length).map(|_| { next = next.wrapping_add(1); next }).collect::<Vec<_>>().into()
            }).collect();
            let whole = frames.concat();
            let (low, high) = cut(frames, at);
            let at = usize::try_from(at).unwrap().min(whole.len());
            prop_assert_eq!(low.concat(), &whole[..at]);
            prop_assert_eq!(high.concat(), &whole[at..]);
        }

        #[test]
        fn zeros_are_zeros_on_what_is_like_a_device_and_nothing_else_changes(
            start in 0_u64..2047, length in 1_u64..2048, is_device: bool
        ) {
            let file = tempfile::tempfile().unwrap();
            let storage = storage(file, Format::Raw, is_device);
            storage.write(range(0, 1 << 20), vec![vec![7; 1 << 20].into()]).unwrap();
            let zeroed = range(start * 512, (start + length).min(2048) * 512);
            storage.zero(zeroed).unwrap();
            let read = storage.read(range(0, 1 << 20)).unwrap().concat();
            for (at, byte) in read.iter().enumerate() {
                let is_zeroed = (zeroed.start()..zeroed.end()).contains(&(at as u64));
                prop_assert_eq!(*byte == 0, is_zeroed, "byte {}", at);
            }
        }
    }
}
