//! What is read back before a point is made of it.

use std::time::Duration;

use snapferry::ErrorKind;
use snapferry::step::{Report, Step, Verify};
use snapferry_emulator::{Call, Config, Fault, FaultKind};

use crate::scene::{CHUNK, Scene, copying, interrupted, small_chunks};
use crate::world::{BASE, CONTAINER, MIB, World, noise};

/// Flips a bit of the base blob while the seal is held up: after the writes, before what is read back.
async fn copy_with_rot(world: &mut World, mode: Verify, step: &Step, at: u64) -> snapferry::Result<Report> {
    world.settings.verify = mode;
    let before = world.target.stats().of(Call::PutPage).requests;
    let target = world.target.faults();
    // The footer is read before anything else is read back: that read waits until the bit is flipped.
    target
        .add(Fault::new(FaultKind::Stall { lasting: Duration::from_millis(400) }).on(Call::GetBlob).times(1));
    let fired = target.fired();
    let rot = async {
        while target.fired() == fired {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(world.target.stats().of(Call::PutPage).requests > before);
        assert!(world.account.flip_bit(CONTAINER, BASE, None, at, 2));
    };
    let (copied, ()) = tokio::join!(world.run(step), rot);
    world.target.faults().clear();
    copied
}

#[tokio::test]
async fn what_the_base_blob_does_not_give_back_is_never_sealed() {
    for mode in [Verify::Sample, Verify::Full] {
        let mut world = World::new().await;
        small_chunks(&mut world);
        let disk = world.disk(8 * MIB);
        disk.write(MIB, &noise(1, 2 * CHUNK)).unwrap();
        let first = disk.snapshot();
        // Few chunks: each of them is in the sample.
        let step = world.step(&first, None);
        let refused = copy_with_rot(&mut world, mode, &step, MIB + 100).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corruption, "{refused}");
        assert!(refused.why().contains(&format!("byte {MIB}")), "{refused}");
        let metadata = world.base(None).unwrap().metadata().clone();
        assert_eq!((&*metadata["snapferry_state"], &*metadata["snapferry_checkpoint"]), ("applying", "0"));
        assert_eq!(world.points(), 0);
        let report = world.copy(&first, None).await.unwrap();
        assert_eq!(report.verified.unwrap().mode, mode);
        world.assert_identical(&report, &first);

        disk.write(MIB, &noise(2, CHUNK)).unwrap();
        let second = disk.snapshot();
        let report = world.copy(&second, Some(&first)).await.unwrap();
        world.assert_identical(&report, &second);
        let bytes = report.verified.unwrap().bytes;
        assert_eq!(bytes, if mode == Verify::Full { second.len() } else { CHUNK });
    }
}

/// Rot outside of what a step writes: only the full comparison sees it.
#[tokio::test]
async fn only_the_full_comparison_looks_at_what_was_not_written() {
    let mut scene = Scene::new(false).await;
    assert!(scene.world.account.flip_bit(CONTAINER, BASE, None, 2 * MIB + 9, 2));
    scene.world.settings.verify = Verify::Full;
    let refused = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corruption);
    assert!(refused.why().contains(&(2 * MIB).to_string()), "{refused}");
    assert_eq!((scene.world.points(), scene.world.state().as_deref()), (1, Some("applying")));
    // The difference does not write there: a full copy does.
    assert!(scene.world.copy(&scene.second, Some(&scene.first)).await.is_err());
    scene.world.settings.rebase = true;
    let anew = scene.world.copy(&scene.second, None).await.unwrap();
    scene.world.assert_identical(&anew, &scene.second);
}

#[tokio::test]
async fn an_interrupted_comparison_before_the_seal_goes_on() {
    let mut scene = Scene::new(false).await;
    scene.world.settings.verify = Verify::Full;
    let step = scene.world.step(&scene.second, Some(&scene.first));
    let torn = interrupted(&scene.world, Call::GetBlob, 20, copying(&scene.world, &step)).await;
    assert_eq!(torn.unwrap_err().kind(), ErrorKind::Interrupted);
    let report = scene.world.copy(&scene.second, Some(&scene.first)).await.unwrap();
    scene.world.assert_identical(&report, &scene.second);
    assert_eq!(report.verified.unwrap().bytes, scene.second.len());
}

#[tokio::test]
async fn nothing_is_read_back_when_nothing_is_asked_for() {
    let mut world = World::with(Config::default(), Config::default()).await;
    world.settings.verify = Verify::None;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let snapshot = disk.snapshot();
    let report = world.copy(&snapshot, None).await.unwrap();
    assert_eq!(report.verified, None);
    // The footer.
    assert_eq!(world.target.stats().of(Call::GetBlob).requests, 1);
    world.assert_identical(&report, &snapshot);
}
