//! Two checks of the base blob itself: that nobody else wrote to it before a step begins, and that it ends in
//! the source's footer before it is sealed.

use super::Base;
use crate::azure::Against;
use crate::azure::failure::{CallError, Cause};
use crate::chain::Survey;
use crate::diff::{Listing, ListingOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::range::{PAGE, PageRange};

/// A base that is clean at A must equal its last point. A service that cannot tell (or a point that was deleted)
/// is passed over: the marker and the lease still stand.
pub(crate) async fn unmodified(base: &Base, listing: ListingOptions) -> Result<()> {
    let marker = base.marker().await;
    let Some(point) = marker.point else { return Ok(()) };
    let Ok(whole) = PageRange::new(0, marker.length) else { return Ok(()) };
    let against = Against::BlobSnapshot(point.clone());
    let mut changes = Listing::start(base.blob(), &against, Some(whole), marker.length, Vec::new(), listing);
    let modified = |why: String| {
        Err(Error::new(ErrorKind::BaseModified, "begin at the base blob as it is", why)
            .on(base.blob().resource())
            .next("somebody else wrote to it; copy in full to another blob, which only snapferry writes to"))
    };
    match changes.next().await {
        Ok(None) => Ok(()),
        Ok(Some(extent)) => {
            modified(format!("it differs from its last point {point} at bytes {}", extent.range))
        }
        Err(error) if error.code() == "BlobOverwritten" => {
            modified(format!("it was overwritten as a whole after its last point {point}"))
        }
        Err(CallError { cause: Cause::Service(reply), .. })
            if matches!(reply.status, 400 | 404 | 409 | 501) =>
        {
            tracing::warn!(
                status = reply.status,
                code = reply.code,
                "could not compare the base with its last point"
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// No disk can be made of an image without its footer: the most telling page is compared before the seal.
pub(crate) async fn footer(base: &Base, survey: &Survey) -> Result<()> {
    let Some(footer) = &survey.footer else { return Ok(()) };
    let length = survey.source.length;
    let Ok(last) = PageRange::new(length - PAGE, length) else { return Ok(()) };
    let page = base.blob().read(last, false).await?.concat();
    if page == *footer {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corruption,
        "seal the step",
        "the last page of the base blob is not the source's VHD footer",
    )
    .on(base.blob().resource())
    .next("nothing was sealed; copy in full to another blob, and report this"))
}
