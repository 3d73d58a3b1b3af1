//! An Azure page-blob and managed-disk export service on loopback, for testing clients against.
//!
//! ```text
//! connection -> server -> request -> auth -> body -> handlers -> store
//!                  |      (Call)    (sas)              |         accounts > containers > blobs
//!                  `<---------------- reply <----------'         (pages, diff, lease)
//! ```
//!
//! One port serves all accounts: `http://127.0.0.1:PORT/<account>/<container>/<blob>`. An account whose name begins with
//! `md-` holds the hidden page blob of one managed disk, and lets clients read its snapshots with the SAS that
//! [`DiskSnapshot::grant`] makes. Any other account is an ordinary one, made with [`Emulator::account`].
//!
//! The calls served are those of page blobs: create, write, clear, page ranges and their difference to a snapshot, read,
//! properties, metadata, snapshot, lease, delete and list. Headers, statuses, error codes and bodies follow recorded
//! traffic of the service; where its behaviour is not known, [`Knobs`] choose.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use snapferry_emulator::{Config, Emulator};
//!
//! let emulator = Emulator::start(Config::default()).await?;
//! let disk = emulator.create_disk("data", 1 << 20)?;
//! disk.write(4096, &[1; 512])?;
//! let url = disk.snapshot().grant();
//! assert!(url.starts_with(&emulator.endpoint()));
//! # Ok(()) }
//! ```

mod account;
mod auth;
mod body;
mod call;
mod checksum;
mod clock;
mod conditions;
mod config;
mod disk;
mod emulator;
mod error;
mod handlers;
mod journal;
mod range;
mod reply;
mod request;
mod server;
mod service;
mod store;
mod vhd;

pub use account::{Account, BlobView};
pub use call::{Call, Role, UnknownCall};
pub use config::{Config, Knobs};
pub use disk::{Disk, DiskError, DiskSnapshot};
pub use emulator::{Emulator, StartError};
pub use error::ErrorCode;
pub use journal::{CallStats, RequestRecord, Stats};
pub use vhd::BadFooter;
