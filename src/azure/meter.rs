//! Counts what goes over the wire on one side of a copy, and tells what is being waited for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::failure::CallError;
use crate::copy::window::Signs;
use crate::measure::times::{Occupancy, Stay, Times, Work};

/// Counters of one side. All grow only.
#[derive(Default)]
pub struct Meter {
    requests: AtomicU64,
    retries: AtomicU64,
    refused: AtomicU64,
    too_slow: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Whether any reply ever came.
    answered: AtomicBool,
    waits: Mutex<Waits>,
    /// Calls that wait for the user's cap.
    capped: Occupancy,
    /// Calls that wait because the service was found to give no more.
    held_back: Occupancy,
    /// Requests that move data, from the first byte sent to the last byte received.
    moving: Occupancy,
    /// Ranged reads that succeeded.
    pub(crate) reads: Times,
    /// Page writes that succeeded.
    pub(crate) writes: Times,
}

#[derive(Default)]
struct Waits {
    next: u64,
    open: BTreeMap<u64, (String, Instant)>,
}

/// What a meter showed at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests sent, every attempt counted.
    pub requests: u64,
    /// Attempts that were made again.
    pub retries: u64,
    /// Attempts that the service refused for load: 503, 429, 500 `OperationTimedOut`; of a source also those of another
    /// service to read it.
    pub refused: u64,
    /// Attempts that were not complete in their time, as we or the service found.
    pub too_slow: u64,
    /// Bytes of reply bodies.
    pub bytes_in: u64,
    /// Bytes of request bodies.
    pub bytes_out: u64,
    /// Seconds that calls waited for the user's cap, all calls added up.
    pub capped: f64,
    /// Seconds that calls waited because the service was found to give no more, all calls added up.
    pub held_back: f64,
    /// Seconds that requests which move data were under way, all requests added up.
    pub moving: f64,
    /// Requests which moved data and succeeded.
    pub moved: Work,
}

impl Meter {
    /// The counters now.
    pub fn read(&self) -> Reading {
        Reading {
            requests: self.requests.load(Relaxed),
            retries: self.retries.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            refused: self.refused.load(Relaxed),
            too_slow: self.too_slow.load(Relaxed),
            capped: self.capped.seconds(),
            held_back: self.held_back.seconds(),
            moving: self.moving.seconds(),
            moved: self.reads.work() + self.writes.work(),
        }
    }

    /// What says that too much is on its way.
    pub(crate) fn signs(&self) -> Signs {
        Signs { too_slow: self.too_slow.load(Relaxed), held_back: self.held_back.seconds() }
    }

    /// Why calls are waiting at the moment: the oldest reason, and how many calls wait in all.
    pub fn waiting_for(&self) -> Option<(String, usize)> {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, (reason, until)) = waits.open.first_key_value()?;
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        Some((format!("{reason}, next attempt in {left} s"), waits.open.len()))
    }

    pub(crate) fn sent(&self, body: u64) {
        self.requests.fetch_add(1, Relaxed);
        self.bytes_out.fetch_add(body, Relaxed);
    }

    pub(crate) fn answered(&self) {
        self.answered.store(true, Relaxed);
    }

    pub(crate) fn was_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    pub(crate) fn received(&self, body: u64) {
        self.bytes_in.fetch_add(body, Relaxed);
    }

    /// An attempt failed, whether it is made again or not.
    pub(crate) fn failed(&self, error: &CallError) {
        if error.is_refusal_for_load() {
            self.refused.fetch_add(1, Relaxed);
        }
        if error.is_too_slow() {
            self.too_slow.fetch_add(1, Relaxed);
        }
    }

    /// A call waits for the user's cap until the result is dropped.
    pub(crate) fn wait_for_cap(&self) -> Stay<'_> {
        self.capped.enter()
    }

    /// A call waits for its turn among those that the service is expected to take, until the result is dropped.
    pub(crate) fn wait_for_turn(&self) -> Stay<'_> {
        self.held_back.enter()
    }

    /// A request that moves data is on its way.
    pub(crate) fn begin_move(&self) -> Moving<'_> {
        Moving { meter: self, begun: Instant::now(), _stay: self.moving.enter() }
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// Another service was refused for load when it read from this one.
    pub(crate) fn refused_to_another(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Shows a wait for as long as the result lives.
    pub(crate) fn waiting(&self, error: &CallError, wait: Duration) -> Waiting<'_> {
        self.waiting_because(
            match (error.status(), error.code()) {
                (Some(status), code) => format!("{}: {} {status} {code}", error.role, error.call),
                (None, _) => format!("{}: {} {}", error.role, error.call, error.cause),
            },
            wait,
        )
    }

    pub(crate) fn waiting_because(&self, reason: String, wait: Duration) -> Waiting<'_> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let key = waits.next;
        waits.next += 1;
        waits.open.insert(key, (reason, Instant::now() + wait));
        Waiting { meter: self, key }
    }
}

/// A request that moves data, while it is on its way.
pub(crate) struct Moving<'a> {
    meter: &'a Meter,
    begun: Instant,
    _stay: Stay<'a>,
}

impl Moving<'_> {
    /// It was a ranged read, and all of its bytes are here.
    pub(crate) fn was_read(self, bytes: u64) {
        self.meter.reads.record(bytes, self.begun.elapsed());
    }

    /// It was a page write, and it is acknowledged.
    pub(crate) fn was_write(self, bytes: u64) {
        self.meter.writes.record(bytes, self.begun.elapsed());
    }
}

/// A wait that is on show.
pub(crate) struct Waiting<'a> {
    meter: &'a Meter,
    key: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.meter.waits.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&self.key);
    }
}
