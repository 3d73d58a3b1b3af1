//! The most memory that this process held during one run.

/// From here on the most is counted anew. Whether the system can.
#[cfg(target_os = "linux")]
pub(super) fn count_anew() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The most since it was counted anew, in bytes.
#[cfg(target_os = "linux")]
pub(super) fn most() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn count_anew() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
pub(super) fn most() -> Option<u64> {
    None
}
