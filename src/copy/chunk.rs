//! One chunk: read, check, write.

use crate::azure::crc64::Crc64;
use crate::azure::failure::{CallError, CallResult, Cause};
use crate::azure::{Fence, PageBlob};
use crate::plan::Chunk;
use crate::range::ExtentKind;

use super::frontier::{Counts, Written};
use super::scan::{Scanned, ZeroRule, scan};

/// What every chunk of a step needs.
#[derive(Clone, Debug)]
pub struct Route {
    /// The newer snapshot.
    pub source: PageBlob,
    /// The base blob.
    pub target: PageBlob,
    /// What keeps a writer who was overtaken from writing.
    pub fence: Fence,
    /// Whether the source sends checksums.
    pub source_crc: bool,
    /// How zeros are told from data.
    pub zeros: ZeroRule,
    /// Whether unwritten pages of the base read as zeros: then zeros need no request at all. True only for a
    /// full copy into a blob that this step created.
    pub zeros_are_free: bool,
}

impl Route {
    /// Moves one chunk.
    pub async fn copy(&self, chunk: Chunk) -> CallResult<Written> {
        let length = chunk.range.len();
        if chunk.kind == ExtentKind::Clear {
            self.target.clear_pages(chunk.range, &self.fence).await?;
            let counts = Counts { chunks: 1, bytes: length, bytes_sent: 0, bytes_zero: length };
            return Ok(Written { range: chunk.range, crc: Crc64::of_zeros(length), counts });
        }
        let scanned = self.source.repeat_attempt(|| self.read(chunk)).await?;
        let mut counts = Counts { chunks: 1, bytes: length, ..Counts::default() };
        for piece in scanned.pieces {
            if let Some((frames, crc)) = piece.data {
                self.target.put_pages(piece.range, frames, crc, &self.fence).await?;
                counts.bytes_sent += piece.range.len();
            } else {
                if !self.zeros_are_free {
                    self.target.clear_pages(piece.range, &self.fence).await?;
                }
                counts.bytes_zero += piece.range.len();
            }
        }
        Ok(Written { range: chunk.range, crc: scanned.crc, counts })
    }

    /// One attempt to read and check. The bytes are looked at on the thread pool for computing, so that the
    /// threads that serve sockets stay free.
    async fn read(&self, chunk: Chunk) -> CallResult<Scanned> {
        let data = self.source.read_once(chunk.range, self.source_crc).await?;
        if self.source_crc && data.sent_crc.is_none() {
            // It was sent when the run began: a reply without it is not the service's.
            return Err(self.read_error(Cause::Corrupt("the reply lacks its checksum".to_owned())));
        }
        let (sender, scanned) = tokio::sync::oneshot::channel();
        let rule = self.zeros;
        rayon::spawn(move || {
            // The receiver is gone when the run was ended meanwhile.
            let _ = sender.send(scan(chunk.range, &data.frames, rule));
        });
        let scanned = scanned
            .await
            .map_err(|_| self.read_error(Cause::Protocol("the chunk could not be scanned".to_owned())))?;
        self.source.compare("Get Blob", chunk.range, data.sent_crc, scanned.crc)?;
        Ok(scanned)
    }

    fn read_error(&self, cause: Cause) -> CallError {
        let source = self.source.resource();
        CallError::of("Get Blob", source.role(), source, cause)
    }
}
