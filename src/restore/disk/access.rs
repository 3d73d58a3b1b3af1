//! The SAS for the upload: asked for when there is nothing but the disk, and again when it is refused in mid-upload.
//!
//! It is not renewed ahead of its end: where the service lets only one be out, that would end the access of an upload
//! that is in its middle, for nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::azure::arm::Access;
use crate::azure::failure::{CallError, CallResult, Cause};
use crate::azure::sas::Rights;
use crate::azure::{Arm, ArmId, PlainHttp, Resource, Role};
use crate::error::Result;

const CALL: &str = "Disks Grant Access";

/// The right to write to one disk.
pub(super) struct WriteAccess {
    arm: Arm,
    disk: ArmId,
    duration: Duration,
    plain: PlainHttp,
    /// Where the upload is: another SAS must lead to the same place.
    place: String,
    /// Held while another one is asked for.
    asking: Mutex<()>,
}

/// A way to write to `disk`, for as long as it takes.
pub(super) async fn to_write(
    arm: &Arm,
    disk: &ArmId,
    duration: Duration,
    plain: PlainHttp,
) -> Result<Resource> {
    let url = begin(arm, disk, duration).await?;
    let resource = Resource::parse(Role::Disk, &url, plain)?;
    let rights = Arc::new(WriteAccess {
        arm: arm.clone(),
        disk: disk.clone(),
        duration,
        plain,
        place: resource.location(),
        asking: Mutex::default(),
    });
    tracing::info!(%disk, "access to write granted");
    Ok(resource.kept_by(rights))
}

/// A SAS that is out may be what a run before left, or an attempt whose reply was lost: the disk is ours, so it is
/// ended where it is in the way. The service refuses to make a disk of what has arrived so far; that is as it should be.
async fn begin(arm: &Arm, disk: &ArmId, duration: Duration) -> CallResult<String> {
    match arm.begin_get_access(disk, Access::Write, duration).await {
        Err(error) if error.status() == Some(409) => {}
        other => return other,
    }
    tracing::info!(%disk, "a SAS is out: ending it");
    match arm.end_get_access(disk).await {
        Err(error) if error.status() != Some(409) => return Err(error),
        _ => {}
    }
    arm.begin_get_access(disk, Access::Write, duration).await
}

#[async_trait]
impl Rights for WriteAccess {
    async fn renew(self: Arc<Self>) -> CallResult<String> {
        let gone = self.refusal("the renewal was given up");
        tokio::spawn(async move { self.renew_now().await }).await.unwrap_or(Err(gone))
    }

    async fn finished(&self) {}
}

impl WriteAccess {
    async fn renew_now(&self) -> CallResult<String> {
        let _alone = self.asking.lock().await;
        let url = begin(&self.arm, &self.disk, self.duration).await?;
        let new = Resource::parse(Role::Disk, &url, self.plain)
            .map_err(|_| self.refusal("the new SAS is no URL of a blob"))?;
        if new.location() != self.place {
            return Err(self.refusal("the new SAS leads to another upload than the one before"));
        }
        tracing::info!(disk = %self.disk, "access to write renewed");
        Ok(new.sas().expose().to_string())
    }

    fn refusal(&self, why: &str) -> CallError {
        CallError::of(CALL, Role::Manager, &self.disk, Cause::Protocol(why.to_owned()))
    }
}
