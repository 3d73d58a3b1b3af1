//! `snapferry access`: SAS URLs of snapshots, granted and ended.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::manager::{self, ManagerArgs};
use super::output::Output;
use crate::azure::arm::{Access, LONGEST_GRANT, ListScope, SHORTEST_GRANT};
use crate::azure::{Arm, ArmId, ArmKind};
use crate::error::{Error, ErrorKind, Result};
use crate::managed::posix;

/// Grants of SAS URLs.
#[derive(clap::Subcommand)]
pub enum AccessCommand {
    /// Print a SAS URL of a snapshot, alone, on standard output: it is a secret
    #[command(after_help = GRANT_HELP)]
    Grant(GrantArgs),
    /// End every SAS of snapshots, whoever asked for it
    Revoke(RevokeArgs),
}

const GRANT_HELP: &str = "\
Example:
  umask 077
  snapferry access grant --snapshot /subscriptions/.../snapshots/monday --duration 2h > monday.sas
  snapferry copy --source @monday.sas --target https://...
  snapferry access revoke --snapshot /subscriptions/.../snapshots/monday";

/// A SAS to be granted.
#[derive(clap::Args)]
pub struct GrantArgs {
    /// The snapshot: its id in Azure Resource Manager
    #[arg(long, value_name = "ID")]
    pub snapshot: String,
    /// How long the SAS is valid, from 30s to 60d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ManagerArgs,
}

/// SAS to be ended.
#[derive(clap::Args)]
pub struct RevokeArgs {
    /// A snapshot: its id in Azure Resource Manager; can be given several times
    #[arg(long = "snapshot", value_name = "ID", required_unless_present = "disk", conflicts_with = "disk")]
    pub snapshots: Vec<String>,
    /// A disk: ends the SAS of all its incremental snapshots
    #[arg(long, value_name = "ID")]
    pub disk: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ManagerArgs,
}

pub(super) async fn access(command: AccessCommand, output: Output, cancel: &CancellationToken) -> Result<()> {
    match command {
        AccessCommand::Grant(args) => grant(&args, output, cancel).await,
        AccessCommand::Revoke(args) => tokio::select! {
            result = revoke(&args, output) => result,
            () = cancel.cancelled() => {
                let why = "interrupted: those that were not ended yet are still out";
                Err(Error::new(ErrorKind::Interrupted, "end the SAS", why).next("run the same command again"))
            }
        },
    }
}

async fn grant(args: &GrantArgs, output: Output, cancel: &CancellationToken) -> Result<()> {
    let id = ArmId::parse(ArmKind::Snapshot, &args.snapshot)?;
    if !(SHORTEST_GRANT..=LONGEST_GRANT).contains(&args.duration) {
        let why = "Azure grants a SAS for 30 seconds to 60 days";
        return Err(Error::new(ErrorKind::Usage, "use --duration", why)
            .on(format!("{} s", args.duration.as_secs_f64()))
            .next(format!("snapferry access grant --snapshot {} --duration 60d", posix(&id.to_string()))));
    }
    let arm = manager::arm(&args.manager)?;
    // From here on a SAS may be out that nobody knows.
    let revoke = format!("end it: {}", revoke_command(&id));
    let granted = tokio::select! {
        granted = arm.begin_get_access(&id, Access::Read, args.duration) => granted,
        () = cancel.cancelled() => {
            return Err(Error::new(ErrorKind::Interrupted, "grant a SAS", "interrupted: one may be out").on(&id).next(revoke));
        }
    };
    let url = granted.map_err(|error| {
        let error = Error::from(error);
        // Refused for its state: nearly always because a SAS is out already.
        let is_refused = error.kind() == ErrorKind::Refused;
        if is_refused { error.next(format!("if another SAS is out, {revoke}")) } else { error }
    })?;
    tracing::warn!("the URL on standard output is a secret: until it ends, whoever has it can read the disk");
    let document = json!({ "snapshot": id, "url": url, "expires_in_seconds": args.duration.as_secs() });
    output
        .result(&document, &url)
        .map_err(|error| error.next(format!("the SAS is out, and nobody has it; {revoke}")))
}

async fn revoke(args: &RevokeArgs, output: Output) -> Result<()> {
    let mut snapshots: Vec<ArmId> = Vec::new();
    for text in &args.snapshots {
        let id = ArmId::parse(ArmKind::Snapshot, text)?;
        if !snapshots.contains(&id) {
            snapshots.push(id);
        }
    }
    let disk = args.disk.as_deref().map(|text| ArmId::parse(ArmKind::Disk, text)).transpose()?;
    let arm = manager::arm(&args.manager)?;
    if let Some(disk) = &disk {
        snapshots = active_snapshots(&arm, disk).await?;
    }
    let mut revoked = Vec::new();
    let mut failed = None;
    for id in snapshots {
        match arm.end_get_access(&id).await {
            Ok(()) => revoked.push(id),
            // The others are ended all the same.
            Err(error) => failed = failed.or(Some((id, Error::from(error)))),
        }
    }
    if let Some((id, error)) = failed {
        let names: Vec<&str> = revoked.iter().map(ArmId::name).collect();
        let others = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let why = format!("{} (ended meanwhile: {others})", error.why());
        let told = Error::new(error.kind(), error.tried(), why).on(&id);
        return Err(told.next(error.advice().map_or_else(|| revoke_command(&id), str::to_owned)));
    }
    let lines: Vec<String> = revoked.iter().map(|id| format!("ended         {id}")).collect();
    let text = if lines.is_empty() { "no SAS is out".to_owned() } else { lines.join("\n") };
    output.result(&json!({ "revoked": revoked }), &text)
}

/// The incremental snapshots of a disk whose SAS is out.
async fn active_snapshots(arm: &Arm, disk: &ArmId) -> Result<Vec<ArmId>> {
    let all = arm.snapshots(&ListScope::Subscription(disk.subscription().to_owned())).await?;
    let is_of_disk = |source: &String| ArmId::parse(ArmKind::Disk, source).is_ok_and(|id| id == *disk);
    let of_disk: Vec<_> = all
        .into_iter()
        .filter(|snapshot| snapshot.incremental && snapshot.source.as_ref().is_some_and(is_of_disk))
        .collect();
    if of_disk.is_empty() {
        // A misspelt name must not look like a disk with nothing to end.
        return Err(Error::new(
            ErrorKind::NotFound,
            "end the SAS of a disk",
            "it has no incremental snapshots",
        )
        .on(disk)
        .next("check the id: az disk list --query '[].id' -o tsv"));
    }
    Ok(of_disk
        .into_iter()
        .filter(crate::azure::ManagedSnapshot::has_active_sas)
        .map(|snapshot| snapshot.id)
        .collect())
}

fn revoke_command(id: &ArmId) -> String {
    format!("snapferry access revoke --snapshot {}", posix(&id.to_string()))
}
