//! snapferry.
pub mod azure;
pub mod base;
pub mod chain;
pub mod copy;
pub mod diff;
pub mod error;
pub mod plan;
pub mod progress;
pub mod range;
pub mod replicate;
pub mod vhd;

pub use error::{Error, ErrorKind, Remedy, Result};
