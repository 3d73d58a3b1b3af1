//! How many of the chunks in flight are read at a time: half of them, so that the other half is written meanwhile.
//!
//! Chunks that begin together share the line, and come to their end together; then all of them would be written together,
//! and then all read again: each direction of the line would be idle half of the time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
        Self { turns: Arc::new(Semaphore::new(1)), count: 1 }
    }
}

impl Readers {
    /// From now on so many are read at a time, as far as not more are already.
    pub(super) fn resize(&mut self, count: usize) {
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
        readers.resize(3);
        let three = taken(&readers);
        assert_eq!(three.len(), 3);
        // Those that are under way end as they began.
        readers.resize(1);
        assert!(taken(&readers).is_empty());
        drop(three);
        readers.resize(1);
        assert_eq!(taken(&readers).len(), 1);
        readers.resize(2);
        assert_eq!(taken(&readers).len(), 2);
    }
}
