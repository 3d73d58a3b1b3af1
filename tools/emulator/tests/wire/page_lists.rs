//! Get Page Ranges and its diff on an ordinary account: the recorded cases, windows, pages and refusals.

use std::ops::Range;

use snapferry_emulator::Knobs;

use crate::client::{Fixture, and, elements, get, next_marker, put};

/// All elements of a list that is fetched in pages of `most`, neighbours of one kind joined.
async fn paged(url: &str, headers: &[(&str, &str)], most: usize) -> Vec<(char, Range<u64>)> {
    let mut all: Vec<(char, Range<u64>)> = Vec::new();
    let mut marker = String::new();
    loop {
        let answer = get(&and(url, &format!("maxresults={most}{marker}")), headers).await;
        let page = elements(&answer);
        assert!(page.len() <= most);
        for (kind, range) in page {
            match all.last_mut() {
                Some((last, before)) if *last == kind && before.end == range.start => before.end = range.end,
                _ => all.push((kind, range)),
            }
        }
        match next_marker(&answer) {
            Some(next) => marker = format!("&marker={next}"),
            None => return all,
        }
    }
}

/// The first recorded case: eight pages, alternately written and cleared after a snapshot.
async fn alternating() -> (Fixture, String) {
    let fixture = Fixture::with_blob(4096).await;
    fixture.write(0..4096, b'b').await;
    let snapshot = fixture.snapshot().await;
    for page in 0..8 {
        let range = page * 512..(page + 1) * 512;
        let answer =
            if page % 2 == 0 { fixture.write(range, b'a').await } else { fixture.clear(range).await };
        assert_eq!(answer.status, 201);
    }
    let url = and(&fixture.url, &format!("comp=pagelist&prevsnapshot={snapshot}"));
    (fixture, url)
}

fn alternating_elements() -> Vec<(char, Range<u64>)> {
    (0..8).map(|page| (if page % 2 == 0 { '+' } else { '-' }, page * 512..(page + 1) * 512)).collect()
}

#[tokio::test]
async fn a_diff_interleaves_data_and_clears() {
    let (_fixture, url) = alternating().await;
    let answer = get(&url, &[("x-ms-range", "bytes=0-4095"), ("x-ms-client-request-id", "me")]).await;
    assert_eq!(elements(&answer), alternating_elements());
    assert_eq!(next_marker(&answer), None);
    let shown = |name| answer.header(name).unwrap_or_else(|| panic!("{name} is missing"));
    assert_eq!(shown("content-type"), "application/xml");
    assert_eq!(shown("transfer-encoding"), "chunked");
    assert_eq!(shown("server"), "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0");
    assert_eq!(shown("x-ms-blob-content-length"), "4096");
    assert_eq!(shown("x-ms-client-request-id"), "me");
    assert_eq!(shown("x-ms-version"), "2021-12-02");
    for name in ["date", "etag", "last-modified", "x-ms-request-id"] {
        shown(name);
    }
}

#[tokio::test]
async fn pages_of_a_list_count_both_kinds_and_have_the_recorded_marker() {
    let (_fixture, url) = alternating().await;
    let first = get(&and(&url, "maxresults=2"), &[]).await;
    assert_eq!(elements(&first), alternating_elements()[..2]);
    assert_eq!(next_marker(&first).as_deref(), Some("2!16!MDAwMDA0ITEwMjQh"));
    let second = get(&and(&url, "maxresults=2&marker=2!16!MDAwMDA0ITEwMjQh"), &[]).await;
    assert_eq!(next_marker(&second).as_deref(), Some("2!16!MDAwMDA0ITIwNDgh"));
    for most in 1..=9 {
        assert_eq!(paged(&url, &[], most).await, alternating_elements(), "{most} at a time");
    }
}

#[tokio::test]
async fn a_clear_inside_data() {
    let fixture = Fixture::with_blob(6144).await;
    fixture.write(0..2048, 1).await;
    fixture.write(4096..6144, 1).await;
    let snapshot = fixture.snapshot().await;
    fixture.clear(4096..5120).await;
    let list = and(&fixture.url, "comp=pagelist");
    assert_eq!(elements(&get(&list, &[]).await), [('+', 0..2048), ('+', 5120..6144)]);
    let diff = and(&list, &format!("prevsnapshot={snapshot}"));
    assert_eq!(elements(&get(&diff, &[]).await), [('-', 4096..5120)]);
    let of_snapshot = and(&list, &format!("snapshot={snapshot}"));
    assert_eq!(elements(&get(&of_snapshot, &[]).await), [('+', 0..2048), ('+', 4096..6144)]);
    let same = and(&of_snapshot, &format!("prevsnapshot={snapshot}"));
    assert_eq!(elements(&get(&same, &[]).await), []);
}

#[tokio::test]
async fn a_range_past_the_end_is_an_invalid_range() {
    let fixture = Fixture::with_blob(4096).await;
    let snapshot = fixture.snapshot().await;
    fixture.write(0..4096, 1).await;
    for parameters in ["comp=pagelist".to_owned(), format!("comp=pagelist&prevsnapshot={snapshot}")] {
        let url = and(&fixture.url, &parameters);
        for range in ["bytes=5120-9215", "bytes=4096-4607"] {
            let answer = get(&url, &[("x-ms-range", range)]).await;
            assert_eq!(answer.refusal(), (416, "InvalidRange"));
            assert!(answer.text().contains("<Message>The range specified is invalid for the current size"));
        }
        assert_eq!(elements(&get(&url, &[("x-ms-range", "bytes=3584-9215")]).await), [('+', 3584..4096)]);
        assert_eq!(elements(&get(&url, &[("range", "bytes=600-700")]).await), [('+', 512..1024)]);
    }
    let strict =
        Knobs { page_list_range_must_align: true, page_list_range_must_fit: true, ..Knobs::default() };
    fixture.set(strict);
    let url = and(&fixture.url, "comp=pagelist");
    let answer = get(&url, &[("x-ms-range", "bytes=3584-9215")]).await;
    assert_eq!(answer.refusal(), (416, "InvalidRange"));
    let answer = get(&url, &[("x-ms-range", "bytes=600-700")]).await;
    assert_eq!(answer.refusal(), (400, "InvalidHeaderValue"));
}

#[tokio::test]
async fn windows_and_pages_join_to_the_whole() {
    let length = 4 << 20;
    let fixture = Fixture::with_blob(length).await;
    fixture.write(0..length / 2, 1).await;
    let snapshot = fixture.snapshot().await;
    for step in 0..40_u64 {
        let start = (step * 104_729 % length) / 512 * 512;
        let end = (start + 512 + step * 3584).min(length);
        if step % 3 == 0 {
            fixture.clear(start..end).await
        } else {
            fixture.write(start..end, 2).await
        };
    }
    let diff = and(&fixture.url, &format!("comp=pagelist&prevsnapshot={snapshot}"));
    let whole = elements(&get(&diff, &[]).await);
    assert!(whole.len() > 20);
    for (window, most) in [(512 * 77, 1), (65_536, 3), (1 << 20, 1000)] {
        let mut joined: Vec<(char, Range<u64>)> = Vec::new();
        let mut start = 0;
        while start < length {
            let header = format!("bytes={start}-{}", start + window - 1);
            for (kind, range) in paged(&diff, &[("x-ms-range", &header)], most).await {
                assert!(range.start >= start && range.end <= start + window);
                match joined.last_mut() {
                    Some((last, before)) if *last == kind && before.end == range.start => {
                        before.end = range.end;
                    }
                    _ => joined.push((kind, range)),
                }
            }
            start += window;
        }
        assert_eq!(joined, whole, "windows of {window}, pages of {most}");
    }
}

#[tokio::test]
async fn knobs_make_lists_harder() {
    let fixture = Fixture::with_blob(65_536).await;
    fixture.write(0..4096, 1).await;
    let list = and(&fixture.url, "comp=pagelist");
    fixture.set(Knobs { page_list_cut: Some(1024), ..Knobs::default() });
    let expected: Vec<_> = (0..4).map(|piece| ('+', piece * 1024..(piece + 1) * 1024)).collect();
    assert_eq!(elements(&get(&list, &[]).await), expected);
    fixture.set(Knobs { page_list_cut: Some(1024), default_maxresults: Some(3), ..Knobs::default() });
    assert_eq!(elements(&get(&list, &[]).await), expected[..3]);
    fixture.set(Knobs { page_list_cut: Some(1024), page_list_timeout_elements: Some(3), ..Knobs::default() });
    assert_eq!(get(&list, &[]).await.refusal(), (500, "OperationTimedOut"));
    assert_eq!(elements(&get(&list, &[("x-ms-range", "bytes=0-2047")]).await), expected[..2]);
}

#[tokio::test]
async fn refusals() {
    let fixture = Fixture::with_blob(4096).await;
    let older = fixture.snapshot().await;
    let newer = fixture.snapshot().await;
    let list = and(&fixture.url, "comp=pagelist");
    let refusal = async |parameters: &str, headers: &[(&str, &str)]| {
        let answer = get(&and(&list, parameters), headers).await;
        (answer.status, answer.header("x-ms-error-code").unwrap_or_default().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let bad_parameter = is(400, "InvalidQueryParameterValue");
    assert_eq!(refusal("prevsnapshot=http%3A%2F%2Fx%2Fy", &[]).await, bad_parameter);
    assert_eq!(refusal("snapshot=yesterday", &[]).await, bad_parameter);
    assert_eq!(refusal("maxresults=0", &[]).await, bad_parameter);
    assert_eq!(refusal("maxresults=-1", &[]).await, bad_parameter);
    assert_eq!(refusal("marker=512", &[]).await, bad_parameter);
    assert_eq!(refusal("x=y", &[("x-ms-range", "0-511")]).await, is(400, "InvalidHeaderValue"));
    let swapped = format!("snapshot={older}&prevsnapshot={newer}");
    assert_eq!(refusal(&swapped, &[]).await, is(400, "PreviousSnapshotCannotBeNewer"));
    let gone = "prevsnapshot=2020-01-01T00%3A00%3A00.0000000Z";
    assert_eq!(refusal(gone, &[]).await, is(409, "PreviousSnapshotNotFound"));
    let missing = "snapshot=2020-01-01T00%3A00%3A00.0000000Z";
    assert_eq!(refusal(missing, &[]).await, is(404, "BlobNotFound"));

    let answer = get(&list, &[("x-ms-previous-snapshot-url", "https://md-x/y/abcd?snapshot=z")]).await;
    assert_eq!(answer.refusal(), (400, "UnsupportedHeaderForNonManagedDisksAccount"));
    assert!(answer.text().contains("</Message><HeaderName>x-ms-previous-snapshot-url</HeaderName></Error>"));

    let create = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "4096")];
    assert_eq!(put(&fixture.url, &create).await.status, 201);
    assert_eq!(refusal(&format!("prevsnapshot={older}"), &[]).await, is(409, "BlobOverwritten"));
    let between = format!("snapshot={newer}&prevsnapshot={older}");
    assert_eq!(refusal(&between, &[]).await, is(200, ""));

    assert_eq!(put(&fixture.url, &[("x-ms-blob-type", "BlockBlob")]).await.status, 201);
    assert_eq!(refusal("x=y", &[]).await, is(409, "InvalidBlobType"));
}
