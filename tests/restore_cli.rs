//! Promise: `restore` is killed anywhere and goes on; what cannot be restored is refused before anything looks whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use snapferry_emulator::{Call, Config, DiskSnapshot, Link};
use world::{CONTAINER, HOUR, MIB, World, noise, output, snapferry, text};

/// A point of a disk with 24 MiB of data, and a link that is slow enough to be killed in its middle.
async fn stage() -> (World, DiskSnapshot, String) {
    let target =
        Config { link: Link { latency: Duration::from_millis(8), ..Link::default() }, ..Config::default() };
    let world = World::with(Config::default(), target).await;
    let disk = world.disk(32 * MIB);
    disk.write(MIB, &noise(1, 24 * MIB)).unwrap();
    let snapshot = disk.snapshot();
    let point = world.copy(&snapshot, None).await.unwrap().point.point;
    (world, snapshot, point)
}

fn restore(world: &World, to: &str) -> Command {
    let mut command = snapferry();
    command.args([
        "restore",
        "--chunk-size",
        "256KiB",
        "--concurrency",
        "4",
        "--checkpoint-every",
        "10ms",
        "--to",
        to,
    ]);
    command.args(["--output", "json"]).env("SNAPFERRY_FROM", world.target_url());
    command
}

/// Runs it, and kills it when that many reads were answered. Whether it was killed.
async fn kill_after(world: &World, mut command: Command, call: Call, requests: u64) -> bool {
    let goal = world.target.stats().of(call).requests + requests;
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if world.target.stats().of(call).requests >= goal {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn code(run: &Output) -> Option<i32> {
    run.status.code()
}

fn is_equal(path: &Path, snapshot: &DiskSnapshot) -> bool {
    std::fs::read(path).unwrap() == snapshot.read(0, snapshot.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_file_is_killed_anywhere_and_goes_on() {
    let (world, snapshot, _) = stage().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vhd");
    let to = format!("file:{}", path.display());
    let (mut kills, mut resumed) = (0, 0);
    for requests in [1, 20, 40, 35, 51, 65, 30, 81] {
        let mut command = restore(&world, &to);
        command.arg("--overwrite");
        if kill_after(&world, command, Call::GetBlob, requests).await {
            kills += 1;
            assert!(kills > 1 || !path.exists(), "nothing half-made stands under its name");
        }
        if requests % 2 == 0 {
            continue;
        }
        let mut command = restore(&world, &to);
        command.arg("--overwrite");
        let run = output(command).await;
        assert_eq!(code(&run), Some(0), "{}", text(&run.stderr));
        let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        resumed += u32::from(report["resumed_from"].as_u64().is_some());
        assert!(is_equal(&path, &snapshot));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
    assert!(kills >= 4 && resumed >= 1, "{kills} kills, {resumed} gone on with");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_blob_and_one_in_place_are_killed_and_go_on() {
    let (world, snapshot, _) = stage().await;
    for (number, requests) in [12, 30, 70].into_iter().enumerate() {
        let name = format!("other-{number}");
        let to = world.account.container_sas(CONTAINER, &name, "rcwdl", HOUR);
        let command = || {
            let mut command = restore(&world, &to);
            command.arg("--break-lease");
            command
        };
        assert!(kill_after(&world, command(), Call::GetBlob, requests).await);
        let run = output(command()).await;
        assert_eq!(code(&run), Some(0), "{}", text(&run.stderr));
        let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        let point = report["point"]["point"].as_str().unwrap();
        world::assert_same_bytes(&world.account.read_blob(CONTAINER, &name, Some(point)).unwrap(), &snapshot);
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vhd");
    std::fs::write(&path, noise(9, 7 * MIB)).unwrap();
    let to = format!("file:{}", path.display());
    let in_place = || {
        let mut command = restore(&world, &to);
        command.arg("--differential");
        command
    };
    assert!(kill_after(&world, in_place(), Call::GetBlob, 30).await);
    let run = output(in_place()).await;
    assert_eq!(code(&run), Some(0), "{}", text(&run.stderr));
    assert!(is_equal(&path, &snapshot));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_and_nothing_looks_whole() {
    let (world, _, _) = stage().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| format!("file:{}", folder.path().join(name).display());
    std::fs::write(folder.path().join("there.vhd"), b"mine").unwrap();
    let too_large = folder.path().join("large.img");
    std::fs::File::create(&too_large).unwrap().set_len(64 * MIB).unwrap();
    let blob = world.account.container_sas(CONTAINER, "base", "rcwdl", HOUR);
    let cases: Vec<(Vec<String>, i32, &str)> = vec![
        (vec![file("disk.qcow2")], 2, "qemu-img convert"),
        (vec![file("disk.vhdx")], 2, "qemu-img convert"),
        (vec![file("disk")], 2, "--format"),
        (vec!["disk.vhd".to_owned()], 2, "file:disk.vhd"),
        (vec![blob], 2, "rollback"),
        (vec![file("there.vhd")], 16, "--overwrite"),
        (vec![file("no/such/folder.vhd")], 22, ""),
        (vec!["file:/proc/disk.vhd".to_owned()], 22, ""),
        (vec![file("a.vhd"), "--point".into(), "2001-01-01".into()], 5, "snapferry points"),
        (vec![file("a.vhd"), "--point".into(), "2001-01-01T00:00:00.0000000Z".into()], 5, "snapferry points"),
        (vec![file("large.img"), "--differential".into()], 27, ""),
        (vec!["/dev/null".to_owned()], 2, "lsblk"),
    ];
    for (arguments, expected, hint) in cases {
        let mut command = restore(&world, &arguments[0]);
        command.args(&arguments[1..]);
        let run = output(command).await;
        let said = text(&run.stderr);
        assert_eq!(code(&run), Some(expected), "{arguments:?}: {said}");
        assert!(said.contains(hint), "{arguments:?}: {said}");
        assert!(!said.contains("sig="), "{said}");
    }
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["large.img", "there.vhd"]);
    assert_eq!(std::fs::read(folder.path().join("there.vhd")).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_the_same_command_goes_on() {
    let (world, snapshot, _) = stage().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vhd");
    // A limit on the size of files stands for a full disk: the system refuses to write what lies behind it.
    let shell = |limit: &str| {
        let mut command = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_snapferry");
        let script = format!(
            "trap '' XFSZ; ulimit -f {limit}; exec {program} restore --chunk-size 256KiB --checkpoint-every 10ms --to file:{}",
            path.display()
        );
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SNAPFERRY_"))
        {
            command.env_remove(name);
        }
        command.args(["-c", &script]).env("SNAPFERRY_FROM", world.target_url());
        command
    };
    let refused = output(shell("16384")).await;
    let said = text(&refused.stderr);
    assert_eq!(code(&refused), Some(22), "{said}");
    assert!(!path.exists());
    let done = output(shell("unlimited")).await;
    assert_eq!(code(&done), Some(0), "{}", text(&done.stderr));
    assert!(is_equal(&path, &snapshot));
}
