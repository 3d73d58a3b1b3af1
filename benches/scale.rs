//! Does what a copy does before its first byte grow with the disk, or with the number of extents? And does it ever wait for
//! the page list?
//!
//! ```sh
//! cargo bench --bench scale
//! ```
//!
//! For each difference: the time from the start of a copy until its first chunk is written (the median of five copies, each
//! ended there), and the time in which the whole page list comes when nobody waits for anything else, against the least in
//! which its extents can be copied, one by one, at the 500 requests a second that a page blob takes. The first byte is waited
//! for with a round trip of 80 ms, which shows how many there are; the list comes without, so that none hides what this
//! machine does. Peak memory is a test, not a benchmark: `tests/memory.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use snapferry::azure::{Against, Client, PageBlob, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use snapferry::diff::{Listing, ListingOptions};
use snapferry::progress::Progress;
use snapferry::range::PageRange;
use snapferry::replicate::replicate;
use snapferry::step::{Settings, Step, Verify};
use snapferry_emulator::{Config, Emulator, Link, Pattern};
use tokio_util::sync::CancellationToken;

const GIB: u64 = 1 << 30;
/// The largest disk that takes incremental snapshots is 8 TiB, a page blob's most, less what its format needs.
const LARGEST: u64 = 8191 * GIB;
const COPIES: usize = 5;
/// What a page blob takes in a second.
const REQUESTS: f64 = 500.0;

fn main() {
    println!(
        "| disk | extents | to the first byte ms | page list s | extents/s | of the least time to copy them |"
    );
    println!("|---|---|---|---|---|---|");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for (disk, extents) in [
        (GIB, 1000),
        (LARGEST, 1000),
        (LARGEST, 100_000),
        (LARGEST, 1_000_000),
        (LARGEST, 5_000_000),
        (LARGEST, 20_000_000),
    ] {
        runtime.block_on(measure(disk, extents));
    }
}

async fn measure(length: u64, extents: u64) {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    let account = emulator.account("target");
    account.create_container("disks");
    account.set_sink(true);
    let changes = Pattern::Scattered { extents, bytes: 4096 };
    let disk = emulator.generate_disk("disk", length, Pattern::None, changes).unwrap();
    let (first, second) = (disk.snapshot().grant(), disk.snapshot().grant());
    let client = Client::new(Timeouts::default(), RetryPolicy::default(), None).unwrap();

    let far: Link = "latency=80ms".parse().unwrap();
    let mut waits = Vec::new();
    for number in 0..COPIES {
        let base =
            account.container_sas("disks", &format!("base-{number}"), "rcwdl", Duration::from_hours(1));
        let target = parse(Role::Target, &base);
        let full = Step {
            source: parse(Role::Source, &first),
            previous: None,
            target: target.clone(),
            origin: None,
        };
        replicate(&full, &client, &settings(), &Progress::default(), &CancellationToken::new())
            .await
            .unwrap();
        let previous = Some(parse(Role::Previous, &first));
        emulator.set_link(far.clone());
        waits.push(
            first_byte(
                &Step { source: parse(Role::Source, &second), previous, target, origin: None },
                &client,
            )
            .await,
        );
        emulator.set_link(Link::default());
    }
    waits.sort_unstable();

    let listed = list(&second, &first, &client).await.as_secs_f64();
    println!(
        "| {} GiB | {extents} | {:.0} | {listed:.2} | {:.0} | {:.2}% |",
        length / GIB,
        waits[COPIES / 2].as_secs_f64() * 1000.0,
        extents as f64 / listed,
        100.0 * listed * REQUESTS / extents as f64
    );
}

fn parse(role: Role, text: &str) -> Resource {
    Resource::parse(role, text, PlainHttp::LoopbackOnly).unwrap()
}

fn settings() -> Settings {
    Settings { verify: Verify::None, ..Settings::default() }
}

/// How long a copy takes until its first chunk is written. It is ended there.
async fn first_byte(step: &Step, client: &Client) -> Duration {
    let (progress, enough) = (Progress::default(), CancellationToken::new());
    let begun = Instant::now();
    let settings = settings();
    let work = replicate(step, client, &settings, &progress, &enough);
    let look = async {
        while progress.read().bytes == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        enough.cancel();
        begun.elapsed()
    };
    // That it was interrupted is what it was made to be.
    let (_, waited) = tokio::join!(work, look);
    waited
}

/// How long the whole page list takes, its extents looked at by nobody.
async fn list(source: &str, previous: &str, client: &Client) -> Duration {
    let blob = PageBlob::connect(parse(Role::Source, source), client).unwrap();
    let length = blob.properties().await.unwrap().length;
    let against = Against::DiskSnapshot(parse(Role::Previous, previous));
    let begun = Instant::now();
    let whole = PageRange::new(0, length).ok();
    let mut listing = Listing::start(&blob, &against, whole, length, Vec::new(), ListingOptions::default());
    while listing.next().await.unwrap().is_some() {}
    begun.elapsed()
}
