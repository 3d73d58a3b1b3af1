//! The emulated regions that `snapferry bench` measures on when it is given no URLs: this program once more, on
//! loopback, in a process of its own, so that its processor time and memory are not counted with the copy's.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::azure::{Destination, PlainHttp, Resource, Role};
use crate::bench::result::Pattern;
use crate::bench::run::Subject;
use crate::error::{Error, ErrorKind, Result};

const ACCOUNT: &str = "target";
const CONTAINER: &str = "disks";
const MIB: u64 = 1 << 20;
/// A change of the scattered pattern, and the room that it has: gaps are wider than what is ever joined for one page blob's
/// limits.
const SCATTERED_BYTES: u64 = 4 << 10;
const SCATTERED_EVERY: u64 = 256 << 10;
/// Bytes of `--size` for each scattered change: a request takes about as long as so many bytes.
const SCATTERED_FOR: u64 = 64 << 10;
/// It makes its disks without computing them: it is there at once, or not at all.
const STARTS_IN: Duration = Duration::from_mins(1);

/// Emulated regions. They end when this is dropped, and when this process ends in whatever way.
pub(super) struct EmulatedRegions {
    _child: Child,
    pub(super) subjects: Vec<Subject>,
    pub(super) destination: Destination,
}

impl EmulatedRegions {
    /// Starts regions with a disk of each pattern, and a container that drops what it is sent.
    pub(super) async fn start(patterns: &[Pattern], size: u64, link: Option<&str>) -> Result<Self> {
        let program = std::env::current_exe().map_err(|error| broken(&error))?;
        let mut command = Command::new(program);
        command.args(["emulate", "--listen", "127.0.0.1:0", "--until-stdin-ends"]).args([
            "--account",
            &format!("{ACCOUNT}={CONTAINER}"),
            "--sink",
            ACCOUNT,
        ]);
        for pattern in patterns {
            command.args(["--disk", &disk(*pattern, size)]);
        }
        if let Some(link) = link {
            command.args(["--link", link]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        // Ctrl-C is for the benchmark, which still has blobs to delete there.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| broken(&error))?;
        let stdout = child.stdout.take().ok_or_else(|| broken(&"it has no output"))?;
        let told = tokio::time::timeout(STARTS_IN, lines_until_ready(BufReader::new(stdout)));
        let told = told.await.map_err(|_| broken(&"it does not start"))??;
        let subjects = patterns.iter().map(|pattern| subject(*pattern, &told)).collect::<Result<_>>()?;
        let container = format!("account {ACCOUNT} container {CONTAINER} ");
        let destination = Destination::parse(url_after(&container, &told)?, PlainHttp::LoopbackOnly)?;
        Ok(Self { _child: child, subjects, destination })
    }
}

/// As `emulate --disk` takes it.
fn disk(pattern: Pattern, size: u64) -> String {
    let whole = size.next_multiple_of(MIB);
    match pattern {
        Pattern::Scattered => {
            let extents = (size / SCATTERED_FOR).max(16);
            let room = (extents * SCATTERED_EVERY).next_multiple_of(MIB);
            format!("scattered={room},pattern=scattered:{extents}x{SCATTERED_BYTES}")
        }
        pattern => format!("{0}={whole},pattern={0}", pattern.name()),
    }
}

async fn lines_until_ready(output: impl tokio::io::AsyncBufRead + Unpin) -> Result<Vec<String>> {
    let mut lines = output.lines();
    let mut told = Vec::new();
    while let Some(line) = lines.next_line().await.map_err(|error| broken(&error))? {
        if line == "ready" {
            return Ok(told);
        }
        told.push(line);
    }
    Err(broken(&"it ended before it was ready"))
}

fn subject(pattern: Pattern, told: &[String]) -> Result<Subject> {
    let url = url_after(&format!("disk {} snapshot 1 http", pattern.name()), told)?;
    let source = Resource::parse(Role::Source, url, PlainHttp::LoopbackOnly)?;
    Ok(Subject { pattern, source, previous: None, is_kept: false })
}

/// The last word of the line that begins so.
fn url_after<'a>(beginning: &str, told: &'a [String]) -> Result<&'a str> {
    let line = told.iter().find(|line| line.starts_with(beginning));
    let url = line.and_then(|line| line.rsplit(' ').next());
    url.ok_or_else(|| broken(&"it did not tell its URLs"))
}

fn broken(why: &impl ToString) -> Error {
    Error::new(ErrorKind::Internal, "start the emulated regions", why.to_string())
}
