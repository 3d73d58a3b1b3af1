//! Can a disk be made of the point? Looked at before anything is made.

use crate::azure::PageBlob;
use crate::azure::failure::{CallError, Class};
use crate::chain::survey::sends_crc;
use crate::error::{Error, ErrorKind, Result};
use crate::range::{PAGE, PageRange};
use crate::restore::point::Found;
use crate::vhd::{self, Footer};

/// How long an upload may be, footer included (`uploadSizeBytes` in the documentation of the disks' API).
pub(super) const UPLOAD: std::ops::RangeInclusive<u64> = 20_972_032..=35_183_298_347_520;
const MIB: u64 = 1 << 20;

/// A point that a disk can be made of.
pub(crate) struct Image {
    pub(super) found: Found,
    /// Whether it sends checksums with ranged reads.
    pub(super) sends_crc: bool,
    /// Its first page: what the upload is tried with.
    pub(super) first: Vec<u8>,
    /// Its last page.
    pub(super) footer: Vec<u8>,
}

pub(super) async fn image(found: Found) -> Result<Image> {
    let length = found.marker.length;
    let first = match read_page(&found.blob, 0).await {
        Ok(page) => page,
        Err(error) => return Err(unreadable(&found, error).await),
    };
    let footer = read_page(&found.blob, length.saturating_sub(PAGE)).await?;
    check_footer(&found, &footer)?;
    if length % MIB != PAGE || !UPLOAD.contains(&length) {
        let why = format!(
            "it has {} bytes: a disk has a whole number of MiB, from {} to {} of them",
            length.saturating_sub(PAGE),
            UPLOAD.start() / MIB,
            UPLOAD.end() / MIB
        );
        return Err(unsuitable(&found, why)
            .next("restore it to a file, make the image larger there, and upload that: snapferry restore --to file:<path>"));
    }
    let sends_crc = sends_crc(&found.blob).await?;
    Ok(Image { found, sends_crc, first, footer })
}

async fn read_page(blob: &PageBlob, at: u64) -> std::result::Result<Vec<u8>, CallError> {
    match PageRange::new(at, at + PAGE) {
        Ok(page) => Ok(blob.read(page).await?.concat()),
        Err(_) => Ok(Vec::new()),
    }
}

fn check_footer(found: &Found, footer: &[u8]) -> Result<()> {
    let why = match vhd::inspect(footer, found.marker.length) {
        Footer::Valid => return Ok(()),
        Footer::Absent => {
            "its last page is no footer of a VHD: the service makes no disk of such an image".to_owned()
        }
        Footer::Broken(why) => format!("its VHD footer does not fit: {why}"),
    };
    Err(unsuitable(found, why).next("restore it to a file: snapferry restore --to file:<path>"))
}

fn unsuitable(found: &Found, why: String) -> Error {
    Error::new(ErrorKind::SourceUnsuitable, "make a disk of the point", why).on(found.blob.resource())
}

/// The point is there and cannot be read. Where the base blob can, with the same rights, it is the snapshots that
/// cannot: accounts of premium page blobs are said not to let theirs be read.
async fn unreadable(found: &Found, error: CallError) -> Error {
    let is_snapshot = found.base.resource().snapshot().is_none();
    if error.class() == Class::Passes || !is_snapshot || read_page(&found.base, 0).await.is_err() {
        return error.into();
    }
    let why = format!(
        "the base blob can be read, and its point cannot: snapshots in accounts of premium page blobs cannot be read directly; {}",
        error.cause
    );
    Error::new(ErrorKind::Refused, "read the point", why)
        .on(found.blob.resource())
        .next(premium_advice(found))
}

/// What helps where a point can be neither read nor imported.
pub(super) fn premium_advice(found: &Found) -> String {
    format!(
        "copy the point to a blob of its own (az storage blob copy start --source-snapshot {} ...) and make the disk of that: az disk create --source <its URL>; to have points that can be restored from, keep the base blob in a general-purpose v2 account",
        found.time
    )
}
