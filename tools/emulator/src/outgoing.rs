//! A reply's body on its way out: as fast as the link lets it, and with what a fault does to it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep, sleep_until};

use crate::body::flip;
use crate::counters::Present;
use crate::cut::Scissors;
use crate::link::ReplyPace;
use crate::reply::ReplyBody;

/// The most that is sent at a time when something slows the body down.
const PACED_FRAME: usize = 64 * 1024;

/// What happens to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It ends before the byte at `position`, after nothing has come for some time, and the connection with it.
    Ends { position: u64, stalled: Duration },
    /// A bit of the byte at `position` is not what it was.
    Flips { position: u64 },
}

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    body: ReplyBody,
    /// The rest of a frame of `body` that was split.
    rest: Bytes,
    sent: u64,
    special: Option<Box<Special>>,
    /// The request that is answered, until it is.
    _request: Option<Present>,
}

/// What most bodies do without.
#[derive(Debug)]
struct Special {
    pace: Option<ReplyPace>,
    /// What `wait` is for: a frame that goes out then, or else the end.
    held: Option<Bytes>,
    wait: Option<Pin<Box<Sleep>>>,
    trouble: Option<Trouble>,
    /// Nothing more is to come, although there was more.
    ended: bool,
    scissors: Scissors,
}

impl Outgoing {
    pub(crate) fn new(
        body: ReplyBody,
        pace: Option<ReplyPace>,
        trouble: Option<Trouble>,
        scissors: &Scissors,
        request: Option<Present>,
    ) -> Outgoing {
        let special = (pace.is_some() || trouble.is_some()).then(|| {
            let scissors = scissors.clone();
            Box::new(Special { pace, held: None, wait: None, trouble, ended: false, scissors })
        });
        Outgoing { body, rest: Bytes::new(), sent: 0, special, _request: request }
    }

    /// The next bytes, at most `most`.
    fn take(&mut self, most: usize) -> Option<Bytes> {
        if self.rest.is_empty() {
            self.rest = self.body.take_frame()?;
        }
        let bytes = self.rest.split_to(self.rest.len().min(most));
        self.sent += bytes.len() as u64;
        Some(bytes)
    }

    fn remaining(&self) -> u64 {
        let held = self.special.as_ref().and_then(|special| special.held.as_ref());
        self.body.remaining() + self.rest.len() as u64 + held.map_or(0, |held| held.len() as u64)
    }

    fn poll_special(&mut self, special: &mut Special, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(wait) = &mut special.wait {
                ready!(wait.as_mut().poll(context));
                special.wait = None;
                if let Some(held) = special.held.take() {
                    return Poll::Ready(Some(held));
                }
                special.ended = true;
            }
            if special.ended {
                // Nobody wakes this body again: the connection ends with the flush that follows.
                special.scissors.cut_after_flush();
                return Poll::Pending;
            }
            let mut most = PACED_FRAME;
            if let Some(Trouble::Ends { position, stalled }) = special.trouble
                && self.remaining() > 0
            {
                let left = position.saturating_sub(self.sent);
                if left == 0 {
                    special.wait = Some(Box::pin(sleep(stalled)));
                    continue;
                }
                most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
            }
            let start = self.sent;
            let Some(mut bytes) = self.take(most) else { return Poll::Ready(None) };
            if let Some(Trouble::Flips { position }) = special.trouble {
                flip(&mut bytes, start, position);
            }
            match special.pace.as_ref().and_then(|pace| pace.slot(bytes.len())) {
                None => return Poll::Ready(Some(bytes)),
                Some(over) => {
                    special.held = Some(bytes);
                    special.wait = Some(Box::pin(sleep_until(over)));
                }
            }
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let outgoing = self.get_mut();
        let bytes = match outgoing.special.take() {
            None => outgoing.take(usize::MAX),
            Some(mut special) => {
                let polled = outgoing.poll_special(&mut special, context);
                outgoing.special = Some(special);
                ready!(polled)
            }
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining() == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.body {
            ReplyBody::Chunked(_) => SizeHint::default(),
            _ => SizeHint::with_exact(self.remaining()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::task::Waker;

    use super::*;
    use crate::store::pages::{PageData, Pages};

    fn body(trouble: Option<Trouble>) -> (Outgoing, Scissors) {
        let mut pages = Pages::new(1 << 20);
        pages.write(&PageData::of(0, &[7; 1024]));
        let scissors = Scissors::default();
        (Outgoing::new(ReplyBody::Pages(pages.view(0..200_000)), None, trouble, &scissors, None), scissors)
    }

    /// The bytes that come without waiting, and whether the body then ended as it should.
    fn drain(body: &mut Outgoing) -> (Vec<u8>, bool) {
        let mut context = Context::from_waker(Waker::noop());
        let mut bytes = Vec::new();
        loop {
            match Pin::new(&mut *body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => bytes.extend_from_slice(frame.data_ref().unwrap()),
                Poll::Ready(None) => return (bytes, true),
                Poll::Pending => return (bytes, false),
            }
        }
    }

    #[tokio::test]
    async fn a_body_is_sent_cut_short_or_changed() {
        let (mut plain, _) = body(None);
        assert_eq!(plain.size_hint().exact(), Some(200_000));
        let (whole, complete) = drain(&mut plain);
        assert_eq!((whole.len(), complete, plain.is_end_stream()), (200_000, true, true));

        for keep in [0, 1000, 70_000, 199_999] {
            let ends = Trouble::Ends { position: keep, stalled: Duration::ZERO };
            let (mut cut, scissors) = body(Some(ends));
            let (bytes, complete) = drain(&mut cut);
            assert_eq!((bytes.len() as u64, complete), (keep, false));
            assert_eq!(whole[..bytes.len()], bytes);
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(drain(&mut cut), (vec![], false));
            assert!(format!("{scissors:?}").contains("true"));
        }
        let (mut long, _) = body(Some(Trouble::Ends { position: 200_000, stalled: Duration::ZERO }));
        assert_eq!(drain(&mut long), (whole.clone(), true));

        for position in [0, 1023, 65_536, 199_999] {
            let (mut changed, _) = body(Some(Trouble::Flips { position }));
            let (bytes, complete) = drain(&mut changed);
            let differing = (0..200_000).filter(|index| bytes[*index] != whole[*index]).collect::<Vec<_>>();
            assert_eq!((differing, complete), (vec![usize::try_from(position).unwrap()], true));
        }
    }
}
