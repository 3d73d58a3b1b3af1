//! What the leaves of a point must be: the records of its steps, laid over each other.

use std::collections::VecDeque;

use super::RecordId;
use super::format::{Basis, Frame, Header, Run};
use super::reader::Reader;
use crate::azure::crc64::Crc64;
use crate::azure::{BlockBlob, PageBlob};
use crate::error::{Error, ErrorKind, Result};
use crate::leaf::{LEAF, Sums, leaf_of};
use crate::range::PageRange;

/// Records that one point may lead back to: more is a circle, or a chain that nobody would read.
const MOST_RECORDS: usize = 10_000;

/// What a leaf must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No record says it.
    Unknown,
    /// Zeros.
    Zeros,
    /// Bytes with this CRC-64/NVME.
    Sum(u64),
}

impl Expect {
    /// Whether a leaf with this checksum is right; `None` when nobody knows.
    pub fn is_met_by(self, sum: Crc64, length: u64) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Zeros => Some(sum == Crc64::of_zeros(length)),
            Self::Sum(value) => Some(sum.value() == value),
        }
    }
}

/// The records of a point, newest first in name, oldest first when they are laid over each other.
pub struct Chain {
    layers: Vec<Layer>,
    /// How many of the newest are of one step: a run that goes on begins a record of its own.
    parts_of_step: usize,
    /// Whether the oldest began on zeros.
    is_complete: bool,
}

/// One record while it is read.
struct Layer {
    reader: Reader,
    /// Runs that were read and lie ahead.
    runs: VecDeque<Run>,
    ended: bool,
    /// Where its image ended: behind that everything was zero, or is in a newer record.
    next: u64,
}

impl Chain {
    /// Opens the records of a point of `base` that carries `record`.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`] when one of them is missing or damaged.
    pub async fn open(base: &PageBlob, record: &RecordId) -> Result<Self> {
        let mut layers = Vec::new();
        let mut next = Some(record.clone());
        let (mut is_complete, mut step, mut parts_of_step) = (false, None, 0);
        while let Some(id) = next.take() {
            let blob = blob_of(base, &id)?;
            let mut reader = Reader::new(blob, id);
            let header = header_of(&mut reader).await?;
            let of_this = (header.from, header.to);
            if *step.get_or_insert_with(|| of_this.clone()) == of_this && parts_of_step == layers.len() {
                parts_of_step += 1;
            }
            match header.basis {
                Basis::Zeros => is_complete = true,
                Basis::Record(before) if layers.len() < MOST_RECORDS => next = Some(before),
                Basis::Record(_) => {
                    return Err(reader.damaged("it leads back to more records than there can be"));
                }
                Basis::Unknown => {}
            }
            layers.push(Layer { reader, runs: VecDeque::new(), ended: false, next: 0 });
        }
        layers.reverse();
        Ok(Self { layers, parts_of_step, is_complete })
    }

    /// Whether every leaf is known.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What the leaves of `window` must be. Windows are asked for in ascending order.
    pub async fn window(&mut self, window: PageRange) -> Result<Vec<Expect>> {
        Ok(self.window_of_step(window).await?.0)
    }

    /// What the leaves of `window` must be, and whether the point's own step wrote them.
    pub async fn window_of_step(&mut self, window: PageRange) -> Result<(Vec<Expect>, Vec<bool>)> {
        let first = leaf_of(window.start());
        let count = usize::try_from(window.end().div_ceil(LEAF) - first).unwrap_or_default();
        let unknown = if self.is_complete { Expect::Zeros } else { Expect::Unknown };
        let mut expected = vec![unknown; count];
        let mut written = vec![false; count];
        let older = self.layers.len() - self.parts_of_step;
        let (older, of_this_step) = self.layers.split_at_mut(older);
        for layer in older {
            layer.lay_over(&mut expected, first).await?;
        }
        let mut of_step = vec![Expect::Unknown; count];
        for layer in of_this_step {
            layer.lay_over(&mut of_step, first).await?;
        }
        for ((expect, written), of_step) in expected.iter_mut().zip(&mut written).zip(of_step) {
            if of_step != Expect::Unknown {
                *expect = of_step;
                *written = true;
            }
        }
        Ok((expected, written))
    }

    /// Reads what was not asked for, so that damage anywhere in the records is seen.
    pub async fn finish(mut self) -> Result<()> {
        for layer in &mut self.layers {
            layer.runs.clear();
            while layer.read().await? {
                layer.runs.clear();
            }
        }
        Ok(())
    }
}

impl Layer {
    async fn lay_over(&mut self, expected: &mut [Expect], first: u64) -> Result<()> {
        let end = first + expected.len() as u64;
        while !self.ended && self.runs.back().is_none_or(|run| run.first + run.count < end) {
            self.read().await?;
            // What lies before the window is not asked for any more: between two windows there may be much of it.
            self.forget_before(first);
        }
        for run in &self.runs {
            for number in run.first.max(first)..(run.first + run.count).min(end) {
                let place = usize::try_from(number - first).unwrap_or(usize::MAX);
                let expect = match &run.sums {
                    Sums::Zeros => Some(Expect::Zeros),
                    Sums::Leaves(sums) => {
                        let index = usize::try_from(number - run.first).unwrap_or(usize::MAX);
                        sums.get(index).map(|sum| Expect::Sum(*sum))
                    }
                };
                if let (Some(place), Some(expect)) = (expected.get_mut(place), expect) {
                    *place = expect;
                }
            }
        }
        self.forget_before(end);
        Ok(())
    }

    fn forget_before(&mut self, leaf: u64) {
        while self.runs.front().is_some_and(|run| run.first + run.count <= leaf) {
            self.runs.pop_front();
        }
    }

    /// Reads a frame; `false` at the end.
    async fn read(&mut self) -> Result<bool> {
        match self.reader.next().await? {
            Some(Frame::Leaves(runs)) => {
                if runs.first().is_some_and(|run| run.first < self.next) {
                    return Err(self.reader.damaged("its leaves are not in order"));
                }
                self.next = runs.last().map_or(self.next, |run| run.first + run.count);
                self.runs.extend(runs);
                Ok(true)
            }
            Some(Frame::End { .. }) => Ok(true),
            Some(Frame::Header(_)) => Err(self.reader.damaged("it has two headers")),
            None => {
                self.ended = true;
                Ok(false)
            }
        }
    }
}

async fn header_of(reader: &mut Reader) -> Result<Header> {
    match reader.next().await? {
        Some(Frame::Header(header)) => Ok(*header),
        _ => Err(reader.damaged("it has no header")),
    }
}

fn blob_of(base: &PageBlob, id: &RecordId) -> Result<BlockBlob> {
    base.beside(&id.name)?.ok_or_else(|| {
        Error::new(
            ErrorKind::PermissionMissing,
            "read the record of a point",
            "the SAS is for the base blob alone",
        )
        .on(base.resource())
        .next("use a SAS of the container or of the account, or leave it out and sign in: az login")
    })
}
