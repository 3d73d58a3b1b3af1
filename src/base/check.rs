//! Two checks of the base blob itself: that nobody else wrote to it before a step begins, and that it ends in
//! the source's footer before it is sealed.

use super::Base;
use super::marker::Marker;
use crate::azure::failure::{CallError, Cause};
use crate::azure::{Against, PageBlob};
use crate::chain::Survey;
use crate::diff::{Listing, ListingOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::range::{PAGE, PageRange};
use crate::verify::first_difference;

/// Ranges that are compared at once.
const PARALLEL: usize = 8;

/// Where nothing is expected, windows may be so many times as long: an 8 TiB base is asked about in one round trip.
const LONGER: u64 = 64;

/// A base that is clean at A must equal its last point: where the service says that it was written to since, both are
/// read and compared (a rollback writes back the very bytes). A service that cannot tell is passed over: the marker and
/// the lease still stand.
pub(crate) async fn unmodified(blob: &PageBlob, marker: &Marker, listing: ListingOptions) -> Result<()> {
    let Some(point) = &marker.point else { return Ok(()) };
    let Ok(whole) = PageRange::new(0, marker.length) else { return Ok(()) };
    let against = Against::BlobSnapshot(point.clone());
    let listing = ListingOptions { window: listing.window.saturating_mul(LONGER), ..listing };
    let changes = || Listing::start(blob, &against, Some(whole), marker.length, Vec::new(), listing);
    let modified = |why: String| {
        Err(Error::new(ErrorKind::BaseModified, "begin at the base blob as it is", why)
            .on(blob.resource())
            .next("somebody else wrote to it; put it back to its last point if that is still there (snapferry rollback --target <URL>), or begin anew in it, whose points stay (--rebase, with sync or with copy --source <SAS URL of the newest snapshot>)"))
    };
    match changes().next().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) if !compares(blob, whole).await? => {
            tracing::warn!("the service makes no differences: the base was not compared with its last point");
            Ok(())
        }
        Ok(Some(_)) => {
            let kept = blob.at_snapshot(point)?;
            match first_difference(blob, &kept, &mut changes(), PARALLEL).await? {
                None => Ok(()),
                Some(at) => modified(format!("it differs from its last point {point} at byte {at}")),
            }
        }
        Err(error) if error.code() == "BlobOverwritten" => {
            modified(format!("it was overwritten as a whole after its last point {point}"))
        }
        Err(error) if error.code() == "PreviousSnapshotNotFound" => modified(format!(
            "its last point {point} was deleted, so that nobody can tell whether it still equals it"
        )),
        Err(CallError { cause: Cause::Service(reply), .. }) if matches!(reply.status, 400..=499 | 501) => {
            tracing::warn!(
                status = reply.status,
                code = reply.code,
                "the base was not compared with its last point"
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether base and point are equal wherever the service says that they may not be.
pub(crate) async fn equals_point(blob: &PageBlob, point: &PageBlob, changes: &mut Listing) -> Result<()> {
    match first_difference(blob, point, changes, PARALLEL).await? {
        None => Ok(()),
        Some(at) => Err(Error::new(
            ErrorKind::Corruption,
            "declare the base blob clean",
            format!("it still differs from its point at byte {at}"),
        )
        .on(blob.resource())
        .next("nothing was declared clean; run the same command again, and report this")),
    }
}

/// Whether the service compares at all. One that does not look at the older snapshot (Azurite) lists every page as
/// changed, also since a snapshot that never was; another one may say that it does not implement it.
pub(crate) async fn compares(blob: &PageBlob, whole: PageRange) -> Result<bool> {
    let never = Against::BlobSnapshot("2000-01-01T00:00:00.0000000Z".to_owned());
    match blob.repeat_attempt(|| blob.page_list_once(whole, &never, None)).await {
        Ok(_) => Ok(false),
        Err(error) if error.status() == Some(501) => Ok(false),
        Err(error) if error.status().is_some_and(|status| (400..500).contains(&status)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// No disk can be made of an image without its footer: the most telling page is compared before the seal.
pub(crate) async fn footer(base: &Base, survey: &Survey) -> Result<()> {
    let Some(footer) = &survey.footer else { return Ok(()) };
    let length = survey.source.length;
    let Ok(last) = PageRange::new(length - PAGE, length) else { return Ok(()) };
    // What was changed on the way is read again, where the service sends no checksum, too.
    for _ in 0..3 {
        if base.blob().read(last).await?.concat() == *footer {
            return Ok(());
        }
    }
    Err(Error::new(
        ErrorKind::Corruption,
        "seal the step",
        "the last page of the base blob is not the source's VHD footer",
    )
    .on(base.blob().resource())
    .next("nothing was sealed; copy in full to another blob, and report this"))
}
