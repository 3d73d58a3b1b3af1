//! The emulator over its wire, asked by a plain HTTP client: what it answers is compared with the service's
//! documentation and with recorded traffic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod arm;
mod benchmarks;
mod blobs;
mod blocks;
mod client;
mod conditions;
mod copies;
mod export;
mod faults;
mod from_url;
mod generated;
mod https;
mod link;
mod listing;
mod page_lists;
mod page_writes;
mod tamper;
mod tokens;
