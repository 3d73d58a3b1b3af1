//! What every byte passes through: the scan of a chunk for zeros, its checksum and those of its leaves. The peer is the
//! plain CRC of the same bytes, in the same run.
//!
//! `cargo bench --bench scan`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapferry::azure::crc64::Crc64;
use snapferry::copy::scan::{ZeroRule, scan};
use snapferry::range::PageRange;

const CHUNK: usize = 4 << 20;
/// As a socket gives them: of a length that is no multiple of a page, so that pages and leaves lie across two frames.
const FRAME: usize = 65_000;
/// Zeros and data take turns in pieces of this length in the chunk that is half zeros: long enough to be left out.
const STRIPE: usize = 128 << 10;

fn frames(data: &Bytes) -> Vec<Bytes> {
    (0..data.len()).step_by(FRAME).map(|at| data.slice(at..(at + FRAME).min(data.len()))).collect()
}

fn chunk_scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan of a 4 MiB chunk");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    let range = PageRange::new(0, CHUNK as u64).unwrap();
    let rule = ZeroRule { shortest_run: 64 << 10, trim_edges: false };

    let mut bytes = vec![0; CHUNK];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    let data = Bytes::from(bytes.clone());
    for zeros in bytes.chunks_mut(STRIPE).step_by(2) {
        zeros.fill(0);
    }
    let half = Bytes::from(bytes);
    let zeros = Bytes::from(vec![0; CHUNK]);

    group.bench_function("peer: crc alone", |bench| bench.iter(|| Crc64::of(black_box(&data))));
    for (name, bytes) in [("data", data), ("zeros", zeros), ("half zeros", half)] {
        let frames = frames(&bytes);
        group.bench_function(name, |bench| bench.iter(|| scan(range, black_box(&frames), rule)));
    }
    group.finish();
}

criterion_group!(benches, chunk_scan);
criterion_main!(benches);
