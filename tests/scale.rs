//! Scale: what a copy asks before its first byte does not grow with the disk, nor with the number of extents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::time::Duration;

use snapferry::progress::Progress;
use snapferry::replicate::replicate;
use snapferry::step::Verify;
use snapferry_emulator::{Call, Pattern};
use tokio_util::sync::CancellationToken;
use world::{MIB, World};

const GIB: u64 = 1024 * MIB;
/// Page lists that are asked for at once.
const AT_ONCE: usize = 8;

/// The requests of a difference before it writes its first chunk: to the source, and to the target.
async fn before_the_first_byte(bytes: u64, extents: u64) -> (usize, usize) {
    let mut world = World::new().await;
    world.settings.verify = Verify::None;
    world.account.set_sink(true);
    let changes = Pattern::Scattered { extents, bytes: 4096 };
    let disk = world.source.generate_disk("generated", bytes, Pattern::None, changes).unwrap();
    let (first, second) = (disk.snapshot(), disk.snapshot());
    world.copy(&first, None).await.unwrap();

    let asked = (world.source.requests().len(), world.target.requests().len());
    let step = world.step(&second, Some(&first));
    let (progress, enough) = (Progress::default(), CancellationToken::new());
    let copy = replicate(&step, &world.client, &world.settings, &progress, &enough);
    let look = async {
        while progress.read().bytes == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        enough.cancel();
    };
    let (interrupted, ()) = tokio::join!(copy, look);
    assert!(interrupted.is_err());
    let until = |requests: &[snapferry_emulator::RequestRecord], call| {
        requests.iter().position(|request| request.call == call).unwrap()
    };
    (
        until(&world.source.requests()[asked.0..], Call::GetBlob),
        until(&world.target.requests()[asked.1..], Call::PutPage),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_is_not_delayed_by_the_disk_nor_by_the_number_of_extents() {
    let small = before_the_first_byte(GIB, 1000).await;
    for extents in [1000, 1_000_000] {
        let large = before_the_first_byte(8191 * GIB, extents).await;
        assert!(large.0 < small.0 + AT_ONCE, "the source: {} and {}", small.0, large.0);
        assert!(large.1 < small.1 + AT_ONCE, "the target: {} and {}", small.1, large.1);
    }
}
