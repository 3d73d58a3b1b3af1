//! The other way to move a chunk: the service reads it from the source by itself (Put Page From URL).
//!
//! ```text
//! stream   source ──GET──> this machine: checksum, zeros, leaves ──PUT──> base blob
//! server   source <──GET── service of the base blob <──PUT without a body── this machine
//! ```
//!
//! **What is lost.** No byte passes this machine, so that nobody here knows the checksums of the leaves: the point gets
//! no record. The reply carries the CRC-64 of what was written, or an MD5, or neither; only the first can be joined to
//! the step's digest. So a step of which a part was pulled is proven by reading back and comparing with the source (see
//! `verify::written`). Zeros are not looked for either: those inside a change are written like any data.
//!
//! **What stays.** Lease and generation go with every request, as with Put Page; clears are clears; a chunk is complete
//! when it was acknowledged, and the frontier, the counts and the checkpoints do not know the difference.
//!
//! **Fall-back.** The first chunk is tried alone. When the service refuses the mode itself, then or later, the chunk and
//! all that come after it go through this machine, and the reason is kept. A source whose SAS ended is no refusal of the
//! mode, but looks like one from the target's side: so the source is asked from here, which renews the SAS where that can
//! be done, and fails as any read would where it cannot.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::frontier::{Counts, Written};
use crate::azure::failure::{CallError, CallResult, Class};
use crate::azure::retry::FIRST_CONTACT;
use crate::azure::{Fence, PageBlob};
use crate::range::{PAGE, PageRange};

/// How often one chunk is asked for again because the source's SAS was renewed meanwhile.
const MOST_RENEWED: u32 = 4;

/// Has the service pull chunks from the source into the base blob.
#[derive(Debug)]
pub struct Puller {
    source: PageBlob,
    target: PageBlob,
    fence: Fence,
    /// Held by the chunk that is tried alone.
    first: tokio::sync::Mutex<()>,
    /// Whether the service pulled a chunk.
    is_taken: AtomicBool,
    /// Why the service does not pull.
    refusal: OnceLock<String>,
}

impl Puller {
    /// From `source`, to `target` behind its fence.
    pub fn new(source: PageBlob, target: PageBlob, fence: Fence) -> Self {
        let cannot = cannot_be_pulled(&source, &target);
        let puller = Self {
            source,
            target,
            fence,
            first: tokio::sync::Mutex::new(()),
            is_taken: AtomicBool::new(false),
            refusal: OnceLock::new(),
        };
        if let Some(why) = cannot {
            puller.fall_back(why.to_owned());
        }
        puller
    }

    /// Why chunks go through this machine all the same.
    pub fn fell_back(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
    }

    /// Has the service pull `range`; `None` when it does not take the mode.
    pub(crate) async fn pull(&self, range: PageRange) -> CallResult<Option<Written>> {
        if self.is_taken.load(Ordering::Relaxed) || self.fell_back().is_some() {
            return self.pull_as_known(range, false).await;
        }
        let alone = self.first.lock().await;
        if self.is_taken.load(Ordering::Relaxed) || self.fell_back().is_some() {
            drop(alone);
            return self.pull_as_known(range, false).await;
        }
        let pulled = self.pull_as_known(range, true).await?;
        self.is_taken.store(pulled.is_some(), Ordering::Relaxed);
        Ok(pulled)
    }

    async fn pull_as_known(&self, range: PageRange, is_first: bool) -> CallResult<Option<Written>> {
        // A source that the service cannot reach may look as if it took long: the first chunk does not wait for that as
        // long as a call may.
        let mut budget = is_first.then_some(FIRST_CONTACT);
        let mut renewed = 0;
        while self.fell_back().is_none() {
            let shown = self.source.resource().sas().version();
            let pulled = self.target.put_pages_from_url(range, &self.source, &self.fence, budget).await;
            let error = match pulled {
                Ok(crc) => {
                    let length = range.len();
                    let counts = Counts {
                        chunks: 1,
                        bytes: length,
                        bytes_sent: length,
                        bytes_pulled: length,
                        bytes_zero: 0,
                    };
                    return Ok(Some(Written { range, crc, sums: None, counts }));
                }
                Err(error) => error,
            };
            let may_pass = !error.is_of_copy_source() || error.is_refusal_of_source_for_load();
            if error.class() == Class::Passes && may_pass && budget.take().is_some() {
                // What has too much to do has all the time that a call may take.
                continue;
            }
            // A refusal of rights does not always tell whose. That of the base blob is told by Put Page, too.
            if error.is_of_copy_source() || matches!(error.status(), Some(401 | 403)) {
                // What is wrong with the source itself is told, or mended, by a read from here.
                self.source.read(first_page(range)).await?;
                renewed += 1;
                if self.source.resource().sas().version() != shown && renewed <= MOST_RENEWED {
                    continue;
                }
            } else if !refuses_mode(&error) {
                return Err(error);
            }
            self.fall_back(error.cause.to_string());
        }
        Ok(None)
    }

    fn fall_back(&self, why: String) {
        if self.refusal.set(why).is_ok() {
            tracing::warn!(
                why = self.fell_back(),
                "the service does not pull by itself: going on in stream mode, through this machine"
            );
        }
    }
}

/// What is known to be of no use before it is tried.
fn cannot_be_pulled(source: &PageBlob, target: &PageBlob) -> Option<&'static str> {
    if source.sends_token() {
        return Some(
            "the source wants a token besides its SAS or in its place, which server mode does not support",
        );
    }
    if source.resource().is_loopback() && !target.resource().is_loopback() {
        return Some("the source is on this machine, where the service of the base blob cannot reach it");
    }
    None
}

/// Whether it is the mode that is refused. A base blob that is lost to another writer, or that this run may not write to,
/// is so in either mode.
fn refuses_mode(error: &CallError) -> bool {
    const REFUSALS: [u16; 9] = [400, 404, 405, 409, 411, 413, 415, 416, 501];
    !error.is_fenced() && error.status().is_some_and(|status| REFUSALS.contains(&status))
}

fn first_page(range: PageRange) -> PageRange {
    range.split(range.start() + PAGE).0.unwrap_or(range)
}
