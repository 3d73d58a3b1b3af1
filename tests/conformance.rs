//! One suite of calls over two servers: the emulator, on which the other tests stand, and Azurite, which others
//! wrote. What the suite expects is what Azure does; where Azurite differs, [`AZURITE_DIFFERS`] says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod judges;
mod world;

use std::collections::BTreeSet;
use std::sync::Mutex;

use judges::{ACCOUNT, Azurite, FAR_AWAY, Judge, LONG_AGO, account_sas, container_sas};
use reqwest::{Method, Response};
use snapferry::azure::crc64::Crc64;
use snapferry::azure::failure::CallResult;
use snapferry::azure::{Against, Cause, Fence, Metadata, PageBlob, Properties, Role};
use snapferry::range::{ExtentKind, PageRange};
use snapferry_emulator::{Config, Emulator};
use world::noise;

const CONTAINER: &str = "conformance";
const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const B: &str = "bbbbbbbb-0000-4000-8000-000000000002";
/// Base64 of the MD5 of 512 times `a`.
const MD5_OF_AS: &str = "VpBzljOcorCZvRIkX5Nt3A==";

/// A check in which Azurite does not do what Azure does.
struct Difference {
    check: &'static str,
    azurite: &'static str,
    /// Why the check may differ without harm to what the suite proves.
    accepted: &'static str,
    /// Where it is written that Azure does what the check expects.
    source: &'static str,
}

const AZURITE_DIFFERS: &[Difference] = &[];

/// The suite while it runs over one server.
struct Suite {
    account_url: String,
    is_azurite: bool,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    checks: BTreeSet<&'static str>,
    wrong: usize,
}

impl Suite {
    fn new(account_url: String, is_azurite: bool) -> Self {
        Self { account_url, is_azurite, heard: Mutex::default() }
    }

    /// Notes what the server did in `check`, where Azure does `azure`.
    fn check(&self, check: &'static str, azure: &str, server: impl AsRef<str>) {
        let difference =
            AZURITE_DIFFERS.iter().find(|difference| self.is_azurite && difference.check == check);
        let expected = difference.map_or(azure, |difference| difference.azurite);
        let mut heard = self.heard.lock().unwrap();
        assert!(heard.checks.insert(check), "two checks are called '{check}'");
        if server.as_ref() != expected {
            let server = server.as_ref();
            // At once: a later check may need what this one did not get.
            eprintln!("{check}: '{server}' instead of '{expected}'");
            heard.wrong += 1;
        }
        assert!(difference.is_none_or(|_| expected != azure), "the table calls '{check}' a difference");
    }

    /// The URL of a blob with a SAS for `permissions`.
    fn url(&self, blob: &str, permissions: &str) -> String {
        format!("{}/{CONTAINER}/{blob}?{}", self.account_url, container_sas(CONTAINER, permissions, FAR_AWAY))
    }

    fn blob(&self, name: &str) -> PageBlob {
        self.blob_with(&self.url(name, "rcwdl"))
    }

    #[allow(clippy::unused_self)]
    fn blob_with(&self, url: &str) -> PageBlob {
        PageBlob::connect(world::url(Role::Target, url), &world::client()).unwrap()
    }

    /// A call that the client does not have; `own` are further parameters of its query.
    async fn raw(
        &self,
        method: Method,
        blob: &str,
        own: &str,
        headers: Headers<'_>,
        body: Vec<u8>,
    ) -> Response {
        world::raw(method, &format!("{}{own}", self.url(blob, "rcwdl")), headers, body).await
    }

    /// Put Page of `bytes` at the blob's start.
    async fn put(&self, blob: &str, headers: Headers<'_>, bytes: Vec<u8>) -> Response {
        let range = format!("bytes=0-{}", bytes.len().max(512) - 1);
        let mut all = vec![("x-ms-page-write", "update"), ("x-ms-range", &range)];
        all.retain(|(name, _)| headers.iter().all(|(given, _)| given != name));
        all.extend(headers);
        self.raw(Method::PUT, blob, "&comp=page", &all, bytes).await
    }
}

type Headers<'a> = &'a [(&'static str, &'a str)];

/// What became of a call, in a few words.
fn said<T>(result: CallResult<T>) -> String {
    match result.map_err(|error| error.cause) {
        Ok(_) => "done".to_owned(),
        Err(Cause::Service(reply)) => format!("{} {}", reply.status, reply.code),
        Err(Cause::Corrupt(_)) => "corrupt".to_owned(),
        Err(other) => other.to_string(),
    }
}

fn answered(response: &Response) -> String {
    let status = response.status().as_u16();
    match header(response, "x-ms-error-code") {
        "" => status.to_string(),
        code => format!("{status} {code}"),
    }
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn described(properties: &Properties) -> String {
    let Properties { length, blob_type, sequence_number, lease_state, metadata, .. } = properties;
    format!("{length} bytes of {blob_type}, number {sequence_number}, {lease_state}, {metadata:?}")
}

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end).unwrap()
}

fn fence(lease_id: &str, generation: u64) -> Fence {
    Fence { lease_id: lease_id.to_owned(), generation }
}

fn changed(before: &Properties, after: &Properties) -> &'static str {
    if before.etag == after.etag { "same ETag" } else { "other ETag" }
}

async fn put(blob: &PageBlob, start: u64, bytes: &[u8], fence: &Fence) -> String {
    let range = range(start, start + bytes.len() as u64);
    said(blob.put_pages(range, vec![bytes.to_vec().into()], Crc64::of(bytes), fence).await)
}

/// Whether `blob` holds `expected`, and nothing else.
async fn holds(blob: &PageBlob, expected: &[u8]) -> String {
    let length = blob.properties().await.unwrap().length;
    let bytes = blob.read(range(0, length), false).await.unwrap().concat();
    if bytes.len() != expected.len() {
        return format!("{} bytes instead of {}", bytes.len(), expected.len());
    }
    match bytes.iter().zip(expected).position(|(one, other)| one != other) {
        None => "as expected".to_owned(),
        Some(at) => format!("differs at {at}"),
    }
}

/// The ranges of a page list.
async fn listed(blob: &PageBlob, window: PageRange, against: &Against) -> String {
    let mut list = match blob.page_list_once(window, against, None).await {
        Ok(list) => list,
        Err(error) => return said::<()>(Err(error)),
    };
    let mut ranges = Vec::new();
    while let Some(extent) = list.next().await.unwrap() {
        let kind = if extent.kind == ExtentKind::Clear { "clear " } else { "" };
        ranges.push(format!("{kind}{}", extent.range));
    }
    ranges.join(" ")
}

/// A leased blob of `length` bytes, and what is needed to write to it.
async fn leased(suite: &Suite, name: &str, length: u64) -> (PageBlob, Fence) {
    let blob = suite.blob(name);
    blob.create(length, 1, &Metadata::new()).await.unwrap();
    blob.acquire_lease(A, 60).await.unwrap();
    (blob, fence(A, 1))
}

async fn creating(suite: &Suite) {
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
    let nowhere = suite.blob_with(&suite.url("x", "rcwdl").replace(CONTAINER, "nowhere"));
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

async fn writing(suite: &Suite) {
    let (blob, own) = leased(suite, "written", 8192).await;
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
    let (_, _) = leased(suite, "overrun", 8192).await;
    let reply = suite.put("overrun", &with_lease(&[("x-ms-range", "bytes=7680-8703")]), vec![1; 1024]).await;
    suite.check("put over the end", "416 InvalidPageRange", answered(&reply));
    let (_, _) = leased(suite, "large", 8 << 20).await;
    let reply = suite.put("large", &with_lease(&[]), vec![1; (4 << 20) + 512]).await;
    suite.check("put more than 4 MiB", "413 RequestBodyTooLarge", answered(&reply));
}

async fn listing_pages(suite: &Suite) {
    let (blob, own) = leased(suite, "pages", 8192).await;
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
    let past = listed(&blob, range(8192, 9216), &Against::Nothing).await;
    suite.check("page list past the end", "416 InvalidRange", past);
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
    let old = suite.blob_with(&format!("{}&snapshot={time}", suite.url("pages", "r")));
    let then = listed(&old, range(0, 3072), &Against::Nothing).await;
    suite.check("page list of a snapshot", "0..1024 2048..2560", then);
    let difference = listed(&blob, whole, &Against::BlobSnapshot(time.clone())).await;
    suite.check("difference to a snapshot", "clear 0..512 7680..8192", difference);
    let by_url = listed(&blob, whole, &Against::DiskSnapshot(old.resource().clone())).await;
    suite.check("difference by URL", "400 UnsupportedHeaderForNonManagedDisksAccount", by_url);
}

async fn resizing(suite: &Suite) {
    let (blob, own) = leased(suite, "resized", 1024).await;
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
    suite.check("resize to half a page", "400 InvalidHeaderValue", said(blob.resize(1000, A).await));
}

async fn numbering(suite: &Suite) {
    let (blob, _) = leased(suite, "numbered", 4096).await;
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

async fn leasing(suite: &Suite) {
    let blob = suite.blob("leased");
    blob.create(4096, 1, &Metadata::new()).await.unwrap();
    let before = blob.properties().await.unwrap();
    let unleased = put(&blob, 0, &noise(1, 512), &fence(A, 1)).await;
    suite.check("write with an id where there is no lease", "412 LeaseNotPresentWithBlobOperation", unleased);
    suite.check("renew no lease", "409 LeaseIdMismatchWithLeaseOperation", said(blob.renew_lease(A).await));
    suite.check("acquire", "done", said(blob.acquire_lease(A, 15).await));
    suite.check("acquire again", "done", said(blob.acquire_lease(A, 60).await));
    suite.check("acquire as another", "409 LeaseAlreadyPresent", said(blob.acquire_lease(B, 60).await));
    suite.check("renew", "done", said(blob.renew_lease(A).await));
    suite.check("renew as another", "409 LeaseIdMismatchWithLeaseOperation", said(blob.renew_lease(B).await));
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

    suite.check("change", "done", said(blob.change_lease(A, B).await));
    suite.check("change again, after a lost reply", "done", said(blob.change_lease(A, B).await));
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
    blob.acquire_lease(A, 60).await.unwrap();
    suite.check("break", "done", said(blob.break_lease().await));
    suite.check("state when broken", "broken", blob.properties().await.unwrap().lease_state);
    suite.check(
        "renew what was broken",
        "409 LeaseIsBrokenAndCannotBeRenewed",
        said(blob.renew_lease(A).await),
    );
    suite.check("put after the break", "412 LeaseLost", put(&blob, 0, &noise(4, 512), &fence(A, 1)).await);
    suite.check("acquire after the break", "done", said(blob.acquire_lease(B, 60).await));
}

async fn metadata_and_snapshots(suite: &Suite) {
    let (blob, own) = leased(suite, "sealed", 1024).await;
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
    let old = suite.blob_with(&format!("{}&snapshot={time}", suite.url("sealed", "r")));
    suite.check("a snapshot stays as it was", "as expected", holds(&old, &data).await);
    let kept = old.properties().await.unwrap();
    let azure = "1024 bytes, number 1, {\"one\": \"1\", \"two\": \"a b=c;\\\"d\\\"\"}";
    suite.check(
        "properties of a snapshot",
        azure,
        format!("{} bytes, number {}, {:?}", kept.length, kept.sequence_number, kept.metadata),
    );
    let absent =
        suite.blob_with(&format!("{}&snapshot=2020-01-01T00:00:00.0000000Z", suite.url("sealed", "r")));
    suite.check("properties of no snapshot", "404 BlobNotFound", said(absent.properties().await));

    // Azurite names snapshots by the millisecond.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
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
    let one = format!("&snapshot={second_time}");
    let reply = suite.raw(Method::DELETE, "sealed", &one, &[], Vec::new()).await;
    suite.check("delete one snapshot", "202", answered(&reply));
    suite.check("snapshots that are left", "1", blob.snapshots().await.unwrap().len().to_string());
    suite.check("delete with snapshots", "done", said(blob.delete_with_snapshots(Some(A)).await));
    suite.check("properties after deletion", "404 BlobNotFound", said(blob.properties().await));
    suite.check("snapshot after deletion", "404 BlobNotFound", said(old.properties().await));
}

async fn reading(suite: &Suite) {
    let (blob, own) = leased(suite, "read", 5 << 20).await;
    let data = noise(1, 1024);
    put(&blob, 512, &data, &own).await;
    let part = blob.read(range(1024, 2048), false).await.unwrap().concat();
    let same = part == [&data[512..], &[0; 512]].concat();
    suite.check("read a range", "true", same.to_string());
    let read = blob.read_once(range(512, 1536), true).await.unwrap();
    let sum =
        read.sent_crc.map_or("none", |crc| if crc == Crc64::of(&data).value() { "its CRC" } else { "wrong" });
    suite.check("CRC of a range", "its CRC", sum);
    suite.check(
        "read past the end",
        "416 InvalidRange",
        said(blob.read(range(5 << 20, 6 << 20), false).await),
    );
    for (check, azure, headers) in [
        (
            "read over the end",
            "206 bytes 5242368-5242879/5242880",
            &[("x-ms-range", "bytes=5242368-5243391")][..],
        ),
        ("read the whole blob", "200 ", &[]),
        (
            "CRC of more than 4 MiB",
            "400 InvalidHeaderValue ",
            &[("x-ms-range", "bytes=0-4194304"), ("x-ms-range-get-content-crc64", "true")],
        ),
    ] {
        let reply = suite.raw(Method::GET, "read", "", headers, Vec::new()).await;
        suite.check(check, azure, format!("{} {}", answered(&reply), header(&reply, "content-range")));
    }
}

async fn signing(suite: &Suite) {
    let (_, own) = leased(suite, "signed", 512).await;
    let good = suite.url("signed", "r");
    let reader = suite.blob_with(&good);
    suite.check("read with r", "done", said(reader.properties().await));
    let denied = "403 AuthorizationPermissionMismatch";
    suite.check("put with r", denied, put(&reader, 0, &[1; 512], &own).await);
    suite.check("metadata with r", denied, said(reader.set_metadata(&Metadata::new(), A).await));
    suite.check("list with r", denied, said(reader.snapshots().await));
    suite.check(
        "delete with rw",
        denied,
        said(suite.blob_with(&suite.url("signed", "rw")).delete_with_snapshots(Some(A)).await),
    );
    suite.check("read with w", denied, said(suite.blob_with(&suite.url("signed", "w")).properties().await));
    let other_key = suite.blob_with(&good.replace("sig=", "sig=AAAA"));
    suite.check("bad signature", "403 AuthenticationFailed", said(other_key.properties().await));
    let more = suite.blob_with(&good.replace("sp=r", "sp=rw"));
    suite.check("permission added by hand", "403 AuthenticationFailed", said(more.properties().await));
    let expired = good.replace(&container_sas(CONTAINER, "r", FAR_AWAY), &container_sas(CONTAINER, "r", LONG_AGO));
    suite.check("expired", "403 AuthenticationFailed", said(suite.blob_with(&expired).properties().await));
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
        suite.check(check, "done", said(suite.blob_with(&url).properties().await));
    }
}

async fn run(suite: &Suite) {
    let container =
        format!("{}/{CONTAINER}?restype=container&{}", suite.account_url, account_sas("c", FAR_AWAY));
    let made = world::raw(Method::PUT, &container, &[], Vec::new()).await;
    suite.check("create a container", "201", answered(&made));
    creating(suite).await;
    writing(suite).await;
    listing_pages(suite).await;
    resizing(suite).await;
    numbering(suite).await;
    leasing(suite).await;
    metadata_and_snapshots(suite).await;
    reading(suite).await;
    signing(suite).await;
    let heard = suite.heard.lock().unwrap();
    assert!(heard.wrong == 0, "{} of {} checks went wrong, see above", heard.wrong, heard.checks.len());
    for Difference { check, .. } in AZURITE_DIFFERS {
        assert!(heard.checks.contains(check), "the table names no check: {check}");
    }
}

#[tokio::test]
async fn the_emulator_does_what_azure_does() {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    let account = emulator.account(ACCOUNT);
    assert!(account.name() == ACCOUNT);
    run(&Suite::new(format!("{}/{ACCOUNT}", emulator.endpoint()), false)).await;
}

#[tokio::test]
async fn azurite_does_what_azure_does_but_for_the_differences_in_the_table() {
    let promise =
        "that the client speaks the page-blob protocol of a service that this project did not write";
    if !judges::are_here(&[Judge::Azurite], promise) {
        return;
    }
    let azurite = Azurite::start().await;
    run(&Suite::new(azurite.account_url(), true)).await;
}
