//! Flat memory: what a copy takes is bounded by its budget, whatever the disk's size and the number of extents.
//! Read from the kernel's own count of the program's peak, so on Linux only.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::process::{Child, Stdio};
use std::time::Duration;

use snapferry_emulator::Pattern;
use world::{MIB, World, noise, snapferry};

/// Lets the program run to its end, or ends it after a number of looks; gives its peak.
async fn peak(mut child: Child, looks: usize) -> (u64, bool) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    for _ in 0..looks {
        if let Ok(text) = std::fs::read_to_string(&status)
            && let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:"))
        {
            let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            peak = peak.max(kib * 1024);
        }
        if let Some(ended) = child.try_wait().unwrap() {
            return (peak, ended.success());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    (peak, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_by_the_budget_and_not_by_the_data() {
    let world = World::new().await;
    let disk = world.disk(512 * MIB);
    for at in 0..8 {
        disk.write(at * 64 * MIB, &noise(at, 48 * MIB)).unwrap();
    }
    let snapshot = disk.snapshot();
    let mut copy = snapferry();
    copy.args([
        "copy",
        "--quiet",
        "--memory",
        "96MiB",
        "--source",
        &snapshot.grant(),
        "--target",
        &world.target_url(),
    ]);
    let child = copy.stdout(Stdio::null()).spawn().unwrap();
    let (peak, succeeded) = peak(child, 12_000).await;
    assert!(succeeded);
    assert!(peak < 96 * MIB, "{} MiB", peak / MIB);
}

/// The peak of a copy of a generated disk's second snapshot, which goes on for a while and is ended then.
async fn copying(bytes: u64, extents: u64) -> u64 {
    let world = World::new().await;
    world.account.set_sink(true);
    let changes = Pattern::Scattered { extents, bytes: 4096 };
    let disk = world.source.generate_disk("generated", bytes, Pattern::None, changes).unwrap();
    let (first, second) = (disk.snapshot().grant(), disk.snapshot().grant());
    let target = world.target_url();
    let mut full = snapferry();
    full.args(["copy", "--quiet", "--verify", "none", "--source", &first, "--target", &target]);
    let (_, succeeded) = peak(full.stdout(Stdio::null()).spawn().unwrap(), 12_000).await;
    assert!(succeeded);
    let mut copy = snapferry();
    copy.args(["copy", "--quiet", "--verify", "none", "--source", &second, "--previous", &first]);
    copy.args(["--target", &target, "--join-gap", "0"]);
    peak(copy.stdout(Stdio::null()).spawn().unwrap(), 800).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_disk_nor_with_the_number_of_extents() {
    const GIB: u64 = 1024 * MIB;
    let small = copying(GIB, 1000).await;
    let large = copying(8191 * GIB, 5_000_000).await;
    assert!(large < 256 * MIB, "{} MiB", large / MIB);
    assert!(large < small + 32 * MIB, "{} and {} MiB", small / MIB, large / MIB);
}
