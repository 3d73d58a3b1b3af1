//! Azure on the wire: the only place that knows a header name.
//!
//! ```text
//! resource   a URL as the user gave it    sas    the secret in it: kept byte for byte, renewed in use
//! client     what all endpoints share
//! endpoint   one URL with its connection, time-outs, rights, pace and count    sdk    as the SDK's transport
//! page_blob  control calls, through the official SDK
//! pages      page data: ranged reads, page writes, page writes that the service reads by itself, clears
//! ranges     page lists and their diff form     page_list  their parser
//! arm        disks, snapshots and grants, in Azure Resource Manager
//! failure    how a call fails, judged    reply  what the service said    retry  the one layer that repeats a call
//! pace       the one place that sleeps          meter      what went over the wire
//! allowance  what the service gives, learned from what it refuses
//! ```

mod allowance;
pub mod arm;
pub mod block_blob;
pub mod client;
pub mod crc64;
pub mod credentials;
pub mod destination;
pub mod endpoint;
pub mod failure;
pub mod meter;
pub mod pace;
pub mod page_blob;
pub mod page_list;
pub mod pages;
pub mod ranges;
pub mod reply;
pub mod resource;
pub mod retry;
pub mod sas;
mod sdk;
pub mod tokens;

pub use allowance::Learned;
pub use arm::{Arm, ArmEndpoint, ArmId, ArmKind, ManagedSnapshot};
pub use block_blob::BlockBlob;
pub use client::{Client, Timeouts};
pub use destination::Destination;
pub use endpoint::Endpoint;
pub use failure::{CallError, Cause};
pub use meter::{Meter, Reading};
pub use pace::{Caps, Pace};
pub use page_blob::{ListedSnapshot, Metadata, PageBlob, Properties};
pub use pages::{DOCUMENTED_BYTES_PER_SECOND, DOCUMENTED_REQUESTS_PER_SECOND, Fence, LARGEST_CHUNK};
pub use ranges::Against;
pub use resource::{PlainHttp, Resource, Role};
pub use retry::RetryPolicy;
