//! Page data: ranged reads with CRC, page writes (also of what the service reads from elsewhere), clears. These are the
//! calls on the copy's hot path.
//!
//! Put Page goes out directly and not through the SDK, which wants one contiguous buffer: a chunk is kept as
//! the frames that came from the source's socket.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;

use super::crc64::{self, Crc64};
use super::endpoint::{Request, Secretive};
use super::failure::{CallError, CallResult, Cause};
use super::page_blob::PageBlob;
use crate::range::PageRange;

/// The most that one Put Page, or one ranged GET with a checksum, may carry.
pub const LARGEST_CHUNK: u64 = 4 << 20;

/// What one page blob takes in a second, as documented (scalability targets of Azure Storage): a target, not a promise.
pub const DOCUMENTED_BYTES_PER_SECOND: u32 = 60 << 20;
/// The same of requests.
pub const DOCUMENTED_REQUESTS_PER_SECOND: u32 = 500;

/// What every page write carries so that a writer who was overtaken cannot write.
#[derive(Clone, Debug)]
pub struct Fence {
    /// The lease that the writer holds.
    pub lease_id: String,
    /// The blob's sequence number in this run: `x-ms-if-sequence-number-eq`.
    pub generation: u64,
}

/// What one ranged GET brought.
#[derive(Clone, Debug)]
pub struct ChunkData {
    /// The bytes, as the frames they came in.
    pub frames: Vec<Bytes>,
    /// The checksum that the service sent, if it did. Not yet compared.
    pub sent_crc: Option<u64>,
}

impl PageBlob {
    /// Get Blob of `range`, one attempt. With `want_crc` the service is asked for the range's CRC-64; a service
    /// that does not know the option refuses with 400.
    pub async fn read_once(&self, range: PageRange, want_crc: bool) -> CallResult<ChunkData> {
        self.read_looking(range, want_crc, &mut |_| ()).await
    }

    /// The same; `look` sees each frame as it comes.
    pub(crate) async fn read_looking(
        &self,
        range: PageRange,
        want_crc: bool,
        look: &mut (dyn FnMut(&[u8]) + Send),
    ) -> CallResult<ChunkData> {
        const CALL: &str = "Get Blob";
        let mut headers = vec![("x-ms-range", range.header().into())];
        if want_crc {
            headers.push(("x-ms-range-get-content-crc64", "true".into()));
        }
        let request = Request {
            call: CALL,
            method: Method::GET,
            query: "".into(),
            headers,
            body: Vec::new(),
            reply_bytes: range.len(),
        };
        let (response, moving) = self.endpoint.send_moving(&request).await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let got = header("content-range").unwrap_or_default();
        let expected = format!("bytes {}-{}/", range.start(), range.end() - 1);
        if !got.starts_with(&expected) {
            let why = format!("bytes {range} were asked for, Content-Range is '{got}'");
            return Err(self.endpoint.error(CALL, Cause::Protocol(why)));
        }
        let sent_crc = match header("x-ms-content-crc64").map(crc64::parse_header) {
            Some(None) => {
                let why = "x-ms-content-crc64 is not a checksum".to_owned();
                return Err(self.endpoint.error(CALL, Cause::Corrupt(why)));
            }
            Some(sent) => sent,
            None => None,
        };
        let frames = self.endpoint.read_frames(CALL, response, range.len(), look).await?;
        moving.was_read(range.len());
        Ok(ChunkData { frames, sent_crc })
    }

    /// [`Self::read_once`] under the retry layer, without a checksum: for what is compared by other means.
    pub async fn read(&self, range: PageRange) -> CallResult<Vec<Bytes>> {
        self.endpoint.retry().run(|| async { Ok(self.read_once(range, false).await?.frames) }).await
    }

    /// [`Self::read_once`] under the retry layer, compared with the checksum that comes `with_crc`: what was changed on the way
    /// is read again.
    pub(crate) async fn read_checked(&self, range: PageRange, with_crc: bool) -> CallResult<Vec<Bytes>> {
        let attempt = || async {
            let data = self.read_once(range, with_crc).await?;
            let sum = Crc64::of(&data.frames.concat());
            self.compare("Get Blob", range, data.sent_crc, sum)?;
            Ok(data.frames)
        };
        self.endpoint.retry().run(attempt).await
    }

    /// Repeats `attempt`, which makes one call and checks what it brought, under the one retry layer.
    pub(crate) async fn repeat_attempt<T, F>(&self, attempt: impl FnMut() -> F) -> CallResult<T>
    where
        F: Future<Output = CallResult<T>>,
    {
        self.endpoint.retry().run(attempt).await
    }

    /// Compares what came with the checksum that the service sent, if it did.
    pub(crate) fn compare(
        &self,
        call: &'static str,
        range: PageRange,
        sent: Option<u64>,
        computed: Crc64,
    ) -> CallResult<()> {
        match sent {
            Some(sent) if sent != computed.value() => {
                let why =
                    format!("bytes {range}: CRC-64 {:016x}, the service says {sent:016x}", computed.value());
                Err(self.endpoint.error(call, Cause::Corrupt(why)))
            }
            _ => Ok(()),
        }
    }

    /// Put Page, update: writes `frames` at `range` and compares the checksum in the reply.
    pub async fn put_pages(
        &self,
        range: PageRange,
        frames: Vec<Bytes>,
        crc: Crc64,
        fence: &Fence,
    ) -> CallResult<()> {
        self.write_pages(range, frames, crc, Some(fence), true).await
    }

    /// Put Page, update, to the host of a disk's upload: it takes no lease and no condition, and perhaps no checksum.
    pub async fn upload_pages(
        &self,
        range: PageRange,
        frames: Vec<Bytes>,
        crc: Crc64,
        takes_crc: bool,
    ) -> CallResult<()> {
        self.write_pages(range, frames, crc, None, takes_crc).await
    }

    async fn write_pages(
        &self,
        range: PageRange,
        frames: Vec<Bytes>,
        crc: Crc64,
        fence: Option<&Fence>,
        takes_crc: bool,
    ) -> CallResult<()> {
        const CALL: &str = "Put Page";
        let mut headers = page_headers("update", range, fence);
        if takes_crc {
            headers.push(("x-ms-content-crc64", crc.to_header().into()));
        }
        let request = Request {
            call: CALL,
            method: Method::PUT,
            query: "comp=page".into(),
            headers,
            body: frames,
            reply_bytes: 0,
        };
        self.endpoint
            .retry()
            .run(|| async {
                let (response, moving) =
                    self.endpoint.send_moving(&request).await.map_err(corrupt_if_mismatch)?;
                moving.was_write(range.len());
                // Some accounts answer with an MD5 instead: then the service's own check of what was sent stands.
                let sent = response.headers().get("x-ms-content-crc64").and_then(|value| value.to_str().ok());
                self.compare(CALL, range, sent.and_then(crc64::parse_header), crc)
            })
            .await
    }

    /// Put Page From URL: the service reads `range` of `source` by itself and writes it at the same place. Gives the
    /// checksum of what it wrote, where it tells one (it may tell an MD5 in its place). `budget` may make the time shorter
    /// for which it is tried.
    ///
    /// The URL of the source, with its SAS as it is at that attempt, goes to the service of this blob: a secret, like the
    /// SAS in an address.
    pub async fn put_pages_from_url(
        &self,
        range: PageRange,
        source: &Self,
        fence: &Fence,
        budget: Option<Duration>,
    ) -> CallResult<Option<Crc64>> {
        let mut headers = page_headers("update", range, Some(fence));
        headers.push(("x-ms-source-range", range.header().into()));
        headers.push(("x-ms-copy-source", Secretive::UrlOf(source.resource().clone())));
        let request = Request {
            call: "Put Page From URL",
            method: Method::PUT,
            query: "comp=page".into(),
            headers,
            body: Vec::new(),
            // They do not come here, and load the base blob all the same.
            reply_bytes: range.len(),
        };
        let mut retry = self.endpoint.retry();
        retry.policy.budget = budget.unwrap_or(retry.policy.budget).min(retry.policy.budget);
        retry
            .run(|| async {
                let turn = source.endpoint.turn_of_another(range.len()).await;
                let outcome = self.endpoint.send_moving(&request).await;
                source.endpoint.learn_from_another(turn, range.len(), &outcome);
                let (response, moving) = outcome?;
                moving.was_write(range.len());
                let told = response.headers().get("x-ms-content-crc64").and_then(|value| value.to_str().ok());
                let crc = told.and_then(crc64::parse_header);
                Ok(crc.map(|crc| Crc64::from_parts(crc, range.len())))
            })
            .await
    }

    /// Whether requests carry a token, besides the SAS or in its place.
    pub(crate) fn sends_token(&self) -> bool {
        self.endpoint.sends_token()
    }

    /// Clears everything below `length`, in pieces that the service does not take long for.
    pub(crate) async fn clear_whole(&self, length: u64, fence: &Fence) -> CallResult<()> {
        const PIECE: u64 = 64 << 30;
        let mut rest = PageRange::new(0, length).ok();
        while let Some(range) = rest {
            let (piece, after) = range.split(range.start() + PIECE);
            self.clear_pages(piece.unwrap_or(range), fence).await?;
            rest = after;
        }
        Ok(())
    }

    /// Put Page, clear: the range reads as zeros and takes no space. Any length.
    pub async fn clear_pages(&self, range: PageRange, fence: &Fence) -> CallResult<()> {
        let request = Request {
            call: "Clear Pages",
            method: Method::PUT,
            query: "comp=page".into(),
            headers: page_headers("clear", range, Some(fence)),
            body: Vec::new(),
            reply_bytes: 0,
        };
        self.endpoint.retry().run(|| async { self.endpoint.send(&request).await.map(drop) }).await
    }
}

/// The service found that our bytes were changed on the way: that passes by itself.
pub(super) fn corrupt_if_mismatch(error: CallError) -> CallError {
    if matches!(error.code(), "Crc64Mismatch" | "Md5Mismatch") {
        return CallError { cause: Cause::Corrupt(error.cause.to_string()), ..error };
    }
    error
}

fn page_headers(
    write: &str,
    range: PageRange,
    fence: Option<&Fence>,
) -> Vec<(&'static str, super::endpoint::Secretive)> {
    let mut headers = vec![("x-ms-page-write", write.into()), ("x-ms-range", range.header().into())];
    if let Some(fence) = fence {
        headers.push(("x-ms-lease-id", fence.lease_id.as_str().into()));
        headers.push(("x-ms-if-sequence-number-eq", fence.generation.to_string().into()));
    }
    headers
}
