//! The benchmark: many real copies, one after the other, each with other settings, and what they say together.
//!
//! ```text
//! sweep ──settings, shuffled──> run (replicate under an observer, into a blob of its own) ──> ground (blob deleted)
//!   │                             └─repeats──> cell ──> statistics ──> knee, verdict
//!   └─> result (JSON, format 1) ──> report::bench (HTML, Markdown)
//!                └──────────────> compare (old and new), profile (settings for copy)
//! ```
//!
//! **What is measured is the product**: each run is [`crate::replicate::replicate`] with all of its checks, and its rate
//! is that of its copying, from the first chunk to the last. What comes before and after (looking, sealing) is not in it:
//! it takes as long for a gigabyte as for a terabyte, and would drown what is compared.
//!
//! **Nothing of anybody's is touched.** Every run writes to a blob of its own whose name begins with
//! `snapferry-bench-<run>/`, and the blob is deleted after the run, however it ends.
//!
//! **Order.** All settings are run once, in an order that a seed decides, then all once again in another order: what else
//! the machine, the line or the service does in the course of an hour meets all of them alike.

pub mod compare;
pub mod estimate;
pub mod ground;
pub mod knee;
mod machine;
pub mod profile;
pub mod result;
pub mod run;
pub mod statistics;
pub mod sweep;
pub mod verdict;
