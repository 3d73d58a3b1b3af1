//! Reads a record from its blob, frame by frame.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::RecordId;
use super::digest::hex;
use super::format::{FRAME_HEAD, Frame, LARGEST_FRAME, read_frame};
use crate::azure::BlockBlob;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that one request asks for: at least a frame.
const PIECE: u64 = (LARGEST_FRAME + FRAME_HEAD) as u64;

/// A record that is being read.
pub(super) struct Reader {
    blob: BlockBlob,
    id: RecordId,
    /// Bytes that were asked for.
    at: u64,
    buffer: BytesMut,
    sha: Sha256,
}

impl Reader {
    pub(super) fn new(blob: BlockBlob, id: RecordId) -> Self {
        Self { blob, id, at: 0, buffer: BytesMut::new(), sha: Sha256::new() }
    }

    /// The next frame, or `None` at the end of a record that is what its name says.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some((frame, taken)) = read_frame(&self.buffer).map_err(|why| self.damaged(&why))? {
                let _ = self.buffer.split_to(taken);
                return Ok(Some(frame));
            }
            if self.at == self.id.bytes {
                return self.end().map(|()| None);
            }
            let piece = self.fetch().await?;
            self.buffer.extend_from_slice(&piece);
        }
    }

    /// The whole of what is left as it is, for a run that goes on.
    pub(super) async fn fetch(&mut self) -> Result<Bytes> {
        let length = PIECE.min(self.id.bytes - self.at);
        let piece = match self.blob.read(self.at, length).await {
            Ok(piece) => piece,
            Err(error) if matches!(error.status(), Some(404 | 416)) => {
                let why =
                    if error.status() == Some(404) { "it was deleted" } else { "it is shorter than it was" };
                return Err(self.damaged(why));
            }
            Err(error) => return Err(error.into()),
        };
        self.at += length;
        self.sha.update(&piece);
        Ok(piece)
    }

    fn end(&self) -> Result<()> {
        if !self.buffer.is_empty() {
            return Err(self.damaged("it ends within a frame"));
        }
        if hex(&self.sha.clone().finalize()) != self.id.sha256 {
            return Err(self.damaged("its SHA-256 is not the one that its point names"));
        }
        Ok(())
    }

    pub(super) fn damaged(&self, why: &str) -> Error {
        damaged(self.blob.resource(), why)
    }
}

/// A record that is not what it was: the point may be right all the same.
pub(super) fn damaged(on: impl std::fmt::Display, why: &str) -> Error {
    Error::new(ErrorKind::Corruption, "read the record of a point", format!("{why}: the record is damaged, which says nothing about the point"))
        .on(on)
        .next("compare the point with its source while there is one (snapferry verify --against source), and write its record anew: snapferry repair --record --target <URL>")
}
