//! What must hold at every moment, and where a child was when it was killed. Everything is looked at as the emulators
//! hold it, nothing through the code under test.

use std::collections::{BTreeMap, BTreeSet};

use snapferry::record::digest;
use snapferry_emulator::{BlobView, Call, DiskSnapshot, RequestRecord};

use crate::aim::Kind;
use crate::victim::Command;
use crate::world::record::assert_recorded;
use crate::world::{CONTAINER, World, assert_same_bytes};

/// What the base blob, or a request to it, says of the base. Snapshots are named by their times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub state: String,
    pub from: Option<String>,
    pub to: String,
    pub length: u64,
    pub checkpoint: u64,
    pub generation: u64,
    pub run: String,
    pub point: Option<String>,
    pub last_point: Option<String>,
}

impl Marker {
    pub fn of(metadata: &BTreeMap<String, String>) -> Option<Self> {
        Self::read(|name| metadata.get(&format!("snapferry_{name}")).cloned())
    }

    fn of_request(record: &RequestRecord) -> Option<Self> {
        Self::read(|name| record.header(&format!("x-ms-meta-snapferry_{name}")).map(str::to_owned))
    }

    fn read(field: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let state = field("state")?;
        let text = |name| field(name).unwrap_or_else(|| panic!("the marker '{state}' lacks {name}"));
        let some = |name| field(name).filter(|text| text != "none");
        let number = |name| text(name).parse::<u64>().unwrap();
        let time = |id: String| id.rsplit('@').next().unwrap().to_owned();
        Some(Self {
            from: some("from").map(time),
            to: time(text("to")),
            length: number("length"),
            checkpoint: number("checkpoint"),
            generation: number("generation"),
            run: text("run"),
            point: some("point"),
            last_point: some("last_point"),
            state,
        })
    }

    fn is_step_of(&self, other: &Self) -> bool {
        (&self.from, &self.to) == (&other.from, &other.to)
    }
}

/// The base as it is now: marker and bytes of one moment.
pub fn base(world: &World) -> Option<(BlobView, Marker)> {
    let base = world.base(None)?;
    let marker = Marker::of(base.metadata()).expect("a base blob has its marker from its first moment on");
    Some((base, marker))
}

/// Whether the service pulled a part of the step by itself.
pub fn is_pulled(base: &BlobView) -> bool {
    base.metadata().contains_key("snapferry_bytes_pulled")
}

/// A disk's snapshots, those that were deleted too.
pub struct Judge<'a> {
    pub world: &'a World,
    pub snapshots: &'a [DiskSnapshot],
    /// Points that were compared: nothing changes them any more.
    pub compared: &'a mut BTreeSet<String>,
}

impl Judge<'_> {
    /// What must hold whenever nobody writes: after every kill, and after every run that ended.
    pub fn judge(&mut self) {
        let Some((base, marker)) = base(self.world) else { return };
        let mut sealed: BTreeMap<String, String> = BTreeMap::new();
        for time in base.snapshots() {
            let point = self.world.base(Some(time)).unwrap();
            let kept = Marker::of(point.metadata()).expect("every snapshot of the base is a point");
            assert_eq!(kept.state, "sealing", "a snapshot was taken of a torn base");
            if self.compared.insert(time.clone()) {
                let snapshot = self.taken_at(&kept.to);
                assert_same_bytes(&point, snapshot);
                // It survives every kill, and so does the digest of what stands beside it.
                if is_pulled(&point) {
                    // No half record, and no digest that nobody computed.
                    assert!(
                        !point.metadata().contains_key("snapferry_record"),
                        "a record of what did not pass"
                    );
                    assert_eq!(point.metadata()["snapferry_digest"], "none");
                } else if !self.has_pulled(&base) {
                    assert_recorded(&self.world.account, CONTAINER, &point, snapshot);
                }
                assert_eq!(digest::is_right(point.metadata()), Some(true), "the digest of a point");
            }
            // A request that the network doubled may make two of one seal; two seals are two runs.
            let first = sealed.entry(kept.to).or_insert_with(|| kept.run.clone());
            assert_eq!(*first, kept.run, "a snapshot was sealed twice");
        }
        match marker.state.as_str() {
            "clean" => {
                let point = self.world.base(marker.point.as_deref()).expect("its point exists");
                let kept = Marker::of(point.metadata()).unwrap();
                assert_eq!(kept.to, marker.to, "the point is of another snapshot");
                let newest = self.world.base(base.snapshots().last().map(String::as_str)).unwrap();
                assert_eq!(Marker::of(newest.metadata()).unwrap().run, kept.run, "a newer point exists");
                assert_same_bytes(&base, self.taken_at(&marker.to));
            }
            "sealing" => assert_same_bytes(&base, self.taken_at(&marker.to)),
            _ => {
                let snapshot = self.taken_at(&marker.to);
                let (ours, theirs) = (base.read(0, marker.checkpoint), snapshot.read(0, marker.checkpoint));
                assert!(
                    ours == theirs,
                    "not everything below the checkpoint {} is written",
                    marker.checkpoint
                );
            }
        }
    }

    /// Whether the service pulled any of the points: then those after it know only what they wrote.
    fn has_pulled(&self, base: &BlobView) -> bool {
        base.snapshots().iter().any(|time| is_pulled(&self.world.base(Some(time)).unwrap()))
    }

    fn taken_at(&self, time: &str) -> &DiskSnapshot {
        self.snapshots.iter().find(|snapshot| snapshot.time() == time).expect("of a snapshot of the disk")
    }
}

/// Replays all writes that took effect: each fits what the base said of itself at that moment.
pub fn assert_history(requests: &[RequestRecord], may_rebase: bool) {
    let mut now: Option<Marker> = None;
    let of_base = |request: &&RequestRecord| is_done(request) && !request.blob.contains(".records/");
    for request in requests.iter().filter(of_base) {
        let state = now.as_ref().map_or("", |marker| marker.state.as_str());
        match request.call {
            Call::PutBlob | Call::SetMetadata => {
                let next = Marker::of_request(request).expect("metadata holds a marker");
                assert!(follows(now.as_ref(), &next, may_rebase), "after {now:?} came {next:?}");
                now = Some(next);
            }
            Call::PutPage | Call::PutPageFromUrl | Call::ClearPages => {
                // A late request may be noted a while after it was applied. It was let in, so that was before the
                // fence was raised over its number.
                let fence =
                    request.header("x-ms-if-sequence-number-eq").expect("pages are written with a fence");
                let is_over = now.as_ref().is_some_and(|now| fence.parse::<u64>().unwrap() < now.generation);
                assert!(
                    state == "applying" || is_over,
                    "in '{state}', pages were written: {request:?}, {now:?}"
                );
            }
            Call::SetProperties if request.header("x-ms-blob-content-length").is_some() => {
                assert_eq!(state, "applying", "the base was resized");
            }
            Call::SnapshotBlob => assert_eq!(state, "sealing", "a point was made"),
            Call::DeleteBlob | Call::CopyBlob => panic!("{} is never called", request.call),
            _ => {}
        }
    }
}

fn follows(now: Option<&Marker>, next: &Marker, may_rebase: bool) -> bool {
    let Some(now) = now else { return next.state == "applying" && next.from.is_none() };
    // A checkpoint that the network doubled takes the run that wrote it back to where it was. Nobody else.
    let is_doubled =
        next.run == now.run && (now.state.as_str(), next.state.as_str()) == ("applying", "applying");
    if next.generation < now.generation && !is_doubled {
        return false;
    }
    let begins_anew = may_rebase && next.from.is_none() && next.to > now.to;
    match (now.state.as_str(), next.state.as_str()) {
        ("applying", "applying") => next.is_step_of(now) || begins_anew,
        ("applying", "sealing") => next.is_step_of(now) && next.checkpoint == next.length,
        // A rollback: to the point that the base equalled before.
        ("applying", "clean") => {
            next.point == now.last_point && now.from.as_ref().is_none_or(|from| *from == next.to)
        }
        ("sealing", "sealing" | "clean") | ("clean", "clean") => next.is_step_of(now),
        ("clean", "applying") => next.from.as_ref() == Some(&now.to) || begins_anew,
        _ => false,
    }
}

/// Whether a request took effect, whether or not anybody heard of it.
pub fn is_done(request: &RequestRecord) -> bool {
    (200..300).contains(&request.status)
}

/// What a child did until it was killed.
pub struct Deeds<'a> {
    pub command: &'a Command,
    pub source: &'a [RequestRecord],
    pub target: &'a [RequestRecord],
}

impl Deeds<'_> {
    /// Where it was, by what the base is now and by its requests.
    pub fn kind(&self, world: &World, snapshots: &[DiskSnapshot]) -> Kind {
        let has_granted =
            self.source.iter().any(|request| request.call == Call::BeginGetAccess && is_done(request));
        let before = if has_granted { Kind::Granted } else { Kind::Looking };
        let Some((base, marker)) = base(world) else { return before };
        match (marker.state.as_str(), self.command) {
            ("sealing", _) => {
                let newest = base.snapshots().last().and_then(|time| world.base(Some(time)));
                let is_made =
                    newest.is_some_and(|point| Marker::of(point.metadata()).unwrap().to == marker.to);
                if is_made { Kind::Sealed } else { Kind::Sealing }
            }
            ("clean", Command::Rollback) => Kind::Done,
            ("clean", Command::Sync { .. }) if self.marked(|written| written.state == "clean").is_none() => {
                before
            }
            ("clean", Command::Sync { .. }) => {
                let newest = snapshots.iter().map(DiskSnapshot::time).max();
                if newest == Some(marker.to.as_str()) { Kind::Done } else { Kind::Between }
            }
            (_, Command::Rollback) => self.rolling_back(world, &base, &marker),
            (_, Command::Sync { .. }) => self.applying(&base, &marker, snapshots),
        }
    }

    fn applying(&self, base: &BlobView, marker: &Marker, snapshots: &[DiskSnapshot]) -> Kind {
        let is_step = |written: &Marker| written.state == "applying" && written.is_step_of(marker);
        let Some(since) = self.marked(is_step) else { return Kind::Resuming };
        let is_rebase = marker.from.is_none() && !base.snapshots().is_empty();
        let snapshot = snapshots.iter().find(|snapshot| snapshot.time() == marker.to).unwrap();
        if base.len() != marker.length {
            return Kind::Unresized;
        }
        if base.read(0, base.len()) == snapshot.read(0, snapshot.len()) {
            return Kind::Written;
        }
        let whole = format!("bytes=0-{}", marker.length - 1);
        let (mut was_resized, mut has_chunks) = (false, false);
        for request in self.target[since..].iter().filter(|request| is_done(request)) {
            match request.call {
                Call::PutPage | Call::PutPageFromUrl => has_chunks = true,
                Call::ClearPages => has_chunks |= request.header("x-ms-range") != Some(&whole),
                Call::SetProperties => was_resized |= request.header("x-ms-blob-content-length").is_some(),
                _ => {}
            }
        }
        match (is_rebase, has_chunks) {
            (true, true) => Kind::Rebasing,
            (true, false) => Kind::RebaseMarked,
            (false, true) => Kind::Copying,
            (false, false) if was_resized => Kind::Resized,
            (false, false) => Kind::Marked,
        }
    }

    fn rolling_back(&self, world: &World, base: &BlobView, marker: &Marker) -> Kind {
        let Some(_) = self.marked(|written| written.state == "applying") else {
            return Kind::RollbackLooking;
        };
        let point = world.base(marker.last_point.as_deref()).unwrap();
        if base.read(0, point.len()) == point.read(0, point.len()) {
            return Kind::RolledBack;
        }
        Kind::RollingBack
    }

    /// Where in the requests such a marker was written first.
    fn marked(&self, wanted: impl Fn(&Marker) -> bool) -> Option<usize> {
        let writes = |request: &&RequestRecord| matches!(request.call, Call::PutBlob | Call::SetMetadata);
        self.target.iter().position(|request| {
            writes(&request)
                && is_done(request)
                && Marker::of_request(request).is_some_and(|written| wanted(&written))
        })
    }
}
