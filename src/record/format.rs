//! How a record is written: frames, each with its own checksum, so that one can be read without the others, and a
//! damaged one says that it is.
//!
//! ```text
//! frame   "SFR1", kind (u8), raw length (u32), stored length (u32), CRC-64/NVME of what stands before and behind (u64),
//!         then the stored bytes: the raw ones, deflated
//! first   kind 1: the header, JSON
//! then    kind 2: number of the first leaf (u64), then runs: leaves passed over (varint), leaves (varint) * 2 + whether
//!         they hold data, and for each leaf with data its CRC-64/NVME (u64)
//! last    kind 3: leaves with data, leaves of zeros (u64 each)
//! ```
//! Numbers are little-endian; a varint has seven bits to the byte, the lowest first.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::{Deserialize, Serialize};

use super::RecordId;
use crate::azure::crc64::Crc64;
use crate::leaf::{LEAF, Sums, leaf_of};
use crate::range::PageRange;

/// Layout. A higher number is not understood.
pub const FORMAT: u32 = 1;
/// Bytes before the stored ones.
pub const FRAME_HEAD: usize = 4 + 1 + 4 + 4 + 8;
/// Bytes that a frame holds at most, before and after compression.
pub const LARGEST_FRAME: usize = 64 << 10;
const MAGIC: &[u8; 4] = b"SFR1";
/// Leaves with data in a frame: 8 MiB of a disk, and 16 KiB of checksums. All records of a chain are open at once.
const FRAME_LEAVES: usize = 2048;
/// Runs in a frame, however few leaves they have.
const FRAME_RUNS: usize = 2048;

/// What a record was begun on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// An image of zeros: a full copy.
    Zeros,
    /// The image that another record leads to.
    Record(RecordId),
    /// Something without a record: what this record does not name is not known.
    Unknown,
}

/// The first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// See [`FORMAT`].
    pub format: u32,
    /// Bytes in a leaf.
    pub leaf: u64,
    /// The snapshot that the step began at.
    pub from: Option<String>,
    /// The snapshot that it leads to.
    pub to: String,
    /// Length of the image in bytes.
    pub length: u64,
    /// What it was begun on.
    pub basis: Basis,
}

/// Neighbouring leaves of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of the first leaf.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Their checksums.
    pub sums: Sums,
}

/// A frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first one.
    Header(Box<Header>),
    /// Runs, ascending.
    Leaves(Vec<Run>),
    /// The last one.
    End {
        /// Leaves with data.
        data: u64,
        /// Leaves of zeros.
        zeros: u64,
    },
}

/// Turns what passes into frames.
#[derive(Debug, Default)]
pub struct Encoder {
    raw: Vec<u8>,
    runs: usize,
    leaves: usize,
    /// Leaves with the checksum of the one before.
    repeated: usize,
    /// Where the run ended that was written last.
    next: u64,
    data: u64,
    zeros: u64,
}

impl Encoder {
    /// The header's frame.
    pub fn header(header: &Header, out: &mut Vec<u8>) {
        // A struct of numbers and strings can always be written.
        let raw = serde_json::to_vec(header).unwrap_or_default();
        frame(1, &raw, &deflate(&raw), out);
    }

    /// Takes in the leaves of `range`, which follows what was taken in before. Appends the frames that are full.
    pub fn push(&mut self, range: PageRange, sums: &Sums, out: &mut Vec<u8>) {
        let first = leaf_of(range.start());
        match sums {
            Sums::Zeros => self.run(first, range.end().div_ceil(LEAF) - first, None, out),
            Sums::Leaves(leaves) => {
                let zero = Crc64::of_zeros(LEAF).value();
                let mut at = first;
                for same in leaves.chunk_by(|a, b| (*a == zero) == (*b == zero)) {
                    if same[0] == zero {
                        self.run(at, same.len() as u64, None, out);
                    } else {
                        for part in same.chunks(FRAME_LEAVES) {
                            self.run(at, part.len() as u64, Some(part), out);
                            at += part.len() as u64;
                        }
                        continue;
                    }
                    at += same.len() as u64;
                }
            }
        }
    }

    /// Appends the frame that is not full yet.
    pub fn cut(&mut self, out: &mut Vec<u8>) {
        if self.runs > 0 {
            let stored = if self.would_shrink() { deflate(&self.raw) } else { store(&self.raw) };
            frame(2, &self.raw, &stored, out);
        }
        self.raw.clear();
        (self.runs, self.leaves, self.repeated) = (0, 0, 0);
    }

    /// Bytes that are not in a frame yet.
    pub fn pending(&self) -> usize {
        self.raw.len()
    }

    /// Appends the last frames.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.cut(out);
        let raw = [self.data.to_le_bytes(), self.zeros.to_le_bytes()].concat();
        frame(3, &raw, &deflate(&raw), out);
    }

    /// Checksums that differ do not get shorter, and trying was most of the work of writing a record.
    fn would_shrink(&self) -> bool {
        let mostly_checksums = self.leaves * 8 > self.raw.len() / 2;
        let mostly_different = self.repeated < self.leaves / 8;
        !(mostly_checksums && mostly_different)
    }

    fn run(&mut self, first: u64, count: u64, sums: Option<&[u64]>, out: &mut Vec<u8>) {
        if self.leaves + sums.map_or(0, <[u64]>::len) > FRAME_LEAVES || self.runs >= FRAME_RUNS {
            self.cut(out);
        }
        if self.runs == 0 {
            self.raw.extend(first.to_le_bytes());
            self.next = first;
        }
        put_varint(&mut self.raw, first - self.next);
        put_varint(&mut self.raw, count * 2 + u64::from(sums.is_some()));
        let mut before = None;
        for sum in sums.unwrap_or_default() {
            self.raw.extend(sum.to_le_bytes());
            self.repeated += usize::from(before == Some(sum));
            before = Some(sum);
        }
        self.next = first + count;
        self.runs += 1;
        self.leaves += sums.map_or(0, <[u64]>::len);
        *(if sums.is_some() { &mut self.data } else { &mut self.zeros }) += count;
    }
}

fn deflate(raw: &[u8]) -> Vec<u8> {
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory does not fail.
    let _ = deflated.write_all(raw);
    deflated.finish().unwrap_or_default()
}

/// The bytes as they are, which in deflate is a block too: the last one, its length, and the length's complement (RFC
/// 1951, 3.2.4).
fn store(raw: &[u8]) -> Vec<u8> {
    const LAST_AND_STORED: u8 = 1;
    let Ok(length) = u16::try_from(raw.len()) else { return deflate(raw) };
    let [low, high] = length.to_le_bytes();
    [&[LAST_AND_STORED, low, high, !low, !high], raw].concat()
}

fn frame(kind: u8, raw: &[u8], stored: &[u8], out: &mut Vec<u8>) {
    let mut head = MAGIC.to_vec();
    head.push(kind);
    head.extend((u32::try_from(raw.len()).unwrap_or(u32::MAX)).to_le_bytes());
    head.extend((u32::try_from(stored.len()).unwrap_or(u32::MAX)).to_le_bytes());
    let sum = Crc64::of(&head).join(Crc64::of(stored)).value();
    out.extend(head);
    out.extend(sum.to_le_bytes());
    out.extend(stored);
}

/// Reads the frame at the start of `bytes`: it, and how many bytes it takes. `None` when more bytes are needed.
///
/// # Errors
/// What is wrong with it.
pub fn read_frame(bytes: &[u8]) -> Result<Option<(Frame, usize)>, String> {
    let Some((head, rest)) = bytes.split_at_checked(FRAME_HEAD) else { return Ok(None) };
    if &head[..4] != MAGIC {
        return Err("no frame begins where one must".to_owned());
    }
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (raw_length, stored_length) = (number(5), number(9));
    if raw_length > LARGEST_FRAME || stored_length > LARGEST_FRAME {
        return Err(format!("a frame claims to hold {raw_length} bytes"));
    }
    let Some((stored, _)) = rest.split_at_checked(stored_length) else { return Ok(None) };
    let sum = Crc64::of(&head[..13]).join(Crc64::of(stored)).value();
    if sum.to_le_bytes() != head[13..] {
        return Err("the checksum of a frame is wrong".to_owned());
    }
    let mut raw = Vec::new();
    let limit = raw_length as u64 + 1;
    DeflateDecoder::new(stored).take(limit).read_to_end(&mut raw).map_err(|error| error.to_string())?;
    if raw.len() != raw_length {
        return Err("a frame does not hold as many bytes as it claims".to_owned());
    }
    let frame = match head[4] {
        1 => Frame::Header(Box::new(read_header(&raw)?)),
        2 => Frame::Leaves(read_runs(&raw)?),
        3 => {
            let mut rest = &raw[..];
            let end = Frame::End { data: take_number(&mut rest)?, zeros: take_number(&mut rest)? };
            if rest.is_empty() { end } else { return Err("the last frame is too long".to_owned()) }
        }
        other => return Err(format!("frames of kind {other} are not known")),
    };
    Ok(Some((frame, FRAME_HEAD + stored_length)))
}

fn read_header(raw: &[u8]) -> Result<Header, String> {
    let header: Header = serde_json::from_slice(raw).map_err(|error| format!("its header: {error}"))?;
    if header.format != FORMAT || header.leaf != LEAF {
        return Err(format!(
            "its format is {}; this version of snapferry reads format {FORMAT}",
            header.format
        ));
    }
    Ok(header)
}

fn read_runs(raw: &[u8]) -> Result<Vec<Run>, String> {
    const TOO_LARGE: &str = "a run ends behind every image";
    let mut rest = raw;
    let mut next = take_number(&mut rest)?;
    let mut runs = Vec::new();
    while !rest.is_empty() {
        let first = next.checked_add(take_varint(&mut rest)?).ok_or(TOO_LARGE)?;
        let size = take_varint(&mut rest)?;
        let count = size / 2;
        next = first.checked_add(count).filter(|end| end.checked_mul(LEAF).is_some()).ok_or(TOO_LARGE)?;
        let sums = if size % 2 == 0 {
            Sums::Zeros
        } else if count <= (rest.len() / 8) as u64 {
            Sums::Leaves((0..count).map(|_| take_number(&mut rest)).collect::<Result<_, _>>()?)
        } else {
            return Err("a run lacks checksums".to_owned());
        };
        if count == 0 {
            return Err("a run is empty".to_owned());
        }
        runs.push(Run { first, count, sums });
    }
    Ok(runs)
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, after)) = rest.split_first() else { break };
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number is cut off, or too long".to_owned())
}

fn take_number(rest: &mut &[u8]) -> Result<u64, String> {
    let (number, after) = rest.split_first_chunk::<8>().ok_or("a number is cut off")?;
    *rest = after;
    Ok(u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<Frame>, String> {
        let (mut frames, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (frame, taken) = read_frame(&bytes[at..])?.ok_or("cut")?;
            frames.push(frame);
            at += taken;
        }
        Ok(frames)
    }

    fn passed() -> impl Strategy<Value = Vec<(u64, Vec<u64>, bool)>> {
        let zero = Crc64::of_zeros(LEAF).value();
        let sum = prop_oneof![Just(zero), any::<u64>()];
        proptest::collection::vec((0_u64..50, proptest::collection::vec(sum, 1..300), any::<bool>()), 0..40)
    }

    fn write(passed: &[(u64, Vec<u64>, bool)]) -> (Vec<u8>, Vec<Option<u64>>) {
        let zero = Crc64::of_zeros(LEAF).value();
        let (mut encoder, mut out, mut at, mut model) = (Encoder::default(), Vec::new(), 0, Vec::new());
        for (gap, leaves, zeros) in passed {
            at += gap;
            model.resize(at as usize, None);
            let range = PageRange::new(at * LEAF, (at + leaves.len() as u64) * LEAF).unwrap();
            let sums = if *zeros { Sums::Zeros } else { Sums::Leaves(leaves.clone()) };
            encoder.push(range, &sums, &mut out);
            model.extend(leaves.iter().map(|sum| Some(if *zeros { zero } else { *sum })));
            at += leaves.len() as u64;
        }
        encoder.finish(&mut out);
        (out, model)
    }

    proptest! {
        #[test]
        fn what_passed_is_read_back(passed in passed()) {
            let (bytes, model) = write(&passed);
            let zero = Crc64::of_zeros(LEAF).value();
            let mut read = vec![None; model.len()];
            let frames = all(&bytes).unwrap();
            for run in frames.iter().filter_map(|frame| if let Frame::Leaves(runs) = frame { Some(runs) } else { None }).flatten() {
                for i in 0..run.count {
                    let sum = match &run.sums { Sums::Zeros => zero, Sums::Leaves(sums) => sums[i as usize] };
                    read[(run.first + i) as usize] = Some(sum);
                }
            }
            prop_assert_eq!(&read, &model);
            let zeros = model.iter().flatten().filter(|sum| **sum == zero).count() as u64;
            let data = model.iter().flatten().count() as u64 - zeros;
            prop_assert_eq!(frames.last(), Some(&Frame::End { data, zeros }));
        }

        #[test]
        fn stored_bytes_are_what_deflate_reads(raw in proptest::collection::vec(any::<u8>(), 0..40_000)) {
            let mut read = Vec::new();
            DeflateDecoder::new(&store(&raw)[..]).read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, raw);
        }

        #[test]
        fn every_flipped_bit_of_a_record_is_noticed(passed in passed(), at: prop::sample::Index, bit in 0_u8..8) {
            let (mut bytes, _) = write(&passed);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(all(&bytes).is_err());
        }

        #[test]
        fn nonsense_is_an_error_and_never_a_panic(mut bytes: Vec<u8>) {
            let _ = read_frame(&bytes);
            let _ = read_runs(&bytes);
            let mut framed = Vec::new();
            frame(2, &bytes, &deflate(&bytes), &mut framed);
            let _ = read_frame(&framed);
            framed.clear();
            frame(2, &bytes, &store(&bytes), &mut framed);
            let _ = read_frame(&framed);
            bytes.splice(0..0, *MAGIC);
            let _ = read_frame(&bytes);
        }
    }
}
