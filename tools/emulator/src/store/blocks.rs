//! The content of a block blob, and the blocks that wait for being committed.
//!
//! Committed content is one piece of memory with a list of lengths: a block is a slice of it. Ids are kept decoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// A block's id, decoded.
pub(crate) type BlockId = Vec<u8>;

/// Where a block that is to be committed is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Among the blocks that the blob is made of.
    Committed,
    /// Among those that wait.
    Uncommitted,
    /// Among those that wait, and then among the others.
    Latest,
}

/// What a block blob holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockContent {
    bytes: Bytes,
    /// Id and length of each block, in order. Content that came as one body has none.
    list: Arc<[(BlockId, usize)]>,
}

impl BlockContent {
    /// Content that came as one body.
    pub(crate) fn whole(bytes: Bytes) -> BlockContent {
        BlockContent { bytes, list: Arc::default() }
    }

    pub(crate) fn of_blocks(blocks: Vec<(BlockId, Bytes)>) -> BlockContent {
        let mut bytes = BytesMut::with_capacity(blocks.iter().map(|(_, data)| data.len()).sum());
        let mut list = Vec::with_capacity(blocks.len());
        for (id, data) in blocks {
            bytes.extend_from_slice(&data);
            list.push((id, data.len()));
        }
        BlockContent { bytes: bytes.freeze(), list: list.into() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes of `range`, cut at the end.
    pub(crate) fn slice(&self, range: std::ops::Range<u64>) -> Bytes {
        let position = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.slice(position(range.start)..position(range.end))
    }

    /// Id and length of each block, in order.
    pub(crate) fn list(&self) -> &[(BlockId, usize)] {
        &self.list
    }

    /// The blocks by their ids; of several with one id the last.
    pub(crate) fn blocks(&self) -> BTreeMap<&BlockId, Bytes> {
        let mut blocks = BTreeMap::new();
        let mut start = 0;
        for (id, length) in self.list.iter() {
            blocks.insert(id, self.bytes.slice(start..start + length));
            start += length;
        }
        blocks
    }

    /// Changes a byte in place; whoever shares the content does not see it. Returns whether there is such a byte.
    pub(super) fn change_byte(&mut self, offset: u64, change: impl FnOnce(&mut u8)) -> bool {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        let Some(byte) = usize::try_from(offset).ok().and_then(|offset| bytes.get_mut(offset)) else {
            return false;
        };
        change(byte);
        self.bytes = bytes.freeze();
        true
    }
}

/// Blocks that were sent and wait for being committed, by their ids.
pub(crate) type Staged = BTreeMap<BlockId, Bytes>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn content() -> BlockContent {
        let block = |id: u8, text: &'static str| (vec![id], Bytes::from_static(text.as_bytes()));
        BlockContent::of_blocks(vec![block(2, "ab"), block(1, "cde"), block(2, "f")])
    }

    #[test]
    fn blocks_are_slices_of_the_content() {
        let content = content();
        assert_eq!((content.len(), &content.slice(1..100)[..]), (6, &b"bcdef"[..]));
        assert_eq!(content.list(), [(vec![2], 2), (vec![1], 3), (vec![2], 1)]);
        let blocks = content.blocks();
        assert_eq!((&blocks[&vec![1]][..], &blocks[&vec![2]][..]), (&b"cde"[..], &b"f"[..]));
    }

    #[test]
    fn a_changed_byte_is_changed_in_one_copy() {
        let mut content = content();
        let shared = content.clone();
        assert!(content.change_byte(1, |byte| *byte ^= 1));
        assert!(!content.change_byte(6, |byte| *byte ^= 1));
        assert_eq!((&content.slice(0..6)[..], &shared.slice(0..6)[..]), (&b"accdef"[..], &b"abcdef"[..]));
    }
}
