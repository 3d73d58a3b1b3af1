//! The calls of the operating system that the standard library does not have: holes, names that are not
//! replaced, many frames in one write. Each is here once; where a system or a file system lacks one, the answer
//! says so and the caller does without.

use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

/// Writes all `frames`, one after the other, from `at` on.
///
/// In one call and not frame by frame: where two frames meet inside a page of the page cache, the page would
/// first have to be read from the disk.
pub(super) fn write_all(file: &File, mut frames: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
    // Drops empty frames at the front: a write of nothing but those would look like a full disk.
    IoSlice::advance_slices(&mut frames, 0);
    while !frames.is_empty() {
        // As many of them as fit into one call.
        match rustix::io::pwritev(file, frames, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut frames, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The length of a block device, whose metadata says zero.
pub(super) fn device_length(mut device: &File) -> io::Result<u64> {
    device.seek(SeekFrom::End(0))
}

/// Where `file` holds data within a range of bytes, in order. `None` when it cannot tell.
#[cfg(target_os = "linux")]
pub(super) fn data(file: &File, within: Range<u64>) -> io::Result<Option<Vec<Range<u64>>>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    let mut found = Vec::new();
    let mut at = within.start;
    while at < within.end {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break, // nothing but a hole up to the end
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if start >= within.end {
            break;
        }
        let end = seek(file, SeekFrom::Hole(start))?;
        if start < at || end <= start {
            return Ok(None);
        }
        found.push(start..end.min(within.end));
        at = end;
    }
    Ok(Some(found))
}

/// Where `file` holds data: not known on this system.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps)]
pub(super) fn data(_: &File, _: Range<u64>) -> io::Result<Option<Vec<Range<u64>>>> {
    Ok(None)
}

/// Makes a range read as zeros without writing them. `false` when that cannot be done here.
#[cfg(target_os = "linux")]
pub(super) fn punch(file: &File, range: Range<u64>, is_device: bool) -> io::Result<bool> {
    use rustix::fs::{FallocateFlags, fallocate};

    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let zeros = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    // A device that cannot unmap can often write zeros by itself. In a file that would take space.
    let ways: &[FallocateFlags] = if is_device { &[hole, zeros] } else { &[hole] };
    for way in ways {
        match fallocate(file, *way, range.start, range.end - range.start).map_err(io::Error::from) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
            // Whatever else it is, writing the zeros shows whether it is in the way.
            Err(error) => tracing::trace!(%error, "no hole could be punched"),
        }
    }
    Ok(false)
}

/// Makes a range read as zeros without writing them: not done on this system.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps)]
pub(super) fn punch(_: &File, _: Range<u64>, _: bool) -> io::Result<bool> {
    Ok(false)
}

/// Gives `from` the name `to`, unless something has that name: [`io::ErrorKind::AlreadyExists`].
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_noreplace(from, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {}
        decided => return decided,
    }
    // Not every file system has that call. A second name, which also replaces nothing, does as well.
    match std::fs::hard_link(from, to) {
        Ok(()) => std::fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Nor has every one second names (exFAT).
        Err(_) if to.symlink_metadata().is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => std::fs::rename(from, to),
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_noreplace(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes the names in a folder last: a file that was renamed is found under its new name after a power cut.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems keep their folders safe by themselves and do not know the call.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        done => done,
    }
}

/// Bytes that a user may still write to the file system of `file`.
pub(super) fn free_bytes(file: &File) -> io::Result<u64> {
    let known = rustix::fs::fstatvfs(file)?;
    Ok(known.f_bavail.saturating_mul(known.f_frsize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn many_frames_and_empty_ones_land_one_after_the_other() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut frames: Vec<IoSlice<'_>> =
            bytes.chunks(1).flat_map(|byte| [IoSlice::new(&[]), IoSlice::new(byte)]).collect();
        write_all(&file, &mut frames, 10).unwrap();
        let mut read = vec![0; 3000];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut read, 10).unwrap();
        assert_eq!(read, bytes);
        write_all(&file, &mut [IoSlice::new(&[])], 0).unwrap();
    }

    #[test]
    fn a_full_disk_says_so() {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = write_all(&full, &mut [IoSlice::new(&[1; 512])], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_new_name_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        assert_eq!(rename_new(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&to).unwrap(), "old");
        fs::remove_file(&to).unwrap();
        rename_new(&from, &to).unwrap();
        assert_eq!((fs::read_to_string(&to).unwrap().as_str(), from.exists()), ("new", false));
        sync_folder(folder.path()).unwrap();
    }
}
