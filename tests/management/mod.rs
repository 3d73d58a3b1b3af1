//! An emulated resource manager, and the program signed in to it as a managed identity.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs, unreachable_pub)]

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use snapferry::azure::{Client, PlainHttp, RetryPolicy};
use snapferry_emulator::{Arm, ArmKnobs, Call, Config, Disk, DiskSnapshot, Emulator};

use crate::world::manager::SignedIn;
use crate::world::{self, MIB, noise, output, snapferry, text};

pub const HOME: &str = "westeurope";
pub const AWAY: &str = "northeurope";

pub struct Site {
    pub emulator: Emulator,
    pub arm: Arm,
    pub disk: Disk,
}

impl Site {
    /// A region with a disk that holds something, in a resource group whose name must be quoted.
    pub async fn new() -> Self {
        let emulator = Emulator::start(Config { record: true, ..Config::default() }).await.unwrap();
        let disk = emulator.create_disk_in("prod_(web).1", "web", 8 * MIB).unwrap();
        disk.write(0, &noise(1, MIB)).unwrap();
        Self { arm: emulator.arm(), emulator, disk }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let (endpoint, header) = self.arm.identity();
        let mut command = snapferry();
        command
            .args(arguments)
            .env("IDENTITY_ENDPOINT", endpoint)
            .env("IDENTITY_HEADER", header)
            .env("SNAPFERRY_LOGIN_TYPE", "msi")
            .env("SNAPFERRY_ARM_ENDPOINT", self.arm.endpoint());
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments)).await
    }

    /// Runs it with JSON output, and fails unless it ends well.
    pub async fn document(&self, arguments: &[&str]) -> Value {
        let run = self.run(&[arguments, &["--output", "json"]].concat()).await;
        assert!(run.status.success(), "{}", text(&run.stderr));
        serde_json::from_slice(&run.stdout).unwrap()
    }

    /// Runs it, and gives back the exit code and what it said.
    pub async fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let run = self.run(arguments).await;
        (run.status.code().unwrap(), text(&run.stderr))
    }

    pub fn count(&self, call: Call) -> usize {
        self.emulator.requests().iter().filter(|request| request.call == call).count()
    }

    pub fn copies_at(&self, percent_per_second: f64) {
        self.arm.set_knobs(ArmKnobs { copy_percent_per_second: percent_per_second, ..ArmKnobs::default() });
    }

    /// The id that a snapshot of this name has beside the disk's.
    pub fn beside(&self, name: &str) -> String {
        let disk = self.disk.arm_id();
        format!("{}/snapshots/{name}", disk.strip_suffix("/disks/web").unwrap())
    }

    /// A client of the library.
    pub fn client(&self) -> snapferry::azure::Arm {
        self.client_with(world::client().retry)
    }

    pub fn client_with(&self, retry: RetryPolicy) -> snapferry::azure::Arm {
        let credential = Arc::new(SignedIn(self.arm.clone()));
        let client = Client::new(world::client().timeouts, retry, Some(credential)).unwrap();
        let endpoint =
            snapferry::azure::ArmEndpoint::parse(&self.arm.endpoint(), PlainHttp::LoopbackOnly).unwrap();
        snapferry::azure::Arm::new(client, endpoint, Arc::default())
    }
}

/// The arguments that copy `snapshot` away.
pub fn copy_of<'a>(source: &'a str, name: &'a str) -> Vec<&'a str> {
    vec!["managed-copy", "--source", source, "--region", AWAY, "--target-name", name]
}

pub fn assert_same_bytes(copy: &DiskSnapshot, source: &DiskSnapshot) {
    assert_eq!(copy.len(), source.len());
    assert!(copy.read(0, copy.len()) == source.read(0, source.len()), "the copy differs from its source");
}

/// No token, and nothing of a SAS, stands in what was shown.
pub fn assert_no_secret(shown: &str) {
    for mark in ["eyJ", "sig=", "&si=", "?si="] {
        let at = shown.find(mark).map(|at| shown[at + mark.len()..].chars().take(8).collect::<String>());
        assert!(at.as_deref().is_none_or(|rest| rest == "REDACTED"), "'{mark}' stands in {shown}");
    }
}

/// Waits until `holds`; there is no other way to know what another process has done.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to pass that {what}");
}
