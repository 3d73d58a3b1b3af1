//! snapferry copies the incremental snapshots of Azure managed disks to another region, on your own compute.
//!
//! It asks the service which 512-byte pages changed between two snapshots, streams only those, in parallel,
//! into one page blob in the target region, and seals the result as a point: a snapshot of that blob from which
//! a disk can be restored.
//!
//! ```text
//!   snapshot A ─┐                                                      ┌─> point A
//!   snapshot B ─┴─ diff ──extents──> plan ──chunks──> copy ──> base blob ──> point B
//!                                                   read, check,   marker, lease,
//!                                                   write          generation, seal
//! ```
//!
//! # Words
//! *snapshot* (of a managed disk, at the source), *family* (snapshots of one disk, which can be diffed), *base
//! blob* (the page blob at the target), *point* (a snapshot of the base blob that equals one snapshot), *page*
//! (512 bytes), *extent* (a range of the diff: data or clear), *chunk* (a unit of copying, at most 4 MiB),
//! *plan* (all chunks of a step), *step* (from A to B), *generation* (the fencing number of a run), *marker*
//! (what the base blob says of itself), *checkpoint* (everything below is written), *seal* (turn a finished
//! step into a point), *mode* (who moves the bytes: this machine, or the service by itself, see [`copy::pull`]), *leaf* (4096 bytes), *record* (the checksums of a point's leaves).
//!
//! # Where to start reading
//! [`replicate`] is the spine: one step from two URLs to a sealed point, with its rules for consistency, retry,
//! cancellation and crashes. Then, in the order in which data flows: [`chain`] (who the snapshots are), [`diff`],
//! [`plan`], [`copy`], [`base`]. [`azure`] is the only place that knows a header name.
//!
//! What a point is worth later: [`record`] (a checksum of every [`leaf`] of 4 KiB, from the bytes that pass), which
//! [`mod@verify`] and [`mod@scrub`] hold it against, and [`mod@repair`], which mends a base blob. [`restore`] makes a disk of it (a
//! file, a device, a blob, a managed disk), with [`image`] for what lies on this machine and [`ingest`] for the way in from
//! there.
//!
//! Around the spine: [`sync`](mod@sync) does steps until a disk's whole chain is copied, with [`chain::grants`] keeping access to its
//! snapshots; [`rollback`](mod@rollback) is the way back from a step that was given up; [`managed`] is Azure's own copy, to
//! measure against. What a run shows of itself is [`measure`]; with the command line come `bench`, the document of a
//! benchmark, and `report`, which draws both.
//!
//! # Embedding
//! The library has no command line in it (`default-features = false`) and prints nothing:
//! ```no_run
//! use snapferry::azure::{Client, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
//! use snapferry::replicate::replicate;
//! use snapferry::step::{Settings, Step};
//! # async fn example() -> snapferry::Result<()> {
//! let url = |role, text: &str| Resource::parse(role, text, PlainHttp::LoopbackOnly);
//! let step = Step {
//!     source: url(Role::Source, "https://md-1.z1.blob.storage.azure.net/c/abcd?snapshot=2026-02-01T00:00:00.0000000Z&sig=...")?,
//!     previous: None,
//!     target: url(Role::Target, "https://backups.blob.core.windows.net/disks/web-1?sv=...&sig=...")?,
//!     origin: None,
//! };
//! let client = Client::new(Timeouts::default(), RetryPolicy::default(), None)?;
//! let (progress, cancel) = Default::default();
//! let report = replicate(&step, &client, &Settings::default(), &progress, &cancel).await?;
//! println!("{} bytes sent, point {}", report.bytes_sent, report.point.point);
//! # Ok(())
//! # }
//! ```

pub mod azure;
pub mod base;
#[cfg(feature = "cli")]
pub mod bench;
pub mod budget;
pub mod chain;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod copy;
pub mod diff;
pub mod dry_run;
pub mod error;
pub mod image;
pub mod ingest;
pub mod leaf;
pub mod managed;
pub mod measure;
pub mod plan;
mod prepare;
pub mod price;
pub mod progress;
pub mod range;
pub mod record;
pub mod repair;
pub mod replicate;
#[cfg(feature = "cli")]
pub mod report;
pub mod restore;
pub mod rollback;
pub mod scrub;
pub mod step;
pub mod sync;
pub mod verify;
pub mod vhd;

pub use error::{Error, ErrorKind, Remedy, Result};
