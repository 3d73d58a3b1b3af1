//! What a generated disk holds, and what changes of it from snapshot to snapshot, as a person names it.

use std::fmt;
use std::str::FromStr;

use super::layout::fits;
use crate::quantity::parse_bytes;

/// Where a generated disk holds data, or where it changes from one snapshot to the next.
///
/// In text: `none`, `dense`, `scattered:COUNTxSIZE`, `even:COUNTxSIZE`, `mixed` or `zeros`, where `SIZE` is a number of
/// bytes, or one with `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pattern {
    /// Nowhere.
    #[default]
    None,
    /// Everywhere: every page is random bytes, and none is zero.
    Dense,
    /// Extents of one size all over the disk, with gaps that vary as those between independent writes do. No two of
    /// them touch.
    Scattered {
        /// How many.
        extents: u64,
        /// Bytes of each, a multiple of 512.
        bytes: u64,
    },
    /// The same with equal gaps.
    Even {
        /// How many.
        extents: u64,
        /// Bytes of each, a multiple of 512.
        bytes: u64,
    },
    /// In every 32 MiB, small extents of several sizes in the first half, and a run of some MiB in the other.
    Mixed,
    /// Everywhere, but some of it is zeros: pages that were written and hold nothing but zeros, between stretches of
    /// random bytes.
    Zeros,
}

/// The text describes no pattern.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no pattern: {forms}", forms = Pattern::FORMS)]
pub struct BadPattern(String);

impl Pattern {
    pub(crate) const FORMS: &str = "none, dense, scattered:COUNTxSIZE, even:COUNTxSIZE, mixed or zeros";

    /// Whether a disk of so many bytes has room for it.
    pub fn fits(self, disk_bytes: u64) -> bool {
        match self {
            Pattern::Scattered { extents, bytes } | Pattern::Even { extents, bytes } => {
                fits(extents, bytes, disk_bytes)
            }
            _ => true,
        }
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Pattern, BadPattern> {
        let bad = || BadPattern(text.to_owned());
        let Some((kind, numbers)) = text.split_once(':') else {
            return match text {
                "none" => Ok(Pattern::None),
                "dense" => Ok(Pattern::Dense),
                "mixed" => Ok(Pattern::Mixed),
                "zeros" => Ok(Pattern::Zeros),
                _ => Err(bad()),
            };
        };
        let (extents, bytes) = numbers.split_once('x').ok_or_else(bad)?;
        let extents = extents.parse().map_err(|_| bad())?;
        let bytes = parse_bytes(bytes).ok_or_else(bad)?;
        match kind {
            "scattered" => Ok(Pattern::Scattered { extents, bytes }),
            "even" => Ok(Pattern::Even { extents, bytes }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::None => formatter.write_str("none"),
            Pattern::Dense => formatter.write_str("dense"),
            Pattern::Scattered { extents, bytes } => write!(formatter, "scattered:{extents}x{bytes}"),
            Pattern::Even { extents, bytes } => write!(formatter, "even:{extents}x{bytes}"),
            Pattern::Mixed => formatter.write_str("mixed"),
            Pattern::Zeros => formatter.write_str("zeros"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text() {
        let pattern = |text: &str| text.parse::<Pattern>();
        let scattered = Pattern::Scattered { extents: 100_000, bytes: 4096 };
        assert_eq!(pattern("scattered:100000x4KiB").unwrap(), scattered);
        assert_eq!(pattern(&scattered.to_string()).unwrap(), scattered);
        for text in ["none", "dense", "mixed", "zeros", "even:7x512"] {
            assert_eq!(pattern(text).unwrap().to_string(), text);
        }
        for wrong in ["", "Dense", "dense:1x512", "scattered", "scattered:4KiB", "even:1x4kb", "even:-1x512"]
        {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
    }
}
