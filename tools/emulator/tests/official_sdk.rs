//! The official Rust SDK, a client that was not written for the emulator, at work on it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::time::Duration;

use azure_core::http::{RequestContent, StatusCode, Url};
use azure_storage_blob::models::{
    BlobClientAcquireLeaseResultHeaders, BlobClientBreakLeaseOptions, BlobClientCreateSnapshotOptions,
    BlobClientCreateSnapshotResultHeaders, BlobClientDeleteOptions, BlobClientDownloadOptions,
    BlobClientGetPropertiesResultHeaders, BlobContainerClientListBlobsOptions, BlobType,
    BlockBlobClientCommitBlockListResultHeaders, BlockBlobClientStageBlockOptions,
    BlockBlobClientStageBlockResultHeaders, BlockListType, BlockLookupList, DeleteSnapshotsOptionType,
    HttpRange, LeaseState, ListBlobsIncludeItem, PageBlobClientClearPagesOptions,
    PageBlobClientCreateOptions, PageBlobClientListPageRangesOptions, PageBlobClientSetSequenceNumberOptions,
    PageBlobClientSetSequenceNumberResultHeaders, PageBlobClientUploadPagesFromUrlOptions,
    PageBlobClientUploadPagesFromUrlResultHeaders, PageBlobClientUploadPagesOptions,
    PageBlobClientUploadPagesResultHeaders, SequenceNumberActionType,
};
use azure_storage_blob::{BlobClient, BlobContainerClient};
use futures::TryStreamExt;
use snapferry_emulator::{Account, Config, Emulator};

const HOUR: Duration = Duration::from_hours(1);

/// CRC-64/NVME of 512 bytes of `a`, as the service would send it.
const CRC_OF_A: u64 = 0x87f3_9029_06b5_aebb;

struct Fixture {
    _emulator: Emulator,
    account: Account,
    blob: BlobClient,
}

async fn fixture() -> Fixture {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    let account = emulator.account("target");
    account.create_container("box");
    let url = account.blob_sas("box", "disk", "racwd", HOUR);
    let blob = BlobClient::new(Url::parse(&url).unwrap(), None, None).unwrap();
    Fixture { _emulator: emulator, account, blob }
}

fn status(error: &azure_core::Error) -> StatusCode {
    error.http_status().unwrap()
}

#[tokio::test]
async fn pages_are_written_listed_cleared_and_read() {
    let Fixture { _emulator, blob, .. } = fixture().await;
    let pages = blob.page_blob_client();
    pages.create(4096, None).await.unwrap();
    let again = pages.create(4096, Some(PageBlobClientCreateOptions::default().if_not_exists())).await;
    assert_eq!(status(&again.unwrap_err()), StatusCode::Conflict);

    let write = async |crc: u64| {
        let options = PageBlobClientUploadPagesOptions {
            transactional_content_crc64: Some(crc.to_le_bytes().to_vec()),
            ..Default::default()
        };
        let content = RequestContent::from(vec![b'a'; 512]);
        pages.upload_pages(content, 512, HttpRange::new(1024, 512), Some(options)).await
    };
    let written = write(CRC_OF_A).await.unwrap();
    assert_eq!(written.content_crc64().unwrap().unwrap(), CRC_OF_A.to_le_bytes());
    assert_eq!(status(&write(CRC_OF_A + 1).await.unwrap_err()), StatusCode::BadRequest);
    for start in [2048, 3072] {
        let content = RequestContent::from(vec![b'b'; 512]);
        pages.upload_pages(content, 512, HttpRange::new(start, 512), None).await.unwrap();
    }
    pages.clear_pages(HttpRange::new(2048, 512), None).await.unwrap();

    let options = PageBlobClientListPageRangesOptions { maxresults: Some(1), ..Default::default() };
    let mut lists = pages.list_page_ranges(Some(options)).unwrap();
    let mut ranges = Vec::new();
    while let Some(list) = lists.try_next().await.unwrap() {
        for range in list.into_model().unwrap().page_ranges {
            ranges.push((range.start.unwrap(), range.end.unwrap()));
        }
    }
    assert_eq!(ranges, [(1024, 1535), (3072, 3583)]);

    let options = BlobClientDownloadOptions { range: Some(HttpRange::new(1000, 100)), ..Default::default() };
    let body = blob.download(Some(options)).await.unwrap().body.collect().await.unwrap();
    assert_eq!(body[..], [[0; 24].as_slice(), &[b'a'; 76]].concat());
    assert_eq!(blob.download(None).await.unwrap().body.collect().await.unwrap().len(), 4096);
}

#[tokio::test]
async fn pages_are_taken_from_a_disk_snapshot() {
    let Fixture { _emulator: emulator, account, blob } = fixture().await;
    let disk = emulator.create_disk("data", 1 << 20).unwrap();
    disk.write(8192, &[b'a'; 512]).unwrap();
    let snapshot = disk.snapshot();
    let pages = blob.page_blob_client();
    pages.create(4096, None).await.unwrap();

    let take = async |from: u64, crc: u64| {
        let options = PageBlobClientUploadPagesFromUrlOptions {
            source_content_crc64: Some(crc.to_le_bytes().to_vec()),
            ..Default::default()
        };
        let (source, target) = (HttpRange::new(from, 512), HttpRange::new(1024, 512));
        pages.upload_pages_from_url(snapshot.grant(), source, 0, target, Some(options)).await
    };
    let taken = take(8192, CRC_OF_A).await.unwrap();
    assert_eq!(taken.blob_sequence_number().unwrap(), Some(0));
    assert_eq!(taken.content_crc64().unwrap().unwrap(), CRC_OF_A.to_le_bytes());
    assert_eq!(status(&take(0, CRC_OF_A).await.unwrap_err()), StatusCode::BadRequest);
    let (source, target) = (HttpRange::new(8192, 512), HttpRange::new(2048, 512));
    let unchecked = pages.upload_pages_from_url(snapshot.grant(), source, 0, target, None).await.unwrap();
    assert_eq!(unchecked.content_md5().unwrap().unwrap().len(), 16);
    let view = account.read_blob("box", "disk", None).unwrap();
    assert_eq!(view.allocated_ranges(), [1024..1536, 2048..2560]);
    assert_eq!(view.read(1024, 512), [b'a'; 512]);

    snapshot.revoke();
    let url = snapshot.grant();
    snapshot.revoke();
    let (source, target) = (HttpRange::new(8192, 512), HttpRange::new(0, 512));
    let refused = pages.upload_pages_from_url(url, source, 0, target, None).await;
    assert_eq!(status(&refused.unwrap_err()), StatusCode::Forbidden);
}

#[tokio::test]
async fn blocks_are_staged_committed_and_listed() {
    let Fixture { _emulator, account, blob } = fixture().await;
    let blocks = blob.block_blob_client();
    let stage = async |id: u8, byte: u8, crc: Option<u64>| {
        let options = BlockBlobClientStageBlockOptions {
            transactional_content_crc64: crc.map(|crc| crc.to_le_bytes().to_vec()),
            ..Default::default()
        };
        let content = RequestContent::from(vec![byte; 512]);
        blocks.stage_block(&[id], 512, content, Some(options)).await
    };
    let staged = stage(1, b'a', Some(CRC_OF_A)).await.unwrap();
    assert_eq!(staged.content_crc64().unwrap().unwrap(), CRC_OF_A.to_le_bytes());
    assert_eq!(status(&stage(1, b'a', Some(CRC_OF_A + 1)).await.unwrap_err()), StatusCode::BadRequest);
    stage(2, b'b', None).await.unwrap();
    assert!(!blob.exists().await.unwrap());

    let commit = async |ids: &[u8]| {
        let latest = Some(ids.iter().map(|id| vec![*id]).collect());
        let list = BlockLookupList { latest, ..Default::default() };
        blocks.commit_block_list(list.try_into().unwrap(), None).await
    };
    assert_eq!(status(&commit(&[3]).await.unwrap_err()), StatusCode::BadRequest);
    let committed = commit(&[2, 1]).await.unwrap();
    let view = account.read_blob("box", "disk", None).unwrap();
    assert_eq!(committed.etag().unwrap().unwrap().to_string(), view.etag());
    assert_eq!(view.read(0, 4096), [[b'b'; 512], [b'a'; 512]].concat());
    stage(3, b'c', None).await.unwrap();
    let list = blocks.get_block_list(BlockListType::All, None).await.unwrap().into_model().unwrap();
    let names = |blocks: Option<Vec<azure_storage_blob::models::Block>>| -> Vec<_> {
        blocks
            .unwrap_or_default()
            .into_iter()
            .map(|block| (block.name.unwrap(), block.size.unwrap()))
            .collect()
    };
    assert_eq!(names(list.committed_blocks), [(vec![2], 512), (vec![1], 512)]);
    assert_eq!(names(list.uncommitted_blocks), [(vec![3], 512)]);
    let properties = blob.get_properties(None).await.unwrap();
    assert_eq!(properties.blob_type().unwrap(), Some(BlobType::BlockBlob));
    assert_eq!(properties.content_length().unwrap(), Some(1024));
}

#[tokio::test]
async fn size_and_sequence_number() {
    let Fixture { _emulator, blob, .. } = fixture().await;
    let pages = blob.page_blob_client();
    pages.create(512, None).await.unwrap();
    pages.resize(8192, None).await.unwrap();
    let options =
        PageBlobClientSetSequenceNumberOptions { blob_sequence_number: Some(7), ..Default::default() };
    pages.set_sequence_number(SequenceNumberActionType::Max, Some(options)).await.unwrap();
    let next = pages.set_sequence_number(SequenceNumberActionType::Increment, None).await.unwrap();
    assert_eq!(next.blob_sequence_number().unwrap(), Some(8));
    let properties = blob.get_properties(None).await.unwrap();
    assert_eq!(properties.content_length().unwrap(), Some(8192));
    assert_eq!(properties.blob_type().unwrap(), Some(BlobType::PageBlob));
    let stale =
        PageBlobClientClearPagesOptions { if_sequence_number_equal_to: Some(7), ..Default::default() };
    let refused = pages.clear_pages(HttpRange::new(0, 512), Some(stale)).await;
    assert_eq!(status(&refused.unwrap_err()), StatusCode::PreconditionFailed);
}

#[tokio::test]
async fn leases() {
    let Fixture { _emulator, blob, .. } = fixture().await;
    let pages = blob.page_blob_client();
    pages.create(512, None).await.unwrap();
    let lease = blob.acquire_lease(15, None).await.unwrap().lease_id().unwrap().unwrap();
    assert_eq!(status(&blob.acquire_lease(15, None).await.unwrap_err()), StatusCode::Conflict);
    let content = || RequestContent::from(vec![1; 512]);
    let refused = pages.upload_pages(content(), 512, HttpRange::new(0, 512), None).await;
    assert_eq!(status(&refused.unwrap_err()), StatusCode::PreconditionFailed);
    let with_lease = PageBlobClientUploadPagesOptions { lease_id: Some(lease.clone()), ..Default::default() };
    pages.upload_pages(content(), 512, HttpRange::new(0, 512), Some(with_lease)).await.unwrap();
    blob.renew_lease(lease.clone(), None).await.unwrap();
    blob.release_lease(lease, None).await.unwrap();

    blob.acquire_lease(-1, None).await.unwrap();
    let at_once = BlobClientBreakLeaseOptions { break_period: Some(0), ..Default::default() };
    blob.break_lease(Some(at_once)).await.unwrap();
    let state = blob.get_properties(None).await.unwrap().lease_state().unwrap();
    assert_eq!(state, Some(LeaseState::Broken));
}

#[tokio::test]
async fn metadata_snapshots_lists_and_deletion() {
    let Fixture { _emulator, account, blob } = fixture().await;
    let metadata = |value: &str| HashMap::from([("state".to_owned(), value.to_owned())]);
    blob.page_blob_client().create(512, None).await.unwrap();
    blob.set_metadata(&metadata("applying"), None).await.unwrap();
    let options = BlobClientCreateSnapshotOptions { metadata: Some(metadata("point")), ..Default::default() };
    let snapshot = blob.create_snapshot(Some(options)).await.unwrap().snapshot().unwrap().unwrap();
    let properties = blob.with_snapshot(&snapshot).unwrap().get_properties(None).await.unwrap();
    assert_eq!(properties.metadata().unwrap(), metadata("point"));
    assert_eq!(account.read_blob("box", "disk", None).unwrap().metadata()["state"], "applying");

    let url = account.container_sas("box", "", "rl", HOUR).replace("/?", "?");
    let container = BlobContainerClient::new(Url::parse(&url).unwrap(), None, None).unwrap();
    let options = BlobContainerClientListBlobsOptions {
        include: Some(vec![ListBlobsIncludeItem::Snapshots, ListBlobsIncludeItem::Metadata]),
        maxresults: Some(1),
        ..Default::default()
    };
    let mut listed = Vec::new();
    let mut list = container.list_blobs(Some(options)).unwrap();
    while let Some(item) = list.try_next().await.unwrap() {
        assert_eq!(item.properties.unwrap().blob_type, Some(BlobType::PageBlob));
        listed.push((item.name.unwrap(), item.snapshot));
    }
    assert_eq!(listed, [("disk".to_owned(), Some(snapshot)), ("disk".to_owned(), None)]);

    assert_eq!(status(&blob.delete(None).await.unwrap_err()), StatusCode::Conflict);
    let include = BlobClientDeleteOptions {
        delete_snapshots: Some(DeleteSnapshotsOptionType::Include),
        ..Default::default()
    };
    blob.delete(Some(include)).await.unwrap();
    assert!(!blob.exists().await.unwrap());
}
