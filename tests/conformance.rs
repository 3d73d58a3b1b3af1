//! One suite of calls over two servers: the emulator, on which the other tests stand, and Azurite, which others
//! wrote. Each check expects what Azure does; where Azurite does not do that, [`AZURITE_DIFFERS`] says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod judges;
mod world;

#[path = "conformance/control.rs"]
mod control;
#[path = "conformance/pages.rs"]
mod pages;
#[path = "conformance/suite.rs"]
mod suite;

use std::sync::{Arc, Mutex};

use judges::{ACCOUNT, Azurite, FAR_AWAY, Judge, account_sas, container_sas};
use snapferry::azure::{Against, Metadata};
use snapferry_emulator::{Config, Emulator};
use suite::{A, B, CONTAINER, Suite, answered, connect, fence, put, range, said};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Checks in which Azurite does not do what Azure does.
pub struct Difference {
    /// The check, and what Azurite does in it.
    checks: &'static [(&'static str, &'static str)],
    /// Why that does no harm to what the suite proves.
    accepted: &'static str,
    /// Where it stands that Azure does what the check expects. "REST" is the reference of the Blob service.
    source: &'static str,
}

/// Seen in Azurite 3.37.0. A difference that goes away fails the test, so that its row goes, too.
const AZURITE_DIFFERS: &[Difference] = &[
    Difference {
        checks: &[
            ("create half a page", "400 InvalidOperation"),
            ("resize to half a page", "400 InvalidOperation"),
            ("put half a page", "400 InvalidOperation"),
        ],
        accepted: "refused, too; the client's ranges are whole pages by their type",
        source: "REST: Put Blob, Set Blob Properties, Put Page, and the error codes of the Blob service",
    },
    Difference {
        checks: &[
            ("put past the end", "416 Requested Range Not Satisfiable"),
            ("put off a page", "416 Requested Range Not Satisfiable"),
            ("put less than its range", "416 Requested Range Not Satisfiable"),
            ("page list past the end", "416 Requested Range Not Satisfiable"),
        ],
        accepted: "refused with the right status; only the code is not one of the service",
        source: "REST: error codes of the Blob service; recorded traffic of the SDKs (InvalidRange of page lists)",
    },
    Difference {
        checks: &[("read at the end", "206 bytes 5242880-5242879/5242880")],
        accepted: "an empty reply, which the client takes for an error",
        source: "REST: Get Blob",
    },
    Difference {
        checks: &[("put over the end", "201")],
        accepted: "Azurite compares only the start of a range with the blob's end; the emulator compares both",
        source: "REST: Put Page",
    },
    Difference {
        checks: &[("put more than 4 MiB", "201")],
        accepted: "the client's chunks end at 4 MiB, and the emulator refuses longer ones",
        source: "REST: Put Page, an update is at most 4 MiB",
    },
    Difference {
        checks: &[("(MD5, CRC) in the reply to an MD5", "(true, true)")],
        accepted: "the client compares what comes and asks for neither",
        source: "recorded traffic of the Java SDK (upload of a page with its MD5)",
    },
    Difference {
        checks: &[("neighbours in a page list", "0..1024 2048..2560 3072..4096 4096..4608")],
        accepted: "the client joins neighbours; the emulator can be told to cut ranges, too",
        source: "recorded traffic of the SDKs (page ranges)",
    },
    Difference {
        checks: &[("page list of one element", "4, marker: false")],
        accepted: "the client does not ask for pages of a list; it follows markers, which the emulator sends",
        source: "REST: Get Page Ranges, maxresults and marker since 2020-10-02",
    },
    Difference {
        checks: &[
            ("difference to a snapshot", "512..1024 2048..2560 3072..4096 4096..4608 7680..8192"),
            ("difference to no snapshot", "512..1024 2048..2560 3072..4096 4096..4608 7680..8192"),
            ("difference by URL", "512..1024 2048..2560 3072..4096 4096..4608 7680..8192"),
        ],
        accepted: "Azurite does not compare and lists everything: differences are proved on the emulator alone",
        source: "REST: Get Page Ranges, prevsnapshot; that Azurite lacks it: its issue 812",
    },
    Difference {
        checks: &[("resize by a SAS of the account", "500")],
        accepted: "Azurite forgot the call in its table of permissions; a SAS of the container resizes",
        source: "REST: Create an account SAS, operations by permission",
    },
    Difference {
        checks: &[("snapshot by a SAS of its container", "403 AuthorizationFailure")],
        accepted: "Azurite signs the snapshot's time, too; a SAS of the account reads snapshots",
        source: "REST: Create a service SAS, sr=c; the time is signed for sr=bs alone",
    },
    Difference {
        checks: &[("CRC of a range", "none"), ("CRC of more than 4 MiB", "206 bytes 0-4194304/5242880")],
        accepted: "loose, Azurite leaves the CRC out, as the client expects of a service that cannot",
        source: "REST: Get Blob, x-ms-range-get-content-crc64",
    },
    Difference {
        checks: &[
            ("bad signature", "403 AuthorizationFailure"),
            ("permission added by hand", "403 AuthorizationFailure"),
            ("expired", "403 AuthorizationFailure"),
            ("no signature", "403 AuthorizationFailure"),
        ],
        accepted: "refused, too; the client's kind of error is the same for both codes",
        source: "REST: error codes of the Blob service; authorization of requests without credentials",
    },
];

/// Every check over one server.
async fn run(suite: &Suite) {
    let container = format!("{}/{CONTAINER}?restype=container&{}", suite.account, account_sas("c", FAR_AWAY));
    let made = world::raw(reqwest::Method::PUT, &container, &[], Vec::new()).await;
    suite.check("create a container", "201", answered(&made));
    pages::creating(suite).await;
    pages::writing(suite).await;
    pages::listing_pages(suite).await;
    pages::resizing(suite).await;
    pages::numbering(suite).await;
    pages::reading(suite).await;
    control::leasing(suite).await;
    control::metadata_and_snapshots(suite).await;
    control::signing(suite).await;
    suite.assert_all_right();
}

#[tokio::test]
async fn the_emulator_does_what_azure_does() {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    // The account of that name has the well-known key.
    let account = emulator.account(ACCOUNT);
    run(&Suite::new(format!("{}/{}", emulator.endpoint(), account.name()), false)).await;
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

/// Servers may refuse a request that tells its length twice, and Azurite does; the emulator does not.
#[tokio::test]
async fn no_request_has_a_header_twice() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/{ACCOUNT}/{CONTAINER}/blob", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let server = tokio::spawn(refuse_all(listener, Arc::clone(&heads)));

    let blob = connect(&format!("{url}?{}", container_sas(CONTAINER, "rcwdl", FAR_AWAY)));
    let (none, own, page) = (Metadata::new(), fence(A, 1), range(0, 512));
    let refused = [
        said(blob.properties().await),
        said(blob.create(512, 1, &none).await),
        said(blob.resize(512, A).await),
        said(blob.raise_sequence_number(2, A).await),
        said(blob.acquire_lease(Some(A), 60).await),
        said(blob.renew_lease_once(A).await),
        said(blob.change_lease_once(A, B).await),
        said(blob.release_lease(A).await),
        said(blob.break_lease().await),
        said(blob.set_metadata(&none, A).await),
        said(blob.snapshot(&none, A, "\"0x1\"").await),
        said(blob.snapshots().await),
        said(blob.delete_with_snapshots(Some(A)).await),
        said(blob.clear_pages(page, &own).await),
        put(&blob, 0, &[1; 512], &own).await,
        said(blob.read_once(page, true).await.map(drop)),
        said(blob.page_list_once(page, &Against::Nothing, None).await.map(drop)),
    ];
    server.abort();
    assert!(refused.iter().all(|said| said == "403"), "{refused:?}");
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), refused.len());
    for head in heads.iter() {
        let mut names: Vec<&str> =
            head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| !pair[0].eq_ignore_ascii_case(pair[1])), "{head}");
    }
}

/// Keeps the head of every request, and refuses it.
async fn refuse_all(listener: tokio::net::TcpListener, heads: Arc<Mutex<Vec<String>>>) {
    loop {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while connection.read_buf(&mut request).await.unwrap() > 0 {
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            // All bodies here are one page, of bytes that are text.
            if head.contains("x-ms-page-write: update") && body.len() < 512 {
                continue;
            }
            heads.lock().unwrap().push(head.to_owned());
            break;
        }
        let reply = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        connection.write_all(reply).await.unwrap();
    }
}
