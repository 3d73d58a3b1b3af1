//! What a limit means to a person, and what to change.

use std::fmt;

use super::{Course, Limit, Share};

/// A limit is told from this part of the time on.
const WORTH_TELLING: f64 = 0.1;

/// What limits a run, and by what it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The limit.
    pub limit: Limit,
    /// In a word: `503`, `slow`, `--memory`; may be empty.
    pub by: &'static str,
}

impl Default for Found {
    fn default() -> Self {
        Self { limit: Limit::Unknown, by: "" }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.limit.words())?;
        if self.by.is_empty() { Ok(()) } else { write!(f, " ({})", self.by) }
    }
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Source,
        Self::Target,
        Self::Cap,
        Self::Cpu,
        Self::Link,
        Self::Listing,
        Self::Window,
        Self::Unknown,
    ];

    /// As it stands in a sentence: "limited by the target".
    pub fn words(self) -> &'static str {
        match self {
            Self::Source => "the source",
            Self::Target => "the target",
            Self::Cap => "the cap",
            Self::Cpu => "the processors",
            Self::Link => "the line",
            Self::Listing => "the page list",
            Self::Window => "the window",
            Self::Unknown => "nothing known",
        }
    }

    /// What it means, and what to change.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Source => {
                "the source, or the line from it, gives no more: it refuses requests (503), or each takes longer the more there are. Nothing is gained here with more in flight; a machine in the source's region is nearer to it"
            }
            Self::Target => {
                "the target, or the line to it, takes no more: it refuses requests (503), or each takes longer the more there are. Nothing is gained here with more in flight: one page blob of an ordinary account takes about 60 MiB/s and 500 requests a second, one of a premium account more"
            }
            Self::Cap => {
                "a cap that was set holds it back: raise --rate-limit (or --cap-mbps) or --request-limit"
            }
            Self::Cpu => {
                "the processors of this machine are busy: use one with more of them, or run less beside it"
            }
            Self::Link => {
                "the line of this machine is full: more in flight only makes each request take longer. Use a machine with a wider line, or one in the region of the source or the target"
            }
            Self::Listing => {
                "the page list comes slower than it is copied: the service takes its time to find what changed. A smaller --list-window has more of it found at once"
            }
            Self::Window => {
                "more could be in flight, and each request is as quick as ever: raise --concurrency, and --memory with it"
            }
            Self::Unknown => "the window was still opening, or it was over too soon to tell",
        }
    }
}

impl Course {
    /// What limited it most, as far as that is known for more than a tenth of the time.
    pub fn main_limit(&self) -> Option<Limit> {
        self.known().next().map(|share| share.limit)
    }

    fn known(&self) -> impl Iterator<Item = &Share> {
        self.limits.iter().filter(|share| share.limit != Limit::Unknown && share.part > WORTH_TELLING)
    }

    /// What limited the run for more than a tenth of the time, such as `the target 82 %, the window 11 %`; `None` when
    /// that is not known.
    pub fn limited_by(&self) -> Option<String> {
        let known: Vec<String> = self
            .known()
            .map(|share| format!("{} {:.0} %", share.limit.words(), share.part * 100.0))
            .collect();
        (!known.is_empty()).then(|| known.join(", "))
    }
}
