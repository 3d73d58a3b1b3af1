//! The way out of a torn base blob: back to its last point. Whatever is interrupted, and
//! wherever, base and points end byte for byte equal to snapshots.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod scene;
mod world;

use std::process::{Child, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use reqwest::Method;
use scene::{CHUNK, LEASE_LAPSES, Scene, ask, copying, interrupted, roll_back, rolling_back, small_chunks};
use snapferry::ErrorKind;
use snapferry_emulator::{Call, Config, Disk, DiskSnapshot, Fault, FaultKind};
use world::{MIB, World, assert_same_bytes, noise, raw, snapferry};

#[tokio::test]
async fn a_step_that_was_given_up_anywhere_is_rolled_back() {
    for grow in [false, true] {
        for writes in [0, 1, 9, 30] {
            let scene = Scene::new(grow).await;
            scene.tear(writes).await;
            assert!(writes == 0 || !scene.base_equals(&scene.first), "it is torn indeed");
            let back = roll_back(&scene.world).await.unwrap();
            assert_eq!((back.outcome, &back.point.point), ("rolled-back", &scene.point.point.point));
            assert!(back.given_up.unwrap().contains(scene.second.time()));
            scene.assert_back_and_usable().await;
        }
    }
}

/// Whichever way out is taken after an interrupted rollback, it ends well.
#[tokio::test]
async fn an_interrupted_rollback_is_run_again_or_the_step_is_finished_instead() {
    for grow in [false, true] {
        for (writes, finish) in [(0, false), (6, false), (6, true), (13, true)] {
            let scene = Scene::new(grow).await;
            scene.tear(25).await;
            let back = interrupted(&scene.world, Call::PutPage, writes, rolling_back(&scene.world)).await;
            assert_eq!(back.unwrap_err().kind(), ErrorKind::Interrupted);
            assert!(!scene.base_equals(&scene.first) && !scene.base_equals(&scene.second));
            let metadata = scene.world.base(None).unwrap().metadata().clone();
            assert_eq!(
                (&*metadata["snapferry_state"], &*metadata["snapferry_checkpoint"]),
                ("applying", "0")
            );
            if finish {
                let report = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
                assert_eq!(report.resumed_from, None, "nothing of the step is taken for written");
                scene.world.assert_identical(&report, &scene.second);
                assert_same_bytes(&scene.world.base(None).unwrap(), &scene.second);
                scene.world.assert_identical(&scene.point, &scene.first);
            } else {
                assert_eq!(roll_back(&scene.world).await.unwrap().outcome, "rolled-back");
                scene.assert_back_and_usable().await;
            }
        }
    }
}

#[tokio::test]
async fn a_rollback_is_interrupted_while_it_compares_too() {
    for (grow, finish) in [(false, false), (true, false), (true, true)] {
        let scene = Scene::new(grow).await.one_by_one();
        scene.tear(20).await;
        let reads = |scene: &Scene| scene.world.target.stats().of(Call::GetBlob).requests;
        let before = reads(&scene);
        roll_back(&scene.world).await.unwrap();
        let in_all = reads(&scene) - before;

        let scene = Scene::new(grow).await.one_by_one();
        scene.tear(20).await;
        // The last of them compares: the base has the length of its point by then.
        let back = interrupted(&scene.world, Call::GetBlob, in_all - 1, rolling_back(&scene.world));
        let back =
            tokio::time::timeout(Duration::from_secs(5), back).await.expect("it ends when it is asked to");
        assert_eq!(back.unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(scene.world.state().as_deref(), Some("applying"));
        assert_eq!(scene.world.base(None).unwrap().len(), scene.first.len());
        if finish {
            let report = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
            scene.world.assert_identical(&report, &scene.second);
            assert_same_bytes(&scene.world.base(None).unwrap(), &scene.second);
        } else {
            roll_back(&scene.world).await.unwrap();
            scene.assert_back_and_usable().await;
        }
    }
}

/// A write of the step that is delayed in the network arrives when the base is back already.
#[tokio::test]
async fn a_late_write_of_the_step_does_not_land_after_the_rollback() {
    let scene = Scene::new(false).await;
    let late = FaultKind::DelayedApply { after: Duration::from_secs(2) };
    scene.world.target.faults().add(Fault::new(late).on(Call::PutPage).skip(5).times(3));
    scene.tear(12).await;
    roll_back(&scene.world).await.unwrap();
    assert_same_bytes(&scene.world.base(None).unwrap(), &scene.first);
    let arrived = || scene.world.target.requests().iter().filter(|request| request.late).count();
    assert_eq!(arrived(), 0, "the rollback was done before");
    while arrived() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(scene.world.target.requests().iter().all(|request| !request.late || request.status == 412));
    scene.assert_back_and_usable().await;
}

/// A rollback in a process of its own, ended by SIGKILL in the middle.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rollback_is_run_again_or_the_step_is_finished_instead() {
    for finish in [false, true] {
        let mut world = World::new().await;
        small_chunks(&mut world);
        let disk = world.disk(32 * MIB);
        disk.write(0, &noise(1, 16 * MIB)).unwrap();
        let first = disk.snapshot();
        let point = world.copy(&first, None).await.unwrap();
        disk.write(0, &noise(2, 16 * MIB)).unwrap();
        let second = disk.snapshot();
        let step = world.step(&second, Some(&first));
        let torn = interrupted(&world, Call::PutPage, 200, copying(&world, &step)).await;
        assert_eq!(torn.unwrap_err().kind(), ErrorKind::Interrupted);
        kill_in_the_middle(&world).await;
        assert_eq!(world.state().as_deref(), Some("applying"));
        assert_eq!(roll_back(&world).await.unwrap_err().kind(), ErrorKind::LeaseHeld);
        world.target.advance_clock(LEASE_LAPSES);
        if finish {
            let report = world.copy(&second, Some(&first)).await.unwrap();
            world.assert_identical(&report, &second);
        } else {
            let run = ask(&world, &["rollback", "--quiet", "--output", "json"]).await;
            assert_eq!(run.0, Some(0), "{}", run.2);
            let report: serde_json::Value = serde_json::from_str(&run.1).unwrap();
            assert_eq!(
                (&report["outcome"], &report["point"]["point"]),
                (&"rolled-back".into(), &point.point.point.clone().into())
            );
            assert_same_bytes(&world.base(None).unwrap(), &first);
            let metadata = world.base(None).unwrap().metadata().clone();
            assert_eq!(metadata["snapferry_state"], "clean");
            // Who wrote it last was another process than the one that sealed the point.
            assert!(!metadata["snapferry_owner"].ends_with(&format!("/{}", std::process::id())));
        }
        world.assert_identical(&point, &first);
    }
}

#[cfg(unix)]
async fn kill_in_the_middle(world: &World) {
    let writes = || world.target.stats().of(Call::PutPage).requests;
    let before = writes();
    let mut command = snapferry();
    command.args([
        "rollback",
        "--quiet",
        "--rate-limit",
        "2MiB/s",
        "--concurrency",
        "2",
        "--chunk-size",
        "64KiB",
    ]);
    command.args(["--target", &world.target_url()]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    for _ in 0..4000 {
        if writes() > before + 20 {
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(writes() < before + 190, "it was caught in the middle");
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be caught");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    panic!("the rollback never wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_is_left_alone_and_what_is_written_is_sealed() {
    let scene = Scene::new(false).await;
    let writes = || {
        let stats = scene.world.target.stats();
        [Call::PutPage, Call::ClearPages, Call::SetMetadata, Call::Lease].map(|call| stats.of(call).requests)
    };
    let before = writes();
    let (code, shown, told) = ask(&scene.world, &["rollback"]).await;
    assert_eq!((code, writes()), (Some(0), before), "{told}");
    assert!(shown.contains("nothing to do") && shown.contains(&scene.point.point.point), "{shown}");

    let faults = scene.world.target.faults();
    faults.add(Fault::new(FaultKind::Forbidden).on(Call::SnapshotBlob));
    assert!(scene.world.copy(&scene.second, Some(&scene.first)).await.is_err());
    assert_eq!(scene.world.state().as_deref(), Some("sealing"));
    let pages = scene.world.target.stats().of(Call::PutPage).requests;
    let back = roll_back(&scene.world).await.unwrap();
    assert_eq!((back.outcome, &back.point.source_time), ("seal-finished", &scene.second.time().to_owned()));
    assert_eq!(scene.world.target.stats().of(Call::PutPage).requests, pages);
    assert_eq!((scene.world.points(), scene.world.state().as_deref()), (2, Some("clean")));
    assert_same_bytes(&scene.world.base(Some(&back.point.point)).unwrap(), &scene.second);
    let again = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
    assert!(again.already_sealed && again.point.point == back.point.point);
}

#[tokio::test]
async fn without_a_point_to_go_back_to_it_says_what_helps() {
    let mut world = World::new().await;
    small_chunks(&mut world);
    assert_eq!(roll_back(&world).await.unwrap_err().kind(), ErrorKind::BaseMissing);
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 3 * MIB)).unwrap();
    let first = disk.snapshot();
    let step = world.step(&first, None);
    assert!(interrupted(&world, Call::PutPage, 5, copying(&world, &step)).await.is_err());
    let before = world.base(None).unwrap();
    let refused = roll_back(&world).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BaseNotClean);
    assert!(refused.why().contains("first full copy") && refused.advice().unwrap().contains("--rebase"));
    let after = world.base(None).unwrap();
    assert!(
        after.metadata()["snapferry_state"] == "applying"
            && after.read(0, after.len()) == before.read(0, before.len())
    );
    let report = world.copy(&first, None).await.unwrap();
    world.assert_identical(&report, &first);

    let set = format!("{}&comp=metadata", world.target_url());
    assert_eq!(raw(Method::PUT, &set, &[], Vec::new()).await.status().as_u16(), 200);
    assert_eq!(roll_back(&world).await.unwrap_err().kind(), ErrorKind::BaseNotClean);
}

/// The last point was deleted by other means: nothing is touched.
#[tokio::test]
async fn a_last_point_that_is_gone_is_told() {
    let scene = Scene::new(false).await;
    scene.tear(9).await;
    let point = format!("{}&snapshot={}", scene.world.target_url(), scene.point.point.point);
    assert_eq!(raw(Method::DELETE, &point, &[], Vec::new()).await.status().as_u16(), 202);
    let refused = roll_back(&scene.world).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BaseNotClean);
    assert!(refused.advice().unwrap().contains("--rebase"), "{refused}");
    let report = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
    scene.world.assert_identical(&report, &scene.second);
}

#[tokio::test]
async fn only_what_differs_is_read_and_written_back() {
    let mut world = World::new().await;
    small_chunks(&mut world);
    let disk = world.disk(64 * MIB);
    disk.write(0, &noise(1, 32 * MIB)).unwrap();
    let first = disk.snapshot();
    world.copy(&first, None).await.unwrap();
    for i in 0..16 {
        disk.write(i * 2 * MIB, &noise(100 + i, CHUNK)).unwrap();
    }
    let second = disk.snapshot();
    let step = world.step(&second, Some(&first));
    assert!(interrupted(&world, Call::PutPage, 10, copying(&world, &step)).await.is_err());
    let before = world.target.stats();
    let back = roll_back(&world).await.unwrap();
    let after = world.target.stats();
    assert_same_bytes(&world.base(None).unwrap(), &first);
    assert_eq!(back.bytes, 10 * CHUNK);
    let read = after.of(Call::GetBlob).bytes_out - before.of(Call::GetBlob).bytes_out;
    assert!((10 * CHUNK..=3 * 10 * CHUNK + 4096).contains(&read), "{read} bytes were read");
    let written = after.of(Call::PutPage).bytes_in - before.of(Call::PutPage).bytes_in;
    assert_eq!(written, 10 * CHUNK);
    assert_eq!(
        world.source.stats().of(Call::GetBlob).requests,
        world.source.stats().of(Call::GetBlob).requests
    );
}

/// An export that moved to another host while the step was under way: the time tells the snapshot.
#[tokio::test]
async fn a_step_across_hosts_is_rolled_back() {
    let mut scene = Scene::new(false).await;
    scene.world.settings.across_hosts = true;
    let moved = |snapshot: &DiskSnapshot| snapshot.grant().replace("127.0.0.1", "localhost");
    let step = world::step(&moved(&scene.second), Some(&moved(&scene.first)), &scene.world.target_url());
    let torn = interrupted(&scene.world, Call::PutPage, 9, copying(&scene.world, &step)).await;
    assert_eq!(torn.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(roll_back(&scene.world).await.unwrap().outcome, "rolled-back");
    scene.assert_back_and_usable().await;
}

/// A service that makes no differences between a blob and its snapshots.
#[tokio::test]
async fn a_service_without_differences_is_rolled_back_by_reading_everything() {
    let scene = Scene::new(true).await;
    scene.tear(20).await;
    let refusing = Fault::new(FaultKind::NotSupported).on(Call::PageRangesDiff).always();
    scene.world.target.faults().add(refusing);
    let back = roll_back(&scene.world).await;
    scene.world.target.faults().clear();
    assert_eq!(back.unwrap().outcome, "rolled-back");
    scene.assert_back_and_usable().await;
}

#[tokio::test]
async fn a_foreign_write_counts_only_when_it_changed_bytes() {
    for (bytes, changed) in
        [(noise(1, 3 * MIB)[4096..8192].to_vec(), false), (noise(8, 4096), true), (vec![0; 4096], true)]
    {
        let scene = Scene::new(false).await;
        let put = [("x-ms-page-write", "update"), ("x-ms-range", "bytes=4096-8191")];
        let page = format!("{}&comp=page", scene.world.target_url());
        assert_eq!(raw(Method::PUT, &page, &put, bytes).await.status().as_u16(), 201);
        let step = scene.world.copy(&scene.second, Some(&scene.first)).await;
        if changed {
            let refused = step.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BaseModified, "{refused}");
            assert!(refused.why().contains("byte 4096"), "{refused}");
            assert_eq!(scene.world.state().as_deref(), Some("clean"));
        } else {
            scene.world.assert_identical(&step.unwrap(), &scene.second);
        }
    }
}

/// A foreign clear of what is zero anyway, also in what a difference brings later.
#[tokio::test]
async fn a_foreign_clear_of_zeros_changes_nothing() {
    let scene = Scene::new(false).await;
    let clear = [("x-ms-page-write", "clear"), ("x-ms-range", "bytes=5242880-5246975")];
    let page = format!("{}&comp=page", scene.world.target_url());
    assert_eq!(raw(Method::PUT, &page, &clear, Vec::new()).await.status().as_u16(), 201);
    let step = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
    scene.world.assert_identical(&step, &scene.second);
}

const PAGE: u64 = 512;

#[derive(Clone, Debug)]
enum Event {
    Write { at: u64, pages: u64, seed: u64 },
    Clear { at: u64, pages: u64 },
    Grow { pages: u64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (any::<u64>(), 1_u64..200, any::<u64>()).prop_map(|(at, pages, seed)| Event::Write { at, pages, seed }),
        3 => (any::<u64>(), 1_u64..400).prop_map(|(at, pages)| Event::Clear { at, pages }),
        1 => (1_u64..600).prop_map(|pages| Event::Grow { pages }),
    ];
    proptest::collection::vec(event, 1..12)
}

/// A disk and its model, which is nothing but a vector of bytes.
fn happen(disk: &Disk, model: &mut Vec<u8>, events: &[Event]) {
    for event in events {
        let place = |at: u64, pages: u64| {
            let all = model.len() as u64 / PAGE;
            let start = at % all;
            (start * PAGE, pages.min(all - start) * PAGE)
        };
        match *event {
            Event::Write { at, pages, seed } => {
                let (at, length) = place(at, pages);
                let mut bytes = noise(seed, length);
                let (zeros, _) = bytes.split_at_mut(if seed.is_multiple_of(3) { 512 } else { 0 });
                zeros.fill(0);
                disk.write(at, &bytes).unwrap();
                let at = usize::try_from(at).unwrap();
                model[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            Event::Clear { at, pages } => {
                let (at, length) = place(at, pages);
                disk.clear(at, length).unwrap();
                let range = usize::try_from(at).unwrap()..usize::try_from(at + length).unwrap();
                model[range].fill(0);
            }
            Event::Grow { pages } => {
                model.resize(model.len() + usize::try_from(pages * PAGE).unwrap(), 0);
                disk.grow(model.len() as u64).unwrap();
            }
        }
    }
}

fn assert_holds(world: &World, point: Option<&str>, model: &[u8]) {
    let blob = world.base(point).unwrap();
    assert_eq!(blob.len(), model.len() as u64 + PAGE);
    assert!(blob.read(0, model.len() as u64) == model, "it differs from the model");
    let footer = blob.read(model.len() as u64, PAGE);
    assert_eq!(snapferry::vhd::inspect(&footer, blob.len()), snapferry::vhd::Footer::Valid);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_written_before_the_interruption_is_rolled_back(
        before in events(), during in events(), after in events(),
        torn_after in 0_u64..30, clears in any::<bool>(), back_after in proptest::option::of(0_u64..12),
        chunk in 1_u64..64, rebase in any::<bool>()
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::with(Config::default(), Config::default()).await;
            small_chunks(&mut world);
            world.settings.plan.chunk = chunk * PAGE;
            let disk = world.disk(2048 * PAGE);
            let mut model = vec![0; 2048 * 512];
            happen(&disk, &mut model, &before);
            let (first, first_model) = (disk.snapshot(), model.clone());
            let point = world.copy(&first, None).await.unwrap().point.point;

            happen(&disk, &mut model, &during);
            let (second, second_model) = (disk.snapshot(), model.clone());
            world.settings.rebase = rebase;
            let step = world.step(&second, (!rebase).then_some(&first));
            let call = if clears && !rebase { Call::ClearPages } else { Call::PutPage };
            let torn = interrupted(&world, call, torn_after, copying(&world, &step)).await;
            world.settings.rebase = false;
            if let Some(writes) = back_after {
                let _ = interrupted(&world, Call::PutPage, writes, rolling_back(&world)).await;
            }
            let back = roll_back(&world).await.unwrap();
            let (at, at_model) = if let Ok(report) = torn {
                assert_eq!(back.outcome, "clean");
                assert_eq!(report.point.point, back.point.point);
                (&second, &second_model)
            } else {
                assert_eq!(back.point.point, point);
                (&first, &first_model)
            };
            assert_holds(&world, None, at_model);

            happen(&disk, &mut model, &after);
            let third = disk.snapshot();
            let report = world.copy(&third, Some(at)).await.unwrap();
            assert_holds(&world, Some(&report.point.point), &model);
            assert_holds(&world, None, &model);
            assert_holds(&world, Some(&point), &first_model);
        });
    }
}
