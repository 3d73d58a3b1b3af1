//! Signatures on an ordinary account.

use std::time::Duration;

use crate::client::{BLOB, CONTAINER, Fixture, HOUR, and, get, put};

#[tokio::test]
async fn three_kinds_of_sas_open_a_blob() {
    let fixture = Fixture::with_blob(4096).await;
    let account = &fixture.account;
    for url in [
        account.blob_sas(CONTAINER, BLOB, "r", HOUR),
        account.container_sas(CONTAINER, BLOB, "r", HOUR),
        account.account_sas(CONTAINER, BLOB, "r", HOUR),
    ] {
        assert_eq!(get(&url, &[]).await.status, 200, "{url}");
        let answer = put(&and(&url, "comp=snapshot"), &[]).await;
        assert_eq!(answer.refusal(), (403, "AuthorizationPermissionMismatch"));
    }
}

#[tokio::test]
async fn permissions_are_those_of_the_call() {
    let fixture = Fixture::with_blob(4096).await;
    let url = |permissions: &str| fixture.account.blob_sas(CONTAINER, BLOB, permissions, HOUR);
    let create = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "4096")];
    assert_eq!(put(&url("c"), &create).await.refusal(), (403, "AuthorizationPermissionMismatch"));
    assert_eq!(put(&url("w"), &create).await.status, 201);
    let new_blob = fixture.account.blob_sas(CONTAINER, "new", "c", HOUR);
    assert_eq!(put(&new_blob, &create).await.status, 201);
    let snapshot = |permissions: &str| and(&url(permissions), "comp=snapshot");
    for (permissions, status) in [("c", 201), ("w", 201), ("r", 403), ("d", 403)] {
        assert_eq!(put(&snapshot(permissions), &[]).await.status, status, "{permissions}");
    }
    let increment = [("x-ms-sequence-number-action", "increment")];
    for (permissions, status) in [("w", 200), ("c", 403)] {
        let answer = put(&and(&url(permissions), "comp=properties"), &increment).await;
        assert_eq!(answer.status, status, "{permissions}");
    }
    for (permissions, status) in [("r", 200), ("w", 403)] {
        assert_eq!(get(&and(&url(permissions), "comp=pagelist"), &[]).await.status, status, "{permissions}");
    }
}

#[tokio::test]
async fn a_wrong_signature_is_explained() {
    let fixture = Fixture::with_blob(4096).await;
    let url = fixture.account.blob_sas(CONTAINER, BLOB, "r", HOUR);
    let answer = get(&url.replace("sp=r", "sp=rw"), &[]).await;
    assert_eq!(answer.refusal(), (403, "AuthenticationFailed"));
    let detail = "<AuthenticationErrorDetail>Signature did not match. String to sign used was rw\n";
    assert!(answer.text().contains(detail), "{}", answer.text());

    let elsewhere = url.replace("/disk?", "/other?");
    assert_eq!(get(&elsewhere, &[]).await.refusal(), (403, "AuthenticationFailed"));
    let unsigned = url.split_once('?').unwrap().0;
    let answer = get(unsigned, &[]).await;
    assert_eq!(answer.refusal(), (401, "NoAuthenticationInformation"));
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer authorization_uri="));
    let unknown = url.replace("/target/", "/nobody/");
    assert_eq!(get(&unknown, &[]).await.refusal(), (404, "ResourceNotFound"));
}

#[tokio::test]
async fn a_sas_ends() {
    let fixture = Fixture::with_blob(4096).await;
    let service_sas = fixture.account.blob_sas(CONTAINER, BLOB, "r", HOUR);
    let account_sas = fixture.account.account_sas(CONTAINER, BLOB, "r", HOUR);
    assert_eq!(get(&service_sas, &[]).await.status, 200);
    assert_eq!(get(&account_sas, &[]).await.status, 200);
    fixture.emulator.advance_clock(HOUR + Duration::from_secs(1));
    for url in [service_sas, account_sas] {
        let answer = get(&url, &[]).await;
        assert_eq!(answer.refusal(), (403, "AuthenticationFailed"));
        assert!(answer.text().contains("Signature not valid in the specified time frame: Start ["));
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let fixture = Fixture::empty().await;
    assert_eq!(get(&fixture.url, &[]).await.refusal(), (404, "BlobNotFound"));
    let url = fixture.account.blob_sas("nowhere", BLOB, "r", HOUR);
    assert_eq!(get(&url, &[]).await.refusal(), (404, "ContainerNotFound"));
    let answer = get(&and(&fixture.url, "comp=tags"), &[]).await;
    assert_eq!(answer.refusal(), (501, "NotImplemented"));
    let answer = get(&fixture.url, &[("x-ms-version", "latest")]).await;
    assert_eq!(answer.refusal(), (400, "InvalidHeaderValue"));
}
