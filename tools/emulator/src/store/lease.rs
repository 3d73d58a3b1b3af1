//! The lease of a blob: a small state machine that looks at the clock only when it is asked something.

use std::time::Duration;

use uuid::Uuid;

use crate::clock::Moment;
use crate::error::{ErrorCode, Outcome};

/// A lease's state as `x-ms-lease-state` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    Available,
    Leased,
    Breaking,
    Broken,
    Expired,
}

impl LeaseState {
    pub(crate) fn text(self) -> &'static str {
        match self {
            LeaseState::Available => "available",
            LeaseState::Leased => "leased",
            LeaseState::Breaking => "breaking",
            LeaseState::Broken => "broken",
            LeaseState::Expired => "expired",
        }
    }

    /// `x-ms-lease-status`: whether a write needs the lease's id.
    pub(crate) fn status_text(self) -> &'static str {
        match self {
            LeaseState::Leased | LeaseState::Breaking => "locked",
            LeaseState::Available | LeaseState::Broken | LeaseState::Expired => "unlocked",
        }
    }
}

/// A blob's lease. The id of a lease that ended stays known until a write without id or a new lease removes it; so its
/// holder can renew it exactly as long as nobody wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lease {
    held: Option<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    id: Uuid,
    /// None lasts for ever.
    duration: Option<Duration>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Until then, or for ever.
    Leased(Option<Moment>),
    Breaking(Moment),
    Broken,
}

impl Held {
    fn new(id: Uuid, duration: Option<Duration>, now: Moment) -> Held {
        Held { id, duration, phase: Phase::Leased(duration.map(|duration| now.plus(duration))) }
    }

    fn state(&self, now: Moment) -> LeaseState {
        match self.phase {
            Phase::Leased(Some(until)) if until <= now => LeaseState::Expired,
            Phase::Leased(_) => LeaseState::Leased,
            Phase::Breaking(until) if until <= now => LeaseState::Broken,
            Phase::Breaking(_) => LeaseState::Breaking,
            Phase::Broken => LeaseState::Broken,
        }
    }
}

impl Lease {
    pub(crate) fn state(&self, now: Moment) -> LeaseState {
        self.held.as_ref().map_or(LeaseState::Available, |held| held.state(now))
    }

    /// `x-ms-lease-duration`, which is shown only while the blob is leased.
    pub(crate) fn duration_text(&self, now: Moment) -> Option<&'static str> {
        let held = self.held.as_ref().filter(|held| held.state(now) == LeaseState::Leased)?;
        Some(if held.duration.is_some() { "fixed" } else { "infinite" })
    }

    /// Takes the lease, or takes it again with a new duration; `fresh` is its id if none was proposed.
    pub(crate) fn acquire(
        &mut self,
        now: Moment,
        proposed: Option<Uuid>,
        fresh: Uuid,
        duration: Option<Duration>,
    ) -> Outcome<Uuid> {
        if let Some(held) = &self.held {
            let is_holder = proposed == Some(held.id);
            match held.state(now) {
                LeaseState::Leased if !is_holder => return Err(ErrorCode::LeaseAlreadyPresent.into()),
                LeaseState::Breaking if is_holder => {
                    return Err(ErrorCode::LeaseIsBreakingAndCannotBeAcquired.into());
                }
                LeaseState::Breaking => return Err(ErrorCode::LeaseAlreadyPresent.into()),
                _ => {}
            }
        }
        let id = proposed.unwrap_or(fresh);
        self.held = Some(Held::new(id, duration, now));
        Ok(id)
    }

    /// Starts the duration anew. An expired lease can be renewed: that it is still known shows that nobody wrote.
    pub(crate) fn renew(&mut self, now: Moment, id: Uuid) -> Outcome<()> {
        let held = self.held_by(id)?;
        match held.state(now) {
            LeaseState::Breaking | LeaseState::Broken => {
                Err(ErrorCode::LeaseIsBrokenAndCannotBeRenewed.into())
            }
            _ => {
                *held = Held::new(id, held.duration, now);
                Ok(())
            }
        }
    }

    /// Gives the lease another id; repeating the change is allowed.
    pub(crate) fn change(&mut self, now: Moment, id: Uuid, proposed: Uuid) -> Outcome<()> {
        let state = self.state(now);
        if !matches!(state, LeaseState::Leased | LeaseState::Breaking) {
            return Err(ErrorCode::LeaseNotPresentWithLeaseOperation.into());
        }
        let held = match &mut self.held {
            Some(held) if held.id == id || held.id == proposed => held,
            _ => return Err(ErrorCode::LeaseIdMismatchWithLeaseOperation.into()),
        };
        if state == LeaseState::Breaking {
            return Err(ErrorCode::LeaseIsBreakingAndCannotBeChanged.into());
        }
        held.id = proposed;
        Ok(())
    }

    pub(crate) fn release(&mut self, id: Uuid) -> Outcome<()> {
        self.held_by(id)?;
        self.held = None;
        Ok(())
    }

    /// Ends the lease after `period`, or when it would end anyway if that is earlier. Returns how long that is.
    pub(crate) fn break_it(&mut self, now: Moment, period: Option<Duration>) -> Outcome<Duration> {
        let Some(held) = &mut self.held else {
            return Err(ErrorCode::LeaseNotPresentWithLeaseOperation.into());
        };
        let left = match (held.state(now), held.phase) {
            (LeaseState::Leased, Phase::Leased(Some(until)))
            | (LeaseState::Breaking, Phase::Breaking(until)) => {
                let left = until.since(now);
                period.map_or(left, |period| period.min(left))
            }
            (LeaseState::Leased, _) => period.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        held.phase = if left.is_zero() { Phase::Broken } else { Phase::Breaking(now.plus(left)) };
        Ok(left)
    }

    /// Checks the id that came with a write; without one, the blob must not be leased.
    pub(crate) fn check_write(&self, now: Moment, id: Option<Uuid>) -> Outcome<()> {
        let locked = matches!(self.state(now), LeaseState::Leased | LeaseState::Breaking);
        match id {
            Some(_) => self.check_read(now, id),
            None if locked => Err(ErrorCode::LeaseIdMissing.into()),
            None => Ok(()),
        }
    }

    /// Checks the id that came with a read or a snapshot, where it is a condition and may be left out.
    pub(crate) fn check_read(&self, now: Moment, id: Option<Uuid>) -> Outcome<()> {
        let Some(id) = id else { return Ok(()) };
        let is_holder = self.held.as_ref().is_some_and(|held| held.id == id);
        match self.state(now) {
            LeaseState::Leased | LeaseState::Breaking if is_holder => Ok(()),
            LeaseState::Leased | LeaseState::Breaking => {
                Err(ErrorCode::LeaseIdMismatchWithBlobOperation.into())
            }
            LeaseState::Expired | LeaseState::Broken if is_holder => Err(ErrorCode::LeaseLost.into()),
            _ => Err(ErrorCode::LeaseNotPresentWithBlobOperation.into()),
        }
    }

    /// Notes that a write went through: what is left of a lease that ended is gone.
    pub(crate) fn written(&mut self, now: Moment) {
        if matches!(self.state(now), LeaseState::Expired | LeaseState::Broken) {
            self.held = None;
        }
    }

    fn held_by(&mut self, id: Uuid) -> Outcome<&mut Held> {
        match &mut self.held {
            Some(held) if held.id == id => Ok(held),
            _ => Err(ErrorCode::LeaseIdMismatchWithLeaseOperation.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: Uuid = Uuid::from_u128(0xA);
    const B: Uuid = Uuid::from_u128(0xB);
    const FRESH: Uuid = Uuid::from_u128(0xF);
    const MINUTE: Option<Duration> = Some(Duration::from_mins(1));

    fn start() -> Moment {
        Moment::from_iso("2026-01-01").unwrap()
    }

    fn after(seconds: u64) -> Moment {
        start().plus(Duration::from_secs(seconds))
    }

    /// A lease in each state, all asked at `after(30)`.
    fn lease(state: LeaseState) -> Lease {
        let mut lease = Lease::default();
        let duration = if state == LeaseState::Expired { Some(Duration::from_secs(15)) } else { MINUTE };
        if state != LeaseState::Available {
            lease.acquire(start(), Some(A), FRESH, duration).unwrap();
        }
        match state {
            LeaseState::Breaking => drop(lease.break_it(start(), None).unwrap()),
            LeaseState::Broken => drop(lease.break_it(start(), Some(Duration::ZERO)).unwrap()),
            _ => {}
        }
        assert_eq!(lease.state(after(30)), state);
        lease
    }

    const STATES: [LeaseState; 5] = [
        LeaseState::Available,
        LeaseState::Leased,
        LeaseState::Breaking,
        LeaseState::Broken,
        LeaseState::Expired,
    ];

    /// Runs `attempt` in each state and tells the status: that of the refusal, or 0, and the state afterwards.
    fn row(attempt: impl Fn(&mut Lease, Moment) -> Outcome<()>) -> [(u16, LeaseState); 5] {
        STATES.map(|state| {
            let mut lease = lease(state);
            let status =
                attempt(&mut lease, after(30)).map_or_else(|failure| failure.status.as_u16(), |()| 0);
            (status, lease.state(after(30)))
        })
    }

    #[test]
    fn the_table_of_the_service() {
        use LeaseState::{Available, Breaking, Broken, Leased};
        let write = |id: Option<Uuid>| {
            move |lease: &mut Lease, now| {
                lease.check_write(now, id)?;
                lease.written(now);
                Ok(())
            }
        };
        let unchanged = |statuses: [u16; 5]| {
            let mut states = STATES.into_iter();
            statuses.map(|status| (status, states.next().unwrap()))
        };
        assert_eq!(row(write(Some(A))), unchanged([412, 0, 0, 412, 412]), "write with A");
        assert_eq!(row(write(Some(B))), unchanged([412; 5]), "write with B");
        let expected = [(0, Available), (412, Leased), (412, Breaking), (0, Available), (0, Available)];
        assert_eq!(row(write(None)), expected, "write without id");
        let read = |id: Uuid| move |lease: &mut Lease, now| lease.check_read(now, Some(id));
        assert_eq!(row(read(A)), unchanged([412, 0, 0, 412, 412]), "read with A");
        assert_eq!(row(read(B)), unchanged([412; 5]), "read with B");

        let acquire = |id| move |lease: &mut Lease, now| lease.acquire(now, id, FRESH, MINUTE).map(|_| ());
        let expected = [(0, Leased), (409, Leased), (409, Breaking), (0, Leased), (0, Leased)];
        assert_eq!(row(acquire(None)), expected, "acquire without id");
        assert_eq!(row(acquire(Some(B))), expected, "acquire B");
        let expected = [(0, Leased), (0, Leased), (409, Breaking), (0, Leased), (0, Leased)];
        assert_eq!(row(acquire(Some(A))), expected, "acquire A");

        let renew = |id| move |lease: &mut Lease, now| lease.renew(now, id);
        let expected = [(409, Available), (0, Leased), (409, Breaking), (409, Broken), (0, Leased)];
        assert_eq!(row(renew(A)), expected, "renew A");
        assert_eq!(row(renew(B)), unchanged([409; 5]), "renew B");
        let change = |lease: &mut Lease, now| lease.change(now, A, B);
        assert_eq!(row(change), unchanged([409, 0, 409, 409, 409]), "change A to B");
        let release = |id| move |lease: &mut Lease, _: Moment| lease.release(id);
        let expected = [409, 0, 0, 0, 0].map(|status| (status, Available));
        assert_eq!(row(release(A)), expected, "release A");
        assert_eq!(row(release(B)), unchanged([409; 5]), "release B");
        let break_now = |lease: &mut Lease, now| lease.break_it(now, Some(Duration::ZERO)).map(|_| ());
        let expected = [(409, Available), (0, Broken), (0, Broken), (0, Broken), (0, Broken)];
        assert_eq!(row(break_now), expected, "break at once");
    }

    #[test]
    fn codes() {
        let code = |outcome: Outcome<()>| outcome.unwrap_err().code;
        let now = after(30);
        let check = |state, id| code(lease(state).check_write(now, id));
        assert_eq!(check(LeaseState::Leased, None), ErrorCode::LeaseIdMissing);
        assert_eq!(check(LeaseState::Leased, Some(B)), ErrorCode::LeaseIdMismatchWithBlobOperation);
        assert_eq!(check(LeaseState::Expired, Some(A)), ErrorCode::LeaseLost);
        assert_eq!(check(LeaseState::Available, Some(A)), ErrorCode::LeaseNotPresentWithBlobOperation);
        let renew = |state, id| code(lease(state).renew(now, id));
        assert_eq!(renew(LeaseState::Broken, A), ErrorCode::LeaseIsBrokenAndCannotBeRenewed);
        assert_eq!(renew(LeaseState::Leased, B), ErrorCode::LeaseIdMismatchWithLeaseOperation);
        let change = |state| code(lease(state).change(now, A, B));
        assert_eq!(change(LeaseState::Breaking), ErrorCode::LeaseIsBreakingAndCannotBeChanged);
        assert_eq!(change(LeaseState::Available), ErrorCode::LeaseNotPresentWithLeaseOperation);
        let acquire = |id| lease(LeaseState::Breaking).acquire(now, id, FRESH, None).unwrap_err().code;
        assert_eq!(acquire(Some(A)), ErrorCode::LeaseIsBreakingAndCannotBeAcquired);
        assert_eq!(acquire(None), ErrorCode::LeaseAlreadyPresent);
    }

    #[test]
    fn an_expired_lease_is_renewed_only_if_nobody_wrote() {
        let mut untouched = lease(LeaseState::Expired);
        untouched.renew(after(30), A).unwrap();
        assert_eq!(untouched.state(after(44)), LeaseState::Leased);
        assert_eq!(untouched.state(after(45)), LeaseState::Expired);
        let mut written = lease(LeaseState::Expired);
        written.written(after(30));
        assert!(written.renew(after(30), A).is_err());
    }

    #[test]
    fn break_periods() {
        let seconds = Duration::from_secs;
        let now = after(30);
        assert_eq!(lease(LeaseState::Leased).break_it(now, None).unwrap(), seconds(30));
        assert_eq!(lease(LeaseState::Leased).break_it(now, Some(seconds(10))).unwrap(), seconds(10));
        assert_eq!(lease(LeaseState::Leased).break_it(now, Some(seconds(50))).unwrap(), seconds(30));
        assert_eq!(lease(LeaseState::Breaking).break_it(now, Some(seconds(50))).unwrap(), seconds(30));
        assert_eq!(lease(LeaseState::Breaking).break_it(now, Some(seconds(5))).unwrap(), seconds(5));
        let infinite = || {
            let mut lease = Lease::default();
            lease.acquire(start(), Some(A), FRESH, None).unwrap();
            lease
        };
        let mut broken = infinite();
        assert_eq!(broken.break_it(now, None).unwrap(), seconds(0));
        assert_eq!(broken.state(now), LeaseState::Broken);
        let mut breaking = infinite();
        assert_eq!(breaking.break_it(now, Some(seconds(20))).unwrap(), seconds(20));
        assert_eq!(
            (breaking.state(after(49)), breaking.state(after(50))),
            (LeaseState::Breaking, LeaseState::Broken)
        );
        assert_eq!(breaking.duration_text(after(31)), None);
        assert_eq!(infinite().duration_text(now), Some("infinite"));
    }
}
