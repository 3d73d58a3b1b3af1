//! Control calls on a page blob, through the official SDK: create, properties, resize, sequence number,
//! metadata, lease, snapshot, list, delete. Page data and page lists are in `pages` and `ranges`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::{ClientOptions, Etag, RetryOptions, Transport};
use azure_storage_blob::models::{
    BlobClientAcquireLeaseOptions, BlobClientBreakLeaseOptions, BlobClientCreateSnapshotOptions,
    BlobClientDeleteOptions, BlobClientSetMetadataOptions, BlobContainerClientListBlobsOptions, BlobItem,
    DeleteSnapshotsOptionType, ListBlobsIncludeItem, PageBlobClientCreateOptions,
    PageBlobClientResizeOptions, PageBlobClientSetSequenceNumberOptions, SequenceNumberActionType,
};
use azure_storage_blob::{
    BlobClient, BlobClientOptions, BlobContainerClient, BlobContainerClientOptions, PageBlobClient,
    PageBlobClientOptions,
};
use futures::TryStreamExt;
use tokio::time::Instant;

use super::allowance::Learned;
use super::client::Client;
use super::endpoint::{Endpoint, SERVICE_VERSION};
use super::failure::{CallError, CallResult, Cause};
use super::pace::{Caps, Pace};
use super::resource::Resource;
use crate::budget::Budget;

/// Metadata of a blob or point. Names are compared without case, so they are kept in lower case.
pub type Metadata = BTreeMap<String, String>;

/// What a HEAD tells about a blob or snapshot.
#[derive(Clone, Debug)]
pub struct Properties {
    /// Length in bytes (for a disk: with its footer).
    pub length: u64,
    /// Opaque version of content and metadata.
    pub etag: String,
    /// `PageBlob`, `BlockBlob` or `AppendBlob`.
    pub blob_type: String,
    /// Sequence number of a page blob.
    pub sequence_number: u64,
    /// `x-ms-lease-state`: available, leased, expired, breaking, broken.
    pub lease_state: String,
    /// `x-ms-lease-duration`: whether the lease has no end.
    pub lease_is_infinite: bool,
    /// `x-ms-meta-*`.
    pub metadata: Metadata,
    /// Whether the account keeps versions of this blob (`x-ms-version-id`).
    pub is_versioned: bool,
}

/// A snapshot of a blob as List Blobs shows it.
#[derive(Clone, Debug)]
pub struct ListedSnapshot {
    /// The snapshot's time, opaque.
    pub time: String,
    /// Length in bytes.
    pub length: u64,
    /// `x-ms-meta-*` of the snapshot.
    pub metadata: Metadata,
}

/// A page blob (or a snapshot of one) behind an endpoint.
#[derive(Clone)]
pub struct PageBlob {
    pub(super) endpoint: Arc<Endpoint>,
    blob: Arc<BlobClient>,
    pages: Arc<PageBlobClient>,
}

impl std::fmt::Debug for PageBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageBlob").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl PageBlob {
    /// A client for `resource` by itself: without caps, counted by nobody.
    pub fn connect(resource: Resource, client: &Client) -> CallResult<Self> {
        let pace = Arc::new(Pace::new(Caps::default()));
        Self::new(Endpoint::new(resource, client, pace, Arc::default()))
    }

    /// A client for the blob behind `endpoint`.
    pub fn new(endpoint: Arc<Endpoint>) -> CallResult<Self> {
        let url = endpoint.resource().address().clone();
        let build_error = |error: azure_core::Error| endpoint.error_of_sdk("client", error);
        let blob_options = BlobClientOptions {
            client_options: client_options(&endpoint),
            version: SERVICE_VERSION.to_owned(),
        };
        let page_options = PageBlobClientOptions {
            client_options: client_options(&endpoint),
            version: SERVICE_VERSION.to_owned(),
        };
        let blob = BlobClient::new(url.clone(), None, Some(blob_options)).map_err(build_error)?;
        let pages = PageBlobClient::new(url, None, Some(page_options)).map_err(build_error)?;
        Ok(Self { blob: Arc::new(blob), pages: Arc::new(pages), endpoint })
    }

    /// One of this blob's own snapshots, reached the same way.
    pub fn at_snapshot(&self, time: &str) -> CallResult<Self> {
        Self::new(self.endpoint.to(self.resource().at_snapshot(time)))
    }

    /// The URL behind this client.
    pub fn resource(&self) -> &Resource {
        self.endpoint.resource()
    }

    /// How long an attempt to move a chunk may take.
    pub(crate) fn call_timeout(&self) -> std::time::Duration {
        self.endpoint.timeouts().call
    }

    /// What its runs share with others.
    pub(crate) fn budget(&self) -> Option<&Budget> {
        self.endpoint.budget()
    }

    /// What the service was found to give of this blob, or the user allows.
    pub(crate) fn learned(&self) -> Learned {
        self.endpoint.learned()
    }

    /// Shows a wait for as long as the result lives.
    pub(crate) fn waiting(&self, reason: &str, wait: std::time::Duration) -> super::meter::Waiting<'_> {
        self.endpoint.waiting(reason, wait)
    }

    /// Whether `error` asks for a token besides the SAS, and one can be had: then the same call is worth another
    /// attempt.
    pub fn learns_to_send_token(&self, error: &CallError) -> bool {
        self.endpoint.learns_to_send_token(error)
    }

    /// Get Blob Properties (HEAD).
    pub async fn properties(&self) -> CallResult<Properties> {
        const CALL: &str = "Get Blob Properties";
        let headers = self
            .repeat(CALL, || async { Ok(self.blob.get_properties(None).await?.headers().clone()) })
            .await?;
        let number = |name: &'static str| text(&headers, name).and_then(|text| text.parse::<u64>().ok());
        Ok(Properties {
            length: number("content-length").ok_or_else(|| self.missing(CALL, "content-length"))?,
            etag: text(&headers, "etag").ok_or_else(|| self.missing(CALL, "etag"))?,
            blob_type: text(&headers, "x-ms-blob-type").unwrap_or_default(),
            sequence_number: number("x-ms-blob-sequence-number").unwrap_or_default(),
            lease_state: text(&headers, "x-ms-lease-state").unwrap_or_default(),
            lease_is_infinite: text(&headers, "x-ms-lease-duration").as_deref() == Some("infinite"),
            metadata: metadata_of(&headers),
            is_versioned: text(&headers, "x-ms-version-id").is_some(),
        })
    }

    /// Put Blob: creates an empty page blob, only if there is none (`If-None-Match: *`). When a reply was lost,
    /// the next attempt finds "already exists": the caller looks whose it is.
    pub async fn create(&self, length: u64, sequence_number: u64, metadata: &Metadata) -> CallResult<()> {
        const CALL: &str = "Put Blob";
        let number = self.signed(CALL, sequence_number)?;
        self.repeat(CALL, || async {
            let options = PageBlobClientCreateOptions {
                blob_sequence_number: Some(number),
                if_none_match: Some(Etag::from("*")),
                metadata: Some(hash_map(metadata)),
                ..Default::default()
            };
            self.pages.create(length, Some(options)).await.map(drop)
        })
        .await
    }

    /// Set Blob Properties: changes the length; new pages read as zeros.
    pub async fn resize(&self, length: u64, lease_id: &str) -> CallResult<()> {
        let options =
            || PageBlobClientResizeOptions { lease_id: Some(lease_id.to_owned()), ..Default::default() };
        self.repeat("Set Blob Properties", || async {
            let _: () = drop(self.pages.resize(length, Some(options())).await?);
            Ok(())
        })
        .await
    }

    /// Set Blob Properties: raises the sequence number to at least `number`, and returns what it is then.
    ///
    /// Action `max`: repeating it after a lost reply changes nothing, and it never lowers a number.
    pub async fn raise_sequence_number(&self, number: u64, lease_id: &str) -> CallResult<u64> {
        const CALL: &str = "Set Blob Properties";
        let number = self.signed(CALL, number)?;
        let headers = self
            .repeat(CALL, || async {
                let options = PageBlobClientSetSequenceNumberOptions {
                    blob_sequence_number: Some(number),
                    lease_id: Some(lease_id.to_owned()),
                    ..Default::default()
                };
                let reply =
                    self.pages.set_sequence_number(SequenceNumberActionType::Max, Some(options)).await?;
                Ok(reply.headers().clone())
            })
            .await?;
        text(&headers, "x-ms-blob-sequence-number")
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.missing(CALL, "x-ms-blob-sequence-number"))
    }

    /// Lease Blob, acquire. Returns its id, and when the attempt that succeeded was made: the lease lasts at least from there.
    ///
    /// Without a `proposed` id the service makes one up (REST reference, Lease Blob). A request that is delayed in the
    /// network until the lease is free again then takes it under an id that nobody knows, and not under one that other
    /// late requests carry. After a reply that was lost, the next attempt finds the lease held: `may_be_done` says so.
    pub async fn acquire_lease(&self, proposed: Option<&str>, seconds: u8) -> CallResult<(String, Instant)> {
        const CALL: &str = "Lease Blob";
        let options = || BlobClientAcquireLeaseOptions {
            proposed_lease_id: proposed.map(str::to_owned),
            ..Default::default()
        };
        let (headers, asked) = self
            .repeat(CALL, || async {
                let asked = Instant::now();
                let reply = self.blob.acquire_lease(i32::from(seconds), Some(options())).await?;
                Ok((reply.headers().clone(), asked))
            })
            .await?;
        let id = text(&headers, "x-ms-lease-id").ok_or_else(|| self.missing(CALL, "x-ms-lease-id"))?;
        Ok((id, asked))
    }

    /// Lease Blob, renew. Returns when the attempt that succeeded was made.
    pub(crate) async fn renew_lease(&self, id: &str) -> CallResult<Instant> {
        self.endpoint.retry().run(|| self.renew_lease_once(id)).await
    }

    /// Lease Blob, renew, one attempt. Returns when it was made.
    pub async fn renew_lease_once(&self, id: &str) -> CallResult<Instant> {
        let asked = Instant::now();
        let renewed = self.blob.renew_lease(id.to_owned(), None).await;
        renewed.map(|_| asked).map_err(|error| self.endpoint.error_of_sdk("Lease Blob", error))
    }

    /// Lease Blob, change, one attempt: the lease goes on under another id.
    pub async fn change_lease_once(&self, id: &str, new_id: &str) -> CallResult<()> {
        let changed = self.blob.change_lease(id.to_owned(), new_id.to_owned(), None).await;
        changed.map(drop).map_err(|error| self.endpoint.error_of_sdk("Lease Blob", error))
    }

    /// The error of a call that was given up without an answer.
    pub(crate) fn unanswered(&self, call: &'static str) -> CallError {
        self.endpoint.error(call, Cause::Broken("it was not answered".to_owned()))
    }

    /// Lease Blob, release.
    pub async fn release_lease(&self, id: &str) -> CallResult<()> {
        self.repeat("Lease Blob", || async {
            let _: () = drop(self.blob.release_lease(id.to_owned(), None).await?);
            Ok(())
        })
        .await
    }

    /// Lease Blob, break at once, whoever holds it.
    pub async fn break_lease(&self) -> CallResult<()> {
        let options = || BlobClientBreakLeaseOptions { break_period: Some(0), ..Default::default() };
        self.repeat("Lease Blob", || async {
            let _: () = drop(self.blob.break_lease(Some(options())).await?);
            Ok(())
        })
        .await
    }

    /// Set Blob Metadata: replaces all of it. Returns the new `ETag`.
    pub async fn set_metadata(&self, metadata: &Metadata, lease_id: &str) -> CallResult<String> {
        const CALL: &str = "Set Blob Metadata";
        let metadata = hash_map(metadata);
        let headers = self
            .repeat(CALL, || async {
                let options = BlobClientSetMetadataOptions {
                    lease_id: Some(lease_id.to_owned()),
                    ..Default::default()
                };
                Ok(self.blob.set_metadata(&metadata, Some(options)).await?.headers().clone())
            })
            .await?;
        text(&headers, "etag").ok_or_else(|| self.missing(CALL, "etag"))
    }

    /// Snapshot Blob, under lease and only if the blob still is at `etag`. Returns the snapshot's time. Not
    /// repeated once its outcome is unknown: then the caller looks whether it is there.
    pub async fn snapshot(&self, metadata: &Metadata, lease_id: &str, etag: &str) -> CallResult<String> {
        const CALL: &str = "Snapshot Blob";
        let made = || async {
            let options = BlobClientCreateSnapshotOptions {
                if_match: Some(Etag::from(etag)),
                lease_id: Some(lease_id.to_owned()),
                metadata: Some(hash_map(metadata)),
                ..Default::default()
            };
            let made = self.blob.create_snapshot(Some(options)).await;
            made.map_err(|error| self.endpoint.error_of_sdk(CALL, error))
        };
        let reply = self.endpoint.retry().run_certain(made).await?;
        text(reply.headers(), "x-ms-snapshot").ok_or_else(|| self.missing(CALL, "x-ms-snapshot"))
    }

    /// Delete Blob, with all its snapshots.
    pub async fn delete_with_snapshots(&self, lease_id: Option<&str>) -> CallResult<()> {
        let options = || BlobClientDeleteOptions {
            delete_snapshots: Some(DeleteSnapshotsOptionType::Include),
            lease_id: lease_id.map(str::to_owned),
            ..Default::default()
        };
        self.repeat("Delete Blob", || async {
            let _: () = drop(self.blob.delete(Some(options())).await?);
            Ok(())
        })
        .await
    }

    /// Delete Blob of one snapshot of this blob (`?snapshot=`), never of the blob itself: the header that deletes snapshots
    /// with their blob is not sent, and without it the service refuses to delete a blob that has any (409
    /// `SnapshotsPresent`). One that is gone counts as deleted: the reply may have been lost. (REST reference, Delete
    /// Blob.)
    pub async fn delete_snapshot(&self, time: &str) -> CallResult<()> {
        let options = || BlobClientDeleteOptions { snapshot: Some(time.to_owned()), ..Default::default() };
        let deleted = self
            .repeat("Delete Blob", || async {
                let _: () = drop(self.blob.delete(Some(options())).await?);
                Ok(())
            })
            .await;
        match deleted {
            Err(error) if error.code() == "BlobNotFound" => Ok(()),
            deleted => deleted,
        }
    }

    /// List Blobs of the container, narrowed to the snapshots of this blob, oldest first.
    pub async fn snapshots(&self) -> CallResult<Vec<ListedSnapshot>> {
        let name = self.resource().blob_name();
        let listed = self.snapshots_beside(Some(name.clone())).await?;
        Ok(listed.into_iter().filter(|(of, _)| *of == name).map(|(_, snapshot)| snapshot).collect())
    }

    /// List Blobs of the container: the names of all blobs in it that begin with `prefix`, their snapshots left out.
    #[cfg(feature = "cli")]
    pub(crate) async fn names_beside(&self, prefix: &str) -> CallResult<Vec<String>> {
        let items = self.list_beside(Some(prefix.to_owned()), Vec::new()).await?;
        Ok(items.into_iter().filter_map(|item| item.name).collect())
    }

    /// List Blobs of the container: the snapshots of all blobs in it whose names begin with `prefix`, each with its blob's
    /// name; by name, then oldest first.
    pub(crate) async fn snapshots_beside(
        &self,
        prefix: Option<String>,
    ) -> CallResult<Vec<(String, ListedSnapshot)>> {
        let include = vec![ListBlobsIncludeItem::Snapshots, ListBlobsIncludeItem::Metadata];
        let items = self.list_beside(prefix, include).await?;
        let found = items.into_iter().filter_map(|item| {
            let metadata = item.metadata.and_then(|metadata| metadata.values).unwrap_or_default();
            let length = item.properties.and_then(|properties| properties.content_length);
            let snapshot = ListedSnapshot {
                time: item.snapshot.filter(|time| !time.is_empty())?,
                length: length.unwrap_or_default(),
                metadata: metadata
                    .into_iter()
                    .map(|(name, value)| (name.to_ascii_lowercase(), value))
                    .collect(),
            };
            Some((item.name?, snapshot))
        });
        Ok(found.collect())
    }

    async fn list_beside(
        &self,
        prefix: Option<String>,
        include: Vec<ListBlobsIncludeItem>,
    ) -> CallResult<Vec<BlobItem>> {
        const CALL: &str = "List Blobs";
        let Some((url, _)) = self.resource().container() else {
            return Err(self.endpoint.error(CALL, Cause::Protocol("the URL names no container".to_owned())));
        };
        let options = BlobContainerClientOptions {
            client_options: client_options(&self.endpoint),
            version: SERVICE_VERSION.to_owned(),
        };
        let container = BlobContainerClient::new(url, None, Some(options))
            .map_err(|error| self.endpoint.error_of_sdk(CALL, error))?;
        self.repeat(CALL, || async {
            let options = BlobContainerClientListBlobsOptions {
                include: (!include.is_empty()).then(|| include.clone()),
                prefix: prefix.clone(),
                ..Default::default()
            };
            container.list_blobs(Some(options))?.try_collect::<Vec<_>>().await
        })
        .await
    }

    /// Another blob of the container, reached the same way.
    pub(crate) fn neighbour(&self, name: &str) -> CallResult<Option<Self>> {
        self.resource().beside(name).map(|resource| Self::new(self.endpoint.to(resource))).transpose()
    }

    /// Makes an SDK call under the one retry layer.
    async fn repeat<T, F>(&self, call: &'static str, attempt: impl Fn() -> F) -> CallResult<T>
    where
        F: Future<Output = azure_core::Result<T>>,
    {
        self.endpoint
            .retry()
            .run(|| {
                let made = attempt();
                async { made.await.map_err(|error| self.endpoint.error_of_sdk(call, error)) }
            })
            .await
    }

    fn missing(&self, call: &'static str, header: &str) -> CallError {
        self.endpoint.error(call, Cause::Protocol(format!("the reply lacks {header}")))
    }

    /// The SDK has sequence numbers as signed; the service allows 0..2^63-1.
    fn signed(&self, call: &'static str, number: u64) -> CallResult<i64> {
        i64::try_from(number).map_err(|_| {
            self.endpoint.error(call, Cause::Protocol(format!("the sequence number {number} is used up")))
        })
    }
}

/// The SDK over our endpoint, without retries of its own.
pub(super) fn client_options(endpoint: &Arc<Endpoint>) -> ClientOptions {
    ClientOptions {
        transport: Some(Transport::new(Arc::<Endpoint>::clone(endpoint))),
        retry: RetryOptions::none(),
        ..Default::default()
    }
}

pub(super) fn text(headers: &Headers, name: &'static str) -> Option<String> {
    headers.get_optional_str(&HeaderName::from_static(name)).map(str::to_owned)
}

fn metadata_of(headers: &Headers) -> Metadata {
    headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().to_ascii_lowercase();
            Some((name.strip_prefix("x-ms-meta-")?.to_owned(), value.as_str().to_owned()))
        })
        .collect()
}

fn hash_map(metadata: &Metadata) -> HashMap<String, String> {
    metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}
