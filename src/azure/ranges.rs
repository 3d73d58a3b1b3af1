//! Get Page Ranges and its diff form: one reply, read as a stream.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use reqwest::Method;
use tokio_util::io::StreamReader;

use super::endpoint::{Request, Secretive};
use super::failure::{CallError, CallResult, Cause};
use super::page_blob::PageBlob;
use super::page_list::{ListKind, PageListError, PageListReader};
use super::resource::Resource;
use crate::range::{Extent, PageRange};

type Body = StreamReader<Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>, Bytes>;

/// What a page list is asked against.
#[derive(Clone, Debug)]
pub enum Against {
    /// Nothing: every range with data.
    Nothing,
    /// An older snapshot of a managed disk, as a whole SAS URL in `x-ms-previous-snapshot-url`.
    DiskSnapshot(Resource),
    /// The time of an older snapshot of the same blob in an ordinary account (`prevsnapshot`).
    BlobSnapshot(String),
}

impl Against {
    fn call(&self) -> &'static str {
        if matches!(self, Self::Nothing) { "Get Page Ranges" } else { "Get Page Ranges Diff" }
    }
}

/// A reply that is being read.
pub struct PageListing {
    blob: PageBlob,
    call: &'static str,
    reader: PageListReader<Body>,
    /// Length of the blob or snapshot that was asked (`x-ms-blob-content-length`).
    pub blob_length: u64,
}

impl PageBlob {
    /// Repeats `attempt`, which asks for a page list, under the one retry layer. A diff shows two SAS, and a refusal
    /// does not say which one it means.
    pub(crate) async fn repeat_list<T, F>(
        &self,
        against: &Against,
        attempt: impl FnMut() -> F,
    ) -> CallResult<T>
    where
        F: Future<Output = CallResult<T>>,
    {
        let mut retry = self.endpoint.retry();
        if let Against::DiskSnapshot(previous) = against {
            retry.sas.push(previous.sas().clone());
        }
        retry.run(attempt).await
    }

    /// Asks once for the ranges inside `window`; `marker` continues a reply that named a `NextMarker`.
    pub async fn page_list_once(
        &self,
        window: PageRange,
        against: &Against,
        marker: Option<&str>,
    ) -> CallResult<PageListing> {
        let call = against.call();
        let mut query = "comp=pagelist".to_owned();
        let mut headers: Vec<(&'static str, Secretive)> = vec![("x-ms-range", window.header().into())];
        match against {
            Against::Nothing => {}
            Against::DiskSnapshot(previous) => {
                headers.push(("x-ms-previous-snapshot-url", Secretive::Secret(previous.expose_url())));
            }
            Against::BlobSnapshot(time) => append(&mut query, "prevsnapshot", time),
        }
        if let Some(marker) = marker {
            append(&mut query, "marker", marker);
        }
        let request = Request {
            call,
            method: Method::GET,
            query: query.into(),
            headers,
            body: Vec::new(),
            reply_bytes: 0,
        };
        let response = self.endpoint.send(&request).await?;
        let blob_length = response
            .headers()
            .get("x-ms-blob-content-length")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .ok_or_else(|| {
                self.endpoint
                    .error(call, Cause::Protocol("the reply lacks x-ms-blob-content-length".to_owned()))
            })?;
        let state = (self.clone(), Box::pin(response.bytes_stream()));
        let frames = futures::stream::try_unfold(state, move |(blob, mut stream)| async move {
            let frame = blob.endpoint.next_frame(call, &mut stream).await.map_err(std::io::Error::other)?;
            Ok(frame.map(|frame| (frame, (blob, stream))))
        });
        let body: Body = StreamReader::new(Box::pin(frames));
        let kind =
            if matches!(against, Against::Nothing) { ListKind::Allocated } else { ListKind::Difference };
        let reader = PageListReader::new(body, kind, window, blob_length);
        Ok(PageListing { blob: self.clone(), call, reader, blob_length })
    }
}

impl PageListing {
    /// The next range, or `None` at the end of the reply.
    pub async fn next(&mut self) -> CallResult<Option<Extent>> {
        self.reader.next().await.map_err(|error| self.error(&error))
    }

    /// The marker that continues this reply. Valid after [`Self::next`] gave `None`.
    pub fn next_marker(&self) -> Option<&str> {
        self.reader.next_marker()
    }

    fn error(&self, error: &PageListError) -> CallError {
        let cause = match error {
            PageListError::Cut(why) => Cause::Broken(why.clone()),
            PageListError::Malformed(why) => Cause::Protocol(why.clone()),
        };
        self.blob.endpoint.error(self.call, cause)
    }
}

fn append(query: &mut String, name: &str, value: &str) {
    query.push('&');
    query.push_str(name);
    query.push('=');
    query.extend(url::form_urlencoded::byte_serialize(value.as_bytes()));
}
