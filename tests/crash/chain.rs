//! One disk, copied by children that are killed, until its chain is at the target and everything is checked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fastrand::Rng;
use reqwest::Method;
use snapferry_emulator::{Call, Disk, DiskSnapshot, Fault, FaultKind, RequestRecord};

use crate::Tally;
use crate::aim::{self, Aim, Before, Kind, Place, Region};
use crate::judge::{self, Deeds, Judge, Marker, assert_history, is_done};
use crate::victim::{Command, End, Victim};
use crate::world::{MIB, World, assert_same_bytes, noise, raw};

const LEASE_LAPSES: Duration = Duration::from_secs(61);
const GRANT_LAPSES: Duration = Duration::from_mins(11);
const BETWEEN_SNAPSHOTS: Duration = Duration::from_hours(1);
/// Runs after which a chain must be at its end: many more than kills.
const MOST_RUNS: usize = 100;

/// What happens to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Plain,
    /// It grows twice.
    Growing,
    /// The snapshot that the base builds upon is deleted: the base begins anew.
    Rebased,
    /// Some of the runs are in server mode.
    Pulled,
}

pub struct Chain {
    world: World,
    disk: Disk,
    /// All that were ever taken.
    snapshots: Vec<DiskSnapshot>,
    /// Index of the one that was deleted.
    deleted: Option<usize>,
    shape: Shape,
    rng: Rng,
    kills_left: u64,
    compared: BTreeSet<String>,
    /// How many requests to the target there were when each run began.
    began: Vec<usize>,
    /// What happened so far, told when something fails.
    diary: Diary,
}

impl Chain {
    pub async fn new(seed: u64, number: u64, shape: Shape) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let world = World::new().await;
        let disk = world.disk(rng.u64(3..6) * MIB);
        let kills_left = rng.u64(6..=10);
        let mut chain = Self {
            world,
            disk,
            snapshots: Vec::new(),
            deleted: None,
            shape,
            rng,
            kills_left,
            compared: BTreeSet::new(),
            began: Vec::new(),
            diary: Diary(vec![format!("chain {number} of seed {seed}: {shape:?}")], String::new()),
        };
        let count = if shape == Shape::Rebased { 2 } else { chain.rng.usize(3..=4) };
        for number in 0..count {
            if shape == Shape::Growing && (number == 1 || number == count - 1) {
                chain.grow();
            }
            chain.take_snapshot();
        }
        chain
    }

    fn grow(&mut self) {
        self.disk.grow(self.disk.len() + self.rng.u64(1..=2) * MIB).unwrap();
    }

    /// Changes the disk here and there, with ends that fall between chunks.
    fn take_snapshot(&mut self) {
        let (rng, disk) = (&mut self.rng, &self.disk);
        for large in [true, true, false, false, false] {
            let sectors = if large { rng.u64(200..1600) } else { rng.u64(1..40) };
            let at = rng.u64(..disk.len() / 512 - sectors) * 512;
            disk.write(at, &noise(rng.u64(..), sectors * 512)).unwrap();
        }
        let sectors = rng.u64(1..1000);
        disk.clear(rng.u64(..disk.len() / 512 - sectors) * 512, sectors * 512).unwrap();
        self.snapshots.push(self.disk.snapshot());
        // Nobody takes two in one second.
        self.world.source.advance_clock(BETWEEN_SNAPSHOTS);
    }

    /// Runs and kills until everything is copied, then checks everything.
    pub async fn finish(mut self, tally: &mut Tally) {
        while !self.run(tally).await {
            assert!(self.began.len() < MOST_RUNS, "it never comes to its end");
        }
        self.settle().await;
        self.count_late(tally);
        self.check_end().await;
    }

    /// One run. Returns whether the whole chain is copied.
    async fn run(&mut self, tally: &mut Tally) -> bool {
        tally.runs += 1;
        let marker = judge::base(&self.world).map(|(_, marker)| marker);
        tally.resumed +=
            u64::from(marker.as_ref().is_some_and(|now| now.state == "applying" && now.checkpoint > 0));
        let command = self.command(marker.as_ref());
        self.world.source.faults().clear();
        self.world.target.faults().clear();
        let aim = (self.kills_left > 0).then(|| self.aim(&command, marker.as_ref(), tally));
        let pulls = matches!(command, Command::Sync { pull: true, .. });
        let aim = aim.map(|aim| if pulls { aim.at_pulls() } else { aim });
        tally.pulling += u64::from(pulls);
        let was_pulled = judge::base(&self.world).map(|(base, _)| judge::is_pulled(&base));
        let goes_on = marker.as_ref().is_some_and(|now| now.state == "applying" && now.checkpoint > 0);
        let is_crossed = goes_on && was_pulled != Some(pulls) && matches!(command, Command::Sync { .. });
        tally.crossed += u64::from(is_crossed && self.shape == Shape::Pulled);
        if let Some(aim) = aim {
            aim.set(&self.world);
            self.be_late(&command, marker.as_ref());
        }
        let sources = self.world.source.requests().len();
        let targets = self.world.target.requests().len();
        self.began.push(targets);
        let left = self.world.source.arm().active_grants();
        self.diary.0.push(format!("{command:?} over {}, {aim:?}", told(marker.as_ref())));

        let every = if self.rng.u8(..4) == 0 { "50ms" } else { "1ms" };
        let due = self.due(aim, sources, targets);
        let mut victim = Victim::start(&self.world, &command, every);
        let end = victim.until(due).await;
        self.diary.1 = victim.said();
        match end {
            End::Killed => {
                self.kills_left -= 1;
                let (source, target) = (self.world.source.requests(), self.world.target.requests());
                let deeds =
                    Deeds { command: &command, source: &source[sources..], target: &target[targets..] };
                let kind = deeds.kind(&self.world, &self.snapshots);
                tally.killed(kind, aim.map_or("", |aim| aim.how.fault()));
                tally.rollbacks += u64::from(matches!(command, Command::Rollback));
                self.diary.0.push(format!("  killed: {}", kind.text()));
                self.world.target.advance_clock(LEASE_LAPSES);
            }
            End::Exited(code) => self.ended(code, &command, tally),
        }
        self.judge();
        if let End::Exited(_) = end {
            let now = self.world.source.arm().active_grants();
            assert!(now.iter().all(|id| left.contains(id)), "it ended, and a SAS of its is out: {now:?}");
        }
        self.is_copied(end, &command)
    }

    fn ended(&mut self, code: i32, command: &Command, tally: &mut Tally) {
        self.diary.0.push(format!("  exit code {code}"));
        match (code, command) {
            (0, _) => {}
            // A killed run left its SAS, and the base does not say so: that of a torn one is taken over.
            (25, Command::Sync { revoke: false, .. }) => {
                tally.refused_grants += 1;
                if let Some((_, torn)) = judge::base(&self.world).filter(|(_, now)| now.state == "applying") {
                    let of_step = |taken: &&DiskSnapshot| {
                        taken.time() == torn.to || Some(taken.time()) == torn.from.as_deref()
                    };
                    for snapshot in self.snapshots.iter().filter(of_step) {
                        let own = format!("access to the snapshot ({})", snapshot.arm_id());
                        assert!(!self.diary.1.contains(&own), "a SAS of the torn step is not taken over");
                    }
                }
                if self.rng.bool() {
                    self.snapshots.iter().for_each(DiskSnapshot::revoke);
                } else {
                    self.world.source.advance_clock(GRANT_LAPSES);
                }
            }
            // Someone is at work, it seems: a late request of the dead took or renewed the lease, or made the blob.
            (17 | 18, _) if self.has_late_rival() => {
                tally.refused_leases += 1;
                self.world.target.advance_clock(LEASE_LAPSES);
            }
            _ => panic!("exit code {code}"),
        }
    }

    fn command(&mut self, marker: Option<&Marker>) -> Command {
        let can_go_back = marker.is_some_and(|now| now.state == "applying" && now.last_point.is_some());
        if can_go_back && self.kills_left > 0 && self.rng.u8(..10) < 4 {
            return Command::Rollback;
        }
        Command::Sync {
            disk: self.disk.arm_id(),
            rebase: self.deleted.is_some(),
            revoke: self.rng.bool(),
            pull: self.shape == Shape::Pulled && self.rng.u8(..3) > 0,
            // Another way to say "all".
            until: self.rng.bool().then(|| self.snapshots.last().unwrap().name().to_owned()),
        }
    }

    /// Half of the time at a place where none was killed yet.
    fn aim(&mut self, command: &Command, marker: Option<&Marker>, tally: &Tally) -> Aim {
        let before = self.before(command, marker);
        let kinds = match self.rng.u8(..10) {
            0..5 => tally.missing(),
            5..8 => Kind::ALL.to_vec(),
            _ => return Aim::anywhere(&mut self.rng),
        };
        let aims: Vec<_> =
            kinds.into_iter().filter_map(|kind| Aim::at(kind, before, &mut self.rng)).collect();
        if aims.is_empty() { Aim::anywhere(&mut self.rng) } else { aims[self.rng.usize(..aims.len())] }
    }

    fn before(&self, command: &Command, marker: Option<&Marker>) -> Before {
        let place = match (marker.map(|marker| marker.state.as_str()), command) {
            (None, _) => Place::Nothing,
            (Some("applying"), Command::Rollback) => Place::RollBack,
            (Some("applying"), Command::Sync { .. }) => Place::Applying,
            (Some("sealing"), _) => Place::Sealing,
            _ => Place::Clean,
        };
        let is_done = |snapshot: &&DiskSnapshot| {
            marker.is_some_and(|now| match now.state.as_str() {
                "applying" => snapshot.time() < now.to.as_str(),
                _ => snapshot.time() <= now.to.as_str(),
            })
        };
        let left: Vec<_> = self.snapshots.iter().skip_while(is_done).collect();
        let mut length = self.world.base(None).map(|base| base.len());
        let grows_after = left.iter().position(|snapshot| {
            length.replace(snapshot.len()).is_some_and(|before| before != snapshot.len())
        });
        let is_rebase = self.deleted.is_some()
            && marker.is_some_and(|now| match now.state.as_str() {
                "applying" => now.from.is_none(),
                _ => self.deleted.is_some_and(|gone| self.snapshots[gone].time() == now.to),
            });
        Before {
            place,
            grows_after: grows_after.map(|steps| steps as u64),
            steps_left: left.len(),
            is_rebase,
        }
    }

    /// In some of the runs the network holds writes back, or doubles them.
    fn be_late(&mut self, command: &Command, marker: Option<&Marker>) {
        if self.before(command, marker).is_rebase && self.rng.bool() {
            // The clear before a full copy, once more when chunks are written already.
            let after = Duration::from_millis(self.rng.u64(1..20));
            let fault = Fault::new(FaultKind::LateDuplicate { after }).on(Call::ClearPages);
            self.diary.0.push(format!("  late: the clear of a rebase, {after:?}"));
            self.world.target.faults().add(fault);
        }
        if self.rng.u8(..3) == 0 {
            // The end of access that one run asked for ends that of the next.
            let after = aim::late(&mut self.rng);
            let fault = Fault::new(FaultKind::LateDuplicate { after }).on(Call::EndGetAccess);
            self.diary.0.push(format!("  late: {} {after:?}", Call::EndGetAccess));
            self.world.source.faults().add(fault.times(self.rng.u64(1..4)));
        }
        while self.rng.u8(..5) < 2 {
            let after = aim::late(&mut self.rng);
            let is_doubled = self.rng.u8(..4) > 0;
            let kind = if is_doubled {
                FaultKind::LateDuplicate { after }
            } else {
                FaultKind::DelayedApply { after }
            };
            let times = if is_doubled { self.rng.u64(1..6) } else { 1 };
            let call = match (aim::WRITES[self.rng.usize(..aim::WRITES.len())], command) {
                (Call::PutPage, Command::Sync { pull: true, .. }) => Call::PutPageFromUrl,
                (call, _) => call,
            };
            let fault = Fault::new(kind).on(call).skip(self.rng.u64(..6)).times(times);
            self.diary.0.push(format!("  late: {call} {:?} x{times}", fault.kind));
            self.world.target.faults().add(fault);
        }
    }

    /// Whether the child got to where it is to be killed.
    fn due(&self, aim: Option<Aim>, sources: usize, targets: usize) -> impl Fn() -> bool {
        let emulators = [(Region::Source, sources), (Region::Target, targets)];
        let fired = emulators.map(|(region, _)| self.fired(region));
        let world = &self.world;
        move || {
            let Some(aim) = aim else { return false };
            let (at, (_, since)) =
                emulators.iter().enumerate().find(|(_, (region, _))| *region == aim.region).unwrap();
            if self.fired(aim.region) == fired[at] {
                return false;
            }
            let requests = match aim.region {
                Region::Source => world.source.requests(),
                Region::Target => world.target.requests(),
            };
            requests[*since..].iter().any(|request| {
                request.fault == Some(aim.how.fault()) && aim.call.is_none_or(|call| call == request.call)
            })
        }
    }

    fn fired(&self, region: Region) -> u64 {
        match region {
            Region::Source => self.world.source.faults().fired(),
            Region::Target => self.world.target.faults().fired(),
        }
    }

    fn judge(&mut self) {
        let (world, snapshots, compared) = (&self.world, &self.snapshots, &mut self.compared);
        Judge { world, snapshots, compared }.judge();
    }

    /// Whether nothing is left to do. The second half of a rebase begins here.
    fn is_copied(&mut self, end: End, command: &Command) -> bool {
        let is_first_half = self.shape == Shape::Rebased && self.deleted.is_none();
        let is_done = end == End::Exited(0) && matches!(command, Command::Sync { .. });
        let is_torn = judge::base(&self.world)
            .is_some_and(|(_, marker)| marker.state == "applying" && marker.from.is_some());
        // Most of the time the base is clean at the snapshot that is deleted; now and then it is on its way there.
        if !is_first_half || !(is_done || is_torn && self.rng.u8(..5) == 0) {
            return is_done && !is_first_half;
        }
        let last = self.snapshots.len() - 1;
        self.snapshots[last].delete();
        self.deleted = Some(last);
        self.kills_left += 4;
        if self.rng.bool() {
            self.grow();
        }
        self.take_snapshot();
        self.take_snapshot();
        self.diary.0.push(format!("snapshot {} is deleted, two are new", last + 1));
        false
    }

    /// What was late has come.
    async fn settle(&self) {
        let started = Instant::now();
        let outstanding = || {
            let requests = self.world.target.requests();
            let is_late =
                |request: &&RequestRecord| matches!(request.fault, Some("late-duplicate" | "delayed-apply"));
            let (came, sent): (Vec<_>, Vec<_>) =
                requests.iter().filter(is_late).partition(|request| request.late);
            sent.len() - came.len()
        };
        while outstanding() > 0 {
            assert!(started.elapsed() < Duration::from_mins(1), "a late request never comes");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.world.target.advance_clock(LEASE_LAPSES);
        self.world.source.advance_clock(GRANT_LAPSES);
    }

    /// Requests that came when another run than that of their sender was at work.
    fn count_late(&self, tally: &mut Tally) {
        let requests = self.world.target.requests();
        for (at, late) in requests.iter().enumerate().filter(|(_, request)| request.late) {
            let is_it = |request: &RequestRecord| !request.late && request.headers == late.headers;
            let sent = requests[..at].iter().position(is_it).expect("it was sent before");
            if self.began.iter().any(|began| (sent + 1..=at).contains(began)) {
                tally.late += 1;
                if is_done(late) {
                    // The next one had begun, and waited for the lease of the dead, under which this was let in. It only
                    // raises a number, which is read again under the next lease.
                    let raises = late.call == Call::SetProperties
                        && late.header("x-ms-sequence-number-action") == Some("max");
                    let harmless = [Call::Lease, Call::PutBlob];
                    assert!(
                        raises || harmless.contains(&late.call),
                        "of the dead came late and was let in: {late:?}"
                    );
                    *tally.late_done.entry(late.call.name()).or_default() += 1;
                }
            }
        }
    }

    fn has_late_rival(&self) -> bool {
        let rivals = [Call::Lease, Call::PutBlob];
        self.world.target.requests().iter().any(|request| request.late && rivals.contains(&request.call))
    }

    async fn check_end(&mut self) {
        self.judge();
        assert_history(&self.world.target.requests(), self.shape == Shape::Rebased);

        // Once more, with nothing in its way: it finds that nothing is left to do, and writes nothing.
        self.diary.0.push("once more".to_owned());
        let before = (self.world.source.stats(), self.world.target.stats());
        self.world.source.faults().clear();
        self.world.target.faults().clear();
        let disk = self.disk.arm_id();
        let command = Command::Sync { disk, rebase: false, revoke: false, pull: false, until: None };
        let mut victim = Victim::start(&self.world, &command, "5s");
        let end = victim.until(|| false).await;
        self.diary.1 = victim.said();
        assert_eq!(end, End::Exited(0));
        let after = (self.world.source.stats(), self.world.target.stats());
        let calls = [
            Call::PutPage,
            Call::PutPageFromUrl,
            Call::SetMetadata,
            Call::SetProperties,
            Call::SnapshotBlob,
            Call::Lease,
        ];
        for call in calls {
            assert_eq!(before.1.of(call), after.1.of(call), "nothing was left to do: {call}");
        }
        assert_eq!(before.0.of(Call::BeginGetAccess), after.0.of(Call::BeginGetAccess), "nor to be read");

        let (base, marker) = judge::base(&self.world).unwrap();
        let newest = self.snapshots.last().unwrap();
        assert_eq!((marker.state.as_str(), marker.to.as_str()), ("clean", newest.time()));
        assert_same_bytes(&base, newest);
        self.assert_points();
        let head = raw(Method::HEAD, &self.world.target_url(), &[], Vec::new()).await;
        assert_eq!(head.headers()["x-ms-lease-status"], "unlocked", "the lease is held");
        self.assert_source();
    }

    /// One point for each snapshot, but for one that was deleted before it was sealed.
    fn assert_points(&self) {
        let base = self.world.base(None).unwrap();
        let mut sealed = BTreeSet::new();
        for time in base.snapshots() {
            let point = Marker::of(self.world.base(Some(time)).unwrap().metadata()).unwrap();
            sealed.insert(point.to);
        }
        let wanted = |at: &usize| self.deleted != Some(*at) || sealed.contains(self.snapshots[*at].time());
        let wanted: Vec<_> = (0..self.snapshots.len()).filter(wanted).map(|at| &self.snapshots[at]).collect();
        if base.snapshots().len() == sealed.len() {
            self.world.assert_points(&wanted);
            return;
        }
        // The network doubled a request; what that made is equal in all, as was seen after every run.
        let doubled =
            |request: &RequestRecord| request.late && request.call == Call::SnapshotBlob && is_done(request);
        let doubled = self.world.target.requests().iter().filter(|request| doubled(request)).count();
        assert_eq!(base.snapshots().len(), sealed.len() + doubled, "more points than seals");
        assert_eq!(sealed.len(), wanted.len(), "a snapshot without a point");
    }

    /// Nothing was changed at the source, and no SAS is left.
    fn assert_source(&self) {
        let arm = self.world.source.arm();
        assert_eq!(arm.active_grants(), Vec::<String>::new(), "a SAS was left");
        for (at, snapshot) in self.snapshots.iter().enumerate().filter(|(at, _)| self.deleted != Some(*at)) {
            assert!(arm.snapshot(&snapshot.arm_id()).is_some(), "snapshot {} is gone", at + 1);
        }
        let stats = self.world.source.stats();
        for call in [Call::ArmPutSnapshot, Call::ArmPatchSnapshot, Call::ArmDeleteSnapshot, Call::ArmPutDisk]
        {
            assert_eq!(stats.of(call).requests, 0, "{call} at the source");
        }
    }
}

/// What happened, and what the last child said; shown when something fails.
struct Diary(Vec<String>, String);

impl Drop for Diary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n--- the last child said:\n{}", self.0.join("\n"), self.1);
        }
    }
}

fn told(marker: Option<&Marker>) -> String {
    marker.map_or_else(
        || "nothing".to_owned(),
        |now| format!("{} {:?} -> {} at {}", now.state, now.from, now.to, now.checkpoint),
    )
}
