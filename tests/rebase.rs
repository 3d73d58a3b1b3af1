//! A full copy in the place of what a base blob holds: its points stay, whatever is interrupted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod scene;
mod world;

use std::time::Duration;

use scene::{LEASE_LAPSES, Scene, ask, copying, interrupted, roll_back, small_chunks};
use snapferry::ErrorKind;
use snapferry_emulator::Call;
use world::{MIB, World, assert_same_bytes, noise};

#[tokio::test]
async fn a_full_copy_takes_the_place_of_what_a_base_holds_and_its_points_stay() {
    for torn in [false, true] {
        for writes in [None, Some(0), Some(7), Some(30)] {
            let mut scene = Scene::new(true).await.one_by_one();
            if torn {
                scene.tear(12).await;
            }
            scene.disk.clear(0, 2 * MIB).unwrap();
            let third = scene.disk.snapshot();
            let refused = scene.world.copy(&third, None).await.unwrap_err();
            let expected = if torn { ErrorKind::BaseNotClean } else { ErrorKind::TargetExists };
            assert_eq!(refused.kind(), expected, "it must be asked for");
            scene.world.settings.rebase = true;
            let step = scene.world.step(&third, None);
            if let Some(writes) = writes {
                let ended =
                    interrupted(&scene.world, Call::PutPage, writes, copying(&scene.world, &step)).await;
                assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
                assert_eq!(scene.world.state().as_deref(), Some("applying"));
                scene.world.assert_identical(&scene.point, &scene.first);
            }
            // What was begun needs not be asked for again.
            scene.world.settings.rebase = writes.is_none();
            let report = scene.world.run(&step).await.unwrap();
            assert_eq!(report.resumed_from.is_some(), writes.is_some_and(|writes| writes > 0));
            scene.world.assert_identical(&report, &third);
            assert_same_bytes(&scene.world.base(None).unwrap(), &third);
            scene.world.assert_identical(&scene.point, &scene.first);
            scene.world.settings.rebase = false;
            scene.disk.write(3 * MIB, &noise(7, MIB)).unwrap();
            let fourth = scene.disk.snapshot();
            let next = scene.world.copy(&fourth, Some(&third)).await.unwrap();
            scene.world.assert_identical(&next, &fourth);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_out_is_told() {
    let mut scene = Scene::new(false).await;
    let third = scene.disk.snapshot();
    let sources = ["--source", &third.grant()];
    let (code, shown, _) =
        ask(&scene.world, &[&["copy", "--dry-run", "--rebase"], &sources[..]].concat()).await;
    assert!(code == Some(0) && shown.contains("copy in full over what the base blob holds"), "{shown}");
    assert_eq!(scene.world.state().as_deref(), Some("clean"));

    scene.world.settings.rebase = true;
    let step = scene.world.step(&third, None);
    assert!(interrupted(&scene.world, Call::PutPage, 3, copying(&scene.world, &step)).await.is_err());
    scene.world.settings.rebase = false;
    let refused = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BaseNotClean);
    assert!(refused.advice().unwrap().contains("snapferry rollback --target"), "{:?}", refused.advice());
    let (code, shown, told) = ask(&scene.world, &["rollback", "--quiet"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(shown.contains("gave up") && shown.contains(&scene.point.point.point), "{shown}");
    scene.assert_back_and_usable().await;
}

/// A first full copy that was given up holds no point: another snapshot takes its place.
#[tokio::test]
async fn a_torn_first_copy_is_replaced_by_a_rebase() {
    let mut world = World::new().await;
    small_chunks(&mut world);
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 3 * MIB)).unwrap();
    let first = disk.snapshot();
    let step = world.step(&first, None);
    assert!(interrupted(&world, Call::PutPage, 9, copying(&world, &step)).await.is_err());
    disk.clear(0, 2 * MIB).unwrap();
    let second = disk.snapshot();
    world.settings.rebase = true;
    let report = world.copy(&second, None).await.unwrap();
    world.assert_identical(&report, &second);
    assert_eq!((world.points(), world.state().as_deref()), (1, Some("clean")));
}

#[tokio::test]
async fn an_interrupted_rebase_is_rolled_back_to_the_old_point() {
    for torn in [false, true] {
        for (call, requests) in [(Call::ClearPages, 0), (Call::PutPage, 0), (Call::PutPage, 20)] {
            let mut scene = Scene::new(true).await;
            if torn {
                scene.tear(12).await;
            }
            scene.disk.clear(MIB, 2 * MIB).unwrap();
            let third = scene.disk.snapshot();
            scene.world.settings.rebase = true;
            let step = scene.world.step(&third, None);
            // A clear that is held up holds everything up: there is nobody to ask.
            let ended = tokio::time::timeout(
                Duration::from_secs(2),
                interrupted(&scene.world, call, requests, copying(&scene.world, &step)),
            )
            .await;
            scene.world.target.faults().clear();
            if let Ok(ended) = ended {
                assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
            } else {
                scene.world.target.advance_clock(LEASE_LAPSES);
            }
            scene.world.settings.rebase = false;
            let back = roll_back(&scene.world).await.unwrap();
            assert_eq!((back.outcome, &back.point.point), ("rolled-back", &scene.point.point.point));
            scene.assert_back_and_usable().await;
        }
    }
}
