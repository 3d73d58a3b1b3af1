//! A rotten base blob becomes right again, and whatever is interrupted meanwhile, no point is ever sealed that is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod scene;
mod world;

use scene::{CHUNK, Scene, ask, interrupted, roll_back};
use snapferry::azure::Role;
use snapferry::leaf::LEAF;
use snapferry::progress::Progress;
use snapferry::repair::{RepairJob, RepairReport, repair};
use snapferry::restore::point::Which;
use snapferry::step::{Report, Verify};
use snapferry::verify::{RecordState, Verdict, VerifyJob, VerifyReport, verify};
use snapferry::{ErrorKind, Result};
use snapferry_emulator::{Call, DiskSnapshot, Fault, FaultKind};
use tokio_util::sync::CancellationToken;
use world::{BASE, CONTAINER, MIB, World, assert_same_bytes, noise, url};

fn job(world: &World, source: Option<&DiskSnapshot>) -> RepairJob {
    RepairJob {
        target: url(Role::Target, &world.target_url()),
        source: source.map(|snapshot| url(Role::Source, &snapshot.grant())),
        from_point: None,
        record: false,
        trust_point: false,
        dry_run: false,
    }
}

async fn repaired(world: &World, job: &RepairJob) -> Result<RepairReport> {
    repairing(world, job, CancellationToken::new()).await
}

async fn repairing(world: &World, job: &RepairJob, cancel: CancellationToken) -> Result<RepairReport> {
    repair(job, &world.client, &world.settings, &Progress::default(), &cancel).await
}

async fn verified(world: &World, source: Option<&DiskSnapshot>) -> VerifyReport {
    let job = VerifyJob {
        target: url(Role::Target, &world.target_url()),
        which: Which::Latest,
        source: source.map(|snapshot| url(Role::Source, &snapshot.grant())),
        reference: None,
        sample: None,
        outside_diff: None,
        seed: None,
    };
    verify(&job, &world.client, &world.settings, &Progress::default(), &CancellationToken::new())
        .await
        .unwrap()
}

/// A base blob with two points that is rotten in some places, and so is its newest point.
struct Rotten {
    scene: Scene,
    second: Report,
}

const ROT: [u64; 4] = [MIB + 77, 2 * MIB, 2 * MIB + 513, 6 * MIB + 9];

impl Rotten {
    async fn new() -> Self {
        let scene = Scene::new(false).await;
        let second = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
        for at in ROT {
            for version in [None, Some(second.point.point.as_str())] {
                assert!(scene.world.account.flip_bit(CONTAINER, BASE, version, at, 3));
            }
        }
        Self { scene, second }
    }

    fn world(&self) -> &World {
        &self.scene.world
    }

    fn source(&self) -> &DiskSnapshot {
        &self.scene.second
    }

    /// The base is right, its newest point is, with a record, and the next difference from there is right.
    async fn assert_right(&self, points: usize) {
        let world = self.world();
        assert_same_bytes(&world.base(None).unwrap(), self.source());
        assert_eq!((world.state().as_deref(), world.points()), (Some("clean"), points));
        let report = verified(world, Some(self.source())).await;
        assert_eq!(report.verdict, Verdict::Equal, "{}", report.why);
        self.scene.disk.write(3 * MIB, &noise(50, MIB)).unwrap();
        let third = self.scene.disk.snapshot();
        let next = world.copy(&third, Some(self.source())).await.unwrap();
        world.assert_identical(&next, &third);
    }
}

#[tokio::test]
async fn what_differs_and_nothing_else_is_written_from_the_source() {
    let rotten = Rotten::new().await;
    let world = rotten.world();
    let before = world.target.stats();
    let dry = RepairJob { dry_run: true, ..job(world, Some(rotten.source())) };
    let dry = repaired(world, &dry).await.unwrap();
    assert_eq!((dry.outcome, dry.point.is_none(), dry.bytes_repaired), ("would-repair", true, 3 * 512 + 512));
    assert_eq!(world.target.stats().of(Call::PutPage).requests, before.of(Call::PutPage).requests);
    assert_eq!(world.state().as_deref(), Some("clean"));

    let report = repaired(world, &job(world, Some(rotten.source()))).await.unwrap();
    assert_eq!((report.outcome, report.record), ("repaired", "kept"));
    assert_eq!(report.repairs, rotten.second.point.point);
    let point = report.point.unwrap();
    assert_eq!(point.repairs.as_deref(), Some(&*rotten.second.point.point));
    assert_eq!(
        (point.source_time.as_str(), &point.digest),
        (rotten.source().time(), &rotten.second.point.digest)
    );
    let written = world.target.stats().of(Call::PutPage).bytes_in - before.of(Call::PutPage).bytes_in;
    assert_eq!(written, 3 * LEAF);
    world.assert_identical(&Report { point, ..rotten.second.clone() }, rotten.source());
    // The old point stays as it was.
    let old = world.base(Some(&rotten.second.point.point)).unwrap();
    assert_ne!(old.read(ROT[0], 1), rotten.source().read(ROT[0], 1));
    let again = repaired(world, &job(world, Some(rotten.source()))).await.unwrap();
    assert_eq!((again.outcome, again.point.is_none()), ("whole", true));
    rotten.assert_right(3).await;
}

/// The bytes come from another point where the record proves them.
#[tokio::test]
async fn what_another_point_has_is_proven_before_it_is_used() {
    let rotten = Rotten::new().await;
    let world = rotten.world();
    let nowhere = repaired(world, &job(world, None)).await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Differs);
    assert!(nowhere.advice().unwrap().contains("--from-point"), "{nowhere}");
    let from_first = RepairJob {
        from_point: Some(Which::Named(rotten.scene.point.point.point.clone())),
        ..job(world, None)
    };
    // The first point holds other bytes where the step changed them.
    let refused = repaired(world, &from_first).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Differs);
    assert!(refused.why().contains("does not have the right bytes"), "{refused}");
    assert_eq!(world.state().as_deref(), Some("clean"), "nothing was begun");

    // Rot where both points share what is stored.
    let scene = Scene::new(false).await;
    let second = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
    let at = 2 * MIB + 512;
    assert!(scene.world.account.flip_bit(CONTAINER, BASE, None, at, 0));
    assert!(scene.world.account.flip_bit(CONTAINER, BASE, Some(&second.point.point), at, 0));
    let from_first = RepairJob {
        from_point: Some(Which::Named(scene.point.point.point.clone())),
        ..job(&scene.world, None)
    };
    let report = repaired(&scene.world, &from_first).await.unwrap();
    assert_eq!((report.outcome, report.bytes_repaired), ("repaired", LEAF));
    Rotten { scene, second }.assert_right(3).await;
}

#[tokio::test]
async fn a_record_is_written_anew_of_a_base_that_is_proven() {
    for rotten_too in [false, true] {
        let scene = Scene::new(false).await;
        let second = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
        let world = &scene.world;
        for name in world.account.blob_names(CONTAINER).iter().filter(|name| name.contains(".records/")) {
            assert!(world.account.flip_bit(CONTAINER, name, None, 30, 1));
        }
        if rotten_too {
            assert!(world.account.flip_bit(CONTAINER, BASE, None, 4096, 1));
        }
        assert_eq!(verified(world, None).await.error().unwrap().kind(), ErrorKind::Corruption);
        assert_eq!(repaired(world, &job(world, None)).await.unwrap_err().kind(), ErrorKind::Corruption);
        let without = repaired(world, &job(world, Some(&scene.second))).await.unwrap_err();
        assert!(without.advice().unwrap().contains("--record"), "{without}");
        let unproven = RepairJob { record: true, ..job(world, None) };
        assert_eq!(repaired(world, &unproven).await.unwrap_err().kind(), ErrorKind::Usage);

        let report = if rotten_too {
            let proven = RepairJob { source: Some(url(Role::Source, &scene.second.grant())), ..unproven };
            repaired(world, &proven).await.unwrap()
        } else {
            repaired(world, &RepairJob { trust_point: true, ..unproven }).await.unwrap()
        };
        assert_eq!((report.outcome, report.record), ("repaired", "written"));
        assert_eq!(report.bytes_repaired, if rotten_too { 512 } else { 0 });
        let by_record = verified(world, None).await;
        assert_eq!((by_record.verdict, by_record.record), (Verdict::Equal, RecordState::Complete));
        Rotten { scene, second }.assert_right(3).await;
    }
}

/// What a difference left out is in the record as wrong as in the base: both are mended.
#[tokio::test]
async fn what_a_difference_left_out_is_mended_with_its_record() {
    let scene = Scene::new(false).await;
    let world = &scene.world;
    scene.disk.write(2 * MIB, &noise(70, LEAF)).unwrap();
    let third = scene.disk.snapshot();
    // The base is taken for clean at the second snapshot.
    let id = scene.point.to.replace(scene.first.time(), scene.second.time());
    assert!(world.account.set_metadata_raw(CONTAINER, BASE, None, "snapferry_to", &id));
    world.copy(&third, Some(&scene.second)).await.unwrap();
    let refused = repaired(world, &job(world, Some(&third))).await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Differs && refused.advice().unwrap().contains("--record"),
        "{refused}"
    );
    let report = repaired(world, &RepairJob { record: true, ..job(world, Some(&third)) }).await.unwrap();
    assert_eq!((report.outcome, report.record), ("repaired", "written"));
    assert_same_bytes(&world.base(None).unwrap(), &third);
    assert_eq!(verified(world, Some(&third)).await.verdict, Verdict::Equal);
    assert_eq!(verified(world, None).await.record, RecordState::Complete);
}

#[tokio::test]
async fn a_torn_base_and_a_wrong_source_are_refused() {
    let scene = Scene::new(false).await;
    let wrong = repaired(&scene.world, &job(&scene.world, Some(&scene.second))).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::BaseElsewhere);
    scene.tear(5).await;
    let torn = repaired(&scene.world, &job(&scene.world, Some(&scene.first))).await.unwrap_err();
    assert_eq!(torn.kind(), ErrorKind::BaseNotClean);
    assert!(torn.advice().unwrap().contains("rollback"));
}

#[derive(Clone, Copy, Debug)]
enum WayOut {
    Again,
    Back,
    Whole,
}

/// Ended anywhere: whichever way out is taken, what is sealed is right, and what is not repaired is not called so.
#[tokio::test]
async fn an_interrupted_repair_is_run_again_or_rolled_back_or_copied_over() {
    for (call, writes) in [
        (Call::PutPage, 0),
        (Call::PutPage, 2),
        (Call::SetMetadata, 1),
        (Call::SetMetadata, 2),
        (Call::SnapshotBlob, 0),
    ] {
        for way in [WayOut::Again, WayOut::Back, WayOut::Whole] {
            let rotten = Rotten::new().await;
            let world = rotten.world();
            let mend = job(world, Some(rotten.source()));
            let ended = interrupted(world, call, writes, |cancel| repairing(world, &mend, cancel)).await;
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
            let state = world.state().unwrap();
            let metadata = world.base(None).unwrap().metadata().clone();
            if state == "applying" {
                assert_eq!(metadata["snapferry_repairs"], rotten.second.point.point);
                assert_eq!((&*metadata["snapferry_from"], &*metadata["snapferry_checkpoint"]), ("none", "0"));
                // No difference is applied to it.
                let next = world.copy(rotten.source(), Some(&rotten.scene.first)).await.unwrap_err();
                assert_eq!(next.kind(), ErrorKind::BaseNotClean);
            }
            let label = format!("{call:?} {writes} {way:?} {state}");
            match way {
                WayOut::Again => {
                    let report = repaired(world, &mend).await.unwrap();
                    assert_ne!(report.outcome, "whole", "{label}");
                    rotten.assert_right(3).await;
                }
                WayOut::Back => {
                    let back = roll_back(world).await.unwrap();
                    if back.outcome == "seal-finished" {
                        rotten.assert_right(3).await;
                        continue;
                    }
                    assert_eq!(back.point.point, rotten.second.point.point, "{label}");
                    // Clean, and as rotten as it was: repairing it is still to be done.
                    let report = repaired(world, &mend).await.unwrap();
                    assert_eq!(report.outcome, "repaired", "{label}");
                    rotten.assert_right(3).await;
                }
                WayOut::Whole if state == "applying" => {
                    let report = world.copy(rotten.source(), None).await.unwrap();
                    world.assert_identical(&report, rotten.source());
                    rotten.assert_right(3).await;
                }
                WayOut::Whole => {}
            }
        }
    }
}

/// A scheduler that brings the base up to date meanwhile never builds on what is half repaired.
#[tokio::test]
async fn a_sync_after_an_interrupted_repair_copies_the_snapshot_whole() {
    let rotten = Rotten::new().await;
    let world = rotten.world();
    let mend = job(world, Some(rotten.source()));
    let ended = interrupted(world, Call::PutPage, 1, |cancel| repairing(world, &mend, cancel)).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(world.state().as_deref(), Some("applying"));
    rotten.scene.disk.write(4 * MIB, &noise(60, MIB)).unwrap();
    let third = rotten.scene.disk.snapshot();
    let report = world.sync(&world.job(&rotten.scene.disk)).await.unwrap();
    assert_eq!(report.steps.len(), 2);
    for (step, snapshot) in report.steps.iter().zip([rotten.source(), &third]) {
        world.assert_identical(step, snapshot);
    }
}

/// A write that the base does not keep is seen before the seal.
#[tokio::test]
async fn a_base_that_does_not_keep_what_is_written_is_not_sealed() {
    let rotten = Rotten::new().await;
    let world = rotten.world();
    world.target.faults().add(Fault::new(FaultKind::InternalError).chance(0.1).always());
    world.target.faults().add(Fault::new(FaultKind::FlipByteInReply).on(Call::GetBlob).chance(0.1).always());
    let report = repaired(world, &job(world, Some(rotten.source()))).await.unwrap();
    world.target.faults().clear();
    assert_eq!(report.outcome, "repaired");
    rotten.assert_right(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_it_did() {
    let rotten = Rotten::new().await;
    let world = rotten.world();
    let source = rotten.source().grant();
    let (code, shown, told) = ask(world, &["repair", "--quiet", "--source", &source, "--dry-run"]).await;
    assert!(code == Some(0) && shown.starts_with("would repair"), "{shown}{told}");
    let (code, shown, told) =
        ask(world, &["repair", "--quiet", "--source", &source, "--output", "json"]).await;
    let document: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &document["outcome"]), (Some(0), &"repaired".into()), "{told}");
    assert_eq!(document["repairs"], rotten.second.point.point);
    assert!(!shown.contains("sig=") && !told.contains("sig="));
    assert_eq!(ask(world, &["repair", "--quiet", "--record"]).await.0, Some(2));
    rotten.assert_right(3).await;
}

/// A full copy that was made anew is compared as ever.
#[tokio::test]
async fn chunks_of_any_size_are_mended() {
    let mut rotten = Rotten::new().await;
    rotten.scene.world.settings.plan.chunk = CHUNK / 8;
    rotten.scene.world.settings.verify = Verify::Full;
    let world = rotten.world();
    for at in (5 * MIB..6 * MIB).step_by(4096) {
        assert!(world.account.flip_bit(CONTAINER, BASE, None, at, 7));
    }
    let report = repaired(world, &job(world, Some(rotten.source()))).await.unwrap();
    assert_eq!(report.outcome, "repaired");
    rotten.assert_right(3).await;
}
