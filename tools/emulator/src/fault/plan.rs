//! The faults that are set, and which of them meets a request.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Fault, FaultKind};
use crate::call::{Call, Role};
use crate::clock::Moment;
use crate::random::Random;
use crate::request::Request;
use crate::service::Service;

/// The faults of an emulator.
///
/// Faults are asked in the order in which they were added, and the first that meets a request wins; the others do not
/// see that request. Requests that are refused for their signature meet no fault.
#[derive(Clone, Debug)]
pub struct Faults {
    service: Arc<Service>,
}

impl Faults {
    pub(crate) fn new(service: Arc<Service>) -> Faults {
        Faults { service }
    }

    /// Adds a fault after those that are there.
    pub fn add(&self, fault: Fault) {
        self.service.plan.add(fault, self.service.clock.now());
    }

    /// Removes all faults. Late writes that are under way are still applied.
    pub fn clear(&self) {
        self.service.plan.clear();
    }

    /// How many requests met a fault so far.
    pub fn fired(&self) -> u64 {
        self.service.plan.state.lock().fired
    }
}

/// What a request is, as far as faults want to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) call: Call,
    pub(crate) role: Role,
    pub(crate) blob: &'a str,
    pub(crate) has_body: bool,
}

impl<'a> Asking<'a> {
    pub(crate) fn of(request: &'a Request) -> Asking<'a> {
        Asking {
            call: request.call,
            role: request.role,
            blob: &request.target.blob,
            has_body: request.content_length().ok().flatten().is_some_and(|length| length > 0),
        }
    }
}

/// The faults that are set.
#[derive(Debug)]
pub(crate) struct Plan {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    set: Vec<SetFault>,
    random: Random,
    fired: u64,
}

#[derive(Debug)]
struct SetFault {
    fault: Fault,
    added: Moment,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Plan {
        Plan { state: Mutex::new(State { set: Vec::new(), random: Random::new(seed), fired: 0 }) }
    }

    pub(crate) fn add(&self, fault: Fault, now: Moment) {
        self.state.lock().set.push(SetFault { fault, added: now });
    }

    pub(crate) fn clear(&self) {
        self.state.lock().set.clear();
    }

    /// The fault that meets a request; it counts as fired.
    pub(crate) fn pick(&self, asking: Asking<'_>, now: Moment) -> Option<FaultKind> {
        let State { set, random, fired } = &mut *self.state.lock();
        let met = set.iter_mut().find_map(|set| set.meets(asking, now, random).then_some(set))?;
        if met.fault.times != u64::MAX {
            met.fault.times -= 1;
        }
        *fired = fired.saturating_add(1);
        Some(met.fault.kind.clone())
    }

    /// A random number below `end`, from the sequence that chances are drawn from.
    pub(crate) fn random_below(&self, end: u64) -> u64 {
        self.state.lock().random.below(end)
    }
}

impl SetFault {
    fn meets(&mut self, asking: Asking<'_>, now: Moment, random: &mut Random) -> bool {
        let fault = &mut self.fault;
        let concerned = fault.times > 0
            && fault.call.is_none_or(|call| call == asking.call)
            && fault.role.is_none_or(|role| role == asking.role)
            && fault.blob.as_deref().is_none_or(|blob| blob == asking.blob)
            && fault.kind.can_happen_to(asking)
            && fault.kind.is_due(self.added, now);
        if !concerned || !random.chance(fault.chance) {
            return false;
        }
        if fault.skip > 0 {
            fault.skip -= 1;
            return false;
        }
        true
    }
}

impl FaultKind {
    fn is_due(&self, added: Moment, now: Moment) -> bool {
        match self {
            FaultKind::ForbiddenAfter(wait) => now.since(added) >= *wait,
            _ => true,
        }
    }

    fn can_happen_to(&self, asking: Asking<'_>) -> bool {
        let is_page_list = matches!(asking.call, Call::PageRanges | Call::PageRangesDiff);
        match self {
            FaultKind::BadPageList(_) => is_page_list,
            FaultKind::FlipByteInReply => asking.call == Call::GetBlob,
            FaultKind::CutInRequest => asking.has_body,
            FaultKind::TruncateBody { .. } | FaultKind::StallBody { .. } | FaultKind::CutInReply => {
                let lists = matches!(
                    asking.call,
                    Call::GetBlob | Call::GetBlockList | Call::ListBlobs | Call::ListContainers
                );
                is_page_list || lists || asking.role == Role::Management
            }
            FaultKind::TooManyRequests { .. } => asking.role == Role::Management,
            FaultKind::FlipByteInRequest => {
                asking.has_body && matches!(asking.call, Call::PutPage | Call::PutBlob | Call::PutBlock)
            }
            FaultKind::LateDuplicate { .. } | FaultKind::DelayedApply { .. } => {
                changes_something(asking.call)
            }
            _ => true,
        }
    }
}

fn changes_something(call: Call) -> bool {
    !matches!(
        call,
        Call::ListContainers
            | Call::ContainerProperties
            | Call::ListBlobs
            | Call::GetBlob
            | Call::HeadBlob
            | Call::GetBlockList
            | Call::PageRanges
            | Call::PageRangesDiff
            | Call::ArmListSnapshots
            | Call::ArmGetSnapshot
            | Call::ArmListDisks
            | Call::ArmGetDisk
            | Call::ArmGetAccount
            | Call::ArmPoll
            | Call::IdentityToken
            | Call::Unsupported
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::fault::BadPageList;

    const PUT: Asking<'_> = Asking { call: Call::PutPage, role: Role::Account, blob: "disk", has_body: true };
    const MANAGE: Asking<'_> =
        Asking { call: Call::BeginGetAccess, role: Role::Management, blob: "disk-1", has_body: true };
    const GET: Asking<'_> =
        Asking { call: Call::GetBlob, role: Role::DiskExport, blob: "abcd", has_body: false };

    fn plan(faults: impl IntoIterator<Item = Fault>) -> Plan {
        let plan = Plan::new(1);
        let now = Clock::default().now();
        faults.into_iter().for_each(|fault| plan.add(fault, now));
        plan
    }

    /// The names of what meets the same request, asked again and again.
    fn picks(plan: &Plan, asking: Asking<'_>, times: usize) -> Vec<&'static str> {
        let now = Clock::default().now();
        (0..times).map(|_| plan.pick(asking, now).map_or("", |kind| kind.name())).collect()
    }

    #[test]
    fn skips_then_fires_some_times() {
        let plan = plan([Fault::new(FaultKind::InternalError).skip(2).times(2)]);
        assert_eq!(picks(&plan, PUT, 6), ["", "", "internal-error", "internal-error", "", ""]);
        assert_eq!(plan.state.lock().fired, 2);
    }

    #[test]
    fn meets_only_what_it_is_for() {
        let forbidden = || Fault::new(FaultKind::Forbidden).always();
        for (fault, at_put, at_get) in [
            (forbidden(), true, true),
            (forbidden().on(Call::PutPage), true, false),
            (forbidden().at(Role::DiskExport), false, true),
            (forbidden().of_blob("abcd"), false, true),
            (Fault::new(FaultKind::FlipByteInReply).always(), false, true),
            (Fault::new(FaultKind::FlipByteInRequest).always(), true, false),
            (Fault::new(FaultKind::DelayedApply { after: Duration::ZERO }).always(), true, false),
            (Fault::new(FaultKind::BadPageList(BadPageList::Overlapping)).always(), false, false),
        ] {
            let plan = plan([fault.clone()]);
            let met = |asking| !picks(&plan, asking, 1)[0].is_empty();
            assert_eq!((met(PUT), met(GET)), (at_put, at_get), "{fault:?}");
        }
    }

    #[test]
    fn management_has_faults_of_its_own() {
        let throttled = plan([Fault::new(FaultKind::TooManyRequests { seconds: 1 }).always()]);
        assert_eq!(picks(&throttled, PUT, 1), [""]);
        assert_eq!(picks(&throttled, MANAGE, 1), ["too-many-requests"]);
        let page = plan([Fault::new(FaultKind::FlipByteInRequest).always()]);
        assert_eq!(picks(&page, MANAGE, 1), [""]);
    }

    #[test]
    fn the_first_wins_and_the_next_does_not_see_the_request() {
        let second = Fault::new(FaultKind::InternalError).skip(1);
        let plan = plan([Fault::new(FaultKind::Forbidden), second]);
        assert_eq!(picks(&plan, GET, 4), ["forbidden", "", "internal-error", ""]);
        plan.add(Fault::new(FaultKind::Forbidden), Clock::default().now());
        plan.clear();
        assert_eq!(picks(&plan, GET, 1), [""]);
    }

    #[test]
    fn forbidden_after_a_time() {
        let clock = Clock::default();
        let plan = plan([Fault::new(FaultKind::ForbiddenAfter(Duration::from_hours(1)))]);
        assert_eq!(plan.pick(GET, clock.now()), None);
        clock.advance(Duration::from_hours(1));
        for _ in 0..3 {
            assert!(plan.pick(GET, clock.now()).is_some());
        }
    }

    #[test]
    fn chances_depend_on_the_seed_alone() {
        let draw = || picks(&plan([Fault::new(FaultKind::Forbidden).always().chance(0.5)]), GET, 100);
        assert_eq!(draw(), draw());
        assert!((20..80).contains(&draw().iter().filter(|name| !name.is_empty()).count()));
        let never = plan([Fault::new(FaultKind::Forbidden).always().chance(f64::NAN)]);
        assert_eq!(picks(&never, GET, 50), [""; 50]);
    }
}
