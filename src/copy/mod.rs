//! Runs a plan: a bounded window of chunks, each read -> check -> write, and a checkpoint every few seconds.
//!
//! ```text
//! listing ──extents──> planner ──chunks──> window ──┬─ chunk ─┐
//!    (runs ahead, bounded)          (AIMD, budget)  ├─ chunk ─┼──> frontier ──> checkpoint (base blob)
//!                                                   └─ chunk ─┘
//! ```
//!
//! **Consistency.** A chunk is complete when all of its writes were acknowledged with a matching checksum. The
//! frontier is below every chunk that is not. Only the frontier is written down, so a run that goes on from a
//! checkpoint repeats at most the window and what was acknowledged since.
//!
//! **Failure.** The first chunk that fails for good ends the run: no further chunk starts, those in flight are
//! dropped. Writes that were already sent may still land; they carry bytes of the source and the fence of this
//! run, so they are either right or refused.
//!
//! **Cancellation.** The same, after the chunks in flight were given a moment to finish.
//!
//! **Memory.** The window holds at most [`CopyOptions::memory`] bytes of chunks; the listing ahead of it is
//! bounded by itself (see `diff`).

pub mod chunk;
pub mod frontier;
pub mod keeper;
pub mod pull;
mod rates;
mod readers;
pub mod scan;
pub mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::azure::LARGEST_CHUNK;
use crate::azure::failure::{CallError, CallResult, Cause};
use crate::base::lease::Loss;
use crate::budget::Room;
use crate::diff::Listing;
use crate::error::ErrorKind;
use crate::measure::hold::Hold;
use crate::plan::{Chunk, Planner, Totals};
use crate::progress::Progress;
use crate::range::ExtentKind;

use chunk::Route;
use frontier::{Checkpoint, Frontier, Written};
use keeper::{Backlog, Keeper};
use rates::Look;
use readers::Readers;
use window::Window;

/// Chunks that may be written ahead of one that is still being tried: what the frontier remembers of them.
const MOST_AHEAD: u64 = 64 << 10;

/// How a plan is run.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Most chunks in flight.
    pub concurrency: usize,
    /// Most bytes of chunks in flight.
    pub memory: u64,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// After a cancellation, time for the chunks in flight.
    pub grace: Duration,
}

/// What a process takes besides chunks: the program, its threads, page lists, records, the buffers of its connections.
const BESIDES: u64 = 64 << 20;

/// The least memory that a process copies in, in bytes.
pub const LEAST_MEMORY: u64 = 80 << 20;

impl CopyOptions {
    /// The bytes of chunks that may be in flight in a process which is to take at most `memory` bytes in all. Each stands
    /// in memory once, and those that are being sent in part a second time, in the buffers of their connections.
    pub fn chunks_within(memory: u64) -> u64 {
        (memory.saturating_sub(BESIDES) / 4 * 3).max(LARGEST_CHUNK)
    }

    /// What a process takes with so many bytes of chunks in flight.
    pub fn memory_around(chunks: u64) -> u64 {
        BESIDES.saturating_add(chunks.div_ceil(3).saturating_mul(4))
    }
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            concurrency: 256,
            memory: Self::chunks_within(256 << 20),
            checkpoint_every: Duration::from_secs(5),
            grace: Duration::from_secs(5),
        }
    }
}

/// A plan that was run to its end.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// What was planned in this run.
    pub totals: Totals,
    /// What is written, over all runs of the step.
    pub checkpoint: Checkpoint,
}

/// Why a run stopped before its end.
#[derive(Debug)]
pub enum Stop {
    /// A call failed for good.
    Call(CallError),
    /// The lease is gone.
    Lost(Loss),
    /// The user ended it.
    Cancelled,
    /// What was written is not what was planned: nothing is sealed.
    Miscounted(String),
}

impl Stop {
    /// Whether the page list itself is not to be believed.
    pub fn is_distrust(&self) -> bool {
        match self {
            Self::Miscounted(_) => true,
            Self::Call(error) => {
                matches!(error.cause, Cause::Protocol(_)) && error.call.starts_with("Get Page Ranges")
            }
            Self::Lost(_) | Self::Cancelled => false,
        }
    }
}

impl Stop {
    /// Whether something on this machine ended it, for this reason.
    pub(crate) fn is_of(&self, kind: ErrorKind) -> bool {
        matches!(self, Self::Call(CallError { cause: Cause::Local(error), .. }) if error.kind() == kind)
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// A plan while it is run.
pub struct Run<'a> {
    keeper: &'a dyn Keeper,
    route: Arc<Route>,
    options: CopyOptions,
    progress: &'a Progress,
    window: Window,
    frontier: Frontier,
    planned: VecDeque<Chunk>,
    planner: Option<Planner>,
    rates: Look,
    totals: Totals,
    chunks: u64,
    in_flight: JoinSet<Outcome>,
    readers: Readers,
    /// Memory for the next chunk, out of what runs share.
    room: Option<Room>,
    /// The turn in which it comes.
    asked: FuturesUnordered<BoxFuture<'static, Room>>,
    /// Whether checkpoints are written down.
    notes: bool,
    /// Whether pages were cleared because the list said so.
    has_cleared: bool,
    /// The checkpoint that is being written down: at most one.
    noting: FuturesUnordered<BoxFuture<'a, CallResult<u64>>>,
}

impl<'a> Run<'a> {
    /// A run that goes on from `checkpoint`.
    pub fn new(
        keeper: &'a dyn Keeper,
        route: Route,
        planner: Planner,
        options: CopyOptions,
        checkpoint: Checkpoint,
        progress: &'a Progress,
    ) -> Self {
        Self {
            keeper,
            window: Window::new(options.concurrency, options.memory, route.sink.call_timeout())
                .since(progress.signs()),
            route: Arc::new(route),
            options,
            progress,
            frontier: Frontier::new(checkpoint),
            planned: VecDeque::new(),
            planner: Some(planner),
            rates: Look::new(progress),
            totals: Totals::default(),
            chunks: 0,
            in_flight: JoinSet::new(),
            readers: Readers::default(),
            room: None,
            asked: FuturesUnordered::new(),
            notes: true,
            has_cleared: false,
            noting: FuturesUnordered::new(),
        }
    }

    /// Writes no checkpoints down: what is copied is not the step that the marker names.
    #[must_use]
    pub fn without_checkpoints(self) -> Self {
        Self { notes: false, ..self }
    }

    /// Whether pages were cleared, or may be, because the list said so.
    pub fn has_cleared(&self) -> bool {
        self.has_cleared
    }

    /// How far everything is written; also after an error.
    pub fn checkpoint(&self) -> Checkpoint {
        self.frontier.checkpoint()
    }

    /// Copies what `listing` brings, to the end of an image of `length` bytes.
    ///
    /// # Errors
    /// The first chunk, listing or checkpoint that failed for good. The caller still owns the base and may note
    /// the checkpoint that [`Self::checkpoint`] shows.
    pub async fn to_end(
        &mut self,
        listing: &mut Listing,
        length: u64,
        cancel: &CancellationToken,
    ) -> Result<Copied, Stop> {
        self.progress.map_out(length);
        let mut next_checkpoint = Instant::now() + self.options.checkpoint_every;
        let mut noted = self.checkpoint().offset;
        loop {
            self.start_chunks();
            let next_note = self.due(next_checkpoint);
            let is_copied = self.planner.is_none() && self.planned.is_empty() && self.in_flight.is_empty();
            if is_copied && self.noting.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                lost = self.keeper.lost() => return Err(Stop::Lost(lost)),
                () = cancel.cancelled() => {
                    self.wind_down().await;
                    return Err(Stop::Cancelled);
                }
                Some(done) = self.in_flight.join_next() => self.finish_chunk(done)?,
                Some(room) = self.asked.next() => self.room = Some(room),
                extent = listing.next(), if self.planner.is_some() && self.planned.is_empty() => {
                    self.plan(extent?);
                }
                Some(written) = self.noting.next() => {
                    noted = written?;
                    next_checkpoint = Instant::now() + self.options.checkpoint_every;
                }
                () = tokio::time::sleep_until(next_note), if self.is_worth_noting(noted) => {
                    self.noting.push(self.keeper.note(self.checkpoint()));
                }
            }
        }
        let complete = self.frontier.finish(self.chunks, length);
        match complete {
            Some(_) if !listing.progress().is_complete() => {
                Err(Stop::Miscounted("not every byte of the source was listed".to_owned()))
            }
            Some(checkpoint) if self.chunks == self.totals.data_chunks + self.totals.clear_chunks => {
                Ok(Copied { totals: self.totals, checkpoint })
            }
            _ => Err(Stop::Miscounted(format!(
                "{} chunks were planned, and not all of them were written",
                self.totals.data_chunks + self.totals.clear_chunks
            ))),
        }
    }

    fn due(&self, next_checkpoint: Instant) -> Instant {
        if self.keeper.backlog() == Backlog::None { next_checkpoint } else { Instant::now() }
    }

    fn is_worth_noting(&self, noted: u64) -> bool {
        self.notes && self.noting.is_empty() && self.checkpoint().offset > noted
    }

    fn plan(&mut self, extent: Option<crate::range::Extent>) {
        let mut chunks = Vec::new();
        match extent {
            Some(extent) => {
                if let Some(planner) = &mut self.planner {
                    planner.learn(self.rates.now(&self.route, self.progress, self.window.is_queue()));
                    planner.push(extent, &mut chunks);
                }
            }
            None => {
                if let Some(planner) = self.planner.take() {
                    self.totals = planner.finish(&mut chunks);
                }
            }
        }
        self.planned.extend(chunks);
    }

    fn start_chunks(&mut self) {
        self.window.observe(self.progress.signs(), Instant::now().into_std());
        while let Some(chunk) = self.planned.front().copied()
            && (self.keeper.backlog() < Backlog::Full || self.chunks == self.frontier.next())
            && self.window.has_room(memory_of(chunk))
            && self.chunks - self.frontier.next() < MOST_AHEAD
            && self.has_shared_room(memory_of(chunk))
        {
            let room = self.room.take();
            self.planned.pop_front();
            self.has_cleared |= chunk.kind == ExtentKind::Clear;
            self.window.enter(memory_of(chunk));
            let number = self.chunks;
            self.chunks += 1;
            let route = Arc::clone(&self.route);
            let turn = (chunk.kind == ExtentKind::Data).then(|| self.readers.turn());
            self.in_flight.spawn(async move {
                let turn = match turn {
                    Some(turn) => turn.await,
                    None => None,
                };
                let started = Instant::now();
                let written = route.copy(chunk, turn).await;
                drop(room);
                Outcome { number, chunk, started, written }
            });
        }
        self.readers.resize_for(self.window.chunks());
        self.progress.show_window(self.window.chunks(), self.window.limit(), self.hold());
    }

    /// Whether the memory that runs share has room for the next chunk; otherwise this run queues up for it.
    fn has_shared_room(&mut self, bytes: u64) -> bool {
        let Some(budget) = self.route.budget() else { return true };
        if bytes == 0 || self.room.is_some() {
            return true;
        }
        if !self.asked.is_empty() {
            return false;
        }
        self.room = budget.room_now(bytes);
        if self.room.is_none() {
            self.asked.push(Box::pin(budget.clone().room(bytes)));
        }
        self.room.is_some()
    }

    /// What keeps the next chunk from starting.
    fn hold(&self) -> Hold {
        match self.planned.front() {
            None if self.planner.is_some() => Hold::Listing,
            None => Hold::Drained,
            Some(_) if !self.asked.is_empty() => Hold::Memory,
            Some(chunk) => self.window.hold(memory_of(*chunk)).unwrap_or(Hold::Recording),
        }
    }

    fn finish_chunk(&mut self, done: Result<Outcome, JoinError>) -> Result<(), Stop> {
        let Outcome { number, chunk, started, written } =
            done.map_err(|_| Stop::Miscounted("a chunk's task ended without a result".to_owned()))?;
        let now = Instant::now();
        self.window.leave(memory_of(chunk), now - started, now.into_std());
        let written = written?;
        if written.range != chunk.range
            || written.counts.bytes_sent + written.counts.bytes_zero != chunk.range.len()
        {
            let why = format!("chunk {} was not written whole", chunk.range);
            return Err(Stop::Miscounted(why));
        }
        self.progress.wrote(&written, chunk.changed);
        for passed in self.frontier.complete(number, written) {
            self.keeper.passed(&passed);
        }
        Ok(())
    }

    /// Lets the chunks in flight finish, for a moment.
    async fn wind_down(&mut self) {
        let deadline = Instant::now() + self.options.grace;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.in_flight.join_next()).await {
            if self.finish_chunk(done).is_err() {
                break;
            }
        }
        self.in_flight.abort_all();
    }
}

/// What became of one chunk of the plan.
struct Outcome {
    number: u64,
    chunk: Chunk,
    started: Instant,
    written: CallResult<Written>,
}

/// A clear takes no memory.
fn memory_of(chunk: Chunk) -> u64 {
    if chunk.kind == ExtentKind::Data { chunk.range.len() } else { 0 }
}
