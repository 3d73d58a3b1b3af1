//! A blob: its present state, its snapshots, its lease.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::blocks::{BlockContent, Staged};
use super::lease::Lease;
use super::pages::Pages;
use crate::clock::Moment;
use crate::conditions::Validators;
use crate::error::{ErrorCode, Outcome};

/// A blob's content.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Pages(Pages),
    Block(BlockContent),
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Content::Pages(pages) => pages.len(),
            Content::Block(content) => content.len(),
        }
    }

    /// Flips a bit in place. Returns whether there is such a byte.
    pub(crate) fn flip_bit(&mut self, byte: u64, bit: u8) -> bool {
        let flip = |stored: &mut u8| *stored ^= 1 << bit;
        match self {
            Content::Pages(pages) => pages.change_byte(byte, flip),
            Content::Block(content) => content.change_byte(byte, flip),
        }
    }

    /// The value of `x-ms-blob-type`.
    pub(crate) fn type_text(&self) -> &'static str {
        match self {
            Content::Pages(_) => "PageBlob",
            Content::Block(_) => "BlockBlob",
        }
    }
}

/// The content headers that a blob stores for its readers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContentHeaders {
    pub(crate) content_type: Option<String>,
    pub(crate) encoding: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) disposition: Option<String>,
    pub(crate) cache_control: Option<String>,
    /// Whatever the writer claimed; nobody checks it against the content.
    pub(crate) md5: Option<String>,
}

/// That a blob's content came from a copy, as its properties tell.
#[derive(Clone, Debug)]
pub(crate) struct CopyRecord {
    pub(crate) id: Uuid,
    /// The source's URL as it was sent, with its signature.
    pub(crate) source: String,
    pub(crate) bytes: u64,
    pub(crate) completed: Moment,
}

/// One state of a blob: the present one, or a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) content: Content,
    pub(crate) content_headers: ContentHeaders,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) sequence_number: u64,
    pub(crate) created: Moment,
    pub(crate) etag: Moment,
    pub(crate) last_modified: Moment,
    /// Tells apart the blobs that were written under one name, one over the other: they cannot be compared.
    pub(crate) incarnation: Moment,
    /// Any write removes it, except those of pages.
    pub(crate) copy: Option<CopyRecord>,
}

impl Version {
    /// Says that the blob was changed at `tick`.
    pub(crate) fn touch(&mut self, tick: Moment) {
        self.etag = tick;
        self.last_modified = tick;
    }

    pub(crate) fn validators(&self) -> Validators {
        Validators { etag: self.etag, last_modified: self.last_modified }
    }
}

/// A blob of some name. It stays in its container when it is deleted, as one without present state and snapshots.
#[derive(Debug, Default)]
pub(crate) struct Blob {
    pub(crate) live: Option<Version>,
    pub(crate) snapshots: BTreeMap<Moment, Version>,
    pub(crate) lease: Lease,
    /// Blocks that wait for being committed. While there is nothing else, there is no blob for its readers.
    pub(crate) staged: Staged,
}

impl Blob {
    /// The state that a request addresses: a snapshot or the present one.
    pub(crate) fn version(&self, snapshot: Option<Moment>) -> Option<&Version> {
        match snapshot {
            Some(time) => self.snapshots.get(&time),
            None => self.live.as_ref(),
        }
    }

    /// The same to be changed.
    pub(crate) fn version_mut(&mut self, snapshot: Option<Moment>) -> Option<&mut Version> {
        match snapshot {
            Some(time) => self.snapshots.get_mut(&time),
            None => self.live.as_mut(),
        }
    }

    /// Stores a new present state, over what is there. Blocks that waited are gone then.
    pub(crate) fn overwrite(&mut self, version: Version, now: Moment) {
        self.live = Some(version);
        self.staged.clear();
        self.lease.written(now);
    }

    /// Refuses what is for block blobs only.
    pub(crate) fn refuse_pages(&self) -> Outcome<()> {
        match self.live.as_ref().map(|live| &live.content) {
            Some(Content::Pages(_)) => Err(ErrorCode::InvalidBlobType.into()),
            _ => Ok(()),
        }
    }

    /// Takes a snapshot of the present state, named `time`. Returns it; none if there is no present state.
    pub(crate) fn take_snapshot(&mut self, time: Moment) -> Option<&mut Version> {
        let live = self.live.as_mut()?;
        let content = match &mut live.content {
            Content::Pages(pages) => Content::Pages(pages.freeze()),
            Content::Block(content) => Content::Block(content.clone()),
        };
        let snapshot = Version { content, ..live.clone() };
        Some(self.snapshots.entry(time).or_insert(snapshot))
    }
}
