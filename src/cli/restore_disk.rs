//! `snapferry restore --to disk:<ARM id>`: what it has besides the other restores.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::managed_copy::parse_tag;
use super::options::ArmArgs;
use super::output::{Output, size};
use super::{progress, settings};
use crate::azure::reply::scrub;
use crate::azure::{ArmId, ArmKind, Client, PlainHttp, Resource};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::restore::disk::{DiskJob, DiskReport, OnFailure, Way, restore_to_disk};
use crate::restore::point::Which;
use crate::step::Settings;

/// What a new disk is, and how it is made. The names are those of `az disk create`.
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct DiskArgs {
    /// Of a new disk: its region
    #[arg(long, value_name = "REGION", help_heading = "New disk")]
    pub location: Option<String>,
    /// Of a new disk: its kind, such as Premium_LRS
    #[arg(long, value_name = "SKU", default_value = DiskJob::SKU, help_heading = "New disk")]
    pub sku: String,
    /// Of a new disk that is booted from: Linux or Windows
    #[arg(long, value_name = "OS", help_heading = "New disk")]
    pub os_type: Option<String>,
    /// Of a new disk that is booted from: V1 or V2
    #[arg(long, value_name = "GENERATION", help_heading = "New disk")]
    pub hyper_v_generation: Option<String>,
    /// Of a new disk: its availability zone
    #[arg(long, value_name = "ZONE", help_heading = "New disk")]
    pub zone: Option<String>,
    /// A tag of the new disk, KEY=VALUE; can be given several times
    #[arg(long = "tag", value_name = "TAG", value_parser = parse_tag, help_heading = "New disk")]
    pub tags: Vec<(String, String)>,
    /// Let the service import the point itself: only within a region
    #[arg(long, conflicts_with = "upload", requires = "storage_account_id", help_heading = "New disk")]
    pub import: bool,
    /// Upload the point through this machine, also where it could be imported
    #[arg(long, help_heading = "New disk")]
    pub upload: bool,
    /// The storage account of the point, which an import needs: its id in Azure Resource Manager
    #[arg(long, value_name = "ID", help_heading = "New disk")]
    pub storage_account_id: Option<String>,
    /// Keep a half-made disk, whatever the failure
    #[arg(long, conflicts_with = "delete_on_failure", help_heading = "New disk")]
    pub keep_on_failure: bool,
    /// Delete a half-made disk, even where the same command could go on with it
    #[arg(long, help_heading = "New disk")]
    pub delete_on_failure: bool,
    /// How long each SAS for the upload is valid, from 30s to 60d; one that ends in the middle is granted anew
    #[arg(
        long,
        value_name = "TIME",
        default_value = "24h",
        value_parser = humantime::parse_duration,
        help_heading = "New disk"
    )]
    pub sas_duration: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub arm: ArmArgs,
}

/// What every restore has.
pub(super) struct Order<'a> {
    pub(super) base: Resource,
    pub(super) point: Which,
    pub(super) client: &'a Client,
    pub(super) settings: &'a Settings,
    pub(super) plain: PlainHttp,
}

/// Restores to the disk with the id `disk`.
pub(super) async fn to_disk(
    args: &DiskArgs,
    disk: &str,
    order: Order<'_>,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    let (client, settings, plain) = (order.client, order.settings, order.plain);
    let job = job(args, disk, order)?;
    let arm = settings::arm(&args.arm, client, plain)?;
    let counters = Progress::default();
    let work = restore_to_disk(&job, &arm, client, settings, &counters, cancel);
    let (report, course) = progress::observed(&counters, output.progress, work).await;
    let report = report?;
    output.observed(&report, &describe(&report), &course)
}

fn job(args: &DiskArgs, disk: &str, order: Order<'_>) -> Result<DiskJob> {
    let mut tags = BTreeMap::new();
    for (key, value) in &args.tags {
        if tags.insert(key.clone(), value.clone()).is_some() {
            return Err(Error::new(ErrorKind::Usage, "use the tags", "one is given twice")
                .on(scrub(key))
                .next("give each --tag once"));
        }
    }
    let account = args.storage_account_id.as_deref();
    let job = DiskJob {
        sku: args.sku.clone(),
        os_type: args.os_type.clone(),
        hyper_v_generation: args.hyper_v_generation.clone(),
        zone: args.zone.clone(),
        tags,
        way: match (args.import, args.upload) {
            (true, _) => Way::Import,
            (_, true) => Way::Upload,
            _ => Way::Auto,
        },
        storage_account: account.map(|text| ArmId::parse(ArmKind::StorageAccount, text)).transpose()?,
        on_failure: match (args.keep_on_failure, args.delete_on_failure) {
            (true, _) => OnFailure::Keep,
            (_, true) => OnFailure::Delete,
            _ => OnFailure::GoOn,
        },
        sas_duration: args.sas_duration,
        plain: order.plain,
        ..DiskJob::new(order.base, order.point, ArmId::parse(ArmKind::Disk, disk)?, args.location.clone())
    };
    job.check()?;
    Ok(job)
}

fn describe(report: &DiskReport) -> String {
    let mut lines = vec![
        format!("restored      {} ({})", report.disk, report.location),
        format!("equals        {}", report.source),
        format!("point         {}", report.point),
        format!("size          {}", size(report.size)),
        format!("by            {}: {}", report.way, report.because),
    ];
    if let Some(from) = report.resumed_from {
        lines.push(format!("went on from  {}", size(from)));
    }
    lines.push(format!("sent          {} ({})", size(report.bytes_sent), checked(report.checked)));
    lines.push(format!("time          {:.1} s with {} requests", report.seconds, report.requests));
    lines.join("\n")
}

fn checked(by: &str) -> String {
    match by {
        "crc64" => "each write checked by CRC-64".to_owned(),
        "length only" => "each write checked by TLS and length".to_owned(),
        by => format!("checked {by}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::azure::{RetryPolicy, Role, Timeouts};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        disk: DiskArgs,
    }

    const DISK: &str = "/subscriptions/0b1f/resourceGroups/Prod/providers/Microsoft.Compute/disks/web-1";
    const ACCOUNT: &str =
        "/subscriptions/0b1f/resourceGroups/Prod/providers/Microsoft.Storage/storageAccounts/backups";

    fn read(words: &[&str]) -> std::result::Result<Result<DiskJob>, clap::Error> {
        let line = Line::try_parse_from([&["snapferry"], words].concat())?;
        let base = "https://backups.blob.core.windows.net/disks/web-1";
        let client = Client::new(Timeouts::default(), RetryPolicy::default(), None).unwrap();
        let order = Order {
            base: Resource::parse(Role::Target, base, PlainHttp::LoopbackOnly).unwrap(),
            point: Which::Latest,
            client: &client,
            settings: &Settings::default(),
            plain: PlainHttp::LoopbackOnly,
        };
        Ok(job(&line.disk, DISK, order))
    }

    #[test]
    fn what_was_typed_becomes_a_job() {
        let job = read(&["--location", "northeurope"]).unwrap().unwrap();
        assert_eq!((job.way, job.on_failure, job.sku.as_str()), (Way::Auto, OnFailure::GoOn, "Standard_LRS"));
        assert_eq!((job.disk.to_string().as_str(), job.sas_duration), (DISK, DiskJob::SAS_DURATION));
        let words = ["--import", "--storage-account-id", ACCOUNT, "--keep-on-failure", "--tag", "a=b=c"];
        let job = read(&words).unwrap().unwrap();
        assert_eq!((job.way, job.on_failure), (Way::Import, OnFailure::Keep));
        assert_eq!(
            (job.storage_account.unwrap().to_string().as_str(), job.tags["a"].as_str()),
            (ACCOUNT, "b=c")
        );
        let job = read(&["--upload", "--delete-on-failure", "--sas-duration", "2h"]).unwrap().unwrap();
        assert_eq!((job.way, job.on_failure), (Way::Upload, OnFailure::Delete));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for words in [
            &["--import"][..],
            &["--import", "--upload", "--storage-account-id", ACCOUNT],
            &["--keep-on-failure", "--delete-on-failure"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
        for words in [
            ["--storage-account-id", DISK],
            ["--sas-duration", "61d"],
            ["--zone", "1 or 2"],
            ["--tag", "snapferry-state=x"],
        ] {
            assert_eq!(read(&words).unwrap().unwrap_err().kind(), ErrorKind::Usage, "{words:?}");
        }
        assert!(read(&["--tag", "a=1", "--tag", "a=2"]).unwrap().is_err());
    }
}
