//! A whole copy over loopback, with its peer in the same run: a bare pump.
//!
//! `cargo bench --bench loopback`. Compare within one run: the numbers of two machines, or of two moments, say little.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapferry::azure::{Client, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use snapferry::replicate::replicate;
use snapferry::step::{Settings, Step};
use snapferry_emulator::{Config, Emulator};

const CHUNK: usize = 4 << 20;

fn whole_copy(criterion: &mut Criterion) {
    const SIZE: u64 = 256 << 20;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (source, target, url) = runtime.block_on(async {
        let source = Emulator::start(Config::default()).await.unwrap();
        let target = Emulator::start(Config::default()).await.unwrap();
        target.account("target").create_container("disks");
        let disk = source.create_disk("disk", SIZE).unwrap();
        let block = vec![7; CHUNK];
        for at in (0..SIZE).step_by(CHUNK) {
            disk.write(at, &block).unwrap();
        }
        let url = disk.snapshot().grant();
        (source, target, url)
    });
    let mut group = criterion.benchmark_group("256 MiB over loopback, both servers in this process");
    group.sample_size(10).measurement_time(Duration::from_secs(20)).throughput(Throughput::Bytes(SIZE));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let account = target.account("target");
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        account.container_sas("disks", &format!("base-{number}"), "rcwdl", Duration::from_hours(1))
    };
    group.bench_function("peer: bare pump, nothing looked at", |bench| {
        bench.iter(|| runtime.block_on(pump(&http, &url, &fresh(), SIZE)));
    });
    group.bench_function("replicate", |bench| {
        bench.iter(|| {
            let parse = |role, text: &str| Resource::parse(role, text, PlainHttp::LoopbackOnly).unwrap();
            let step = Step {
                source: parse(Role::Source, &url),
                previous: None,
                target: parse(Role::Target, &fresh()),
                origin: None,
            };
            let client = Client::new(Timeouts::default(), RetryPolicy::default(), None).unwrap();
            let (progress, cancel) = Default::default();
            runtime.block_on(replicate(&step, &client, &Settings::default(), &progress, &cancel)).unwrap()
        });
    });
    group.finish();
    drop((source, target));
}

/// 16 chunks at a time, each reply handed to the next request as it comes.
async fn pump(http: &reqwest::Client, source: &str, target: &str, size: u64) {
    use futures::StreamExt;
    let create = http.put(target).header("x-ms-version", "2021-12-02").header("x-ms-blob-type", "PageBlob");
    let length = size.to_string();
    let made = create
        .header("x-ms-blob-content-length", &length)
        .header("content-length", "0")
        .send()
        .await
        .unwrap();
    assert_eq!(made.status().as_u16(), 201);
    futures::stream::iter((0..size).step_by(CHUNK))
        .for_each_concurrent(16, |at| async move {
            let range = format!("bytes={at}-{}", at + CHUNK as u64 - 1);
            let read = http.get(source).header("x-ms-version", "2021-12-02").header("x-ms-range", &range);
            let body = reqwest::Body::wrap_stream(read.send().await.unwrap().bytes_stream());
            let write = http.put(format!("{target}&comp=page")).header("x-ms-version", "2021-12-02");
            let write = write.header("x-ms-page-write", "update").header("x-ms-range", range);
            let written = write.header("content-length", CHUNK).body(body).send().await.unwrap();
            assert_eq!(written.status().as_u16(), 201);
        })
        .await;
}

criterion_group!(benches, whole_copy);
criterion_main!(benches);
