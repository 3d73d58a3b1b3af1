//! A point restored to a file, and verified against its record, over loopback. Each has its peer in the same run: a bare
//! pump that reads the same bytes with the same HTTP library and looks at nothing.
//!
//! `cargo bench --bench restore`. Compare within one run.

#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use snapferry::azure::{Client, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use snapferry::image::ImagePath;
use snapferry::replicate::replicate;
use snapferry::restore::file::{FileJob, restore_to_file};
use snapferry::restore::point::Which;
use snapferry::step::{Settings, Step};
use snapferry::verify::{VerifyJob, verify};
use snapferry_emulator::{Config, Emulator};
use tokio::runtime::Runtime;

const CHUNK: u64 = 4 << 20;
const SIZE: u64 = 256 << 20;
const HOUR: Duration = Duration::from_hours(1);

fn url(role: Role, text: &str) -> Resource {
    Resource::parse(role, text, PlainHttp::LoopbackOnly).unwrap()
}

fn client() -> Client {
    Client::new(Timeouts::default(), RetryPolicy::default(), None).unwrap()
}

/// A point of 256 MiB of data: the emulator that has it, its URL and that of its base blob.
async fn point() -> (Emulator, String, String) {
    let region = Emulator::start(Config::default()).await.unwrap();
    let account = region.account("target");
    account.create_container("disks");
    let disk = region.create_disk("disk", SIZE).unwrap();
    let mut block = vec![0; usize::try_from(CHUNK).unwrap()];
    for at in (0..SIZE).step_by(block.len()) {
        fastrand::Rng::with_seed(at).fill(&mut block);
        disk.write(at, &block).unwrap();
    }
    let base = account.container_sas("disks", "base", "rcwdl", HOUR);
    let step = Step {
        source: url(Role::Source, &disk.snapshot().grant()),
        previous: None,
        target: url(Role::Target, &base),
        origin: None,
    };
    let (progress, cancel) = Default::default();
    let report = replicate(&step, &client(), &Settings::default(), &progress, &cancel).await.unwrap();
    let point = format!("{base}&snapshot={}", report.point.point);
    (region, point, base)
}

/// 16 ranges at a time, handed to `take` as they come.
async fn pump(http: &reqwest::Client, url: &str, take: impl Fn(u64, bytes::Bytes)) {
    let take = &take;
    futures::stream::iter((0..SIZE).step_by(usize::try_from(CHUNK).unwrap()))
        .for_each_concurrent(16, |at| async move {
            let range = format!("bytes={at}-{}", at + CHUNK - 1);
            let read = http.get(url).header("x-ms-version", "2021-12-02").header("x-ms-range", range);
            let mut frames = read.send().await.unwrap().bytes_stream();
            let mut place = at;
            while let Some(frame) = frames.next().await {
                let frame = frame.unwrap();
                let length = frame.len() as u64;
                take(place, frame);
                place += length;
            }
            assert_eq!(place, at + CHUNK);
        })
        .await;
}

fn restore(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (region, point, base) = runtime.block_on(point());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("256 MiB over loopback, the server in this process");
    group.sample_size(10).measurement_time(Duration::from_secs(15)).throughput(Throughput::Bytes(SIZE));

    group.bench_function("peer: bare pump into a file", |bench| {
        bench.iter(|| runtime.block_on(pump_to_file(&http, &point, &folder.path().join("pump"))));
    });
    group.bench_function("restore to a file", |bench| {
        bench.iter(|| {
            let path = folder.path().join("restored.vhd");
            let job = FileJob {
                from: url(Role::Source, &base),
                which: Which::Latest,
                to: ImagePath::parse(&format!("file:{}", path.display()), None).unwrap(),
                differential: false,
                overwrite: true,
                force: false,
                state_file: None,
            };
            let (progress, cancel) = Default::default();
            runtime
                .block_on(restore_to_file(&job, &client(), &Settings::default(), &progress, &cancel))
                .unwrap()
        });
    });
    group.bench_function("peer: bare pump into nothing", |bench| {
        bench.iter(|| runtime.block_on(pump(&http, &point, |_, _| {})));
    });
    group.bench_function("verify against the record", |bench| {
        bench.iter(|| {
            let job = VerifyJob {
                target: url(Role::Target, &base),
                which: Which::Latest,
                source: None,
                reference: None,
                sample: None,
                outside_diff: None,
                seed: None,
            };
            let (progress, cancel) = Default::default();
            let report =
                runtime.block_on(verify(&job, &client(), &Settings::default(), &progress, &cancel)).unwrap();
            assert!(report.error().is_none());
        });
    });
    group.finish();
    drop(region);
}

async fn pump_to_file(http: &reqwest::Client, url: &str, path: &Path) {
    let file = Arc::new(std::fs::File::create(path).unwrap());
    pump(http, url, |at, frame| file.write_all_at(&frame, at).unwrap()).await;
    // As a restore does it: done is what is on the disk.
    file.sync_all().unwrap();
}

criterion_group!(benches, restore);
criterion_main!(benches);
