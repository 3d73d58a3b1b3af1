//! What the commands share that speak with Azure Resource Manager and copy nothing themselves.

use std::time::Duration;

use super::options::{AccessArgs, ArmArgs};
use super::settings;
use crate::azure::{Arm, Client, PlainHttp, RetryPolicy, Timeouts};
use crate::error::Result;

/// How the resource manager is reached.
#[derive(clap::Args)]
pub struct ManagerArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub arm: ArmArgs,
    /// How long one call may go on failing before the command ends
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    pub retry_for: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessArgs,
}

/// A client of the resource manager, signed in as was typed.
pub(super) fn arm(args: &ManagerArgs) -> Result<Arm> {
    let plain = if args.access.allow_http { PlainHttp::Anywhere } else { PlainHttp::LoopbackOnly };
    let retry = RetryPolicy { budget: args.retry_for, ..RetryPolicy::default() };
    let client = Client::new(Timeouts::default(), retry, Some(args.access.login_type.credential()?))?;
    settings::arm(&args.arm, &client, plain)
}
