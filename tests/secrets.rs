//! No SAS, key or token is printed or stored, at the most verbose log level.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::sync::Arc;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use snapferry::azure::Client;
use snapferry_emulator::{BusyText, Call, Config, Fault, FaultKind, Knobs};
use world::{MIB, World, noise, output, snapferry, text};

/// What a SAS URL must not be known by.
fn secrets_of(url: &str) -> Vec<String> {
    let query = url.split_once('?').unwrap().1;
    let mut secrets: Vec<String> = query
        .split('&')
        .filter(|pair| pair.starts_with("sig=") || pair.starts_with("si="))
        .map(|pair| pair.split_once('=').unwrap().1.to_owned())
        .collect();
    let decoded =
        secrets.iter().map(|secret| secret.replace("%2B", "+").replace("%2F", "/").replace("%3D", "="));
    secrets.extend(decoded.collect::<Vec<_>>());
    assert!(secrets.len() >= 2 && secrets.iter().all(|secret| secret.len() > 10));
    secrets
}

fn assert_clean(what: &str, shown: &str, urls: &[&str]) {
    for secret in urls.iter().flat_map(|url| secrets_of(url)) {
        assert!(!shown.contains(&secret), "a secret stands in {what}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_printed_at_the_most_verbose_level_holds_a_signature() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    disk.write(MIB, &noise(2, 4096)).unwrap();
    let second = disk.snapshot();
    let (one, two, target) = (first.grant(), second.grant(), world.target_url());
    let expired = world.account.container_sas(world::CONTAINER, world::BASE, "r", world::HOUR);
    let urls = [one.as_str(), two.as_str(), target.as_str(), expired.as_str()];

    let mut runs: Vec<(Vec<&str>, i32)> = vec![
        (vec!["copy", "--source", &two, "--previous", &one, "--target", &target], 11),
        (vec!["copy", "--source", &one, "--target", &target], 0),
        (vec!["plan", "--source", &two, "--previous", &one, "--target", &target], 0),
        (vec!["copy", "--source", &two, "--previous", &one, "--target", &expired], 4),
        (vec!["copy", "--source", &two, "--previous", &one, "--target", &target], 0),
        (vec!["points", "--target", &target], 0),
        (vec!["points", "show", "--source", &two, "--target", &target], 5),
        (vec!["points", "show", "--source", second.time(), "--target", &target], 0),
        (vec!["points", "protect", "--point", &two, "--target", &target], 5),
        (vec!["points", "prune", "--keep-last", "1", "--target", &target], 0),
        (vec!["points", "prune", "--keep-last", &two, "--target", &target], 2),
        (vec!["points", "prune", "--keep-last", "1", "--yes", "--target", &expired], 4),
        (vec!["rollback", "--target", &target], 0),
        (vec!["status", "--target", &target], 0),
        (vec!["status", &target], 2),
        (vec!["copy", "--source", &one, "--target", &target, "--chunk-size", &two], 2),
    ];
    let broken = target.replace("sig=", "sig=x");
    runs.push((vec!["status", "--target", &broken], 3));
    for (arguments, code) in runs {
        for form in ["text", "json"] {
            let mut command = snapferry();
            command
                .args(&arguments)
                .args(["-vvv", "--output", form])
                .env("RUST_LOG", "trace")
                .env("RUST_BACKTRACE", "1");
            let run = output(command).await;
            let shown = text(&run.stdout) + &text(&run.stderr);
            if !(form == "json" && arguments[0] == "copy") {
                assert_eq!(run.status.code(), Some(code), "{shown}");
            }
            assert_clean("the output", &shown, &urls);
        }
    }
    let stored = format!("{:?}", world.base(None).unwrap().metadata());
    assert!(stored.contains("snapferry_state"));
    assert_clean("the metadata", &stored, &urls);
}

/// In server mode the SAS of the source goes to the other service, in a header.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_printed_of_a_server_mode_run_holds_a_signature() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let snapshot = disk.snapshot();
    let source = snapshot.grant();
    let base = |name: String| world.account.container_sas(world::CONTAINER, &name, "rcwdl", world::HOUR);
    let lasting = |kind| Some(Fault::new(kind).always());
    let runs = [
        ("pulled", None, None, 0),
        ("refused", lasting(FaultKind::NotSupported), None, 0),
        ("forbidden", lasting(FaultKind::Forbidden), None, 0),
        ("cut", lasting(FaultKind::CutBeforeApply), None, 19),
        ("source-busy", None, Some(Fault::new(FaultKind::ServerBusy(BusyText::Busy)).times(6)), 0),
    ];
    for form in ["text", "json"] {
        for (name, at_target, at_source, code) in runs.clone() {
            let target = base(format!("{name}-{form}"));
            if let Some(fault) = at_target {
                world.target.faults().add(fault.on(Call::PutPageFromUrl));
            }
            if let Some(fault) = at_source {
                world.source.faults().add(fault.on(Call::GetBlob).skip(2));
            }
            let mut command = snapferry();
            command
                .args(["copy", "--mode", "server", "-vvv", "--output", form, "--retry-for", "500ms"])
                .args(["--source", &source, "--target", &target])
                .env("RUST_LOG", "trace")
                .env("RUST_BACKTRACE", "1");
            let run = output(command).await;
            let shown = text(&run.stdout) + &text(&run.stderr);
            if name != "source-busy" {
                assert_eq!(run.status.code(), Some(code), "{name}: {shown}");
            }
            assert!(shown.contains("Put Page From URL"), "{name}: {shown}");
            assert_clean("the output", &shown, &[&source, &target]);
            world.target.faults().clear();
            world.source.faults().clear();
        }
    }
    let stored =
        format!("{:?}", world.account.read_blob(world::CONTAINER, "pulled-text", None).unwrap().metadata());
    assert!(stored.contains("snapferry_bytes_pulled"));
    assert_clean("the metadata", &stored, &[&source]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_report_of_a_copy_holds_a_signature_whether_it_was_done_or_failed() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    disk.write(2 * MIB, &noise(2, MIB)).unwrap();
    let second = disk.snapshot();
    let (one, two, target) = (first.grant(), second.grant(), world.target_url());
    let urls = [one.as_str(), two.as_str(), target.as_str()];
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let copy = async |name: &str, arguments: &[&str], code: i32| {
        let mut command = snapferry();
        command.args(["copy", "-vvv", "--chunk-size", "64KiB", "--target", &target, "--report"]);
        command.arg(folder.path().join(name)).args(arguments).env("RUST_LOG", "trace");
        let run = output(command).await;
        let shown = text(&run.stdout) + &text(&run.stderr);
        assert_eq!(run.status.code(), Some(code), "{shown}");
        assert_clean("the output", &shown, &urls);
        std::fs::read_to_string(folder.path().join(name)).unwrap_or_default()
    };
    let full = ["--source", one.as_str()];
    let difference = ["--source", &two, "--previous", &one];
    for (arguments, name, done) in
        [(&full[..], "full", "done.md"), (&difference[..], "difference", "done.html")]
    {
        for form in ["html", "md", "json"] {
            world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::PutPage).skip(2).always());
            let report = copy(&format!("{name}.{form}"), arguments, 3).await;
            world.target.faults().clear();
            assert!(report.contains("Put Page"), "{report}");
            assert_clean("the report of a copy that failed", &report, &urls);
        }
        let report = copy(done, arguments, 0).await;
        assert!(report.contains(world::BASE), "{report}");
        assert_clean("the report of a copy that was done", &report, &urls);
    }
    let report = copy("again.json", &difference, 0).await;
    assert!(report.contains(world::BASE), "{report}");
    assert_clean("the report of a copy that had nothing to do", &report, &urls);
    let nameless = copy(&two, &difference, 2).await;
    assert_eq!(nameless, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_benchmark_prints_or_writes_holds_a_signature() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 2 * MIB)).unwrap();
    let first = disk.snapshot();
    disk.write(0, &noise(2, MIB)).unwrap();
    let second = disk.snapshot();
    let (one, two, target) = (first.grant(), second.grant(), world.target_url());
    let urls = [one.as_str(), two.as_str(), target.as_str()];
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let bench = |more: &[&str]| {
        let mut command = snapferry();
        command.args(["bench", "-vvv", "--source", &two, "--previous", &one, "--target", &target]);
        command.args([
            "--concurrency",
            "2",
            "--chunk-size",
            "1MiB",
            "--repeats",
            "2",
            "--mode",
            "stream,server",
        ]);
        command.args(["--report", &at("b.json"), "--report", &at("b.html"), "--report", &at("b.md")]);
        command.args(["--profile", &at("b.toml")]).args(more).env("RUST_LOG", "trace");
        output(command)
    };
    for (more, code) in
        [(&["--dry-run"][..], 0), (&["--output", "json"], 2), (&["--yes"], 0), (&["--yes", "-ojson"], 0)]
    {
        let run = bench(more).await;
        let shown = text(&run.stdout) + &text(&run.stderr);
        assert_eq!(run.status.code(), Some(code), "{shown}");
        assert_clean("the output of a benchmark", &shown, &urls);
    }
    for name in ["b.json", "b.html", "b.md", "b.toml"] {
        let file = std::fs::read_to_string(at(name)).unwrap();
        assert!(file.len() > 100);
        assert_clean(name, &file, &urls);
        assert!(name != "b.toml" || !file.contains("http"), "{file}");
    }
    world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::DeleteBlob).always());
    let run = bench(&["--yes"]).await;
    let shown = text(&run.stdout) + &text(&run.stderr);
    assert_eq!(run.status.code(), Some(3), "{shown}");
    assert_clean("what is told of what is left", &shown, &urls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_refuses_is_reported_without_the_url() {
    let nobody =
        "http://127.0.0.1:9/account/disks/base?sv=2021-12-02&sr=c&si=0123456789ab&sig=c2VjcmV0c2VjcmV0";
    let mut command = snapferry();
    command.args(["status", "-vvv", "--retry-for", "100ms", "--target", nobody]).env("RUST_LOG", "trace");
    command.env("http_proxy", "http://127.0.0.1:9").env("HTTPS_PROXY", "http://127.0.0.1:9");
    let run = output(command).await;
    assert_eq!(run.status.code(), Some(19), "{}", text(&run.stderr));
    assert_clean("the output", &(text(&run.stdout) + &text(&run.stderr)), &[nobody]);
}

#[test]
fn debug_and_display_of_everything_public_are_clean() {
    let text = "https://md-1.z1.blob.storage.azure.net/c/abcd?snapshot=2026-01-01T00:00:00.0000000Z&si=0123456789ab&sig=c2VjcmV0c2VjcmV0";
    let step = world::step(
        text,
        Some(text),
        "https://a.blob.core.windows.net/c/b?si=0123456789ab&sig=c2VjcmV0c2VjcmV0",
    );
    let client = world::client();
    let blob = snapferry::azure::PageBlob::connect(step.target.clone(), &client).unwrap();
    assert_clean("Debug", &format!("{step:?} {client:?} {blob:?} {} {}", step.source, step.target), &[text]);
}

/// Hands out one token and counts nothing: the token is what must not be seen.
#[derive(Debug)]
struct Fixed;

const TOKEN: &str = "eyJ0b2tlbiI6InNlY3JldCJ9.payload.signature";

#[async_trait::async_trait]
impl TokenCredential for Fixed {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new(TOKEN, OffsetDateTime::now_utc() + azure_core::time::Duration::hours(1)))
    }
}

#[tokio::test]
async fn a_disk_that_wants_a_token_besides_its_sas_gets_both_and_the_token_stays_secret() {
    let knobs = Knobs { export_needs_bearer: true, ..Knobs::default() };
    let mut world = World::with(Config { knobs, ..Config::default() }, Config::default()).await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    let refused = world.copy(&first, None).await.unwrap_err();
    assert_eq!(refused.kind(), snapferry::ErrorKind::AccessDenied);

    let known = world::client();
    world.client = Client::new(known.timeouts, known.retry, Some(Arc::new(Fixed))).unwrap();
    let report = world.copy(&first, None).await.unwrap();
    world.assert_identical(&report, &first);
    disk.write(MIB, &noise(2, 4096)).unwrap();
    let second = disk.snapshot();
    let report = world.copy(&second, Some(&first)).await.unwrap();
    world.assert_identical(&report, &second);
    let shown = format!("{report:?} {:?} {:?}", world.client, world.base(None).unwrap().metadata());
    assert!(!shown.contains(TOKEN));
}

#[tokio::test]
async fn a_sas_reaches_the_service_byte_for_byte_and_with_one_snapshot() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    let (url, target) = (first.grant(), world.target_url());
    world.run(&world::step(&url, None, &target)).await.unwrap();
    for (requests, url) in [(world.source.requests(), &url), (world.target.requests(), &target)] {
        let query = url.split_once('?').unwrap().1;
        assert!(requests.len() > 2);
        for request in requests {
            let sent = request.path_and_query.split_once('?').unwrap().1;
            assert!(sent.starts_with(query), "{sent} does not begin with the SAS as it was given");
            assert!(sent.matches("snapshot=").count() <= 1, "{sent}");
        }
    }
}
