//! What is restored is held against the record of the point, from the bytes that pass: rot is not handed on as a disk.

use std::sync::{Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};

use super::point::Found;
use crate::azure::Role;
use crate::azure::crc64::Crc64;
use crate::azure::failure::CallResult;
use crate::base::lease::Loss;
use crate::base::look;
use crate::copy::chunk::local;
use crate::copy::frontier::{Checkpoint, Written};
use crate::copy::keeper::{Backlog, Keeper};
use crate::error::{Error, ErrorKind, Result};
use crate::leaf::{Sums, leaf_of, range_of};
use crate::range::PageRange;
use crate::record::{Chain, digest};

/// Bytes that are looked at in one piece.
const WINDOW: u64 = 16 << 20;
/// Leaves that wait to be looked at before that is due, and before no chunk starts.
const DUE: usize = 128 << 10;
const FULL: usize = 1 << 20;

/// The record of a point, while the point is restored.
pub(crate) struct Check {
    on: String,
    length: u64,
    /// Whether what does not pass must be zeros.
    gaps_are_zeros: bool,
    waiting: Mutex<Waiting>,
    state: tokio::sync::Mutex<State>,
}

/// What passed and was not looked at yet.
#[derive(Default)]
struct Waiting {
    ranges: Vec<(PageRange, Option<Sums>)>,
    leaves: usize,
}

struct State {
    /// `None` once the record turned out to be damaged: it says nothing more.
    chain: Option<Chain>,
    /// Everything below was looked at.
    next: u64,
}

impl Check {
    /// Opens the record of the point, for a restore that begins at `from`. `None`, with a warning, where there is none that
    /// can be read.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`] when the metadata of the point is not what was written: then nobody knows what it is.
    pub(crate) async fn open(found: &Found, from: u64, gaps_are_zeros: bool) -> Result<Option<Self>> {
        let metadata = look(&found.blob).await?.properties.map(|properties| properties.metadata);
        if metadata.as_ref().and_then(digest::is_right) == Some(false) {
            return Err(Error::new(
                ErrorKind::Corruption,
                "restore the point",
                "its metadata is not what was written when it was sealed",
            )
            .on(found.blob.resource())
            .next(
                "restore another point (snapferry points --target <URL>), or this one as it is: --unchecked",
            ));
        }
        let Some(record) = &found.marker.record else {
            tracing::warn!("the point has no record: what is restored is checked on its way only");
            return Ok(None);
        };
        let chain = match Chain::open(&found.base, record).await {
            Ok(chain) => chain,
            Err(error) if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::PermissionMissing) => {
                tracing::warn!(
                    why = error.why(),
                    "what is restored is not held against the record of the point"
                );
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            on: found.blob.resource().to_string(),
            length: found.marker.length,
            gaps_are_zeros,
            waiting: Mutex::default(),
            state: tokio::sync::Mutex::new(State { chain: Some(chain), next: from }),
        }))
    }

    /// Looks at the rest, up to `until`, and at the end of the records.
    pub(crate) async fn finish(&self, until: u64) -> CallResult<()> {
        self.catch_up().await?;
        let mut state = self.state.lock().await;
        self.check_gap(&mut state, until).await?;
        match state.chain.take() {
            Some(chain) => self.unless_damaged(chain.finish().await).map(drop),
            None => Ok(()),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn catch_up(&self) -> CallResult<()> {
        let passed = std::mem::take(&mut *self.waiting());
        let mut state = self.state.lock().await;
        for (range, sums) in passed.ranges {
            self.check_gap(&mut state, range.start()).await?;
            let Some(sums) = &sums else {
                // Restores read every byte: what did not pass cannot be vouched for.
                return Err(local(Role::Source, &self.on, unseen(range)));
            };
            self.check(&mut state, range, sums).await?;
            state.next = range.end();
        }
        Ok(())
    }

    async fn check_gap(&self, state: &mut State, until: u64) -> CallResult<()> {
        match PageRange::new(state.next, until) {
            Ok(gap) if self.gaps_are_zeros => self.check(state, gap, &Sums::Zeros).await,
            _ => Ok(()),
        }
    }

    async fn check(&self, state: &mut State, range: PageRange, sums: &Sums) -> CallResult<()> {
        let mut rest = Some(range);
        while let (Some(part), Some(chain)) = (rest, &mut state.chain) {
            let (window, after) = part.split(part.start() + WINDOW);
            rest = after;
            let window = window.unwrap_or(part);
            let Some(expected) = self.unless_damaged(chain.window(window).await)? else {
                state.chain = None;
                return Ok(());
            };
            for (number, expect) in (leaf_of(window.start())..).zip(expected) {
                let Some(leaf) = range_of(number, self.length) else { break };
                let zeros = Crc64::of_zeros(leaf.len());
                let index = usize::try_from(number - leaf_of(range.start())).unwrap_or(usize::MAX);
                let sum = match sums {
                    Sums::Zeros => zeros,
                    Sums::Leaves(sums) => {
                        sums.get(index).map_or(zeros, |sum| Crc64::from_parts(*sum, leaf.len()))
                    }
                };
                if expect.is_met_by(sum, leaf.len()) == Some(false) {
                    return Err(local(Role::Source, &self.on, self.differs(leaf)));
                }
            }
        }
        Ok(())
    }

    /// `None`, with a warning, for a record that is damaged: which says nothing about the point.
    fn unless_damaged<T>(&self, read: Result<T>) -> CallResult<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                tracing::warn!(
                    why = error.why(),
                    "what is restored is not held against the record of the point any more"
                );
                Ok(None)
            }
            Err(error) => Err(local(Role::Source, &self.on, error)),
        }
    }

    fn differs(&self, leaf: PageRange) -> Error {
        Error::new(ErrorKind::Differs, "restore the point", format!("it is not what its record says at bytes {leaf}"))
            .on(&self.on)
            .next("find out which of the two is wrong (snapferry verify --target <URL> --point <ID> --source <SAS URL>), restore another point, or this one as it is: --unchecked")
    }
}

fn unseen(range: PageRange) -> Error {
    let why = format!("bytes {range} did not pass this machine");
    Error::new(ErrorKind::Internal, "hold what is restored against the record of the point", why)
}

/// A keeper that looks at what passes, too.
pub(crate) struct Checked<'a> {
    /// Who keeps the target.
    pub(crate) inner: &'a dyn Keeper,
    /// The record, where there is one.
    pub(crate) check: Option<&'a Check>,
}

impl Keeper for Checked<'_> {
    fn lost(&self) -> BoxFuture<'_, Loss> {
        self.inner.lost()
    }

    fn passed(&self, written: &Written) {
        self.inner.passed(written);
        if let Some(check) = self.check {
            let mut waiting = check.waiting();
            // A run of zeros takes no memory, however long it is.
            waiting.leaves += if let Some(Sums::Leaves(sums)) = &written.sums { sums.len() } else { 1 };
            waiting.ranges.push((written.range, written.sums.clone()));
        }
    }

    fn backlog(&self) -> Backlog {
        let ours = match self.check.map_or(0, |check| check.waiting().leaves) {
            waiting if waiting >= FULL => Backlog::Full,
            waiting if waiting >= DUE => Backlog::Due,
            _ => Backlog::None,
        };
        ours.max(self.inner.backlog())
    }

    /// Only what is right is written down as done.
    fn note(&self, checkpoint: Checkpoint) -> BoxFuture<'_, CallResult<u64>> {
        let noted = self.inner.note(checkpoint);
        async move {
            if let Some(check) = self.check {
                check.catch_up().await?;
            }
            noted.await
        }
        .boxed()
    }
}
