//! What hundreds of runs in one process share: memory for chunks in flight, and the caps that the user set.
//!
//! Whoever embeds the library gives one [`Budget`] to the [`Client`](crate::azure::Client) of all its runs. Each run then
//! asks for the memory of a chunk before it starts it, one chunk at a time, and who asks first is served first: a run that
//! was served stands behind all that wait. So runs that want more than their share get equal ones, in chunks, and what a
//! run does not want is there for the others. A run alone has everything.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::azure::pace::Limiters;
use crate::azure::{Caps, LARGEST_CHUNK};

/// Memory is given out in units of this many bytes: the semaphore counts in 32 bits.
const UNIT: u64 = 1024;

/// Memory and caps that runs share. A clone is the same budget.
#[derive(Clone)]
pub struct Budget {
    memory: Arc<Semaphore>,
    units: u32,
    reading: Arc<Limiters>,
    writing: Arc<Limiters>,
}

/// Memory for one chunk, until it is dropped.
#[derive(Debug)]
pub struct Room(#[allow(dead_code, reason = "what it is for is to be dropped")] OwnedSemaphorePermit);

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("bytes", &(u64::from(self.units) * UNIT)).finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of `memory` bytes for chunks in flight, at least one chunk of 4 MiB, and of `caps` on what all runs
    /// together read, and on what they write.
    pub fn new(memory: u64, caps: Caps) -> Self {
        let units = u32::try_from(memory.max(LARGEST_CHUNK) / UNIT).unwrap_or(u32::MAX);
        let permits = usize::try_from(units).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self {
            memory: Arc::new(Semaphore::new(permits)),
            units,
            reading: Arc::new(Limiters::new(caps)),
            writing: Arc::new(Limiters::new(caps)),
        }
    }

    /// Bytes that are not given out at this moment.
    pub fn free(&self) -> u64 {
        self.memory.available_permits() as u64 * UNIT
    }

    /// Memory for a chunk of `bytes`, if it is there and nobody waits for it.
    pub(crate) fn room_now(&self, bytes: u64) -> Option<Room> {
        Arc::clone(&self.memory).try_acquire_many_owned(self.units_of(bytes)).ok().map(Room)
    }

    /// The same, when its turn has come.
    pub(crate) async fn room(self, bytes: u64) -> Room {
        let units = self.units_of(bytes);
        loop {
            // It is never closed, so the first round is the last.
            if let Ok(permit) = Arc::clone(&self.memory).acquire_many_owned(units).await {
                return Room(permit);
            }
        }
    }

    pub(crate) fn reading(&self) -> Arc<Limiters> {
        Arc::clone(&self.reading)
    }

    pub(crate) fn writing(&self) -> Arc<Limiters> {
        Arc::clone(&self.writing)
    }

    fn units_of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units)
    }
}
