//! What every command shares that speaks with Azure Resource Manager.

use std::sync::Arc;
use std::time::Duration;

use super::options::AccessArgs;
use crate::azure::{Arm, ArmEndpoint, Client, Meter, PlainHttp, RetryPolicy, Timeouts};
use crate::error::Result;

/// How the resource manager is reached.
#[derive(clap::Args)]
pub struct ManagerArgs {
    /// Azure Resource Manager of another cloud than the public one
    #[arg(
        long,
        value_name = "URL",
        env = "SNAPFERRY_ARM_ENDPOINT",
        hide_env_values = true,
        default_value = ArmEndpoint::PUBLIC
    )]
    pub arm_endpoint: String,
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
    let endpoint = ArmEndpoint::parse(&args.arm_endpoint, plain)?;
    let retry = RetryPolicy { budget: args.retry_for, ..RetryPolicy::default() };
    let client = Client::new(Timeouts::default(), retry, Some(args.access.login_type.credential()?))?;
    Ok(Arm::new(client, endpoint, Arc::new(Meter::default())))
}
