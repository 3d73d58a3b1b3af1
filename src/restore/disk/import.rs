//! The service makes the disk of the point itself.
//!
//! The point is named by its URL without a SAS: the service reads it in the name of whoever asks, and keeps the URL where
//! everybody sees it who sees the disk.

use super::fit::premium_advice;
use super::{Made, Work};
use crate::azure::failure::Cause;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Phase;

impl Work<'_> {
    pub(super) async fn import(&self, because: String) -> Result<Made> {
        let Some(account) = &self.job.storage_account else {
            return Err(Error::new(ErrorKind::Internal, "import the point", "no storage account was given"));
        };
        self.progress.enter(Phase::Copying);
        let source = self.source_uri();
        self.uninterrupted(async {
            self.target.make_of_blob(&source, &account.to_string()).await.map_err(|error| {
                let is_judged = matches!(&error.cause, Cause::Service(reply) if reply.status == 400 || reply.status == 409);
                let error = Error::from(error);
                if !is_judged {
                    return error;
                }
                error.next(format!(
                    "leave --import out, and the point is uploaded through this machine; an import needs a point in the region of the disk, in an account that is not premium: {}",
                    premium_advice(&self.image.found)
                ))
            })
        })
        .await?;
        Ok(imported(because))
    }

    /// Waits for what a run before began.
    pub(super) async fn follow_import(&self, because: String) -> Result<Made> {
        self.progress.enter(Phase::Copying);
        self.uninterrupted(async { self.target.whole().await.map(drop) }).await?;
        Ok(imported(because))
    }

    fn source_uri(&self) -> String {
        let found = &self.image.found;
        let time: String = url::form_urlencoded::byte_serialize(found.time.as_bytes()).collect();
        format!("{}?snapshot={time}", found.blob.resource().address())
    }
}

fn imported(because: String) -> Made {
    Made {
        way: "import",
        because,
        bytes_sent: 0,
        bytes_zero: 0,
        resumed_from: None,
        checked: "by the service",
    }
}
