//! The benchmark: what it found, as the document that is kept, compared and drawn.
//!
//! ```text
//! sweep ──measured cells──> result (JSON, format 1) ──> report::bench (HTML, Markdown)
//!                                    └───────────────> compare (old and new)
//! ```

pub mod result;
