//! Page lists become one ordered stream of extents that runs ahead of the copy.
//!
//! The blob is asked for in *windows*, several at once. A window whose answer the server cannot finish in time
//! is halved, down to 150 MiB, which Microsoft's storage team states as safe for a blob however fragmented. A
//! reply that breaks off is taken up where it stopped. Ranges that a window's edge cut in two are joined.
//!
//! **Completeness.** Each window ends with a message of its own. A window that falls silent without it is an
//! error, and the copy asks at its end whether every byte was listed: a range that is missing here would be
//! missing in the point.
//!
//! **Memory.** [`ListingOptions::parallel`] windows are open, each with at most [`WINDOW_EXTENTS`] extents that
//! were not taken yet: 16 MiB in all by default, however long the list is, and 1 MiB where many runs share a budget. When a window is full, its request is
//! given up after a moment (a socket that nobody reads from would be closed by the server) and made again when
//! there is room.

mod lister;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::azure::failure::{CallError, CallResult, Cause};
use crate::azure::{Against, PageBlob, Role};
use crate::chain::survey::LARGEST_BLOB;
use crate::range::{Extent, ExtentKind, PAGE, PageRange};

use lister::Lister;
pub use lister::SMALLEST_WINDOW;

/// Extents that one window may hold.
pub const WINDOW_EXTENTS: usize = 64 << 10;
/// The same where other runs of the process list, too.
const SHARED_WINDOW_EXTENTS: usize = 4 << 10;
/// A data extent is handed out once it is this long: what follows need not be known before it is copied.
const LONG_ENOUGH: u64 = 1 << 30;

/// The first window is so long, and each next one four times the one before until they are as long as they may be: the server
/// looks through a whole window before it answers, and nothing is copied before the first answer.
const FIRST_WINDOW: u64 = 1 << 30;
const WIDEN: u64 = 4;

/// How page lists are asked for.
#[derive(Clone, Copy, Debug)]
pub struct ListingOptions {
    /// Most bytes of the blob that one request asks about.
    pub window: u64,
    /// Windows that are open at once.
    pub parallel: usize,
}

impl Default for ListingOptions {
    fn default() -> Self {
        Self { window: 64 << 30, parallel: 8 }
    }
}

/// How far a listing has come; shared with whoever shows progress.
#[derive(Debug, Default)]
pub struct ListingProgress {
    /// Bytes of the blob that are listed.
    listed: AtomicU64,
    /// Bytes of the blob in all.
    length: AtomicU64,
    data: AtomicU64,
    clear: AtomicU64,
}

impl ListingProgress {
    fn count(&self, extent: &Extent) {
        let sum = match extent.kind {
            ExtentKind::Data => &self.data,
            ExtentKind::Clear => &self.clear,
        };
        sum.fetch_add(extent.range.len(), Relaxed);
    }

    /// Bytes in data extents found so far, and whether that is all of them.
    pub fn data(&self) -> (u64, bool) {
        (self.data.load(Relaxed), self.is_complete())
    }

    /// Bytes in clear extents found so far.
    pub fn clear(&self) -> u64 {
        self.clear.load(Relaxed)
    }

    /// Whether the whole blob is listed.
    pub fn is_complete(&self) -> bool {
        let length = self.length.load(Relaxed);
        self.listed.load(Relaxed) == length
    }

    /// Data bytes to expect in all: exact when complete, otherwise by the density so far.
    pub fn expected_data(&self) -> Option<u64> {
        let (data, complete) = self.data();
        let listed = self.listed.load(Relaxed);
        if complete {
            return Some(data);
        }
        if listed == 0 {
            return None;
        }
        let scaled = u128::from(data) * u128::from(self.length.load(Relaxed)) / u128::from(listed);
        u64::try_from(scaled).ok()
    }
}

/// What a window sends.
enum Message {
    Extent(Extent),
    /// Everything of the window was sent.
    End,
    Failed(Box<CallError>),
}

/// An ordered stream of extents: ascending, without overlap, neighbours of one kind joined.
pub struct Listing {
    progress: Arc<ListingProgress>,
    /// Who opens windows; `None` for a listing that is fed.
    lister: Option<Lister>,
    options: ListingOptions,
    /// What no window was opened for yet.
    rest: Option<PageRange>,
    /// Bytes of the next window, while windows are still short.
    next_window: u64,
    windows: VecDeque<mpsc::Receiver<Message>>,
    /// Ends the windows' tasks when the listing is dropped.
    tasks: JoinSet<()>,
    /// Pages that are to be written even when the list does not name them, ascending.
    forced: VecDeque<PageRange>,
    /// What arrived and was not looked at yet.
    queue: VecDeque<Extent>,
    /// The extent that may still grow.
    pending: Option<Extent>,
    /// An extent that was looked at ahead of time.
    taken: Option<Extent>,
    /// Whether every extent comes out as data.
    all_as_data: bool,
    /// Where what was handed out ends, when what no extent names comes out as clear.
    gaps: Option<(u64, u64)>,
}

/// The way into a listing that is fed.
pub struct Feed {
    sender: mpsc::Sender<Message>,
    progress: Arc<ListingProgress>,
}

impl Feed {
    /// Hands out an extent; `false` when nobody listens any more.
    pub async fn send(&self, extent: Extent) -> bool {
        self.progress.count(&extent);
        self.sender.send(Message::Extent(extent)).await.is_ok()
    }

    /// As many bytes more are looked at.
    pub fn looked_at(&self, bytes: u64) {
        self.progress.listed.fetch_add(bytes, Relaxed);
    }
}

impl Listing {
    /// Starts to list `range` (nothing if `None`) of `blob`, whose length must be `length`. `forced` pages
    /// (ascending) come out as data where the list does not name them.
    pub fn start(
        blob: &PageBlob,
        against: &Against,
        range: Option<PageRange>,
        length: u64,
        forced: Vec<PageRange>,
        options: ListingOptions,
    ) -> Self {
        let mut listing = Self::of(range.map_or(0, PageRange::len));
        let progress = listing.progress();
        listing.lister = Some(Lister { blob: blob.clone(), against: against.clone(), length, progress });
        listing.options = options;
        listing.rest = range;
        listing.forced = forced.into();
        listing.open_windows();
        listing
    }

    /// A listing of `length` bytes that `work` feeds, such as a comparison on this machine. `work` must hand out extents in
    /// order, and say how far it came.
    pub fn fed<F>(length: u64, work: impl FnOnce(Feed) -> F) -> Self
    where
        F: Future<Output = CallResult<()>> + Send + 'static,
    {
        let mut listing = Self::of(length);
        let (sender, receiver) = mpsc::channel(WINDOW_EXTENTS);
        let working = work(Feed { sender: sender.clone(), progress: listing.progress() });
        listing.tasks.spawn(async move {
            let end = match working.await {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(Box::new(error)),
            };
            // Nobody listens any more when it cannot be sent.
            let _ = sender.send(end).await;
        });
        listing.windows.push_back(receiver);
        listing
    }

    fn of(length: u64) -> Self {
        let progress = Arc::new(ListingProgress::default());
        progress.length.store(length, Relaxed);
        Self {
            progress,
            lister: None,
            options: ListingOptions::default(),
            rest: None,
            next_window: FIRST_WINDOW,
            windows: VecDeque::new(),
            tasks: JoinSet::new(),
            forced: VecDeque::new(),
            queue: VecDeque::new(),
            pending: None,
            taken: None,
            all_as_data: false,
            gaps: None,
        }
    }

    /// Hands every extent out as data: for a copy that goes the other way, where what was cleared must be read too.
    #[must_use]
    pub fn all_as_data(mut self) -> Self {
        self.all_as_data = true;
        self
    }

    fn open_windows(&mut self) {
        // A window is never longer than any blob, so that no sum below can overflow.
        let length = (self.options.window / PAGE * PAGE).clamp(PAGE, LARGEST_BLOB);
        while self.windows.len() < self.options.parallel.max(1)
            && let (Some(range), Some(lister)) = (self.rest, &self.lister)
        {
            let (window, rest) = range.split(range.start() + length.min(self.next_window));
            self.next_window = self.next_window.saturating_mul(WIDEN);
            self.rest = rest;
            let is_shared = self.lister.as_ref().is_some_and(|lister| lister.blob.budget().is_some());
            let extents = if is_shared { SHARED_WINDOW_EXTENTS } else { WINDOW_EXTENTS };
            let (sender, receiver) = mpsc::channel(extents);
            self.tasks.spawn(lister.clone().run(window.unwrap_or(range), sender));
            self.windows.push_back(receiver);
        }
    }

    /// How far the listing has come.
    pub fn progress(&self) -> Arc<ListingProgress> {
        Arc::clone(&self.progress)
    }

    /// Waits for the first extent (or the end) without taking it: whether the service answers at all.
    pub async fn ready(&mut self) -> CallResult<()> {
        if self.taken.is_none() {
            self.taken = self.next().await?;
        }
        Ok(())
    }

    /// The next extent, or `None` at the end.
    pub async fn next(&mut self) -> CallResult<Option<Extent>> {
        let next = match self.taken.take() {
            Some(taken) => Some(taken),
            None => self.joined().await?,
        };
        let Some((done, length)) = &mut self.gaps else { return Ok(next) };
        let until = next.map_or(*length, |extent| extent.range.start());
        let gap = PageRange::new(*done, until).ok();
        if let Some(gap) = gap {
            self.taken = next;
            *done = gap.end();
            return Ok(Some(Extent { range: gap, kind: ExtentKind::Clear }));
        }
        if let Some(extent) = next {
            *done = extent.range.end();
        }
        Ok(next)
    }

    /// The next extent as it was listed, joined with its neighbours.
    async fn joined(&mut self) -> CallResult<Option<Extent>> {
        loop {
            if let Some(long) = self.pending.take_if(|held| is_long(*held)) {
                return Ok(Some(long));
            }
            let arrived = self.arrive().await?;
            match (self.pending.take(), arrived) {
                (Some(held), Some(next)) => {
                    if let Some(joined) = join(held, next) {
                        self.pending = Some(joined);
                    } else {
                        self.pending = Some(next);
                        return Ok(Some(held));
                    }
                }
                (None, Some(next)) => self.pending = Some(next),
                (held, None) => return Ok(held),
            }
        }
    }

    /// The next extent of the windows in order, with the forced pages that no extent names.
    async fn arrive(&mut self) -> CallResult<Option<Extent>> {
        while self.queue.is_empty() {
            let Some(window) = self.windows.front_mut() else {
                self.queue.extend(self.forced.drain(..).map(as_data));
                break;
            };
            let extent = match window.recv().await {
                Some(Message::Extent(extent)) if self.all_as_data => as_data(extent.range),
                Some(Message::Extent(extent)) => extent,
                Some(Message::End) => {
                    self.windows.pop_front();
                    self.open_windows();
                    continue;
                }
                Some(Message::Failed(error)) => return Err(*error),
                None => return Err(self.fell_silent()),
            };
            while let Some(page) = self.forced.pop_front_if(|page| page.start() < extent.range.end()) {
                if page.end() <= extent.range.start() {
                    self.queue.push_back(as_data(page));
                }
            }
            self.queue.push_back(extent);
        }
        Ok(self.queue.pop_front())
    }
}

impl Listing {
    fn fell_silent(&self) -> CallError {
        let why = "a window ended without its end".to_owned();
        match &self.lister {
            Some(lister) => lister.protocol_error(why),
            None => CallError::of("compare", Role::Source, "this machine", Cause::Protocol(why)),
        }
    }

    /// Hands out as clear what no extent names, from `from` to `length`: for a target that is not known to be empty.
    #[must_use]
    pub fn gaps_as_clear(mut self, from: u64, length: u64) -> Self {
        self.gaps = Some((from, length));
        self
    }
}

fn as_data(range: PageRange) -> Extent {
    Extent { range, kind: ExtentKind::Data }
}

fn is_long(held: Extent) -> bool {
    held.kind == ExtentKind::Data && held.range.len() >= LONG_ENOUGH
}

/// One extent, if `next` continues `held`.
fn join(held: Extent, next: Extent) -> Option<Extent> {
    if held.kind != next.kind || held.range.end() != next.range.start() {
        return None;
    }
    let range = PageRange::new(held.range.start(), next.range.end()).ok()?;
    Some(Extent { range, ..held })
}
