//! Managed disks: grants, reads of snapshots, and the diff by URL.

use std::time::Duration;

use snapferry_emulator::{Call, Config, Disk, DiskError, DiskSnapshot, Emulator, Knobs};

use crate::client::{Answer, and, elements, get, put, send};

const GIB: u64 = 1 << 30;

async fn emulator() -> Emulator {
    Emulator::start(Config { record: true, ..Config::default() }).await.unwrap()
}

async fn diff(newer: &str, older: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("x-ms-previous-snapshot-url", older)];
    all.extend_from_slice(headers);
    get(&and(newer, "comp=pagelist"), &all).await
}

/// A disk with one page written before, and another written and the first cleared after the first snapshot.
fn two_snapshots(disk: &Disk) -> (DiskSnapshot, DiskSnapshot) {
    disk.write(4096, &[1; 4096]).unwrap();
    let older = disk.snapshot();
    disk.write(1 << 20, &[2; 8192]).unwrap();
    disk.clear(4096, 512).unwrap();
    (older, disk.snapshot())
}

#[tokio::test]
async fn the_diff_of_two_snapshots() {
    let emulator = emulator().await;
    let disk = emulator.create_disk("data", 136_367_308_800).unwrap();
    let (older, newer) = two_snapshots(&disk);
    assert!(older.time() < newer.time());
    let (older_url, newer_url) = (older.grant(), newer.grant());
    let (path, query) = newer_url.split_once('?').unwrap();
    assert_eq!(older_url.split_once('?').unwrap().0, path);
    assert!(path.starts_with(&format!("{}/md-", emulator.endpoint())) && path.ends_with("/abcd"));
    let time = newer.time().replace(':', "%3A");
    assert!(query.starts_with(&format!("snapshot={time}&sv=2018-11-09&sr=bs&si=")), "{query}");

    let answer = diff(&newer_url, &older_url, &[]).await;
    assert_eq!(elements(&answer), [('-', 4096..4608), ('+', 1 << 20..(1 << 20) + 8192)]);
    assert_eq!(answer.header("x-ms-blob-content-length"), Some("136367309312"));
    let past_end = [("x-ms-range", "bytes=136368357376-136368361471")];
    assert_eq!(diff(&newer_url, &older_url, &past_end).await.refusal(), (416, "InvalidRange"));
    let whole = get(&and(&newer_url, "comp=pagelist"), &[]).await;
    let footer = ('+', 136_367_308_800..136_367_309_312);
    assert_eq!(elements(&whole), [('+', 4608..8192), ('+', 1 << 20..(1 << 20) + 8192), footer]);

    let records = emulator.requests();
    assert_eq!((records[0].call, records[0].snapshot.as_deref()), (Call::PageRangesDiff, Some(newer.time())));
    assert_eq!(records[0].header("x-ms-previous-snapshot-url"), Some(older_url.as_str()));
    assert_eq!(emulator.stats().of(Call::PageRangesDiff).requests, 2);
    assert_eq!(emulator.stats().of(Call::PageRangesDiff).refused, 1);
}

#[tokio::test]
async fn a_snapshot_reads_like_a_vhd() {
    let emulator = emulator().await;
    let disk = emulator.create_disk("data", GIB).unwrap();
    let (older, newer) = two_snapshots(&disk);
    let url = newer.grant();
    let head = send("HEAD", &url, &[], Vec::new()).await;
    let shown = |name: &str| head.header(name).unwrap_or_else(|| panic!("{name} is missing")).to_owned();
    assert_eq!(shown("content-length"), (GIB + 512).to_string());
    assert_eq!(shown("x-ms-incremental-copy"), "true");
    assert_eq!(shown("x-ms-copy-status"), "success");
    assert_eq!(shown("x-ms-copy-destination-snapshot"), newer.time());
    assert_eq!(shown("x-ms-meta-PIRTag"), "1");
    assert_eq!(shown("x-ms-blob-sequence-number"), "2");
    assert_eq!(shown("x-ms-server-encrypted"), "true");
    for name in ["x-ms-copy-id", "x-ms-copy-progress", "x-ms-copy-completion-time", "x-ms-creation-time"] {
        shown(name);
    }

    let footer = get(&url, &[("x-ms-range", &format!("bytes={GIB}-"))]).await;
    assert_eq!((footer.status, footer.body.len()), (206, 512));
    assert_eq!(
        footer.header("content-range"),
        Some(format!("bytes {GIB}-{}/{}", GIB + 511, GIB + 512).as_str())
    );
    assert_eq!(footer.body[..8], *b"conectix");
    assert_eq!(footer.body[48..56], GIB.to_be_bytes());
    assert_eq!(newer.read(GIB, 1000), footer.body);
    assert_eq!(newer.read(4096, 1024), [vec![0; 512], vec![1; 512]].concat());

    // The stored checksum is the same for states whose bytes differ.
    let range = [("x-ms-range", "bytes=4096-4607")];
    let (before, after) = (get(&older.grant(), &range).await, get(&url, &range).await);
    assert_ne!(before.body, after.body);
    let stored = |answer: &Answer| answer.header("x-ms-blob-content-md5").unwrap().to_owned();
    assert_eq!(stored(&before), stored(&after));

    let etag = head.etag();
    assert_eq!(get(&url, &[("if-match", &etag), range[0]]).await.status, 206);
    let other = [("if-match", "\"0x1\"")];
    assert_eq!(diff(&url, &older.grant(), &other).await.refusal(), (412, "ConditionNotMet"));
}

#[tokio::test]
async fn a_grant_is_for_one_snapshot_and_for_reading() {
    let emulator = emulator().await;
    let disk = emulator.create_disk("data", GIB).unwrap();
    let (older, newer) = two_snapshots(&disk);
    let url = newer.grant();
    let failed = (403, "AuthenticationFailed");
    let time = |snapshot: &DiskSnapshot| format!("snapshot={}&", snapshot.time().replace(':', "%3A"));
    assert_eq!(get(&url.replace(&time(&newer), ""), &[]).await.refusal(), failed);
    assert_eq!(get(&url.replace(&time(&newer), &time(&older)), &[]).await.refusal(), failed);
    let twice = and(&url, time(&newer).trim_end_matches('&'));
    assert_eq!(get(&twice, &[]).await.refusal(), failed);

    let answer = put(&and(&url, "comp=metadata"), &[]).await;
    assert_eq!(answer.refusal(), (403, "AuthorizationPermissionMismatch"));
    let headers = [("x-ms-page-write", "update"), ("x-ms-range", "bytes=0-511")];
    let answer = send("PUT", &and(&url, "comp=page"), &headers, vec![0; 512]).await;
    assert_eq!(answer.refusal(), (403, "AuthorizationPermissionMismatch"));
    let answer = send("DELETE", &url, &[], Vec::new()).await;
    assert_eq!(answer.refusal(), (403, "AuthorizationPermissionMismatch"));

    let second = newer.grant_for(Duration::from_mins(1));
    assert_eq!(get(&second, &[("range", "bytes=0-511")]).await.status, 206);
    emulator.advance_clock(Duration::from_mins(1));
    assert_eq!(get(&second, &[("range", "bytes=0-511")]).await.refusal(), failed);
    assert_eq!(get(&url, &[("range", "bytes=0-511")]).await.status, 206);
    newer.revoke();
    assert_eq!(get(&url, &[("range", "bytes=0-511")]).await.refusal(), failed);
    assert_eq!(get(&older.grant(), &[("range", "bytes=0-511")]).await.status, 206);
    let grant = older.grant();
    older.delete();
    assert_eq!(get(&grant, &[]).await.refusal(), failed);
    assert_eq!(get(&older.grant(), &[]).await.refusal(), (404, "BlobNotFound"));
    assert_eq!(older.read(4096, 1), [1]);
}

#[tokio::test]
async fn both_urls_of_a_diff_are_checked() {
    let emulator = emulator().await;
    let disk = emulator.create_disk("data", GIB).unwrap();
    let (older, newer) = two_snapshots(&disk);
    let (older_url, newer_url) = (older.grant(), newer.grant());
    let refusal = async |newer: &str, older: &str, headers: &[(&str, &str)]| {
        let answer = diff(newer, older, headers).await;
        (answer.status, answer.header("x-ms-error-code").unwrap_or_default().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let failed = is(403, "AuthenticationFailed");
    assert_eq!(refusal(&newer_url, &older_url.replace("sig=", "sig=x"), &[]).await, failed);
    assert_eq!(refusal(&newer_url.replace("sig=", "sig=x"), &older_url, &[]).await, failed);
    assert_eq!(refusal(&older_url, &newer_url, &[]).await, is(400, "PreviousSnapshotCannotBeNewer"));
    assert_eq!(refusal(&newer_url, "md-x/y", &[]).await, is(400, "InvalidHeaderValue"));
    let old_version = [("x-ms-version", "2018-11-09")];
    assert_eq!(refusal(&newer_url, &older_url, &old_version).await, is(400, "UnsupportedHeader"));
    let other = emulator.create_disk("other", GIB).unwrap().snapshot();
    assert_eq!(refusal(&newer_url, &other.grant(), &[]).await, is(409, "PreviousSnapshotNotFound"));
    older.revoke();
    assert_eq!(refusal(&newer_url, &older_url, &[]).await, failed);
    older.delete();
    assert_eq!(refusal(&newer_url, &older.grant(), &[]).await, is(409, "PreviousSnapshotNotFound"));
}

#[tokio::test]
async fn growth_moves_the_footer() {
    let emulator = emulator().await;
    let disk = emulator.create_disk("data", GIB).unwrap();
    let older = disk.snapshot();
    assert!(matches!(disk.grow(GIB - 512), Err(DiskError::Shrinks(_))));
    disk.grow(2 * GIB).unwrap();
    let newer = disk.snapshot();
    assert_eq!((disk.len(), newer.len()), (2 * GIB, 2 * GIB + 512));
    assert_eq!(newer.read(GIB, 512), vec![0; 512]);
    assert_eq!(newer.read(2 * GIB + 48, 8), (2 * GIB).to_be_bytes());
    let urls = (newer.grant(), older.grant());
    let with_old_footer = [('-', GIB..GIB + 512), ('+', 2 * GIB..2 * GIB + 512)];
    assert_eq!(elements(&diff(&urls.0, &urls.1, &[]).await), with_old_footer[1..]);
    emulator.set_knobs(Knobs { old_footer_reported: true, ..Knobs::default() });
    assert_eq!(elements(&diff(&urls.0, &urls.1, &[]).await), with_old_footer);

    disk.grow((4 << 40) + 512).unwrap();
    let large = disk.snapshot().grant();
    assert_eq!(diff(&large, &urls.0, &[]).await.refusal(), (409, "PreviousSnapshotOperationNotSupported"));
}

#[tokio::test]
async fn files_become_disks_and_changes() {
    let emulator = emulator().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let mut bytes = vec![0; 3 << 20];
    bytes[1000..5000].fill(7);
    bytes[2_500_000] = 8;
    std::fs::write(&path, &bytes).unwrap();
    let disk = emulator.load_raw("data", &path).unwrap();
    assert!(matches!(emulator.load_raw("data", &path), Err(DiskError::Exists(_))));
    let older = disk.snapshot();
    let data = [('+', 512..5120), ('+', 2_499_584..2_500_096), ('+', 3 << 20..(3 << 20) + 512)];
    assert_eq!(elements(&get(&and(&older.grant(), "comp=pagelist"), &[]).await), data);

    bytes[1024..1536].fill(0);
    bytes[2_000_000] = 9;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(disk.apply_raw(&path).unwrap(), 1024);
    let newer = disk.snapshot();
    let changed = [('+', 1024..1536), ('+', 1_999_872..2_000_384)];
    assert_eq!(elements(&diff(&newer.grant(), &older.grant(), &[]).await), changed);
    assert_eq!(newer.read(0, 3 << 20), bytes);

    let vhd = directory.path().join("disk.vhd");
    std::fs::write(&vhd, newer.read(0, u64::MAX)).unwrap();
    let copy = emulator.load_vhd("copy", &vhd).unwrap();
    assert_eq!(copy.snapshot().read(0, u64::MAX), newer.read(0, u64::MAX));
    assert_eq!(copy.apply_vhd(&vhd).unwrap(), 0);
    assert!(matches!(emulator.load_vhd("bad", &path), Err(DiskError::Vhd(_))));
    std::fs::write(&path, &bytes[512..]).unwrap();
    assert!(matches!(disk.apply_raw(&path), Err(DiskError::OtherSize { .. })));
}

#[tokio::test]
async fn knobs_of_exports() {
    let emulator = emulator().await;
    let url = emulator.create_disk("data", GIB).unwrap().snapshot().grant();
    let ranged = [("x-ms-range", "bytes=0-511"), ("x-ms-range-get-content-crc64", "true")];
    assert_eq!(get(&url, &ranged).await.header("x-ms-content-crc64"), Some("6YKnaCgO5h0="));
    emulator.set_knobs(Knobs { range_crc_on_export: false, export_needs_bearer: true, ..Knobs::default() });
    let answer = get(&url, &ranged[..1]).await;
    assert_eq!(answer.refusal(), (401, "NoAuthenticationInformation"));
    assert!(answer.header("www-authenticate").unwrap().ends_with("resource_id=https://disk.azure.com/"));
    let token = ("authorization", "Bearer token");
    assert_eq!(get(&url, &[ranged[0], token]).await.status, 206);
    let answer = get(&url, &[ranged[0], ranged[1], token]).await;
    assert_eq!(answer.refusal(), (400, "UnsupportedHeader"));
}
