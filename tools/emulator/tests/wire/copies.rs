//! Copy Blob, its conditions, and what it leaves behind.

use std::slice::from_ref;

use snapferry_emulator::{Call, Config, Emulator, Knobs};

use crate::client::{Answer, BLOB, CONTAINER, Fixture, HOUR, and, elements, get, put, send};

const MIB: u64 = 1 << 20;

async fn copy(destination: &str, source: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("x-ms-copy-source", source)];
    all.extend_from_slice(headers);
    put(destination, &all).await
}

#[tokio::test]
async fn a_copy_takes_everything_over() {
    let fixture = Fixture::with_blob(MIB).await;
    fixture.write(4096..8192, 3).await;
    let numbered = [("x-ms-sequence-number-action", "update"), ("x-ms-blob-sequence-number", "7")];
    put(&and(&fixture.url, "comp=properties"), &numbered).await;
    put(&and(&fixture.url, "comp=metadata"), &[("x-ms-meta-state", "sealed")]).await;
    let new = fixture.account.container_sas(CONTAINER, "new", "racwd", HOUR);

    let answer = copy(&new, &fixture.url, &[]).await;
    assert_eq!((answer.status, answer.header("x-ms-copy-status")), (202, Some("success")));
    let id = answer.header("x-ms-copy-id").unwrap();
    let head = send("HEAD", &new, &[], Vec::new()).await;
    assert_eq!(head.etag(), answer.etag());
    let length = MIB.to_string();
    let progress = format!("{MIB}/{MIB}");
    let shown = [
        ("content-length", length.as_str()),
        ("x-ms-blob-type", "PageBlob"),
        ("x-ms-blob-sequence-number", "7"),
        ("x-ms-meta-state", "sealed"),
        ("x-ms-copy-id", id),
        ("x-ms-copy-source", fixture.url.as_str()),
        ("x-ms-copy-status", "success"),
        ("x-ms-copy-progress", progress.as_str()),
    ];
    for (name, value) in shown {
        assert_eq!(head.header(name), Some(value), "{name}");
    }
    assert!(head.header("x-ms-copy-completion-time").is_some());
    assert_eq!(elements(&get(&and(&new, "comp=pagelist"), &[]).await), [('+', 4096..8192)]);
    let list = fixture.account.container_sas(CONTAINER, "", "rl", HOUR).replace("/?", "?");
    let list = get(&and(&list, "restype=container&comp=list&include=copy"), &[]).await;
    assert!(list.text().contains(&format!("<CopyId>{id}</CopyId><CopyStatus>success</CopyStatus>")));

    // Page writes leave the headers of a copy, any other write removes them.
    let page = [("x-ms-page-write", "clear"), ("x-ms-range", "bytes=4096-4607")];
    assert_eq!(put(&and(&new, "comp=page"), &page).await.status, 201);
    assert_eq!(get(&new, &[]).await.header("x-ms-copy-id"), Some(id));
    assert_eq!(put(&and(&new, "comp=metadata"), &[]).await.status, 200);
    assert_eq!(get(&new, &[]).await.header("x-ms-copy-id"), None);
    let source = fixture.account.read_blob(CONTAINER, BLOB, None).unwrap();
    assert_eq!(source.allocated_ranges(), from_ref(&(4096..8192)));
    let own = copy(&new, &fixture.url, &[("x-ms-meta-other", "1")]).await;
    assert_eq!(own.status, 202);
    let metadata = fixture.account.read_blob(CONTAINER, "new", None).unwrap().metadata().clone();
    assert_eq!(metadata.into_iter().collect::<Vec<_>>(), [("other".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn a_snapshot_is_promoted_over_its_base() {
    let fixture = Fixture::with_blob(MIB).await;
    fixture.write(0..512, 1).await;
    let older = fixture.snapshot().await;
    fixture.write(0..1024, 2).await;
    let source = and(&fixture.url, &format!("snapshot={older}"));
    assert_eq!(copy(&fixture.url, &source, &[]).await.status, 202);
    let view = fixture.account.read_blob(CONTAINER, BLOB, None).unwrap();
    assert_eq!(view.read(0, 1), [1]);
    assert_eq!(view.allocated_ranges(), from_ref(&(0..512)));
    assert_eq!(view.snapshots().len(), 1);

    let diff = and(&fixture.url, &format!("comp=pagelist&prevsnapshot={older}"));
    assert_eq!(get(&diff, &[]).await.refusal(), (409, "BlobOverwritten"));
    let newer = fixture.snapshot().await;
    fixture.write(512..1024, 3).await;
    let diff = and(&fixture.url, &format!("comp=pagelist&prevsnapshot={newer}"));
    assert_eq!(elements(&get(&diff, &[]).await), [('+', 512..1024)]);
}

#[tokio::test]
async fn a_copy_from_another_emulator_moves_data_only() {
    let fixture = Fixture::empty().await;
    let other = Emulator::start(Config { seed: 1, ..Config::default() }).await.unwrap();
    let disk = other.create_disk("data", 64 * MIB).unwrap();
    disk.write(MIB, &vec![5; 5 << 20]).unwrap();
    disk.write(40 * MIB, &[6; 512]).unwrap();
    let snapshot = disk.snapshot();
    other.set_knobs(Knobs { default_maxresults: Some(1), ..Knobs::default() });

    let answer = copy(&fixture.url, &snapshot.grant(), &[]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let view = fixture.account.read_blob(CONTAINER, BLOB, None).unwrap();
    let footer = 64 * MIB..64 * MIB + 512;
    assert_eq!(view.allocated_ranges(), [MIB..6 * MIB, 40 * MIB..40 * MIB + 512, footer]);
    assert_eq!(view.read(0, u64::MAX), snapshot.read(0, u64::MAX));
    assert_eq!(view.sequence_number(), 2);
    assert_eq!(other.stats().of(Call::GetBlob).bytes_out, (5 << 20) + 1024);

    fixture.set(Knobs { copy_from_incremental_refused: true, ..Knobs::default() });
    let refused = (409, "CopySourceCannotBeIncrementalCopyBlob");
    assert_eq!(copy(&fixture.url, &snapshot.grant(), &[]).await.refusal(), refused);
    let own = fixture.emulator.create_disk("data", MIB).unwrap().snapshot();
    assert_eq!(copy(&fixture.url, &own.grant(), &[]).await.refusal(), refused);
    fixture.set(Knobs::default());
    assert_eq!(copy(&fixture.url, &own.grant(), &[]).await.status, 202);

    let grant = snapshot.grant();
    snapshot.revoke();
    assert_eq!(copy(&fixture.url, &grant, &[]).await.refusal(), (403, "CannotVerifyCopySource"));
}

#[tokio::test]
async fn a_source_in_the_same_account_needs_no_signature() {
    let fixture = Fixture::with_blob(MIB).await;
    let unsigned = fixture.account.blob_url(CONTAINER, BLOB);
    let new = fixture.account.blob_url(CONTAINER, "new");
    let token = ("authorization", "Bearer token");
    assert_eq!(copy(&new, &unsigned, &[token]).await.status, 202);
    let with_sas = fixture.account.container_sas(CONTAINER, "new", "racwd", HOUR);
    assert_eq!(copy(&with_sas, &unsigned, &[]).await.refusal(), (401, "CannotVerifyCopySource"));
    let localhost = unsigned.replace("127.0.0.1", "localhost");
    assert_eq!(copy(&new, &localhost, &[token]).await.status, 202);
    let missing = fixture.account.blob_url(CONTAINER, "missing");
    assert_eq!(copy(&new, &missing, &[token]).await.refusal(), (404, "CannotVerifyCopySource"));
}

#[tokio::test]
async fn conditions_and_leases_of_a_copy() {
    let fixture = Fixture::with_blob(MIB).await;
    let new = fixture.account.container_sas(CONTAINER, "new", "racwd", HOUR);
    let check = async |headers: &[(&str, &str)]| {
        let answer = copy(&new, &fixture.url, headers).await;
        (answer.status, answer.header("x-ms-error-code").unwrap_or_default().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(check(&[("x-ms-source-if-match", "\"0x1\"")]).await, is(412, "SourceConditionNotMet"));
    assert_eq!(check(&[("if-match", "*")]).await, is(412, "TargetConditionNotMet"));
    assert_eq!(check(&[("if-none-match", "*")]).await, is(202, ""));
    assert_eq!(check(&[("if-none-match", "*")]).await, is(409, "BlobAlreadyExists"));
    assert_eq!(check(&[("x-ms-requires-sync", "true")]).await, is(409, "InvalidBlobType"));
    let create_only = fixture.account.blob_sas(CONTAINER, "new", "c", HOUR);
    let answer = copy(&create_only, &fixture.url, &[]).await;
    assert_eq!(answer.refusal(), (403, "AuthorizationPermissionMismatch"));

    let lease = and(&new, "comp=lease");
    let acquire = async |duration: &str| {
        let headers = [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", duration)];
        put(&lease, &headers).await.header("x-ms-lease-id").unwrap().to_owned()
    };
    let id = acquire("60").await;
    assert_eq!(check(&[]).await, is(412, "LeaseIdMissing"));
    assert_eq!(check(&[("x-ms-lease-id", &id)]).await, is(412, "InfiniteLeaseDurationRequired"));
    put(&lease, &[("x-ms-lease-action", "release"), ("x-ms-lease-id", &id)]).await;
    let id = acquire("-1").await;
    assert_eq!(check(&[("x-ms-lease-id", &id)]).await, is(202, ""));
}

#[tokio::test]
async fn what_copies_do_not_do() {
    let fixture = Fixture::with_blob(MIB).await;
    let block = fixture.account.container_sas(CONTAINER, "block", "racwd", HOUR);
    assert_eq!(put(&block, &[("x-ms-blob-type", "BlockBlob")]).await.status, 201);
    assert_eq!(copy(&block, &fixture.url, &[]).await.refusal(), (409, "InvalidBlobType"));

    let abort = and(&fixture.url, "comp=copy&copyid=0000000a-0000-0000-0000-00000000000a");
    let action = ("x-ms-copy-action", "abort");
    assert_eq!(put(&abort, &[action]).await.refusal(), (409, "NoPendingCopyOperation"));
    assert_eq!(put(&abort, &[]).await.refusal(), (400, "MissingRequiredHeader"));
    let nameless = and(&fixture.url, "comp=copy");
    assert_eq!(put(&nameless, &[action]).await.refusal(), (400, "InvalidQueryParameterValue"));

    let incremental = and(&fixture.url, "comp=incrementalcopy");
    let grant = fixture.emulator.create_disk("data", MIB).unwrap().snapshot().grant();
    for source in [grant.as_str(), "https://md-x.z1.blob.storage.azure.net/c/abcd?snapshot=x"] {
        assert_eq!(copy(&incremental, source, &[]).await.refusal(), (400, "InvalidHeaderValue"), "{source}");
    }
    assert_eq!(copy(&incremental, &fixture.url, &[]).await.refusal(), (501, "NotImplemented"));
}
