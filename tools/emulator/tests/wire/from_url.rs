//! Put Page From URL: from disks and blobs, of this emulator and of another.

use std::slice::from_ref;
use std::time::Duration;

use snapferry_emulator::{Account, BusyText, Call, Config, Emulator, Fault, FaultKind, Knobs, Role};

use crate::client::{Answer, BLOB, CONTAINER, Fixture, HOUR, VERSION, and, put, send};

const MIB: u64 = 1 << 20;

/// Asks `fixture`'s blob to take 1024 bytes from 4096 on of `source` and to write them at 512.
async fn take(fixture: &Fixture, source: &str, headers: &[(&str, &str)]) -> Answer {
    let usual = [
        ("x-ms-page-write", "update"),
        ("x-ms-copy-source", source),
        ("x-ms-source-range", "bytes=4096-5119"),
        ("x-ms-range", "bytes=512-1535"),
    ];
    let is_given = |name: &str| headers.iter().any(|(given, _)| *given == name);
    let mut all: Vec<(&str, &str)> = usual.into_iter().filter(|(name, _)| !is_given(name)).collect();
    all.extend_from_slice(headers);
    put(&and(&fixture.url, "comp=page"), &all).await
}

/// The source's status and code, as a refusal tells them.
fn told(answer: &Answer) -> (&str, &str) {
    let header = |name| answer.header(name).unwrap_or_default();
    (header("x-ms-copy-source-status-code"), header("x-ms-copy-source-error-code"))
}

/// An account with a blob that holds 1024 bytes of `b` from 4096 on, and the blob's URL with a SAS for reading.
async fn source_blob(emulator: &Emulator) -> (Account, String) {
    let account = emulator.account("source");
    account.create_container(CONTAINER);
    let url = account.blob_sas(CONTAINER, "from", "cw", HOUR);
    let create = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "8192")];
    assert_eq!(put(&url, &create).await.status, 201);
    let headers = [("x-ms-page-write", "update"), ("x-ms-range", "bytes=4096-5119")];
    assert_eq!(send("PUT", &and(&url, "comp=page"), &headers, vec![b'b'; 1024]).await.status, 201);
    (account.clone(), account.blob_sas(CONTAINER, "from", "r", HOUR))
}

#[tokio::test]
async fn pages_come_from_a_disk_snapshot() {
    let fixture = Fixture::with_blob(MIB).await;
    let disk = fixture.emulator.create_disk("data", MIB).unwrap();
    disk.write(4096, &[b'b'; 1024]).unwrap();
    let snapshot = disk.snapshot();
    let grant = snapshot.grant();

    let answer = take(&fixture, &grant, &[]).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("content-md5"), Some("u+ZALNybfiA2/JfpqRcmzQ=="));
    assert_eq!(answer.header("x-ms-content-crc64"), None);
    assert_eq!(answer.header("x-ms-blob-sequence-number"), Some("0"));
    assert_eq!(answer.header("x-ms-request-server-encrypted"), Some("true"));
    let view = fixture.account.read_blob(CONTAINER, BLOB, None).unwrap();
    assert_eq!(view.read(0, 2048), [[0; 512].as_slice(), &[b'b'; 1024], &[0; 512]].concat());
    let stats = fixture.emulator.stats();
    assert_eq!((stats.of(Call::PutPageFromUrl).bytes_in, stats.of(Call::GetBlob).bytes_out), (0, 1024));

    fixture.set(Knobs { put_page_from_url_returns_crc64: true, ..Knobs::default() });
    let answer = take(&fixture, &grant, &[]).await;
    assert_eq!(answer.header("x-ms-content-crc64"), Some("pK+ypU+jreM="));
    assert_eq!(answer.header("content-md5"), None);

    fixture.set(Knobs { copy_from_incremental_refused: true, ..Knobs::default() });
    let answer = take(&fixture, &grant, &[]).await;
    assert_eq!(answer.refusal(), (409, "CopySourceCannotBeIncrementalCopyBlob"));

    fixture.set(Knobs { export_needs_bearer: true, ..Knobs::default() });
    let answer = take(&fixture, &grant, &[]).await;
    assert_eq!(answer.refusal(), (401, "CannotVerifyCopySource"));
    assert_eq!(told(&answer), ("401", "NoAuthenticationInformation"));
    let token = ("x-ms-copy-source-authorization", "Bearer token");
    assert_eq!(take(&fixture, &grant, &[token]).await.status, 201);

    snapshot.revoke();
    let answer = take(&fixture, &grant, &[token]).await;
    assert_eq!(answer.refusal(), (403, "CannotVerifyCopySource"));
    assert_eq!(told(&answer), ("403", "AuthenticationFailed"));
}

#[tokio::test]
async fn pages_come_from_another_emulator() {
    let fixture = Fixture::with_blob(MIB).await;
    let other = Emulator::start(Config { seed: 1, tls: true, ..Config::default() }).await.unwrap();
    let disk = other.create_disk("data", MIB).unwrap();
    disk.write(4096, &[7; 1024]).unwrap();
    let grant = disk.snapshot().grant();
    assert!(grant.starts_with("https://"), "{grant}");
    assert_eq!(take(&fixture, &grant, &[]).await.status, 201);
    let view = fixture.account.read_blob(CONTAINER, BLOB, None).unwrap();
    assert_eq!(view.allocated_ranges(), from_ref(&(512..1536)));
    assert_eq!(view.read(512, 1024), [7; 1024]);
    assert_eq!(other.stats().of(Call::GetBlob).requests, 1);

    drop(other);
    assert_eq!(take(&fixture, &grant, &[]).await.refusal(), (500, "CannotVerifyCopySource"));
}

#[tokio::test]
async fn a_bearer_token_opens_a_source() {
    let fixture = Fixture::with_blob(MIB).await;
    let (account, _) = source_blob(&fixture.emulator).await;
    let unsigned = account.blob_url(CONTAINER, "from");
    let answer = take(&fixture, &unsigned, &[]).await;
    assert_eq!(answer.refusal(), (401, "CannotVerifyCopySource"));
    let token = ("x-ms-copy-source-authorization", "Bearer token");
    assert_eq!(take(&fixture, &unsigned, &[token]).await.status, 201);
    fixture.set(Knobs { bearer_without_rights: true, ..Knobs::default() });
    let answer = take(&fixture, &unsigned, &[token]).await;
    assert_eq!(told(&answer), ("403", "AuthorizationPermissionMismatch"));
}

#[tokio::test]
async fn a_source_is_checked() {
    let fixture = Fixture::with_blob(MIB).await;
    let (account, source) = source_blob(&fixture.emulator).await;
    let refused = "CannotVerifyCopySource";
    let missing = account.blob_sas(CONTAINER, "missing", "r", HOUR);
    let answer = take(&fixture, &missing, &[]).await;
    assert_eq!((answer.refusal(), told(&answer)), ((404, refused), ("404", "BlobNotFound")));
    let elements = "<CopySourceStatusCode>404</CopySourceStatusCode><CopySourceErrorCode>BlobNotFound<";
    assert!(answer.text().contains(elements), "{}", answer.text());
    let write_only = account.blob_sas(CONTAINER, "from", "w", HOUR);
    assert_eq!(take(&fixture, &write_only, &[]).await.refusal(), (403, refused));
    for range in ["bytes=7680-8703", "bytes=8192-9215"] {
        let answer = take(&fixture, &source, &[("x-ms-source-range", range)]).await;
        assert_eq!((answer.refusal(), told(&answer)), ((416, refused), ("416", "InvalidRange")), "{range}");
    }

    // Unmet conditions on the source have the status that the source would give, as recorded.
    let etag = account.read_blob(CONTAINER, "from", None).unwrap().etag();
    let conditions = [
        ("x-ms-source-if-match", etag.as_str(), 201),
        ("x-ms-source-if-match", "\"0x1\"", 412),
        ("x-ms-source-if-none-match", etag.as_str(), 304),
        ("x-ms-source-if-none-match", "\"0x1\"", 201),
        ("x-ms-source-if-modified-since", "Fri, 27 Jan 2023 22:27:23 GMT", 201),
        ("x-ms-source-if-unmodified-since", "Fri, 27 Jan 2023 22:27:23 GMT", 412),
    ];
    for (name, value, status) in conditions {
        let answer = take(&fixture, &source, &[(name, value)]).await;
        let code = if status == 201 { "" } else { refused };
        assert_eq!(answer.refusal(), (status, code), "{name}: {value}");
    }

    let check = async |headers: &[(&str, &str)]| {
        let answer = take(&fixture, &source, headers).await;
        (answer.status, answer.header("x-ms-error-code").unwrap_or_default().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let (md5, crc64) = ("x-ms-source-content-md5", "x-ms-source-content-crc64");
    assert_eq!(check(&[(crc64, "pK+ypU+jreM=")]).await, is(201, ""));
    assert_eq!(check(&[(crc64, "AAAAAAAAAAA=")]).await, is(400, "Crc64Mismatch"));
    assert_eq!(check(&[(crc64, "AAAA")]).await, is(400, "InvalidHeaderValue"));
    assert_eq!(check(&[(md5, "u+ZALNybfiA2/JfpqRcmzQ==")]).await, is(201, ""));
    assert_eq!(check(&[(md5, "VuKgR5bAobAsLT53IiLTgg==")]).await, is(400, "Md5Mismatch"));
    let both = [(md5, "VuKgR5bAobAsLT53IiLTgg=="), (crc64, "AAAAAAAAAAA=")];
    assert_eq!(check(&both).await, is(400, "BothCrc64AndMd5HeaderPresent"));
}

#[tokio::test]
async fn trouble_at_the_source_is_told() {
    let fixture = Fixture::with_blob(MIB).await;
    let disk = fixture.emulator.create_disk("data", MIB).unwrap();
    disk.write(4096, &[7; 1024]).unwrap();
    let grant = disk.snapshot().grant();
    let kinds = [
        (FaultKind::ServerBusy(BusyText::Busy), 503, ("503", "ServerBusy")),
        (FaultKind::CutBeforeApply, 500, ("", "")),
        (FaultKind::TruncateBody { keep: 512 }, 500, ("", "")),
    ];
    for (kind, status, source) in kinds {
        let name = format!("{kind:?}");
        fixture.emulator.faults().add(Fault::new(kind).on(Call::GetBlob).at(Role::DiskExport).times(1));
        let answer = take(&fixture, &grant, &[]).await;
        assert_eq!((answer.refusal(), told(&answer)), ((status, "CannotVerifyCopySource"), source), "{name}");
        let view = fixture.account.read_blob(CONTAINER, BLOB, None).unwrap();
        assert!(view.allocated_ranges().is_empty(), "{name}");
    }
    assert_eq!(take(&fixture, &grant, &[]).await.status, 201);
}

#[tokio::test]
async fn a_destination_is_checked_before_its_source_is_read() {
    let fixture = Fixture::with_blob(16 * MIB).await;
    let (_, source) = source_blob(&fixture.emulator).await;
    let check = async |headers: &[(&str, &str)]| {
        let answer = take(&fixture, &source, headers).await;
        (answer.status, answer.header("x-ms-error-code").unwrap_or_default().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let range = "x-ms-range";
    assert_eq!(check(&[(range, "bytes=0-511")]).await, is(416, "InvalidPageRange"));
    assert_eq!(check(&[(range, "bytes=1-1024")]).await, is(416, "InvalidPageRange"));
    assert_eq!(check(&[(range, "bytes=16777216-16778239")]).await, is(416, "InvalidPageRange"));
    let large = [(range, "bytes=0-4194815"), ("x-ms-source-range", "bytes=0-4194815")];
    assert_eq!(check(&large).await, is(413, "RequestBodyTooLarge"));
    assert_eq!(check(&[("x-ms-source-range", "")]).await, is(400, "MissingRequiredHeader"));
    assert_eq!(check(&[("x-ms-source-range", "bytes=0-")]).await, is(400, "InvalidHeaderValue"));
    assert_eq!(check(&[("x-ms-page-write", "clear")]).await, is(400, "InvalidHeaderValue"));
    assert_eq!(check(&[("if-match", "\"0x1\"")]).await, is(412, "ConditionNotMet"));
    let number = ("x-ms-if-sequence-number-lt", "0");
    assert_eq!(check(&[number]).await, is(412, "SequenceNumberConditionNotMet"));
    let acquire = [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "60")];
    let lease =
        put(&and(&fixture.url, "comp=lease"), &acquire).await.header("x-ms-lease-id").unwrap().to_owned();
    assert_eq!(check(&[]).await, is(412, "LeaseIdMissing"));
    assert_eq!(fixture.emulator.stats().of(Call::GetBlob).requests, 0);
    assert_eq!(check(&[("x-ms-lease-id", &lease)]).await, is(201, ""));
    fixture.emulator.advance_clock(Duration::from_mins(1));
    assert_eq!(check(&[("x-ms-lease-id", &lease)]).await, is(412, "LeaseLost"));
}

#[tokio::test]
async fn sources_elsewhere_are_not_read() {
    let fixture = Fixture::with_blob(MIB).await;
    for source in ["https://md-x.z1.blob.storage.azure.net/c/abcd?sig=x", "http://192.0.2.1/a/c/b"] {
        assert_eq!(take(&fixture, source, &[]).await.refusal(), (400, "CannotVerifyCopySource"), "{source}");
    }
    let long = format!("http://127.0.0.1/a/c/{}", "b".repeat(2048));
    for source in ["a/c/b", "file:///a/c/b", &long] {
        assert_eq!(take(&fixture, source, &[]).await.refusal(), (400, "InvalidHeaderValue"), "{source}");
    }
    let body = [
        ("x-ms-page-write", "update"),
        ("x-ms-copy-source", "http://127.0.0.1/a/c/b"),
        ("x-ms-source-range", "bytes=0-511"),
        ("x-ms-range", "bytes=0-511"),
        ("x-ms-version", VERSION),
    ];
    let answer = send("PUT", &and(&fixture.url, "comp=page"), &body, vec![0; 512]).await;
    assert_eq!(answer.refusal(), (400, "InvalidHeaderValue"));
}
