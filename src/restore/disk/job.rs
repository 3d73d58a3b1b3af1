//! What is asked for: checked as far as that is possible without asking anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{TRIED, target};
use crate::azure::arm::{LONGEST_GRANT, SHORTEST_GRANT};
use crate::azure::reply::scrub;
use crate::azure::{ArmId, ArmKind, PlainHttp, Resource};
use crate::error::{Error, ErrorKind, Result};
use crate::managed::{check_tags, fold_region};
use crate::restore::point::Which;

/// How the bytes come into the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// An import where the point is known to be in the disk's region, otherwise an upload.
    #[default]
    Auto,
    /// Through this machine: to any region, subscription and tenant, checked end to end.
    Upload,
    /// By the service itself, from a point in the same region.
    Import,
}

/// What becomes of a half-made disk when the restore fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is kept where the same command can go on with it: after an interruption, after what passes by itself, and
    /// where a right ended in mid-upload. Otherwise it is deleted.
    #[default]
    GoOn,
    /// It is kept.
    Keep,
    /// It is deleted.
    Delete,
}

/// One point, and the disk that it becomes.
#[derive(Clone, Debug)]
pub struct DiskJob {
    /// The base blob, or a point of it.
    pub base: Resource,
    /// Which point.
    pub point: Which,
    /// The disk. There must be none of that id, or one that the same job began.
    pub disk: ArmId,
    /// The region of the disk. Needed to make it; to go on, it need not be said.
    pub location: Option<String>,
    /// The kind of disk, as in `az disk create --sku`.
    pub sku: String,
    /// `Linux` or `Windows`, of a disk that is booted from.
    pub os_type: Option<String>,
    /// `V1` or `V2`, of a disk that is booted from.
    pub hyper_v_generation: Option<String>,
    /// The availability zone, such as `1`.
    pub zone: Option<String>,
    /// Tags of the disk.
    pub tags: BTreeMap<String, String>,
    /// How the bytes come into it.
    pub way: Way,
    /// The storage account of the base blob, which an import needs.
    pub storage_account: Option<ArmId>,
    /// What becomes of a half-made disk.
    pub on_failure: OnFailure,
    /// How long the SAS for the upload lasts if it is not ended; one that ends in the middle is granted anew.
    pub sas_duration: Duration,
    /// Time between two notes, on the disk, of how far the upload is. Each costs two requests to the resource manager.
    pub note_every: Duration,
    /// Whether the upload may go over plain http.
    pub plain: PlainHttp,
}

impl DiskJob {
    /// The cheapest kind of disk, which `az disk update --sku` changes at any time. (az makes `Premium_LRS`.)
    pub const SKU: &str = "Standard_LRS";
    /// An upload of 8 TiB takes longer than that at 60 MiB/s, and is granted anew then.
    pub const SAS_DURATION: Duration = Duration::from_hours(24);
    /// The resource manager counts its writes by the hour.
    pub const NOTE_EVERY: Duration = Duration::from_mins(1);

    /// A job with the defaults.
    pub fn new(base: Resource, point: Which, disk: ArmId, location: Option<String>) -> Self {
        Self {
            base,
            point,
            disk,
            location,
            sku: Self::SKU.to_owned(),
            os_type: None,
            hyper_v_generation: None,
            zone: None,
            tags: BTreeMap::new(),
            way: Way::default(),
            storage_account: None,
            on_failure: OnFailure::default(),
            sas_duration: Self::SAS_DURATION,
            note_every: Self::NOTE_EVERY,
            plain: PlainHttp::default(),
        }
    }

    /// What can be told to be wrong without asking anybody.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], with what is wrong.
    pub fn check(&self) -> Result<()> {
        if self.disk.kind() != ArmKind::Disk {
            return usage(
                format!("the target is a {}, not a disk", self.disk.kind()),
                "give --to disk:<ARM id>",
            );
        }
        if self.way == Way::Import && self.storage_account.is_none() {
            return usage(
                "an import needs the id of the storage account that the point is in",
                "--storage-account-id \"$(az storage account show --name <account> --query id -o tsv)\"",
            );
        }
        if self.storage_account.as_ref().is_some_and(|id| id.kind() != ArmKind::StorageAccount) {
            return usage("the account's id is not that of a storage account", "give its ARM id");
        }
        if !(SHORTEST_GRANT..=LONGEST_GRANT).contains(&self.sas_duration) {
            return usage("a SAS lasts from 30 seconds to 60 days", "leave --sas-duration out");
        }
        let words = [
            ("--sku", Some(&self.sku)),
            ("--os-type", self.os_type.as_ref()),
            ("--hyper-v-generation", self.hyper_v_generation.as_ref()),
            ("--zone", self.zone.as_ref()),
        ];
        for (name, word) in words {
            let is_word = |word: &str| {
                (1..=40).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            if let Some(word) = word.filter(|word| !is_word(word)) {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("use {name}"),
                    "it is no word that the service has",
                )
                .on(scrub(word))
                .next("az disk create --help"));
            }
        }
        self.region()?;
        target::check_own(&self.tags)?;
        check_tags(&self.tags)
    }

    /// The region as the service writes it, if one was given.
    pub(super) fn region(&self) -> Result<Option<String>> {
        let Some(text) = &self.location else { return Ok(None) };
        let region = fold_region(text);
        if (1..=50).contains(&region.len()) && region.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(Some(region));
        }
        Err(Error::new(ErrorKind::Usage, "use --location", "a region's name has letters and digits")
            .on(scrub(text))
            .next("az account list-locations --query '[].name' -o tsv"))
    }

    /// Whether the disk is to be in this region.
    pub(super) fn is_at(&self, region: &str) -> bool {
        self.location.as_deref().is_some_and(|ours| fold_region(ours) == fold_region(region))
    }
}

fn usage<T>(why: impl Into<String>, next: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Usage, TRIED, why).next(next))
}
