//! A storage account from the outside: addresses, signatures, and a direct look at what its blobs hold.

mod tamper;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::arm;
use crate::auth::sas;
use crate::clock::Moment;
use crate::request::Target;
use crate::service::Service;
use crate::store::AccountEntry;
use crate::store::blob::{Content, Version};
use crate::store::diff::allocated;

/// What is encoded in the path of a URL; a blob's slashes stay.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// A storage account of an emulator.
#[derive(Clone)]
pub struct Account {
    service: Arc<Service>,
    entry: Arc<AccountEntry>,
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Account").field("name", &self.entry.name).finish_non_exhaustive()
    }
}

impl Account {
    pub(crate) fn new(service: Arc<Service>, name: &str) -> Account {
        let entry = service.store.account_or_new(name);
        Account { service, entry }
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// The account's key, as a user would copy it from the portal.
    pub fn key_base64(&self) -> String {
        BASE64_STANDARD.encode(&self.entry.key)
    }

    /// Makes it an account of the premium kind, or an ordinary one again. That matters for imports only: a disk cannot be
    /// made of a snapshot of a premium page blob. This is an assumption, from such snapshots not being readable directly.
    pub fn set_premium(&self, premium: bool) {
        self.entry.premium.store(premium, Ordering::Relaxed);
    }

    /// Makes it a sink for benchmarks, or an ordinary account again. That concerns the page blobs that are made in it from
    /// then on, with Put Blob or Copy Blob: they take, check and answer everything as others do, and then drop the bytes
    /// of their pages, all but the last 4 KiB. What was dropped reads as zeros; page lists and differences name nothing.
    pub fn set_sink(&self, sink: bool) {
        self.entry.set_sink(sink);
    }

    /// The id of the account's resource. Of it, management here tells only where it is.
    pub fn arm_id(&self) -> String {
        let subscription = self.service.arm.subscription;
        let group = arm::DEFAULT_GROUP;
        let provider = "Microsoft.Storage/storageAccounts";
        format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/{provider}/{}",
            self.entry.name
        )
    }

    /// `http://127.0.0.1:PORT/account/container`.
    pub fn container_url(&self, container: &str) -> String {
        let path = format!("{}/{container}", self.entry.name);
        format!("{}/{}", self.service.endpoint, utf8_percent_encode(&path, PATH))
    }

    /// The address of a blob, without a signature.
    pub fn blob_url(&self, container: &str, blob: &str) -> String {
        format!("{}/{}", self.container_url(container), utf8_percent_encode(blob, PATH))
    }

    /// Creates a container, if it does not exist.
    pub fn create_container(&self, container: &str) {
        self.entry.add_container(container, self.service.clock.tick(), BTreeMap::new());
    }

    /// The URL of a blob with a service SAS for it (`sr=b`). Permissions are letters such as `racwd`; the SAS ends at the
    /// full second after `valid_for`.
    pub fn blob_sas(&self, container: &str, blob: &str, permissions: &str, valid_for: Duration) -> String {
        self.service_sas("b", container, blob, permissions, valid_for)
    }

    /// The URL of a blob with a service SAS for its whole container (`sr=c`), see `blob_sas`.
    pub fn container_sas(
        &self,
        container: &str,
        blob: &str,
        permissions: &str,
        valid_for: Duration,
    ) -> String {
        self.service_sas("c", container, blob, permissions, valid_for)
    }

    /// The URL of a blob with a SAS for the whole account, see `blob_sas`.
    pub fn account_sas(&self, container: &str, blob: &str, permissions: &str, valid_for: Duration) -> String {
        let ends = self.service.clock.now().plus(valid_for);
        let query = sas::make_account_sas(&self.entry, permissions, ends);
        format!("{}?{query}", self.blob_url(container, blob))
    }

    /// What a blob, or the snapshot of it with that time, holds now; none if there is no such thing.
    pub fn read_blob(&self, container: &str, blob: &str, snapshot: Option<&str>) -> Option<BlobView> {
        let time = match snapshot {
            Some(text) => Some(Moment::from_iso(text)?),
            None => None,
        };
        let blob = self.entry.container(container)?.blob(blob)?;
        let blob = blob.lock();
        let version = blob.version(time)?.clone();
        Some(BlobView {
            version,
            snapshots: blob.snapshots.keys().map(|time| time.snapshot_text()).collect(),
        })
    }

    /// The names of a container's blobs, in order; those that have only snapshots or blocks that wait are no blobs.
    pub fn blob_names(&self, container: &str) -> Vec<String> {
        let blobs = self.entry.container(container).map(|container| container.blobs("")).unwrap_or_default();
        let present = blobs.into_iter().filter(|(_, blob)| blob.lock().live.is_some());
        present.map(|(name, _)| name).collect()
    }

    /// Deletes a blob with its snapshots, whoever leases it. Returns whether there was one.
    pub fn delete_blob(&self, container: &str, blob: &str) -> bool {
        let Some(blob) = self.entry.container(container).and_then(|container| container.blob(blob)) else {
            return false;
        };
        std::mem::take(&mut *blob.lock()).live.is_some()
    }

    fn service_sas(
        &self,
        resource_kind: &'static str,
        container: &str,
        blob: &str,
        permissions: &str,
        valid_for: Duration,
    ) -> String {
        let target = Target {
            account: self.entry.name.clone(),
            container: container.to_owned(),
            blob: blob.to_owned(),
        };
        let ends = self.service.clock.now().plus(valid_for);
        let query = sas::make_service_sas(&self.entry, &target, resource_kind, permissions, ends);
        format!("{}?{query}", self.blob_url(container, blob))
    }
}

/// A blob, or a snapshot, as it was at one moment: for judges that trust no wire.
#[derive(Clone, Debug)]
pub struct BlobView {
    version: Version,
    snapshots: Vec<String>,
}

impl BlobView {
    /// Bytes of the blob.
    #[allow(clippy::len_without_is_empty, reason = "a length, not a collection")]
    pub fn len(&self) -> u64 {
        self.version.content.len()
    }

    /// The bytes from `offset` on, at most `length`: fewer if the blob ends before.
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let end = offset.saturating_add(length).min(self.len());
        let start = offset.min(end);
        match &self.version.content {
            Content::Pages(pages) => pages.view(start..end).to_vec(),
            Content::Block(content) => content.slice(start..end).to_vec(),
        }
    }

    /// The ranges of a page blob that hold pages, in order, neighbours joined. A block blob is one range.
    pub fn allocated_ranges(&self) -> Vec<Range<u64>> {
        match &self.version.content {
            Content::Pages(pages) => allocated(pages, &(0..pages.len()), usize::MAX)
                .into_iter()
                .map(|extent| extent.range)
                .collect(),
            Content::Block(content) => std::iter::once(0..content.len()).collect(),
        }
    }

    /// Metadata; names are in lower case.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.version.metadata
    }

    /// The sequence number of a page blob; 0 for others.
    pub fn sequence_number(&self) -> u64 {
        self.version.sequence_number
    }

    /// The ETag, quoted as in its header.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version.etag.etag_text())
    }

    /// The times of all snapshots that the blob has, from old to new.
    pub fn snapshots(&self) -> &[String] {
        &self.snapshots
    }
}
