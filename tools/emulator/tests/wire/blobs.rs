//! Create, read, properties, metadata, snapshot, lease and delete.

use std::time::Duration;

use crate::client::{BLOB, CONTAINER, Fixture, and, get, put, send};

#[tokio::test]
async fn create_says_what_it_did_and_refuses_bad_sizes() {
    let fixture = Fixture::empty().await;
    let create = async |length: &str| {
        let headers = [
            ("x-ms-blob-type", "PageBlob"),
            ("x-ms-blob-content-length", length),
            ("x-ms-blob-sequence-number", "7"),
            ("x-ms-meta-generation", "3"),
        ];
        put(&fixture.url, &headers).await
    };
    let answer = create("8796093022208").await;
    assert_eq!((answer.status, answer.header("x-ms-request-server-encrypted")), (201, Some("true")));
    let head = send("HEAD", &fixture.url, &[], Vec::new()).await;
    assert_eq!(head.header("content-length"), Some("8796093022208"));
    assert_eq!(head.header("x-ms-blob-sequence-number"), Some("7"));
    assert_eq!(head.header("x-ms-meta-generation"), Some("3"));
    assert_eq!(head.header("x-ms-blob-type"), Some("PageBlob"));
    assert_eq!(head.header("x-ms-lease-state"), Some("available"));
    assert_eq!(head.header("x-ms-lease-status"), Some("unlocked"));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    assert_eq!(head.etag(), answer.etag());

    assert_eq!(create("8796093022720").await.refusal(), (413, "RequestBodyTooLarge"));
    let misaligned = create("1000").await;
    assert_eq!(misaligned.refusal(), (400, "InvalidHeaderValue"));
    assert!(misaligned.text().contains("<HeaderName>x-ms-blob-content-length</HeaderName>"));
    assert_eq!(create("").await.refusal(), (400, "MissingRequiredHeader"));
    let append = put(&fixture.url, &[("x-ms-blob-type", "AppendBlob")]).await;
    assert_eq!(append.refusal(), (501, "NotImplemented"));
}

#[tokio::test]
async fn ranges_are_read_with_their_checksum() {
    let fixture = Fixture::with_blob(16 << 20).await;
    fixture.write(0..4096, b'b').await;
    let answer = get(&fixture.url, &[]).await;
    assert_eq!((answer.status, answer.body.len()), (200, 16 << 20));
    assert_eq!(answer.header("content-range"), None);
    assert!(answer.body[..4096].iter().all(|byte| *byte == b'b'));
    assert!(answer.body[4096..].iter().all(|byte| *byte == 0));

    let crc = ("x-ms-range-get-content-crc64", "true");
    let md5 = ("x-ms-range-get-content-md5", "true");
    let answer = get(&fixture.url, &[("x-ms-range", "bytes=0-4095"), crc]).await;
    assert_eq!((answer.status, answer.header("x-ms-content-crc64")), (206, Some("hZKj+vsuWCQ=")));
    assert_eq!(answer.header("content-range"), Some("bytes 0-4095/16777216"));
    assert_eq!(answer.header("content-length"), Some("4096"));
    let answer = get(&fixture.url, &[("x-ms-range", "bytes=8192-12287"), crc]).await;
    assert_eq!(answer.header("x-ms-content-crc64"), Some("TrYi62fTgmQ="));
    let answer = get(&fixture.url, &[("range", "bytes=0-0"), md5]).await;
    assert_eq!(answer.header("content-md5"), Some("kutf/uauL+w61xx3dTFXjw=="));
    let answer = get(&fixture.url, &[("range", "bytes=16777200-99999999")]).await;
    assert_eq!(answer.header("content-range"), Some("bytes 16777200-16777215/16777216"));

    let refusal = async |headers: &[(&str, &str)]| {
        let answer = get(&fixture.url, headers).await;
        (answer.status, answer.header("x-ms-error-code").unwrap_or_default().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(refusal(&[("x-ms-range", "bytes=16777216-")]).await, is(416, "InvalidRange"));
    assert_eq!(refusal(&[crc]).await, is(400, "InvalidHeaderValue"));
    assert_eq!(refusal(&[("x-ms-range", "bytes=0-4194304"), crc]).await, is(400, "InvalidHeaderValue"));
    assert_eq!(refusal(&[("x-ms-range", "bytes=0-4194303"), crc]).await, is(206, ""));
    let both = [("x-ms-range", "bytes=0-511"), crc, md5];
    assert_eq!(refusal(&both).await, is(400, "BothCrc64AndMd5RangeHeaderPresent"));
}

#[tokio::test]
async fn resizing_and_content_headers() {
    let fixture = Fixture::with_blob(4096).await;
    fixture.write(0..4096, 1).await;
    let url = and(&fixture.url, "comp=properties");
    assert_eq!(put(&url, &[("x-ms-blob-content-type", "disk/raw")]).await.status, 200);
    let resize = put(&url, &[("x-ms-blob-content-length", "512")]).await;
    assert_eq!((resize.status, resize.header("x-ms-blob-sequence-number")), (200, Some("0")));
    assert_eq!(put(&url, &[("x-ms-blob-content-length", "8192")]).await.status, 200);
    let answer = get(&fixture.url, &[]).await;
    assert_eq!((answer.body.len(), &answer.body[511..513]), (8192, &[1, 0][..]));
    assert_eq!(answer.header("content-type"), Some("disk/raw"));
    assert_eq!(put(&url, &[("x-ms-blob-cache-control", "no-store")]).await.status, 200);
    let answer = get(&fixture.url, &[]).await;
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        put(&url, &[("x-ms-blob-content-length", "700")]).await.refusal(),
        (400, "InvalidHeaderValue")
    );
}

#[tokio::test]
async fn metadata_is_replaced_as_a_whole() {
    let fixture = Fixture::with_blob(4096).await;
    let url = and(&fixture.url, "comp=metadata");
    let before = put(&url, &[("x-ms-meta-state", "applying"), ("x-ms-meta-other", "1")]).await;
    assert_eq!((before.status, before.header("x-ms-request-server-encrypted")), (200, Some("true")));
    let after = put(&url, &[("x-ms-meta-state", "clean")]).await;
    assert_ne!(before.etag(), after.etag());
    let head = send("HEAD", &fixture.url, &[], Vec::new()).await;
    assert_eq!((head.header("x-ms-meta-state"), head.header("x-ms-meta-other")), (Some("clean"), None));

    let long = "x".repeat(8192);
    assert_eq!(put(&url, &[("x-ms-meta-a", &long)]).await.refusal(), (400, "MetadataTooLarge"));
    assert_eq!(put(&url, &[("x-ms-meta-a", &long[1..])]).await.status, 200);
    assert_eq!(put(&url, &[("x-ms-meta-a-b", "1")]).await.refusal(), (400, "InvalidMetadata"));
    assert_eq!(put(&url, &[("x-ms-meta-1a", "1")]).await.refusal(), (400, "InvalidMetadata"));
    assert_eq!(put(&url, &[("x-ms-meta-", "1")]).await.refusal(), (400, "EmptyMetadataKey"));
    assert_eq!(put(&url, &[]).await.status, 200);
    assert!(fixture.account.read_blob(CONTAINER, BLOB, None).unwrap().metadata().is_empty());
}

#[tokio::test]
async fn snapshots_keep_bytes_and_metadata() {
    let fixture = Fixture::with_blob(4096).await;
    put(&and(&fixture.url, "comp=metadata"), &[("x-ms-meta-a", "1")]).await;
    let written = fixture.write(0..512, 1).await;
    let take = and(&fixture.url, "comp=snapshot");
    let inherited = put(&take, &[]).await;
    assert_eq!((inherited.status, inherited.etag()), (201, written.etag()));
    assert_eq!(inherited.header("last-modified"), written.header("last-modified"));
    assert_eq!(inherited.header("x-ms-request-server-encrypted"), Some("false"));
    let replaced = put(&take, &[("x-ms-meta-b", "2")]).await;
    assert_ne!(replaced.etag(), written.etag());
    fixture.write(0..512, 2).await;

    let time = |answer: &crate::client::Answer| answer.header("x-ms-snapshot").unwrap().to_owned();
    let (first, second) = (time(&inherited), time(&replaced));
    assert!(first < second && first.len() == "2023-01-27T22:27:23.4547704Z".len());
    let of = |time: &str| and(&fixture.url, &format!("snapshot={}", time.replace(':', "%3A")));
    let read = get(&of(&first), &[]).await;
    assert_eq!((read.body[0], read.header("x-ms-meta-a")), (1, Some("1")));
    assert_eq!(read.header("x-ms-lease-state"), None);
    let read = get(&of(&second), &[]).await;
    assert_eq!((read.header("x-ms-meta-a"), read.header("x-ms-meta-b")), (None, Some("2")));
    let view = fixture.account.read_blob(CONTAINER, BLOB, Some(&first)).unwrap();
    assert_eq!((view.read(0, 1), view.snapshots()), (vec![1], &[first.clone(), second][..]));
    let write = put(&and(&of(&first), "comp=metadata"), &[]).await;
    assert_eq!(write.refusal(), (400, "InvalidOperation"));
}

#[tokio::test]
async fn lease_calls() {
    let fixture = Fixture::with_blob(4096).await;
    let url = and(&fixture.url, "comp=lease");
    let (a, b) = ("0000000a-0000-0000-0000-00000000000a", "0000000b-0000-0000-0000-00000000000b");
    let lease = async |headers: &[(&str, &str)]| put(&url, headers).await;
    let acquire = |duration| {
        [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", duration), ("x-ms-proposed-lease-id", a)]
    };
    for wrong in ["14", "61", "0", "-2", "x"] {
        assert_eq!(lease(&acquire(wrong)).await.refusal(), (400, "InvalidHeaderValue"), "{wrong}");
    }
    let etag = fixture.write(0..512, 1).await.etag();
    let taken = lease(&acquire("-1")).await;
    assert_eq!((taken.status, taken.header("x-ms-lease-id"), taken.etag()), (201, Some(a), etag));
    let head = send("HEAD", &fixture.url, &[("x-ms-lease-id", a)], Vec::new()).await;
    assert_eq!(head.header("x-ms-lease-state"), Some("leased"));
    assert_eq!(head.header("x-ms-lease-status"), Some("locked"));
    assert_eq!(head.header("x-ms-lease-duration"), Some("infinite"));
    let head = send("HEAD", &fixture.url, &[("x-ms-lease-id", b)], Vec::new()).await;
    assert_eq!(head.refusal(), (412, "LeaseIdMismatchWithBlobOperation"));

    let anonymous = lease(&[("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "60")]).await;
    assert_eq!(anonymous.refusal(), (409, "LeaseAlreadyPresent"));
    let change =
        lease(&[("x-ms-lease-action", "change"), ("x-ms-lease-id", a), ("x-ms-proposed-lease-id", b)]).await;
    assert_eq!((change.status, change.header("x-ms-lease-id")), (200, Some(b)));
    let renew = lease(&[("x-ms-lease-action", "renew"), ("x-ms-lease-id", a)]).await;
    assert_eq!(renew.refusal(), (409, "LeaseIdMismatchWithLeaseOperation"));

    let breaking = lease(&[("x-ms-lease-action", "break"), ("x-ms-lease-break-period", "20")]).await;
    assert_eq!((breaking.status, breaking.header("x-ms-lease-time")), (202, Some("20")));
    fixture.emulator.advance_clock(Duration::from_secs(20));
    let renew = lease(&[("x-ms-lease-action", "renew"), ("x-ms-lease-id", b)]).await;
    assert_eq!(renew.refusal(), (409, "LeaseIsBrokenAndCannotBeRenewed"));
    let release = lease(&[("x-ms-lease-action", "release"), ("x-ms-lease-id", b)]).await;
    assert_eq!(release.status, 200);
    assert_eq!(lease(&[("x-ms-lease-action", "borrow")]).await.refusal(), (400, "InvalidHeaderValue"));
    assert_eq!(
        lease(&[("x-ms-lease-action", "break")]).await.refusal(),
        (409, "LeaseNotPresentWithLeaseOperation")
    );
}

#[tokio::test]
async fn deleting_minds_snapshots_and_leases() {
    let fixture = Fixture::with_blob(4096).await;
    let delete = async |url: &str, headers: &[(&str, &str)]| send("DELETE", url, headers, Vec::new()).await;
    let first = fixture.snapshot().await;
    fixture.snapshot().await;
    assert_eq!(delete(&fixture.url, &[]).await.refusal(), (409, "SnapshotsPresent"));
    let of_first = and(&fixture.url, &format!("snapshot={first}"));
    let both = delete(&of_first, &[("x-ms-delete-snapshots", "include")]).await;
    assert_eq!(both.refusal(), (400, "InvalidHeaderValue"));
    let answer = delete(&of_first, &[]).await;
    assert_eq!((answer.status, answer.header("x-ms-delete-type-permanent")), (202, Some("true")));
    assert_eq!(delete(&of_first, &[]).await.refusal(), (404, "BlobNotFound"));
    assert_eq!(delete(&fixture.url, &[("x-ms-delete-snapshots", "only")]).await.status, 202);
    assert!(fixture.account.read_blob(CONTAINER, BLOB, None).unwrap().snapshots().is_empty());

    let acquire = [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "-1")];
    let lease = put(&and(&fixture.url, "comp=lease"), &acquire).await;
    let id = lease.header("x-ms-lease-id").unwrap();
    fixture.snapshot().await;
    let include = ("x-ms-delete-snapshots", "include");
    assert_eq!(delete(&fixture.url, &[include]).await.refusal(), (412, "LeaseIdMissing"));
    assert_eq!(delete(&fixture.url, &[include, ("x-ms-lease-id", id)]).await.status, 202);
    assert_eq!(get(&fixture.url, &[]).await.refusal(), (404, "BlobNotFound"));
}
