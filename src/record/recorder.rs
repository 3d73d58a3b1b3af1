//! Writes the record of a step while it is copied: what passed is kept until the next checkpoint, and uploaded before it.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::RecordId;
use super::digest::hex;
use super::format::{Encoder, Header};
use super::reader::damaged;
use crate::azure::block_blob::Only;
use crate::azure::failure::{CallError, CallResult, Class};
use crate::azure::{BlockBlob, PageBlob};
use crate::copy::frontier::Written;
use crate::copy::keeper::Backlog;
use crate::error::Result;

/// What waits for a checkpoint before one is due: the record of half a gibibyte.
const DUE: usize = 1 << 20;
/// What may wait before no chunk starts: uploading is behind.
const FULL: usize = 8 << 20;
/// The most that one block carries.
const LARGEST_BLOCK: usize = 4 << 20;

/// The record of a step that is being copied.
pub struct Recorder {
    queue: Mutex<Queue>,
    sent: tokio::sync::Mutex<Sent>,
}

/// What passed, in the order of the image.
#[derive(Default)]
struct Queue {
    encoder: Encoder,
    /// Frames that were not uploaded yet.
    frames: Vec<u8>,
    /// Bytes of frames that were uploaded and taken out of `frames`.
    gone: u64,
    /// Something passed of which nobody knows the checksums: half a record would be none, so that there is none.
    given_up: bool,
}

/// What is in the blob.
struct Sent {
    blob: BlockBlob,
    name: String,
    blocks: Vec<Vec<u8>>,
    /// Number of the next block: none is used twice, so that one that was delayed in the network replaces nothing.
    next: u32,
    /// What is in the last block, while that is not full.
    tail: Bytes,
    only: Only,
    bytes: u64,
    sha: Sha256,
    /// Whether writing it was refused: the step goes on without a record.
    refused: bool,
}

impl Recorder {
    /// Begins the record of a step to a base blob, in a blob that is called `name`; `None` where nothing can be kept beside
    /// the base blob.
    pub fn begin(base: &PageBlob, name: &str, header: &Header) -> CallResult<Option<Self>> {
        let Some(blob) = base.beside(name)? else {
            tracing::warn!(
                "the SAS is for the base blob alone: its points get no record, and can only be verified against their source. \
                 A SAS of the container lets them have one"
            );
            return Ok(None);
        };
        let mut queue = Queue::default();
        Encoder::header(header, &mut queue.frames);
        let sent = Sent {
            blob,
            name: name.to_owned(),
            blocks: Vec::new(),
            next: 0,
            tail: Bytes::new(),
            only: Only::IfNew,
            bytes: 0,
            sha: Sha256::new(),
            refused: false,
        };
        Ok(Some(Self { queue: Mutex::new(queue), sent: tokio::sync::Mutex::new(sent) }))
    }

    /// Begins a record that goes on where another run of the same step stopped: what that had written is the basis of this
    /// one, and is read as far as the checkpoint named it.
    ///
    /// # Errors
    /// When the part is not there any more.
    pub async fn go_on(
        base: &PageBlob,
        name: &str,
        header: &Header,
        part: &RecordId,
    ) -> Result<Option<Self>> {
        let Some(old) = base.beside(&part.name)? else { return Ok(None) };
        match old.look().await? {
            Some((length, _)) if length >= part.bytes => Ok(Self::begin(base, name, header)?),
            Some(_) => Err(damaged(old.resource(), "it is shorter than it was")),
            None => Err(damaged(old.resource(), "it was deleted")),
        }
    }

    /// The frontier moved over a chunk.
    pub fn passed(&self, written: &Written) {
        let queue = &mut *self.queue();
        match &written.sums {
            Some(sums) if !queue.given_up => queue.encoder.push(written.range, sums, &mut queue.frames),
            Some(_) => {}
            None => {
                if !queue.given_up {
                    tracing::warn!(
                        "the point of this step gets no record: the service pulls its bytes by itself, and their checksums are \
                         not known here. It can only be verified against its source, until a record is written: snapferry repair --record"
                    );
                }
                queue.given_up = true;
                queue.frames = Vec::new();
            }
        }
    }

    /// How much waits to be uploaded.
    pub fn backlog(&self) -> Backlog {
        let queue = self.queue();
        if queue.given_up {
            return Backlog::None;
        }
        match queue.frames.len() + queue.encoder.pending() {
            waiting if waiting >= FULL => Backlog::Full,
            waiting if waiting >= DUE => Backlog::Due,
            _ => Backlog::None,
        }
    }

    /// Ends the frame that is being filled; returns where the record stands then.
    pub fn cut(&self) -> u64 {
        let queue = &mut *self.queue();
        queue.encoder.cut(&mut queue.frames);
        queue.gone + queue.frames.len() as u64
    }

    /// Appends the last frames; returns where the record ends.
    pub fn finish(&self) -> u64 {
        let queue = &mut *self.queue();
        queue.encoder.finish(&mut queue.frames);
        queue.gone + queue.frames.len() as u64
    }

    /// Uploads the record up to `goal`, which [`Self::cut`] gave. `None` when that is refused for good: then there is no
    /// record.
    pub async fn upload(&self, goal: u64) -> CallResult<Option<RecordId>> {
        let mut sent = self.sent.lock().await;
        if self.queue().given_up {
            return Ok(None);
        }
        if !sent.refused && sent.bytes < goal {
            let waiting = self.waiting(sent.bytes, goal);
            match sent.append(waiting).await {
                Ok(()) => {}
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(
                        cause = %error.cause,
                        "no record can be kept beside the base blob: its points can only be verified against their source"
                    );
                    sent.refused = true;
                }
                Err(error) => return Err(error),
            }
        }
        self.forget(goal);
        // Also when it was given up while it was uploaded.
        Ok((!sent.refused && !self.queue().given_up).then(|| sent.id()))
    }

    fn waiting(&self, from: u64, to: u64) -> Bytes {
        let queue = self.queue();
        let at = |place: u64| {
            usize::try_from(place.saturating_sub(queue.gone)).unwrap_or(usize::MAX).min(queue.frames.len())
        };
        Bytes::copy_from_slice(&queue.frames[at(from)..at(to).max(at(from))])
    }

    fn forget(&self, until: u64) {
        let queue = &mut *self.queue();
        let done =
            usize::try_from(until.saturating_sub(queue.gone)).unwrap_or(usize::MAX).min(queue.frames.len());
        queue.frames.drain(..done);
        queue.gone += done as u64;
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sent {
    /// A last block that is not full is uploaded again with what follows: a checkpoint every few seconds, for days, must not
    /// come to more blocks than a blob may have (50,000; REST reference, Put Block List).
    async fn append(&mut self, content: Bytes) -> CallResult<()> {
        let mut blocks = self.blocks.clone();
        let mut rest = content.clone();
        if !self.tail.is_empty() {
            blocks.pop();
            rest = Bytes::from([&self.tail[..], &content].concat());
        }
        let mut tail = Bytes::new();
        while !rest.is_empty() {
            let block = rest.split_to(rest.len().min(LARGEST_BLOCK));
            let id = format!("{:08}", self.next).into_bytes();
            self.next += 1;
            tail = if block.len() < DUE { block.clone() } else { Bytes::new() };
            self.blob.put_block(&id, block).await?;
            blocks.push(id);
        }
        let length = self.bytes + content.len() as u64;
        let etag = self.commit(&blocks, length).await?;
        self.only = Only::IfAt(etag);
        self.blocks = blocks;
        self.tail = tail;
        self.bytes = length;
        self.sha.update(&content);
        Ok(())
    }

    /// The list is only replaced as it was last seen: one that was delayed in the network cannot bring an older state back.
    /// The blob is named after this run, so that whatever else is there is our own, of an attempt without a reply.
    async fn commit(&self, blocks: &[Vec<u8>], length: u64) -> CallResult<String> {
        let refused = match self.blob.commit(blocks, &self.only).await {
            Err(error) if matches!(error.status(), Some(409 | 412)) => error,
            committed => return committed,
        };
        match self.blob.look().await? {
            Some((now, etag)) if now == length => Ok(etag),
            Some((_, etag)) => self.blob.commit(blocks, &Only::IfAt(etag)).await,
            None => Err(refused),
        }
    }

    fn id(&self) -> RecordId {
        RecordId { name: self.name.clone(), bytes: self.bytes, sha256: hex(&self.sha.clone().finalize()) }
    }
}

/// Whether trying again is of no use: rights, accounts that take no block blobs (400 `BlobTypeNotSupported` of premium ones),
/// names that are too long. The copy is right without a record.
fn is_refusal(error: &CallError) -> bool {
    error.class() != Class::Passes
}
