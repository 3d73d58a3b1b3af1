//! Points of a disk in one region, and the resource manager of the other, which makes disks of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs, unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use snapferry::Error;
use snapferry::azure::arm::{Arm, ArmEndpoint, ArmId, ArmKind};
use snapferry::azure::{Client, PlainHttp, Role};
use snapferry::progress::Progress;
use snapferry::restore::disk::{DiskJob, DiskReport, Way, restore_to_disk};
use snapferry::restore::point::Which;
use snapferry::step::Report;
use snapferry_emulator::{Call, Disk, DiskSnapshot, Fault, FaultKind, Link};
use tokio_util::sync::CancellationToken;

use crate::world::manager::SignedIn;
use crate::world::{self, MIB, World, noise, url};

pub const AWAY: &str = "northeurope";
pub const DISK: u64 = 24 * MIB;

/// A world with points of a disk that changed between them, and the target's resource manager.
pub struct Site {
    pub world: World,
    pub snapshots: Vec<DiskSnapshot>,
    pub points: Vec<Report>,
}

impl Site {
    pub async fn new() -> Self {
        Self::with(World::new().await).await
    }

    pub async fn with(world: World) -> Self {
        let disk = world.disk(DISK);
        disk.write(0, &noise(1, MIB)).unwrap();
        disk.write(5 * MIB, &noise(2, 9 * MIB)).unwrap();
        disk.write(20 * MIB, &vec![0; 65_536]).unwrap();
        disk.write(DISK - 4096, &noise(3, 4096)).unwrap();
        let mut site = Self { world, snapshots: Vec::new(), points: Vec::new() };
        site.snapshot(&disk).await;
        disk.write(6 * MIB, &noise(4, MIB)).unwrap();
        disk.clear(0, 65_536).unwrap();
        disk.write(17 * MIB + 512, &noise(5, 1024)).unwrap();
        site.snapshot(&disk).await;
        disk.write(2 * MIB, &noise(6, 8192)).unwrap();
        site.snapshot(&disk).await;
        site
    }

    pub async fn snapshot(&mut self, disk: &Disk) {
        let snapshot = disk.snapshot();
        let report = self.world.copy(&snapshot, self.snapshots.last()).await.unwrap();
        self.world.assert_identical(&report, &snapshot);
        self.snapshots.push(snapshot);
        self.points.push(report);
    }

    /// Makes chunks small and writes slow, so that much can happen in the middle of an upload.
    pub fn slow(&mut self) {
        self.world.settings.plan.chunk = 64 << 10;
        self.world.settings.copy.concurrency = 4;
        self.world.target.set_link(Link { latency: Duration::from_millis(3), ..Link::default() });
    }

    pub fn client(&self) -> Client {
        let limits = world::client();
        Client::new(limits.timeouts, limits.retry, Some(Arc::new(SignedIn(self.world.target.arm())))).unwrap()
    }

    pub fn arm(&self) -> Arm {
        let endpoint =
            ArmEndpoint::parse(&self.world.target.arm().endpoint(), PlainHttp::LoopbackOnly).unwrap();
        Arm::new(self.client(), endpoint, Arc::default())
    }

    /// The id that a disk of this name has in the target's region.
    pub fn id(&self, name: &str) -> String {
        let group = self.world.account.arm_id();
        let (group, _) = group.split_once("/providers/").unwrap();
        // The resource group exists with its first resource.
        if self.world.target.arm().disk(&format!("{group}/providers/Microsoft.Compute/disks/first")).is_none()
        {
            let _ = self.world.target.create_disk("first", MIB);
        }
        format!("{group}/providers/Microsoft.Compute/disks/{name}")
    }

    pub fn job(&self, point: usize, name: &str) -> DiskJob {
        let base = url(Role::Target, &self.world.target_url());
        let which = Which::Named(self.points[point].point.point.clone());
        let disk = ArmId::parse(ArmKind::Disk, &self.id(name)).unwrap();
        let job = DiskJob::new(base, which, disk, Some("North Europe".to_owned()));
        DiskJob { note_every: Duration::from_millis(20), ..job }
    }

    pub fn import(&self, point: usize, name: &str) -> DiskJob {
        DiskJob { way: Way::Import, storage_account: Some(self.account_id()), ..self.job(point, name) }
    }

    pub fn account_id(&self) -> ArmId {
        ArmId::parse(ArmKind::StorageAccount, &self.world.account.arm_id()).unwrap()
    }

    pub async fn restore(&self, job: &DiskJob) -> Result<DiskReport, Error> {
        self.restore_until(job, &CancellationToken::new()).await
    }

    pub async fn restore_until(
        &self,
        job: &DiskJob,
        cancel: &CancellationToken,
    ) -> Result<DiskReport, Error> {
        let (arm, client, progress) = (self.arm(), self.client(), Progress::default());
        restore_to_disk(job, &arm, &client, &self.world.settings, &progress, cancel).await
    }

    pub fn disk(&self, name: &str) -> Option<Disk> {
        self.world.target.arm().disk(&self.id(name))
    }

    /// What the resource manager shows of the disk.
    pub async fn shown(&self, name: &str) -> Value {
        let arm = self.world.target.arm();
        let at = format!("{}{}?api-version=2024-03-02", arm.endpoint(), self.id(name));
        let bearer = format!("Bearer {}", arm.token(world::HOUR));
        let reply = world::raw(reqwest::Method::GET, &at, &[("authorization", &bearer)], Vec::new()).await;
        serde_json::from_str(&reply.text().await.unwrap()).unwrap()
    }

    /// Fails unless the disk is whole, equals the point's snapshot byte for byte, and carries nothing of ours.
    pub async fn assert_restored(&self, name: &str, point: usize) {
        let disk = self.disk(name).expect("the disk exists");
        assert_eq!(disk.state(), "Unattached");
        assert_same(&disk, &self.snapshots[point]);
        let tags = self.shown(name).await["tags"].to_string();
        assert!(!tags.contains("snapferry"), "{tags}");
        assert_eq!(self.world.target.arm().active_grants(), Vec::<String>::new(), "a SAS was left");
    }

    pub fn count(&self, call: Call) -> u64 {
        self.world.target.stats().of(call).requests
    }

    pub fn fault(&self, fault: Fault) {
        self.world.target.faults().add(fault);
    }

    /// Waits until this many pages were written since `before`.
    pub async fn uploaded(&self, before: u64, writes: u64) {
        while self.count(Call::PutPage) < before + writes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub fn assert_same(disk: &Disk, snapshot: &DiskSnapshot) {
    assert_eq!(disk.image_len(), snapshot.len(), "lengths differ");
    let (ours, theirs) = (disk.read_image(0, u64::MAX), snapshot.read(0, u64::MAX));
    let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!((ours.len(), differs), (theirs.len(), None), "the disk differs from its snapshot");
}

pub fn put_page() -> Fault {
    Fault::new(FaultKind::InternalError).on(Call::PutPage).at(snapferry_emulator::Role::DiskExport)
}
