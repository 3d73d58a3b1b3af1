//! A page blob's limits, and lines that are slow and lossy: how much of what there is does a copy use?
//!
//! ```sh
//! cargo bench --bench limits                  # all, about twelve minutes
//! cargo bench --bench limits -- dense         # those whose name has it
//! cargo bench --bench limits -- dense --course  # and what happened in every two seconds
//! ```
//!
//! The emulated page blobs take 60 MiB/s and 500 requests/s with a round trip of 80 ms, and answer 503 to what is beyond
//! (as many requests as belong to a second are taken at once, which the least time has as well). Each scene tells how long the copy
//! took, what of it went by before its first chunk was written and after its last one was, and the least time in which all
//! could be done: for the bytes and the requests of the best joining of its gaps, `max(bytes / B, requests / R)`, or for the
//! bytes of the line. The part of its requests that were refused is counted after the first ten seconds.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use snapferry::azure::{Against, Client, PageBlob, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use snapferry::diff::{Listing, ListingOptions};
use snapferry::measure::Course;
use snapferry::range::PageRange;
use snapferry::replicate::replicate;
use snapferry::step::{Report, Settings, Step, Verify};
use snapferry_emulator::{Config, Emulator, Fault, Link, Pattern};

const MIB: f64 = 1_048_576.0;
const GIB: u64 = 1 << 30;
const BYTES: f64 = 60.0 * MIB;
const REQUESTS: f64 = 500.0;
/// When the limit falls to a third, and when it is back.
const DIP: (u64, u64) = (25, 50);

struct Scene {
    name: &'static str,
    disk: u64,
    changes: Pattern,
    link: Link,
    dips: bool,
    /// Part of the connections that are cut.
    cut: f64,
}

fn page_blob() -> Link {
    "latency=80ms,blob-bytes-per-second=60MiB,blob-requests-per-second=500".parse().unwrap()
}

fn scenes() -> Vec<Scene> {
    let scattered = Pattern::Scattered { extents: 100_000, bytes: 4096 };
    let line: Link = "latency=200ms,bytes-per-second=6250000".parse().unwrap();
    let scene = |name, disk, changes, link| Scene { name, disk, changes, link, dips: false, cut: 0.0 };
    vec![
        scene("dense difference", 4 * GIB, Pattern::Dense, page_blob()),
        Scene {
            dips: true,
            ..scene("dense, limit to a third and back", 6 * GIB, Pattern::Dense, page_blob())
        },
        scene("100,000 x 4 KiB over 10 GiB", 10 * GIB, scattered, page_blob()),
        scene("100,000 x 4 KiB over 64 GiB", 64 * GIB, scattered, page_blob()),
        Scene {
            dips: true,
            ..scene("scattered, limit to a third and back", 20 * GIB, scattered, page_blob())
        },
        Scene { cut: 0.01, ..scene("50 Mbit/s, 200 ms, 1% cut", GIB, Pattern::Dense, line) },
    ]
}

fn main() {
    let (options, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let with_course = options.iter().any(|option| option == "--course");
    println!(
        "| scene | took s | before + after | at best s | of the best | refused after 10 s | slowest request s | requests |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for scene in scenes() {
        if wanted.is_empty() || wanted.iter().any(|part| scene.name.contains(part.as_str())) {
            runtime.block_on(run(&scene, with_course));
        }
    }
    if wanted.is_empty() || wanted.iter().any(|part| "connections".contains(part.as_str())) {
        runtime.block_on(connections());
    }
}

/// What it costs that the connections of a copy are new: each takes a round trip more before its first request. Over
/// TLS that would be two.
async fn connections() {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    let account = emulator.account("target");
    account.create_container("disks");
    account.set_sink(true);
    let disk = emulator.generate_disk("disk", GIB, Pattern::Dense, Pattern::None).unwrap();
    let source = disk.snapshot().grant();
    emulator.set_link("latency=80ms".parse().unwrap());
    println!("\n| 1 GiB, 80 ms | copies s |\n|---|---|");
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let client = client();
        for (which, times) in [("cold", &mut cold), ("warm", &mut warm)] {
            let base =
                account.container_sas("disks", &format!("{which}-{round}"), "rcwdl", Duration::from_hours(1));
            let step = step(&source, None, &base);
            let settings = Settings { verify: Verify::None, ..Settings::default() };
            let (progress, cancel) = Default::default();
            let begun = Instant::now();
            replicate(&step, &client, &settings, &progress, &cancel).await.unwrap();
            times.push(begun.elapsed().as_secs_f64());
        }
    }
    for (which, mut times) in [("new connections", cold), ("those of the copy before", warm)] {
        times.sort_by(f64::total_cmp);
        println!("| {which} | {:.2} ({:.2} to {:.2}) |", times[2], times[0], times[4]);
    }
}

async fn run(scene: &Scene, with_course: bool) {
    let start = || Emulator::start(Config::default());
    let (source, target) = (start().await.unwrap(), start().await.unwrap());
    target.account("target").create_container("disks");
    target.account("target").set_sink(true);
    let disk = source.generate_disk("disk", scene.disk, Pattern::None, scene.changes).unwrap();
    let (first, second) = (disk.snapshot().grant(), disk.snapshot().grant());
    let base = target.account("target").container_sas("disks", "base", "rcwdl", Duration::from_hours(2));
    copy(&step(&first, None, &base)).await;
    let at_best = least_seconds(scene, &first, &second).await;
    for emulator in [&source, &target] {
        emulator.set_link(scene.link.clone());
        if scene.cut > 0.0 {
            for fault in ["get-blob", "put-page"] {
                let side = if fault == "get-blob" { "reply" } else { "request" };
                let text = format!("{fault}:times=always,chance={}:cut-in-{side}", scene.cut);
                emulator.faults().add(text.parse::<Fault>().unwrap());
            }
        }
    }
    let begun = Instant::now();
    let weather = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        source.reset_counters();
        target.reset_counters();
        if scene.dips {
            for (at, part) in [(DIP.0, 3), (DIP.1, 1)] {
                tokio::time::sleep(Duration::from_secs(at).saturating_sub(begun.elapsed())).await;
                let third = |limit: u64| limit / part;
                let link = Link {
                    blob_bytes_per_second: scene.link.blob_bytes_per_second.map(third),
                    blob_requests_per_second: scene
                        .link
                        .blob_requests_per_second
                        .map(|limit| limit / u32::try_from(part).unwrap()),
                    ..scene.link.clone()
                };
                source.set_link(link.clone());
                target.set_link(link);
            }
        }
        std::future::pending::<()>().await;
    };
    let step = step(&second, Some(&first), &base);
    let (report, course) = tokio::select! {
        done = copy(&step) => done,
        () = weather => unreachable!("it never ends"),
    };
    // In a dip, two thirds of its time are lost to everybody.
    let lost = if scene.dips { (DIP.1 - DIP.0) as f64 * 2.0 / 3.0 } else { 0.0 };
    let took = begun.elapsed().as_secs_f64();
    let best = at_best + lost;
    let (read, written) = (source.counters().calls.total(), target.counters().calls.total());
    let refused = read.refused + written.refused;
    let slowest = course.reads.max.max(course.writes.max) / 1000.0;
    let (before, after) = idle_ends(&course);
    println!(
        "| {} | {took:.1} | {before:.1} + {after:.1} | {best:.1} | {:.3} | {:.2}% | {slowest:.1} | {} |",
        scene.name,
        best / took,
        100.0 * refused as f64 / (read.requests + written.requests).max(1) as f64,
        report.requests
    );
    if with_course {
        tell(&course);
    }
}

/// Seconds before the first chunk was written, and after the last one was.
fn idle_ends(course: &Course) -> (f64, f64) {
    let done = course.samples.last().map_or(0, |last| last.bytes_done);
    let at = |wanted: u64| {
        course.samples.iter().find(|sample| sample.bytes_done >= wanted).map_or(0.0, |sample| sample.at)
    };
    (at(1), course.samples.last().map_or(0.0, |last| last.at) - at(done))
}

/// What happened in every two seconds.
fn tell(course: &Course) {
    let mut samples = course.samples.iter();
    let Some(mut then) = samples.next() else { return };
    for now in samples {
        let passed = now.at - then.at;
        if passed >= 2.0 {
            let rate = |now: u64, then: u64| (now - then) as f64 / passed;
            println!(
                "    {:5.1} s  in {:5.1} out {:5.1} MiB/s  {:4.0} + {:4.0} requests/s  {:3} + {:3} refused  {:3} of {:5.1}  {:?}",
                now.at,
                rate(now.bytes_in, then.bytes_in) / MIB,
                rate(now.bytes_out, then.bytes_out) / MIB,
                rate(now.source_requests, then.source_requests),
                rate(now.target_requests, then.target_requests),
                now.source_refused - then.source_refused,
                now.target_refused - then.target_refused,
                now.in_flight,
                now.window,
                now.limit,
            );
            then = now;
        }
    }
}

fn parse(role: Role, text: &str) -> Resource {
    Resource::parse(role, text, PlainHttp::LoopbackOnly).unwrap()
}

fn step(source: &str, previous: Option<&str>, target: &str) -> Step {
    Step {
        source: parse(Role::Source, source),
        previous: previous.map(|previous| parse(Role::Previous, previous)),
        target: parse(Role::Target, target),
        origin: None,
    }
}

fn client() -> Client {
    Client::new(Timeouts::default(), RetryPolicy::default(), None).unwrap()
}

async fn copy(step: &Step) -> (Report, Course) {
    let settings = Settings { verify: Verify::None, ..Settings::default() };
    let (progress, cancel) = Default::default();
    let observer = snapferry::measure::observe(&progress, snapferry::measure::SAMPLE_EVERY);
    let report = replicate(step, &client(), &settings, &progress, &cancel).await.unwrap();
    (report, observer.finish())
}

/// The least time in which the difference can be copied: all gaps are known here, and the narrowest are joined first.
async fn least_seconds(scene: &Scene, first: &str, second: &str) -> f64 {
    let blob = PageBlob::connect(parse(Role::Source, second), &client()).unwrap();
    let length = blob.properties().await.unwrap().length;
    let against = Against::DiskSnapshot(parse(Role::Previous, first));
    let whole = PageRange::new(0, length).ok();
    let mut listing = Listing::start(&blob, &against, whole, length, Vec::new(), ListingOptions::default());
    let (mut bytes, mut requests, mut end, mut gaps) = (0_u64, 0.0, None, Vec::new());
    while let Some(extent) = listing.next().await.unwrap() {
        bytes += extent.range.len();
        requests += extent.range.len().div_ceil(4 << 20) as f64;
        gaps.extend(end.map(|end| extent.range.start() - end));
        end = Some(extent.range.end());
    }
    let mut bytes = bytes as f64;
    if let Some(rate) = scene.link.bytes_per_second {
        return bytes / rate as f64;
    }
    // A blob that was idle takes the requests of a second at once. It is written as much, but reads are slowed from the start.
    let seconds = |bytes: f64, requests: f64| (bytes / BYTES).max(requests / REQUESTS - 1.0);
    let mut best = seconds(bytes, requests);
    gaps.sort_unstable();
    for gap in gaps {
        bytes += gap as f64;
        requests -= 1.0;
        best = best.min(seconds(bytes, requests));
    }
    best
}
