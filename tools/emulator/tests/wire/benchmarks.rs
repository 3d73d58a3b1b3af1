//! What benchmarks use besides generated disks: sinks, counters, and the paths for scripts.

use std::io::ErrorKind;
use std::time::Duration;

use snapferry_emulator::{Call, Fault, FaultKind, Link};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{BLOB, CONTAINER, Fixture, and, elements, get, put, range_text, send};

const MIB: u64 = 1 << 20;

/// A sink of 64 MiB.
async fn sink() -> Fixture {
    let fixture = Fixture::empty().await;
    fixture.account.set_sink(true);
    let headers = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "67108864")];
    assert_eq!(put(&fixture.url, &headers).await.status, 201);
    fixture
}

#[tokio::test]
async fn a_sink_answers_as_another_blob_does_and_keeps_its_end() {
    let sink = sink().await;
    let blob = Fixture::with_blob(64 * MIB).await;
    for range in [0..4 * MIB, MIB - 512..MIB, 63 * MIB..64 * MIB, 64 * MIB - 4096..64 * MIB] {
        let (one, other) = (sink.write(range.clone(), 7).await, blob.write(range, 7).await);
        assert_eq!((one.status, one.header("x-ms-content-crc64")), (201, other.header("x-ms-content-crc64")));
        assert!(one.header("x-ms-content-crc64").is_some());
    }
    let with_md5 = [("content-md5", "v2Gapcbcm2Eac++4zsgM5Q==")];
    let (one, other) = (sink.write_if(0..512, 1, &with_md5).await, blob.write_if(0..512, 1, &with_md5).await);
    assert_eq!((one.status, one.refusal()), (other.status, other.refusal()));
    let wrong = [("x-ms-content-crc64", "AAAAAAAAAAA=")];
    let refused = sink.write_if(0..512, 1, &wrong).await;
    assert_eq!(refused.refusal(), (400, "Crc64Mismatch"));
    assert!(refused.text().contains("ServerCalculatedCrc"));
    let past_end = sink.write(64 * MIB..65 * MIB, 1).await;
    assert_eq!(past_end.refusal(), (416, "InvalidPageRange"));
    let etag = [("if-match", "\"0x1\"")];
    assert_eq!(sink.write_if(0..512, 1, &etag).await.refusal(), (412, "ConditionNotMet"));
    let number = [("x-ms-if-sequence-number-eq", "5")];
    assert_eq!(sink.write_if(0..512, 1, &number).await.refusal(), (412, "SequenceNumberConditionNotMet"));

    let read = sink.account.read_blob(CONTAINER, BLOB, None).unwrap();
    assert_eq!(read.read(64 * MIB - 4096, 4096), vec![7; 4096]);
    assert!(read.read(0, 64 * MIB - 4096).iter().all(|byte| *byte == 0));
    let time = sink.snapshot().await;
    assert_eq!(sink.write(64 * MIB - 512..64 * MIB, 9).await.status, 201);
    let snapshot = and(&sink.url, &format!("snapshot={time}"));
    let end = range_text(&(64 * MIB - 512..64 * MIB));
    assert_eq!(get(&snapshot, &[("x-ms-range", &end)]).await.body, [7; 512]);
    assert_eq!(get(&sink.url, &[("x-ms-range", &end)]).await.body, [9; 512]);
    assert_eq!(elements(&get(&and(&sink.url, "comp=pagelist"), &[]).await), []);
    let diff = and(&sink.url, &format!("comp=pagelist&prevsnapshot={time}"));
    assert_eq!(elements(&get(&diff, &[]).await), []);
}

#[tokio::test]
async fn a_copy_into_a_sink_keeps_its_end_only() {
    let sink = sink().await;
    let disk = sink.emulator.create_disk("data", MIB).unwrap();
    disk.write(0, &[3; 8192]).unwrap();
    let snapshot = disk.snapshot();
    let copy = sink.account.container_sas(CONTAINER, "copy", "racwdl", Duration::from_hours(1));
    assert_eq!(put(&copy, &[("x-ms-copy-source", &snapshot.grant())]).await.status, 202);
    let read = sink.account.read_blob(CONTAINER, "copy", None).unwrap();
    assert_eq!((read.len(), read.read(0, 8192)), (MIB + 512, vec![0; 8192]));
    assert_eq!(read.read(MIB, 512), snapshot.read(MIB, 512));
    // Blocks are kept: they are records.
    let record = sink.account.container_sas(CONTAINER, "record", "racwdl", Duration::from_hours(1));
    assert_eq!(send("PUT", &record, &[("x-ms-blob-type", "BlockBlob")], vec![5; 9000]).await.status, 201);
    assert_eq!(get(&record, &[]).await.body, vec![5; 9000]);
}

#[tokio::test]
async fn faults_meet_a_sink_too() {
    let sink = sink().await;
    sink.emulator.faults().add(Fault::new(FaultKind::FlipByteInRequest));
    let crc64 = sink.write(0..4096, 7).await.header("x-ms-content-crc64").unwrap().to_owned();
    assert_ne!(sink.write(0..4096, 7).await.header("x-ms-content-crc64"), Some(crc64.as_str()));
}

#[tokio::test]
async fn counters_over_http() {
    let fixture = Fixture::with_blob(MIB).await;
    let control = |name: &str| format!("{}/-/{name}", fixture.emulator.endpoint());
    assert_eq!(fixture.write(0..65536, 1).await.status, 201);
    assert_eq!(fixture.write(MIB..MIB + 512, 1).await.status, 416);
    assert_eq!(get(&fixture.url, &[("x-ms-range", "bytes=0-999")]).await.status, 206);
    let shown = get(&control("counters"), &[]).await;
    assert_eq!((shown.status, shown.header("content-type")), (200, Some("application/json")));
    let shown: serde_json::Value = serde_json::from_slice(&shown.body).unwrap();
    let put_page = &shown["calls"]["put-page"];
    assert_eq!((&put_page["requests"], &put_page["refused"]), (&2.into(), &1.into()));
    assert_eq!(
        (&put_page["bytes_in"], &shown["calls"]["get-blob"]["bytes_out"]),
        (&66048.into(), &1000.into())
    );
    assert_eq!((&shown["total"]["requests"], &shown["in_flight"]["most"]), (&4.into(), &1.into()));
    assert!(shown["connections"]["most"].as_u64().unwrap() >= 1);

    let before = send("POST", &control("counters/reset"), &[], Vec::new()).await;
    let before: serde_json::Value = serde_json::from_slice(&before.body).unwrap();
    assert_eq!(before["total"], shown["total"]);
    let counters = fixture.emulator.counters();
    assert_eq!((counters.calls.total().requests, counters.in_flight, counters.most_in_flight), (0, 0, 0));
    assert_eq!(fixture.emulator.stats().of(Call::PutPage).requests, 0);
    assert_eq!(get(&control("nothing"), &[]).await.status, 404);
    assert_eq!(get(&control("counters/reset"), &[]).await.status, 404);
}

#[tokio::test]
async fn a_script_sets_the_link_and_faults() {
    let fixture = Fixture::with_blob(MIB).await;
    let control = |name: &str| format!("{}/-/{name}", fixture.emulator.endpoint());
    let post = async |name: &str, text: &str| {
        let answer = send("POST", &control(name), &[], text.as_bytes().to_vec()).await;
        (answer.status, answer.text().to_owned())
    };
    let limits = "blob-bytes-per-second=1KiB,blob-requests-per-second=1000,blob-burst=1ms";
    assert_eq!(post("link", limits).await.0, 204);
    assert_eq!(fixture.write(0..65536, 1).await.status, 201);
    assert_eq!(fixture.write(0..512, 1).await.refusal(), (503, "ServerBusy"));
    // Faults and the link itself are asked for over a link that has none of this.
    assert_eq!(post("link", "").await.0, 204);
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
    let (status, text) = post("link", "speed=1").await;
    assert!(status == 400 && text.starts_with("'speed=1' is no part of a link"), "{text}");

    assert_eq!(post("faults", "put-page:internal-error\n\nget-blob:forbidden\n").await.0, 204);
    assert_eq!(fixture.write(0..512, 1).await.status, 500);
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
    assert_eq!(post("faults", "put-page:internal-error\nput-page:bad-luck").await.0, 400);
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
    assert_eq!(post("faults/clear", "").await.0, 204);
    assert_eq!(get(&fixture.url, &[]).await.status, 200);
}

#[tokio::test]
async fn what_is_refused_as_busy_uses_up_nothing() {
    let fixture = Fixture::with_blob(MIB).await;
    // Allowances come back too slowly here for the test's own pace to matter.
    fixture.emulator.set_link(Link {
        blob_requests_per_second: Some(4),
        blob_bytes_per_second: Some(1),
        blob_burst: Some(Duration::from_hours(1)),
        ..Link::default()
    });
    fixture
        .emulator
        .faults()
        .add(Fault::new(FaultKind::ServerBusy(snapferry_emulator::BusyText::Busy)).times(3));
    for _ in 0..3 {
        assert_eq!(fixture.write(0..MIB, 1).await.status, 503);
    }
    // The first write takes all bytes of the hour, and the others are refused for that.
    assert_eq!(fixture.write(0..MIB, 1).await.status, 201);
    for _ in 0..20 {
        assert_eq!(fixture.write(0..512, 1).await.status, 503);
    }
    assert_eq!(fixture.clear(0..512).await.status, 201);
}

/// Sends a request on a connection of its own. Returns what came back until the end, and whether it came whole.
async fn send_raw(fixture: &Fixture, head: &str, body: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = TcpStream::connect(fixture.emulator.address()).await.unwrap();
    let path = fixture.url.strip_prefix(&fixture.emulator.endpoint()).unwrap();
    let head = head.replace("PATH", path);
    stream.write_all(format!("{head}\r\nhost: h\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let sent = stream.write_all(body).await;
    let mut back = Vec::new();
    let read = stream.read_to_end(&mut back).await;
    for error in [sent.err(), read.err()].into_iter().flatten() {
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    }
    let head_end = back.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(head_end) = head_end else { return (back, false) };
    let head = String::from_utf8_lossy(&back[..head_end]).to_ascii_lowercase();
    let length = head
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.split("\r\n").next().and_then(|number| number.parse().ok()).unwrap_or(0));
    let is_whole = back.len() == head_end + 4 + length;
    (back, is_whole)
}

#[tokio::test]
async fn connections_are_cut_by_chance_in_both_directions() {
    let fixture = Fixture::with_blob(MIB).await;
    for fault in
        ["get-blob:times=always,chance=0.3:cut-in-reply", "put-page:times=always,chance=0.3:cut-in-request"]
    {
        fixture.emulator.faults().add(fault.parse().unwrap());
    }
    let (mut replies, mut writes) = (0, 0);
    for _ in 0..40 {
        let (_, is_whole) = send_raw(&fixture, "GET PATH HTTP/1.1\r\nx-ms-version: 2021-12-02", &[]).await;
        replies += u32::from(!is_whole);
        let head = "PUT PATH&comp=page HTTP/1.1\r\nx-ms-version: 2021-12-02\r\nx-ms-page-write: update\r\n\
                    x-ms-range: bytes=0-524287\r\ncontent-length: 524288";
        let (back, _) = send_raw(&fixture, head, &vec![1; 524_288]).await;
        writes += u32::from(!back.starts_with(b"HTTP/1.1 201"));
    }
    assert!((3..30).contains(&replies) && (3..30).contains(&writes), "{replies}, {writes}");
    let cut = fixture.emulator.requests().iter().filter(|record| record.fault.is_some()).count();
    assert_eq!(u64::try_from(cut).unwrap(), fixture.emulator.faults().fired());
    assert_eq!(cut, usize::try_from(replies + writes).unwrap());
}
