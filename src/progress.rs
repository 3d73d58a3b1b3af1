//! What a run shows of itself while it runs: counters and the reason for waiting. The library only keeps them;
//! whoever embeds it decides what to show.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::azure::{Meter, Reading};
use crate::copy::frontier::Written;
use crate::diff::ListingProgress;

/// What a run is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Looking at the snapshots and the base; nothing is written.
    #[default]
    Checking,
    /// Listing and copying.
    Copying,
    /// Reading back and comparing.
    Verifying,
    /// Making the point.
    Sealing,
    /// Done.
    Done,
}

/// Live numbers of one run.
#[derive(Default)]
pub struct Progress {
    /// Counts the source's side: reads and listings.
    pub source: Arc<Meter>,
    /// Counts the target's side.
    pub target: Arc<Meter>,
    phase: Mutex<Phase>,
    listing: Mutex<Option<Arc<ListingProgress>>>,
    /// What is expected besides what a listing tells.
    planned: Mutex<Option<u64>>,
    bytes: AtomicU64,
    in_flight: AtomicU64,
    limit: AtomicU64,
}

/// The numbers at one moment.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// What the run is doing.
    pub phase: Phase,
    /// Bytes of chunks that are written.
    pub bytes: u64,
    /// Data bytes to expect in all, and whether that is exact.
    pub expected: Option<(u64, bool)>,
    /// Chunks in flight, and how many may be.
    pub in_flight: (u64, u64),
    /// The source's counters.
    pub source: Reading,
    /// The target's counters.
    pub target: Reading,
    /// What is being waited for.
    pub waiting_for: Option<String>,
}

impl Progress {
    /// The numbers now.
    pub fn read(&self) -> Numbers {
        let listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listed = listing.and_then(|listing| {
            let all = listing.expected_data()?.saturating_add(listing.clear());
            Some((all, listing.is_complete()))
        });
        let planned = *self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = planned.map(|bytes| (bytes, true)).or(listed);
        Numbers {
            phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner),
            bytes: self.bytes.load(Relaxed),
            expected,
            in_flight: (self.in_flight.load(Relaxed), self.limit.load(Relaxed)),
            source: self.source.read(),
            target: self.target.read(),
            waiting_for: self.waiting_for(),
        }
    }

    /// The reason for waiting: refusals first, then a window that refusals made narrow.
    fn waiting_for(&self) -> Option<String> {
        for meter in [&self.target, &self.source] {
            if let Some((reason, calls)) = meter.waiting_for() {
                let others = if calls > 1 { format!(" (and {} more)", calls - 1) } else { String::new() };
                return Some(format!("{reason}{others}"));
            }
        }
        None
    }

    pub(crate) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub(crate) fn follow(&self, listing: Arc<ListingProgress>) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = Some(listing);
    }

    /// From here on it is counted what is compared, from zero, of `bytes` in all.
    pub(crate) fn begin_verifying(&self, bytes: u64) {
        self.bytes.store(0, Relaxed);
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        self.enter(Phase::Verifying);
    }

    pub(crate) fn compared(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn wrote(&self, written: &Written) {
        self.bytes.fetch_add(written.range.len(), Relaxed);
    }

    pub(crate) fn show_window(&self, chunks: usize, limit: f64) {
        self.in_flight.store(chunks as u64, Relaxed);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.limit.store(limit as u64, Relaxed);
    }

    pub(crate) fn congested(&self) -> u64 {
        self.source.read().congested + self.target.read().congested
    }
}
