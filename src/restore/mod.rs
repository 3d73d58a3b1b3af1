//! A disk from a point: to a file or block device, to another page blob, to a managed disk.

pub mod blob;
pub(crate) mod check;
pub mod disk;
pub mod file;
pub mod point;
