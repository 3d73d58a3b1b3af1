//! `If-*` headers on reads and writes.

use crate::client::{Fixture, and, get, put, send};

#[tokio::test]
async fn reads_answer_304_or_412() {
    let fixture = Fixture::with_blob(4096).await;
    let etag = fixture.write(0..512, 1).await.etag();
    let urls = [fixture.url.clone(), and(&fixture.url, "comp=pagelist")];
    for url in &urls {
        for method in ["GET", "HEAD"] {
            if method == "HEAD" && url != &fixture.url {
                continue;
            }
            let unchanged = send(method, url, &[("if-none-match", &etag)], Vec::new()).await;
            assert_eq!(unchanged.refusal(), (304, "ConditionNotMet"));
            assert!(unchanged.body.is_empty());
            let other = send(method, url, &[("if-match", "\"0x1\"")], Vec::new()).await;
            assert_eq!(other.refusal(), (412, "ConditionNotMet"));
            assert_eq!(other.body.is_empty(), method == "HEAD");
            assert_eq!(send(method, url, &[("if-match", &etag)], Vec::new()).await.status, 200);
        }
    }
}

#[tokio::test]
async fn writes_answer_412() {
    let fixture = Fixture::with_blob(4096).await;
    let etag = fixture.write(0..512, 1).await.etag();
    assert_eq!(
        fixture.write_if(0..512, 1, &[("if-none-match", &etag)]).await.refusal(),
        (412, "ConditionNotMet")
    );
    let changed = fixture.write_if(0..512, 1, &[("if-match", &etag)]).await;
    assert_eq!(changed.status, 201);
    assert_eq!(fixture.write_if(0..512, 1, &[("if-match", &etag)]).await.refusal(), (412, "ConditionNotMet"));
    let past = "Mon, 01 Jan 2001 00:00:00 GMT";
    let answer = fixture.write_if(0..512, 1, &[("if-unmodified-since", past)]).await;
    assert_eq!(answer.refusal(), (412, "ConditionNotMet"));
    let both = [("if-match", etag.as_str()), ("if-none-match", "*")];
    let answer = fixture.write_if(0..512, 1, &both).await;
    assert_eq!(answer.refusal(), (400, "MultipleConditionHeadersNotSupported"));
}

#[tokio::test]
async fn a_snapshot_is_taken_only_of_the_state_that_was_meant() {
    let fixture = Fixture::with_blob(4096).await;
    let before = fixture.write(0..512, 1).await.etag();
    let snapshot = and(&fixture.url, "comp=snapshot");
    let taken = put(&snapshot, &[("if-match", &before)]).await;
    assert_eq!((taken.status, taken.etag()), (201, before.clone()));
    fixture.write(0..512, 2).await;
    assert_eq!(put(&snapshot, &[("if-match", &before)]).await.refusal(), (412, "ConditionNotMet"));
}

#[tokio::test]
async fn create_only_and_replace_only() {
    let fixture = Fixture::empty().await;
    let with = |name: &'static str, value: &'static str| {
        [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "4096"), (name, value)]
    };
    assert_eq!(put(&fixture.url, &with("if-match", "*")).await.refusal(), (412, "ConditionNotMet"));
    assert_eq!(put(&fixture.url, &with("if-none-match", "*")).await.status, 201);
    assert_eq!(put(&fixture.url, &with("if-none-match", "*")).await.refusal(), (409, "BlobAlreadyExists"));
    assert_eq!(put(&fixture.url, &with("if-match", "*")).await.status, 201);
    assert_eq!(get(&fixture.url, &[]).await.body.len(), 4096);
}
