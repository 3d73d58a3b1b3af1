//! Counts what goes over the wire on one side of a copy, and tells what is being waited for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::failure::CallError;

/// Counters of one side. All grow only.
#[derive(Default)]
pub struct Meter {
    requests: AtomicU64,
    retries: AtomicU64,
    congested: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Whether any reply ever came.
    answered: AtomicBool,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    next: u64,
    open: BTreeMap<u64, (String, Instant)>,
}

/// What a meter showed at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Requests sent, every attempt counted.
    pub requests: u64,
    /// Attempts that were made again.
    pub retries: u64,
    /// Of those, the ones after which the service needs less load: throttled, timed out, unanswered. Besides, attempts of
    /// the other side's service to read from this one that ended so.
    pub congested: u64,
    /// Bytes of reply bodies.
    pub bytes_in: u64,
    /// Bytes of request bodies.
    pub bytes_out: u64,
}

impl Meter {
    /// The counters now.
    pub fn read(&self) -> Reading {
        Reading {
            requests: self.requests.load(Relaxed),
            retries: self.retries.load(Relaxed),
            congested: self.congested.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
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

    pub(crate) fn retried(&self, error: &CallError) {
        self.retries.fetch_add(1, Relaxed);
        if error.is_congestion() {
            self.congested.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn congested_elsewhere(&self) {
        self.congested.fetch_add(1, Relaxed);
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
