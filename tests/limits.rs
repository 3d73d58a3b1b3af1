//! What limits a copy is found: real copies between emulators, each held back by one thing that is known.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use snapferry::measure::{Course, Limit, observe};
use snapferry::progress::Progress;
use snapferry::replicate::replicate;
use snapferry_emulator::{Call, Config, DiskSnapshot, Fault, FaultKind, Link};
use tokio_util::sync::CancellationToken;
use world::{MIB, World, noise, output, snapferry, text};

const KIB: u64 = 1 << 10;

async fn world(source: Link, target: Link) -> World {
    let config = |link| Config { link, ..Config::default() };
    World::with(config(source), config(target)).await
}

fn full(world: &World, bytes: u64) -> DiskSnapshot {
    let disk = world.disk(bytes);
    disk.write(0, &noise(7, bytes)).unwrap();
    disk.snapshot()
}

/// Copies in full, and gives the course.
async fn course(world: &World, snapshot: &DiskSnapshot) -> Course {
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let step = world.step(snapshot, None);
    let observer = observe(&progress, Duration::from_millis(50));
    let report = replicate(&step, &world.client, &world.settings, &progress, &cancel).await.unwrap();
    let course = observer.finish();
    world.assert_identical(&report, snapshot);
    course
}

#[track_caller]
fn assert_mostly(course: &Course, limit: Limit) {
    assert_eq!(course.limits.first().map(|share| share.limit), Some(limit), "{:?}", course.limits);
    assert!(course.limited_by().unwrap().starts_with(limit.words()), "{:?}", course.limits);
    assert!(course.samples.iter().any(|sample| sample.limit == limit));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_is_the_limit() {
    let mut world =
        world(Link::default(), Link { blob_requests_per_second: Some(40), ..Link::default() }).await;
    world.settings.plan.chunk = 64 * KIB;
    let snapshot = full(&world, 16 * MIB);
    let course = course(&world, &snapshot).await;
    assert_mostly(&course, Limit::Target);
    let last = course.samples.last().unwrap();
    assert!(last.target_refused > 0 && last.source_refused == 0, "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_is_the_limit_and_the_course_tells_the_whole_story() {
    let mut world = World::new().await;
    world.settings.caps.bytes_per_second = Some(4 * MIB);
    world.settings.plan.chunk = 256 * KIB;
    let snapshot = full(&world, 16 * MIB);
    let course = course(&world, &snapshot).await;
    assert_mostly(&course, Limit::Cap);

    let last = course.samples.last().unwrap();
    assert!(
        course.samples.is_sorted_by(|one, other| one.at <= other.at && one.bytes_done <= other.bytes_done)
    );
    assert!(
        last.bytes_in >= 16 * MIB && last.bytes_out >= 16 * MIB && last.bytes_done >= 16 * MIB,
        "{last:?}"
    );
    assert!(last.source_requests >= 64 && last.target_requests >= 64, "{last:?}");
    // The chunks, and what was read back of them before the seal; the footer is a chunk of its own or part of one.
    assert!(course.reads.count >= 64 && (64..=66).contains(&course.writes.count), "{course:?}");
    for latency in [course.reads, course.writes] {
        assert!(latency.p50 > 0.0 && latency.p50 <= latency.p99 && latency.p99 <= latency.max, "{latency:?}");
    }
    let (data, zero): (u64, u64) = (course.map.data.iter().sum(), course.map.zero.iter().sum());
    assert_eq!(data + zero, last.bytes_done);
    assert!(data >= 16 * MIB && course.map.data.len() <= 4096, "{data}");
    let shares: f64 = course.limits.iter().map(|share| share.part).sum();
    assert!((shares - 1.0).abs() < 1e-6, "{:?}", course.limits);
    #[cfg(target_os = "linux")]
    assert!(last.cpu > 0.0, "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn page_lists_that_come_slowly_are_the_limit() {
    // Each list takes as long as a read; but lists come one after the other, and reads go beside each other.
    let latency = Duration::from_millis(200);
    let mut world = world(Link { latency, ..Link::default() }, Link::default()).await;
    world.settings.listing.window = MIB;
    world.settings.listing.parallel = 1;
    world.settings.plan.chunk = 256 * KIB;
    let disk = world.disk(40 * MIB);
    for at in 0..40 {
        // What goes on in the next list would be held until that is there.
        disk.write(at * MIB, &noise(at + 1, MIB / 2)).unwrap();
    }
    assert_mostly(&course(&world, &disk.snapshot()).await, Limit::Listing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_gives_no_more_is_the_limit() {
    let mut world =
        world(Link { blob_bytes_per_second: Some(6 * MIB), ..Link::default() }, Link::default()).await;
    world.settings.plan.chunk = 256 * KIB;
    world.settings.copy.concurrency = 32;
    let snapshot = full(&world, 32 * MIB);
    assert_mostly(&course(&world, &snapshot).await, Limit::Source);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_far_away_wants_a_wider_window() {
    let mut world =
        world(Link { latency: Duration::from_millis(150), ..Link::default() }, Link::default()).await;
    world.settings.plan.chunk = 64 * KIB;
    world.settings.copy.concurrency = 2;
    let snapshot = full(&world, 4 * MIB);
    assert_mostly(&course(&world, &snapshot).await, Limit::Window);
}

fn copy(world: &World, source: &str, previous: Option<&str>, report: &Path) -> std::process::Command {
    let mut command = snapferry();
    command.args(["copy", "--source", source, "--report"]).arg(report);
    command.env("SNAPFERRY_TARGET", world.target_url());
    if let Some(previous) = previous {
        command.args(["--previous", previous]);
    }
    command
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_tells_how_it_went_in_the_progress_line_and_in_a_file_of_each_form() {
    let world = World::new().await;
    let disk = world.disk(16 * MIB);
    disk.write(0, &noise(1, 8 * MIB)).unwrap();
    let first = disk.snapshot();
    disk.write(9 * MIB, &noise(2, MIB)).unwrap();
    let second = disk.snapshot();
    disk.write(11 * MIB, &noise(3, MIB)).unwrap();
    let third = disk.snapshot();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| folder.path().join(name);

    let mut capped = copy(&world, &first.grant(), None, &path("one.json"));
    capped.args(["--rate-limit", "1MiB/s", "--chunk-size", "256KiB", "--output", "json"]);
    let run = output(capped).await;
    let line = text(&run.stderr);
    assert!(run.status.success() && line.contains("chunks in flight, limited by the cap"), "{line}");
    let printed: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(printed["limits"][0]["limit"], "cap");
    let report: Value = serde_json::from_slice(&std::fs::read(path("one.json")).unwrap()).unwrap();
    assert_eq!(report["run"]["point"], printed["point"]["point"]);
    assert_eq!(report["run"]["error"], Value::Null);
    assert!(report["advice"].as_str().unwrap().contains("--rate-limit"));
    let course: Course = serde_json::from_value(report["course"].clone()).unwrap();
    assert_mostly(&course, Limit::Cap);
    assert_eq!(report["run"]["bytes"], printed["bytes_sent"]);

    let (one, two, three) = (first.grant(), second.grant(), third.grant());
    for (source, previous, name, holds) in
        [(&two, &one, "two.html", "<!doctype html>"), (&three, &two, "three.md", "# ")]
    {
        let run = output(copy(&world, source, Some(previous), &path(name))).await;
        assert!(run.status.success(), "{}", text(&run.stderr));
        let report = std::fs::read_to_string(path(name)).unwrap();
        assert!(report.to_lowercase().starts_with(holds), "{report}");
        assert!(report.contains(first.time()) == (name == "two.html"), "{report}");
    }
    assert_eq!(names(folder.path()), ["one.json", "three.md", "two.html"], "nothing else is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_after_it_began_leaves_a_report_and_one_that_cannot_write_it_does_not_begin() {
    let world = World::new().await;
    let snapshot = full(&world, 8 * MIB);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| folder.path().join(name);

    for (report, code) in [
        (path("no-such-folder/one.html"), 22),
        (folder.path().join("..").join(folder.path().file_name().unwrap()).join("folder.md"), 22),
        (path("report.txt"), 2),
        (path("report"), 2),
    ] {
        if report.ends_with("folder.md") {
            std::fs::create_dir(&report).unwrap();
        }
        let run = output(copy(&world, &snapshot.grant(), None, &report)).await;
        assert_eq!(run.status.code(), Some(code), "{}", text(&run.stderr));
    }
    assert!(world.base(None).is_none(), "nothing was begun");
    assert_eq!(world.target.requests().len(), 0);

    let refused = FaultKind::Forbidden;
    world.target.faults().add(Fault::new(refused).on(Call::PutPage).skip(20).always());
    let mut command = copy(&world, &snapshot.grant(), None, &path("failed.json"));
    command.args(["--chunk-size", "64KiB"]);
    let run = output(command).await;
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(path("failed.json")).unwrap()).unwrap();
    assert!(report["run"]["error"].as_str().unwrap().contains("Put Page"), "{report}");
    assert_eq!(report["run"]["point"], Value::Null);
    // Some that were acknowledged may have been dropped with the copy.
    let writes = report["course"]["writes"]["count"].as_u64().unwrap();
    assert!((1..=20).contains(&writes), "{writes}");

    // What fails before it begins has no course.
    let mut command = copy(&world, &snapshot.grant(), Some(&snapshot.grant()), &path("nothing.md"));
    command.args(["--chunk-size", "64KiB"]);
    assert!(!output(command).await.status.success());
    assert_eq!(names(folder.path()), ["failed.json", "folder.md"]);
}
