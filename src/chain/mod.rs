//! Which snapshots there are: their identity and what the service says of them before anything is written.

pub mod grants;
pub mod identity;
pub mod listing;
pub mod origin;
pub mod outline;
pub mod survey;

pub use identity::SnapshotId;
pub use listing::Chain;
pub use origin::Origin;
pub use survey::{Survey, survey};
