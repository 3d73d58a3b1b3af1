//! The main job: a full copy, differences, growth, resumption; each point proven equal to its snapshot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use snapferry::ErrorKind;
use snapferry_emulator::{Call, Config, Knobs};
use world::{MIB, World, noise};

#[tokio::test]
async fn a_full_copy_and_two_differences_become_three_identical_points() {
    let world = World::new().await;
    let disk = world.disk(64 * MIB);
    disk.write(0, &noise(1, 5 * MIB)).unwrap();
    disk.write(40 * MIB + 512, &noise(2, 3 * MIB)).unwrap();
    let first = disk.snapshot();
    let full = world.copy(&first, None).await.unwrap();
    world.assert_identical(&full, &first);
    assert_eq!(full.totals.bytes_changed, 8 * MIB + 512, "allocated ranges only, and the footer");

    disk.write(MIB, &noise(3, 4096)).unwrap();
    disk.clear(40 * MIB + 512, MIB).unwrap();
    disk.write(63 * MIB, &noise(4, 512)).unwrap();
    let second = disk.snapshot();
    let difference = world.copy(&second, Some(&first)).await.unwrap();
    world.assert_identical(&difference, &second);
    assert_eq!((difference.totals.bytes_changed, difference.totals.bytes_cleared), (4096 + 512, MIB));
    assert_eq!(
        difference.bytes_sent,
        4 * 4096,
        "whole leaves: one, the two edges of the clear, and that of the page"
    );

    disk.write(2 * MIB, &vec![0; 2 << 20]).unwrap();
    let third = disk.snapshot();
    let zeros = world.copy(&third, Some(&second)).await.unwrap();
    world.assert_identical(&zeros, &third);
    assert_eq!((zeros.bytes_sent, zeros.bytes_zero), (0, 2 * MIB), "zeros are not sent as bytes");

    world.assert_identical(&full, &first);
    world.assert_identical(&difference, &second);
    assert_eq!(world.points(), 3);
    assert_eq!(world.state().as_deref(), Some("clean"));
}

#[tokio::test]
async fn a_step_without_changes_still_makes_a_point() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    world.copy(&first, None).await.unwrap();
    let second = disk.snapshot();
    let report = world.copy(&second, Some(&first)).await.unwrap();
    assert_eq!(report.totals.bytes_changed, 0);
    world.assert_identical(&report, &second);
    assert_eq!(world.points(), 2);
}

#[tokio::test]
async fn an_empty_disk_is_copied() {
    let world = World::new().await;
    let snapshot = world.disk(8 * MIB).snapshot();
    let report = world.copy(&snapshot, None).await.unwrap();
    world.assert_identical(&report, &snapshot);
}

#[tokio::test]
async fn growth_moves_the_footer_whether_or_not_the_diff_says_so() {
    for (old_footer_reported, new_footer_reported) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let knobs = Knobs { old_footer_reported, new_footer_reported, ..Knobs::default() };
        let world = World::with(Config { knobs, ..Config::default() }, Config::default()).await;
        let disk = world.disk(8 * MIB);
        disk.write(0, &noise(1, MIB)).unwrap();
        let first = disk.snapshot();
        world.copy(&first, None).await.unwrap();
        disk.grow(12 * MIB).unwrap();
        let second = disk.snapshot();
        let grown = world.copy(&second, Some(&first)).await.unwrap();
        world.assert_identical(&grown, &second);

        disk.grow(16 * MIB).unwrap();
        disk.write(12 * MIB - 512, &noise(2, 2 * MIB)).unwrap();
        let third = disk.snapshot();
        let written = world.copy(&third, Some(&second)).await.unwrap();
        world.assert_identical(&written, &third);
    }
}

#[tokio::test]
async fn the_digest_of_a_full_copy_is_the_crc_of_the_whole_image() {
    let world = World::new().await;
    let disk = world.disk(16 * MIB);
    disk.write(3 * MIB, &noise(1, 5 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    let report = world.copy(&snapshot, None).await.unwrap();
    let image = snapshot.read(0, snapshot.len());
    let crc = snapferry::azure::crc64::Crc64::of(&image);
    assert_eq!(report.point.digest, Some(format!("{:016x}", crc.value())));
}

#[tokio::test]
async fn a_second_run_of_a_sealed_step_finds_nothing_to_do() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let snapshot = disk.snapshot();
    let first = world.copy(&snapshot, None).await.unwrap();
    let again = world.copy(&snapshot, None).await.unwrap();
    assert!(again.already_sealed && !first.already_sealed);
    assert_eq!(again.point.point, first.point.point);
    assert_eq!(world.points(), 1);
}

#[tokio::test]
async fn plan_foresees_what_copy_does_and_writes_nothing() {
    let world = World::new().await;
    let disk = world.disk(32 * MIB);
    disk.write(0, &noise(1, 9 * MIB)).unwrap();
    let first = disk.snapshot();
    let planned = world.plan(&first, None).await.unwrap();
    assert_eq!(planned.action, "create");
    assert!(world.base(None).is_none(), "plan writes nothing");
    let done = world.copy(&first, None).await.unwrap();
    assert_eq!(planned.totals, done.totals);

    for i in 0..100 {
        disk.write(i * 100 * 1024, &noise(i, 512)).unwrap();
    }
    disk.clear(20 * MIB, MIB).unwrap();
    let second = disk.snapshot();
    let puts = world.target.stats().of(Call::PutPage).requests;
    let planned = world.plan(&second, Some(&first)).await.unwrap();
    assert_eq!(world.target.stats().of(Call::PutPage).requests, puts);
    let done = world.copy(&second, Some(&first)).await.unwrap();
    assert_eq!((planned.action, planned.totals), ("begin", done.totals));
    assert_eq!(world.plan(&second, Some(&first)).await.unwrap().action, "done");
    let sent = world.target.stats().of(Call::PutPage).requests - puts;
    assert_eq!(sent, planned.totals.data_chunks);
}

#[tokio::test]
async fn a_diff_of_two_snapshots_of_an_ordinary_blob_is_copied_too() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 2 * MIB)).unwrap();
    let first = disk.snapshot();
    let one = world.copy(&first, None).await.unwrap();
    disk.write(MIB, &noise(2, 4096)).unwrap();
    disk.clear(0, 512).unwrap();
    let second = disk.snapshot();
    let two = world.copy(&second, Some(&first)).await.unwrap();

    // The points are snapshots of an ordinary page blob: copy them on, from blob to blob.
    let at = |point: &str| format!("{}&snapshot={point}", world.target_url());
    let onward = world.account.container_sas(world::CONTAINER, "onward", "rcwdl", world::HOUR);
    world.run(&world::step(&at(&one.point.point), None, &onward)).await.unwrap();
    let report =
        world.run(&world::step(&at(&two.point.point), Some(&at(&one.point.point)), &onward)).await.unwrap();
    assert_eq!(
        (report.totals.bytes_changed, report.totals.bytes_cleared),
        (8192, 0),
        "the cleared page, in its leaf"
    );
    let copied = world.account.read_blob(world::CONTAINER, "onward", Some(&report.point.point)).unwrap();
    world::assert_same_bytes(&copied, &second);
}

#[tokio::test]
async fn however_the_service_cuts_its_page_lists_the_copy_is_the_same() {
    let hard = |knobs: Knobs| Config { knobs, ..Config::default() };
    for knobs in [
        Knobs { page_list_cut: Some(4096), ..Knobs::default() },
        Knobs { default_maxresults: Some(3), ..Knobs::default() },
        Knobs { diff_granularity: 64 << 10, ..Knobs::default() },
        Knobs { clear_of_unwritten_reported: true, ..Knobs::default() },
        Knobs { range_crc_on_export: false, ..Knobs::default() },
        Knobs { page_list_range_must_align: true, page_list_range_must_fit: true, ..Knobs::default() },
    ] {
        let mut world = World::with(hard(knobs), Config::default()).await;
        world.settings.listing.window = 3 * MIB + 512;
        let disk = world.disk(16 * MIB);
        disk.write(MIB, &noise(1, 7 * MIB)).unwrap();
        let first = disk.snapshot();
        let full = world.copy(&first, None).await.unwrap();
        world.assert_identical(&full, &first);
        for i in 0..60 {
            disk.write(i * 200 * 512, &noise(i, 512)).unwrap();
        }
        disk.clear(2 * MIB, 3 * MIB).unwrap();
        disk.clear(14 * MIB, MIB).unwrap();
        let second = disk.snapshot();
        let difference = world.copy(&second, Some(&first)).await.unwrap();
        world.assert_identical(&difference, &second);
    }
}

#[tokio::test]
async fn a_page_list_that_takes_the_service_too_long_is_asked_for_in_halves() {
    let knobs = Knobs { page_list_timeout_elements: Some(100), ..Knobs::default() };
    let world = World::with(Config { knobs, ..Config::default() }, Config::default()).await;
    let disk = world.disk(2048 * MIB);
    for i in 0..500 {
        disk.write(i * 4 * MIB, &noise(i, 512)).unwrap();
    }
    let snapshot = disk.snapshot();
    let report = world.copy(&snapshot, None).await.unwrap();
    world.assert_identical(&report, &snapshot);
    assert!(world.source.stats().of(Call::PageRanges).refused > 0, "the service did refuse a window");
}

#[tokio::test]
async fn an_eight_tebibyte_disk_with_little_data_is_copied() {
    let world = World::new().await;
    let disk = world.disk((8 << 40) - (1 << 30));
    disk.write(0, &noise(1, MIB)).unwrap();
    disk.write((8 << 40) - (2 << 30), &noise(2, MIB)).unwrap();
    let first = disk.snapshot();
    let report = world.copy(&first, None).await.unwrap();
    assert_eq!(report.bytes_sent, 2 * MIB + 512);
    let base = world.base(Some(&report.point.point)).unwrap();
    assert_eq!(base.len(), first.len());
    for (at, length) in [(0, 2 * MIB), ((8 << 40) - (2 << 30), MIB), (first.len() - 512, 512)] {
        assert!(base.read(at, length) == first.read(at, length), "at {at}");
    }
}

#[tokio::test]
async fn a_base_that_somebody_else_wrote_to_is_not_built_upon() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    world.copy(&first, None).await.unwrap();
    let clear = [("x-ms-page-write", "clear"), ("x-ms-range", "bytes=4096-8191")];
    let foreign =
        world::raw(reqwest::Method::PUT, &format!("{}&comp=page", world.target_url()), &clear, Vec::new())
            .await;
    assert_eq!(foreign.status().as_u16(), 201);
    let second = disk.snapshot();
    let error = world.copy(&second, Some(&first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseModified, "{error}");
    assert_eq!(world.state().as_deref(), Some("clean"));
}
