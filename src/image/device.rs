//! Whether a block device is in use: mounted or swapped to, itself or a partition of it.
//!
//! Linux refuses to open a device exclusively that is mounted, and that is what keeps it from being overwritten.
//! What is looked up here comes first, because it can say where.

use std::fs::{self, File};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Refuses a device that is in use. What cannot be looked up is a warning: the device is opened exclusively, too.
pub(super) fn refuse_in_use(path: &Path) -> Result<()> {
    match user_of(path) {
        Ok(None) => Ok(()),
        Ok(Some(user)) => Err(in_use(path, &user)),
        Err(error) => {
            tracing::warn!(%error, device = %path.display(), "cannot look up whether the device is mounted");
            Ok(())
        }
    }
}

/// "It is in use."
pub(super) fn in_use(path: &Path, user: &str) -> Error {
    Error::new(ErrorKind::TargetUnsuitable, "write to the device", user)
        .on(path.display())
        .next("check with lsblk that it is the right one, then umount it")
}

/// Who uses a device, to warn of it: `it is mounted at /mnt`.
pub(super) fn user_of(path: &Path) -> std::io::Result<Option<String>> {
    let Some(whole) = number_of(path) else { return Ok(None) };
    let mut numbers = partitions(&whole);
    numbers.push(whole);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let is_ours = |number: &str| numbers.iter().any(|ours| ours == number);
    let is_ours_by_path = |path: &str| number_of(Path::new(path)).is_some_and(|number| is_ours(&number));
    if let Some(user) = mounted(&mounts, is_ours, is_ours_by_path) {
        return Ok(Some(user));
    }
    Ok(swapped(&fs::read_to_string("/proc/swaps").unwrap_or_default(), is_ours_by_path))
}

/// The mount of one of our devices, by its number, or by its path: btrfs shows a number of its own.
fn mounted(
    mounts: &str,
    is_ours: impl Fn(&str) -> bool,
    is_ours_by_path: impl Fn(&str) -> bool,
) -> Option<String> {
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let (number, place) = (fields.nth(2)?, fields.nth(1)?);
        let source = source.split(' ').nth(1).filter(|source| source.starts_with("/dev/"));
        (is_ours(number) || source.is_some_and(&is_ours_by_path))
            .then(|| format!("it, or a partition of it, is mounted at {place}"))
    })
}

fn swapped(swaps: &str, is_ours_by_path: impl Fn(&str) -> bool) -> Option<String> {
    let mut areas = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    areas.find(|area| is_ours_by_path(area)).map(|area| format!("{area} is swapped to"))
}

/// `major:minor` of a block device.
#[cfg(target_os = "linux")]
fn number_of(path: &Path) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let known = fs::metadata(path).ok().filter(|known| known.file_type().is_block_device())?;
    Some(format!("{}:{}", rustix::fs::major(known.rdev()), rustix::fs::minor(known.rdev())))
}

/// Only Linux tells by number what is mounted.
#[cfg(not(target_os = "linux"))]
fn number_of(_: &Path) -> Option<String> {
    None
}

/// The numbers of the partitions of a device.
fn partitions(number: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/sys/dev/block/{number}")) else { return Vec::new() };
    let folders = entries.flatten().map(|entry| entry.path());
    folders
        .filter(|folder| folder.join("partition").exists())
        .filter_map(|folder| fs::read_to_string(folder.join("dev")).ok())
        .map(|number| number.trim().to_owned())
        .collect()
}

/// The length of an open device.
pub(super) fn length(device: &File) -> std::io::Result<u64> {
    super::sys::device_length(device)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:25 /@home /home rw - btrfs /dev/sdb2 rw,space_cache
31 22 0:26 / /proc rw shared:5 - proc proc rw
garbage";

    #[test]
    fn a_mount_is_found_by_number_and_by_path() {
        let find = |number: &str, path: &str| mounted(MOUNTS, |found| found == number, |found| found == path);
        assert_eq!(find("8:1", ""), Some("it, or a partition of it, is mounted at /".to_owned()));
        assert!(find("9:9", "/dev/sdb2").unwrap().ends_with("mounted at /home"));
        assert_eq!(find("8:2", "/dev/sdc"), None);
        assert_eq!(find("9:9", "proc"), None, "what is no path is no device");
    }

    #[test]
    fn swap_is_found() {
        let swaps = "Filename Type Size Used Priority\n/dev/sdc1 partition 1 0 -2\n";
        assert_eq!(swapped(swaps, |path| path == "/dev/sdc1"), Some("/dev/sdc1 is swapped to".to_owned()));
        assert_eq!(swapped(swaps, |path| path == "/dev/sdd"), None);
        assert_eq!(swapped("", |_| true), None);
    }

    #[test]
    fn what_is_no_device_is_used_by_nobody() {
        assert_eq!(user_of(Path::new("/dev/null")).unwrap(), None);
        assert!(refuse_in_use(Path::new("/no/such")).is_ok());
    }
}
