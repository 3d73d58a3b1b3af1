//! A point becomes a managed disk: uploaded or imported, and gone on with after a crash.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod disks;
mod world;

use std::process::Stdio;
use std::time::Duration;

use disks::{AWAY, DISK, Site, assert_same, put_page};
use serde_json::json;
use snapferry::ErrorKind;
use snapferry::azure::arm::{Access, ArmId, ArmKind};
use snapferry::restore::disk::{DiskJob, OnFailure, Way, restore_to_disk};
use snapferry::restore::point::Which;
use snapferry_emulator::{ArmKnobs, Call, Fault, FaultKind, Role, SecondGrant};
use tokio_util::sync::CancellationToken;
use world::{BASE, CONTAINER, MIB, World, noise, output, snapferry, text};

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
}

#[tokio::test]
async fn the_way_that_is_quicker_is_taken_and_said() {
    let site = Site::new().await;
    let job = |name: &str| DiskJob { storage_account: Some(site.account_id()), ..site.job(2, name) };
    let here = DiskJob { location: Some("West Europe".to_owned()), ..job("here") };
    let report = site.restore(&here).await.unwrap();
    assert_eq!((report.way, report.location.as_str()), ("import", "westeurope"));
    assert!(report.because.contains("in the region of the disk"), "{}", report.because);
    site.assert_restored("here", 2).await;
    let report = site.restore(&job("away")).await.unwrap();
    assert_eq!((report.way, report.location.as_str()), ("upload", AWAY));
    assert!(report.because.contains("the point is in westeurope"), "{}", report.because);
    site.assert_restored("away", 2).await;
    // Where the region of the account cannot be told, the point is uploaded.
    site.world.target.arm().deny("Microsoft.Storage/storageAccounts/read");
    let report = site.restore(&DiskJob { disk: job("unknown").disk, ..here }).await.unwrap();
    assert_eq!(report.way, "upload");
    assert!(report.because.contains("could not be looked up"), "{}", report.because);
    site.assert_restored("unknown", 2).await;
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

/// Crashes, interruptions, SAS that end, refusals and lost replies, at random and as often as they come.
#[tokio::test]
async fn whatever_happens_on_the_way_the_disk_that_is_whole_is_the_point() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut site = Site::new().await;
        site.slow();
        let point = random.usize(0..3);
        let second_grant = [SecondGrant::Refused, SecondGrant::Same, SecondGrant::NewInsteadOfOld];
        let second_grant = second_grant[random.usize(0..3)];
        site.world.target.arm().set_knobs(ArmKnobs { second_grant, ..ArmKnobs::default() });
        for kind in [FaultKind::CutAfterApply, FaultKind::InternalError, FaultKind::FlipByteInRequest] {
            site.fault(Fault { kind, ..put_page() }.always().chance(0.02));
        }
        site.fault(Fault::new(FaultKind::CutAfterApply).at(Role::Management).always().chance(0.05));
        let job = DiskJob { sas_duration: Duration::from_mins(1), ..site.job(point, "disk") };
        for run in 0.. {
            assert!(run < 100, "it comes to an end");
            let cancel = CancellationToken::new();
            let before = site.count(Call::PutPage);
            let (writes, how) = (random.u64(1..90), random.u8(0..3));
            let middle = async {
                site.uploaded(before, writes).await;
                match how {
                    0 => return,
                    1 => cancel.cancel(),
                    _ => site.world.target.advance_clock(Duration::from_mins(2)),
                }
                std::future::pending::<()>().await;
            };
            let ended = tokio::select! {
                result = site.restore_until(&job, &cancel) => Some(result),
                () = middle => None,
            };
            let Some(disk) = site.disk("disk") else { continue };
            if disk.state() == "Unattached" {
                // Whatever the run was told: what looks whole is whole.
                assert_same(&disk, &site.snapshots[point]);
                break;
            }
            assert!(ended.is_none_or(|result| result.is_err()), "it said that it is whole");
        }
        site.world.target.faults().clear();
        let disk = site.disk("disk").unwrap();
        assert_eq!(disk.state(), "Unattached");
        assert_same(&disk, &site.snapshots[point]);
    }
}

/// Two runs to one disk write the same bytes: whichever comes to the end, the disk is the point.
#[tokio::test]
async fn two_runs_to_one_disk_do_no_harm() {
    for second_grant in [SecondGrant::Refused, SecondGrant::Same, SecondGrant::NewBesideOld] {
        let mut site = Site::new().await;
        site.slow();
        site.world.target.arm().set_knobs(ArmKnobs { second_grant, ..ArmKnobs::default() });
        let job = site.job(1, "disk");
        let before = site.count(Call::PutPage);
        let late = async {
            site.uploaded(before, 40).await;
            site.restore(&job).await
        };
        let (first, second) = tokio::join!(site.restore(&job), late);
        if first.is_err() && second.is_err() {
            site.restore(&job).await.unwrap();
        }
        let disk = site.disk("disk").unwrap();
        assert_eq!(disk.state(), "Unattached");
        assert_same(&disk, &site.snapshots[1]);
    }
}

/// The program itself, killed in mid-upload.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_that_was_killed_goes_on() {
    let mut site = Site::new().await;
    site.slow();
    let (endpoint, header) = site.world.target.arm().identity();
    let from = site.world.target_url();
    let to = format!("disk:{}", site.id("disk"));
    let command = || {
        let mut command = snapferry();
        command
            .args(["restore", "-o", "json", "-vvv", "--location", AWAY, "--chunk-size", "64KiB"])
            .args(["--concurrency", "2", "--from", &from, "--to", &to])
            .env("RUST_LOG", "trace")
            .env("IDENTITY_ENDPOINT", &endpoint)
            .env("IDENTITY_HEADER", &header)
            .env("SNAPFERRY_LOGIN_TYPE", "msi")
            .env("SNAPFERRY_ARM_ENDPOINT", site.world.target.arm().endpoint())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let before = site.count(Call::PutPage);
    let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    site.uploaded(before, 30).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(site.disk("disk").unwrap().state(), "ActiveUpload");
    let run = output(command()).await;
    let (told, logged) = (text(&run.stdout), text(&run.stderr));
    assert!(run.status.success(), "{logged}");
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&report["way"], &report["size"]), (&json!("upload"), &json!(DISK)));
    site.assert_restored("disk", 2).await;
    for shown in [told, logged] {
        assert!(!shown.contains("eyJ") && !shown.replace("sig=REDACTED", "").contains("sig="), "{shown}");
    }
}

/// It must compile: a program that embeds the library runs it in a task of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_can_be_spawned() {
    let site = Site::new().await;
    let (job, arm, client, settings) = (site.job(0, "disk"), site.arm(), site.client(), site.world.settings);
    let work = tokio::spawn(async move {
        let (progress, cancel) = Default::default();
        restore_to_disk(&job, &arm, &client, &settings, &progress, &cancel).await
    });
    work.await.unwrap().unwrap();
    site.assert_restored("disk", 0).await;
}
