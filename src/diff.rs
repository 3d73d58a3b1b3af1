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
//! were not taken yet: 16 MiB in all by default, however long the list is. When a window is full, its request is
//! given up after a moment (a socket that nobody reads from would be closed by the server) and made again when
//! there is room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::azure::failure::{CallError, CallResult, Cause, Class};
use crate::azure::{Against, PageBlob};
use crate::chain::survey::LARGEST_BLOB;
use crate::range::{Extent, ExtentKind, PAGE, PageRange};

/// Extents that one window may hold.
pub const WINDOW_EXTENTS: usize = 64 << 10;
/// Windows are not halved below this many bytes.
pub const SMALLEST_WINDOW: u64 = 150 << 20;
/// A data extent is handed out once it is this long: what follows need not be known before it is copied.
const LONG_ENOUGH: u64 = 1 << 30;
/// Markers without a range that are followed.
const MOST_BARREN: u32 = 1000;
/// How long a request is kept open while its window is full.
const PATIENCE: Duration = Duration::from_secs(5);

/// How page lists are asked for.
#[derive(Clone, Copy, Debug)]
pub struct ListingOptions {
    /// Bytes of the blob that one request asks about.
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
    lister: Lister,
    options: ListingOptions,
    /// What no window was opened for yet.
    rest: Option<PageRange>,
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
        let progress = Arc::new(ListingProgress::default());
        progress.length.store(range.map_or(0, PageRange::len), Relaxed);
        let mut listing = Self {
            lister: Lister { blob: blob.clone(), against: against.clone(), length, progress },
            options,
            rest: range,
            windows: VecDeque::new(),
            tasks: JoinSet::new(),
            forced: forced.into(),
            queue: VecDeque::new(),
            pending: None,
            taken: None,
            all_as_data: false,
        };
        listing.open_windows();
        listing
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
            && let Some(range) = self.rest
        {
            let (window, rest) = range.split(range.start() + length);
            self.rest = rest;
            let (sender, receiver) = mpsc::channel(WINDOW_EXTENTS);
            self.tasks.spawn(self.lister.clone().run(window.unwrap_or(range), sender));
            self.windows.push_back(receiver);
        }
    }

    /// How far the listing has come.
    pub fn progress(&self) -> Arc<ListingProgress> {
        Arc::clone(&self.lister.progress)
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
        if let Some(extent) = self.taken.take() {
            return Ok(Some(extent));
        }
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
                None => return Err(self.lister.protocol_error("a window ended without its end".to_owned())),
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

/// Lists windows.
#[derive(Clone)]
struct Lister {
    blob: PageBlob,
    against: Against,
    /// The length that the blob must have.
    length: u64,
    progress: Arc<ListingProgress>,
}

/// Where a window's listing stands between two requests.
struct Position {
    /// What is not listed yet.
    rest: PageRange,
    /// Bytes that one request asks about.
    span: u64,
    /// What the last reply asked about and the marker with which it goes on.
    marker: Option<(PageRange, String)>,
    /// Replies in a row that named a marker and nothing else.
    barren: u32,
}

/// How one request ended.
enum Ended {
    /// Listed up to here.
    At(u64),
    /// The window is full: go on when there is room.
    Full(u64),
    /// Nobody listens any more.
    Unwanted,
}

impl Lister {
    /// Nobody listens when a message cannot be sent: then nobody needs it.
    async fn run(self, window: PageRange, sender: mpsc::Sender<Message>) {
        let mut position = Position { rest: window, span: window.len(), marker: None, barren: 0 };
        loop {
            let at = match self.request(&mut position, &sender).await {
                Ok(Ended::At(at)) => at,
                Ok(Ended::Full(at)) => {
                    if sender.reserve().await.is_err() {
                        return;
                    }
                    at
                }
                Ok(Ended::Unwanted) => return,
                Err(error) => {
                    let _ = sender.send(Message::Failed(Box::new(error))).await;
                    return;
                }
            };
            if let Some(rest) = position.rest.split(at).1 {
                position.rest = rest;
            } else {
                let _ = sender.send(Message::End).await;
                return;
            }
        }
    }

    /// One request under the retry layer. What it brought before it broke off is kept: an attempt that moved on
    /// counts as a success that ended early.
    async fn request(&self, position: &mut Position, sender: &mpsc::Sender<Message>) -> CallResult<Ended> {
        let state = tokio::sync::Mutex::new(position);
        self.blob
            .repeat_list(&self.against, || async {
                let mut position = state.lock().await;
                let start = position.rest.start();
                let mut at = start;
                match self.attempt(&mut position, &mut at, sender).await {
                    Ok(ended) => Ok(ended),
                    Err(error) => {
                        position.marker = None;
                        let halved = (position.span.min(position.rest.len()) / 2).next_multiple_of(PAGE);
                        let too_much =
                            error.code() == "OperationTimedOut" || matches!(error.cause, Cause::Broken(_));
                        // Only what broke off is taken up where it stopped. A list that breaks the protocol
                        // says nothing that can be trusted, not even before the place where it shows.
                        if at > start && error.class() == Class::Passes {
                            Ok(Ended::At(at))
                        } else if too_much && halved >= SMALLEST_WINDOW {
                            tracing::debug!(
                                span = position.span,
                                "the page list took too long: halving the window"
                            );
                            position.span = halved;
                            // The server says so itself: at once. A silent one is waited for as ever.
                            if error.code() == "OperationTimedOut" {
                                Ok(Ended::At(start))
                            } else {
                                Err(error)
                            }
                        } else {
                            Err(error)
                        }
                    }
                }
            })
            .await
    }

    /// One request: sends its extents on, and keeps `at` at the end of what it sent.
    async fn attempt(
        &self,
        position: &mut Position,
        at: &mut u64,
        sender: &mpsc::Sender<Message>,
    ) -> CallResult<Ended> {
        let (asked, marker) = if let Some((asked, marker)) = position.marker.take() {
            (asked, Some(marker))
        } else {
            let cut = position.rest.start().saturating_add(position.span.max(PAGE));
            (position.rest.split(cut).0.unwrap_or(position.rest), None)
        };
        let mut reply = self.blob.page_list_once(asked, &self.against, marker.as_deref()).await?;
        if reply.blob_length != self.length {
            let why = format!("the snapshot has {} bytes, and had {} before", reply.blob_length, self.length);
            return Err(self.protocol_error(why));
        }
        while let Some(extent) = reply.next().await? {
            if extent.range.start() < *at {
                return Err(self.protocol_error(format!("{} was listed before", extent.range)));
            }
            let slot = match tokio::time::timeout(PATIENCE, sender.reserve()).await {
                Ok(Ok(slot)) => slot,
                Ok(Err(_)) => return Ok(Ended::Unwanted),
                Err(_) => return Ok(Ended::Full(*at)),
            };
            self.count(extent, *at);
            *at = extent.range.end();
            slot.send(Message::Extent(extent));
        }
        match reply.next_marker() {
            Some(_) if position.barren > MOST_BARREN => {
                Err(self.protocol_error("markers come, and nothing else".to_owned()))
            }
            Some(next) => {
                position.barren = if *at > position.rest.start() { 0 } else { position.barren + 1 };
                position.marker = Some((asked, next.to_owned()));
                Ok(Ended::At(*at))
            }
            None => {
                self.progress.listed.fetch_add(asked.end() - *at, Relaxed);
                Ok(Ended::At(asked.end()))
            }
        }
    }

    fn count(&self, extent: Extent, from: u64) {
        self.progress.listed.fetch_add(extent.range.end() - from, Relaxed);
        let sum = match extent.kind {
            ExtentKind::Data => &self.progress.data,
            ExtentKind::Clear => &self.progress.clear,
        };
        sum.fetch_add(extent.range.len(), Relaxed);
    }

    fn protocol_error(&self, why: String) -> CallError {
        let listed = self.blob.resource();
        CallError::of("Get Page Ranges", listed.role(), listed, Cause::Protocol(why))
    }
}
