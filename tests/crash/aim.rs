//! Where a child is killed: before a request is applied, after it, or so that it is applied when its sender is dead.

use std::time::Duration;

use fastrand::Rng;
use snapferry_emulator::{Call, Fault, FaultKind};

use crate::world::World;

/// Longer than any test: a request that meets this is never answered.
const FOR_EVER: Duration = Duration::from_hours(1);

/// What changes the base.
pub const WRITES: [Call; 6] = [
    Call::PutPage,
    Call::ClearPages,
    Call::SetMetadata,
    Call::SetProperties,
    Call::SnapshotBlob,
    Call::Lease,
];

/// Places at which a child can be killed. Which one it was is found out afterwards, from the base and the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Looking,
    Granted,
    Marked,
    Copying,
    Written,
    Sealing,
    Sealed,
    Between,
    Unresized,
    Resized,
    Resuming,
    RebaseMarked,
    Rebasing,
    RollbackLooking,
    RollingBack,
    RolledBack,
    Done,
}

impl Kind {
    pub const ALL: [Kind; 17] = [
        Self::Looking,
        Self::Granted,
        Self::Marked,
        Self::Copying,
        Self::Written,
        Self::Sealing,
        Self::Sealed,
        Self::Between,
        Self::Unresized,
        Self::Resized,
        Self::Resuming,
        Self::RebaseMarked,
        Self::Rebasing,
        Self::RollbackLooking,
        Self::RollingBack,
        Self::RolledBack,
        Self::Done,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::Looking => "before access was granted",
            Self::Granted => "access granted, before the marker",
            Self::Marked => "after the marker, before the first chunk",
            Self::Copying => "among chunks",
            Self::Written => "everything written, marker still applying",
            Self::Sealing => "marker sealing, no point yet",
            Self::Sealed => "point made, marker not clean yet",
            Self::Between => "between two steps",
            Self::Unresized => "growing: after the marker, before the resize",
            Self::Resized => "growing: after the resize, before the first chunk",
            Self::Resuming => "a torn base found, not taken up yet",
            Self::RebaseMarked => "rebase: after the marker, before the first chunk",
            Self::Rebasing => "rebase: among chunks",
            Self::RollbackLooking => "rollback: before its marker",
            Self::RollingBack => "rollback: among pages",
            Self::RolledBack => "rollback: all copied back, not clean yet",
            Self::Done => "done, on the way out",
        }
    }
}

/// What is known before a child is started.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    pub place: Place,
    /// Steps that are left before the first that grows the base.
    pub grows_after: Option<u64>,
    pub steps_left: usize,
    /// Whether the base must begin anew, or is in the middle of that.
    pub is_rebase: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Nothing,
    Clean,
    Applying,
    Sealing,
    /// Applying, and the child rolls it back.
    RollBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    Source,
    Target,
}

/// At which of its requests a child is killed, and what becomes of that.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    pub region: Region,
    /// Any if absent.
    pub call: Option<Call>,
    /// How many of those pass first.
    pub skip: u64,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is never applied.
    Before,
    /// It is applied, and its sender hears nothing of that.
    After,
    /// It is applied when its sender is dead and the next child is at work.
    Late(Duration),
}

impl How {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..10) {
            0..4 => Self::Before,
            4..7 => Self::After,
            _ => Self::Late(late(rng)),
        }
    }

    /// The fault that shows in the record of requests when the child got there.
    pub fn fault(self) -> &'static str {
        match self {
            Self::Before => "stall",
            Self::After => "cut-after-apply",
            Self::Late(_) => "delayed-apply",
        }
    }
}

/// How late a request comes: to a run that is not over yet, to the next, or to one after that.
pub fn late(rng: &mut Rng) -> Duration {
    let most = if rng.bool() { 40 } else { 400 };
    Duration::from_millis(rng.u64(2..most))
}

impl Aim {
    /// The same where the service pulls the chunks.
    pub fn at_pulls(self) -> Self {
        let call = self.call.map(|call| if call == Call::PutPage { Call::PutPageFromUrl } else { call });
        Self { call, ..self }
    }

    /// Anywhere in what a child does.
    pub fn anywhere(rng: &mut Rng) -> Self {
        if rng.u8(..4) == 0 {
            let call = Some(WRITES[rng.usize(..WRITES.len())]);
            return Self { region: Region::Target, call, skip: rng.u64(..8), how: How::Late(late(rng)) };
        }
        let region = if rng.u8(..3) == 0 { Region::Source } else { Region::Target };
        // Most of the many requests are chunks.
        let most = [15, 60, 200][rng.usize(..3)];
        let how = if rng.bool() { How::Before } else { How::After };
        Self { region, call: None, skip: rng.u64(..most), how }
    }

    /// To where a child that begins like this probably comes; none if it cannot.
    pub fn at(kind: Kind, before: Before, rng: &mut Rng) -> Option<Self> {
        use Place::{Applying, Clean, Nothing, RollBack, Sealing};
        let Before { place, grows_after, steps_left, is_rebase } = before;
        let target = |call, skip, how| Some(Aim { region: Region::Target, call: Some(call), skip, how });
        let source = |call, skip, how| Some(Aim { region: Region::Source, call: Some(call), skip, how });
        let chunk = if rng.u8(..4) == 0 { Call::ClearPages } else { Call::PutPage };
        let how = How::draw(rng);
        let unheard = if rng.bool() { How::Before } else { How::Late(late(rng)) };
        let read_how = if rng.bool() { How::Before } else { How::After };
        let syncs = place != RollBack;
        let begins = matches!(place, Nothing | Clean) && steps_left > 0;
        match kind {
            Kind::Looking if syncs && rng.bool() => source(Call::ArmListSnapshots, 0, read_how),
            Kind::Looking if syncs => target(Call::HeadBlob, 0, read_how),
            Kind::Granted if place == Nothing && rng.bool() => target(Call::PutBlob, 0, unheard),
            Kind::Granted if begins && rng.bool() => source(Call::BeginGetAccess, rng.u64(..2), read_how),
            Kind::Granted if begins => target(Call::SetProperties, 0, unheard),
            Kind::Marked if begins && !is_rebase && grows_after != Some(0) => match rng.u8(..3) {
                0 => target(Call::SetMetadata, 0, How::After),
                1 => source(Call::GetBlob, rng.u64(..3), How::Before),
                _ => target(Call::PutPage, 0, unheard),
            },
            Kind::Copying if syncs && place != Sealing && steps_left > 0 => {
                target(chunk, rng.u64(1..20), how)
            }
            Kind::Written if syncs && place != Sealing && steps_left > 0 => match rng.u8(..3) {
                0 => source(Call::EndGetAccess, 0, read_how),
                // The first raises the fence for the step, the next one closes it for the seal.
                _ => target(Call::SetProperties, 1, how),
            },
            Kind::Sealing if syncs && steps_left > 0 => target(Call::SnapshotBlob, 0, how),
            Kind::Sealed if syncs && steps_left > 0 => target(Call::SnapshotBlob, 0, How::After),
            Kind::Between if syncs && steps_left > 1 => source(Call::ArmListSnapshots, 1, read_how),
            Kind::Unresized if begins && !is_rebase => {
                target(Call::SetProperties, 2 * grows_after? + 1, unheard)
            }
            Kind::Resized if begins && !is_rebase => {
                target(Call::SetProperties, 2 * grows_after? + 1, How::After)
            }
            Kind::Resuming if place == Applying && rng.bool() => target(Call::SetProperties, 0, how),
            Kind::Resuming if place == Applying => target(Call::Lease, 0, How::After),
            Kind::RebaseMarked if syncs && is_rebase => target(Call::ClearPages, 0, how),
            Kind::Rebasing if syncs && is_rebase => target(Call::PutPage, rng.u64(1..30), how),
            Kind::RollbackLooking if place == RollBack && rng.bool() => target(Call::SetProperties, 0, how),
            Kind::RollbackLooking if place == RollBack => target(Call::Lease, 0, How::After),
            Kind::RollingBack if place == RollBack => target(chunk, rng.u64(1..10), how),
            Kind::RolledBack if place == RollBack => target(Call::SetProperties, rng.u64(1..3), how),
            Kind::Done if syncs && steps_left == 1 => source(Call::ArmListSnapshots, 1, read_how),
            _ => None,
        }
    }

    /// Sets the faults that bring it about.
    pub fn set(self, world: &World) {
        let faults = match self.region {
            Region::Source => world.source.faults(),
            Region::Target => world.target.faults(),
        };
        let fault = |kind| {
            let fault = Fault::new(kind).skip(self.skip);
            if let Some(call) = self.call { fault.on(call) } else { fault }
        };
        match self.how {
            How::Before => {}
            How::After => faults.add(fault(FaultKind::CutAfterApply)),
            How::Late(after) => faults.add(fault(FaultKind::DelayedApply { after })),
        }
        // Nothing of the kind happens after it, however long it takes to kill the child.
        faults.add(fault(FaultKind::Stall { lasting: FOR_EVER }).always());
    }
}
