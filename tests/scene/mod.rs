//! A base blob in the middle of a step, and ways to interrupt whatever is done to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use futures::future::LocalBoxFuture;
use snapferry::azure::{PageBlob, Role};
use snapferry::base::lease::LeaseOptions;
use snapferry::base::marker::StepId;
use snapferry::base::{Base, Opening};
use snapferry::chain::SnapshotId;
use snapferry::copy::frontier::Checkpoint;
use snapferry::progress::Progress;
use snapferry::replicate::replicate;
use snapferry::rollback::{RollbackReport, rollback};
use snapferry::step::{Report, Step};
use snapferry::{ErrorKind, Result};
use snapferry_emulator::{Call, Disk, DiskSnapshot, Fault, FaultKind};
use tokio_util::sync::CancellationToken;

use crate::world::{MIB, World, assert_same_bytes, noise, output, snapferry, text, url};

pub const LEASE_LAPSES: Duration = Duration::from_secs(61);
pub const CHUNK: u64 = 64 << 10;

/// Two snapshots of a disk, and a base blob that is clean at the first.
pub struct Scene {
    pub world: World,
    pub disk: Disk,
    pub first: DiskSnapshot,
    pub second: DiskSnapshot,
    pub point: Report,
}

impl Scene {
    pub async fn new(grow: bool) -> Self {
        let mut world = World::new().await;
        small_chunks(&mut world);
        let disk = world.disk(8 * MIB);
        disk.write(0, &noise(1, 3 * MIB)).unwrap();
        let first = disk.snapshot();
        let point = world.copy(&first, None).await.unwrap();
        disk.write(MIB, &noise(2, MIB)).unwrap();
        disk.clear(0, MIB / 2).unwrap();
        disk.write(5 * MIB, &noise(3, MIB)).unwrap();
        disk.write(7 * MIB, &vec![0; 1 << 17]).unwrap();
        if grow {
            disk.grow(12 * MIB).unwrap();
            disk.write(8 * MIB - 1024, &noise(4, MIB)).unwrap();
        }
        let second = disk.snapshot();
        Self { world, disk, first, second, point }
    }

    /// With one chunk at a time, what is written before an interruption is always the same.
    pub fn one_by_one(mut self) -> Self {
        self.world.settings.copy.concurrency = 1;
        self
    }

    /// The step from the first snapshot to the second, ended after that many page writes.
    pub async fn tear(&self, writes: u64) {
        let step = self.world.step(&self.second, Some(&self.first));
        let torn = interrupted(&self.world, Call::PutPage, writes, copying(&self.world, &step)).await;
        assert_eq!(torn.unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(self.world.state().as_deref(), Some("applying"));
    }

    pub fn base_equals(&self, snapshot: &DiskSnapshot) -> bool {
        let base = self.world.base(None).unwrap();
        base.len() == snapshot.len() && base.read(0, base.len()) == snapshot.read(0, snapshot.len())
    }

    /// The base equals the first snapshot, says so, and the next difference from there is right.
    pub async fn assert_back_and_usable(&self) {
        assert_same_bytes(&self.world.base(None).unwrap(), &self.first);
        let metadata = self.world.base(None).unwrap().metadata().clone();
        assert_eq!(metadata["snapferry_state"], "clean");
        assert_eq!(metadata["snapferry_point"], self.point.point.point);
        assert!(!metadata.contains_key("snapferry_last_point"));
        self.world.assert_identical(&self.point, &self.first);
        self.disk.write(2 * MIB, &noise(9, MIB)).unwrap();
        let third = self.disk.snapshot();
        let next = self.world.copy(&third, Some(&self.first)).await.unwrap();
        self.world.assert_identical(&next, &third);
        self.world.assert_identical(&self.point, &self.first);
    }
}

pub fn small_chunks(world: &mut World) {
    world.settings.plan.chunk = CHUNK;
    world.settings.plan.join_gap = Some(0);
    world.settings.copy.grace = Duration::from_millis(20);
}

/// Does work, and cancels it when that many requests of `call` are through: the next ones are held up. Gives the result,
/// which may be a success where there were not so many.
pub async fn interrupted<T, F>(
    world: &World,
    call: Call,
    requests: u64,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let faults = world.target.faults();
    let before = faults.fired();
    let held_up = FaultKind::Stall { lasting: Duration::from_mins(1) };
    faults.add(Fault::new(held_up).on(call).skip(requests).always());
    let cancel = CancellationToken::new();
    let watch = async {
        while faults.fired() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cancel.cancel();
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = work(cancel.clone()) => result,
        () = watch => unreachable!(),
    };
    faults.clear();
    result
}

pub fn copying<'a>(
    world: &'a World,
    step: &'a Step,
) -> impl FnOnce(CancellationToken) -> LocalBoxFuture<'a, Result<Report>> {
    move |cancel| {
        Box::pin(async move {
            replicate(step, &world.client, &world.settings, &Progress::default(), &cancel).await
        })
    }
}

pub fn rolling_back<'a>(
    world: &'a World,
) -> impl FnOnce(CancellationToken) -> LocalBoxFuture<'a, Result<RollbackReport>> {
    move |cancel| {
        Box::pin(async move {
            let target = url(Role::Target, &world.target_url());
            rollback(&target, &world.client, &world.settings, &Progress::default(), &cancel).await
        })
    }
}

pub async fn roll_back(world: &World) -> Result<RollbackReport> {
    rolling_back(world)(CancellationToken::new()).await
}

pub async fn ask(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = snapferry();
    command.args(arguments).env("SNAPFERRY_TARGET", world.target_url());
    let run = output(command).await;
    (run.status.code(), text(&run.stdout), text(&run.stderr))
}

/// A writer that has begun the step from `first` to `second`, and that another one is going to overtake.
pub async fn to_be_overtaken(blob: &PageBlob, first: &DiskSnapshot, second: &DiskSnapshot) -> Base {
    let opening = Opening {
        step: StepId {
            from: Some(SnapshotId::of(&url(Role::Previous, &first.grant())).unwrap()),
            to: SnapshotId::of(&url(Role::Source, &second.grant())).unwrap(),
        },
        length: second.len(),
        run: "loser".to_owned(),
        across_hosts: false,
        origin: None,
        rebase: false,
        lease: LeaseOptions::default(),
    };
    let mut loser = Base::own(blob, opening.lease).await.unwrap();
    loser.begin(&opening, Checkpoint::default()).await.unwrap();
    loser
}
