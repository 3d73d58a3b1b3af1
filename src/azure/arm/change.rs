//! What changes disks and snapshots. Most of it is finished later: each call returns when the service says that it is.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::operation::find_sas;
use super::{Arm, ArmId, ArmKind, Ask};
use crate::azure::failure::{CallResult, Cause};

/// How long a grant, its end, or a new resource may take to be made.
const PATIENCE: Duration = Duration::from_mins(10);
/// The same for a disk, which may be made of a blob of some TiB.
const PATIENCE_FOR_DISKS: Duration = Duration::from_hours(4);

/// What a SAS is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read a disk or a snapshot.
    Read,
    /// To upload a disk's content.
    Write,
}

impl Arm {
    /// Grant Access: the SAS URL, a secret. `duration` in whole seconds, from [`super::SHORTEST_GRANT`] to
    /// [`super::LONGEST_GRANT`].
    pub async fn begin_get_access(
        &self,
        id: &ArmId,
        access: Access,
        duration: Duration,
    ) -> CallResult<String> {
        let ask = of_kind(id, "Disks Grant Access", "Snapshots Grant Access");
        let mut body =
            json!({ "access": "Read", "durationInSeconds": duration.as_secs(), "fileFormat": "VHD" });
        if access == Access::Write {
            body = json!({ "access": "Write", "durationInSeconds": duration.as_secs() });
        }
        let first = self.repeat(&ask, Method::POST, &self.url(id, "/beginGetAccess"), Some(&body)).await?;
        let result = self.finish(&ask, first, PATIENCE).await?;
        find_sas(&result)
            .ok_or_else(|| self.error(&ask, Cause::Protocol("it succeeded, and brought no SAS".to_owned())))
    }

    /// Revoke Access: every SAS ends at once, whoever asked for it. Of an upload, this is its end: the service judges what
    /// has arrived.
    pub async fn end_get_access(&self, id: &ArmId) -> CallResult<()> {
        let ask = of_kind(id, "Disks Revoke Access", "Snapshots Revoke Access");
        let first = self.repeat(&ask, Method::POST, &self.url(id, "/endGetAccess"), None).await?;
        self.finish(&ask, first, PATIENCE).await.map(drop)
    }

    /// Create Or Update: sends `body`, and returns when the service has taken it. A snapshot's copy from another region
    /// goes on in the background after that.
    pub async fn create(&self, id: &ArmId, body: &Value) -> CallResult<()> {
        let ask = of_kind(id, "Disks Create Or Update", "Snapshots Create Or Update");
        let first = self.repeat(&ask, Method::PUT, &self.url(id, ""), Some(body)).await?;
        let patience = if id.kind() == ArmKind::Disk { PATIENCE_FOR_DISKS } else { PATIENCE };
        self.finish(&ask, first, patience).await.map(drop)
    }

    /// Update: these tags take the place of all that there are.
    pub async fn set_tags(&self, id: &ArmId, tags: &BTreeMap<String, String>) -> CallResult<()> {
        let ask = of_kind(id, "Disks Update", "Snapshots Update");
        let body = json!({ "tags": tags });
        let first = self.repeat(&ask, Method::PATCH, &self.url(id, ""), Some(&body)).await?;
        self.finish(&ask, first, PATIENCE).await.map(drop)
    }

    /// Delete. What is gone already counts as deleted: the reply may have been lost.
    pub async fn delete(&self, id: &ArmId) -> CallResult<()> {
        let ask = of_kind(id, "Disks Delete", "Snapshots Delete");
        let first = match self.repeat(&ask, Method::DELETE, &self.url(id, ""), None).await {
            Err(error) if error.status() == Some(404) => return Ok(()),
            first => first?,
        };
        self.finish(&ask, first, PATIENCE).await.map(drop)
    }
}

fn of_kind<'a>(id: &'a ArmId, disks: &'static str, snapshots: &'static str) -> Ask<'a> {
    Ask { call: if id.kind() == ArmKind::Disk { disks } else { snapshots }, on: id }
}
