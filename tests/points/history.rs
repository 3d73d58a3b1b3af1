//! A base blob with a history, and everything that is done to its points.

use std::collections::BTreeSet;
use std::time::Duration;

use snapferry::azure::{PageBlob, Role};
use snapferry::base::lease::LeaseOptions;
use snapferry::base::points::known;
use snapferry::base::protect::{Change, ProtectReport, change};
use snapferry::base::prune::{self, PruneReport};
use snapferry::base::retention::Retention;
use snapferry::progress::Progress;
use snapferry::rollback::{RollbackReport, rollback};
use snapferry::step::Report;
use snapferry_emulator::{Call, Disk, DiskSnapshot, Fault, FaultKind};
use tokio_util::sync::CancellationToken;

use crate::world::{MIB, World, noise, output, snapferry, text, url};

pub(crate) const DAY: Duration = Duration::from_hours(24);

/// A base blob with a point for each of `days` snapshots, a day apart.
pub(crate) struct History {
    pub(crate) world: World,
    pub(crate) disk: Disk,
    pub(crate) snapshots: Vec<DiskSnapshot>,
    pub(crate) reports: Vec<Report>,
}

impl History {
    pub(crate) async fn of(days: usize) -> Self {
        let world = World::new().await;
        let disk = world.disk(4 * MIB);
        let mut history = Self { world, disk, snapshots: Vec::new(), reports: Vec::new() };
        for _ in 0..days {
            history.next_day().await.unwrap();
        }
        history
    }

    pub(crate) fn snapshot(&mut self) -> DiskSnapshot {
        self.world.source.advance_clock(DAY);
        let day = self.snapshots.len() as u64;
        self.disk.write((day % 8) * 256 * 1024, &noise(day, 64 * 1024)).unwrap();
        self.disk.snapshot()
    }

    pub(crate) async fn next_day(&mut self) -> snapferry::Result<()> {
        let snapshot = self.snapshot();
        let report = self.world.copy(&snapshot, self.snapshots.last()).await?;
        self.snapshots.push(snapshot);
        self.reports.push(report);
        Ok(())
    }

    /// A step that fails in the middle: the base is torn.
    pub(crate) async fn tear(&mut self) -> DiskSnapshot {
        let snapshot = self.snapshot();
        self.world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::PutPage).always());
        assert!(self.world.copy(&snapshot, self.snapshots.last()).await.is_err());
        self.world.target.faults().clear();
        assert_eq!(self.world.state().as_deref(), Some("applying"));
        snapshot
    }

    pub(crate) fn blob(&self) -> PageBlob {
        PageBlob::connect(url(Role::Target, &self.world.target_url()), &self.world.client).unwrap()
    }

    pub(crate) fn point(&self, day: usize) -> &str {
        &self.reports[day].point.point
    }

    /// The days whose points exist, as the emulator holds them.
    pub(crate) fn days(&self) -> Vec<usize> {
        let there = self.world.base(None).unwrap().snapshots().to_vec();
        (0..self.reports.len()).filter(|&day| there.iter().any(|time| time == self.point(day))).collect()
    }

    pub(crate) fn assert_identical(&self, days: &[usize]) {
        for &day in days {
            self.world.assert_identical(&self.reports[day], &self.snapshots[day]);
        }
    }

    pub(crate) async fn prune(&self, retention: Retention) -> PruneReport {
        prune::prune(&self.blob(), &retention, &CancellationToken::new()).await.unwrap()
    }

    pub(crate) async fn protect(&self, what: Change, days: &[usize]) -> snapferry::Result<ProtectReport> {
        let points = days.iter().map(|&day| self.point(day).to_owned()).collect();
        self.change(what, points).await
    }

    pub(crate) async fn change(
        &self,
        what: Change,
        points: BTreeSet<String>,
    ) -> snapferry::Result<ProtectReport> {
        let lease = LeaseOptions { wait: Duration::ZERO, ..LeaseOptions::default() };
        change(&self.blob(), what, &points, lease, &CancellationToken::new()).await
    }

    /// The days whose points are protected, by the base blob's own word.
    pub(crate) async fn protected(&self) -> Vec<usize> {
        let known = known(&self.blob()).await.unwrap();
        let protected: Vec<_> =
            known.iter().filter(|known| known.protected).map(|known| known.point.point.clone()).collect();
        (0..self.reports.len()).filter(|&day| protected.iter().any(|time| time == self.point(day))).collect()
    }

    pub(crate) async fn roll_back(&self) -> RollbackReport {
        let target = url(Role::Target, &self.world.target_url());
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        rollback(&target, &self.world.client, &self.world.settings, &progress, &cancel).await.unwrap()
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = snapferry();
        command.arg("points").args(arguments).env("SNAPFERRY_TARGET", self.world.target_url());
        let run = output(command).await;
        (run.status.code(), text(&run.stdout), text(&run.stderr))
    }
}
