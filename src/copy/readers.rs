//! How many of the chunks in flight are read at a time: half of them, so that the other half is written meanwhile.
//!
//! Chunks that begin together share the line, and come to their end together; then all of them would be written together,
//! and then all read again: each direction of the line would be idle half of the time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A line to the source is not used by less than two.
const LEAST: usize = 2;

/// Gives chunks their turns to be read, in the order in which they ask.
#[derive(Debug)]
pub(super) struct Readers {
    turns: Arc<Semaphore>,
    /// Turns that there are, taken or not.
    count: usize,
}

/// A turn to be read; over when it is dropped.
pub(crate) type Turn = Option<OwnedSemaphorePermit>;

impl Default for Readers {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(LEAST)), count: LEAST }
    }
}

impl Readers {
    /// From now on as many are read at a time as suits so many chunks in flight. Turns that were given end as they began, and
    /// who waits already may still come first.
    pub(super) fn resize_for(&mut self, chunks: usize) {
        let count = chunks.div_ceil(2).max(LEAST);
        if count > self.count {
            self.turns.add_permits(count - self.count);
            self.count = count;
        } else {
            self.count -= self.turns.forget_permits(self.count - count);
        }
    }

    /// The next turn.
    pub(super) fn turn(&self) -> impl Future<Output = Turn> + use<> {
        let turns = Arc::clone(&self.turns);
        // Nobody closes it, so a turn always comes.
        async move { turns.acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn there_are_as_many_turns_as_it_was_last_told() {
        let mut readers = Readers::default();
        let taken =
            |readers: &Readers| std::iter::from_fn(|| readers.turn().now_or_never()).collect::<Vec<_>>();
        readers.resize_for(9);
        let five = taken(&readers);
        assert_eq!(five.len(), 5);
        readers.resize_for(4);
        assert!(taken(&readers).is_empty());
        drop(five);
        readers.resize_for(4);
        assert_eq!(taken(&readers).len(), 2);
        readers.resize_for(1);
        assert_eq!(taken(&readers).len(), 2);
        readers.resize_for(12);
        assert_eq!(taken(&readers).len(), 6);
    }
}
