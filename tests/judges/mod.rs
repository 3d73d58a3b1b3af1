//! Judges: programs that this project did not write and that its output is held against.
//!
//! `./tools/test` installs them. A judge that is missing fails the test, unless `SNAPFERRY_WITHOUT_JUDGES` names
//! it: then the test says loudly what is not proved.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs, unreachable_pub)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use tempfile::TempDir;

/// The account that Azurite has, and its key: both are public, for development only.
pub const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const SAS_VERSION: &str = "2021-12-02";

/// Ends of a SAS that no test lives to see, and that every test comes too late for.
pub const FAR_AWAY: &str = "2099-01-01T00:00:00Z";
pub const LONG_AGO: &str = "2020-01-01T00:00:00Z";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    Azurite,
    /// A Python that has azure-mgmt-compute.
    AzureMgmt,
    QemuImg,
    Mke2fs,
    Debugfs,
    E2fsck,
    Chromium,
    /// Not required by any test, so `./tools/test` does not know it: taken where it is there.
    Resize2fs,
}

impl Judge {
    fn name(self) -> &'static str {
        match self {
            Self::Azurite => "azurite",
            Self::AzureMgmt => "azure-mgmt",
            Self::QemuImg => "qemu-img",
            Self::Mke2fs => "mke2fs",
            Self::Debugfs => "debugfs",
            Self::E2fsck => "e2fsck",
            Self::Chromium => "chromium",
            Self::Resize2fs => "resize2fs",
        }
    }

    /// Where the program is. Some are only where `./tools/test` says: another version must not pass for them.
    fn program(self) -> Option<PathBuf> {
        let told = match self {
            Self::Azurite => Some("SNAPFERRY_AZURITE"),
            Self::AzureMgmt => Some("SNAPFERRY_AZURE_MGMT_PYTHON"),
            _ => None,
        };
        if let Some(variable) = told {
            return std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Debian leaves sbin out of the PATH of everybody but root.
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        folders.map(|folder| folder.join(self.name())).find(|program| program.is_file())
    }

    /// A judge counts only when it runs: a program that lacks a library is no judge.
    pub fn is_here(self) -> bool {
        let Some(program) = self.program() else { return false };
        let arguments: &[&str] = match self {
            Self::Azurite | Self::QemuImg | Self::Chromium => &["--version"],
            Self::AzureMgmt => &["-c", "import azure.mgmt.compute"],
            Self::Mke2fs | Self::Debugfs | Self::E2fsck => &["-V"],
            // It has no flag that only shows its version.
            Self::Resize2fs => return true,
        };
        command(&program).args(arguments).output().is_ok_and(|output| output.status.success())
    }

    /// Runs the judge to its end.
    pub fn run<S: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = S>) -> Verdict {
        let program = self.program().unwrap_or_else(|| panic!("{} vanished", self.name()));
        let mut command = command(&program);
        command.args(arguments);
        let shown = format!("{command:?}");
        let output = command.output().unwrap_or_else(|error| panic!("{shown}: {error}"));
        Verdict {
            command: shown,
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What a judge said.
#[derive(Debug)]
pub struct Verdict {
    command: String,
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Verdict {
    /// Fails unless the judge's exit status is that of consent.
    #[track_caller]
    pub fn accepted(self) -> Self {
        let shown = String::from_utf8_lossy(&self.stdout);
        assert!(self.code == Some(0), "{}: {:?}\n{shown}\n{}", self.command, self.code, self.stderr);
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Whether all `judges` can judge. Where one may be missing and is, says what the test then does not prove.
///
/// # Panics
/// When one is missing that must be there.
pub fn are_here(judges: &[Judge], promise: &str) -> bool {
    let excused = std::env::var("SNAPFERRY_WITHOUT_JUDGES").unwrap_or_default();
    let missing: Vec<&str> =
        judges.iter().filter(|judge| !judge.is_here()).map(|judge| judge.name()).collect();
    let unexcused: Vec<&str> = missing
        .iter()
        .copied()
        .filter(|name| !excused.split(',').any(|excuse| excuse.trim() == *name))
        .collect();
    assert!(
        unexcused.is_empty(),
        "no judge without {}: run ./tools/test, which installs it and tells the tests where it is",
        unexcused.join(", ")
    );
    if missing.is_empty() {
        return true;
    }
    let rule = "#".repeat(78);
    let banner =
        format!("\n{rule}\n#\n#   MISSING: {}\n#   NOT PROVED: {promise}\n#\n{rule}\n", missing.join(", "));
    // Not eprintln, which the test runner swallows when a test passes.
    let _ = std::io::stderr().write_all(banner.as_bytes());
    false
}

/// A folder for one test, removed at its end.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A program with nothing of ours in its environment.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        // Accounts of Azurite's can be set by its environment, too.
        let name_text = name.to_string_lossy();
        if name_text.starts_with("SNAPFERRY_") || name_text.starts_with("AZURITE_") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// A running Azurite, ended when dropped.
#[derive(Debug)]
pub struct Azurite {
    process: Child,
    port: u16,
    // Dropped after the process has ended.
    folder: TempDir,
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Azurite {
    /// Starts Azurite on a free port, with everything it holds in memory.
    pub async fn start() -> Self {
        const STARTS: usize = 3;
        let mut failures = Vec::new();
        for _ in 0..STARTS {
            // Somebody else can take the port before Azurite does: then another one is tried.
            match Self::start_once().await {
                Ok(azurite) => return azurite,
                Err(why) => failures.push(why),
            }
        }
        panic!("Azurite does not start: {failures:#?}");
    }

    async fn start_once() -> Result<Self, String> {
        const POLLS: usize = 600;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = folder();
        let log = |name: &str| Stdio::from(File::create(folder.path().join(name)).unwrap());
        let program = Judge::Azurite.program().expect("the caller made sure that it is there");
        let process = command(&program)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            // Loose, as it otherwise refuses to be asked for the CRC-64 of a range instead of leaving it out.
            .args([
                "--skipApiVersionCheck",
                "--loose",
                "--silent",
                "--inMemoryPersistence",
                "--disableTelemetry",
            ])
            .current_dir(folder.path())
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut azurite = Self { process, port, folder };
        for _ in 0..POLLS {
            if let Some(status) = azurite.process.try_wait().unwrap() {
                return Err(format!("{status}, {}", azurite.logs()));
            }
            if azurite.answers().await {
                return Ok(azurite);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("no answer, {}", azurite.logs()))
    }

    /// Whether it is Azurite that answers, and not somebody else who took its port.
    async fn answers(&self) -> bool {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let reply = client.get(self.account_url()).send().await;
        let server = reply.ok().and_then(|reply| reply.headers().get("server").cloned());
        server.is_some_and(|server| server.as_bytes().starts_with(b"Azurite-Blob/"))
    }

    fn logs(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("stdout: {}, stderr: {}", read("stdout"), read("stderr"))
    }

    /// `http://127.0.0.1:PORT/account`.
    pub fn account_url(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }
}

/// The query of a SAS for the whole account. It and the next are signed here, by no code of ours that is on trial.
pub fn account_sas(permissions: &str, ends: &str) -> String {
    // Account, sp, ss, srt, st, se, sip, spr, sv, ses; each line is ended, the last one too.
    let text = format!("{ACCOUNT}\n{permissions}\nb\nsco\n\n{ends}\n\n\n{SAS_VERSION}\n\n");
    signed(&[("ss", "b"), ("srt", "sco"), ("se", ends), ("sp", permissions)], &text)
}

/// The query of a SAS for a container and the blobs in it.
pub fn container_sas(container: &str, permissions: &str, ends: &str) -> String {
    let resource = format!("/blob/{ACCOUNT}/{container}");
    // sp, st, se, resource, si, sip, spr, sv, sr, snapshot, ses, and five headers of the reply.
    let lines = [permissions, "", ends, &resource, "", "", "", SAS_VERSION, "c", "", "", "", "", "", "", ""]
        .join("\n");
    signed(&[("sr", "c"), ("se", ends), ("sp", permissions)], &lines)
}

fn signed(fields: &[(&str, &str)], text: &str) -> String {
    let key = BASE64_STANDARD.decode(ACCOUNT_KEY).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(text.as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("sv", SAS_VERSION).extend_pairs(fields).append_pair("sig", &signature);
    query.finish()
}
