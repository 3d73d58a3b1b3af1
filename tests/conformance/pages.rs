//! Calls on pages: create, write, list, resize, number, read.

use reqwest::Method;
use snapferry::azure::crc64::Crc64;
use snapferry::azure::{Against, Metadata};

use crate::suite::{
    A, CONTAINER, Headers, NEVER, Suite, answered, changed, connect, described, fence, header, holds, listed,
    metadata, put, range, said,
};
use crate::world::{self, noise};

/// Base64 of the MD5 of 512 times `a`.
const MD5_OF_AS: &str = "VpBzljOcorCZvRIkX5Nt3A==";

pub async fn creating(suite: &Suite) {
    let blob = suite.blob("created");
    let made = blob.create(4096, 7, &metadata(&[("one", "1")])).await;
    suite.check("create", "done", said(made));
    let shown = described(&blob.properties().await.unwrap());
    suite.check("properties", "4096 bytes of PageBlob, number 7, available, {\"one\": \"1\"}", shown);
    suite.check(
        "create what exists",
        "409 BlobAlreadyExists",
        said(blob.create(512, 0, &Metadata::new()).await),
    );
    let still = described(&blob.properties().await.unwrap());
    suite.check("refused create", "4096 bytes of PageBlob, number 7, available, {\"one\": \"1\"}", still);
    let nowhere = connect(&suite.account_url("x").replace(CONTAINER, "nowhere"));
    suite.check(
        "create in no container",
        "404 ContainerNotFound",
        said(nowhere.create(512, 0, &Metadata::new()).await),
    );
    let odd = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "1000")];
    let reply = suite.raw(Method::PUT, "odd", "", &odd, Vec::new()).await;
    suite.check("create half a page", "400 InvalidHeaderValue", answered(&reply));
    suite.check("properties of no blob", "404 BlobNotFound", said(suite.blob("absent").properties().await));
}

pub async fn writing(suite: &Suite) {
    let (blob, own) = suite.leased("written", 8192).await;
    let mut model = vec![0; 8192];
    let before = blob.properties().await.unwrap();
    let data = noise(1, 1536);
    model[512..2048].copy_from_slice(&data);
    suite.check("put", "done", put(&blob, 512, &data, &own).await);
    suite.check("put changes the ETag", "other ETag", changed(&before, &blob.properties().await.unwrap()));
    model[1024..1536].fill(0);
    suite.check("clear", "done", said(blob.clear_pages(range(1024, 1536), &own).await));
    suite.check("clear what holds nothing", "done", said(blob.clear_pages(range(4096, 8192), &own).await));
    let wrong = blob.put_pages(range(0, 512), vec![noise(2, 512).into()], Crc64::of(b"other"), &own).await;
    suite.check("client with a wrong CRC", "corrupt", said(wrong));

    let with_lease = |more: Headers<'static>| [&[("x-ms-lease-id", A)], more].concat();
    let letters = vec![b'a'; 512];
    let crc = Crc64::of(&letters).to_header();
    for (check, azure, headers, body) in [
        ("wrong CRC", "400 Crc64Mismatch", &[("x-ms-content-crc64", "AAAAAAAAAAA=")][..], letters.clone()),
        ("short CRC", "400 InvalidHeaderValue", &[("x-ms-content-crc64", "AAAA")], letters.clone()),
        ("wrong MD5", "400 Md5Mismatch", &[("content-md5", MD5_OF_AS)], vec![b'b'; 512]),
        (
            "CRC and MD5",
            "400 BothCrc64AndMd5HeaderPresent",
            &[("x-ms-content-crc64", "AAAAAAAAAAA="), ("content-md5", MD5_OF_AS)],
            letters.clone(),
        ),
        ("put past the end", "416 InvalidPageRange", &[("x-ms-range", "bytes=8192-8703")], letters.clone()),
        ("put half a page", "416 InvalidPageRange", &[("x-ms-range", "bytes=0-255")], vec![1; 256]),
        ("put off a page", "416 InvalidPageRange", &[("x-ms-range", "bytes=1-512")], letters.clone()),
        (
            "put less than its range",
            "416 InvalidPageRange",
            &[("x-ms-range", "bytes=0-1023")],
            letters.clone(),
        ),
    ] {
        let reply = suite.put("written", &with_lease(headers), body).await;
        suite.check(check, azure, answered(&reply));
    }
    suite.check("what was refused left no trace", "as expected", holds(&blob, &model).await);

    let reply = suite.put("written", &with_lease(&[]), letters.clone()).await;
    let ours = if header(&reply, "x-ms-content-crc64") == crc { "its CRC" } else { "another" };
    suite.check("checksum in the reply", "its CRC", ours);
    suite.check("number in the reply", "1", header(&reply, "x-ms-blob-sequence-number"));
    let reply = suite.put("written", &with_lease(&[("content-md5", MD5_OF_AS)]), letters).await;
    let sums = (header(&reply, "content-md5") == MD5_OF_AS, header(&reply, "x-ms-content-crc64") == crc);
    suite.check("(MD5, CRC) in the reply to an MD5", "(true, false)", format!("{sums:?}"));

    // What a server lets through here would break the blob for the checks above.
    let _ = suite.leased("overrun", 8192).await;
    let reply = suite.put("overrun", &with_lease(&[("x-ms-range", "bytes=7680-8703")]), vec![1; 1024]).await;
    suite.check("put over the end", "416 InvalidPageRange", answered(&reply));
    let _ = suite.leased("large", 8 << 20).await;
    let reply = suite.put("large", &with_lease(&[]), vec![1; (4 << 20) + 512]).await;
    suite.check("put more than 4 MiB", "413 RequestBodyTooLarge", answered(&reply));
}

pub async fn listing_pages(suite: &Suite) {
    let (blob, own) = suite.leased("pages", 8192).await;
    for start in [0, 2048, 3072] {
        put(&blob, start, &noise(start, 1024), &own).await;
    }
    blob.clear_pages(range(2560, 3072), &own).await.unwrap();
    let whole = range(0, 8192);
    suite.check("page list", "0..1024 2048..2560 3072..4096", listed(&blob, whole, &Against::Nothing).await);
    let part = listed(&blob, range(512, 2560), &Against::Nothing).await;
    suite.check("page list of a range", "512..1024 2048..2560", part);
    let empty = listed(&blob, range(4096, 8192), &Against::Nothing).await;
    suite.check("page list of a range without pages", "", empty);
    let beyond = listed(&blob, range(8192, 9216), &Against::Nothing).await;
    suite.check("page list past the end", "416 InvalidRange", beyond);
    put(&blob, 4096, &noise(4, 512), &own).await;
    let joined = listed(&blob, whole, &Against::Nothing).await;
    suite.check("neighbours in a page list", "0..1024 2048..2560 3072..4608", joined);
    let reply = suite.raw(Method::GET, "pages", "&comp=pagelist&maxresults=1", &[], Vec::new()).await;
    let text = reply.text().await.unwrap();
    let found =
        format!("{}, marker: {}", text.matches("<PageRange>").count(), text.contains("<NextMarker>2!"));
    suite.check("page list of one element", "1, marker: true", found);

    let etag = blob.properties().await.unwrap().etag;
    let time = blob.snapshot(&Metadata::new(), A, &etag).await.unwrap();
    put(&blob, 7680, &noise(5, 512), &own).await;
    blob.clear_pages(range(0, 512), &own).await.unwrap();
    let old = suite.snapshot("pages", &time);
    let then = listed(&old, range(0, 3072), &Against::Nothing).await;
    suite.check("page list of a snapshot", "0..1024 2048..2560", then);
    let difference = listed(&blob, whole, &Against::BlobSnapshot(time.clone())).await;
    suite.check("difference to a snapshot", "clear 0..512 7680..8192", difference);
    let absent = listed(&blob, whole, &Against::BlobSnapshot(NEVER.to_owned())).await;
    suite.check("difference to no snapshot", "409 PreviousSnapshotNotFound", absent);
    let by_url = listed(&blob, whole, &Against::DiskSnapshot(old.resource().clone())).await;
    suite.check("difference by URL", "400 UnsupportedHeaderForNonManagedDisksAccount", by_url);
}

pub async fn resizing(suite: &Suite) {
    let (blob, own) = suite.leased("resized", 1024).await;
    let mut model = noise(1, 1024);
    put(&blob, 0, &model, &own).await;
    suite.check("grow", "done", said(blob.resize(4096, A).await));
    model.resize(4096, 0);
    suite.check("grown", "as expected", holds(&blob, &model).await);
    put(&blob, 3584, &noise(2, 512), &own).await;
    suite.check("shrink", "done", said(blob.resize(512, A).await));
    model.truncate(512);
    suite.check("shrunk", "as expected", holds(&blob, &model).await);
    blob.resize(4096, A).await.unwrap();
    model.resize(4096, 0);
    suite.check("what was cut off stays away", "as expected", holds(&blob, &model).await);
    let longer = [("x-ms-lease-id", A), ("x-ms-blob-content-length", "8192")];
    let url = format!("{}&comp=properties", suite.account_url("resized"));
    let reply = world::raw(Method::PUT, &url, &longer, Vec::new()).await;
    suite.check("resize by a SAS of the account", "200", answered(&reply));
    suite.check("resize to half a page", "400 InvalidHeaderValue", said(blob.resize(1000, A).await));
}

pub async fn numbering(suite: &Suite) {
    let (blob, _) = suite.leased("numbered", 4096).await;
    let raised = |number| async move { suite.blob("numbered").raise_sequence_number(number, A).await };
    suite.check("raise the number", "5", raised(5).await.unwrap().to_string());
    suite.check("a number is never lowered", "5", raised(3).await.unwrap().to_string());
    suite.check("put with the number", "done", put(&blob, 0, &noise(1, 512), &fence(A, 5)).await);
    for (check, number) in [("put with an older number", 4), ("put with a later number", 6)] {
        suite.check(
            check,
            "412 SequenceNumberConditionNotMet",
            put(&blob, 0, &noise(2, 512), &fence(A, number)).await,
        );
    }
    let old = blob.clear_pages(range(0, 512), &fence(A, 4)).await;
    suite.check("clear with an older number", "412 SequenceNumberConditionNotMet", said(old));
    for (check, azure, condition) in [
        ("number <= 5", "201", ("x-ms-if-sequence-number-le", "5")),
        ("number <= 4", "412 SequenceNumberConditionNotMet", ("x-ms-if-sequence-number-le", "4")),
        ("number < 6", "201", ("x-ms-if-sequence-number-lt", "6")),
        ("number < 5", "412 SequenceNumberConditionNotMet", ("x-ms-if-sequence-number-lt", "5")),
        ("number = 0", "412 SequenceNumberConditionNotMet", ("x-ms-if-sequence-number-eq", "0")),
    ] {
        let reply = suite.put("numbered", &[("x-ms-lease-id", A), condition], noise(1, 512)).await;
        suite.check(check, azure, answered(&reply));
    }
    let left = [noise(1, 512), vec![0; 3584]].concat();
    suite.check("what an old number wrote", "as expected", holds(&blob, &left).await);
    let increment = [("x-ms-lease-id", A), ("x-ms-sequence-number-action", "increment")];
    let reply = suite.raw(Method::PUT, "numbered", "&comp=properties", &increment, Vec::new()).await;
    suite.check("increment the number", "6", header(&reply, "x-ms-blob-sequence-number"));
}

pub async fn reading(suite: &Suite) {
    let (blob, own) = suite.leased("read", 5 << 20).await;
    let data = noise(1, 1024);
    put(&blob, 512, &data, &own).await;
    let part = blob.read(range(1024, 2048)).await.unwrap().concat();
    let same = part == [&data[512..], &[0; 512]].concat();
    suite.check("read a range", "true", same.to_string());
    let read = blob.read_once(range(512, 1536), true).await.unwrap();
    let sum =
        read.sent_crc.map_or("none", |crc| if crc == Crc64::of(&data).value() { "its CRC" } else { "wrong" });
    suite.check("CRC of a range", "its CRC", sum);
    for (check, azure, headers) in [
        ("read past the end", "416 InvalidRange", &[("x-ms-range", "bytes=5243392-5243903")][..]),
        ("read at the end", "416 InvalidRange", &[("x-ms-range", "bytes=5242880-5243391")]),
        (
            "read over the end",
            "206 bytes 5242368-5242879/5242880",
            &[("x-ms-range", "bytes=5242368-5243391")],
        ),
        ("read the whole blob", "200", &[]),
        (
            "CRC of more than 4 MiB",
            "400 InvalidHeaderValue",
            &[("x-ms-range", "bytes=0-4194304"), ("x-ms-range-get-content-crc64", "true")],
        ),
    ] {
        let reply = suite.raw(Method::GET, "read", "", headers, Vec::new()).await;
        let range = header(&reply, "content-range");
        // An error names only the length there.
        let range = if reply.status().is_success() { range } else { "" };
        suite.check(check, azure, format!("{} {range}", answered(&reply)).trim_end());
    }
}
