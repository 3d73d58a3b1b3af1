//! `--profile FILE`: settings that `snapferry bench` found, for copy and sync. What is typed wins over them.

use std::path::PathBuf;

use super::options::{CopyingArgs, ModeArg, PlanningArgs};
use super::settings::Gap;
use crate::azure::reply::scrub;
use crate::bench::profile::Profile;
use crate::bench::result::Mode;
use crate::error::{Error, ErrorKind, Result};

/// No profile is longer.
const LONGEST: u64 = 64 << 10;

/// Where settings come from.
#[derive(clap::Args)]
pub struct ProfileArgs {
    /// Settings that `snapferry bench --profile FILE` kept; what is typed beside it wins
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Which of the settings were typed.
    #[arg(skip)]
    pub typed: Typed,
}

/// Which settings that a profile can hold were typed.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
#[allow(missing_docs, reason = "their names are those of the options")]
pub struct Typed {
    pub concurrency: bool,
    pub chunk_size: bool,
    pub memory: bool,
    pub mode: bool,
    pub join_gap: bool,
    pub zero_run: bool,
}

impl ProfileArgs {
    /// Notes which options were typed.
    pub(super) fn note(&mut self, is_typed: impl Fn(&str) -> bool) {
        self.typed = Typed {
            concurrency: is_typed("concurrency"),
            chunk_size: is_typed("chunk_size"),
            memory: is_typed("memory"),
            mode: is_typed("mode"),
            join_gap: is_typed("join_gap"),
            zero_run: is_typed("zero_run"),
        };
    }

    /// Puts what the profile says in the place of defaults.
    pub(super) fn apply(
        &self,
        planning: &mut PlanningArgs,
        copying: &mut CopyingArgs,
        mode: &mut ModeArg,
    ) -> Result<()> {
        let Some(path) = &self.profile else { return Ok(()) };
        let name = scrub(&path.display().to_string());
        let unreadable = |why: String| {
            Error::new(ErrorKind::Usage, "read the profile", why)
                .on(&name)
                .next("snapferry bench --profile out.toml writes one")
        };
        let text = read(path).map_err(|error| unreadable(error.to_string()))?;
        let profile = Profile::from_toml(&text, &name)?;
        let Typed { concurrency, chunk_size, memory, mode: mode_typed, join_gap, zero_run } = self.typed;
        set(&mut copying.concurrency, profile.concurrency, concurrency);
        set(&mut planning.chunk_size, profile.chunk_size, chunk_size);
        set(&mut copying.memory, profile.memory, memory);
        set(&mut planning.join_gap, profile.join_gap.map(Gap), join_gap);
        set(&mut copying.zero_run, profile.zero_run, zero_run);
        set(mode, profile.mode.map(mode_arg), mode_typed);
        Ok(())
    }
}

fn read(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn set<T>(setting: &mut T, found: Option<T>, is_typed: bool) {
    if let Some(found) = found
        && !is_typed
    {
        *setting = found;
    }
}

fn mode_arg(mode: Mode) -> ModeArg {
    match mode {
        Mode::Stream => ModeArg::Stream,
        Mode::Server => ModeArg::Server,
    }
}
