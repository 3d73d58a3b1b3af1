//! A point is what it must be, or it is told where it is not and which of point, source and record is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "verify/before_the_seal.rs"]
mod before_the_seal;
mod scene;
mod world;

use proptest::prelude::*;
use scene::{CHUNK, Scene, ask, interrupted, small_chunks};
use snapferry::ErrorKind;
use snapferry::azure::Role;
use snapferry::leaf::LEAF;
use snapferry::progress::Progress;
use snapferry::step::{Report, Verify};
use snapferry::verify::{
    Compared, DigestState, RecordState, Reference, Verdict, VerifyJob, VerifyReport, Wrong, verify,
};
use snapferry_emulator::{Call, DiskSnapshot, Fault, FaultKind};
use tokio_util::sync::CancellationToken;
use world::{BASE, CONTAINER, MIB, World, noise, url};

const PAGE: u64 = 512;

fn job(world: &World, source: Option<&DiskSnapshot>) -> VerifyJob {
    VerifyJob {
        target: url(Role::Target, &world.target_url()),
        which: snapferry::restore::point::Which::Latest,
        source: source.map(|snapshot| url(Role::Source, &snapshot.grant())),
        reference: None,
        sample: None,
        outside_diff: None,
        seed: None,
    }
}

async fn verified(world: &World, job: &VerifyJob) -> VerifyReport {
    try_verify(world, job).await.unwrap()
}

async fn try_verify(world: &World, job: &VerifyJob) -> snapferry::Result<VerifyReport> {
    let cancel = CancellationToken::new();
    let report = verify(job, &world.client, &world.settings, &Progress::default(), &cancel).await?;
    let error = report.error();
    assert_eq!(error.is_none(), report.verdict == Verdict::Equal);
    assert!(error.is_none_or(|error| error.advice().is_some()));
    Ok(report)
}

/// Two points: a full copy and a difference.
async fn two_points() -> (Scene, Report) {
    let scene = Scene::new(false).await;
    let second = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
    scene.world.assert_identical(&second, &scene.second);
    (scene, second)
}

fn record_of(world: &World, point: &str) -> String {
    let text = world.base(Some(point)).unwrap().metadata()["snapferry_record"].clone();
    let name = text.splitn(3, ':').nth(2).unwrap();
    percent_encoding::percent_decode_str(name).decode_utf8().unwrap().into_owned()
}

#[tokio::test]
async fn a_good_point_equals_its_record_and_its_source() {
    let (scene, point) = two_points().await;
    let world = &scene.world;
    let by_record = verified(world, &job(world, None)).await;
    assert_eq!(
        (by_record.verdict, by_record.against, by_record.record, by_record.digest),
        (Verdict::Equal, Compared::Record, RecordState::Complete, DigestState::Right)
    );
    assert_eq!(
        (by_record.point.as_str(), by_record.bytes_compared),
        (&*point.point.point, scene.second.len())
    );
    assert!(by_record.bytes_read < scene.second.len() && by_record.bytes_unknown == 0);
    let by_both = verified(world, &job(world, Some(&scene.second))).await;
    assert_eq!((by_both.verdict, by_both.against), (Verdict::Equal, Compared::SourceAndRecord));

    let older =
        VerifyJob { which: scene.point.point.point.parse().unwrap(), ..job(world, Some(&scene.first)) };
    assert_eq!(verified(world, &older).await.verdict, Verdict::Equal);
}

/// Whatever holds only zeros costs no request.
#[tokio::test]
async fn what_is_not_allocated_is_not_read() {
    let world = World::new().await;
    let disk = world.disk(4096 * MIB);
    disk.write(2048 * MIB, &noise(1, MIB)).unwrap();
    let snapshot = disk.snapshot();
    world.copy(&snapshot, None).await.unwrap();
    for source in [None, Some(&snapshot)] {
        let report = verified(&world, &job(&world, source)).await;
        assert_eq!((report.verdict, report.bytes_compared), (Verdict::Equal, snapshot.len()));
        assert!(report.bytes_read <= MIB + LEAF && report.requests < 30, "{report:?}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Rot {
    Page(u64),
    Record(u64),
    Metadata(u64),
}

fn rot() -> impl Strategy<Value = (Rot, u8)> {
    let what = prop_oneof![
        3 => any::<u64>().prop_map(Rot::Page),
        1 => any::<u64>().prop_map(Rot::Record),
        1 => any::<u64>().prop_map(Rot::Metadata),
    ];
    (what, 0_u8..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_flipped_bit_is_found_and_located((rot, bit) in rot(), with_source in any::<bool>(), newest in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (scene, second) = two_points().await;
            let world = &scene.world;
            let (point, snapshot) =
                if newest { (&second.point.point, &scene.second) } else { (&scene.point.point.point, &scene.first) };
            let source = with_source.then_some(snapshot);
            let job = VerifyJob { which: point.parse().unwrap(), ..job(world, source) };
            match rot {
                Rot::Page(at) => {
                    let at = at % snapshot.len();
                    assert!(world.account.flip_bit(CONTAINER, BASE, Some(point), at, bit));
                    let report = verified(world, &job).await;
                    let grain = if with_source { PAGE } else { LEAF };
                    let start = at / grain * grain;
                    let wrong = if with_source { Wrong::Point } else { Wrong::Unclear };
                    let found: Vec<_> = report.differences.iter().map(|d| (d.start, d.end, d.wrong)).collect();
                    assert_eq!(found, [(start, (start + grain).min(snapshot.len()), wrong)]);
                    assert_eq!(report.first_difference, Some(start));
                    assert_eq!(report.error().unwrap().kind(), ErrorKind::Differs);
                    let verdict = if with_source { Verdict::PointIsWrong } else { Verdict::DiffersFromRecord };
                    assert_eq!(report.verdict, verdict);
                }
                Rot::Record(at) => {
                    let name = record_of(world, point);
                    let length = world.account.read_blob(CONTAINER, &name, None).unwrap().len();
                    assert!(world.account.flip_bit(CONTAINER, &name, None, at % length, bit));
                    let report = verified(world, &job).await;
                    assert_eq!((report.verdict, report.record), (Verdict::RecordDamaged, RecordState::Damaged));
                    let error = report.error().unwrap();
                    let (kind, says) = if with_source {
                        (ErrorKind::Differs, "the point is right")
                    } else {
                        (ErrorKind::Corruption, "says nothing about the point")
                    };
                    assert_eq!(error.kind(), kind);
                    assert!(error.why().contains(says) && error.why().contains(&name), "{error}");
                }
                Rot::Metadata(at) => {
                    let metadata = world.base(Some(point)).unwrap().metadata().clone();
                    let ours: Vec<_> = metadata.iter().filter(|(name, _)| name.starts_with("snapferry_")).collect();
                    let (name, value) = ours[usize::try_from(at).unwrap_or(0) % ours.len()];
                    let mut bytes = value.clone().into_bytes();
                    let place = usize::try_from(at >> 32).unwrap() % bytes.len();
                    // What is no header value could not be sent, and is not stored.
                    bytes[place] ^= 1 << (bit % 5);
                    if bytes[place].is_ascii_graphic() {
                        let value = String::from_utf8(bytes).unwrap();
                        world.account.set_metadata_raw(CONTAINER, BASE, Some(point), name, &value);
                        match try_verify(world, &job).await {
                            Ok(report) => {
                                assert_ne!(report.verdict, Verdict::Equal, "{name} = {value}");
                                assert!(report.digest == DigestState::Damaged, "{name} = {value}");
                            }
                            Err(error) => assert!(
                                // Another source, or another point, as far as the metadata says.
                                matches!(error.kind(), ErrorKind::Corruption | ErrorKind::BaseElsewhere | ErrorKind::DifferentFamilies),
                                "{name} = {value}: {error}"
                            ),
                        }
                    }
                }
            }
        });
    }
}

/// A record that is whole, and wrong: written for other bytes. With the source at hand the point is not blamed.
#[tokio::test]
async fn a_wrong_record_is_told_from_a_wrong_point() {
    let (scene, second) = two_points().await;
    let world = &scene.world;
    // The base blob and the point are changed alike, as if the record had been made of other bytes: then both are
    // compared with a source that has the same change.
    scene.disk.write(5 * MIB, &noise(77, LEAF)).unwrap();
    let changed = scene.disk.snapshot();
    let bytes = (changed.read(5 * MIB, LEAF), scene.second.read(5 * MIB, LEAF));
    for (at, (new, old)) in bytes.0.iter().zip(&bytes.1).enumerate() {
        for bit in (0..8).filter(|bit| (new ^ old) & (1 << bit) != 0) {
            let at = 5 * MIB + at as u64;
            assert!(world.account.flip_bit(CONTAINER, BASE, Some(&second.point.point), at, bit));
        }
    }
    // The metadata names the other snapshot, so that it is the source of this point; its digest cannot know that.
    let id = format!("{}@{}", second.to.rsplit_once('@').unwrap().0, changed.time());
    world.account.set_metadata_raw(CONTAINER, BASE, Some(&second.point.point), "snapferry_to", &id);
    let report = verified(world, &job(world, Some(&changed))).await;
    assert_eq!((report.verdict, report.digest), (Verdict::RecordIsWrong, DigestState::Damaged));
    let found: Vec<_> = report.differences.iter().map(|d| (d.start, d.end, d.wrong)).collect();
    assert_eq!(found, [(5 * MIB, 5 * MIB + LEAF, Wrong::Record)]);
    let error = report.error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Differs);
    assert!(
        error.why().contains("the point equals its source") && error.advice().unwrap().contains("--record")
    );

    // The same source against the record alone, which cannot know better.
    let alone =
        verified(world, &VerifyJob { reference: Some(Reference::Record), ..job(world, Some(&changed)) })
            .await;
    assert_eq!((alone.verdict, alone.against), (Verdict::DiffersFromRecord, Compared::Record));

    // And a rotten point besides: not everywhere is the same one wrong.
    assert!(world.account.flip_bit(CONTAINER, BASE, Some(&second.point.point), MIB, 3));
    let mixed = verified(world, &job(world, Some(&changed))).await;
    assert_eq!(mixed.verdict, Verdict::Mixed);
    let wrong: Vec<_> = mixed.differences.iter().map(|difference| difference.wrong).collect();
    assert_eq!(wrong, [Wrong::Point, Wrong::Record]);
}

#[tokio::test]
async fn a_source_that_is_not_what_was_copied_is_told() {
    let (scene, second) = two_points().await;
    let world = &scene.world;
    let another = verified(world, &job(world, None)).await;
    assert_eq!(another.verdict, Verdict::Equal);
    let refused = try_verify(world, &job(world, Some(&scene.first))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BaseElsewhere);
    assert!(refused.advice().unwrap().contains(scene.second.time()), "{refused}");
    // A point that says that it is of the first snapshot, while its record and its bytes are those of the second.
    world.account.set_metadata_raw(
        CONTAINER,
        BASE,
        Some(&second.point.point),
        "snapferry_to",
        &scene.point.to,
    );
    let report = verified(world, &job(world, Some(&scene.first))).await;
    // What the step read came from elsewhere; of what it only cleared or left as it was nobody can tell.
    assert!(matches!(report.verdict, Verdict::SourceIsWrong | Verdict::Mixed), "{report:?}");
    assert!(report.differences.iter().any(|difference| difference.wrong == Wrong::Source));
    assert!(!report.differences.iter().any(|difference| difference.wrong == Wrong::Point));
    assert!(report.why.contains("its metadata is damaged"), "{}", report.why);
}

#[tokio::test]
async fn a_sample_is_repeatable_with_its_seed() {
    let mut world = World::new().await;
    small_chunks(&mut world);
    let disk = world.disk(32 * MIB);
    disk.write(0, &noise(1, 32 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    let point = world.copy(&snapshot, None).await.unwrap().point.point;
    for chunk in 0..512 {
        assert!(world.account.flip_bit(CONTAINER, BASE, Some(&point), chunk * CHUNK + 700, 1));
    }
    for source in [None, Some(&snapshot)] {
        let sampled = VerifyJob { sample: Some(0.1), ..job(&world, source) };
        let first = verified(&world, &sampled).await;
        assert!((25..80).contains(&first.differing_ranges), "{}", first.differing_ranges);
        assert_eq!(first.bytes_compared / CHUNK, first.differing_ranges, "{first:?}");
        let again = verified(&world, &VerifyJob { seed: first.seed, ..sampled.clone() }).await;
        assert_eq!(first.differences, again.differences);
        let other = verified(&world, &VerifyJob { seed: first.seed.map(|seed| seed + 1), ..sampled }).await;
        assert_ne!(first.differences, other.differences);
    }
}

/// What the step did not write is compared, and nothing else.
#[tokio::test]
async fn the_audit_looks_outside_of_what_the_step_wrote() {
    let mut world = World::new().await;
    small_chunks(&mut world);
    let disk = world.disk(16 * MIB);
    disk.write(0, &noise(1, 16 * MIB)).unwrap();
    let first = disk.snapshot();
    world.copy(&first, None).await.unwrap();
    disk.write(2 * MIB, &noise(2, MIB)).unwrap();
    let second = disk.snapshot();
    let good = world.copy(&second, Some(&first)).await.unwrap();
    let audit = VerifyJob { outside_diff: Some(1.0), ..job(&world, Some(&second)) };
    let report = verified(&world, &audit).await;
    assert_eq!(report.verdict, Verdict::Equal);
    assert_eq!(report.bytes_compared, second.len() - MIB, "all that the step did not write");

    let rotten = 9 * MIB + PAGE;
    for version in [None, Some(good.point.point.as_str())] {
        assert!(world.account.flip_bit(CONTAINER, BASE, version, rotten, 0));
    }
    let report = verified(&world, &audit).await;
    let found: Vec<_> = report.differences.iter().map(|d| (d.start, d.end)).collect();
    assert_eq!(found, [(rotten, rotten + PAGE)]);
    // Inside of the difference it does not look.
    assert!(world.account.flip_bit(CONTAINER, BASE, Some(&good.point.point), 2 * MIB + 5, 0));
    assert_eq!(verified(&world, &audit).await.differing_ranges, 1);
    let both = VerifyJob { sample: Some(1.0), ..audit };
    assert_eq!(verified(&world, &both).await.differing_ranges, 2);
}

/// A difference that leaves out a change: point and record are as they were before it, so that two against one would blame
/// the source.
#[tokio::test]
async fn a_difference_that_left_something_out_is_blamed_and_not_the_source() {
    for mode in [Verify::Sample, Verify::Full] {
        let mut world = World::new().await;
        small_chunks(&mut world);
        let disk = world.disk(8 * MIB);
        disk.write(0, &noise(1, 6 * MIB)).unwrap();
        let first = disk.snapshot();
        let before = world.copy(&first, None).await.unwrap();
        disk.write(5 * MIB, &noise(2, PAGE)).unwrap();
        let second = disk.snapshot();
        disk.write(2 * MIB, &noise(3, MIB)).unwrap();
        let third = disk.snapshot();
        // The base is taken for clean at the second: the difference from there lacks what came before it.
        let id = before.to.replace(first.time(), second.time());
        assert!(world.account.set_metadata_raw(CONTAINER, BASE, None, "snapferry_to", &id));
        world.settings.verify = mode;
        let copied = world.copy(&third, Some(&second)).await;
        if mode == Verify::Full {
            assert_eq!(copied.unwrap_err().kind(), ErrorKind::Corruption);
            assert_eq!(world.points(), 1, "nothing was sealed");
            continue;
        }
        copied.unwrap();
        assert_eq!(
            verified(&world, &job(&world, None)).await.verdict,
            Verdict::Equal,
            "its record follows it"
        );
        let whole = job(&world, Some(&third));
        for job in [VerifyJob { outside_diff: Some(1.0), ..whole.clone() }, whole] {
            let report = verified(&world, &job).await;
            assert_eq!(report.verdict, Verdict::ListWasWrong, "{}", report.why);
            let found: Vec<_> = report.differences.iter().map(|d| (d.start, d.end, d.wrong)).collect();
            assert_eq!(found, [(5 * MIB, 5 * MIB + PAGE, Wrong::List)]);
            assert!(report.error().unwrap().advice().unwrap().contains("repair --record"));
        }
    }
}

#[tokio::test]
async fn without_a_record_the_source_tells_and_without_both_nobody() {
    let mut scene = Scene::new(false).await;
    let step = |scene: &Scene| {
        let target = scene.world.account.blob_sas(CONTAINER, BASE, "rcwd", world::HOUR);
        world::step(&scene.second.grant(), Some(&scene.first.grant()), &target)
    };
    scene.world.settings.verify = Verify::None;
    // A SAS of the blob alone keeps no record.
    let point = scene.world.run(&step(&scene)).await.unwrap();
    let nobody = try_verify(&scene.world, &job(&scene.world, None)).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotFound);
    let by_source = job(&scene.world, Some(&scene.second));
    let report = verified(&scene.world, &by_source).await;
    assert_eq!(
        (report.verdict, report.against, report.record),
        (Verdict::Equal, Compared::Source, RecordState::None)
    );
    assert!(scene.world.account.flip_bit(CONTAINER, BASE, Some(&point.point.point), 7, 7));
    assert_eq!(verified(&scene.world, &by_source).await.verdict, Verdict::DiffersFromSource);
    let audit = VerifyJob { outside_diff: Some(0.5), ..by_source };
    assert_eq!(try_verify(&scene.world, &audit).await.unwrap_err().kind(), ErrorKind::NotFound);

    // The next step has a record, and it begins on one that is not there.
    scene.disk.write(0, &noise(40, MIB)).unwrap();
    let third = scene.disk.snapshot();
    scene.world.copy(&third, Some(&scene.second)).await.unwrap();
    let report = verified(&scene.world, &job(&scene.world, None)).await;
    assert_eq!((report.verdict, report.record), (Verdict::Equal, RecordState::Partial));
    assert!(report.bytes_unknown > 6 * MIB && report.bytes_unknown < third.len() - MIB / 2);
}

#[tokio::test]
async fn what_goes_wrong_on_the_wire_is_no_difference() {
    let (scene, _) = two_points().await;
    for emulator in [&scene.world.source, &scene.world.target] {
        emulator.faults().add(Fault::new(FaultKind::FlipByteInReply).on(Call::GetBlob).chance(0.2).always());
        emulator.faults().add(Fault::new(FaultKind::InternalError).chance(0.1).always());
    }
    let report = verified(&scene.world, &job(&scene.world, Some(&scene.second))).await;
    assert_eq!(report.verdict, Verdict::Equal);
}

#[tokio::test]
async fn it_can_be_interrupted() {
    let (scene, _) = two_points().await;
    let job = job(&scene.world, None);
    let (world, job) = (&scene.world, &job);
    let interrupted = interrupted(world, Call::GetBlob, 12, |cancel| async move {
        verify(job, &world.client, &world.settings, &Progress::default(), &cancel).await
    });
    assert_eq!(interrupted.await.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_with_0_20_or_26_and_names_what_differs_first() {
    let (scene, point) = two_points().await;
    let world = &scene.world;
    let run = |more: &[&str]| {
        let all: Vec<String> =
            ["verify", "--quiet"].into_iter().chain(more.iter().copied()).map(str::to_owned).collect();
        async move { ask(world, &all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let (code, shown, told) = run(&[]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(shown.contains("equals its record") && shown.contains(&point.point.point), "{shown}");
    for bad in [["--sample", "5"], ["--sample", "0%"], ["--outside-diff", "101%"], ["--against", "source"]] {
        assert_eq!(run(&bad).await.0, Some(2), "{bad:?}");
    }

    assert!(world.account.flip_bit(CONTAINER, BASE, Some(&point.point.point), 5 * MIB + 1, 0));
    let source = scene.second.grant();
    let (code, shown, told) = run(&["--source", &source, "--output", "json"]).await;
    let document: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &document["verdict"]), (Some(26), &"point-is-wrong".into()), "{told}");
    assert_eq!(document["differences"][0]["start"], 5 * MIB);
    assert_eq!(document["error"]["kind"], "differs");
    assert!(!shown.contains("sig=") && !told.contains("sig="), "a SAS was shown");
    let (code, shown, _) = run(&["--point", scene.second.time()]).await;
    assert!(code == Some(26) && shown.starts_with("not equal"), "{shown}");
    assert!(shown.contains(&format!("differs       bytes {}..{}", 5 * MIB, 5 * MIB + LEAF)), "{shown}");

    let name = record_of(world, &point.point.point);
    assert!(world.account.flip_bit(CONTAINER, &name, None, 40, 0));
    let (code, shown, told) = run(&["--output", "json"]).await;
    let document: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &document["record"]), (Some(20), &"damaged".into()), "{told}");
    assert!(world.account.delete_blob(CONTAINER, &name));
    let (code, shown, _) = run(&["--output", "json"]).await;
    assert!(code == Some(20) && shown.contains("it was deleted"), "{shown}");
}
