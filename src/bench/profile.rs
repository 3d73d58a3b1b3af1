//! A profile: the settings that a benchmark found best, as a small TOML file that `copy` and `sync` take.
//!
//! It holds no URL and no secret, so that it can be handed on. Where it was found stands in comments: a person decides
//! whether that is like the place where it is used.

use bytesize::ByteSize;
use serde::Deserialize;
use toml::Spanned;

use super::result::{Mode, Results, Setting};
use super::run::memory_for;
use super::verdict::typed_size;
use crate::azure::LARGEST_CHUNK;
use crate::copy::CopyOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::range::PAGE;
use crate::step::Settings;

/// The most chunks in flight.
const MOST_CHUNKS: u64 = 1024;

/// Settings of a copy. What a profile does not say stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Most chunks in flight.
    pub concurrency: Option<u16>,
    /// Longest chunk.
    pub chunk_size: Option<u64>,
    /// Most memory for chunks in flight.
    pub memory: Option<u64>,
    /// How bytes travel.
    pub mode: Option<Mode>,
    /// Widest gap that is joined: as wide as pays (`Some(None)`), or this wide.
    pub join_gap: Option<Option<u64>>,
    /// Zeros that are not sent, from this length on.
    pub zero_run: Option<u64>,
}

/// As it stands in the file, each value with its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    concurrency: Option<Spanned<i64>>,
    chunk_size: Option<Spanned<String>>,
    memory: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    join_gap: Option<Spanned<String>>,
    zero_run: Option<Spanned<String>>,
}

/// How near the rate of the best one a setting with more in flight must come to be as good.
const NEAR: f64 = 0.95;

/// The widest window that is as good as the best one's: a copy opens no more of it than pays, and a disk that is not like
/// the one that was measured may need it.
fn roomy(results: &Results, best: Setting) -> u64 {
    let Some(top) = results.cell(best) else { return best.window };
    let as_good = results.cells.iter().filter(|cell| {
        let alike = Setting { window: best.window, ..cell.setting } == best;
        alike && cell.rate.middle >= NEAR * top.rate.middle && cell.rate.high >= top.rate.low
    });
    let other_patterns = results.knees.iter().map(|knee| knee.setting).filter(|one| one.mode == best.mode);
    as_good.map(|cell| cell.setting).chain(other_patterns).map(|one| one.window).fold(best.window, u64::max)
}

impl Profile {
    /// The best settings of a benchmark; `None` when it has none.
    pub fn of(results: &Results) -> Option<Self> {
        let best = results.verdict.best?;
        let others = Settings::default();
        let window = roomy(results, best);
        let memory = CopyOptions::memory_around(memory_for(Setting { window, ..best }));
        Some(Self {
            concurrency: u16::try_from(window).ok(),
            chunk_size: Some(best.chunk),
            memory: Some(memory.next_multiple_of(1 << 20)),
            mode: Some(best.mode),
            join_gap: Some(others.plan.join_gap),
            zero_run: Some(others.zero_run),
        })
    }

    /// Reads a file, which is called `name` in errors.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], with the line, for what is unknown, out of bounds or no TOML.
    pub fn from_toml(text: &str, name: &str) -> Result<Self> {
        let file = File { text, name };
        let written: Written = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            file.unusable(at, error.message().trim())
        })?;
        let profile = Self {
            concurrency: written.concurrency.map(|value| file.concurrency(&value)).transpose()?,
            chunk_size: written.chunk_size.map(|value| file.chunk_size(&value)).transpose()?,
            memory: written
                .memory
                .map(|value| file.size(&value, "memory", LARGEST_CHUNK, u64::MAX))
                .transpose()?,
            mode: written.mode.map(|value| file.mode(&value)).transpose()?,
            join_gap: written.join_gap.map(|value| file.join_gap(&value)).transpose()?,
            zero_run: written
                .zero_run
                .map(|value| file.size(&value, "zero-run", PAGE, u64::MAX))
                .transpose()?,
        };
        Ok(profile)
    }

    /// The file, with where it was found as comments.
    pub fn to_toml(&self, found: &Results) -> String {
        let environment = &found.environment;
        let mut lines = vec![
            "# Settings for `snapferry copy --profile` and `snapferry sync --profile`. What is typed there wins.".to_owned(),
            format!("# Found by snapferry {} on {}.", comment(&environment.version), environment.date.strftime("%Y-%m-%d")),
            format!(
                "# Machine: {} cores, {} {}.",
                environment.cores,
                comment(&environment.os),
                comment(&environment.arch)
            ),
        ];
        if environment.emulated {
            let line = if environment.link.is_empty() {
                String::new()
            } else {
                format!(", line {}", comment(&environment.link))
            };
            lines.push(format!(
                "# Measured with the built-in emulator{line}: what Azure does may be another matter."
            ));
        }
        let best = found.verdict.best.and_then(|setting| found.cell(setting));
        if let Some(cell) = best {
            lines.push(format!(
                "# Rate: {:.1} MiB/s, pattern {}.",
                cell.rate.middle / 1_048_576.0,
                cell.setting.pattern.name()
            ));
        }
        lines.push(String::new());
        lines.extend(self.values());
        lines.join("\n") + "\n"
    }

    fn values(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut size = |name: &str, bytes: Option<u64>| {
            lines.extend(bytes.map(|bytes| format!("{name} = \"{}\"", typed_size(bytes))));
        };
        size("chunk-size", self.chunk_size);
        size("memory", self.memory);
        size("zero-run", self.zero_run);
        lines.extend(self.concurrency.map(|count| format!("concurrency = {count}")));
        lines.extend(self.mode.map(|mode| format!("mode = \"{}\"", mode.name())));
        let gap = |gap: Option<u64>| gap.map_or_else(|| "auto".to_owned(), typed_size);
        lines.extend(self.join_gap.map(|width| format!("join-gap = \"{}\"", gap(width))));
        lines.sort();
        lines
    }
}

/// Nothing leaves the line of its comment.
fn comment(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

/// The file that is read.
#[derive(Clone, Copy)]
struct File<'a> {
    text: &'a str,
    name: &'a str,
}

impl File<'_> {
    fn unusable(self, at: usize, why: &str) -> Error {
        let line = self.text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        Error::new(ErrorKind::Usage, "read the profile", format!("line {line}: {why}"))
            .on(self.name)
            .next("snapferry bench --profile out.toml writes one")
    }

    fn wrong<T>(self, value: &Spanned<T>, why: &str) -> Error {
        self.unusable(value.span().start, why)
    }

    fn concurrency(self, value: &Spanned<i64>) -> Result<u16> {
        let count = u16::try_from(*value.get_ref()).ok();
        count
            .filter(|count| (1..=MOST_CHUNKS).contains(&u64::from(*count)))
            .ok_or_else(|| self.wrong(value, &format!("concurrency must be 1 to {MOST_CHUNKS}")))
    }

    fn chunk_size(self, value: &Spanned<String>) -> Result<u64> {
        let size = self.size(value, "chunk-size", PAGE, LARGEST_CHUNK)?;
        if !size.is_multiple_of(PAGE) {
            return Err(self.wrong(value, &format!("chunk-size must be a multiple of {PAGE} bytes")));
        }
        Ok(size)
    }

    fn size(self, value: &Spanned<String>, name: &str, least: u64, most: u64) -> Result<u64> {
        let Ok(ByteSize(size)) = value.get_ref().trim().parse::<ByteSize>() else {
            return Err(self.wrong(value, &format!("{name} must be a size such as \"4MiB\"")));
        };
        if size < least {
            return Err(self.wrong(value, &format!("{name} must be at least {}", typed_size(least))));
        }
        if size > most {
            return Err(self.wrong(value, &format!("{name} must be at most {}", typed_size(most))));
        }
        Ok(size)
    }

    fn join_gap(self, value: &Spanned<String>) -> Result<Option<u64>> {
        if value.get_ref().trim() == "auto" {
            return Ok(None);
        }
        self.size(value, "join-gap", 0, LARGEST_CHUNK).map(Some)
    }

    fn mode(self, value: &Spanned<String>) -> Result<Mode> {
        let found = Mode::ALL.into_iter().find(|mode| mode.name() == value.get_ref());
        found.ok_or_else(|| self.wrong(value, "mode must be \"stream\" or \"server\""))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = "# found somewhere\nconcurrency = 24\nchunk-size = \"2MiB\"\nmemory = \"64MiB\"\nmode = \"server\"\njoin-gap = \"128KiB\"\nzero-run = \"4KiB\"\n";

    fn read(text: &str) -> Result<Profile> {
        Profile::from_toml(text, "p.toml")
    }

    #[test]
    fn a_file_says_what_it_says_and_nothing_else() {
        let whole = Profile {
            concurrency: Some(24),
            chunk_size: Some(2 << 20),
            memory: Some(64 << 20),
            mode: Some(Mode::Server),
            join_gap: Some(Some(128 << 10)),
            zero_run: Some(4096),
        };
        assert_eq!(read(WHOLE).unwrap(), whole);
        assert_eq!(read("").unwrap(), Profile::default());
        assert_eq!(read("join-gap = \"auto\"").unwrap().join_gap, Some(None));
        assert_eq!(read(&whole.values().join("\n")).unwrap(), whole);
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, line, why) in [
            ("concurrency = 0", 1, "1 to 1024"),
            ("\n\nconcurrency = 1025", 3, "1 to 1024"),
            ("concurrency = -1", 1, "1 to 1024"),
            ("concurrency = \"8\"", 1, "invalid type"),
            ("mode = \"stream\"\nchunk-size = \"5MiB\"", 2, "at most 4MiB"),
            ("chunk-size = \"1000\"", 1, "multiple of 512"),
            ("chunk-size = \"0\"", 1, "at least 512"),
            ("chunk-size = \"many\"", 1, "such as"),
            ("mode = \"fast\"", 1, "must be \"stream\""),
            ("join-gap = \"8MiB\"", 1, "at most"),
            ("memory = \"1MiB\"", 1, "at least 4MiB"),
            ("zero-run = \"1\"", 1, "at least 512"),
            ("# fine\nsource = \"https://a\"", 2, "unknown field"),
            ("mode = \"stream\"\nmode = \"server\"", 2, "duplicate"),
            ("mode = \"stream\"\n[more]\n", 2, "unknown field"),
            ("what is this", 1, ""),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            let begins = format!("line {line}: ");
            assert!(error.why().starts_with(&begins) && error.why().contains(why), "{text}: {}", error.why());
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(?s).{0,200}", place in 0_usize..120) {
            let _ = read(&text);
            let mut broken = WHOLE.to_owned();
            broken.insert_str(place.min(broken.len()), &text);
            let _ = read(&broken);
        }

        #[test]
        fn what_is_written_is_read(window in 1_u16..=1024, pages in 1_u64..=8192, gap in proptest::option::of(0_u64..=4 << 20)) {
            let profile = Profile {
                concurrency: Some(window),
                chunk_size: Some(pages * PAGE),
                memory: Some((pages * PAGE * u64::from(window)).max(256 << 20)),
                mode: Some(Mode::Stream),
                join_gap: Some(gap),
                zero_run: Some(pages * PAGE),
            };
            prop_assert_eq!(read(&profile.values().join("\n")).unwrap(), profile);
        }
    }
}
