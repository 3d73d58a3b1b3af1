//! The disk in the resource manager: looked at, made, tagged, proven whole, removed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::fit::Image;
use super::{DiskJob, TRIED};
use crate::azure::arm::ManagedDisk;
use crate::azure::failure::{CallError, CallResult, Cause};
use crate::azure::reply::scrub;
use crate::azure::{Arm, Role, pace};
use crate::error::{Error, ErrorKind, Result};
use crate::leaf::LEAF;
use crate::managed::posix;
use crate::range::PAGE;
use crate::record::digest::hex;

/// Of which point the disk is made.
const RESTORE: &str = "snapferry-restore";
/// `uploading`, `written`, or `importing`.
const STATE: &str = "snapferry-state";
/// Everything below this byte is uploaded.
const CHECKPOINT: &str = "snapferry-checkpoint";

/// Tags of the user: a resource has at most 50.
const MOST_TAGS: usize = 47;

const UPLOADING: &str = "uploading";
const WRITTEN: &str = "written";
const IMPORTING: &str = "importing";

const GIB: u64 = 1 << 30;

/// How long the service may take to show that a disk is whole.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How the disk stands before this run does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none.
    Absent,
    /// Ours: everything below `from` is uploaded.
    Uploading {
        /// A byte.
        from: u64,
    },
    /// Ours: the service is making it.
    Importing,
    /// Ours, and whole: made this way.
    Whole(&'static str),
}

/// The disk that the point becomes.
pub(super) struct Target<'a> {
    pub(super) arm: &'a Arm,
    job: &'a DiskJob,
    /// Names the point, without saying where it is.
    mark: String,
    /// Bytes of the upload, footer included.
    length: u64,
}

/// Refuses tags of the user that would be taken for ours, or leave no room for them.
pub(super) fn check_own(tags: &BTreeMap<String, String>) -> Result<()> {
    if tags.len() > MOST_TAGS {
        let why =
            format!("at most {MOST_TAGS}: snapferry needs room for three of its own while the disk is made");
        return Err(Error::new(ErrorKind::Usage, "use the tags", why)
            .next("add the rest when the disk is made: az tag update"));
    }
    match tags.keys().find(|key| is_ours(key)) {
        None => Ok(()),
        Some(key) => Err(Error::new(ErrorKind::Usage, "use the tags", "this one is snapferry's own")
            .on(scrub(key))
            .next("name it otherwise")),
    }
}

/// Names of tags are compared without case.
fn is_ours(key: &str) -> bool {
    [RESTORE, STATE, CHECKPOINT].iter().any(|ours| key.eq_ignore_ascii_case(ours))
}

fn tag<'t>(disk: &'t ManagedDisk, name: &str) -> Option<&'t str> {
    disk.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl<'a> Target<'a> {
    pub(super) fn new(arm: &'a Arm, job: &'a DiskJob, image: &Image) -> Self {
        let named = format!("{}\n{}", image.found.base.resource().location(), image.found.time);
        let mark = hex(&Sha256::digest(named.as_bytes()));
        Self { arm, job, mark, length: image.found.marker.length }
    }

    /// The disk, if there is one.
    pub(super) async fn present(&self) -> CallResult<Option<ManagedDisk>> {
        match self.arm.disk(&self.job.disk).await {
            Err(error) if error.status() == Some(404) && error.code() != "ResourceGroupNotFound" => Ok(None),
            found => found.map(Some),
        }
    }

    /// Whether there is one, and whose it is.
    pub(super) async fn look(&self) -> Result<Standing> {
        let Some(disk) = self.present().await? else {
            if self.job.location.is_none() {
                return Err(Error::new(ErrorKind::Usage, TRIED, "a new disk needs a region")
                    .on(&self.job.disk)
                    .next("--location <region>: az account list-locations --query '[].name' -o tsv"));
            }
            return Ok(Standing::Absent);
        };
        self.check_ours(&disk)?;
        if !self.fits(&disk) {
            return Err(self.unsuitable(&disk, "it is tagged as ours, and"));
        }
        match tag(&disk, STATE).unwrap_or_default() {
            _ if disk.has_failed() => Err(self.refuse(
                ErrorKind::TargetUnsuitable,
                "the service could not make it".to_owned(),
            )),
            IMPORTING if disk.is_settled() => Ok(Standing::Whole("import")),
            IMPORTING => Ok(Standing::Importing),
            WRITTEN if !disk.awaits_upload() => Ok(Standing::Whole("upload")),
            WRITTEN => Ok(Standing::Uploading { from: self.length - PAGE }),
            UPLOADING if disk.awaits_upload() => Ok(Standing::Uploading { from: self.checkpoint(&disk) }),
            _ => Err(self.refuse(
                ErrorKind::TargetUnsuitable,
                "its upload was ended before all of the point was written, and not by snapferry: nobody knows what it holds"
                    .to_owned(),
            )),
        }
    }

    fn check_ours(&self, disk: &ManagedDisk) -> Result<()> {
        match tag(disk, RESTORE) {
            Some(mark) if mark == self.mark => Ok(()),
            Some(_) => {
                Err(self.refuse(ErrorKind::TargetExists, "it is half made of another point".to_owned()))
            }
            None if !self.fits(disk) => Err(self.unsuitable(disk, "it exists, and")),
            None => {
                Err(self
                    .refuse(ErrorKind::TargetExists, "it exists, and a restore makes a new disk".to_owned()))
            }
        }
    }

    /// Disks are sold by the GiB: whether the service shows one of another size rounded up is not documented.
    fn fits(&self, disk: &ManagedDisk) -> bool {
        let bytes = self.length - PAGE;
        disk.size.is_none_or(|size| size == bytes || size == bytes.next_multiple_of(GIB))
    }

    fn unsuitable(&self, disk: &ManagedDisk, what: &str) -> Error {
        let size = disk.size.map_or_else(|| "an unknown number of".to_owned(), |size| size.to_string());
        let why = format!("{what} has {size} bytes where the point has {}", self.length - PAGE);
        self.refuse(ErrorKind::TargetUnsuitable, why)
    }

    fn refuse(&self, kind: ErrorKind, why: String) -> Error {
        Error::new(kind, TRIED, why).on(&self.job.disk).next(format!(
            "name another disk, or delete this one if it is not needed: az disk delete --ids {}",
            posix(&self.job.disk.to_string())
        ))
    }

    /// What stands in the tag, if it can be one.
    fn checkpoint(&self, disk: &ManagedDisk) -> u64 {
        let end = self.length - PAGE;
        let noted = tag(disk, CHECKPOINT).and_then(|text| text.parse::<u64>().ok());
        noted.filter(|offset| offset.is_multiple_of(LEAF) && *offset <= end).unwrap_or_default()
    }

    /// Makes the disk that waits for its upload.
    pub(super) async fn make_for_upload(&self) -> CallResult<()> {
        let creation = json!({ "createOption": "Upload", "uploadSizeBytes": self.length });
        self.arm.create(&self.job.disk, &self.body(&creation, UPLOADING)).await
    }

    /// Makes the disk of a blob.
    pub(super) async fn make_of_blob(&self, source: &str, account: &str) -> CallResult<()> {
        let creation = json!({ "createOption": "Import", "sourceUri": source, "storageAccountId": account });
        self.arm.create(&self.job.disk, &self.body(&creation, IMPORTING)).await
    }

    fn body(&self, creation: &Value, state: &str) -> Value {
        let job = self.job;
        let mut properties = Map::from_iter([("creationData".to_owned(), creation.clone())]);
        for (name, value) in [("osType", &job.os_type), ("hyperVGeneration", &job.hyper_v_generation)] {
            if let Some(value) = value {
                properties.insert(name.to_owned(), json!(value));
            }
        }
        let mut tags = job.tags.clone();
        tags.insert(RESTORE.to_owned(), self.mark.clone());
        tags.insert(STATE.to_owned(), state.to_owned());
        let mut body = json!({
            "location": job.region().ok().flatten(),
            "sku": { "name": job.sku },
            "tags": tags,
            "properties": properties,
        });
        if let Some(zone) = &job.zone {
            body["zones"] = json!([zone]);
        }
        body
    }

    /// Writes on the disk how far its upload is.
    pub(super) async fn note(&self, offset: u64) -> CallResult<()> {
        self.retag(&[(STATE, UPLOADING.to_owned()), (CHECKPOINT, offset.to_string())]).await
    }

    /// Writes on the disk that all but the footer is uploaded.
    pub(super) async fn note_written(&self) -> CallResult<()> {
        self.retag(&[(STATE, WRITTEN.to_owned())]).await
    }

    /// Changes our tags, and leaves those that somebody else wrote meanwhile. A disk that is no longer half made is not
    /// ours to write on: another run may have come to the end before this one.
    async fn retag(&self, ours: &[(&str, String)]) -> CallResult<()> {
        let disk = self.arm.disk(&self.job.disk).await?;
        if !disk.awaits_upload() || tag(&disk, RESTORE) != Some(&self.mark) {
            let why = "its upload was ended, and not by this run".to_owned();
            return Err(CallError::of("Disks Update", Role::Manager, &self.job.disk, Cause::Protocol(why)));
        }
        let mut tags = disk.tags;
        for (name, value) in ours {
            tags.retain(|key, _| !key.eq_ignore_ascii_case(name));
            tags.insert((*name).to_owned(), value.clone());
        }
        self.arm.set_tags(&self.job.disk, &tags).await
    }

    /// Waits until the service shows that the disk is whole.
    pub(super) async fn whole(&self) -> Result<ManagedDisk> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let disk = self.arm.disk(&self.job.disk).await?;
            if disk.has_failed() {
                return Err(self.refuse(ErrorKind::Refused, "the service could not make it".to_owned()));
            }
            if disk.is_settled() && !disk.awaits_upload() {
                return if self.fits(&disk) {
                    Ok(disk)
                } else {
                    Err(self.unsuitable(&disk, "it was made, and"))
                };
            }
            if Instant::now() > deadline {
                let why = "the service does not show that it is whole".to_owned();
                return Err(Error::new(ErrorKind::Unavailable, TRIED, why).on(&self.job.disk));
            }
            pace::pause(LOOK_EVERY).await;
        }
    }

    /// Whether it still waits for its content.
    pub(super) async fn awaits_upload(&self) -> CallResult<bool> {
        Ok(self.arm.disk(&self.job.disk).await?.awaits_upload())
    }

    /// Takes our tags off: the disk is the user's.
    pub(super) async fn untag(&self) {
        let untagging = async {
            let mut tags = self.arm.disk(&self.job.disk).await?.tags;
            tags.retain(|key, _| !is_ours(key));
            self.arm.set_tags(&self.job.disk, &tags).await
        };
        if let Err(error) = untagging.await {
            tracing::warn!(disk = %self.job.disk, cause = %error.cause, "the disk is whole; our tags were not taken off it");
        }
    }

    /// Removes what is half made, and only that. Whether there was anything to remove.
    pub(super) async fn remove(&self) -> Result<bool> {
        let Some(disk) = self.present().await? else { return Ok(false) };
        let is_ours = tag(&disk, RESTORE).is_some_and(|mark| mark == self.mark);
        // What does not say that all of the point is in it is not whole, even if the service made a disk of it.
        let is_half_made = disk.awaits_upload() || tag(&disk, STATE) != Some(WRITTEN);
        if !is_ours || !is_half_made {
            return Ok(false);
        }
        // The end of a half-made upload is refused, for its footer is missing; the SAS is gone all the same.
        if let Err(error) = self.arm.end_get_access(&disk.id).await {
            tracing::debug!(cause = %error.cause, "the end of access was answered so");
        }
        self.arm.delete(&disk.id).await?;
        tracing::info!(disk = %disk.id, "the half-made disk was deleted");
        Ok(true)
    }
}
