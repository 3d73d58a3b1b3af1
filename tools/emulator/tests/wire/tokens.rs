//! The `Authorization` header on an ordinary account: bearer tokens, and signatures with the account's key.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use snapferry_emulator::{Account, Knobs};

use crate::client::{Answer, BLOB, CONTAINER, Fixture, VERSION, get, put, send};

const CREATE: [(&str, &str); 2] = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "4096")];

#[tokio::test]
async fn any_token_opens_everything() {
    let fixture = Fixture::empty().await;
    let url = fixture.account.blob_url(CONTAINER, BLOB);
    let token = ("authorization", "Bearer any.token");
    assert_eq!(put(&url, &[token, CREATE[0], CREATE[1]]).await.status, 201);
    assert_eq!(put(&url, &[token, CREATE[0], CREATE[1]]).await.status, 201);
    assert_eq!(get(&url, &[token]).await.status, 200);
    assert_eq!(get(&url, &[("authorization", "bearer other")]).await.status, 200);
    let list = format!("{}?restype=container&comp=list", fixture.account.container_url(CONTAINER));
    assert_eq!(get(&list, &[token]).await.status, 200);

    fixture.set(Knobs { bearer_without_rights: true, ..Knobs::default() });
    assert_eq!(get(&url, &[token]).await.refusal(), (403, "AuthorizationPermissionMismatch"));
    assert_eq!(get(&fixture.url, &[]).await.status, 200);
}

#[tokio::test]
async fn a_malformed_header_is_refused() {
    let fixture = Fixture::with_blob(4096).await;
    let url = fixture.account.blob_url(CONTAINER, BLOB);
    for header in ["Bearer", "Bearer two words"] {
        let answer = get(&url, &[("authorization", header)]).await;
        assert_eq!(answer.refusal(), (401, "InvalidAuthenticationInfo"), "{header}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.ends_with("resource_id=https://storage.azure.com/"), "{challenge}");
    }
    for header in ["Basic eDp5", "SharedKey target", "SharedKeyLite target:x", "token"] {
        let answer = get(&url, &[("authorization", header)]).await;
        assert_eq!(answer.refusal(), (400, "InvalidAuthenticationInfo"), "{header}");
    }
}

/// A request that is signed with an account's key. `head` is what the lines from the method to `Range` hold.
async fn signed(account: &Account, key: &str, method: &str, head: &str, date: &str) -> Answer {
    let url = account.blob_url(CONTAINER, BLOB);
    let name = account.name();
    let path = format!("/{name}/{CONTAINER}/{BLOB}");
    let headers =
        format!("x-ms-date:{date}\nx-ms-meta-state:a b\nx-ms-range:bytes=0-511\nx-ms-version:{VERSION}\n");
    let resource = format!("/{name}{path}\nsnapshot:\ntimeout:30");
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(key).unwrap()).unwrap();
    mac.update(format!("{head}{headers}{resource}").as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let headers = [
        ("authorization", format!("SharedKey {name}:{signature}")),
        ("x-ms-date", date.to_owned()),
        ("x-ms-range", "bytes=0-511".to_owned()),
        ("x-ms-meta-state", "a b".to_owned()),
        ("if-match", "*".to_owned()),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    send(method, &format!("{url}?timeout=30&snapshot="), &headers, Vec::new()).await
}

#[tokio::test]
async fn a_key_signs_requests() {
    let head = |method: &str| format!("{method}\n\n\n\n\n\n\n\n*\n\n\n\n");
    let fixture = Fixture::with_blob(4096).await;
    let account = &fixture.account;
    // The emulator's own time, as its replies tell it.
    let now = async || get(&fixture.url, &[]).await.header("date").unwrap().to_owned();
    let (key, date) = (account.key_base64(), now().await);
    assert_eq!(signed(account, &key, "GET", &head("GET"), &date).await.status, 206);

    let failed = (403, "AuthenticationFailed");
    let other = signed(account, &key, "GET", &head("HEAD"), &date).await;
    assert_eq!(other.refusal(), failed);
    let told = "Server used following string to sign: &apos;GET\n\n";
    assert!(other.text().contains(told), "{}", other.text());
    fixture.emulator.advance_clock(Duration::from_mins(16));
    assert_eq!(signed(account, &key, "GET", &head("GET"), &date).await.refusal(), failed);
    assert_eq!(signed(account, &key, "GET", &head("GET"), &now().await).await.status, 206);
    assert_eq!(signed(account, &key, "GET", &head("GET"), "").await.refusal(), failed);
}

#[tokio::test]
async fn the_well_known_account_is_known() {
    let fixture = Fixture::empty().await;
    let account = fixture.emulator.account("devstoreaccount1");
    account.create_container(CONTAINER);
    let url = account.account_sas(CONTAINER, BLOB, "cw", crate::client::HOUR);
    let created = put(&url, &CREATE).await;
    assert_eq!(created.status, 201);
    let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let head = "GET\n\n\n\n\n\n\n\n*\n\n\n\n";
    let date = created.header("date").unwrap();
    assert_eq!(signed(&account, key, "GET", head, date).await.status, 206);
}
