//! HTTPS with the certificate that the emulator makes.

use reqwest::{Certificate, Client};
use snapferry_emulator::{Config, Emulator};

use crate::client::{BLOB, CONTAINER, HOUR, VERSION};

#[tokio::test]
async fn a_client_that_trusts_the_certificate_is_served() {
    let emulator = Emulator::start(Config { tls: true, ..Config::default() }).await.unwrap();
    let account = emulator.account("target");
    account.create_container(CONTAINER);
    let url = account.blob_sas(CONTAINER, BLOB, "rcw", HOUR);
    assert!(emulator.endpoint().starts_with("https://127.0.0.1:") && url.starts_with(&emulator.endpoint()));

    let certificate = Certificate::from_pem(emulator.certificate_pem().unwrap().as_bytes()).unwrap();
    let trusting = Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap();
    for url in [url.clone(), url.replace("127.0.0.1", "localhost")] {
        let request = trusting.put(url).header("x-ms-version", VERSION).header("content-length", "0");
        let create = request.header("x-ms-blob-type", "PageBlob").header("x-ms-blob-content-length", "512");
        assert_eq!(create.send().await.unwrap().status(), 201);
    }
    let disk = emulator.create_disk("data", 512).unwrap();
    let body = trusting.get(disk.snapshot().grant()).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(body.len(), 1024);

    let another = Emulator::start(Config { tls: true, ..Config::default() }).await.unwrap();
    assert_ne!(another.certificate_pem(), emulator.certificate_pem());
    assert!(trusting.get(another.endpoint()).send().await.is_err());
    let plain = url.replace("https:", "http:");
    assert!(trusting.get(plain).send().await.is_err());
    assert!(trusting.get(url).send().await.is_ok());
}

#[tokio::test]
async fn without_tls_there_is_no_certificate() {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    assert!(emulator.certificate_pem().is_none() && emulator.endpoint().starts_with("http://127.0.0.1:"));
}
