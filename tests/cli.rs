//! The command line as a person and a scheduler use it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::process::Stdio;

use serde_json::{Value, json};
use snapferry_emulator::DiskSnapshot;
use world::{MIB, World, noise, output, snapferry, text};

async fn prepared() -> (World, DiskSnapshot, DiskSnapshot) {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    disk.write(4 * MIB, &noise(2, 8192)).unwrap();
    (world, first, disk.snapshot())
}

fn document(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("standard output holds one JSON document")
}

#[test]
fn the_demo_is_killed_goes_on_and_proves_every_point_identical_in_its_json() {
    let run = snapferry().args(["demo", "--output", "json", "--size", "64MiB"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    let report = document(&run.stdout);
    assert_eq!((&report["killed"], &report["identical"]), (&json!(true), &json!(true)));
    let resumed = report["resumed_from"].as_u64();
    let points = report["points"].as_array().unwrap();
    assert_eq!(points.len(), 3);
    for point in points {
        assert_eq!(point["identical"], true);
        assert!(point["bytes_sent"].as_u64() > Some(0) && point["point"].is_string());
    }
    assert!(resumed.is_none_or(|offset| offset < points[0]["length"].as_u64().unwrap()));
    assert!(points[2]["length"].as_u64() > points[1]["length"].as_u64(), "the disk grew");
    assert!(points[1]["bytes_sent"].as_u64() < points[0]["bytes_sent"].as_u64(), "differences are small");
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_come_from_arguments_files_standard_input_and_the_environment() {
    let (world, first, second) = prepared().await;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("previous.sas");
    std::fs::write(&file, format!("{}\n", first.grant())).unwrap();

    let mut full = snapferry();
    full.args(["copy", "--quiet", "--source", "-"]).env("SNAPFERRY_TARGET", world.target_url());
    full.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = full.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), first.grant().as_bytes()).unwrap();
    let full = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(full.status.success(), "{}", text(&full.stderr));
    assert!(text(&full.stdout).contains("full copy"));

    let mut difference = snapferry();
    difference
        .args(["copy", "--quiet", "--output", "json", "--previous"])
        .arg(format!("@{}", file.display()));
    difference.env("SNAPFERRY_SOURCE", second.grant()).env("SNAPFERRY_TARGET", world.target_url());
    let difference = output(difference).await;
    assert!(difference.status.success(), "{}", text(&difference.stderr));
    let report = document(&difference.stdout);
    assert_eq!((report["bytes_changed"].as_u64(), report["bytes_sent"].as_u64()), (Some(8192), Some(8192)));
    let point = world.base(report["point"]["point"].as_str()).unwrap();
    world::assert_same_bytes(&point, &second);
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_points_and_status_tell_what_is_there() {
    let (world, first, second) = prepared().await;
    let target = world.target_url();
    let ask = |arguments: &[&str]| {
        let mut command = snapferry();
        command.args(arguments).args(["--output", "json", "--target", &target]);
        output(command)
    };
    let missing = ask(&["status"]).await;
    assert_eq!(missing.status.code(), Some(11));
    assert_eq!(document(&missing.stdout)["error"]["kind"], "base-missing");

    let dry = ask(&["copy", "--dry-run", "--source", &first.grant()]).await;
    assert_eq!(document(&dry.stdout)["action"], "create");
    assert!(world.base(None).is_none());
    world.copy(&first, None).await.unwrap();
    let plan = ask(&["plan", "--source", &second.grant(), "--previous", &first.grant()]).await;
    let plan = document(&plan.stdout);
    assert_eq!((plan["action"].as_str(), plan["bytes_changed"].as_u64()), (Some("begin"), Some(8192)));
    assert_eq!(plan["requests_planned"].as_u64(), Some(2));

    let report = world.copy(&second, Some(&first)).await.unwrap();
    let points = document(&ask(&["points"]).await.stdout);
    let times: Vec<_> = points["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["source_time"].as_str().unwrap())
        .collect();
    assert_eq!(times, [first.time(), second.time()]);
    let status = document(&ask(&["status"]).await.stdout);
    assert_eq!(
        (status["state"].as_str(), status["point"].as_str()),
        (Some("clean"), Some(report.point.point.as_str()))
    );
    assert_eq!(status["lease"], "available", "the lease was released");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_told_to_people_and_to_programs() {
    let (world, first, second) = prepared().await;
    let mut command = snapferry();
    command.args(["copy", "--output", "json", "--source", &second.grant(), "--previous", &first.grant()]);
    command.args(["--target", &world.target_url()]);
    let failed = output(command).await;
    assert_eq!(failed.status.code(), Some(11));
    let error = &document(&failed.stdout)["error"];
    assert_eq!((error["kind"].as_str(), error["exit_code"].as_u64()), (Some("base-missing"), Some(11)));
    assert_eq!(error["again"], "needs-user");
    let shown = text(&failed.stderr);
    for part in ["error: cannot", "again:", "next:", "snapferry copy --source", "exit code 11"] {
        assert!(shown.contains(part), "'{part}' is missing in {shown}");
    }
}

#[test]
fn a_command_line_that_cannot_be_read_gives_a_document_too() {
    for form in [vec!["-o", "json"], vec!["--output=json"]] {
        let run = snapferry().args(["copy", "--concurrency", "0"]).args(form).output().unwrap();
        assert_eq!(run.status.code(), Some(2));
        assert_eq!(document(&run.stdout)["error"]["kind"], "usage");
    }
}

#[test]
fn help_has_examples_and_every_exit_code() {
    let help = snapferry().arg("--help").output().unwrap();
    assert!(help.status.success() && text(&help.stdout).contains("Examples:"));
    let copy = text(
        &snapferry()
            .args(["copy", "--help"])
            .env("SNAPFERRY_SOURCE", "https://s3cr3t")
            .output()
            .unwrap()
            .stdout,
    );
    assert!(!copy.contains("s3cr3t"));
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for kind in snapferry::ErrorKind::ALL {
        let (code, name) = (kind.exit_code(), kind.name());
        assert!(readme.contains(&format!("| {code} | `{name}` |")), "the README lacks {code} {name}");
        let words = name.replace("-4tib", " 4 TiB").replace('-', " ");
        let words = if name == "internal" { "a defect".to_owned() } else { words };
        assert!(
            copy.split_whitespace().collect::<Vec<_>>().join(" ").contains(&format!("{code} {words}")),
            "help lacks {code} {words}"
        );
    }
}

/// Starts `snapferry emulate`, copies between its own URLs with the program, and ends it with a signal.
#[cfg(unix)]
#[test]
fn an_emulated_region_serves_until_it_is_ended() {
    use std::io::{BufRead, BufReader};
    let mut emulator = snapferry()
        .args(["emulate", "--listen", "127.0.0.1:0", "--disk", "web=16MiB,snapshots=2"])
        .args(["--fault", "put-page:times=2:server-busy=ingress", "--link", "latency=1ms"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(emulator.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
    let url = |start: &str| {
        told.iter().find(|line| line.starts_with(start)).unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    let target = url("account target container disks").replacen('?', "/web?", 1);
    let (first, second) = (url("disk web snapshot 1"), url("disk web snapshot 2"));
    for arguments in [vec!["--source", &first], vec!["--source", &second, "--previous", &first]] {
        let run =
            snapferry().args(["copy", "--quiet", "--target", &target]).args(arguments).output().unwrap();
        assert!(run.status.success(), "{}", text(&run.stderr));
    }
    std::process::Command::new("kill").args(["-INT", &emulator.id().to_string()]).status().unwrap();
    assert!(emulator.wait().unwrap().success());
    #[cfg(target_os = "linux")]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let unread = snapferry().args(["emulate", "--listen", "127.0.0.1:0"]).stdout(full).output().unwrap();
        assert_eq!(unread.status.code(), Some(22));
    }
    let busy = snapferry().args(["emulate", "--listen", "192.0.2.1:80"]).output().unwrap();
    assert_eq!(busy.status.code(), Some(2), "{}", text(&busy.stderr));
}

/// A target without a SAS is reached with a token of the Azure CLI: here one that stands in for it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_a_sas_is_reached_by_signing_in() {
    use std::os::unix::fs::PermissionsExt;
    const TOKEN: &str = "eyJhbGciOiJub25lIn0.c2VjcmV0.token";
    let (world, first, _) = prepared().await;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let az = folder.path().join("az");
    let reply = format!(
        r#"{{"accessToken":"{TOKEN}","expiresOn":"2099-01-01 00:00:00.000000","expires_on":4070908800,"tokenType":"Bearer"}}"#
    );
    std::fs::write(&az, format!("#!/bin/sh\necho '{reply}'\n")).unwrap();
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).unwrap();

    let bare = world.account.blob_url(world::CONTAINER, world::BASE);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut copy = snapferry();
    copy.args(["copy", "-vvv", "--login-type", "azcli", "--source", &first.grant(), "--target", &bare])
        .env("PATH", path);
    let run = output(copy).await;
    let shown = text(&run.stderr) + &text(&run.stdout);
    assert!(run.status.success(), "{shown}");
    assert!(!shown.contains(TOKEN));
    assert_eq!(world.points(), 1);

    let mut nobody = snapferry();
    nobody.args(["status", "--login-type", "azcli", "--target", &bare]).env("PATH", "/nonexistent");
    let run = output(nobody).await;
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
}

/// https with a certificate that the machine trusts, and not without that trust.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn https_is_verified() {
    use snapferry_emulator::Config;
    let tls = || Config { tls: true, ..Config::default() };
    let world = World::with(tls(), tls()).await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let snapshot = disk.snapshot();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bundle = folder.path().join("trusted.pem");
    let certificates = [&world.source, &world.target].map(|emulator| emulator.certificate_pem().unwrap());
    std::fs::write(&bundle, certificates.concat()).unwrap();
    let copy = || {
        let mut copy = snapferry();
        copy.args([
            "copy",
            "--quiet",
            "--retry-for",
            "100ms",
            "--source",
            &snapshot.grant(),
            "--target",
            &world.target_url(),
        ]);
        copy
    };
    let untrusted = output(copy()).await;
    assert_eq!(untrusted.status.code(), Some(19), "{}", text(&untrusted.stderr));
    assert!(world.base(None).is_none());
    let mut trusting = copy();
    trusting.env("SSL_CERT_FILE", &bundle);
    let run = output(trusting).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let point = world.base(None).unwrap().snapshots()[0].clone();
    world::assert_same_bytes(&world.base(Some(&point)).unwrap(), &snapshot);
}

/// Whoever reads our standard error may go: that is no reason to end.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_error_does_not_end_a_copy() {
    let world = World::new().await;
    let disk = world.disk(64 * MIB);
    disk.write(0, &noise(1, 48 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut copy = snapferry();
    // Long enough for a line of progress.
    copy.args([
        "copy",
        "-vvv",
        "--rate-limit",
        "6MiB/s",
        "--source",
        &snapshot.grant(),
        "--target",
        &world.target_url(),
    ]);
    let run = output({
        copy.stderr(writer);
        copy
    })
    .await;
    assert!(run.status.success());
    assert_eq!(world.points(), 1);
}
