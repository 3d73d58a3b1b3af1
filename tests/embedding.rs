//! What a program that embeds the library does with it: every call can run in a task of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::collections::BTreeSet;

use snapferry::azure::{PageBlob, Role};
use snapferry::base::lease::LeaseOptions;
use snapferry::base::protect::{Change, change};
use snapferry::base::prune::prune;
use snapferry::base::retention::Retention;
use snapferry::dry_run::plan;
use snapferry::replicate::replicate;
use snapferry::rollback::rollback;
use snapferry::verify::compare;
use world::{MIB, World, noise, url};

/// It must compile: futures of nested streams are easily not `Send`.
#[tokio::test(flavor = "multi_thread")]
async fn every_call_can_be_spawned() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let snapshot = disk.snapshot();
    let (step, client, settings) = (world.step(&snapshot, None), world.client.clone(), world.settings);
    let target = url(Role::Target, &world.target_url());
    let work = tokio::spawn(async move {
        let (progress, cancel) = Default::default();
        plan(&step, &client, &settings, &progress).await?;
        let report = replicate(&step, &client, &settings, &progress, &cancel).await?;
        rollback(&target, &client, &settings, &progress, &cancel).await?;
        let blob = PageBlob::connect(target, &client)?;
        let points = BTreeSet::from([report.point.point.clone()]);
        change(&blob, Change::Protect, &points, LeaseOptions::default(), &cancel).await?;
        prune(&blob, &Retention { last: Some(1), ..Retention::default() }, &cancel).await?;
        compare(&blob, &blob.at_snapshot(&report.point.point)?, 4).await
    });
    assert!(work.await.unwrap().unwrap().identical);
}
