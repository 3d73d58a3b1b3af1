//! Bad input ends in a clear error of its own kind, before any write, and nothing is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::time::Duration;

use reqwest::Method;
use snapferry::azure::Role;
use snapferry::step::Step;
use snapferry::{Error, ErrorKind, Remedy};
use snapferry_emulator::{Call, DiskSnapshot};
use world::{BASE, CONTAINER, HOUR, MIB, World, noise, raw, snapferry, step, text, url};

/// A world with a base that is clean at the first of three snapshots.
async fn prepared() -> (World, [DiskSnapshot; 3]) {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    world.copy(&first, None).await.unwrap();
    disk.write(MIB, &noise(2, MIB)).unwrap();
    let second = disk.snapshot();
    disk.write(2 * MIB, &noise(3, MIB)).unwrap();
    (world, [first, second, disk.snapshot()])
}

/// Runs a step that must fail, and proves that it wrote nothing and says what a person needs.
async fn refused(world: &World, step: &Step) -> Error {
    let written = || {
        let stats = world.target.stats();
        [Call::PutBlob, Call::PutPage, Call::ClearPages, Call::SetMetadata, Call::SnapshotBlob].map(|call| {
            let counts = stats.of(call);
            counts.requests - counts.refused
        })
    };
    let (before, state) = (written(), world.state());
    let error = world.run(step).await.expect_err("the step must be refused");
    assert_eq!(written(), before, "something was written: {error}");
    assert_eq!(world.state(), state);
    assert!(error.advice().is_some() || error.kind().remedy() != Remedy::NeedsUser, "no advice: {error}");
    error
}

#[tokio::test]
async fn a_refused_sas_is_named_by_its_role() {
    let (world, [first, second, _]) = prepared().await;
    let good = world.step(&second, Some(&first));

    second.revoke();
    let error = refused(&world, &good).await;
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.to_string().contains("the source"), "{error}");

    let previous_revoked = world.step(&second, Some(&first));
    first.revoke();
    let error = refused(&world, &previous_revoked).await;
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.to_string().contains("the previous"), "{error}");

    let lapsed = step(&second.grant_for(Duration::from_mins(1)), Some(&first.grant()), &world.target_url());
    world.source.advance_clock(Duration::from_mins(2));
    assert_eq!(refused(&world, &lapsed).await.kind(), ErrorKind::AccessDenied);

    let ended = world.account.container_sas(CONTAINER, BASE, "rcwl", Duration::from_secs(1));
    world.target.advance_clock(Duration::from_mins(1));
    let error = refused(&world, &step(&second.grant(), Some(&first.grant()), &ended)).await;
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.to_string().contains("the target"), "{error}");
}

#[tokio::test]
async fn a_sas_of_another_blob_is_refused() {
    let (world, [first, second, _]) = prepared().await;
    let other =
        world.account.blob_sas(CONTAINER, "other", "rcwd", HOUR).replace("/other?", &format!("/{BASE}?"));
    let error = refused(&world, &step(&second.grant(), Some(&first.grant()), &other)).await;
    assert_eq!(error.kind(), ErrorKind::AccessDenied);

    // The signature of one snapshot under the time of another.
    let swapped = second.grant().replace(&encoded(second.time()), &encoded(first.time()));
    let error = refused(&world, &step(&second.grant(), Some(&swapped), &world.target_url())).await;
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.to_string().contains("the previous"), "{error}");
}

fn encoded(time: &str) -> String {
    time.replace(':', "%3A")
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let (world, [first, second, _]) = prepared().await;
    let with = |permissions: &str| {
        let target = world.account.container_sas(CONTAINER, BASE, permissions, HOUR);
        step(&second.grant(), Some(&first.grant()), &target)
    };
    let error = refused(&world, &with("r")).await;
    assert_eq!(error.kind(), ErrorKind::PermissionMissing);
    assert!(error.to_string().contains("Lease Blob on the target"), "{error}");
    assert!(error.advice().unwrap().contains("'w'"));
    let error = refused(&world, &with("w")).await;
    assert_eq!(error.kind(), ErrorKind::PermissionMissing);
    assert!(error.advice().unwrap().contains("'r'"));
}

#[tokio::test]
async fn what_is_no_page_blob_is_refused() {
    let (world, [first, second, _]) = prepared().await;
    let block = world.account.container_sas(CONTAINER, "block", "rcwdl", HOUR);
    let made = raw(Method::PUT, &block, &[("x-ms-blob-type", "BlockBlob")], vec![7; 4096]).await;
    assert_eq!(made.status().as_u16(), 201);
    let error = refused(&world, &step(&second.grant(), Some(&first.grant()), &block)).await;
    assert_eq!(error.kind(), ErrorKind::BaseNotClean);
    assert!(error.to_string().contains("BlockBlob"), "{error}");

    let snapshot = raw(Method::PUT, &format!("{block}&comp=snapshot"), &[], Vec::new()).await;
    assert_eq!(snapshot.status().as_u16(), 201);
    let time = snapshot.headers().get("x-ms-snapshot").unwrap().to_str().unwrap().to_owned();
    let fresh = world.account.container_sas(CONTAINER, "fresh", "rcwdl", HOUR);
    let error = refused(&world, &step(&format!("{block}&snapshot={time}"), None, &fresh)).await;
    assert_eq!(error.kind(), ErrorKind::SourceUnsuitable);
    assert!(error.to_string().contains("BlockBlob"), "{error}");
}

#[tokio::test]
async fn snapshots_that_are_no_pair_are_refused() {
    let (world, [first, second, _]) = prepared().await;
    assert_eq!(refused(&world, &world.step(&first, Some(&second))).await.kind(), ErrorKind::SnapshotOrder);
    assert_eq!(refused(&world, &world.step(&first, Some(&first))).await.kind(), ErrorKind::SnapshotOrder);

    let other = world.source.create_disk("other", 8 * MIB).unwrap().snapshot();
    let error = refused(&world, &world.step(&other, Some(&first))).await;
    assert_eq!(error.kind(), ErrorKind::DifferentFamilies);

    first.delete();
    let error = refused(&world, &world.step(&second, Some(&first))).await;
    assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AccessDenied), "{error}");
    assert!(error.to_string().contains("the previous"), "{error}");
}

#[tokio::test]
async fn a_step_that_does_not_fit_the_base_is_refused() {
    let (world, [first, second, third]) = prepared().await;
    let error = refused(&world, &world.step(&third, Some(&second))).await;
    assert_eq!(error.kind(), ErrorKind::BaseElsewhere);
    assert!(error.to_string().contains(first.time()) && error.to_string().contains(second.time()), "{error}");
    assert_eq!(refused(&world, &world.step(&second, None)).await.kind(), ErrorKind::TargetExists);

    let nowhere = world.account.container_sas(CONTAINER, "nowhere", "rcwdl", HOUR);
    let error = refused(&world, &step(&second.grant(), Some(&first.grant()), &nowhere)).await;
    assert_eq!(error.kind(), ErrorKind::BaseMissing);
    assert!(world.account.read_blob(CONTAINER, "nowhere", None).is_none());

    let foreign = world.account.container_sas(CONTAINER, "foreign", "rcwdl", HOUR);
    let headers = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "8389120")];
    assert_eq!(raw(Method::PUT, &foreign, &headers, Vec::new()).await.status().as_u16(), 201);
    let error = refused(&world, &step(&second.grant(), Some(&first.grant()), &foreign)).await;
    assert_eq!(error.kind(), ErrorKind::BaseNotClean);
    let error = refused(&world, &step(&second.grant(), None, &foreign)).await;
    assert_eq!(error.kind(), ErrorKind::TargetExists);

    let container = world.target_url().replace(&format!("/{CONTAINER}/"), "/no-such-container/");
    let error = refused(&world, &step(&second.grant(), None, &container)).await;
    assert!(matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::NotFound), "{error}");
}

#[tokio::test]
async fn a_base_of_another_size_is_refused() {
    let (world, [first, second, _]) = prepared().await;
    for length in ["4194304", "16777216"] {
        let resize = [("x-ms-blob-content-length", length)];
        let target = format!("{}&comp=properties", world.target_url());
        assert_eq!(raw(Method::PUT, &target, &resize, Vec::new()).await.status().as_u16(), 200);
        let error = refused(&world, &world.step(&second, Some(&first))).await;
        assert_eq!(error.kind(), ErrorKind::BaseSizeMismatch);
    }
}

#[tokio::test]
async fn a_base_that_is_leased_by_another_writer_is_refused() {
    let (world, [first, second, _]) = prepared().await;
    let lease = [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "60")];
    let target = format!("{}&comp=lease", world.target_url());
    assert_eq!(raw(Method::PUT, &target, &lease, Vec::new()).await.status().as_u16(), 201);
    let error = refused(&world, &world.step(&second, Some(&first))).await;
    assert_eq!((error.kind(), error.kind().remedy()), (ErrorKind::LeaseHeld, Remedy::Passes));
    world.target.advance_clock(Duration::from_secs(61));
    world.copy(&second, Some(&first)).await.unwrap();
}

#[tokio::test]
async fn disks_that_do_not_fit_are_refused_before_anything_is_created() {
    let world = World::new().await;
    let wall = world.source.create_disk("wall", 8 << 40).unwrap().snapshot();
    assert_eq!(refused(&world, &world.step(&wall, None)).await.kind(), ErrorKind::TooLarge);
    assert!(world.base(None).is_none());

    let disk = world.disk(4 << 40);
    let before = disk.snapshot();
    world.copy(&before, None).await.unwrap();
    disk.grow((4 << 40) + MIB).unwrap();
    let error = refused(&world, &world.step(&disk.snapshot(), Some(&before))).await;
    assert_eq!(error.kind(), ErrorKind::GrowthAcross4Tib);
    assert!(error.advice().unwrap().contains("--rebase"));
}

#[test]
fn a_source_without_a_snapshot_and_a_target_with_one_are_refused() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (world, [first, second, _]) = prepared().await;
        let live =
            Step { source: url(Role::Source, &world.target_url()), ..world.step(&second, Some(&first)) };
        assert_eq!(refused(&world, &live).await.kind(), ErrorKind::Usage);
        let point = format!("{}&snapshot=2026-01-01T00:00:00.0000000Z", world.target_url());
        let onto = Step { target: url(Role::Target, &point), ..world.step(&second, Some(&first)) };
        assert_eq!(refused(&world, &onto).await.kind(), ErrorKind::Usage);
    });
}

/// Arguments that must be refused before any request is made, with their exit codes.
#[test]
fn nonsense_on_the_command_line_is_refused_with_its_exit_code() {
    const SOURCE: &str =
        "https://md-1.z1.blob.storage.azure.net/c/abcd?snapshot=2026-01-01T00:00:00.0000000Z&sig=s3cr3t";
    const TARGET: &str = "https://a.blob.core.windows.net/c/b?sig=s3cr3t";
    let full = ["copy", "--source", SOURCE, "--target", TARGET];
    let with = |more: &[&'static str]| [&full[..], more].concat();
    for (arguments, code) in [
        (with(&["--chunk-size", "5MiB"]), 2),
        (with(&["--chunk-size", "1000"]), 2),
        (with(&["--chunk-size", "0"]), 2),
        (with(&["--chunk-size", "-1"]), 2),
        (with(&["--memory", "1KiB"]), 2),
        (with(&["--concurrency", "0"]), 2),
        (with(&["--concurrency", "100000"]), 2),
        (with(&["--rate-limit", "fast"]), 2),
        (with(&["--rate-limit", "0/s"]), 2),
        (with(&["--request-limit", "0"]), 2),
        (with(&["--cap-mbps", "-3"]), 2),
        (with(&["--stall-timeout", "0s"]), 2),
        (with(&["--list-window", "1MiB"]), 2),
        (with(&["--lease-duration", "5"]), 2),
        (with(&["--no-such-option"]), 2),
        (with(&[SOURCE]), 2),
        (vec!["copy", "--source", SOURCE], 2),
        (vec!["copy", "--source", "-", "--target", "-"], 2),
        (vec!["copy", "--source", "@/no/such/file", "--target", TARGET], 2),
        (vec!["copy", "--source", "nonsense", "--target", TARGET], 2),
        (vec!["copy", "--source", SOURCE, "--target", "http://a.blob.core.windows.net/c/b?sig=s3cr3t"], 23),
        (vec!["demo", "--size", "17"], 2),
        (vec!["demo", "--size", "8EiB"], 2),
        (vec!["teleport"], 2),
    ] {
        let output = snapferry().args(&arguments).output().unwrap();
        let shown = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {shown}");
        assert!(!shown.contains("s3cr3t"), "{arguments:?}: {shown}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn an_unknown_variable_of_ours_in_the_environment_is_refused() {
    let output =
        snapferry().args(["demo", "--size", "16MiB"]).env("SNAPFERRY_SOURCES", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("SNAPFERRY_SOURCES"));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_cannot_be_written_has_its_own_exit_code_and_the_work_stands() {
    let (world, [first, second, _]) = prepared().await;
    let mut full = snapferry();
    full.args(["copy", "--quiet", "--source", &second.grant(), "--previous", &first.grant()]);
    full.args(["--target", &world.target_url()]);
    full.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = world::output(full).await;
    assert_eq!(output.status.code(), Some(22), "{}", text(&output.stderr));
    assert_eq!(world.state().as_deref(), Some("clean"));

    let mut closed = snapferry();
    closed.args(["points", "--target", &world.target_url()]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    closed.stdout(writer);
    let output = world::output(closed).await;
    assert_eq!(output.status.code(), Some(22), "{}", text(&output.stderr));
}
