//! The order behind the disorder: chunks finish in any order, the frontier is how far *everything* is written.
//!
//! The frontier feeds the checkpoint, so it may lag behind the writes and never lead. It also joins the
//! checksums of the chunks, in order, into the step's digest: the CRC-64/NVME of an image of the point's size
//! in which everything that the step did not write is zero. For a full copy that is the CRC of the whole image. Where the
//! service pulled a chunk by itself and did not tell its CRC, there is no digest from there on.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::azure::crc64::Crc64;
use crate::leaf::Sums;
use crate::range::PageRange;

/// What became of chunks: of one, or of all below a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Chunks written.
    pub chunks: u64,
    /// Bytes in those chunks.
    pub bytes: u64,
    /// Bytes that went to the target, each once however often it was tried.
    pub bytes_sent: u64,
    /// Of those, bytes that the service pulled from the source by itself: they did not pass this machine.
    pub bytes_pulled: u64,
    /// Bytes that are zero in the source and were cleared, or left as the zeros they were, at the target.
    pub bytes_zero: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        self.bytes_sent += other.bytes_sent;
        self.bytes_pulled += other.bytes_pulled;
        self.bytes_zero += other.bytes_zero;
    }
}

/// Everything below an offset is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything of the plan below this byte is written.
    pub offset: u64,
    /// What was done below it, over all runs of the step.
    pub counts: Counts,
    /// Digest of the image below it; covers exactly `offset` bytes. `None` where nobody knows the checksum of a part.
    pub digest: Option<Crc64>,
}

impl Default for Checkpoint {
    /// Before the first byte.
    fn default() -> Self {
        Self { offset: 0, counts: Counts::default(), digest: Some(Crc64::default()) }
    }
}

/// A chunk that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where.
    pub range: PageRange,
    /// Checksum of its bytes, zeros included; `None` where they did not pass this machine and the service did not tell.
    pub crc: Option<Crc64>,
    /// Checksums of its leaves; `None` where the bytes did not pass this machine.
    pub sums: Option<Sums>,
    /// What it took.
    pub counts: Counts,
}

/// Collects finished chunks by their place in the plan.
#[derive(Debug)]
pub struct Frontier {
    next: u64,
    waiting: BTreeMap<u64, Written>,
    reached: Checkpoint,
}

impl Frontier {
    /// A frontier that goes on from `checkpoint`.
    pub fn new(checkpoint: Checkpoint) -> Self {
        Self { next: 0, waiting: BTreeMap::new(), reached: checkpoint }
    }

    /// The chunk with this number (counted from zero in the order of the plan) is written. Returns what the frontier moved
    /// over, in order.
    pub fn complete(&mut self, number: u64, written: Written) -> Vec<Written> {
        self.waiting.insert(number, written);
        let mut passed = Vec::new();
        while let Some(written) = self.waiting.remove(&self.next) {
            self.next += 1;
            let gap = written.range.start().saturating_sub(self.reached.offset);
            let before = self.reached.digest.map(|digest| digest.join(Crc64::of_zeros(gap)));
            self.reached.digest = before.zip(written.crc).map(|(before, crc)| before.join(crc));
            self.reached.offset = written.range.end();
            self.reached.counts += written.counts;
            passed.push(written);
        }
        passed
    }

    /// Number of the first chunk that is not written yet.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How far everything is written.
    pub fn checkpoint(&self) -> Checkpoint {
        self.reached
    }

    /// The checkpoint at the end of an image of `length` bytes, or `None` while a chunk is missing.
    pub fn finish(&self, chunks: u64, length: u64) -> Option<Checkpoint> {
        if self.next != chunks || !self.waiting.is_empty() || self.reached.offset > length {
            return None;
        }
        let rest = length - self.reached.offset;
        let digest = self.reached.digest.map(|digest| digest.join(Crc64::of_zeros(rest)));
        Some(Checkpoint { offset: length, digest, ..self.reached })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn written(start: u64, bytes: &[u8]) -> Written {
        let len = bytes.len() as u64;
        Written {
            range: PageRange::new(start, start + len).unwrap(),
            crc: Some(Crc64::of(bytes)),
            sums: Some(Sums::Zeros),
            counts: Counts { chunks: 1, bytes: len, bytes_sent: len, ..Counts::default() },
        }
    }

    proptest! {
        #[test]
        fn in_whatever_order_chunks_finish_the_frontier_never_leads(
            order in Just((0_u64..12).collect::<Vec<_>>()).prop_shuffle(), resume_at in 0_usize..12
        ) {
            let chunks: Vec<_> = (0..12_u8).map(|i| written(u64::from(i) * 2048, &[i + 1; 1024])).collect();
            let mut image = vec![0; 12 * 2048];
            for (i, chunk) in chunks.iter().enumerate() {
                let at = usize::try_from(chunk.range.start()).unwrap();
                image[at..at + 1024].fill(u8::try_from(i + 1).unwrap());
            }
            let mut frontier = Frontier::new(Checkpoint::default());
            let mut done = std::collections::HashSet::new();
            for number in order {
                frontier.complete(number, chunks[usize::try_from(number).unwrap()].clone());
                done.insert(number);
                let reached = frontier.checkpoint().offset;
                for (i, chunk) in chunks.iter().enumerate() {
                    prop_assert!(chunk.range.end() > reached || done.contains(&(i as u64)));
                }
            }
            let whole = frontier.finish(12, image.len() as u64).unwrap();
            prop_assert_eq!(whole.digest, Some(Crc64::of(&image)));

            // A second run that goes on from a checkpoint comes to the same sums.
            let mut first = Frontier::new(Checkpoint::default());
            (0..resume_at).for_each(|i| drop(first.complete(i as u64, chunks[i].clone())));
            let mut second = Frontier::new(first.checkpoint());
            chunks[resume_at..].iter().enumerate().for_each(|(i, chunk)| drop(second.complete(i as u64, chunk.clone())));
            prop_assert_eq!(second.finish(12 - resume_at as u64, image.len() as u64).unwrap(), whole);
        }
    }

    #[test]
    fn one_chunk_of_which_nobody_knows_the_checksum_leaves_no_digest() {
        let unknown = Written { crc: None, sums: None, ..written(512, &[1; 512]) };
        let mut frontier = Frontier::new(Checkpoint::default());
        frontier.complete(0, written(0, &[1; 512]));
        assert!(frontier.checkpoint().digest.is_some());
        frontier.complete(1, unknown);
        frontier.complete(2, written(1024, &[1; 512]));
        let end = frontier.finish(3, 4096).unwrap();
        assert_eq!((end.offset, end.digest), (4096, None));
        assert_eq!(
            Frontier::new(end).finish(0, 4096).unwrap().digest,
            None,
            "nor has a run that goes on from there"
        );
    }

    #[test]
    fn a_missing_chunk_is_never_finished() {
        let mut frontier = Frontier::new(Checkpoint::default());
        frontier.complete(1, written(1024, &[1; 512]));
        assert_eq!(frontier.finish(2, 4096), None);
        assert_eq!(frontier.finish(1, 4096), None);
        frontier.complete(0, written(0, &[1; 512]));
        assert!(frontier.finish(2, 4096).is_some());
        assert_eq!(frontier.finish(3, 4096), None);
    }
}
