//! Damage that a test does behind the service's back.

use std::ops::Range;

use crate::client::{BLOB, CONTAINER, Fixture, and, elements, get, put, send};

type Elements = Vec<(char, Range<u64>)>;

/// All that a client sees of a page blob besides its bytes: properties, page list, changes since a snapshot.
async fn seen(fixture: &Fixture, time: &str) -> (Vec<Option<String>>, Elements, Elements) {
    let head = send("HEAD", &fixture.url, &[], Vec::new()).await;
    let names = ["etag", "last-modified", "x-ms-blob-sequence-number", "content-length", "x-ms-meta-a"];
    let headers = names.map(|name| head.header(name).map(str::to_owned)).to_vec();
    let list = elements(&get(&and(&fixture.url, "comp=pagelist"), &[]).await);
    let diff = get(&and(&fixture.url, &format!("comp=pagelist&prevsnapshot={time}")), &[]).await;
    (headers, list, elements(&diff))
}

#[tokio::test]
async fn rot_in_a_page_shows_in_the_bytes_of_one_version_only() {
    let fixture = Fixture::with_blob(1 << 20).await;
    fixture.write(0..8192, 7).await;
    let time = fixture.snapshot().await;
    let snapshot = time.replace("%3A", ":");
    fixture.write(512..1024, 9).await;
    let before = seen(&fixture, &time).await;
    let bytes = |snapshot: Option<&str>| {
        fixture.account.read_blob(CONTAINER, BLOB, snapshot).unwrap().read(0, 1 << 20)
    };
    let (mut live, mut old) = (bytes(None), bytes(Some(&snapshot)));

    assert!(fixture.account.flip_bit(CONTAINER, BLOB, None, 4100, 0));
    live[4100] ^= 1;
    assert_eq!((bytes(None), bytes(Some(&snapshot))), (live.clone(), old.clone()));
    assert!(fixture.account.flip_bit(CONTAINER, BLOB, Some(&snapshot), 0, 7));
    old[0] ^= 128;
    assert_eq!((bytes(None), bytes(Some(&snapshot))), (live.clone(), old.clone()));
    assert_eq!(seen(&fixture, &time).await, before);
    // Twice is not at all.
    assert!(fixture.account.flip_bit(CONTAINER, BLOB, Some(&snapshot), 0, 7));
    old[0] ^= 128;

    // Where nothing was, a page appears, in that version alone, and no difference tells of it.
    assert!(fixture.account.flip_bit(CONTAINER, BLOB, Some(&snapshot), 300_000, 3));
    old[300_000] = 8;
    assert_eq!((bytes(None), bytes(Some(&snapshot))), (live.clone(), old));
    assert_eq!(seen(&fixture, &time).await, before);
    let list = get(&and(&fixture.url, &format!("comp=pagelist&snapshot={time}")), &[]).await;
    assert_eq!(elements(&list), [('+', 0..8192), ('+', 299_520..300_032)]);
    assert!(fixture.account.flip_bit(CONTAINER, BLOB, None, 600_000, 0));
    live[600_000] = 1;
    assert_eq!(bytes(None), live);
    assert_eq!(seen(&fixture, &time).await.2, before.2);
    // A write to the page makes it an ordinary one.
    fixture.write(599_552..600_064, 1).await;
    assert!(seen(&fixture, &time).await.2.contains(&('+', 599_552..600_064)));
}

#[tokio::test]
async fn rot_in_a_block_blob() {
    let fixture = Fixture::empty().await;
    let headers = [("x-ms-blob-type", "BlockBlob")];
    let made = send("PUT", &fixture.url, &headers, b"abc".to_vec()).await;
    let snapshot = fixture.snapshot().await.replace("%3A", ":");
    assert!(fixture.account.flip_bit(CONTAINER, BLOB, Some(&snapshot), 1, 0));
    assert!(fixture.account.flip_bit(CONTAINER, BLOB, None, 2, 1));
    let live = get(&fixture.url, &[]).await;
    assert_eq!((live.text(), live.etag()), ("aba", made.etag()));
    assert_eq!(fixture.account.read_blob(CONTAINER, BLOB, Some(&snapshot)).unwrap().read(0, 9), b"acc");
}

#[tokio::test]
async fn metadata_changes_behind_the_back() {
    let fixture = Fixture::with_blob(512).await;
    let set = put(&and(&fixture.url, "comp=metadata"), &[("x-ms-meta-state", "clean")]).await;
    let snapshot = fixture.snapshot().await.replace("%3A", ":");
    let account = &fixture.account;
    assert!(account.set_metadata_raw(CONTAINER, BLOB, Some(&snapshot), "state", "dirty"));
    assert!(account.set_metadata_raw(CONTAINER, BLOB, None, "more", "1"));
    let head = send("HEAD", &fixture.url, &[], Vec::new()).await;
    assert_eq!((head.header("x-ms-meta-state"), head.header("x-ms-meta-more")), (Some("clean"), Some("1")));
    assert_eq!(head.etag(), set.etag());
    assert_eq!(account.read_blob(CONTAINER, BLOB, Some(&snapshot)).unwrap().metadata()["state"], "dirty");
}

#[tokio::test]
async fn what_is_not_there_is_not_changed() {
    let fixture = Fixture::with_blob(512).await;
    let account = &fixture.account;
    assert!(!account.flip_bit(CONTAINER, BLOB, None, 512, 0));
    assert!(!account.flip_bit(CONTAINER, BLOB, None, 0, 8));
    assert!(!account.flip_bit(CONTAINER, BLOB, Some("2026-01-01T00:00:00.0000000Z"), 0, 0));
    assert!(!account.flip_bit(CONTAINER, BLOB, Some("yesterday"), 0, 0));
    assert!(
        !account.flip_bit("nowhere", BLOB, None, 0, 0) && !account.flip_bit(CONTAINER, "none", None, 0, 0)
    );
    assert!(!account.set_metadata_raw(CONTAINER, "none", None, "a", "b"));
    assert!(account.read_blob(CONTAINER, BLOB, None).unwrap().allocated_ranges().is_empty());
    assert_eq!(account.blob_names("nowhere"), Vec::<String>::new());
    fixture.snapshot().await;
    assert!(account.delete_blob(CONTAINER, BLOB) && !account.delete_blob(CONTAINER, BLOB));
    assert!(account.blob_names(CONTAINER).is_empty());
    assert_eq!(get(&fixture.url, &[]).await.refusal(), (404, "BlobNotFound"));
}
