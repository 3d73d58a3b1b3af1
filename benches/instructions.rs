//! The hot paths, to be counted and not timed: an instruction count is the same on a noisy machine, so that CI can hold
//! it against the one that was committed. `tools/instructions` does that; see the README beside this file.
//!
//! `instructions NAME` runs one path twice. The first time fills what is computed once (tables, the allocator's lists);
//! the second time is within [`counted`], which is where callgrind counts. `instructions --list` names the paths, and
//! `instructions --cpu` the features of the processor that choose between implementations.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write;
use std::hint::black_box;
use std::process::ExitCode;

use bytes::Bytes;
use futures::executor::block_on;
use snapferry::azure::crc64::Crc64;
use snapferry::azure::page_list::{ListKind, PageListReader};
use snapferry::copy::frontier::{Checkpoint, Counts, Frontier, Written};
use snapferry::copy::scan::{ZeroRule, scan};
use snapferry::leaf::{LEAF, Sums};
use snapferry::plan::{PlanOptions, Planner};
use snapferry::range::{Extent, ExtentKind, PageRange};
use snapferry::record::format::{Encoder, read_frame};

const CHUNK: usize = 4 << 20;
/// As a socket gives them: of a length that is no multiple of a page.
const FRAME: usize = 65_000;
/// Elements, extents, chunks or leaves that one run of a path takes.
const MANY: u64 = 100_000;

/// A path that is ready to be run, any number of times.
type Work = Box<dyn FnMut()>;
/// Makes a path ready.
type Ready = fn() -> Work;

/// The paths by name.
const PATHS: [(&str, Ready); 12] = [
    ("crc-peer", crc_peer),
    ("scan-data", || scan_of(Stripes::Data)),
    ("scan-zeros", || scan_of(Stripes::Zeros)),
    ("scan-half", || scan_of(Stripes::Half)),
    ("crc-join", crc_join),
    ("page-list", page_list),
    ("plan-dense", || plan(8 << 10, false)),
    ("plan-scattered", || plan(1 << 20, false)),
    ("plan-clears", || plan(8 << 10, true)),
    ("frontier", frontier),
    ("record-write", record_write),
    ("record-read", record_read),
];

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "--list" => PATHS.iter().for_each(|(name, _)| println!("{name}")),
        "--cpu" => println!("{}", cpu()),
        // What cargo says to every benchmark, and to every test.
        "--bench" | "" => println!("to count instructions: tools/instructions"),
        wanted => {
            let Some((_, ready)) = PATHS.iter().find(|(name, _)| *name == wanted) else {
                eprintln!("no path is called {wanted}");
                return ExitCode::FAILURE;
            };
            let mut work = ready();
            work();
            counted(&mut work);
        }
    }
    ExitCode::SUCCESS
}

/// Callgrind counts from here until this returns; it finds the function by its name.
#[inline(never)]
fn counted(work: &mut Work) {
    work();
}

/// What implementations are chosen by while the program runs, in our dependencies: an AVX-512 that the processor has
/// and valgrind hides is not in it.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let features = [
        ("sse4.1", is_x86_feature_detected!("sse4.1")),
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
    ];
    let mut text = String::from("x86_64");
    for (name, _) in features.iter().filter(|(_, is_there)| *is_there) {
        text += " ";
        text += name;
    }
    text
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    std::env::consts::ARCH.to_owned()
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}

/// The checksum alone: what a scan of data cannot be cheaper than.
fn crc_peer() -> Work {
    let bytes = random_bytes(CHUNK);
    Box::new(move || {
        black_box(Crc64::of(black_box(&bytes)));
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stripes {
    Data,
    Zeros,
    /// 128 KiB of zeros and of data in turn.
    Half,
}

fn scan_of(stripes: Stripes) -> Work {
    let mut bytes = random_bytes(CHUNK);
    for (number, stripe) in bytes.chunks_mut(128 << 10).enumerate() {
        if stripes == Stripes::Zeros || (stripes == Stripes::Half && number % 2 == 0) {
            stripe.fill(0);
        }
    }
    let bytes = Bytes::from(bytes);
    let frames: Vec<Bytes> =
        (0..CHUNK).step_by(FRAME).map(|at| bytes.slice(at..(at + FRAME).min(CHUNK))).collect();
    let range = PageRange::new(0, CHUNK as u64).unwrap();
    let rule = ZeroRule { shortest_run: 64 << 10, trim_edges: false };
    Box::new(move || {
        black_box(scan(range, black_box(&frames), rule));
    })
}

/// Leaves and longer parts in turn, which are joined in different ways.
fn crc_join() -> Work {
    let mut parts = Vec::new();
    for number in 0..MANY {
        let bytes = if number.is_multiple_of(2) { LEAF } else { 512 * (number % 8192 + 1) };
        parts.push(Crc64::from_parts(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), bytes));
    }
    Box::new(move || {
        let mut whole = Crc64::default();
        for part in black_box(&parts) {
            whole = whole.join(*part);
        }
        black_box(whole);
    })
}

/// Extents of 4 KiB, `step` bytes from one to the next; with `clears`, every third is one.
fn extents(step: u64, clears: bool) -> Vec<Extent> {
    let mut extents = Vec::new();
    for number in 0..MANY {
        let kind = if clears && number.is_multiple_of(3) { ExtentKind::Clear } else { ExtentKind::Data };
        extents.push(Extent { range: PageRange::new(number * step, number * step + LEAF).unwrap(), kind });
    }
    extents
}

fn page_list() -> Work {
    let mut body = String::from("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList>");
    for extent in extents(32 << 10, true) {
        let name = if extent.kind == ExtentKind::Data { "PageRange" } else { "ClearRange" };
        let (start, last) = (extent.range.start(), extent.range.end() - 1);
        write!(body, "<{name}><Start>{start}</Start><End>{last}</End></{name}>").unwrap();
    }
    body += "</PageList>";
    let whole = PageRange::new(0, 1 << 40).unwrap();
    Box::new(move || {
        let found = block_on(async {
            let body = black_box(body.as_bytes());
            let mut reader = PageListReader::new(body, ListKind::Difference, whole, whole.end());
            let mut found = 0;
            while reader.next().await.unwrap().is_some() {
                found += 1;
            }
            found
        });
        assert_eq!(found, MANY);
    })
}

fn plan(step: u64, clears: bool) -> Work {
    let extents = extents(step, clears);
    Box::new(move || {
        let mut planner = Planner::new(PlanOptions::default(), MANY * step);
        let mut chunks = Vec::new();
        for extent in black_box(&extents) {
            planner.push(*extent, &mut chunks);
            // As in a copy, where chunks are taken away as they come.
            black_box(&chunks);
            chunks.clear();
        }
        black_box(planner.finish(&mut chunks));
    })
}

/// Chunks with a gap before each, of which every 16 in flight finish in the opposite order.
fn frontier() -> Work {
    let length = 64 << 10;
    let counts = Counts { chunks: 1, bytes: length, bytes_sent: length, ..Counts::default() };
    Box::new(move || {
        let mut frontier = Frontier::new(Checkpoint::default());
        for turn in 0..MANY {
            let number = turn ^ 15;
            let start = number * 2 * length + length;
            let range = PageRange::new(start, start + length).unwrap();
            let crc = Crc64::from_parts(number, length);
            black_box(
                frontier.complete(number, Written { range, crc: Some(crc), sums: Some(Sums::Zeros), counts }),
            );
        }
        assert_eq!(frontier.next(), MANY);
    })
}

/// The record of leaves that all differ, as of a copy of chunks of 64 KiB, every eighth chunk of zeros.
fn write_record(leaves: &[u64]) -> Vec<u8> {
    const CHUNK_LEAVES: usize = 16;
    let mut encoder = Encoder::default();
    let mut out = Vec::new();
    for (number, part) in leaves.chunks(CHUNK_LEAVES).enumerate() {
        let start = (number * CHUNK_LEAVES) as u64 * LEAF;
        let range = PageRange::new(start, start + part.len() as u64 * LEAF).unwrap();
        let sums = if number % 8 == 7 { Sums::Zeros } else { Sums::Leaves(part.to_vec()) };
        encoder.push(range, &sums, &mut out);
    }
    encoder.finish(&mut out);
    out
}

fn leaf_sums() -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..MANY).map(|_| random.u64(..)).collect()
}

fn record_write() -> Work {
    let leaves = leaf_sums();
    Box::new(move || {
        black_box(write_record(black_box(&leaves)));
    })
}

fn record_read() -> Work {
    let record = write_record(&leaf_sums());
    Box::new(move || {
        let mut rest = black_box(&record[..]);
        while let Some((frame, taken)) = read_frame(rest).unwrap() {
            black_box(frame);
            rest = &rest[taken..];
        }
        assert!(rest.is_empty());
    })
}
