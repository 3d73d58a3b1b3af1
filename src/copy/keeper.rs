//! Who keeps what a run writes to: notices when somebody else takes it over, and remembers how far the run came.

use futures::future::BoxFuture;

use super::frontier::{Checkpoint, Written};
use crate::azure::failure::CallResult;
use crate::base::lease::Loss;

/// What a run asks of whoever owns its target.
pub trait Keeper: Send + Sync {
    /// Resolves when the target is lost to somebody else; never where nobody can take it.
    fn lost(&self) -> BoxFuture<'_, Loss>;

    /// The frontier moved over a chunk. Called in the order of the image; must not take long.
    fn passed(&self, written: &Written);

    /// Whether so much was passed since the last note that the next one is due, however early; and whether it is so
    /// much that no chunk may start before it.
    fn backlog(&self) -> Backlog;

    /// Writes a checkpoint down, with all that was passed when this is called. Gives the offset that is written down
    /// then.
    fn note(&self, checkpoint: Checkpoint) -> BoxFuture<'_, CallResult<u64>>;
}

/// How far a keeper's notes are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backlog {
    /// Not worth a note by itself.
    #[default]
    None,
    /// A note is due.
    Due,
    /// No chunk may start before a note was made.
    Full,
}
