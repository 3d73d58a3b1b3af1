//! List Blobs and containers.

use crate::client::{CONTAINER, Fixture, HOUR, and, get, next_marker, put, send};

/// The names in a list, in order, with the time of a snapshot after them.
fn names(text: &str) -> Vec<String> {
    let field = |entry: &str, tag: &str| {
        let (_, after) = entry.split_once(&format!("<{tag}>"))?;
        Some(after.split_once('<')?.0.to_owned())
    };
    let entries = text.split("<Blob>").skip(1);
    entries
        .map(|entry| {
            let name = field(entry, "Name").unwrap();
            field(entry, "Snapshot").map_or(name.clone(), |time| format!("{name}@{time}"))
        })
        .collect()
}

#[tokio::test]
async fn blobs_come_in_order_with_their_snapshots_before_them() {
    let fixture = Fixture::with_blob(4096).await;
    let create = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "512")];
    for name in ["a & <b>", "dir/one", "dir/two"] {
        put(&fixture.account.blob_sas(CONTAINER, name, "c", HOUR), &create).await;
    }
    put(&and(&fixture.url, "comp=metadata"), &[("x-ms-meta-note", "x < y")]).await;
    let snapshot = fixture.snapshot().await.replace("%3A", ":");
    let url = fixture.account.container_sas(CONTAINER, "", "l", HOUR).replace("/?", "?");
    let list = and(&url, "restype=container&comp=list");

    let answer = get(&list, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.text().starts_with("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<EnumerationResults ")
    );
    assert_eq!(names(answer.text()), ["a &amp; &lt;b&gt;", "dir/one", "dir/two", "disk"]);
    assert!(answer.text().ends_with("<NextMarker/></EnumerationResults>"));

    let full = and(&list, "include=snapshots%2Cmetadata");
    let answer = get(&full, &[]).await;
    let of_disk = format!("disk@{snapshot}");
    let all = ["a &amp; &lt;b&gt;", "dir/one", "dir/two", of_disk.as_str(), "disk"];
    assert_eq!(names(answer.text()), all);
    assert!(answer.text().contains("<Metadata><note>x &lt; y</note></Metadata>"));
    assert!(answer.text().contains("<BlobType>PageBlob</BlobType>"));

    let mut paged = Vec::new();
    let mut marker = String::new();
    loop {
        let answer = get(&and(&full, &format!("maxresults=2{marker}")), &[]).await;
        paged.extend(names(answer.text()));
        match next_marker(&answer) {
            Some(next) => marker = format!("&marker={}", next.replace('=', "%3D").replace('+', "%2B")),
            None => break,
        }
    }
    assert_eq!(paged, all);

    assert_eq!(names(get(&and(&list, "prefix=dir%2F"), &[]).await.text()), ["dir/one", "dir/two"]);
    let grouped = get(&and(&list, "delimiter=%2F"), &[]).await;
    assert_eq!(names(grouped.text()), ["a &amp; &lt;b&gt;", "disk"]);
    assert!(grouped.text().contains("<BlobPrefix><Name>dir/</Name></BlobPrefix>"));
    let answer = get(&and(&full, "delimiter=%2F"), &[]).await;
    assert_eq!(answer.refusal(), (400, "InvalidQueryParameterValue"));
}

#[tokio::test]
async fn containers_are_made_and_listed() {
    let fixture = Fixture::empty().await;
    let account = fixture.account.account_sas("other", "", "rcwdl", HOUR).replace("/?", "?");
    let container = and(&account, "restype=container");
    assert_eq!(put(&container, &[]).await.status, 201);
    assert_eq!(put(&container, &[]).await.refusal(), (409, "ContainerAlreadyExists"));
    assert_eq!(get(&container, &[]).await.header("x-ms-lease-state"), Some("available"));
    let service = account.replace("/other?", "/?");
    let list = get(&and(&service, "comp=list"), &[]).await;
    assert_eq!(list.status, 200, "{}", list.text());
    assert!(list.text().contains("<Name>box</Name>") && list.text().contains("<Name>other</Name>"));
    assert_eq!(send("DELETE", &container, &[], Vec::new()).await.status, 202);
    assert_eq!(get(&container, &[]).await.refusal(), (404, "ContainerNotFound"));
}
