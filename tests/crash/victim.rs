//! The program in a process of its own, in a place where it has never been before, until it is killed or ends.

use std::fs::File;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::world::{World, snapferry};

/// A child that neither ends nor gets to where it is to be killed.
const WATCHDOG: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the child is to do.
#[derive(Clone, Debug)]
pub enum Command {
    Sync { disk: String, rebase: bool, revoke: bool, pull: bool, until: Option<String> },
    Rollback,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Killed,
    Exited(i32),
}

/// Dropping it kills the child.
pub struct Victim {
    child: Child,
    /// Work directory and home; it stays empty, because no state is kept on the machine.
    home: tempfile::TempDir,
    log: tempfile::NamedTempFile,
}

impl Victim {
    pub fn start(world: &World, command: &Command, checkpoint_every: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut program = snapferry();
        program.env_clear().current_dir(&home).env("HOME", home.path()).env("TMPDIR", home.path());
        match command {
            Command::Sync { disk, rebase, revoke, pull, until } => {
                let (endpoint, header) = world.source.arm().identity();
                program.env("IDENTITY_ENDPOINT", endpoint).env("IDENTITY_HEADER", header);
                program.args(["sync", "--login-type", "msi", "--disk", disk, "--sas-duration", "10m"]);
                program.args(["--arm-endpoint", &world.source.arm().endpoint()]);
                program.args(until.iter().flat_map(|name| ["--until", name]));
                program.args(rebase.then_some("--rebase"));
                program.args(pull.then_some("--mode=server"));
                program.args(revoke.then_some("--revoke-active-sas"));
            }
            Command::Rollback => {
                program.arg("rollback");
            }
        }
        program.args(["--target", &world.target_url(), "--wait-for-lease", "0s", "--concurrency", "4"]);
        program.args(["--chunk-size", "64KiB", "--join-gap", "4KiB", "--zero-run", "4KiB"]);
        program.args(["--checkpoint-every", checkpoint_every, "--output", "json", "-vv"]);
        // One file, each line after the one before it: a pipe that nobody reads would hold the child up.
        let open = || File::options().append(true).open(log.path()).unwrap();
        program.stdout(open()).stderr(open());
        Self { child: program.spawn().unwrap(), home, log }
    }

    /// Waits until the child ends by itself, or kills it when it got to where it is `due`.
    pub async fn until(&mut self, due: impl Fn() -> bool) -> End {
        let started = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if due() {
                self.child.kill().unwrap();
                break;
            }
            assert!(started.elapsed() < WATCHDOG, "it neither ends nor can be killed:\n{}", self.said());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let status = self.child.wait().unwrap();
        let left: Vec<_> =
            std::fs::read_dir(&self.home).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "it left something on the machine: {left:?}");
        status.code().map_or(End::Killed, End::Exited)
    }

    /// All that it said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail when it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
