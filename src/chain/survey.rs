//! Looks at the two snapshots before anything is written: can they be read, are they images of disks, do they
//! belong together, does the result fit?

use crate::azure::failure::CallError;
use crate::azure::{Against, PageBlob, Properties, Resource};
use crate::base::FAREWELL;
use crate::chain::SnapshotId;
use crate::copy::chunk::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::range::{PAGE, PageRange};
use crate::record::compare::Recorded;
use crate::vhd::{self, Footer};

/// The largest page blob, footer included (Put Blob's limit in the REST reference).
pub const LARGEST_BLOB: u64 = 8 << 40;
/// Azure does not diff two snapshots between which the disk grew across this size (without footer).
pub const DIFF_BOUNDARY: u64 = 4 << 40;

/// A snapshot that can be read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The way to it.
    pub at: Source,
    /// Who it is.
    pub id: SnapshotId,
    /// Length in bytes, footer included.
    pub length: u64,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The snapshot that is copied.
    pub source: Snapshot,
    /// The snapshot that it is diffed against; `None` for a full copy.
    pub previous: Option<Snapshot>,
    /// The last page of the source, when it is the footer of a VHD.
    pub footer: Option<Vec<u8>>,
    /// For an image on this machine: the point with which it is compared, because no service tells what changed.
    pub compared_with: Option<Recorded>,
}

/// Looks at both snapshots. `across_hosts` lets two snapshots of one disk have different hosts.
///
/// # Errors
/// Names which of the URLs is at fault, because each is tried by itself.
pub async fn survey(source: PageBlob, previous: Option<PageBlob>, across_hosts: bool) -> Result<Survey> {
    let source_id = SnapshotId::of(source.resource())?;
    let previous_id = previous.as_ref().map(|blob| SnapshotId::of(blob.resource())).transpose()?;
    if let Some(previous_id) = &previous_id {
        check_pair(&source_id, previous_id, &source, across_hosts)?;
    }
    let reach_previous = async {
        match previous.zip(previous_id) {
            Some((blob, id)) => reach(blob, id).await.map(Some),
            None => Ok(None),
        }
    };
    let (source, previous) = tokio::try_join!(reach(source, source_id), reach_previous)?;
    finish(source, previous).await
}

/// The snapshots that are the points `source` and `previous` of another base blob.
pub(crate) async fn survey_points(source: Snapshot, previous: Option<Snapshot>) -> Result<Survey> {
    finish(source, previous).await
}

/// An image on this machine, against the point that the base equals.
pub(crate) async fn survey_image(source: Snapshot, previous: Option<(Snapshot, Recorded)>) -> Result<Survey> {
    let (previous, compared_with) = previous.unzip();
    Ok(Survey { compared_with, ..finish(source, previous).await? })
}

async fn finish(mut source: Snapshot, previous: Option<Snapshot>) -> Result<Survey> {
    check_sizes(&source, previous.as_ref())?;
    if let Source::Blob { blob, sends_crc: sends } = &mut source.at {
        *sends = sends_crc(blob).await?;
    }
    let footer = footer_of(&source).await?;
    Ok(Survey { source, previous, footer, compared_with: None })
}

impl Snapshot {
    /// A snapshot of a blob that was not asked yet whether it sends checksums.
    pub(crate) fn of_blob(blob: PageBlob, id: SnapshotId, length: u64) -> Self {
        Self { at: Source::Blob { blob, sends_crc: false }, id, length }
    }

    /// The way to it, where it is a blob.
    pub fn blob(&self) -> Option<&PageBlob> {
        match &self.at {
            Source::Blob { blob, .. } => Some(blob),
            Source::Image(_) => None,
        }
    }

    fn is_managed_disk(&self) -> bool {
        self.blob().is_some_and(|blob| blob.resource().is_managed_disk())
    }
}

impl Survey {
    /// How the source's page list is asked for.
    pub fn against(&self) -> Against {
        let Some(previous) = &self.previous else { return Against::Nothing };
        match previous.blob().map(PageBlob::resource) {
            Some(resource) if resource.is_managed_disk() => Against::DiskSnapshot(resource.clone()),
            // A point is of another time than the snapshot that it equals.
            Some(resource) => {
                Against::BlobSnapshot(resource.snapshot().unwrap_or(previous.id.time()).to_owned())
            }
            None => Against::BlobSnapshot(previous.id.time().to_owned()),
        }
    }

    /// Pages that a difference must write whether or not the diff names them. When a disk grows, its footer
    /// moves: the page of the old one becomes ordinary data, and whether the diff says so is not documented.
    pub fn forced_pages(&self) -> Vec<PageRange> {
        let Some(previous) = self.previous.as_ref().filter(|previous| previous.length != self.source.length)
        else {
            return Vec::new();
        };
        [previous.length, self.source.length]
            .into_iter()
            .filter_map(|end| PageRange::new(end.checked_sub(PAGE)?, end).ok())
            .collect()
    }

    /// Everything is read: whoever granted access to the snapshots may end it.
    pub(crate) async fn give_back(&self) {
        for blob in self.blobs() {
            blob.resource().sas().finished().await;
        }
    }

    /// A refused diff does not say which of its two URLs is at fault: each is tried by itself.
    pub async fn blame(&self, error: CallError) -> Error {
        let is_diff = error.call == "Get Page Ranges Diff";
        if is_diff && matches!(error.status(), Some(401 | 403)) {
            for blob in self.blobs() {
                let tried = tokio::time::timeout(FAREWELL, read_first_page(blob)).await;
                if let Ok(Err(culprit)) = tried {
                    return denied(blob.resource(), culprit);
                }
            }
        }
        error.into()
    }

    /// An image on this machine may be written to while it is copied: then what was copied never was a disk.
    pub(crate) async fn is_as_it_was(&self) -> Result<()> {
        match &self.source.at {
            Source::Blob { .. } => Ok(()),
            Source::Image(image) => image.unchanged().await,
        }
    }

    fn blobs(&self) -> impl Iterator<Item = &PageBlob> {
        std::iter::once(&self.source).chain(&self.previous).filter_map(Snapshot::blob)
    }
}

fn check_pair(source: &SnapshotId, previous: &SnapshotId, blob: &PageBlob, across_hosts: bool) -> Result<()> {
    let tried = format!("diff {source} against {previous}");
    if source.family() != previous.family() && !(across_hosts && blob.resource().is_managed_disk()) {
        return Err(Error::new(
            ErrorKind::DifferentFamilies,
            tried,
            "their URLs name different blobs: they are not snapshots of one disk",
        )
        .next("give two incremental snapshots of one disk; if they are, and the disk's export moved to another host, say --across-hosts"));
    }
    if !previous.is_older_than(source) {
        let why = if previous.time() == source.time() {
            "both are the same snapshot"
        } else {
            "the previous snapshot is newer than the source"
        };
        let next = if previous.time() == source.time() {
            "give an older snapshot as --previous, or leave it out to copy in full"
        } else {
            "exchange --source and --previous"
        };
        return Err(Error::new(ErrorKind::SnapshotOrder, tried, why).next(next));
    }
    Ok(())
}

fn check_sizes(source: &Snapshot, previous: Option<&Snapshot>) -> Result<()> {
    let length = source.length;
    if length == 0 || !length.is_multiple_of(PAGE) {
        let why = format!("its length, {length} bytes, is not a multiple of {PAGE}");
        return Err(Error::new(ErrorKind::SourceUnsuitable, "copy the source", why).on(&source.at));
    }
    if length > LARGEST_BLOB {
        let why = format!(
            "it has {length} bytes with its footer, and a page blob holds at most {LARGEST_BLOB} (8 TiB)"
        );
        return Err(Error::new(ErrorKind::TooLarge, "copy the source", why)
            .on(&source.at)
            .next("copy it with Azure's managed copy: snapferry managed-copy --source <snapshot ARM id> --region <region> --target-name <name>"));
    }
    let Some(previous) = previous else { return Ok(()) };
    let tried = format!("diff {} against {}", source.id, previous.id);
    if length < previous.length {
        let why = format!(
            "the disk has {length} bytes now and had {}: disks do not shrink, so these are two disks",
            previous.length
        );
        return Err(Error::new(ErrorKind::DifferentFamilies, tried, why)
            .next("give two incremental snapshots of one disk"));
    }
    let is_diffed = matches!(source.at, Source::Blob { .. });
    if is_diffed
        && previous.length - PAGE.min(previous.length) <= DIFF_BOUNDARY
        && length - PAGE > DIFF_BOUNDARY
    {
        return Err(Error::new(
            ErrorKind::GrowthAcross4Tib,
            tried,
            "the disk grew across 4 TiB between them, and Azure makes no differences across that",
        )
        .next("begin anew in the same blob, whose points stay: leave --previous out and say --rebase"));
    }
    Ok(())
}

/// HEAD, and a read of the first page when that is refused: a refused HEAD has no body to tell why. A disk that
/// wants a token besides its SAS says so here.
async fn reach(blob: PageBlob, id: SnapshotId) -> Result<Snapshot> {
    let properties = match blob.properties().await {
        Ok(properties) => properties,
        Err(error) if blob.learns_to_send_token(&error) => {
            tracing::info!(role = %blob.resource().role(), "the disk wants a token besides the SAS");
            blob.properties().await.map_err(Error::from)?
        }
        Err(error) => {
            let told = if error.code().is_empty() || matches!(error.status(), Some(401 | 403)) {
                read_first_page(&blob).await.err().unwrap_or(error)
            } else {
                error
            };
            return Err(denied(blob.resource(), told));
        }
    };
    let Properties { length, blob_type, .. } = properties;
    if !blob_type.is_empty() && blob_type != "PageBlob" {
        return Err(Error::new(
            ErrorKind::SourceUnsuitable,
            format!("use the {} as a snapshot", blob.resource().role()),
            format!("it is a {blob_type}, not a page blob"),
        )
        .on(blob.resource())
        .next("give the SAS URL of an incremental snapshot: az snapshot grant-access"));
    }
    Ok(Snapshot::of_blob(blob, id, length))
}

async fn read_first_page(blob: &PageBlob) -> std::result::Result<(), CallError> {
    match PageRange::new(0, PAGE) {
        Ok(page) => blob.read(page).await.map(drop),
        Err(_) => Ok(()),
    }
}

/// A refusal, with the end of the SAS when the URL tells it.
fn denied(resource: &Resource, error: CallError) -> Error {
    let ended = resource.expiry().filter(|end| *end < jiff::Timestamp::now());
    let error = Error::from(error);
    match (error.kind(), ended) {
        (ErrorKind::AccessDenied, Some(end)) => {
            let said = format!("its SAS ended at {end}; {}", error.why());
            let made = Error::new(ErrorKind::AccessDenied, error.tried().to_owned(), said).on(resource);
            match error.advice() {
                Some(advice) => made.next(advice),
                None => made,
            }
        }
        (ErrorKind::AccessDenied, None) if resource.is_managed_disk() => {
            let said = format!("the SAS ended, was revoked, or is for something else; {}", error.why());
            let made = Error::new(ErrorKind::AccessDenied, error.tried().to_owned(), said).on(resource);
            made.next(error.advice().unwrap_or("grant access again"))
        }
        _ => error,
    }
}

/// Whether ranged reads come with a CRC-64. It is not documented for disk exports: asked once, done without when
/// it is refused or passed over.
pub(crate) async fn sends_crc(source: &PageBlob) -> Result<bool> {
    let Ok(page) = PageRange::new(0, PAGE) else { return Ok(false) };
    let asked = source.repeat_attempt(|| source.read_once(page, true)).await;
    let why = match asked {
        Ok(data) if data.sent_crc.is_some() => return Ok(true),
        Ok(_) => "it does not send them".to_owned(),
        // Whether it is the option or the right that is refused, the next read tells.
        Err(error) if error.status().is_some_and(|status| matches!(status, 400..=499 | 501)) => {
            error.cause.to_string()
        }
        Err(error) => return Err(error.into()),
    };
    tracing::warn!(why, "reads are checked by TLS and length only: the source sends no checksums");
    Ok(false)
}

async fn footer_of(source: &Snapshot) -> Result<Option<Vec<u8>>> {
    let length = source.length;
    let last = PageRange::new(length - PAGE, length)
        .map_err(|error| Error::new(ErrorKind::SourceUnsuitable, "read the footer", error.to_string()))?;
    let page = match &source.at {
        Source::Blob { blob, sends_crc } => {
            let read = blob.read_checked(last, *sends_crc).await;
            read.map_err(|error| denied(blob.resource(), error))?
        }
        Source::Image(image) => image.read(last).await?,
    };
    let page = page.concat();
    let refuse = |why: String, next: &str| {
        Err(Error::new(ErrorKind::SourceUnsuitable, "use the source as the image of a disk", why)
            .on(&source.at)
            .next(next))
    };
    match vhd::inspect(&page, length) {
        Footer::Valid => Ok(Some(page)),
        Footer::Broken(why) => refuse(format!("its VHD footer does not fit: {why}"), "take another snapshot"),
        Footer::Absent if source.is_managed_disk() => refuse(
            "it has no VHD footer; disks with 4096-byte sectors are exported as VHDX, which no disk can be imported from".to_owned(),
            "grant access with the format VHD: az snapshot grant-access --file-format VHD",
        ),
        Footer::Absent => Ok(None),
    }
}
