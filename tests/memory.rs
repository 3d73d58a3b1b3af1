//! Flat memory: what a copy takes is bounded by its budget, whatever the disk's size and the number of extents.
//! Read from the kernel's own count of the program's peak, so on Linux only.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::process::{Child, Stdio};
use std::time::Duration;

use world::{MIB, World, noise, snapferry};

/// The program itself, its threads and the buffers of its sockets.
const PROGRAM: u64 = 64 * MIB;

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
        "16MiB",
        "--source",
        &snapshot.grant(),
        "--target",
        &world.target_url(),
    ]);
    let child = copy.stdout(Stdio::null()).spawn().unwrap();
    let (peak, succeeded) = peak(child, 12_000).await;
    assert!(succeeded);
    // A chunk stands in memory once as it came, and on its way through the sockets of both sides.
    assert!(peak < PROGRAM + 2 * 16 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_number_of_extents() {
    const EXTENTS: u64 = 100_000;
    let world = World::new().await;
    let disk = world.disk(EXTENTS * 8 * 1024);
    let page = noise(1, 512);
    for extent in 0..EXTENTS {
        disk.write(extent * 8 * 1024, &page).unwrap();
    }
    let snapshot = disk.snapshot();
    let mut plan = snapferry();
    plan.args([
        "plan",
        "--quiet",
        "--join-gap",
        "0",
        "--source",
        &snapshot.grant(),
        "--target",
        &world.target_url(),
    ]);
    let (planning, succeeded) = peak(plan.stdout(Stdio::null()).spawn().unwrap(), 12_000).await;
    assert!(succeeded);
    assert!(planning < PROGRAM, "plan took {} MiB", planning / MIB);

    // A copy that is held back: the listing runs ahead of it, and stops at its bound.
    let mut copy = snapferry();
    copy.args([
        "copy",
        "--quiet",
        "--join-gap",
        "0",
        "--request-limit",
        "50",
        "--source",
        &snapshot.grant(),
        "--target",
        &world.target_url(),
    ]);
    let (copying, _) = peak(copy.stdout(Stdio::null()).spawn().unwrap(), 300).await;
    assert!(copying < PROGRAM + 50 * MIB, "copy took {} MiB", copying / MIB);
}
