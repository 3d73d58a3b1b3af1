//! Options that several commands share.

use std::time::Duration;

use super::settings::{Gap, parse_gap, parse_rate, parse_requests, parse_size};
use crate::azure::ArmEndpoint;
use crate::azure::credentials::SignIn;
use crate::step::{Mode, Verify};

/// How page lists are asked for, how they become chunks, and how long calls may take.
#[derive(clap::Args)]
pub struct PlanningArgs {
    /// Longest chunk, at most 4MiB
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = parse_size, alias = "block-size")]
    pub chunk_size: u64,
    /// Join changes that are at most this far apart into one request; `auto` joins as it pays
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = parse_gap)]
    pub join_gap: Gap,
    /// Bytes of the disk that one page-list request asks about
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = parse_size)]
    pub list_window: u64,
    /// Cap on bytes a second, each for reading and for writing, such as 60MiB/s
    #[arg(long, value_name = "RATE", value_parser = parse_rate, conflicts_with = "cap_mbps")]
    pub rate_limit: Option<u64>,
    /// The same in megabits a second, as azcopy has it
    #[arg(long, value_name = "MEGABITS")]
    pub cap_mbps: Option<f64>,
    /// Cap on requests a second, each to the source and to the target, such as 400/s
    #[arg(long, value_name = "RATE", value_parser = parse_requests)]
    pub request_limit: Option<u32>,
    /// How long one call may go on failing before the run ends
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    pub retry_for: Duration,
    /// End an attempt when its connection is not made in this time
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,
    /// End an attempt when nothing arrives for this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub stall_timeout: Duration,
    /// End an attempt to move a chunk, or to get the head of a reply, after this time
    #[arg(long, value_name = "TIME", default_value = "150s", value_parser = humantime::parse_duration)]
    pub call_timeout: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessArgs,
}

/// How chunks are moved.
#[derive(clap::Args)]
pub struct CopyingArgs {
    /// Most chunks in flight
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// Most memory that the program takes in all
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub memory: u64,
    /// Zeros inside a chunk that are not sent as bytes, from this length on
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    pub zero_run: u64,
    /// Time between checkpoints
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub checkpoint_every: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub lease: LeaseArgs,
}

/// See [`crate::step::Mode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeArg {
    /// This machine, which checks them on their way: the point gets a record
    #[default]
    Stream,
    /// The service of the base blob, which reads the source by itself; this machine where the service refuses. The point
    /// gets no record
    Server,
}

impl From<ModeArg> for Mode {
    fn from(typed: ModeArg) -> Self {
        match typed {
            ModeArg::Stream => Self::Stream,
            ModeArg::Server => Self::Server,
        }
    }
}

/// See [`crate::step::Verify`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum VerifyArg {
    /// Nothing
    None,
    /// One chunk of a hundred that the run wrote, at least 4 and at most 64, against what came from the source (in server
    /// mode: against the source)
    #[default]
    Sample,
    /// That, and the whole base blob against the source, byte for byte
    Full,
}

impl From<VerifyArg> for Verify {
    fn from(typed: VerifyArg) -> Self {
        match typed {
            VerifyArg::None => Self::None,
            VerifyArg::Sample => Self::Sample,
            VerifyArg::Full => Self::Full,
        }
    }
}

/// How the base blob is taken.
#[derive(clap::Args)]
pub struct LeaseArgs {
    /// Seconds for which the lease is taken each time
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u8).range(15..=60))]
    pub lease_duration: u8,
    /// How long to wait for the lease of a writer that shows no sign of life
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = humantime::parse_duration)]
    pub wait_for_lease: Duration,
    /// Take the lease from whoever has it. Nothing of theirs lands any more
    #[arg(long)]
    pub break_lease: bool,
}

/// How Azure Resource Manager is reached.
#[derive(clap::Args)]
pub struct ArmArgs {
    /// Azure Resource Manager of another cloud than the public one
    #[arg(
        long,
        value_name = "URL",
        env = "SNAPFERRY_ARM_ENDPOINT",
        hide_env_values = true,
        default_value = ArmEndpoint::PUBLIC
    )]
    pub arm_endpoint: String,
}

/// Rights that a URL does not carry itself.
#[derive(clap::Args)]
pub struct AccessArgs {
    /// Where Entra tokens come from: auto, spn, workload, msi or azcli
    #[arg(long, value_name = "TYPE", default_value = "auto", env = "SNAPFERRY_LOGIN_TYPE")]
    pub login_type: SignIn,
    /// Allow plain http to other machines
    #[arg(long)]
    pub allow_http: bool,
}
