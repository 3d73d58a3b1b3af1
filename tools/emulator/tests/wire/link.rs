//! The link: what is slow still arrives whole, and what is beyond a blob's limits is refused.

use std::time::Duration;

use snapferry_emulator::Link;

use crate::client::{Fixture, and, elements, get};

const KIB: u64 = 1 << 10;

#[tokio::test]
async fn a_slow_link_changes_nothing_but_time() {
    let fixture = Fixture::with_blob(1024 * KIB).await;
    fixture.emulator.set_link(Link {
        latency: Duration::from_millis(1),
        bytes_per_second: Some(20 << 20),
        ..Link::default()
    });
    assert_eq!(fixture.write(0..300 * KIB, 7).await.status, 201);
    let answer = get(&fixture.url, &[]).await;
    assert_eq!(answer.body.len(), 1 << 20);
    assert!(
        answer.body.iter().enumerate().all(|(index, byte)| *byte == if index < 300 << 10 { 7 } else { 0 })
    );
    assert_eq!(elements(&get(&and(&fixture.url, "comp=pagelist"), &[]).await), [('+', 0..300 * KIB)]);
    fixture.emulator.set_link(Link { blob_bytes_per_second: Some(10 << 20), ..Link::default() });
    assert_eq!(get(&fixture.url, &[]).await.body, answer.body);
}

#[tokio::test]
async fn a_busy_blob_refuses_requests() {
    let fixture = Fixture::with_blob(64 * KIB).await;
    // Allowances come back too slowly here for the test's own pace to matter.
    fixture.emulator.set_link(Link { blob_requests_per_second: Some(1), ..Link::default() });
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
    let mut refused = fixture.write(0..512, 1).await;
    while refused.status == 201 {
        refused = fixture.write(0..512, 1).await;
    }
    assert_eq!(refused.refusal(), (503, "ServerBusy"));
    assert!(refused.text().contains("Operations per second is over the account limit."));
    assert_eq!(fixture.emulator.requests().last().unwrap().fault, None);

    fixture.emulator.set_link(Link { blob_bytes_per_second: Some(KIB), ..Link::default() });
    assert_eq!(fixture.write(0..64 * KIB, 1).await.status, 201);
    let refused = fixture.write(0..512, 2).await;
    assert_eq!(refused.refusal(), (503, "ServerBusy"));
    assert!(refused.text().contains("Ingress is over the account limit."));
    // Calls without data are not refused for it.
    assert_eq!(fixture.clear(0..512).await.status, 201);
    fixture.emulator.set_link(Link::default());
    assert_eq!(fixture.write(0..512, 2).await.status, 201);
}
