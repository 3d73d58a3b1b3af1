//! An emulator prepared and run until it is told to end, as a command line does it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::net::TcpListener;

use snapferry_emulator::serve::{ServeError, ServeOptions, serve};
use snapferry_emulator::{Config, DiskError, StartError};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

/// Serves while `client` runs with the lines that were printed.
async fn while_serving<T, F: Future<Output = T>>(
    options: ServeOptions,
    client: impl FnOnce(Vec<String>) -> F,
) -> T {
    let (print, lines) = unbounded_channel();
    let (end, until) = oneshot::channel::<()>();
    let until = async { drop(until.await) };
    let server = tokio::spawn(serve(options, move |line| drop(print.send(line)), until));
    let outcome = client(up_to_ready(lines).await).await;
    end.send(()).unwrap();
    server.await.unwrap().unwrap();
    outcome
}

async fn up_to_ready(mut lines: UnboundedReceiver<String>) -> Vec<String> {
    let mut printed = Vec::new();
    while let Some(line) = lines.recv().await.filter(|line| line != "ready") {
        printed.push(line);
    }
    printed
}

/// The URLs, or the like, with which such lines end; ids of resources are left out.
fn last_words(lines: &[String], start: &str) -> Vec<String> {
    let of_kind = lines.iter().filter(|line| line.starts_with(start) && !line.contains(" id /"));
    of_kind.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

async fn get(url: &str, headers: &[(&str, &str)]) -> (u16, Vec<u8>) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.get(url).header("x-ms-version", "2021-12-02");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn urls_are_ready_to_use() {
    let options = ServeOptions {
        config: Config { seed: 5, ..Config::default() },
        faults: vec!["list-blobs:skip=1:server-busy".parse().unwrap()],
        sinks: Vec::new(),
        accounts: vec!["target=disks,other".parse().unwrap()],
        disks: vec!["data=1MiB,snapshots=3".parse().unwrap(), "tiny=512".parse().unwrap()],
    };
    let endpoint = while_serving(options.clone(), async |lines| {
        let snapshots = last_words(&lines, "disk data snapshot ");
        assert_eq!((snapshots.len(), last_words(&lines, "disk tiny snapshot 1 ").len()), (3, 1));
        let mut contents = Vec::new();
        for url in &snapshots {
            let (status, bytes) = get(url, &[]).await;
            assert_eq!((status, bytes.len()), (200, (1 << 20) + 512));
            contents.push(bytes);
        }
        assert_ne!(contents[0], contents[1]);
        assert_ne!(contents[1], contents[2]);
        let headers = [("x-ms-previous-snapshot-url", snapshots[0].as_str())];
        let (status, list) = get(&format!("{}&comp=pagelist", snapshots[2]), &headers).await;
        let list = String::from_utf8(list).unwrap();
        assert!(status == 200 && list.contains("<PageRange>"), "{list}");

        let ids: Vec<&str> =
            lines.iter().filter_map(|line| line.split_once(" id ")).map(|(_, id)| id).collect();
        assert_eq!(ids.len(), 6, "{lines:#?}");
        assert!(ids[0].ends_with("/resourceGroups/disks/providers/Microsoft.Compute/disks/data"), "{ids:?}");
        assert!(ids[3].ends_with("/Microsoft.Compute/snapshots/data-3"), "{ids:?}");
        let arm: Vec<&str> = lines[1].split(' ').collect();
        assert!(lines[0].ends_with(arm[1]) && ids[0].contains(arm[2]), "{arm:?}");
        let identity: Vec<&str> = lines[2].split(' ').collect();
        let url = format!("{}?resource=https://management.azure.com&api-version=2019-08-01", identity[1]);
        assert_eq!(get(&url, &[("x-identity-header", identity[2])]).await.0, 200);

        let containers = last_words(&lines, "account target container ");
        assert_eq!(containers.len(), 2);
        let list = format!("{}&restype=container&comp=list", containers[0]);
        assert_eq!((get(&list, &[]).await.0, get(&list, &[]).await.0), (200, 503));
        last_words(&lines, "endpoint ").remove(0)
    })
    .await;
    // It ended: the port is free, and a start with the same seed there makes the same disks.
    let listen = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    drop(TcpListener::bind(listen).unwrap());
    let again = ServeOptions { config: Config { listen, seed: 5, ..Config::default() }, ..options };
    while_serving(again, async |lines| {
        assert!(lines[0].ends_with(&endpoint));
        assert_eq!(last_words(&lines, "disk data ").len(), 3);
    })
    .await;
}

#[tokio::test]
async fn files_become_disks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    std::fs::write(&path, [7; 4096]).unwrap();
    let disk = format!("os={},snapshots=2", path.display());
    let options = ServeOptions { disks: vec![disk.parse().unwrap()], ..ServeOptions::default() };
    while_serving(options, async |lines| {
        let urls = last_words(&lines, "disk os snapshot ");
        let (first, second) = (get(&urls[0], &[]).await, get(&urls[1], &[]).await);
        assert_eq!((first.0, &first.1[..4096], first.1.len()), (200, [7; 4096].as_slice(), 4608));
        assert_eq!(first, second);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_served_is_an_error() {
    let failure = async |options| {
        let never = std::future::pending();
        serve(options, drop, never).await.unwrap_err()
    };
    let config = Config { listen: "192.0.2.1:0".parse().unwrap(), ..Config::default() };
    let error = failure(ServeOptions { config, ..ServeOptions::default() }).await;
    assert!(matches!(error, ServeError::Start(StartError::NotLoopback(_))));

    let disks = |text: &str| vec![text.parse().unwrap()];
    let error = failure(ServeOptions { disks: disks("odd=100"), ..ServeOptions::default() }).await;
    assert_eq!(error.to_string(), "disk 'odd': 100 is not a multiple of 512");
    let error =
        failure(ServeOptions { disks: disks("gone=/nowhere/at/all"), ..ServeOptions::default() }).await;
    assert!(matches!(error, ServeError::Disk { error: DiskError::File(_), .. }));
}
