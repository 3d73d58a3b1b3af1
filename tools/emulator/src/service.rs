//! Everything that the connections of one emulator share.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::Knobs;
use crate::journal::Journal;
use crate::store::Store;

/// The state behind the wire.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    knobs: RwLock<Knobs>,
    seed: u64,
    ids: AtomicU64,
}

impl Service {
    pub(crate) fn new(endpoint: String, seed: u64, knobs: Knobs, record: bool) -> Service {
        Service {
            store: Store::new(seed),
            clock: Clock::default(),
            journal: Journal::new(record),
            endpoint,
            knobs: RwLock::new(knobs),
            seed,
            ids: AtomicU64::new(0),
        }
    }

    pub(crate) fn knobs(&self) -> Knobs {
        self.knobs.read().clone()
    }

    pub(crate) fn set_knobs(&self, knobs: Knobs) {
        *self.knobs.write() = knobs;
    }

    /// An id that this emulator gives only once: for a request, a lease or a grant.
    pub(crate) fn fresh_id(&self) -> Uuid {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        Uuid::from_u64_pair(self.seed.rotate_left(32) ^ 0x601a_3ee1_601e_4008, number | 1 << 63)
    }
}
