//! Which snapshots there are: their identity and what the service says of them before anything is written.

pub mod identity;
pub mod origin;
pub mod survey;

pub use identity::SnapshotId;
pub use origin::Origin;
pub use survey::{Survey, survey};
