//! Many steps in one process share one budget: memory is bounded by it, and each gets its share.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use snapferry::azure::{Caps, Client, RetryPolicy, Timeouts};
use snapferry::budget::Budget;
use snapferry::progress::Progress;
use snapferry::replicate::replicate;
use snapferry::step::{Settings, Verify};
use snapferry_emulator::{Config, Link, Pattern};
use tokio_util::sync::CancellationToken;
use world::{CONTAINER, HOUR, MIB, World};

const DISKS: usize = 24;
const SIZE: u64 = 64 * MIB;
/// Four chunks of 4 MiB.
const MEMORY: u64 = 16 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_one_process_share_memory_and_caps_fairly() {
    // A little latency, so that chunks are in flight for a while and everybody wants more than there is.
    let link = Link { latency: Duration::from_millis(10), ..Link::default() };
    let world =
        World::with(Config { link: link.clone(), ..Config::default() }, Config { link, ..Config::default() })
            .await;
    world.account.set_sink(true);
    let budget = Budget::new(MEMORY, Caps::default());
    let client =
        Client::new(Timeouts::default(), RetryPolicy::default(), None).unwrap().within(budget.clone());
    let cancel = CancellationToken::new();
    let mut runs = tokio::task::JoinSet::new();
    let mut seen = Vec::new();
    for number in 0..DISKS {
        let disk = world
            .source
            .generate_disk(&format!("disk-{number}"), SIZE, Pattern::Dense, Pattern::None)
            .unwrap();
        let base = world.account.container_sas(CONTAINER, &format!("base-{number}"), "rcwdl", HOUR);
        let step = world::step(&disk.snapshot().grant(), None, &base);
        let progress = Arc::new(Progress::default());
        seen.push(Arc::clone(&progress));
        let (client, cancel) = (client.clone(), cancel.clone());
        runs.spawn(async move {
            let settings = Settings { verify: Verify::None, ..Settings::default() };
            replicate(&step, &client, &settings, &progress, &cancel).await
        });
    }
    let mut least = budget.free();
    while least > 0 && runs.len() == DISKS && seen.iter().all(|progress| progress.read().bytes < SIZE) {
        least = least.min(budget.free());
        tokio::task::yield_now().await;
    }
    assert_eq!(least, 0, "all of it was asked for");
    let report = runs.join_next().await.unwrap().unwrap().unwrap();
    // The first is done: everybody else had as many turns as it had.
    let behind = seen.iter().map(|progress| progress.read().bytes).min().unwrap();
    assert!(behind * 2 > report.bytes_sent, "{behind} of {}", report.bytes_sent);
    while let Some(done) = runs.join_next().await {
        assert_eq!(done.unwrap().unwrap().bytes_sent, SIZE + 512);
    }
    assert_eq!(budget.free(), MEMORY);
}
