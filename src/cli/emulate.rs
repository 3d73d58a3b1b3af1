//! `snapferry emulate`: an emulated region that runs until it is ended.

use serde_json::{Value, json};
use snapferry_emulator::serve::{ServeError, ServeOptions, serve};
use snapferry_emulator::{Config, StartError};
use tokio_util::sync::CancellationToken;

use super::args::EmulateArgs;
use super::output::Output;
use crate::error::{Error, ErrorKind, Result};

pub(super) async fn emulate(
    args: Box<EmulateArgs>,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    let EmulateArgs { listen, seed, tls, accounts, sinks, disks, faults, link } = *args;
    let config = Config { listen, seed, tls, link: link.unwrap_or_default(), ..Config::default() };
    let options = ServeOptions { config, faults, accounts, sinks, disks };
    let mut document = json!({
        "endpoint": null, "certificate": null, "arm": null, "identity": null,
        "disks": [], "snapshots": [], "snapshot_ids": [], "containers": []
    });
    let mut written = Ok(());
    let nobody_reads = CancellationToken::new();
    let print = |line: String| {
        if written.is_ok() {
            written = if line == "ready" { output.result(&document, &line) } else { output.line(&line) };
            note(&mut document, &line);
            if written.is_err() {
                nobody_reads.cancel();
            }
        }
    };
    let until = async {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = nobody_reads.cancelled() => {}
        }
    };
    serve(options, print, until).await.map_err(|error| explain(&error))?;
    written
}

/// Takes a line of the emulator into the document: the last word is a URL.
fn note(document: &mut Value, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["endpoint", url] => document["endpoint"] = json!(url),
        ["arm", endpoint, subscription] => {
            document["arm"] = json!({ "endpoint": endpoint, "subscription": subscription });
        }
        // What a managed identity is set up with; no secret of anybody's.
        ["identity", endpoint, header] => {
            document["identity"] = json!({ "IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": header });
        }
        ["disk", disk, "id", id] => push(&mut document["disks"], json!({ "disk": disk, "id": id })),
        ["disk", disk, "snapshot", number, "id", id] => {
            push(
                &mut document["snapshot_ids"],
                json!({ "disk": disk, "number": number.parse::<u32>().ok(), "id": id }),
            );
        }
        ["disk", disk, "snapshot", number, url] => {
            push(
                &mut document["snapshots"],
                json!({ "disk": disk, "number": number.parse::<u32>().ok(), "url": url }),
            );
        }
        ["account", account, "container", container, url] => {
            push(
                &mut document["containers"],
                json!({ "account": account, "container": container, "url": url }),
            );
        }
        _ => {
            if let Some(certificate) = line.strip_prefix("certificate\n") {
                document["certificate"] = json!(certificate);
            }
        }
    }
}

fn push(list: &mut Value, entry: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(entry);
    }
}

fn explain(error: &ServeError) -> Error {
    let made = Error::new(ErrorKind::Usage, "start the emulator", error.to_string());
    match error {
        ServeError::Start(StartError::Listen(_)) => {
            made.next("another program has the address: --listen 127.0.0.1:0 takes a free one")
        }
        ServeError::Start(_) => made.next("listen on 127.0.0.1 or [::1]: what is emulated is not protected"),
        _ => made.next("snapferry emulate --disk NAME=SIZE or NAME=FILE, each name once"),
    }
}
