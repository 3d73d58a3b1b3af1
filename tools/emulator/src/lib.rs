//! An Azure page-blob and managed-disk export service with its management on loopback, for testing clients against.
//!
//! ```text
//! server -> exchange -> request -> auth -> link -> fault -> body -> handlers -> store
//! (line)       |        (Call)    (sas)   (limits)                    |         accounts > containers > blobs
//!   `<------ outgoing <-------------- reply <-------------------------+         (pages, diff, lease)
//!                                                                    arm -> registry of disks and snapshots
//! ```
//!
//! One port serves all accounts: `http://127.0.0.1:PORT/<account>/<container>/<blob>`. An account whose name begins with
//! `md-` holds the hidden page blob of one managed disk, and lets clients read its snapshots with the SAS that
//! [`DiskSnapshot::grant`] makes; one that begins with `md-impexp-` holds a full snapshot, or a disk that is exported or
//! uploaded itself. Any other account is an ordinary one, made with [`Emulator::account`].
//!
//! The calls served are those of page blobs: create, write, write from a URL, clear, copy, page ranges and their
//! difference to a snapshot, read, properties, metadata, snapshot, lease, delete and list; and those of block blobs: create
//! whole or by blocks, commit a block list, get it. Headers, statuses, error codes and bodies follow recorded traffic of
//! the service; where its behaviour is not known, [`Knobs`] choose. A [`Link`] makes the service slow and limited,
//! [`Faults`] make it fail, and [`serve`](mod@serve) runs it as a program.
//!
//! Paths that begin with `/subscriptions/` are those of management, [`Arm`]: every disk and snapshot is a resource there,
//! from which a client gets its SAS as it would from Azure, and `/msi/token` gives it the token that it needs. There,
//! [`ArmKnobs`] choose. Disks are made empty, of a snapshot (`Copy`), of a page blob (`Import`) or of what a client
//! uploads (`Upload`): the SAS for that opens a blob which takes pages and little else.
//!
//! For benchmarks there are disks whose content is computed ([`Emulator::generate_disk`]), accounts that check what they
//! are sent and drop it ([`Account::set_sink`]), and [`Counters`]. Paths that begin with `/-/` are those of scripts that
//! run a benchmark in other processes: they read and reset the counters there, and change the link and the faults.
//!
//! ```text
//! GET  /-/counters          what was counted, as JSON
//! POST /-/counters/reset    the same, and all counts begin anew
//! POST /-/link              a new link; the body is one in text, see Link
//! POST /-/faults            more faults; the body has one in text on each line, see Fault
//! POST /-/faults/clear      no faults
//! ```
//!
//! Tests look behind the service's back: [`Account::read_blob`] and [`Disk::read_image`] trust no wire, and
//! [`Account::flip_bit`] and [`Account::set_metadata_raw`] do damage that no call tells of.
//!
//! An ordinary account takes a SAS, a signature with its key (`SharedKey`), or any bearer token. With [`Config::tls`]
//! the port serves HTTPS. A request that names a source is given it only from loopback, from this emulator or another.
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
mod arm;
mod auth;
mod body;
mod call;
mod checksum;
mod clock;
mod conditions;
mod config;
mod control;
mod counters;
mod cut;
mod disk;
mod emulator;
mod error;
mod exchange;
mod fault;
mod generate;
mod handlers;
mod journal;
mod late;
mod link;
mod outgoing;
mod quantity;
mod random;
mod range;
mod reply;
mod request;
pub mod serve;
mod server;
mod service;
mod source;
mod store;
mod tls;
mod vhd;

pub use account::{Account, BlobView};
pub use arm::{Arm, ArmKnobs, AsyncReply, SecondGrant};
pub use call::{Call, Role, UnknownCall};
pub use config::{Config, Knobs};
pub use counters::Counters;
pub use disk::{Disk, DiskError, DiskSnapshot};
pub use emulator::{Emulator, StartError};
pub use error::ErrorCode;
pub use fault::{BadFault, BadPageList, BusyText, Fault, FaultKind, Faults};
pub use generate::{BadPattern, Pattern};
pub use journal::{CallStats, RequestRecord, Stats};
pub use link::{BadLink, Link};
pub use vhd::BadFooter;
