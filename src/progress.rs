//! What a run shows of itself while it runs: counters and the reason for waiting. The library only keeps them;
//! whoever embeds it decides what to show.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::azure::{Meter, Reading};
use crate::copy::frontier::Written;
use crate::copy::window::Signs;
use crate::diff::ListingProgress;
use crate::measure::hold::{Held, Hold, Holds};
use crate::measure::{BlockMap, Found};

/// Parts of a chunk in which the window is kept.
const THOUSAND: u64 = 1000;

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

/// Live numbers of one run. A clone shows the same numbers.
#[derive(Clone, Default)]
pub struct Progress {
    /// Counts the source's side: reads and listings.
    pub source: Arc<Meter>,
    /// Counts the target's side.
    pub target: Arc<Meter>,
    live: Arc<Live>,
}

#[derive(Default)]
struct Live {
    phase: Mutex<Phase>,
    listing: Mutex<Option<Arc<ListingProgress>>>,
    /// What is expected besides what a listing tells.
    planned: Mutex<Option<u64>>,
    bytes: AtomicU64,
    /// Of `bytes`, those that no extent names; begins anew with them.
    joined: AtomicU64,
    /// Bytes of chunks that are written; other than `bytes` it never begins anew.
    written: AtomicU64,
    /// Of those, bytes that the page list named.
    changed: AtomicU64,
    /// Bytes that were written from here: those that the service pulled by itself are none of them.
    sent: AtomicU64,
    in_flight: AtomicU64,
    /// In thousandths of a chunk.
    limit: AtomicU64,
    holds: Mutex<Holds>,
    map: Mutex<BlockMap>,
    /// What an observer says of the run.
    limited: Mutex<Found>,
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
    /// Of the bytes that were copied, those that no extent names: joined gaps, and the rest of leaves. They are not expected.
    pub joined: u64,
    /// Chunks in flight, and how many may be.
    pub in_flight: (u64, u64),
    /// The source's counters.
    pub source: Reading,
    /// The target's counters.
    pub target: Reading,
    /// What is being waited for.
    pub waiting_for: Option<String>,
    /// What keeps the run from being faster; unknown where nobody observes it (see [`crate::measure::observe`]).
    pub limited: Found,
}

impl Progress {
    /// The numbers now.
    pub fn read(&self) -> Numbers {
        let listing = lock(&self.live.listing).clone();
        let listed = listing.and_then(|listing| {
            let all = listing.expected_data()?.saturating_add(listing.clear());
            Some((all, listing.is_complete()))
        });
        let planned = *lock(&self.live.planned);
        let expected = planned.map(|bytes| (bytes, true)).or(listed);
        Numbers {
            phase: *lock(&self.live.phase),
            bytes: self.live.bytes.load(Relaxed),
            expected,
            joined: self.live.joined.load(Relaxed),
            in_flight: (self.live.in_flight.load(Relaxed), self.live.limit.load(Relaxed) / THOUSAND),
            source: self.source.read(),
            target: self.target.read(),
            waiting_for: self.waiting_for(),
            limited: *lock(&self.live.limited),
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
        *lock(&self.live.phase) = phase;
        // No chunk is in flight between two phases.
        lock(&self.live.holds).show(None, 0, Instant::now());
    }

    pub(crate) fn follow(&self, listing: Arc<ListingProgress>) {
        *lock(&self.live.listing) = Some(listing);
    }

    /// From here on it is counted what is compared, from zero, of `bytes` in all.
    pub(crate) fn begin_verifying(&self, bytes: u64) {
        self.live.bytes.store(0, Relaxed);
        self.live.joined.store(0, Relaxed);
        *lock(&self.live.planned) = Some(bytes);
        self.enter(Phase::Verifying);
    }

    pub(crate) fn compared(&self, bytes: u64) {
        self.live.bytes.fetch_add(bytes, Relaxed);
    }

    /// A disk of `length` bytes is about to be written.
    pub(crate) fn map_out(&self, length: u64) {
        let empty = BlockMap::new(length);
        let mut map = lock(&self.live.map);
        if (map.cell, map.data.len()) != (empty.cell, empty.data.len()) {
            *map = empty;
        }
    }

    /// A chunk is written, of which the page list named `changed` bytes.
    pub(crate) fn wrote(&self, written: &Written, changed: u64) {
        let counts = &written.counts;
        self.live.changed.fetch_add(changed, Relaxed);
        self.live.joined.fetch_add(written.range.len().saturating_sub(changed), Relaxed);
        self.live.sent.fetch_add(counts.bytes_sent - counts.bytes_pulled, Relaxed);
        self.live.bytes.fetch_add(written.range.len(), Relaxed);
        self.live.written.fetch_add(written.range.len(), Relaxed);
        lock(&self.live.map).mark(written.range, counts.bytes_sent);
    }

    /// That many chunks are in flight of as many as may be, and `hold` keeps the next from starting.
    pub(crate) fn show_window(&self, chunks: usize, limit: f64, hold: Hold) {
        self.live.in_flight.store(chunks as u64, Relaxed);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.live.limit.store((limit * THOUSAND as f64) as u64, Relaxed);
        lock(&self.live.holds).show(Some(hold), chunks as u64, Instant::now());
    }

    pub(crate) fn show_limit(&self, limited: Found) {
        *lock(&self.live.limited) = limited;
    }

    /// Bytes of chunks that are written, chunks in flight, and how many may be.
    pub(crate) fn window(&self) -> (u64, u64, f64) {
        let limit = self.live.limit.load(Relaxed) as f64 / THOUSAND as f64;
        (self.live.written.load(Relaxed), self.live.in_flight.load(Relaxed), limit)
    }

    /// Bytes of chunks that are written and that the page list named: what a copy is for, however much is read along.
    #[cfg(feature = "cli")]
    pub(crate) fn changed(&self) -> u64 {
        self.live.changed.load(Relaxed)
    }

    /// Bytes that were written from this machine.
    #[cfg(feature = "cli")]
    pub(crate) fn sent(&self) -> u64 {
        self.live.sent.load(Relaxed)
    }

    pub(crate) fn held(&self) -> Held {
        lock(&self.live.holds).read(Instant::now())
    }

    pub(crate) fn map(&self) -> BlockMap {
        lock(&self.live.map).clone()
    }

    /// Whether both show the same run.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.live, &other.live)
    }

    pub(crate) fn signs(&self) -> Signs {
        let (source, target) = (self.source.signs(), self.target.signs());
        Signs { too_slow: source.too_slow + target.too_slow, held_back: source.held_back + target.held_back }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
