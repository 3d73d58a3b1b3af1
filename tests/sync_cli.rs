//! `snapferry sync` as a scheduler runs it: the real program, with tokens from a managed identity.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use snapferry_emulator::{Call, Disk, DiskSnapshot};
use world::{MIB, World, noise, output, snapferry, text};

fn chain(world: &World, count: u64) -> (Disk, Vec<DiskSnapshot>) {
    let disk = world.disk(4 * MIB);
    let snapshots = (0..count)
        .map(|number| {
            disk.write(number * MIB, &noise(number + 1, MIB / 2)).unwrap();
            disk.snapshot()
        })
        .collect();
    (disk, snapshots)
}

/// The command that a scheduler would run, signed in as a managed identity.
fn sync(world: &World, disk: &Disk) -> Command {
    let mut command = snapferry();
    command.args(["sync", "--login-type", "msi", "--disk", &disk.arm_id()]).args([
        "--arm-endpoint",
        &world.source.arm().endpoint(),
        "--wait-for-lease",
        "0s",
    ]);
    sign_in(world, &mut command);
    command.env("SNAPFERRY_TARGET", world.target_url());
    command
}

fn sign_in(world: &World, command: &mut Command) {
    let (endpoint, header) = world.source.arm().identity();
    command.env("IDENTITY_ENDPOINT", endpoint).env("IDENTITY_HEADER", header);
}

fn document(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("standard output holds one JSON document")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_gets_a_report_and_finds_nothing_to_do_the_second_time() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 3);
    let mut first = sync(&world, &disk);
    first.args(["--output", "json", "--quiet"]);
    let first = output(first).await;
    assert!(first.status.success(), "{}", text(&first.stderr));
    let report = document(&first.stdout);
    assert_eq!((report["kind"].as_str(), report["steps"].as_array().map(Vec::len)), (Some("sync"), Some(3)));
    assert_eq!(report["keep"].as_str(), Some(snapshots[2].arm_id().as_str()));
    let origin = &report["steps"][1]["point"]["origin"];
    assert_eq!(origin["snapshot"].as_str(), Some(snapshots[1].arm_id().as_str()));
    world.assert_points(&snapshots.iter().collect::<Vec<_>>());

    let again = output(sync(&world, &disk)).await;
    assert!(again.status.success(), "{}", text(&again.stderr));
    let shown = text(&again.stdout);
    assert!(shown.contains("nothing to copy") && shown.contains(&snapshots[2].arm_id()), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_report_tells_of_all_steps_and_so_do_the_limits_of_the_result() {
    let world = World::new().await;
    let (disk, _) = chain(&world, 3);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("chain.json");
    let mut run = sync(&world, &disk);
    run.args(["--output", "json", "--chunk-size", "64KiB", "--rate-limit", "512KiB/s", "--report"])
        .arg(&path);
    let run = output(run).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let printed = document(&run.stdout);
    assert_eq!(printed["limits"][0]["limit"], "cap", "{}", printed["limits"]);
    let report = document(&std::fs::read(&path).unwrap());
    let steps = printed["steps"].as_array().unwrap();
    let sum = |field: &str| steps.iter().map(|step| step[field].as_u64().unwrap()).sum::<u64>();
    let (run, course) = (&report["run"], &report["course"]);
    assert_eq!(run["bytes"].as_u64(), Some(sum("bytes_sent")));
    assert_eq!(run["source"].as_str(), Some(disk.arm_id().as_str()));
    assert!(run["target"].as_str().unwrap().ends_with(&format!("/{}/{}", world::CONTAINER, world::BASE)));
    assert_eq!(run["point"], steps[2]["point"]["point"]);
    // Few extents: it is the bytes that take the time.
    let seconds = sum("bytes_changed") as f64 / f64::from(60 << 20);
    assert!((run["least_seconds"].as_f64().unwrap() - seconds).abs() < 1e-9, "{run}");
    let written: u64 =
        course["map"]["data"].as_array().unwrap().iter().map(|cell| cell.as_u64().unwrap()).sum();
    assert_eq!(written, sum("bytes_sent"), "the map is that of all steps");
    let last = course["samples"].as_array().unwrap().last().unwrap();
    let requests = last["source_requests"].as_u64().unwrap() + last["target_requests"].as_u64().unwrap();
    assert!(requests >= sum("requests"), "{requests}");

    for unusable in [vec!["--watch", "1h"], vec!["--dry-run"]] {
        let mut command = sync(&world, &disk);
        command.arg("--report").arg(&path).args(unusable);
        assert_eq!(output(command).await.status.code(), Some(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_bytes_requests_time_and_money_and_writes_nothing() {
    let world = World::new().await;
    let (disk, snapshots) = chain(&world, 3);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let prices = folder.path().join("prices.json");
    let mut template = snapferry();
    template.arg("prices");
    let template = output(template).await;
    let mut table = document(&template.stdout);
    table["transfer_per_gb"] = 1000.0.into();
    table["currency"] = "EUR".into();
    std::fs::write(&prices, table.to_string()).unwrap();

    let mut plan = sync(&world, &disk);
    plan.args(["--dry-run", "--output", "json", "--assume-rate", "1MiB/s", "--prices"]).arg(&prices);
    let plan = output(plan).await;
    assert!(plan.status.success(), "{}", text(&plan.stderr));
    let plan = document(&plan.stdout);
    let bytes = plan["total"]["bytes_to_read"].as_u64().unwrap();
    assert_eq!(bytes, 3 * MIB / 2 + 512, "half a MiB in each snapshot, and the footer");
    let estimate = &plan["total"]["estimate"];
    assert!((estimate["seconds"].as_f64().unwrap() - bytes as f64 / MIB as f64).abs() < 0.01);
    assert!((estimate["once"].as_f64().unwrap() - bytes as f64 / 1e6).abs() < 0.01, "{estimate}");
    assert_eq!(plan["prices"]["currency"].as_str(), Some("EUR"));
    assert!(world.base(None).is_none(), "nothing was written");
    assert!(world.source.arm().active_grants().is_empty());

    let mut newest = sync(&world, &disk);
    newest.args(["--dry-run", "--skip-intermediate"]);
    let shown = text(&output(newest).await.stdout);
    assert!(shown.contains("skipping      saves") && shown.contains("skipped       disk-1"), "{shown}");
    assert!(shown.contains("assumed"), "the prices that come with the program say what they are: {shown}");

    // What the forecast says is what the copy does.
    let mut run = sync(&world, &disk);
    run.args(["--output", "json"]);
    let run = document(&output(run).await.stdout);
    let sent: u64 =
        run["steps"].as_array().unwrap().iter().map(|step| step["bytes_sent"].as_u64().unwrap()).sum();
    assert_eq!(sent, bytes);
    world.assert_points(&snapshots.iter().collect::<Vec<_>>());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_copies_what_appears_and_ends_cleanly() {
    let world = World::new().await;
    let (disk, mut snapshots) = chain(&world, 1);
    let mut watch = sync(&world, &disk);
    watch
        .args(["--watch", "1s", "--quiet", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = watch.spawn().unwrap();
    let mut rounds = documents(child.stdout.take().unwrap());
    for count in 1..=3 {
        // Told, and not only sealed: it is between two rounds then.
        let mut sealed = 0;
        while sealed == 0 {
            let round = rounds.recv().await.expect("it goes on");
            sealed = round["steps"].as_array().map_or(0, Vec::len);
        }
        assert_eq!(sealed, 1, "one snapshot came since the round before");
        if count < 3 {
            // What passes by itself is no reason to end.
            let held = snapferry_emulator::FaultKind::InternalError;
            world.target.faults().add(snapferry_emulator::Fault::new(held).on(Call::PutPage));
            disk.write(0, &noise(count + 50, MIB)).unwrap();
            snapshots.push(disk.snapshot());
        }
    }
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(matches!(ended.status.code(), Some(0 | 130)), "{:?}: {}", ended.status, text(&ended.stderr));
    world.assert_points(&snapshots.iter().collect::<Vec<_>>());
}

/// The documents that a watch prints, one a line.
fn documents(stdout: std::process::ChildStdout) -> tokio::sync::mpsc::UnboundedReceiver<Value> {
    let (sender, documents) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)) {
            let document = serde_json::from_str(&line.unwrap()).expect("a document a line");
            if sender.send(document).is_err() {
                return;
            }
        }
    });
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mistyped_is_told_before_anything_is_asked() {
    let world = World::new().await;
    let (disk, _) = chain(&world, 1);
    let id = disk.arm_id();
    let snapshot_id = id.replace("/disks/disk", "/snapshots/disk");
    for (arguments, expected) in [
        (vec!["--disk", "web-1"], "az disk show"),
        (vec!["--disk", &snapshot_id], "not a disk"),
        (vec!["--sas-duration", "61d"], "60 days"),
        (vec!["--sas-duration", "1s"], "60 days"),
        (vec!["--watch", "0s"], "--watch"),
        (vec!["--prices", "/nonexistent"], "snapferry prices"),
        (vec!["--arm-endpoint", "http://example.com"], "clear text"),
        (vec!["--arm-endpoint", "https://example.com/path"], "scheme and host"),
        (vec!["--target", "https://a.blob.core.windows.net?sig=s3cr3t"], "names no blob"),
    ] {
        let mut command = snapferry();
        command.args(["sync", "--login-type", "msi"]).env("SNAPFERRY_TARGET", world.target_url());
        sign_in(&world, &mut command);
        if !arguments.contains(&"--disk") {
            command.args(["--disk", &id]);
        }
        let run = output({
            command.args(&arguments);
            command
        })
        .await;
        let shown = text(&run.stderr);
        assert!(matches!(run.status.code(), Some(2 | 23)), "{arguments:?}: {shown}");
        assert!(shown.contains(expected), "{arguments:?}: {shown}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
    assert_eq!(world.source.stats().of(Call::ArmListSnapshots).requests, 0);
}

/// Neither a SAS nor a token shows, whatever goes wrong, at the most verbose level.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_told() {
    let world = World::new().await;
    let (disk, _) = chain(&world, 2);
    let mut noisy = sync(&world, &disk);
    noisy.arg("-vvv");
    let fine = output(noisy).await;
    assert!(fine.status.success(), "{}", text(&fine.stderr));
    world.source.faults().add(
        snapferry_emulator::Fault::new(snapferry_emulator::FaultKind::InternalError)
            .on(Call::GetBlob)
            .always(),
    );
    disk.write(0, &noise(77, MIB)).unwrap();
    disk.snapshot();
    let mut broken = sync(&world, &disk);
    broken.args(["-vvv", "--retry-for", "1s"]);
    let broken = output(broken).await;
    assert_eq!(broken.status.code(), Some(19), "{}", text(&broken.stderr));
    let target = world.target_url();
    let signature = target.split("sig=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let header = world.source.arm().identity().1;
    for run in [&fine, &broken] {
        let shown = format!("{}{}", text(&run.stdout), text(&run.stderr));
        for secret in [signature.as_str(), header.as_str(), "sig=", "&si=", "Bearer ey", "access_token"] {
            let found = shown
                .match_indices(secret)
                .find(|(at, _)| !shown[at + secret.len()..].starts_with("REDACTED"));
            assert!(found.is_none(), "'{secret}' shows: {}", &shown[found.unwrap().0.saturating_sub(100)..]);
        }
    }
    let metadata = world.base(None).unwrap().metadata().clone();
    assert!(metadata.values().all(|value| !value.contains("sig=") && !value.contains(&signature)));
    assert!(world.source.arm().active_grants().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forecast_counts_with_the_rate_of_the_last_copy() {
    let world = World::new().await;
    let disk = world.disk(80 * MIB);
    disk.write(0, &noise(1, 80 * MIB)).unwrap();
    disk.snapshot();
    let mut copy = sync(&world, &disk);
    copy.args(["--output", "json"]);
    let copied = document(&output(copy).await.stdout);
    let measured = copied["steps"][0]["point"]["bytes_per_second"].as_u64().unwrap();
    assert!(measured > 0);
    disk.write(0, &noise(2, MIB)).unwrap();
    disk.snapshot();
    let mut plan = sync(&world, &disk);
    plan.args(["--dry-run", "--output", "json"]);
    let plan = document(&output(plan).await.stdout);
    assert_eq!(plan["rate"]["bytes_per_second"].as_u64(), Some(measured));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sas_in_the_wrong_place_is_not_told() {
    let world = World::new().await;
    let (disk, _) = chain(&world, 1);
    for flag in ["--until", "--snapshot-resource-group", "--disk", "--watch", "--arm-endpoint"] {
        let mut command = snapferry();
        command.args(["sync", "--login-type", "msi", "--output", "json"]);
        if flag != "--disk" {
            command.args(["--disk", &disk.arm_id()]);
        }
        sign_in(&world, &mut command);
        command.env("SNAPFERRY_TARGET", world.target_url()).args([flag, &world.target_url()]);
        let run = output(command).await;
        assert_eq!(run.status.code(), Some(2), "{flag}: {}", text(&run.stderr));
        let shown = format!("{}{}", text(&run.stdout), text(&run.stderr)).replace("sig=REDACTED", "");
        assert!(!shown.contains("sig="), "{flag}: {shown}");
    }
}

/// Two steps with progress on show: what the second counts begins at zero.
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_over_all_steps_of_a_chain() {
    let world = World::new().await;
    let disk = world.disk(4 * MIB);
    disk.write(0, &noise(1, 320 << 10)).unwrap();
    disk.snapshot();
    disk.write(0, &noise(2, 100 << 10)).unwrap();
    disk.snapshot();
    let mut slow = sync(&world, &disk);
    // Longer than the five seconds between two lines, in both steps.
    slow.args(["--rate-limit", "50KiB/s", "--chunk-size", "16KiB", "--concurrency", "1", "--join-gap", "0B"]);
    let run = output(slow).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("time left"), "{}", text(&run.stderr));
}

/// Whether a hangup is ignored is inherited: from whoever runs the tests, or, as `nohup` does it, from what is said here.
#[cfg(target_os = "linux")]
async fn hung_up(world: &World, command: &Command, hangup: &str) -> std::process::Output {
    let mut through = Command::new("env");
    through.arg(hangup).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => through.env(name, value),
            None => through.env_remove(name),
        };
    }
    let child = through.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while world.target.stats().of(Call::PutPage).requests < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_closed_ends_a_run_cleanly_unless_it_was_to_outlive_it() {
    for (hangup, code) in [("--default-signal=HUP", 130), ("--ignore-signal=HUP", 0)] {
        let world = World::new().await;
        let disk = world.disk(8 * MIB);
        disk.write(0, &noise(1, 8 * MIB)).unwrap();
        let snapshot = disk.snapshot();
        let mut slow = sync(&world, &disk);
        slow.args(["--rate-limit", "2MiB/s", "--chunk-size", "64KiB", "--checkpoint-every", "20ms"]);
        let ended = hung_up(&world, &slow, hangup).await;
        assert_eq!(ended.status.code(), Some(code), "{}", text(&ended.stderr));
        assert!(world.source.arm().active_grants().is_empty());
        let again = output(sync(&world, &disk)).await;
        assert!(again.status.success(), "the lease was given back: {}", text(&again.stderr));
        world.assert_points(&[&snapshot]);
    }
}
