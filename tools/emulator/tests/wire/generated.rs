//! Disks whose content is computed: what lists say of them is compared with what reads of them show.

use std::ops::Range;

use snapferry_emulator::{Config, DiskError, DiskSnapshot, Emulator, Pattern};

use crate::client::{
    Answer, CONTAINER, Fixture, HOUR, and, elements, get, next_marker, put, range_text, send,
};

const MIB: u64 = 1 << 20;
const PAGE: usize = 512;

/// Longer than the cells of any pattern, and no multiple of them.
const BYTES: u64 = 40 * MIB + 3 * 65536;

async fn snapshots(base: Pattern, changes: Pattern, count: usize) -> (Emulator, Vec<DiskSnapshot>) {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    let disk = emulator.generate_disk("big", BYTES, base, changes).unwrap();
    let snapshots = (0..count).map(|_| disk.snapshot()).collect();
    (emulator, snapshots)
}

/// Whole list of a snapshot, or of what changed since an older one: in one reply, and again in pages of a window each.
async fn list(snapshot: &str, older: Option<&str>) -> Vec<Range<u64>> {
    let older = older.unwrap_or_default();
    let all = elements(&get(&and(snapshot, "comp=pagelist"), &[("x-ms-previous-snapshot-url", older)]).await);
    let mut in_parts: Vec<(char, Range<u64>)> = Vec::new();
    for start in (0..=BYTES).step_by(7 * (1 << 20)) {
        let window = range_text(&(start..(start + 7 * MIB).min(BYTES + 512)));
        let headers = [("x-ms-previous-snapshot-url", older), ("x-ms-range", &window)];
        let mut marker = String::new();
        loop {
            let query = format!("comp=pagelist&maxresults=50&marker={marker}");
            let answer = get(&and(snapshot, &query), &headers).await;
            let part = elements(&answer);
            assert!(part.len() <= 50);
            for (kind, range) in part {
                match in_parts.last_mut() {
                    Some((_, last)) if last.end == range.start => last.end = range.end,
                    _ => in_parts.push((kind, range)),
                }
            }
            let Some(next) = next_marker(&answer) else { break };
            marker = next;
        }
    }
    assert_eq!(all, in_parts);
    all.into_iter()
        .map(|(kind, range)| {
            assert_eq!(kind, '+');
            range
        })
        .collect()
}

/// The runs of pages for which something holds.
fn runs(pages: impl Iterator<Item = bool>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (page, _) in (0_u64..).step_by(PAGE).zip(pages).filter(|(_, holds)| *holds) {
        match runs.last_mut() {
            Some(last) if last.end == page => last.end += 512,
            _ => runs.push(page..page + 512),
        }
    }
    runs
}

fn with_data(whole: &[u8]) -> Vec<Range<u64>> {
    runs(whole.chunks(PAGE).map(|page| page.iter().any(|byte| *byte != 0)))
}

fn different(one: &[u8], other: &[u8]) -> Vec<Range<u64>> {
    runs(one.chunks(PAGE).zip(other.chunks(PAGE)).map(|(one, other)| one != other))
}

fn one(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[tokio::test]
async fn lists_name_the_pages_that_differ() {
    let scattered = Pattern::Scattered { extents: 500, bytes: 4096 };
    let odd = Pattern::Scattered { extents: 1000, bytes: 1536 };
    let even = Pattern::Even { extents: 77, bytes: 8192 };
    let cases = [
        (Pattern::Dense, scattered),
        (Pattern::Mixed, odd),
        (odd, even),
        (Pattern::None, Pattern::Mixed),
        (scattered, Pattern::Dense),
        (even, Pattern::None),
    ];
    for (base, changes) in cases {
        let (_emulator, snapshots) = snapshots(base, changes, 3).await;
        let urls: Vec<String> = snapshots.iter().map(DiskSnapshot::grant).collect();
        let whole: Vec<Vec<u8>> = snapshots.iter().map(|snapshot| snapshot.read(0, u64::MAX)).collect();
        for (url, whole) in urls.iter().zip(&whole) {
            assert_eq!(list(url, None).await, with_data(whole), "{base}, {changes}");
        }
        for (newer, older) in [(1, 0), (2, 1), (2, 0)] {
            let listed = list(&urls[newer], Some(&urls[older])).await;
            assert_eq!(listed, different(&whole[newer], &whole[older]), "{base}, {changes}");
            match changes {
                Pattern::Scattered { extents, bytes } | Pattern::Even { extents, bytes }
                    if newer - older == 1 =>
                {
                    assert_eq!((listed.len() as u64, length(&listed)), (extents, extents * bytes));
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn zeros_are_pages_that_were_written() {
    let (_emulator, snapshots) = snapshots(Pattern::Zeros, Pattern::Zeros, 2).await;
    let whole = snapshots[1].read(0, u64::MAX);
    assert_eq!(list(&snapshots[1].grant(), None).await, one(0..BYTES + 512));
    let data = length(&with_data(&whole));
    assert!(data > BYTES / 4 && data < BYTES * 9 / 10, "{data}");
    let changed = list(&snapshots[1].grant(), Some(&snapshots[0].grant())).await;
    assert_eq!(changed, one(0..BYTES));
}

#[tokio::test]
async fn a_read_is_a_slice_of_the_whole() {
    let changes = Pattern::Scattered { extents: 700, bytes: 4096 };
    let (_emulator, snapshots) = snapshots(Pattern::Mixed, changes, 2).await;
    let url = snapshots[1].grant();
    let answer = get(&url, &[]).await;
    assert_eq!((answer.status, answer.body.len() as u64), (200, BYTES + 512));
    let whole = answer.body;
    assert!(whole == snapshots[1].read(0, u64::MAX));
    assert_eq!(whole[whole.len() - 512..][..8], *b"conectix");
    assert_eq!(
        send("HEAD", &url, &[], Vec::new()).await.header("content-length").unwrap(),
        (BYTES + 512).to_string()
    );
    // Starts that are strewn over the disk, lengths from one byte to two MiB.
    for step in 0..60_u64 {
        let start = step * 713_573 % BYTES;
        let end = (start + 1 + (step * step * step * 9_973) % (2 * MIB)).min(BYTES + 512);
        let headers =
            [("x-ms-range", &range_text(&(start..end))[..]), ("x-ms-range-get-content-crc64", "true")];
        let answer = get(&url, &headers).await;
        let expected = &whole[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
        assert!(answer.status == 206 && answer.body == expected, "{start}..{end}");
        let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        crc.update(expected);
        let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, crc.finalize().to_le_bytes());
        assert_eq!(answer.header("x-ms-content-crc64"), Some(text.as_str()));
    }
}

#[tokio::test]
async fn a_wrong_place_or_generation_is_wrong_everywhere() {
    let (_emulator, snapshots) = snapshots(Pattern::Dense, Pattern::Dense, 2).await;
    let [first, second] = [&snapshots[0], &snapshots[1]].map(|snapshot| snapshot.read(0, BYTES));
    assert_eq!(different(&first, &second), one(0..BYTES));
    let mut pages: Vec<&[u8]> = first.chunks(PAGE).chain(second.chunks(PAGE)).collect();
    let count = pages.len();
    pages.sort_unstable();
    pages.dedup();
    // Two blocks show the same stretch of random bytes now and then; a page of another place is one of those by chance only.
    assert!(count - pages.len() < count / 10, "{} of {count}", pages.len());
}

#[tokio::test]
async fn the_largest_disk_is_found_by_seeking() {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    let bytes = (8 << 40) - (1 << 30);
    let scattered = Pattern::Scattered { extents: 5_000_000, bytes: 4096 };
    let disk = emulator.generate_disk("big", bytes, Pattern::Dense, scattered).unwrap();
    let (older, newer) = (disk.snapshot(), disk.snapshot());
    let (older_url, newer_url) = (older.grant(), newer.grant());
    let windows = 64;
    let mut found = 0;
    for window in (0..windows).step_by(21) {
        let start = bytes / windows * window;
        let range = range_text(&(start..start + bytes / windows));
        let headers = [("x-ms-previous-snapshot-url", &older_url[..]), ("x-ms-range", &range)];
        let listed = elements(&get(&and(&newer_url, "comp=pagelist"), &headers).await);
        found += listed.len();
        let (_, last) = listed.last().unwrap();
        let [before, after] = [&older, &newer].map(|snapshot| snapshot.read(last.start - 512, 5120));
        assert_eq!(different(&before, &after), one(512..4608));
    }
    assert!((312_400..312_600).contains(&found), "{found}");
    let marked = get(&and(&newer_url, "comp=pagelist&maxresults=3"), &[]).await;
    assert_eq!(elements(&marked), [('+', 0..bytes + 512)]);
}

#[tokio::test]
async fn a_generated_disk_can_be_a_source_and_be_written() {
    let (emulator, snapshots) = snapshots(Pattern::Mixed, Pattern::Dense, 2).await;
    let account = emulator.account("target");
    account.create_container(CONTAINER);
    let url = |name: &str| account.container_sas(CONTAINER, name, "racwdl", HOUR);
    let source = snapshots[0].grant();
    let whole = snapshots[0].read(0, u64::MAX);

    let copy = url("copy");
    assert_eq!(put(&copy, &[("x-ms-copy-source", &source)]).await.status, 202);
    let read = || account.read_blob(CONTAINER, "copy", None).unwrap();
    assert!(read().read(0, u64::MAX) == whole);
    // A snapshot of the copy goes on with nothing: the changes are the disk's.
    let snapshot = put(&and(&copy, "comp=snapshot"), &[]).await;
    let time = snapshot.header("x-ms-snapshot").unwrap().replace(':', "%3A");
    let diff = |since: &str| and(&copy, &format!("comp=pagelist&prevsnapshot={since}"));
    assert_eq!(elements(&get(&diff(&time), &[]).await), []);
    let write = |range: Range<u64>, kind: &str| {
        let headers = [("x-ms-page-write", kind.to_owned()), ("x-ms-range", range_text(&range))];
        let body = if kind == "clear" {
            Vec::new()
        } else {
            vec![7; usize::try_from(range.end - range.start).unwrap()]
        };
        let target = and(&copy, "comp=page");
        async move {
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            send("PUT", &target, &headers, body).await.status
        }
    };
    let dense = 33 * MIB..BYTES;
    assert_eq!(write(dense.start + 1024..dense.start + 2048, "update").await, 201);
    assert_eq!(write(dense.start + 4096..dense.start + 200_704, "clear").await, 201);
    let mut expected = whole.clone();
    let at = usize::try_from(dense.start).unwrap();
    expected[at + 1024..at + 2048].fill(7);
    expected[at + 4096..at + 200_704].fill(0);
    assert!(read().read(0, u64::MAX) == expected);
    let listed = elements(&get(&diff(&time), &[]).await);
    assert_eq!(listed[0], ('+', dense.start + 1024..dense.start + 2048));
    let cleared: Vec<Range<u64>> = listed[1..].iter().map(|(_, range)| range.clone()).collect();
    assert!(listed[1..].iter().all(|(kind, _)| *kind == '-'));
    let were_data = with_data(&whole[at + 4096..at + 200_704]);
    let shift = |range: &Range<u64>| range.start + dense.start + 4096..range.end + dense.start + 4096;
    assert_eq!(cleared, were_data.iter().map(shift).collect::<Vec<_>>());
    assert_eq!(read().allocated_ranges(), with_data(&expected));

    let pages = url("pages");
    let headers = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "8388608")];
    assert_eq!(put(&pages, &headers).await.status, 201);
    let headers = [
        ("x-ms-page-write", "update"),
        ("x-ms-range", "bytes=0-1048575"),
        ("x-ms-copy-source", &source),
        ("x-ms-source-range", "bytes=1048576-2097151"),
    ];
    assert_eq!(put(&and(&pages, "comp=page"), &headers).await.status, 201);
    let pulled = account.read_blob(CONTAINER, "pages", None).unwrap().read(0, MIB);
    assert!(pulled == whole[1 << 20..2 << 20]);
    let refused: Answer = put(&and(&pages, "comp=page"), &[headers[0], headers[1], headers[2]]).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let fixture = Fixture::empty().await;
    let make = |bytes, base| fixture.emulator.generate_disk("big", bytes, base, Pattern::None);
    let many = Pattern::Scattered { extents: 9, bytes: 65536 };
    assert!(matches!(make(512 * 1024, many), Err(DiskError::DoesNotFit { .. })));
    assert!(matches!(make(MIB + 512, Pattern::Dense), Err(DiskError::Uneven(_))));
    let odd = Pattern::Even { extents: 1, bytes: 100 };
    assert_eq!(
        make(MIB, odd).unwrap_err().to_string(),
        "a disk of 1048576 bytes has no room for 'even:1x100': extents of whole sectors that do not touch"
    );
    assert!(make(MIB, Pattern::Even { extents: 1, bytes: MIB - 4096 }).is_ok());
}
