//! Asks for the page list of a window: halved when the server cannot finish, taken up where it broke off.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{ListingProgress, Message};
use crate::azure::failure::{CallError, CallResult, Cause, Class};
use crate::azure::{Against, PageBlob};
use crate::range::{Extent, PAGE, PageRange};

/// Windows are not halved below this many bytes.
pub const SMALLEST_WINDOW: u64 = 150 << 20;
/// Markers without a range that are followed.
const MOST_BARREN: u32 = 1000;
/// How long a request is kept open while its window is full.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lists windows.
#[derive(Clone)]
pub(super) struct Lister {
    pub(super) blob: PageBlob,
    pub(super) against: Against,
    /// The length that the blob must have.
    pub(super) length: u64,
    pub(super) progress: Arc<ListingProgress>,
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
    pub(super) async fn run(self, window: PageRange, sender: mpsc::Sender<Message>) {
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
                        let too_much = error.code() == "OperationTimedOut"
                            || matches!(error.cause, Cause::Broken(_) | Cause::TooSlow(_));
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
        self.progress.count(&extent);
    }

    pub(super) fn protocol_error(&self, why: String) -> CallError {
        let listed = self.blob.resource();
        CallError::of("Get Page Ranges", listed.role(), listed, Cause::Protocol(why))
    }
}
