//! Everything that the connections of one emulator share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use uuid::Uuid;

use crate::arm;
use crate::clock::Clock;
use crate::config::Knobs;
use crate::counters::Gauge;
use crate::fault::Plan;
use crate::journal::Journal;
use crate::late::LateWrites;
use crate::link::{Link, Shaper};
use crate::source::Fetcher;
use crate::store::Store;

/// The state behind the wire.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    pub(crate) connections: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) plan: Plan,
    pub(crate) late: LateWrites,
    pub(crate) fetcher: Fetcher,
    /// The resources that management knows.
    pub(crate) arm: arm::Registry,
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    knobs: RwLock<Knobs>,
    shaper: RwLock<Arc<Shaper>>,
    seed: u64,
    ids: AtomicU64,
}

impl Service {
    pub(crate) fn new(endpoint: String, seed: u64, knobs: Knobs, link: Link, record: bool) -> Service {
        let store = Store::new(seed);
        Service {
            arm: arm::Registry::new(&store),
            store,
            clock: Clock::default(),
            journal: Journal::new(record),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            plan: Plan::new(seed),
            late: LateWrites::default(),
            fetcher: Fetcher::default(),
            endpoint,
            knobs: RwLock::new(knobs),
            shaper: RwLock::new(Arc::new(Shaper::new(link))),
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

    /// The link as it is now.
    pub(crate) fn shaper(&self) -> Arc<Shaper> {
        Arc::clone(&self.shaper.read())
    }

    pub(crate) fn set_link(&self, link: Link) {
        *self.shaper.write() = Arc::new(Shaper::new(link));
    }

    /// An id that this emulator gives only once: for a request, a lease or a grant.
    pub(crate) fn fresh_id(&self) -> Uuid {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        Uuid::from_u64_pair(self.seed.rotate_left(32) ^ 0x601a_3ee1_601e_4008, number | 1 << 63)
    }
}
