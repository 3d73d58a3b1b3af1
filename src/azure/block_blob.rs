//! Block blobs: what is kept beside a base blob, such as the records of its points.
//!
//! Writing goes through the official SDK, reading directly, because ranges and checksums are wanted.

use std::sync::Arc;

use azure_core::http::Etag;
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientGetPropertiesOptions, BlockBlobClientCommitBlockListOptions,
    BlockBlobClientStageBlockOptions, BlockLookupList,
};
use azure_storage_blob::{BlobClient, BlobClientOptions, BlockBlobClient, BlockBlobClientOptions};
use bytes::Bytes;
use reqwest::Method;

use super::crc64::{Crc64, parse_header};
use super::endpoint::{Endpoint, Request, SERVICE_VERSION};
use super::failure::{CallError, CallResult, Cause};
use super::page_blob::{PageBlob, client_options, text};
use super::pages::corrupt_if_mismatch;
use super::resource::Resource;

/// A block blob behind an endpoint.
#[derive(Clone)]
pub struct BlockBlob {
    endpoint: Arc<Endpoint>,
    blob: Arc<BlobClient>,
    blocks: Arc<BlockBlobClient>,
}

impl std::fmt::Debug for BlockBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockBlob").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What must hold of a blob for a write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Only {
    /// There is none.
    IfNew,
    /// It is as it was at this `ETag`.
    IfAt(String),
}

impl PageBlob {
    /// The block blob that is called `name`, in the same container and reached the same way; `None` where the SAS is for
    /// this blob alone.
    pub fn beside(&self, name: &str) -> CallResult<Option<BlockBlob>> {
        match self.resource().beside(name) {
            Some(resource) => BlockBlob::new(self.endpoint.to(resource)).map(Some),
            None => Ok(None),
        }
    }
}

impl BlockBlob {
    /// A client for the blob behind `endpoint`.
    pub fn new(endpoint: Arc<Endpoint>) -> CallResult<Self> {
        let url = endpoint.resource().address().clone();
        let build_error = |error: azure_core::Error| endpoint.error_of_sdk("client", error);
        let version = SERVICE_VERSION.to_owned();
        let of_blob =
            BlobClientOptions { client_options: client_options(&endpoint), version: version.clone() };
        let of_blocks = BlockBlobClientOptions { client_options: client_options(&endpoint), version };
        let blob = BlobClient::new(url.clone(), None, Some(of_blob)).map_err(build_error)?;
        let blocks = BlockBlobClient::new(url, None, Some(of_blocks)).map_err(build_error)?;
        Ok(Self { blob: Arc::new(blob), blocks: Arc::new(blocks), endpoint })
    }

    /// The URL behind this client.
    pub fn resource(&self) -> &Resource {
        self.endpoint.resource()
    }

    /// Put Block: uploads a part that is not in the blob before [`Self::commit`]. The service compares its CRC-64.
    pub async fn put_block(&self, id: &[u8], content: Bytes) -> CallResult<()> {
        let crc = Crc64::of(&content).value().to_le_bytes().to_vec();
        self.repeat("Put Block", || async {
            let options = BlockBlobClientStageBlockOptions {
                transactional_content_crc64: Some(crc.clone()),
                ..Default::default()
            };
            let length = content.len() as u64;
            self.blocks.stage_block(id, length, content.clone().into(), Some(options)).await.map(drop)
        })
        .await
    }

    /// Put Block List: the blob consists of these blocks from here on. Returns its `ETag`. When an earlier attempt got no
    /// reply, a refusal may be of our own making: the caller looks.
    pub async fn commit(&self, ids: &[Vec<u8>], only: &Only) -> CallResult<String> {
        const CALL: &str = "Put Block List";
        let list = BlockLookupList { latest: Some(ids.to_vec()), ..Default::default() };
        let headers = self
            .repeat(CALL, || async {
                let mut options = BlockBlobClientCommitBlockListOptions::default();
                match only {
                    Only::IfNew => options.if_none_match = Some(Etag::from("*")),
                    Only::IfAt(etag) => options.if_match = Some(Etag::from(etag.as_str())),
                }
                let body = list.clone().try_into()?;
                Ok(self.blocks.commit_block_list(body, Some(options)).await?.headers().clone())
            })
            .await?;
        text(&headers, "etag").ok_or_else(|| self.lacks(CALL, "etag"))
    }

    /// Get Blob Properties: length and `ETag`; `None` when there is no such blob.
    pub async fn look(&self) -> CallResult<Option<(u64, String)>> {
        const CALL: &str = "Get Blob Properties";
        let asked = self
            .repeat(CALL, || async {
                let options = BlobClientGetPropertiesOptions::default();
                Ok(self.blob.get_properties(Some(options)).await?.headers().clone())
            })
            .await;
        let headers = match asked {
            Ok(headers) => headers,
            Err(error) if error.status() == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = text(&headers, "content-length").and_then(|text| text.parse().ok());
        let length = length.ok_or_else(|| self.lacks(CALL, "content-length"))?;
        Ok(Some((length, text(&headers, "etag").ok_or_else(|| self.lacks(CALL, "etag"))?)))
    }

    /// Get Blob of `length` bytes from `start` on, as one piece. `length` is not zero and at most 4 MiB: for so much the
    /// service sends a checksum, which is compared. One that does not know the option refuses with 400, and is asked
    /// without it.
    pub async fn read(&self, start: u64, length: u64) -> CallResult<Bytes> {
        let retry = self.endpoint.retry();
        match retry.run(|| self.read_once(start, length, true)).await {
            Err(error) if error.status() == Some(400) => {
                retry.run(|| self.read_once(start, length, false)).await
            }
            read => read,
        }
    }

    async fn read_once(&self, start: u64, length: u64, want_crc: bool) -> CallResult<Bytes> {
        const CALL: &str = "Get Blob";
        let mut headers = vec![("x-ms-range", format!("bytes={start}-{}", start + length - 1).into())];
        if want_crc {
            headers.push(("x-ms-range-get-content-crc64", "true".into()));
        }
        let request = Request {
            call: CALL,
            method: Method::GET,
            query: "".into(),
            headers,
            body: Vec::new(),
            reply_bytes: length,
        };
        let response = self.endpoint.send(&request).await?;
        let sent = response.headers().get("x-ms-content-crc64").and_then(|value| value.to_str().ok());
        let sent = sent.and_then(parse_header);
        let frames = self.endpoint.read_frames(CALL, response, length, &mut |_| ()).await?;
        let content = Bytes::from(frames.concat());
        if sent.is_some_and(|sent| sent != Crc64::of(&content).value()) {
            let why = "the bytes that came are not those of their checksum".to_owned();
            return Err(self.endpoint.error(CALL, Cause::Corrupt(why)));
        }
        Ok(content)
    }

    /// Delete Blob. One that is gone counts as deleted.
    pub async fn delete(&self) -> CallResult<()> {
        let deleted = self
            .repeat("Delete Blob", || async {
                let _: () = drop(self.blob.delete(Some(BlobClientDeleteOptions::default())).await?);
                Ok(())
            })
            .await;
        match deleted {
            Err(error) if error.status() == Some(404) => Ok(()),
            deleted => deleted,
        }
    }

    async fn repeat<T, F>(&self, call: &'static str, attempt: impl Fn() -> F) -> CallResult<T>
    where
        F: Future<Output = azure_core::Result<T>>,
    {
        let attempt = || async {
            attempt().await.map_err(|error| corrupt_if_mismatch(self.endpoint.error_of_sdk(call, error)))
        };
        self.endpoint.retry().run(attempt).await
    }

    fn lacks(&self, call: &'static str, header: &str) -> CallError {
        self.endpoint.error(call, Cause::Protocol(format!("the reply lacks {header}")))
    }
}
