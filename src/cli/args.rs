//! What can be typed. No `Debug`: URLs with a SAS stand in here as they were given.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use snapferry_emulator::serve::{AccountSpec, DiskSpec};
use snapferry_emulator::{Fault, Link};

use super::options::{AccessArgs, CopyingArgs, ModeArg, PlanningArgs, VerifyArg};
use super::output::error_document;
use super::points::PointsArgs;
use super::profile::ProfileArgs;
use super::settings::parse_size;
use super::sync::{self, SyncArgs};
use crate::azure::reply::scrub;
use crate::error::{Error, ErrorKind};
use crate::image::Format;

const EXAMPLES: &str = "\
Examples:
  See it work, on this machine alone:
    snapferry demo

  Copy the first snapshot of a disk whole, then the next one as a difference. The SAS URLs come from
  `az snapshot grant-access`; in files or in the environment they do not show in a process list:
    snapferry copy --source @first.sas --target 'https://backups.blob.core.windows.net/disks/web-1'
    snapferry copy --source @second.sas --previous @first.sas --target 'https://backups...'

  What would that cost?
    snapferry plan --source @second.sas --previous @first.sas --target 'https://backups...'

  What is at the target?
    snapferry points --target 'https://backups...' --output json
    snapferry status --target 'https://backups...'

  How fast can this machine go, and with which settings? (On emulated regions, in a minute or two)
    snapferry bench --report bench.html

  Keep a week of days and a year of months:
    snapferry points prune --target 'https://backups...' --keep-daily 7 --keep-monthly 12";

/// Copy the incremental snapshots of Azure managed disks to another region, on your own compute.
#[derive(Parser)]
#[command(name = "snapferry", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Output on standard output: text, or one JSON document
    #[arg(long, short, global = true, value_enum, default_value_t, alias = "output-type")]
    pub output: OutputKind,
    /// Show no progress, and of the logs only errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Log more to standard error (-v what, -vv why, -vvv every request). Never shows a SAS or a token
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputKind {
    /// For people.
    #[default]
    Text,
    /// One document on standard output.
    Json,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Copy one snapshot to the base blob and seal it as a point
    #[command(after_help = COPY_HELP)]
    Copy(Box<CopyArgs>),
    /// Bring a base blob up to date with the snapshots of a disk
    #[command(after_help = sync::HELP)]
    Sync(Box<SyncArgs>),
    /// Say what copy would do: bytes, requests, extents, clears. Writes nothing
    Plan(Box<StepArgs>),
    /// Compare a point with its record, its source, or both
    #[command(after_help = super::verify::HELP)]
    Verify(Box<super::verify::VerifyArgs>),
    /// Give a base blob back the right bytes, or its newest point a record
    #[command(after_help = super::repair::HELP)]
    Repair(Box<super::repair::RepairArgs>),
    /// Hold all points of a container against their records, a share of them every day
    #[command(after_help = super::scrub::HELP)]
    Scrub(Box<super::scrub::ScrubArgs>),
    /// Put a base blob that an abandoned step has torn back to its last point
    #[command(after_help = ROLLBACK_HELP)]
    Rollback(Box<RollbackArgs>),
    /// Make a disk of a point: a file, a block device, another base blob, a managed disk
    #[command(after_help = super::restore::HELP)]
    Restore(Box<super::restore::RestoreArgs>),
    /// List, show, prune and protect the points of a base blob
    Points(Box<PointsArgs>),
    /// Show what a base blob says of itself
    Status(TargetArgs),
    /// Let Azure copy an incremental snapshot to another region (CopyStart), and follow it
    #[command(after_help = super::managed_copy::HELP)]
    ManagedCopy(Box<super::managed_copy::ManagedCopyArgs>),
    /// Grant a SAS of a snapshot, or end those that are out
    #[command(subcommand)]
    Access(super::access::AccessCommand),
    /// Put the JSON reports of copies side by side: copy, sync and managed-copy
    Compare(super::compare::CompareArgs),
    /// Measure copies with other settings, and say what limits and which settings are best
    #[command(after_help = super::bench::HELP)]
    Bench(Box<super::bench_args::BenchArgs>),
    /// Print the price table that sync --dry-run counts with, to be edited and given as --prices
    Prices,
    /// Show a disk with three snapshots cross between two emulated regions on this machine, and prove the result
    Demo(DemoArgs),
    /// Serve an emulated Azure region on this machine: page blobs, managed-disk exports, scripted faults
    #[command(after_help = EMULATE_HELP)]
    Emulate(Box<EmulateArgs>),
}

const COPY_HELP: &str = "\
URLs are given as they are, as @FILE, or as - for standard input; each also has a variable of the environment
(SNAPFERRY_SOURCE, SNAPFERRY_PREVIOUS, SNAPFERRY_TARGET).

A --source on this machine (file:disk.vhd, file:disk.raw, /dev/sdx) needs no --previous: what differs from the last point
is found by the checksums in its record.

Without --previous the snapshot is copied whole into a blob that must not exist. With it, the base blob must be
clean at exactly that snapshot. The same command after a crash, an interruption or an error goes on from the last
checkpoint, on any machine; after success it finds that nothing is left to do.

Exit codes: 0 done, 1 a defect, 2 usage, 3 access denied, 4 permission missing, 5 not found, 6 source unsuitable,
7 too large, 8 growth across 4 TiB, 9 snapshot order, 10 different families, 11 base missing, 12 base not clean,
13 base elsewhere, 14 base size mismatch, 15 base modified, 16 target exists, 17 lease held, 18 lease lost,
19 unavailable, 20 corruption, 21 protocol, 22 output, 23 insecure, 24 refused, 25 sas out, 26 differs,
27 target unsuitable, 28 slower, 130 interrupted.";

const ROLLBACK_HELP: &str = "\
A step that was begun and shall not be finished leaves the base blob between two snapshots. Rollback copies back from
the last point what was written or cleared since, compares, and declares the base blob clean at that point. A step that
is written to its end and only not sealed is sealed instead.";

const EMULATE_HELP: &str = "\
Calls of --fault: any, get-blob, head-blob, page-ranges, page-ranges-diff, put-blob, put-page, clear-pages,
  put-page-from-url, copy-blob, set-properties, set-metadata, snapshot-blob, lease, delete-blob, list-blobs, ...
Options: skip=N, times=N|always, chance=P, role=export|account, blob=NAME
Kinds: server-busy[=busy|ingress|egress|operations], retry-after=SECONDS, operation-timed-out[=TIME], internal-error,
  not-supported, forbidden, forbidden-after=TIME, cut-before-apply, cut-after-apply, cut-in-request, cut-in-reply,
  late-duplicate=TIME, delayed-apply=TIME, truncate-body=BYTES, stall=TIME, stall-body=BYTES,TIME, flip-byte-in-reply,
  flip-byte-in-request, bad-page-list=overlapping|misordered|misaligned|out-of-bounds|false-clear

For load tests, --disk NAME=SIZE,pattern=PATTERN[,changes=PATTERN][,snapshots=N] makes a disk whose content is computed and
never stored, up to 64 TiB. Patterns of the first snapshot, and of what changes with each of the next: none, dense, mixed,
zeros, scattered:COUNTxSIZE, even:COUNTxSIZE. An account named by --sink checks the pages that it is sent and drops them.
While it runs: GET /-/counters, POST /-/counters/reset, POST /-/link, POST /-/faults, POST /-/faults/clear.

Prints a SAS URL for every snapshot and container, then 'ready', and serves until Ctrl-C. Put the name of a base blob
behind the container's path to get a --target:
  snapferry emulate --disk web=4GiB,snapshots=2 --link latency=20ms,blob-bytes-per-second=60MiB
  snapferry copy --source '<URL of snapshot 1>' --target 'http://127.0.0.1:10000/target/disks/web?<SAS>'";

/// The URLs of a step, and how it is done.
#[derive(clap::Args)]
pub struct StepArgs {
    /// SAS URL of the snapshot to copy (URL, @FILE or -), or an image on this machine (file:disk.vhd, /dev/sdx)
    #[arg(long, env = "SNAPFERRY_SOURCE", hide_env_values = true, value_name = "URL")]
    pub source: String,
    /// SAS URL of the snapshot that the base blob is clean at; leave it out to copy in full (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_PREVIOUS", hide_env_values = true, value_name = "URL")]
    pub previous: Option<String>,
    /// The base blob: URL with a SAS, or without one to sign in with Entra (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TARGET", hide_env_values = true, value_name = "URL")]
    pub target: String,
    /// Form of a --source file whose name does not tell: vhd or raw
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Who moves the bytes from the source to the base blob
    #[arg(long, value_enum, default_value_t)]
    pub mode: ModeArg,
    /// Take two URLs with different hosts for snapshots of one disk when nothing else speaks against it
    #[arg(long)]
    pub across_hosts: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub planning: PlanningArgs,
}

/// What copy has besides plan.
#[derive(clap::Args)]
pub struct CopyArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub step: StepArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub copying: CopyingArgs,
    /// What is read back from the base blob and compared before a step is sealed
    #[arg(long, value_enum, default_value_t)]
    pub verify: VerifyArg,
    /// Let a full copy take the place of what the base blob holds. Its points stay
    #[arg(long, conflicts_with = "previous")]
    pub rebase: bool,
    /// Write how it went to this file: a page (.html), Markdown (.md) or JSON (.json)
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub profile: ProfileArgs,
    /// Only say what would be done, as plan does
    #[arg(long)]
    pub dry_run: bool,
}

/// A base blob. Only a command of a command goes without its own.
#[derive(clap::Args)]
pub struct TargetArgs {
    /// The base blob: URL with a SAS, or without one to sign in with Entra (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TARGET", hide_env_values = true, value_name = "URL", required = true)]
    pub target: Option<String>,
    /// How long one call may go on failing before the command ends
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub retry_for: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessArgs,
}

/// The way back.
#[derive(clap::Args)]
pub struct RollbackArgs {
    /// The base blob: URL with a SAS, or without one to sign in with Entra (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TARGET", hide_env_values = true, value_name = "URL")]
    pub target: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub planning: PlanningArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub copying: CopyingArgs,
}

/// The demo.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// Size of the disk before it grows, from 16MiB to 16GiB: both regions hold it in memory
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub size: u64,
}

/// The emulator.
#[derive(clap::Args)]
pub struct EmulateArgs {
    /// Address to listen on; loopback only, port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10000")]
    pub listen: std::net::SocketAddr,
    /// What keys, names and chances are derived from
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
    /// Serve https, with a certificate made for this run
    #[arg(long)]
    pub tls: bool,
    /// A storage account with containers: NAME=CONTAINER,...
    #[arg(long = "account", value_name = "ACCOUNT", default_value = "target=disks")]
    pub accounts: Vec<AccountSpec>,
    /// An account that checks the pages it is sent and drops them, all but the last 4 KiB of each blob
    #[arg(long = "sink", value_name = "ACCOUNT")]
    pub sinks: Vec<String>,
    /// A managed disk: NAME=SIZE or NAME=FILE (raw or .vhd), and ,snapshots=N after it. NAME=SIZE,pattern=PATTERN computes it
    #[arg(long = "disk", value_name = "DISK", default_value = "disk=1GiB,snapshots=3")]
    pub disks: Vec<DiskSpec>,
    /// A fault: CALL[:OPTION,...]:KIND, such as put-page:skip=3,times=2:server-busy=ingress
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<Fault>,
    /// Latency and limits, such as latency=5ms,blob-bytes-per-second=60MiB,blob-requests-per-second=500,blob-burst=1s
    #[arg(long, value_name = "LINK")]
    pub link: Option<Link>,
    /// End when standard input does: for a program that starts this one, however it ends itself
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

/// Parses, or prints help, version or a usage error, and gives the exit code for that.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    parse_with_typed(&args).map_err(|error| {
        if error.use_stderr() {
            // A URL in the wrong place is part of the message: its SAS must not be.
            let shown = scrub(&error.render().to_string());
            let _ = write!(std::io::stderr(), "{shown}");
            if wants_json(&args) {
                let why = shown.lines().next().unwrap_or_default().trim_start_matches("error: ");
                let error = Error::new(ErrorKind::Usage, "read the command line", why).next("snapferry help");
                error_document(&error);
            }
            return ExitCode::from(ErrorKind::Usage.exit_code());
        }
        match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(ErrorKind::Output.exit_code()),
        }
    })
}

/// Parses, and notes what was typed of what a profile can say: that wins.
fn parse_with_typed(args: &[OsString]) -> Result<Args, clap::Error> {
    let matches = Args::command().try_get_matches_from(args)?;
    let mut parsed = Args::from_arg_matches(&matches).map_err(|error| error.format(&mut Args::command()))?;
    let profile = match &mut parsed.command {
        Command::Copy(copy) => &mut copy.profile,
        Command::Sync(sync) => &mut sync.profile,
        _ => return Ok(parsed),
    };
    if let Some((_, typed)) = matches.subcommand() {
        profile.note(|name| typed.value_source(name) == Some(ValueSource::CommandLine));
    }
    Ok(parsed)
}

/// Whether a JSON document is wanted, by a command line that cannot be parsed.
fn wants_json(args: &[OsString]) -> bool {
    let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
    words.windows(2).any(|pair| matches!(&*pair[0], "-o" | "--output" | "--output-type") && pair[1] == "json")
        || words.iter().any(|word| matches!(&**word, "--output=json" | "--output-type=json" | "-ojson"))
}
