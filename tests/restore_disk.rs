//! A point becomes a managed disk: uploaded or imported, gone on with after a crash, and nothing half-made left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use snapferry::azure::arm::{Access, Arm, ArmEndpoint, ArmId, ArmKind};
use snapferry::azure::{Client, PlainHttp, Role};
use snapferry::progress::Progress;
use snapferry::restore::disk::{DiskJob, DiskReport, OnFailure, Way, restore_to_disk};
use snapferry::restore::point::Which;
use snapferry::step::Report;
use snapferry::{Error, ErrorKind};
use snapferry_emulator::Role as Account;
use snapferry_emulator::{
    ArmKnobs, AsyncReply, BusyText, Call, Config, Disk, DiskSnapshot, Fault, FaultKind, Knobs, Link,
    SecondGrant,
};
use tokio_util::sync::CancellationToken;
use world::manager::SignedIn;
use world::{BASE, CONTAINER, MIB, World, noise, url};

const AWAY: &str = "northeurope";
const DISK: u64 = 24 * MIB;

/// A world with points of a disk that changed between them, and the target's resource manager.
struct Site {
    world: World,
    snapshots: Vec<DiskSnapshot>,
    points: Vec<Report>,
}

impl Site {
    async fn new() -> Self {
        Self::with(World::new().await).await
    }

    async fn with(world: World) -> Self {
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

    async fn snapshot(&mut self, disk: &Disk) {
        let snapshot = disk.snapshot();
        let report = self.world.copy(&snapshot, self.snapshots.last()).await.unwrap();
        self.world.assert_identical(&report, &snapshot);
        self.snapshots.push(snapshot);
        self.points.push(report);
    }

    /// Makes chunks small and writes slow, so that much can happen in the middle of an upload.
    fn slow(&mut self) {
        self.world.settings.plan.chunk = 64 << 10;
        self.world.settings.copy.concurrency = 4;
        self.world.target.set_link(Link { latency: Duration::from_millis(3), ..Link::default() });
    }

    fn client(&self) -> Client {
        let limits = world::client();
        Client::new(limits.timeouts, limits.retry, Some(Arc::new(SignedIn(self.world.target.arm())))).unwrap()
    }

    fn arm(&self) -> Arm {
        let endpoint =
            ArmEndpoint::parse(&self.world.target.arm().endpoint(), PlainHttp::LoopbackOnly).unwrap();
        Arm::new(self.client(), endpoint, Arc::default())
    }

    /// The id that a disk of this name has in the target's region.
    fn id(&self, name: &str) -> String {
        let group = self.world.account.arm_id();
        let (group, _) = group.split_once("/providers/").unwrap();
        // The resource group exists with its first resource.
        if self.world.target.arm().disk(&format!("{group}/providers/Microsoft.Compute/disks/first")).is_none()
        {
            let _ = self.world.target.create_disk("first", MIB);
        }
        format!("{group}/providers/Microsoft.Compute/disks/{name}")
    }

    fn job(&self, point: usize, name: &str) -> DiskJob {
        let base = url(Role::Target, &self.world.target_url());
        let which = Which::Named(self.points[point].point.point.clone());
        let disk = ArmId::parse(ArmKind::Disk, &self.id(name)).unwrap();
        let job = DiskJob::new(base, which, disk, Some("North Europe".to_owned()));
        DiskJob { note_every: Duration::from_millis(20), ..job }
    }

    fn import(&self, point: usize, name: &str) -> DiskJob {
        DiskJob { way: Way::Import, storage_account: Some(self.account_id()), ..self.job(point, name) }
    }

    fn account_id(&self) -> ArmId {
        ArmId::parse(ArmKind::StorageAccount, &self.world.account.arm_id()).unwrap()
    }

    async fn restore(&self, job: &DiskJob) -> Result<DiskReport, Error> {
        self.restore_until(job, &CancellationToken::new()).await
    }

    async fn restore_until(&self, job: &DiskJob, cancel: &CancellationToken) -> Result<DiskReport, Error> {
        let (arm, client, progress) = (self.arm(), self.client(), Progress::default());
        restore_to_disk(job, &arm, &client, &self.world.settings, &progress, cancel).await
    }

    fn disk(&self, name: &str) -> Option<Disk> {
        self.world.target.arm().disk(&self.id(name))
    }

    /// What the resource manager shows of the disk.
    async fn shown(&self, name: &str) -> Value {
        let arm = self.world.target.arm();
        let at = format!("{}{}?api-version=2024-03-02", arm.endpoint(), self.id(name));
        let bearer = format!("Bearer {}", arm.token(world::HOUR));
        let reply = world::raw(reqwest::Method::GET, &at, &[("authorization", &bearer)], Vec::new()).await;
        serde_json::from_str(&reply.text().await.unwrap()).unwrap()
    }

    /// Fails unless the disk is whole, equals the point's snapshot byte for byte, and carries nothing of ours.
    async fn assert_restored(&self, name: &str, point: usize) {
        let disk = self.disk(name).expect("the disk exists");
        assert_eq!(disk.state(), "Unattached");
        assert_same(&disk, &self.snapshots[point]);
        let tags = self.shown(name).await["tags"].to_string();
        assert!(!tags.contains("snapferry"), "{tags}");
        assert_eq!(self.world.target.arm().active_grants(), Vec::<String>::new(), "a SAS was left");
    }

    fn count(&self, call: Call) -> u64 {
        self.world.target.stats().of(call).requests
    }

    fn fault(&self, fault: Fault) {
        self.world.target.faults().add(fault);
    }

    /// Waits until this many pages were written since `before`.
    async fn uploaded(&self, before: u64, writes: u64) {
        while self.count(Call::PutPage) < before + writes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn assert_same(disk: &Disk, snapshot: &DiskSnapshot) {
    assert_eq!(disk.image_len(), snapshot.len(), "lengths differ");
    let (ours, theirs) = (disk.read_image(0, u64::MAX), snapshot.read(0, u64::MAX));
    let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!((ours.len(), differs), (theirs.len(), None), "the disk differs from its snapshot");
}

fn put_page() -> Fault {
    Fault::new(FaultKind::InternalError).on(Call::PutPage).at(Account::DiskExport)
}

#[tokio::test]
async fn every_point_becomes_the_disk_that_it_is_of() {
    let site = Site::new().await;
    for point in 0..3 {
        let name = format!("disk-{point}");
        let report = site.restore(&site.job(point, &name)).await.unwrap();
        site.assert_restored(&name, point).await;
        assert_eq!((report.way, report.checked, report.size), ("upload", "crc64", DISK));
        assert_eq!(
            (report.location.as_str(), report.point.as_str()),
            (AWAY, site.points[point].point.point.as_str())
        );
        assert_eq!(report.source, site.points[point].to);
        assert!(report.because.contains("only within a region"), "{}", report.because);
        assert!(
            report.bytes_sent > 9 * MIB && report.bytes_sent < 12 * MIB,
            "zeros are not sent: {report:?}"
        );
        assert!(report.requests > 10 && report.resumed_from.is_none());
        let shown = site.shown(&name).await;
        assert_eq!(shown["sku"]["name"], "Standard_LRS");
    }
    // Read back over the wire, as somebody else would.
    let id = ArmId::parse(ArmKind::Disk, &site.id("disk-1")).unwrap();
    let read = site.arm().begin_get_access(&id, Access::Read, Duration::from_mins(1)).await.unwrap();
    let reply = world::raw(reqwest::Method::GET, &read, &[], Vec::new()).await;
    assert!(reply.bytes().await.unwrap() == site.snapshots[1].read(0, u64::MAX));
}

#[tokio::test]
async fn the_disk_is_made_as_it_was_asked_for() {
    let site = Site::new().await;
    let job = DiskJob {
        point: Which::Latest,
        sku: "Premium_LRS".to_owned(),
        os_type: Some("Linux".to_owned()),
        hyper_v_generation: Some("V2".to_owned()),
        zone: Some("1".to_owned()),
        tags: [("team".to_owned(), "web".to_owned())].into(),
        way: Way::Upload,
        ..site.job(0, "web")
    };
    site.restore(&job).await.unwrap();
    site.assert_restored("web", 2).await;
    let shown = site.shown("web").await;
    assert_eq!((&shown["sku"]["name"], &shown["tags"]), (&json!("Premium_LRS"), &json!({ "team": "web" })));
    for wrong in [
        DiskJob { tags: [("Snapferry-State".to_owned(), String::new())].into(), ..job.clone() },
        DiskJob { sku: "a b".to_owned(), ..job.clone() },
        DiskJob { location: Some("mars; rm".to_owned()), ..job.clone() },
        DiskJob {
            location: None,
            disk: ArmId::parse(ArmKind::Disk, &site.id("other")).unwrap(),
            ..job.clone()
        },
        DiskJob { way: Way::Import, ..job.clone() },
        DiskJob { storage_account: Some(job.disk.clone()), ..job.clone() },
        DiskJob { sas_duration: Duration::from_secs(1), ..job.clone() },
        DiskJob { disk: site.account_id(), ..job.clone() },
    ] {
        let error = site.restore(&wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.advice().is_some(), "{error}");
    }
    assert!(site.disk("other").is_none());
}

#[tokio::test]
async fn a_point_in_the_region_is_imported_without_its_sas() {
    let site = Site::new().await;
    let before = site.count(Call::PutPage);
    let report = site.restore(&site.import(1, "imported")).await.unwrap();
    assert_eq!((report.way, report.bytes_sent, report.checked), ("import", 0, "by the service"));
    assert_eq!(report.because, "an import was asked for");
    site.assert_restored("imported", 1).await;
    assert_eq!(site.count(Call::PutPage), before, "nothing passed through this machine");
    let shown = site.shown("imported").await;
    let source = shown["properties"]["creationData"]["sourceUri"].as_str().unwrap();
    let point = site.points[1].point.point.replace(':', "%3A");
    assert_eq!(source, format!("{}?snapshot={point}", site.world.account.blob_url(CONTAINER, BASE)));
    assert_eq!(shown["properties"]["creationData"]["storageAccountId"], site.world.account.arm_id());
    // Where the region of the account cannot be told, the point is uploaded.
    let job = DiskJob { storage_account: Some(site.account_id()), ..site.job(2, "auto") };
    let report = site.restore(&job).await.unwrap();
    assert_eq!(report.way, "upload");
    assert!(report.because.contains("could not be looked up"), "{}", report.because);
    site.assert_restored("auto", 2).await;
}

#[tokio::test]
async fn snapshots_of_a_premium_account_are_refused_with_what_helps() {
    let site = Site::new().await;
    site.world.account.set_premium(true);
    let error = site.restore(&site.import(0, "imported")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.why().contains("premium"), "{error}");
    assert!(error.advice().unwrap().contains("az storage blob copy start --source-snapshot"), "{error}");
    // Nor can it be read: the first page of the point is refused, and that of the base blob is not.
    site.fault(Fault::new(FaultKind::NotSupported).on(Call::GetBlob).at(Account::Account));
    let error = site.restore(&site.job(0, "uploaded")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(
        error.why().contains("premium") && error.advice().unwrap().contains("general-purpose v2"),
        "{error}"
    );
    assert!(site.disk("imported").is_none() && site.disk("uploaded").is_none(), "nothing was made");
}

#[tokio::test]
async fn an_upload_that_is_interrupted_anywhere_goes_on_and_is_identical() {
    let mut site = Site::new().await;
    site.slow();
    let whole = {
        let before = site.count(Call::PutPage);
        site.restore(&site.job(1, "whole")).await.unwrap();
        site.count(Call::PutPage) - before
    };
    let mut resumed = 0;
    for (number, crashes) in [(0, true), (1, false), (2, true), (3, false), (4, true), (5, false)] {
        let name = format!("disk-{number}");
        let job = site.job(1, &name);
        let before = site.count(Call::PutPage);
        let cancel = CancellationToken::new();
        let middle = async {
            site.uploaded(before, 1 + whole * number / 6).await;
            if !crashes {
                cancel.cancel();
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            result = site.restore_until(&job, &cancel) => {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
                assert!(error.advice().unwrap().contains("the same command goes on with it"), "{error}");
            }
            () = middle => {}
        }
        let disk = site.disk(&name).expect("it is kept");
        assert_ne!(disk.state(), "Unattached", "a half-made disk does not look whole");
        assert!(site.shown(&name).await["tags"].to_string().contains("snapferry-restore"));
        let before = site.count(Call::PutPage);
        let report = site.restore(&DiskJob { location: None, ..job }).await.unwrap();
        site.assert_restored(&name, 1).await;
        if report.resumed_from.is_some() {
            resumed += 1;
            assert!(site.count(Call::PutPage) - before < whole, "it went on");
        }
        assert!(report.because.contains("a run before"), "{}", report.because);
    }
    assert!(resumed >= 3, "{resumed} runs went on from a checkpoint");
}

/// Dropped at every call to the resource manager, as by kill -9, and run again.
#[tokio::test]
async fn a_crash_at_any_call_of_the_resource_manager_is_gone_on_from() {
    for import in [false, true] {
        for call in [
            Call::ArmPutDisk,
            Call::DiskBeginGetAccess,
            Call::ArmPatchDisk,
            Call::DiskEndGetAccess,
            Call::ArmGetDisk,
        ] {
            for skip in 0..3 {
                let site = Site::new().await;
                let job = if import { site.import(2, "disk") } else { site.job(2, "disk") };
                // The call is done, and its reply does not come.
                let stuck = Fault::new(FaultKind::CutAfterApply).on(call).skip(skip).always();
                site.fault(stuck);
                let before = site.count(call);
                let crash = async {
                    while site.count(call) < before + skip + 1 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                let ended = tokio::select! {
                    result = site.restore(&job) => Some(result),
                    () = crash => None,
                };
                site.world.target.faults().clear();
                // Whole, and without our tags, it is no longer ours to go on with.
                let is_over = ended.is_some_and(|result| result.is_ok())
                    || (site.disk("disk").is_some_and(|disk| disk.state() == "Unattached")
                        && !site.shown("disk").await.to_string().contains("snapferry"));
                if !is_over {
                    site.restore(&job).await.unwrap();
                }
                site.assert_restored("disk", 2).await;
            }
        }
    }
}

/// The footer, and nothing else, is missing; or it is there, and nobody was told.
#[tokio::test]
async fn an_upload_whose_footer_was_lost_goes_on_with_it_alone() {
    for kind in [FaultKind::NotSupported, FaultKind::Stall { lasting: Duration::from_mins(1) }] {
        let mut site = Site::new().await;
        site.world.settings.copy.concurrency = 1;
        let writes = {
            let before = site.count(Call::PutPage);
            site.restore(&site.job(0, "whole")).await.unwrap();
            site.count(Call::PutPage) - before
        };
        site.fault(Fault { kind, ..put_page() }.skip(writes - 1));
        let before = site.count(Call::PutPage);
        let job = DiskJob { on_failure: OnFailure::Keep, ..site.job(0, "disk") };
        tokio::select! {
            result = site.restore(&job) => drop(result.unwrap_err()),
            () = site.uploaded(before, writes) => {}
        }
        let before = site.count(Call::PutPage);
        let report = site.restore(&job).await.unwrap();
        assert_eq!(site.count(Call::PutPage) - before, 2, "the first page, as a trial, and the footer");
        assert_eq!((report.resumed_from, report.bytes_sent), (Some(DISK), 512));
        site.assert_restored("disk", 0).await;
    }
}

/// Where an upload may be ended with less than a footer, a disk that looks whole and is not must not be left.
#[tokio::test]
async fn an_upload_that_somebody_else_made_a_disk_of_is_not_taken_for_whole() {
    let mut site = Site::new().await;
    site.slow();
    let job = site.job(0, "disk");
    let before = site.count(Call::PutPage);
    tokio::select! {
        _ = site.restore(&job) => panic!("it was to be dropped"),
        () = site.uploaded(before, 60) => {}
    }
    // Somebody writes a footer to it and ends the upload.
    site.arm().end_get_access(&job.disk).await.unwrap_err();
    let sas = site.arm().begin_get_access(&job.disk, Access::Write, Duration::from_mins(1)).await.unwrap();
    let range = format!("bytes={DISK}-{}", DISK + 511);
    let headers = [("x-ms-page-write", "update"), ("x-ms-range", range.as_str())];
    let footer = site.snapshots[0].read(DISK, 512);
    let page = world::raw(reqwest::Method::PUT, &format!("{sas}&comp=page"), &headers, footer).await;
    assert_eq!(page.status(), 201);
    site.arm().end_get_access(&job.disk).await.unwrap();
    let error = site.restore(&job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TargetUnsuitable, "{error}");
    assert!(error.why().contains("nobody knows what it holds"), "{error}");
}

#[tokio::test]
async fn an_upload_outlives_its_sas() {
    for second_grant in
        [SecondGrant::Refused, SecondGrant::Same, SecondGrant::NewBesideOld, SecondGrant::NewInsteadOfOld]
    {
        let mut site = Site::new().await;
        site.slow();
        site.world.target.arm().set_knobs(ArmKnobs { second_grant, ..ArmKnobs::default() });
        let life = Duration::from_mins(10);
        let job = DiskJob { sas_duration: life, ..site.job(0, "disk") };
        let before = site.count(Call::PutPage);
        let middle = async {
            for time in 1..=3 {
                site.uploaded(before, 40 * time).await;
                site.world.target.advance_clock(life + Duration::from_secs(1));
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            result = site.restore(&job) => drop(result.unwrap()),
            () = middle => unreachable!(),
        }
        site.assert_restored("disk", 0).await;
        assert!(site.count(Call::DiskBeginGetAccess) >= 4, "{second_grant:?}");
    }
}

#[tokio::test]
async fn a_sas_that_is_ended_by_somebody_in_mid_upload_is_asked_for_again() {
    let mut site = Site::new().await;
    site.slow();
    let job = site.job(0, "disk");
    let before = site.count(Call::PutPage);
    let middle = async {
        site.uploaded(before, 60).await;
        // A half-made upload is no disk: the service says so, and the SAS is gone.
        let error = site.arm().end_get_access(&job.disk).await.unwrap_err();
        assert_eq!(error.code(), "InvalidVhd");
        std::future::pending::<()>().await
    };
    tokio::select! {
        result = site.restore(&job) => drop(result.unwrap()),
        () = middle => unreachable!(),
    }
    site.assert_restored("disk", 0).await;
}

#[tokio::test]
async fn what_passes_by_itself_does_not_end_an_upload() {
    let site = Site::new().await;
    for kind in [
        FaultKind::InternalError,
        FaultKind::ServerBusy(BusyText::Ingress),
        FaultKind::CutBeforeApply,
        FaultKind::CutAfterApply,
        FaultKind::FlipByteInRequest,
        FaultKind::LateDuplicate { after: Duration::from_millis(50) },
        FaultKind::DelayedApply { after: Duration::from_millis(20) },
    ] {
        site.fault(Fault { kind, ..put_page() }.skip(1).times(2));
    }
    for call in [Call::ArmPutDisk, Call::DiskBeginGetAccess, Call::DiskEndGetAccess, Call::ArmPatchDisk] {
        site.fault(Fault::new(FaultKind::TooManyRequests { seconds: 1 }).on(call));
    }
    site.restore(&site.job(1, "disk")).await.unwrap();
    site.assert_restored("disk", 1).await;
}

#[tokio::test]
async fn operations_are_followed_however_they_are_answered() {
    for how in [AsyncReply::AsyncOperation, AsyncReply::Location, AsyncReply::Both] {
        let site = Site::new().await;
        site.world.target.arm().set_knobs(ArmKnobs {
            begin_access: how,
            other_changes: how,
            polls: 2,
            poll_moves: true,
            retry_after: Some(0),
            late_refusals: true,
            ..ArmKnobs::default()
        });
        site.restore(&site.job(1, "uploaded")).await.unwrap();
        site.assert_restored("uploaded", 1).await;
        site.restore(&site.import(1, "imported")).await.unwrap();
        site.assert_restored("imported", 1).await;
        // An import that fails after it was accepted.
        site.world.account.set_premium(true);
        let error = site.restore(&site.import(0, "failed")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(site.disk("failed").is_none());
    }
}

#[tokio::test]
async fn a_host_that_takes_no_checksums_gets_none() {
    let knobs = Knobs { upload_takes_crc64: false, ..Knobs::default() };
    let world = World::with(Config::default(), Config { knobs, ..Config::default() }).await;
    let site = Site::with(world).await;
    let report = site.restore(&site.job(2, "disk")).await.unwrap();
    assert_eq!(report.checked, "length only");
    site.assert_restored("disk", 2).await;
    let refused = site.world.target.stats().of(Call::PutPage).refused;
    assert_eq!(refused, 1, "it is asked once");
}

#[tokio::test]
async fn a_disk_that_is_there_is_left_alone() {
    let site = Site::new().await;
    site.id("first");
    for (name, bytes, kind) in
        [("same", DISK, ErrorKind::TargetExists), ("other", DISK + MIB, ErrorKind::TargetUnsuitable)]
    {
        let disk = site.world.target.create_disk(name, bytes).unwrap();
        disk.write(0, &noise(9, 4096)).unwrap();
        let before = disk.read_image(0, u64::MAX);
        for job in [site.job(0, name), site.import(0, name)] {
            let error = site.restore(&job).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.advice().unwrap().contains("az disk delete --ids"), "{error}");
        }
        assert!(site.disk(name).unwrap().read_image(0, u64::MAX) == before);
    }
    // Whole, it is a disk like any other.
    site.restore(&site.job(0, "done")).await.unwrap();
    let error = site.restore(&site.job(0, "done")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TargetExists, "{error}");
    site.assert_restored("done", 0).await;
}

#[tokio::test]
async fn a_half_made_disk_of_another_point_is_left_alone() {
    let site = Site::new().await;
    let job = DiskJob { on_failure: OnFailure::Keep, ..site.job(0, "disk") };
    site.fault(Fault { kind: FaultKind::NotSupported, ..put_page() }.skip(2).always());
    site.restore(&job).await.unwrap_err();
    site.world.target.faults().clear();
    assert_eq!(site.disk("disk").unwrap().state(), "ActiveUpload");
    let error = site.restore(&site.job(1, "disk")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TargetExists, "{error}");
    assert!(error.why().contains("another point"), "{error}");
    assert_eq!(site.disk("disk").unwrap().state(), "ActiveUpload");
    site.restore(&job).await.unwrap();
    site.assert_restored("disk", 0).await;
}

#[tokio::test]
async fn a_failure_that_stays_leaves_nothing_half_made() {
    let refusal = || Fault { kind: FaultKind::NotSupported, ..put_page() }.skip(2).always();
    for (on_failure, is_kept) in
        [(OnFailure::GoOn, false), (OnFailure::Delete, false), (OnFailure::Keep, true)]
    {
        let site = Site::new().await;
        site.fault(refusal());
        let job = DiskJob { on_failure, ..site.job(1, "disk") };
        let error = site.restore(&job).await.unwrap_err();
        assert_eq!(site.disk("disk").is_some(), is_kept, "{on_failure:?}: {error}");
        assert_eq!(site.world.target.arm().active_grants().len(), usize::from(is_kept));
        site.world.target.faults().clear();
        site.restore(&job).await.unwrap();
        site.assert_restored("disk", 1).await;
    }
    // What passes is gone on with, unless it was said to delete it.
    for (on_failure, is_kept) in [(OnFailure::GoOn, true), (OnFailure::Delete, false)] {
        let mut site = Site::new().await;
        site.world.settings.plan.chunk = 64 << 10;
        let job = DiskJob { on_failure, ..site.job(1, "disk") };
        let cancel = CancellationToken::new();
        let before = site.count(Call::PutPage);
        let (result, ()) = tokio::join!(site.restore_until(&job, &cancel), async {
            site.uploaded(before, 20).await;
            cancel.cancel();
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(site.disk("disk").is_some(), is_kept, "{on_failure:?}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_nothing_is_left() {
    let site = Site::new().await;
    let arm = site.world.target.arm();
    for action in [
        "Microsoft.Compute/disks/read",
        "Microsoft.Compute/disks/write",
        "Microsoft.Compute/disks/beginGetAccess/action",
    ] {
        arm.deny(action);
        let error = site.restore(&site.job(0, "disk")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionMissing, "{error}");
        assert!(error.advice().unwrap().contains(action), "{error} {:?}", error.advice());
        arm.allow_all();
        assert!(site.disk("disk").is_none(), "{action}");
    }
    // At the end of an upload it is worth keeping.
    arm.deny("Microsoft.Compute/disks/endGetAccess/action");
    let error = site.restore(&site.job(0, "disk")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionMissing, "{error}");
    assert!(error.advice().unwrap().contains("endGetAccess"), "{error}");
    arm.allow_all();
    assert_eq!(site.disk("disk").unwrap().state(), "ActiveUpload");
    let before = site.count(Call::PutPage);
    site.restore(&site.job(0, "disk")).await.unwrap();
    assert_eq!(site.count(Call::PutPage), before, "nothing is written again");
    site.assert_restored("disk", 0).await;
    // A half-made disk that cannot be deleted is told of.
    arm.deny("Microsoft.Compute/disks/delete");
    arm.deny("Microsoft.Compute/disks/beginGetAccess/action");
    let error = site.restore(&site.job(0, "left")).await.unwrap_err();
    assert!(error.advice().unwrap().contains("az disk delete --yes --ids"), "{error}");
    assert_eq!(site.disk("left").unwrap().state(), "ReadyToUpload");
}

#[tokio::test]
async fn notes_that_are_refused_cost_nothing_but_the_way_back() {
    let site = Site::new().await;
    site.fault(Fault::new(FaultKind::Forbidden).on(Call::ArmPatchDisk).always());
    site.restore(&site.job(0, "disk")).await.unwrap();
    let disk = site.disk("disk").unwrap();
    assert_eq!(disk.state(), "Unattached");
    assert_same(&disk, &site.snapshots[0]);
}

#[tokio::test]
async fn a_point_that_is_not_there_or_is_no_disk_makes_nothing() {
    let site = Site::new().await;
    let nobody = Which::Named("2020-01-01T00:00:00.0000000Z".to_owned());
    let error = site.restore(&DiskJob { point: nobody, ..site.job(0, "disk") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    for bytes in [19 * MIB, 21 * MIB + 512] {
        let world = World::new().await;
        let disk = world.disk(bytes);
        disk.write(0, &noise(1, 4096)).unwrap();
        let snapshot = disk.snapshot();
        let report = world.copy(&snapshot, None).await.unwrap();
        let other = Site { world, snapshots: vec![snapshot], points: vec![report] };
        let error = other.restore(&other.job(0, "disk")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceUnsuitable, "{error}");
        assert!(error.why().contains("whole number of MiB"), "{error}");
        assert!(other.disk("disk").is_none());
    }
}

#[tokio::test]
async fn nothing_that_is_stored_or_told_holds_a_secret() {
    let site = Site::new().await;
    let report = site.restore(&site.job(0, "uploaded")).await.unwrap();
    let imported = site.restore(&site.import(0, "imported")).await.unwrap();
    site.fault(Fault { kind: FaultKind::NotSupported, ..put_page() }.skip(2).always());
    let job = DiskJob { on_failure: OnFailure::Keep, ..site.job(1, "half") };
    let error = site.restore(&job).await.unwrap_err();
    let mut told = format!(
        "{report:?} {} {} {error:?} {:?} {job:?}",
        serde_json::to_string(&report).unwrap(),
        serde_json::to_string(&imported).unwrap(),
        error.advice()
    );
    for name in ["uploaded", "imported", "half"] {
        told.push_str(&site.shown(name).await.to_string());
    }
    for mark in ["sig=", "si=", "eyJ", "sv="] {
        assert!(!told.contains(mark), "'{mark}' stands in {told}");
    }
    assert!(told.contains("snapferry-restore"));
}
