//! What goes wrong while a point becomes a managed disk: it passes, or it is told and nothing half-made is left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod disks;
mod world;

use std::time::Duration;

use disks::{DISK, Site, assert_same, put_page};
use snapferry::ErrorKind;
use snapferry::azure::arm::Access;
use snapferry::restore::disk::{DiskJob, OnFailure};
use snapferry_emulator::{
    ArmKnobs, AsyncReply, BadPageList, BusyText, Call, Config, Fault, FaultKind, Knobs, Role, SecondGrant,
};
use tokio_util::sync::CancellationToken;
use world::World;

#[tokio::test]
async fn snapshots_of_a_premium_account_are_refused_with_what_helps() {
    let site = Site::new().await;
    site.world.account.set_premium(true);
    let error = site.restore(&site.import(0, "imported")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.why().contains("premium"), "{error}");
    assert!(error.advice().unwrap().contains("az storage blob copy start --source-snapshot"), "{error}");
    // Nor can it be read: the first page of the point is refused, and that of the base blob is not.
    site.fault(Fault::new(FaultKind::NotSupported).on(Call::GetBlob).at(Role::Account));
    let error = site.restore(&site.job(0, "uploaded")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(
        error.why().contains("premium") && error.advice().unwrap().contains("general-purpose v2"),
        "{error}"
    );
    assert!(site.disk("imported").is_none() && site.disk("uploaded").is_none(), "nothing was made");
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
            std::future::pending::<()>().await;
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
        std::future::pending::<()>().await;
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
        let says = if is_kept { "the same command goes on" } else { "nothing is left of it" };
        assert!(error.advice().unwrap().contains(says), "{:?}", error.advice());
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

/// What a wrong list of the point's pages had uploaded is not gone on with.
#[tokio::test]
async fn a_page_list_that_is_not_to_be_believed_ends_the_upload() {
    for (on_failure, is_kept) in [(OnFailure::GoOn, false), (OnFailure::Keep, true)] {
        let site = Site::new().await;
        for bad in [BadPageList::Overlapping, BadPageList::Misordered, BadPageList::OutOfBounds] {
            site.fault(Fault::new(FaultKind::BadPageList(bad)).on(Call::PageRanges));
            let job = DiskJob { on_failure, ..site.job(1, "disk") };
            let error = site.restore(&job).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{bad:?}: {error}");
            assert_eq!(site.disk("disk").is_some(), is_kept, "{bad:?}");
            if is_kept {
                let tags = site.shown("disk").await["tags"].to_string();
                assert!(tags.contains(r#""snapferry-checkpoint":"0""#), "{tags}");
            }
        }
        site.world.target.faults().clear();
        site.restore(&site.job(1, "disk")).await.unwrap();
        site.assert_restored("disk", 1).await;
    }
}
