//! What the system tells of a run: the most memory that this process held, and how busy all processors were, with this
//! process and everything else.

/// Processor time of the whole machine, in the system's ticks.
#[derive(Clone, Copy)]
pub(super) struct Processors {
    busy: u64,
    all: u64,
}

impl Processors {
    /// Until now; `None` where the system does not tell.
    pub(super) fn look() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// The line of all processors: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> = line.split_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
        let idle = times.get(3)? + times.get(4)?;
        let all: u64 = times.iter().sum();
        Some(Self { busy: all - idle, all })
    }

    /// The part that was busy since `before`.
    pub(super) fn busy_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|ticks| *ticks > 0)?;
        Some((self.busy.saturating_sub(before.busy) as f64 / all as f64).clamp(0.0, 1.0))
    }
}

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn busy_is_what_is_not_idle() {
        let at =
            |user, idle| Processors::parse(&format!("cpu  {user} 0 10 {idle} 5 0 0 1 0 0\ncpu0 1")).unwrap();
        let busy = at(190, 130).busy_since(at(100, 100)).unwrap();
        assert!((busy - 0.75).abs() < 1e-9, "{busy}");
        assert_eq!(at(1, 1).busy_since(at(1, 1)), None);
        assert!(Processors::parse("intr 5").is_none() && Processors::parse("cpu  1 2").is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_counted_anew() {
        let before = most().unwrap();
        if count_anew() {
            let held = vec![1_u8; 64 << 20];
            assert!(most().unwrap() >= 64 << 20 && before > 0 && held.len() == 64 << 20);
        }
    }
}
