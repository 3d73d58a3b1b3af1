//! Calls that control: leases, metadata, snapshots, deletion, and who may call at all.

use std::time::Duration;

use reqwest::Method;
use snapferry::azure::Metadata;
use snapferry_emulator::{Config, Emulator};

use crate::judges::{ACCOUNT, FAR_AWAY, LONG_AGO, container_sas};
use crate::suite::{
    A, B, CONTAINER, NEVER, Suite, answered, changed, connect, fence, holds, metadata, put, range, said,
};
use crate::world::{self, noise};

pub async fn leasing(suite: &Suite) {
    let blob = suite.blob("leased");
    blob.create(4096, 1, &Metadata::new()).await.unwrap();
    let before = blob.properties().await.unwrap();
    let unleased = put(&blob, 0, &noise(1, 512), &fence(A, 1)).await;
    suite.check("write with an id where there is no lease", "412 LeaseNotPresentWithBlobOperation", unleased);
    suite.check(
        "renew no lease",
        "409 LeaseIdMismatchWithLeaseOperation",
        said(blob.renew_lease_once(A).await),
    );
    suite.check("acquire", "done", said(blob.acquire_lease(Some(A), 15).await));
    suite.check("acquire again", "done", said(blob.acquire_lease(Some(A), 60).await));
    suite.check("acquire as another", "409 LeaseAlreadyPresent", said(blob.acquire_lease(Some(B), 60).await));
    suite.check("renew", "done", said(blob.renew_lease_once(A).await));
    suite.check(
        "renew as another",
        "409 LeaseIdMismatchWithLeaseOperation",
        said(blob.renew_lease_once(B).await),
    );
    let after = blob.properties().await.unwrap();
    suite.check("lease calls and the ETag", "same ETag", changed(&before, &after));
    suite.check("state when leased", "leased", after.lease_state);

    suite.check("put by the holder", "done", put(&blob, 0, &noise(1, 512), &fence(A, 1)).await);
    let stranger = "412 LeaseIdMismatchWithBlobOperation";
    suite.check("put by another", stranger, put(&blob, 0, &noise(2, 512), &fence(B, 1)).await);
    let cleared = blob.clear_pages(range(0, 512), &fence(B, 1)).await;
    suite.check("clear by another", stranger, said(cleared));
    suite.check("metadata by another", stranger, said(blob.set_metadata(&Metadata::new(), B).await));
    suite.check("resize by another", stranger, said(blob.resize(512, B).await));
    suite.check("number by another", stranger, said(blob.raise_sequence_number(9, B).await));
    let etag = blob.properties().await.unwrap().etag;
    suite.check("snapshot by another", stranger, said(blob.snapshot(&Metadata::new(), B, &etag).await));
    suite.check("delete by another", stranger, said(blob.delete_with_snapshots(Some(B)).await));
    suite.check("delete without an id", "412 LeaseIdMissing", said(blob.delete_with_snapshots(None).await));
    for (check, azure, own, headers) in [
        ("put without an id", "412 LeaseIdMissing", "&comp=page", &[("x-ms-page-write", "update")][..]),
        ("clear without an id", "412 LeaseIdMissing", "&comp=page", &[("x-ms-page-write", "clear")]),
        ("metadata without an id", "412 LeaseIdMissing", "&comp=metadata", &[]),
        (
            "resize without an id",
            "412 LeaseIdMissing",
            "&comp=properties",
            &[("x-ms-blob-content-length", "512")],
        ),
        ("snapshot without an id", "201", "&comp=snapshot", &[]),
    ] {
        let body = if check.starts_with("put") { vec![1; 512] } else { Vec::new() };
        let headers = [headers, &[("x-ms-range", "bytes=0-511")]].concat();
        let reply = suite.raw(Method::PUT, "leased", own, &headers, body).await;
        suite.check(check, azure, answered(&reply));
    }
    let left = [noise(1, 512), vec![0; 3584]].concat();
    suite.check("what others wrote", "as expected", holds(&blob, &left).await);

    suite.check("change", "done", said(blob.change_lease_once(A, B).await));
    suite.check("change again, after a lost reply", "done", said(blob.change_lease_once(A, B).await));
    suite.check("put by the holder of before", stranger, put(&blob, 0, &noise(2, 512), &fence(A, 1)).await);
    suite.check("put by the holder of now", "done", put(&blob, 0, &noise(3, 512), &fence(B, 1)).await);
    suite.check(
        "release as another",
        "409 LeaseIdMismatchWithLeaseOperation",
        said(blob.release_lease(A).await),
    );
    suite.check("release", "done", said(blob.release_lease(B).await));
    suite.check("state when released", "available", blob.properties().await.unwrap().lease_state);
    suite.check("break no lease", "409 LeaseNotPresentWithLeaseOperation", said(blob.break_lease().await));
    blob.acquire_lease(Some(A), 60).await.unwrap();
    suite.check("break", "done", said(blob.break_lease().await));
    suite.check("state when broken", "broken", blob.properties().await.unwrap().lease_state);
    suite.check(
        "renew what was broken",
        "409 LeaseIsBrokenAndCannotBeRenewed",
        said(blob.renew_lease_once(A).await),
    );
    let late = blob.clear_pages(range(0, 512), &fence(A, 1)).await;
    suite.check("write after the break is fenced", "true", late.unwrap_err().is_fenced().to_string());
    suite.check("acquire after the break", "done", said(blob.acquire_lease(Some(B), 60).await));
}

pub async fn metadata_and_snapshots(suite: &Suite) {
    let (blob, own) = suite.leased("sealed", 1024).await;
    let (first, second) = (metadata(&[("one", "1"), ("two", "a b=c;\"d\"")]), metadata(&[("three", "3")]));
    let etag = blob.set_metadata(&first, A).await.unwrap();
    let shown = blob.properties().await.unwrap();
    suite.check(
        "metadata",
        "{\"one\": \"1\", \"two\": \"a b=c;\\\"d\\\"\"}",
        format!("{:?}", shown.metadata),
    );
    suite.check("ETag of a metadata call", &shown.etag, etag);
    let etag = blob.set_metadata(&second, A).await.unwrap();
    let shown = blob.properties().await.unwrap();
    suite.check("metadata is replaced as a whole", "{\"three\": \"3\"}", format!("{:?}", shown.metadata));

    let data = noise(1, 1024);
    put(&blob, 0, &data, &own).await;
    suite.check(
        "snapshot of what was written to",
        "412 ConditionNotMet",
        said(blob.snapshot(&first, A, &etag).await),
    );
    let etag = blob.properties().await.unwrap().etag;
    let time = blob.snapshot(&first, A, &etag).await.unwrap();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    suite.check("time of a snapshot", "0000-00-00T00:00:00.0000000Z", shape);
    suite.check(
        "metadata of the base",
        "{\"three\": \"3\"}",
        format!("{:?}", blob.properties().await.unwrap().metadata),
    );
    put(&blob, 512, &noise(2, 512), &own).await;
    blob.resize(512, A).await.unwrap();
    let old = suite.snapshot("sealed", &time);
    suite.check("a snapshot stays as it was", "as expected", holds(&old, &data).await);
    let by_container = connect(&format!("{}&snapshot={time}", suite.url("sealed", "r")));
    suite.check("snapshot by a SAS of its container", "done", said(by_container.properties().await));
    let kept = old.properties().await.unwrap();
    let azure = "1024 bytes, number 1, {\"one\": \"1\", \"two\": \"a b=c;\\\"d\\\"\"}";
    suite.check(
        "properties of a snapshot",
        azure,
        format!("{} bytes, number {}, {:?}", kept.length, kept.sequence_number, kept.metadata),
    );
    let absent = suite.snapshot("sealed", NEVER);
    suite.check("properties of no snapshot", "404 BlobNotFound", said(absent.properties().await));

    // Azurite names snapshots by the millisecond.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let etag = blob.properties().await.unwrap().etag;
    let second_time = blob.snapshot(&Metadata::new(), A, &etag).await.unwrap();
    suite.blob("sealed-not").create(512, 0, &Metadata::new()).await.unwrap();
    let listed = blob.snapshots().await.unwrap();
    let azure = [
        format!("{time} 1024 {{\"one\": \"1\", \"two\": \"a b=c;\\\"d\\\"\"}}"),
        format!("{second_time} 512 {{\"three\": \"3\"}}"),
    ];
    let shown: Vec<String> =
        listed.iter().map(|one| format!("{} {} {:?}", one.time, one.length, one.metadata)).collect();
    suite.check("list of snapshots, oldest first", &azure.join(", "), shown.join(", "));

    let reply = suite.raw(Method::DELETE, "sealed", "", &[("x-ms-lease-id", A)], Vec::new()).await;
    suite.check("delete a blob that has snapshots", "409 SnapshotsPresent", answered(&reply));
    let one = format!("{}&snapshot={second_time}", suite.account_url("sealed"));
    let reply = world::raw(Method::DELETE, &one, &[], Vec::new()).await;
    suite.check("delete one snapshot", "202", answered(&reply));
    suite.check("snapshots that are left", "1", blob.snapshots().await.unwrap().len().to_string());
    suite.check("delete with snapshots", "done", said(blob.delete_with_snapshots(Some(A)).await));
    suite.check("properties after deletion", "404 BlobNotFound", said(blob.properties().await));
    suite.check("snapshot after deletion", "404 BlobNotFound", said(old.properties().await));
}

pub async fn signing(suite: &Suite) {
    let (_, own) = suite.leased("signed", 512).await;
    let good = suite.url("signed", "r");
    let reader = connect(&good);
    suite.check("read with r", "done", said(reader.properties().await));
    let denied = "403 AuthorizationPermissionMismatch";
    suite.check("put with r", denied, put(&reader, 0, &[1; 512], &own).await);
    suite.check("metadata with r", denied, said(reader.set_metadata(&Metadata::new(), A).await));
    suite.check("list with r", denied, said(reader.snapshots().await));
    suite.check(
        "delete with rw",
        denied,
        said(connect(&suite.url("signed", "rw")).delete_with_snapshots(Some(A)).await),
    );
    suite.check("read with w", denied, said(connect(&suite.url("signed", "w")).properties().await));
    let other_key = connect(&good.replace("sig=", "sig=AAAA"));
    suite.check("bad signature", "403 AuthenticationFailed", said(other_key.properties().await));
    let more = connect(&good.replace("sp=r", "sp=rw"));
    suite.check("permission added by hand", "403 AuthenticationFailed", said(more.properties().await));
    let expired =
        good.replace(&container_sas(CONTAINER, "r", FAR_AWAY), &container_sas(CONTAINER, "r", LONG_AGO));
    suite.check("expired", "403 AuthenticationFailed", said(connect(&expired).properties().await));
    let unsigned = good.split_once('?').unwrap().0;
    let reply = world::raw(Method::HEAD, unsigned, &[], Vec::new()).await;
    suite.check("no signature", "401 NoAuthenticationInformation", answered(&reply));
    // The SAS that the emulator makes, for a container and for a blob, are good elsewhere, too.
    let signer = Emulator::start(Config::default()).await.unwrap().account(ACCOUNT);
    for (check, url) in [
        ("SAS of a container", signer.container_sas(CONTAINER, "signed", "r", world::HOUR)),
        ("SAS of a blob", signer.blob_sas(CONTAINER, "signed", "r", world::HOUR)),
    ] {
        let url = format!("{unsigned}?{}", url.split_once('?').unwrap().1);
        suite.check(check, "done", said(connect(&url).properties().await));
    }
}
