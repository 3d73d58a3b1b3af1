//! Block blobs: blocks that are sent, listed and committed, and what else is done with what they make.

use std::time::Duration;

use snapferry_emulator::{Call, Fault, FaultKind};

use crate::client::{Answer, BLOB, CONTAINER, Fixture, HOUR, and, get, put, send};

/// Ids of one length, as they stand in a query and in a list.
const A: &str = "QUFB";
const B: &str = "QkJC";
const C: &str = "Q0ND";
const LEASE: &str = "0000000a-0000-0000-0000-00000000000a";

impl Fixture {
    async fn stage(&self, id: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        let id = id.replace('+', "%2B").replace('=', "%3D");
        send("PUT", &and(&self.url, &format!("comp=block&blockid={id}")), headers, body.to_vec()).await
    }

    async fn commit(&self, list: &str, headers: &[(&str, &str)]) -> Answer {
        let body = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        send("PUT", &and(&self.url, "comp=blocklist"), headers, body.into_bytes()).await
    }

    /// The names and sizes of a block list.
    async fn blocks(&self, kind: &str) -> String {
        let answer = get(&and(&self.url, &format!("comp=blocklist&blocklisttype={kind}")), &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let xml = answer.text().split_once("<BlockList>").unwrap().1.replace("</BlockList>", "");
        xml.replace("<Block><Name>", "").replace("</Name><Size>", "=").replace("</Size></Block>", " ")
    }

    fn content(&self) -> Option<Vec<u8>> {
        Some(self.account.read_blob(CONTAINER, BLOB, None)?.read(0, u64::MAX))
    }
}

fn latest(id: &str) -> String {
    format!("<Latest>{id}</Latest>")
}

#[tokio::test]
async fn blocks_become_a_blob_when_they_are_committed() {
    let fixture = Fixture::empty().await;
    let staged = fixture.stage(A, b"hello ", &[]).await;
    assert_eq!((staged.status, staged.header("x-ms-request-server-encrypted")), (201, Some("true")));
    assert_eq!((staged.header("etag"), staged.header("content-md5")), (None, None));
    assert!(staged.header("x-ms-content-crc64").is_some());
    fixture.stage(B, b"world", &[]).await;
    fixture.stage(C, b"unused", &[]).await;

    for method in ["GET", "HEAD"] {
        assert_eq!(send(method, &fixture.url, &[], Vec::new()).await.refusal(), (404, "BlobNotFound"));
    }
    assert!(fixture.account.blob_names(CONTAINER).is_empty());
    let list = fixture.account.container_sas(CONTAINER, "", "l", HOUR).replace("/?", "?");
    let list = get(&and(&list, "restype=container&comp=list"), &[]).await;
    assert!(list.text().contains("<Blobs></Blobs>"), "{}", list.text());
    let waiting = "<UncommittedBlocks>QUFB=6 QkJC=5 Q0ND=6 </UncommittedBlocks>";
    assert_eq!(fixture.blocks("uncommitted").await, waiting);

    let committed =
        fixture.commit(&[latest(A), latest(B), latest(A)].concat(), &[("x-ms-meta-kind", "manifest")]).await;
    assert_eq!((committed.status, fixture.content()), (201, Some(b"hello worldhello ".to_vec())));
    assert!(committed.header("last-modified").is_some());
    assert_eq!(fixture.account.blob_names(CONTAINER), [BLOB]);
    let nothing_waits =
        "<CommittedBlocks>QUFB=6 QkJC=5 QUFB=6 </CommittedBlocks><UncommittedBlocks></UncommittedBlocks>";
    assert_eq!(fixture.blocks("all").await, nothing_waits);
    let head = send("HEAD", &fixture.url, &[], Vec::new()).await;
    assert_eq!(
        (head.header("x-ms-blob-type"), head.header("content-length")),
        (Some("BlockBlob"), Some("17"))
    );
    assert_eq!((head.header("x-ms-meta-kind"), head.etag()), (Some("manifest"), committed.etag()));
    let part =
        get(&fixture.url, &[("x-ms-range", "bytes=4-12"), ("x-ms-range-get-content-crc64", "true")]).await;
    assert_eq!((part.status, part.text()), (206, "o worldhe"));
    assert_eq!(part.header("content-range"), Some("bytes 4-12/17"));
    assert!(part.header("x-ms-content-crc64").is_some());
    let stats = fixture.emulator.stats();
    let requests =
        [Call::PutBlock, Call::PutBlockList, Call::GetBlockList].map(|call| stats.of(call).requests);
    assert_eq!(requests, [3, 1, 2]);
}

#[tokio::test]
async fn a_list_takes_blocks_from_where_it_says() {
    let fixture = Fixture::empty().await;
    fixture.stage(A, b"1", &[]).await;
    assert_eq!(fixture.commit(&latest(A), &[]).await.status, 201);
    fixture.stage(A, b"2", &[]).await;
    assert_eq!(fixture.content(), Some(b"1".to_vec()));
    let both = format!("<Committed>{A}</Committed><Uncommitted>{A}</Uncommitted>");
    assert_eq!(fixture.commit(&both, &[]).await.status, 201);
    assert_eq!(fixture.content(), Some(b"12".to_vec()));
    // What waited is gone now, whether it was used or not.
    let gone = fixture.commit(&format!("<Uncommitted>{A}</Uncommitted>"), &[]).await;
    assert_eq!(gone.refusal(), (400, "InvalidBlockList"));
    assert_eq!(fixture.commit(&latest(B), &[]).await.refusal(), (400, "InvalidBlockList"));
    assert_eq!(fixture.commit("", &[]).await.status, 201);
    assert_eq!(fixture.content(), Some(vec![]));
    // A blob that came as one body has no blocks, and takes away those that waited.
    fixture.stage(B, b"3", &[]).await;
    let whole = send("PUT", &fixture.url, &[("x-ms-blob-type", "BlockBlob")], b"whole".to_vec()).await;
    assert_eq!(whole.status, 201);
    let none = "<CommittedBlocks></CommittedBlocks><UncommittedBlocks></UncommittedBlocks>";
    assert_eq!(fixture.blocks("all").await, none);
}

#[tokio::test]
async fn what_is_no_block_is_refused() {
    let fixture = Fixture::empty().await;
    assert_eq!(fixture.stage("x", b"1", &[]).await.refusal(), (400, "InvalidQueryParameterValue"));
    assert_eq!(fixture.stage("", b"1", &[]).await.refusal(), (400, "InvalidQueryParameterValue"));
    assert_eq!(
        fixture.stage(&"QUFB".repeat(22), b"1", &[]).await.refusal(),
        (400, "InvalidQueryParameterValue")
    );
    assert_eq!(fixture.stage(A, b"", &[]).await.refusal(), (400, "InvalidHeaderValue"));
    let crc = ("x-ms-content-crc64", "pK+ypU+jreM=");
    let md5 = ("content-md5", "kutf/uauL+w61xx3dTFXjw==");
    assert_eq!(fixture.stage(A, b"1", &[crc]).await.refusal(), (400, "Crc64Mismatch"));
    assert_eq!(fixture.stage(A, b"1", &[md5]).await.refusal(), (400, "Md5Mismatch"));
    let both = fixture.stage(A, b"b", &[crc, md5]).await;
    assert_eq!(both.refusal(), (400, "BothCrc64AndMd5HeaderPresent"));
    let good = fixture.stage(A, b"b", &[md5]).await;
    assert_eq!((good.status, good.header("content-md5")), (201, Some(md5.1)));
    assert_eq!(good.header("x-ms-content-crc64"), None);
    assert_eq!(fixture.stage(A, &[b'b'; 1024], &[crc]).await.header("x-ms-content-crc64"), Some(crc.1));
    assert_eq!(fixture.stage("QUFBQQ==", b"1", &[]).await.refusal(), (400, "InvalidBlobOrBlock"));
    let lengths = [latest(A), latest("QUFBQQ==")].concat();
    assert_eq!(fixture.commit(&lengths, &[]).await.refusal(), (400, "InvalidBlobOrBlock"));
    assert_eq!(fixture.commit("<Latest>", &[]).await.refusal(), (400, "InvalidXmlDocument"));
    assert_eq!(fixture.commit(&latest(A), &[md5]).await.refusal(), (400, "Md5Mismatch"));
    assert_eq!(fixture.content(), None);

    let reader = fixture.account.blob_sas(CONTAINER, BLOB, "r", HOUR);
    let refused = send("PUT", &and(&reader, &format!("comp=block&blockid={A}")), &[], vec![1]).await;
    assert_eq!(refused.refusal(), (403, "AuthorizationPermissionMismatch"));
    let kind = get(&and(&fixture.url, "comp=blocklist&blocklisttype=some"), &[]).await;
    assert_eq!(kind.refusal(), (400, "InvalidQueryParameterValue"));

    let pages = Fixture::with_blob(512).await;
    assert_eq!(pages.stage(A, b"1", &[]).await.refusal(), (409, "InvalidBlobType"));
    assert_eq!(pages.commit("", &[]).await.refusal(), (409, "InvalidBlobType"));
    assert_eq!(get(&and(&pages.url, "comp=blocklist"), &[]).await.refusal(), (409, "InvalidBlobType"));
}

#[tokio::test]
async fn conditions_permissions_and_leases_guard_a_commit() {
    let fixture = Fixture::empty().await;
    let (absent, list) = (("if-none-match", "*"), latest(A));
    fixture.stage(A, b"1", &[]).await;
    assert_eq!(fixture.commit(&list, &[("if-match", "*")]).await.refusal(), (412, "ConditionNotMet"));
    let first = fixture.commit(&list, &[absent]).await;
    assert_eq!(first.status, 201);
    fixture.stage(A, b"2", &[]).await;
    assert_eq!(fixture.commit(&list, &[absent]).await.refusal(), (409, "BlobAlreadyExists"));
    let second = fixture.commit(&list, &[("if-match", &first.etag())]).await;
    assert_eq!(second.status, 201);
    assert_ne!(first.etag(), second.etag());
    fixture.stage(A, b"3", &[]).await;
    let stale = fixture.commit(&list, &[("if-match", &first.etag())]).await;
    assert_eq!(stale.refusal(), (412, "ConditionNotMet"));

    let creator = fixture.account.blob_sas(CONTAINER, BLOB, "c", HOUR);
    let body = format!("<BlockList>{list}</BlockList>").into_bytes();
    let refused = send("PUT", &and(&creator, "comp=blocklist"), &[], body).await;
    assert_eq!(refused.refusal(), (403, "AuthorizationPermissionMismatch"));

    let acquire =
        [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "-1"), ("x-ms-proposed-lease-id", LEASE)];
    assert_eq!(put(&and(&fixture.url, "comp=lease"), &acquire).await.status, 201);
    assert_eq!(fixture.stage(A, b"4", &[]).await.refusal(), (412, "LeaseIdMissing"));
    assert_eq!(fixture.commit(&list, &[]).await.refusal(), (412, "LeaseIdMissing"));
    let held = [("x-ms-lease-id", LEASE)];
    assert_eq!(fixture.stage(A, b"4", &held).await.status, 201);
    assert_eq!(fixture.commit(&list, &held).await.status, 201);
    assert_eq!(fixture.content(), Some(b"4".to_vec()));
}

#[tokio::test]
async fn snapshots_metadata_and_deletion() {
    let fixture = Fixture::empty().await;
    fixture.stage(A, b"1", &[]).await;
    fixture.commit(&latest(A), &[]).await;
    assert_eq!(put(&and(&fixture.url, "comp=metadata"), &[("x-ms-meta-a", "1")]).await.status, 200);
    let time = fixture.snapshot().await;
    fixture.stage(B, b"22", &[]).await;
    assert_eq!(fixture.commit(&latest(B), &[]).await.status, 201);
    let old = and(&fixture.url, &format!("snapshot={time}"));
    let read = get(&old, &[]).await;
    assert_eq!((read.text(), read.header("x-ms-meta-a")), ("1", Some("1")));
    let blocks = get(&and(&old, "comp=blocklist&blocklisttype=all"), &[]).await;
    assert!(blocks.text().contains("<Block><Name>QUFB</Name><Size>1</Size></Block>"), "{}", blocks.text());
    let answer = send("PUT", &and(&old, &format!("comp=block&blockid={A}")), &[], vec![1]).await;
    assert_eq!(answer.refusal(), (400, "InvalidOperation"));

    fixture.stage(C, b"3", &[]).await;
    assert_eq!(send("DELETE", &fixture.url, &[], Vec::new()).await.refusal(), (409, "SnapshotsPresent"));
    let include = [("x-ms-delete-snapshots", "include")];
    assert_eq!(send("DELETE", &fixture.url, &include, Vec::new()).await.status, 202);
    assert_eq!(fixture.commit(&latest(C), &[]).await.refusal(), (400, "InvalidBlockList"));
    assert_eq!(get(&and(&fixture.url, "comp=blocklist"), &[]).await.refusal(), (404, "BlobNotFound"));
}

#[tokio::test]
async fn faults_meet_blocks_as_they_meet_pages() {
    let fixture = Fixture::empty().await;
    let faults = fixture.emulator.faults();
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let lose = async |comp: &str, body: &'static str| {
        let request = http.put(and(&fixture.url, comp)).header("x-ms-version", crate::client::VERSION);
        assert!(request.body(body).send().await.is_err());
    };
    let stage = "comp=block&blockid=QUFB";
    let list = "<BlockList><Latest>QUFB</Latest></BlockList>";
    faults.add("put-block:cut-before-apply".parse().unwrap());
    lose(stage, "1").await;
    assert_eq!(get(&and(&fixture.url, "comp=blocklist"), &[]).await.status, 404);
    faults.add("put-block:cut-after-apply".parse().unwrap());
    lose(stage, "1").await;
    assert_eq!(fixture.blocks("uncommitted").await, "<UncommittedBlocks>QUFB=1 </UncommittedBlocks>");
    faults.add("put-block-list:cut-before-apply".parse().unwrap());
    lose("comp=blocklist", list).await;
    assert_eq!(fixture.content(), None);
    faults.add("put-block-list:cut-after-apply".parse().unwrap());
    lose("comp=blocklist", list).await;
    assert_eq!(fixture.content(), Some(b"1".to_vec()));

    let late = async |number: usize| loop {
        let records = fixture.emulator.requests();
        if let Some(record) = records.into_iter().filter(|record| record.late).nth(number) {
            return (record.call, record.status, record.error);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let after = Duration::from_millis(300);
    faults.add(Fault::new(FaultKind::LateDuplicate { after }).on(Call::PutBlock));
    assert_eq!(fixture.stage(A, b"2", &[]).await.status, 201);
    assert_eq!(fixture.stage(A, b"3", &[]).await.status, 201);
    assert_eq!(late(0).await, (Call::PutBlock, 201, None));
    // The duplicate of the commit finds no block that waits, and the one that was committed.
    faults.add(Fault::new(FaultKind::LateDuplicate { after }).on(Call::PutBlockList));
    let committed = fixture.commit(&latest(A), &[("if-none-match", "")]).await;
    assert_eq!((committed.status, fixture.content()), (201, Some(b"2".to_vec())));
    assert_eq!(late(1).await, (Call::PutBlockList, 201, None));
    faults.add(Fault::new(FaultKind::DelayedApply { after }).on(Call::PutBlockList));
    lose("comp=blocklist", "<BlockList/>").await;
    assert_eq!(fixture.content(), Some(b"2".to_vec()));
    assert_eq!((late(2).await, fixture.content()), ((Call::PutBlockList, 201, None), Some(vec![])));

    faults.add(Fault::new(FaultKind::FlipByteInRequest));
    let crc = [("x-ms-content-crc64", "pK+ypU+jreM=")];
    assert_eq!(fixture.stage(A, &[b'b'; 1024], &crc).await.refusal(), (400, "Crc64Mismatch"));
}
