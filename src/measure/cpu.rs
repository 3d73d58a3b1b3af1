//! The processor time of this process, and how many processors it may use.

/// Seconds of processor time that all threads of this process have taken; zero where the system does not tell.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd"))]
pub(crate) fn seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds of processor time that all threads of this process have taken; zero where the system does not tell.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd")))]
pub(crate) fn seconds() -> f64 {
    0.0
}

/// Processors that this process may use at once.
pub(crate) fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    #[test]
    #[cfg(target_os = "linux")]
    fn work_shows() {
        let before = super::seconds();
        let begun = Instant::now();
        while super::seconds() < before + 0.01 {
            assert!(begun.elapsed() < Duration::from_mins(5), "a busy loop takes no processor time");
        }
        assert!(super::cores() >= 1.0);
    }
}
