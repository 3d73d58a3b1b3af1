//! `snapferry bench` as a person uses it: on emulated regions, and on URLs of one's own, where nothing of anybody's may be
//! touched and nothing may be left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "bench/comparison.rs"]
mod comparison;
mod world;

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use snapferry::bench::result::{Mode, Pattern, Results};
use snapferry::measure::Limit;
use snapferry_emulator::{Call, Config, DiskSnapshot, Fault, FaultKind};
use world::{CONTAINER, HOUR, MIB, World, noise, output, snapferry, text};

/// Small enough to be over at once.
const QUICK: [&str; 12] = [
    "--concurrency",
    "2,6",
    "--chunk-size",
    "1MiB",
    "--repeats",
    "2",
    "--warm-up",
    "0",
    "--duration",
    "10s",
    "--retry-for",
    "5s",
];

fn document(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("standard output holds one JSON document")
}

fn results(bytes: &[u8]) -> Results {
    Results::from_json(&text(bytes)).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Two snapshots, and a container in which others have blobs.
async fn prepared(target: Config) -> (World, DiskSnapshot, DiskSnapshot) {
    let world = World::with(Config::default(), target).await;
    let disk = world.disk(24 * MIB);
    disk.write(0, &noise(1, 12 * MIB)).unwrap();
    let first = disk.snapshot();
    disk.write(2 * MIB, &noise(2, 6 * MIB)).unwrap();
    disk.clear(9 * MIB, MIB).unwrap();
    let second = disk.snapshot();
    world.copy(&first, None).await.unwrap();
    (world, first, second)
}

fn container_url(world: &World, permissions: &str) -> String {
    world.account.container_sas(CONTAINER, "", permissions, HOUR).replacen("/?", "?", 1)
}

fn bench(source: &DiskSnapshot, target: &str) -> Command {
    let mut command = snapferry();
    command.arg("bench").args(QUICK).args(["--quiet", "--output", "json"]);
    command.env("SNAPFERRY_SOURCE", source.grant()).env("SNAPFERRY_TARGET", target);
    command
}

/// The blobs of the benchmark.
fn of_bench(world: &World) -> Vec<String> {
    let names = world.account.blob_names(CONTAINER).into_iter();
    names.filter(|name| name.starts_with("snapferry-bench-")).collect()
}

#[test]
fn every_mode_and_pattern_is_measured_on_emulated_regions_and_told_in_every_form() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let run = snapferry()
        .arg("bench")
        .args(QUICK)
        .args(["--size", "4MiB", "--mode", "stream,server", "--pattern", "dense,scattered,mixed,zeros"])
        .args([
            "--output",
            "json",
            "--report",
            &at("b.json"),
            "--report",
            &at("b.html"),
            "--report",
            &at("b.md"),
        ])
        .args(["--profile", &at("b.toml")])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    let found = results(&run.stdout);
    assert_eq!(Results::from_json(&std::fs::read_to_string(at("b.json")).unwrap()).unwrap(), found);
    assert_eq!(found.cells.len(), 4 * 2 * 2);
    for cell in &found.cells {
        let setting = cell.setting;
        assert_eq!(cell.repeats.len(), 2, "{setting:?}");
        assert!(cell.repeats.iter().all(|repeat| repeat.bytes > 0 && repeat.rate > 0.0), "{setting:?}");
        assert!(cell.rate.low <= cell.rate.middle && cell.rate.middle <= cell.rate.high);
        assert!(cell.writes.count > 0 && cell.writes.p50 > 0.0, "{setting:?}");
        // Through this machine every chunk; otherwise only the footer.
        let is_read = cell.reads.count > 2 * cell.repeats.len() as u64;
        assert_eq!(is_read, setting.mode == Mode::Stream, "{setting:?}: {}", cell.reads.count);
        assert!(cell.requests_per_second > 0.0 && cell.refused.abs() < f64::EPSILON);
        if setting.pattern == Pattern::Dense {
            assert!(cell.repeats.iter().all(|repeat| (4 * MIB..5 * MIB).contains(&repeat.bytes)), "{cell:?}");
        }
        let is_knee = found.knees.iter().any(|knee| knee.setting == setting);
        assert!(cell.course.is_some() == (is_knee || found.verdict.best == Some(setting)));
    }
    assert_eq!(found.knees.len(), 8, "one for each mode and pattern");
    assert!(found.environment.emulated && found.verdict.best.is_some());
    assert!(found.verdict.sentence.contains("in flight") && !found.verdict.advice.is_empty());
    let (page, lines) =
        (std::fs::read_to_string(at("b.html")).unwrap(), std::fs::read_to_string(at("b.md")).unwrap());
    let number = format!("--concurrency {}", found.verdict.best.unwrap().window);
    assert!(page.starts_with("<!doctype html>") && page.contains(&number) && lines.contains(&number));
    let profile = std::fs::read_to_string(at("b.toml")).unwrap();
    let kept = profile.lines().find_map(|line| line.strip_prefix("concurrency = ")).unwrap().parse().unwrap();
    let widest = found.cells.iter().map(|cell| cell.setting.window).max().unwrap();
    assert!((found.verdict.best.unwrap().window..=widest).contains(&kept), "{profile}");
    let beside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(beside.len(), 4, "no file is left beside");
}

#[test]
fn a_line_whose_limit_is_known_is_named() {
    // An emulated blob gives 8 MiB/s, for which readers wait, and takes as much, beyond which it refuses.
    let run = snapferry()
        .args(["bench", "--quiet", "--output", "json", "--pattern", "dense", "--size", "16MiB"])
        .args(["--link", "latency=2ms,blob-bytes-per-second=8MiB,blob-burst=100ms"])
        .args(["--concurrency", "2,16", "--chunk-size", "1MiB", "--repeats", "2", "--warm-up", "0"])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    let found = results(&run.stdout);
    assert!(matches!(found.verdict.limit, Limit::Source | Limit::Target), "{}", found.verdict.sentence);
    assert!(found.cells.iter().all(|cell| cell.rate.middle < 12.0 * MIB as f64), "{:?}", found.cells);
    assert_eq!(found.environment.link, "latency=2ms,blob-bytes-per-second=8MiB,blob-burst=100ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_urls_of_ones_own_everything_that_was_there_stays_and_nothing_else_does() {
    let (world, first, second) = prepared(Config::default()).await;
    let before = (world.account.blob_names(CONTAINER), world.base(None).unwrap().etag());
    let base = world.target_url();
    for (target, previous, modes) in
        [(container_url(&world, "rwcdl"), true, "stream"), (base, false, "stream,server")]
    {
        let mut run = bench(&second, &target);
        run.args(["--yes", "--mode", modes]);
        if previous {
            run.env("SNAPFERRY_PREVIOUS", first.grant());
        }
        let run = output(run).await;
        assert!(run.status.success(), "{}", text(&run.stderr));
        let found = results(&run.stdout);
        // Of the difference six MiB of data and one that is cleared; in full all that holds data.
        let bytes = found.cells[0].repeats[0].bytes;
        let right = if previous { 7 * MIB..=7 * MIB + 8192 } else { 11 * MIB..=11 * MIB + 8192 };
        assert!(right.contains(&bytes), "{bytes}");
        assert!(found.cells.iter().all(|cell| cell.setting.pattern == Pattern::Own));
        assert!(!found.environment.emulated && found.target.ends_with(CONTAINER), "{}", found.target);
        assert_eq!((world.account.blob_names(CONTAINER), world.base(None).unwrap().etag()), before);
    }
    let written = world.target.requests().into_iter().filter(|request| request.call == Call::PutPage);
    let blobs: Vec<String> = written.map(|request| request.blob).filter(|blob| blob != world::BASE).collect();
    assert!(blobs.len() > 10 && blobs.iter().all(|blob| blob.starts_with("snapferry-bench-")), "{blobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_when_it_has_seen_enough() {
    let (world, first, _) = prepared(Config::default()).await;
    let mut run = snapferry();
    run.args(["bench", "--yes", "--quiet", "--output", "json", "--size", "2MiB", "--repeats", "2"]);
    run.args(["--chunk-size", "256KiB", "--concurrency", "2"]);
    run.env("SNAPFERRY_SOURCE", first.grant()).env("SNAPFERRY_TARGET", container_url(&world, "rwcdl"));
    let run = output(run).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let found = results(&run.stdout);
    for repeat in &found.cells[0].repeats {
        assert!((2 * MIB..12 * MIB).contains(&repeat.bytes), "{repeat:?}");
    }
    assert_eq!(of_bench(&world), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_takes_no_more_is_named() {
    let link = "blob-bytes-per-second=4MiB,blob-burst=100ms".parse().unwrap();
    let (world, first, _) = prepared(Config { link, ..Config::default() }).await;
    let run = output({
        let mut run = bench(&first, &container_url(&world, "rwcdl"));
        run.arg("--yes");
        run
    })
    .await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let found = results(&run.stdout);
    assert_eq!(found.verdict.limit, Limit::Target, "{} {:?}", found.verdict.sentence, found.cells[1].limits);
    assert!(found.cells.iter().any(|cell| cell.refused > 0.0));
    assert!(found.verdict.advice.iter().any(|advice| advice.contains("The target")), "{:?}", found.verdict);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_nothing_begins_and_a_dry_run_tells_what_it_would_take() {
    let (world, first, _) = prepared(Config::default()).await;
    let target = container_url(&world, "rwcdl");
    let written = || {
        let requests = world.target.requests();
        requests.iter().filter(|request| request.method != "GET" && request.method != "HEAD").count()
    };
    let before = written();
    let refused = output(bench(&first, &target)).await;
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let error = &document(&refused.stdout)["error"];
    assert!(error["next"].as_str().unwrap().contains("--yes"), "{error}");

    let mut dry = bench(&first, &target);
    dry.arg("--dry-run");
    let dry = document(&output(dry).await.stdout);
    assert_eq!((dry["runs"].as_u64(), dry["cells"].as_array().map(Vec::len)), (Some(4), Some(2)));
    let bytes = dry["estimate"]["bytes"].as_u64().unwrap();
    assert!((48 * MIB..49 * MIB).contains(&bytes), "four times twelve MiB and a footer: {bytes}");
    assert!(dry["estimate"]["once"].as_f64() > Some(0.0) && dry["prices"]["currency"] == "USD");
    assert_eq!(written(), before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_and_after_an_interruption_nothing_is_left() {
    let (world, first, second) = prepared(Config::default()).await;
    let target = container_url(&world, "rwcdl");
    let faults = world.target.faults();
    for (fault, code) in [
        (Fault::new(FaultKind::Forbidden).on(Call::PutPage).skip(20).always(), 3),
        (Fault::new(FaultKind::Forbidden).on(Call::SnapshotBlob).always(), 3),
        (Fault::new(FaultKind::FlipByteInRequest).on(Call::PutPage).skip(3).always(), 20),
    ] {
        faults.add(fault);
        let mut run = bench(&second, &target);
        run.arg("--yes").env("SNAPFERRY_PREVIOUS", first.grant());
        let run = output(run).await;
        faults.clear();
        assert_eq!(run.status.code(), Some(code), "{}", text(&run.stderr));
        assert_eq!(of_bench(&world), Vec::<String>::new(), "{}", text(&run.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_measured_before_an_error_is_told_and_no_settings_are_kept() {
    let (world, first, second) = prepared(Config::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let fault = Fault::new(FaultKind::Forbidden).on(Call::SnapshotBlob).skip(3).always();
    world.target.faults().add(fault);
    let mut run = bench(&second, &container_url(&world, "rwcdl"));
    run.args(["--yes", "--report", &at("b.json"), "--profile", &at("b.toml")]);
    run.env("SNAPFERRY_PREVIOUS", first.grant());
    let run = output(run).await;
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
    let found = Results::from_json(&std::fs::read_to_string(at("b.json")).unwrap()).unwrap();
    assert!(found.verdict.sentence.starts_with("Not complete: "), "{}", found.verdict.sentence);
    assert!(!found.cells.is_empty() && found.cells.iter().all(|cell| !cell.repeats.is_empty()));
    let document: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(document["error"]["exit_code"], 3, "{document}");
    assert!(!std::path::Path::new(&at("b.toml")).exists());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_and_nothing_is_left() {
    let link = "blob-bytes-per-second=1MiB,blob-burst=100ms".parse().unwrap();
    let (world, first, _) = prepared(Config { link, ..Config::default() }).await;
    let mut run = bench(&first, &container_url(&world, "rwcdl"));
    let child = run.arg("--yes").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while of_bench(&world).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let run = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(run.status.code(), Some(130), "{}", text(&run.stderr));
    assert!(!text(&run.stderr).contains("goes on from there"), "{}", text(&run.stderr));
    assert_eq!(of_bench(&world), Vec::<String>::new(), "{}", text(&run.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_deleted_is_named_with_the_command_that_does() {
    let (world, first, _) = prepared(Config::default()).await;
    let target = container_url(&world, "rwcdl");
    world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::DeleteBlob).always());
    let mut run = bench(&first, &target);
    run.arg("--yes");
    let run = output(run).await;
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
    let left = of_bench(&world);
    assert!(
        !left.is_empty() && left.iter().all(|name| name.split('/').nth(1).unwrap().starts_with('1')),
        "{left:?}"
    );
    let told = text(&run.stderr);
    let (_, command) = told.split_once("snapferry bench clean --run ").expect("the command is told");
    let run = command.split_whitespace().next().unwrap();
    assert!(told.contains(&left[0]), "{told}");

    world.target.faults().clear();
    let wrong = output(clean(&target, &run[..31])).await;
    assert_eq!((wrong.status.code(), of_bench(&world)), (Some(2), left));
    let other = output(clean(&target, &"0".repeat(32))).await;
    assert!(other.status.success() && !of_bench(&world).is_empty(), "another benchmark's stays");
    let cleaned = output(clean(&target, run)).await;
    assert!(cleaned.status.success(), "{}", text(&cleaned.stderr));
    assert_eq!(of_bench(&world), Vec::<String>::new());
    assert!(world.base(None).is_some());
}

fn clean(target: &str, run: &str) -> Command {
    let mut command = snapferry();
    command.args(["bench", "clean", "--run", run]).env("SNAPFERRY_TARGET", target);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_be_listed_or_a_sas_for_one_blob_is_refused_before_the_first_write() {
    let (world, first, _) = prepared(Config::default()).await;
    let one = world.account.blob_sas(CONTAINER, world::BASE, "rwcd", HOUR);
    for (target, code) in [(container_url(&world, "rwcd"), 4), (one, 2)] {
        let mut run = bench(&first, &target);
        run.arg("--yes");
        let run = output(run).await;
        assert_eq!(run.status.code(), Some(code), "{}", text(&run.stderr));
        assert!(text(&run.stderr).contains("rwcdl"), "{}", text(&run.stderr));
        assert_eq!(of_bench(&world), Vec::<String>::new());
    }
}

/// Bytes of the largest page write.
fn largest_write(world: &World) -> u64 {
    let length = |range: &str| {
        let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        end.parse::<u64>().unwrap() + 1 - start.parse::<u64>().unwrap()
    };
    let requests = world.target.requests();
    let writes = requests.iter().filter(|request| request.call == Call::PutPage);
    writes.filter_map(|request| request.header("x-ms-range").map(length)).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_uses_a_profile_and_what_is_typed_wins() {
    let folder = folder();
    let profile = folder.path().join("p.toml");
    std::fs::write(&profile, "# a comment\nconcurrency = 3\nchunk-size = \"512KiB\"\n").unwrap();
    for (typed, largest) in
        [(&[][..], MIB / 2), (&["--chunk-size", "2MiB"][..], 2 * MIB), (&["--chunk-size", "4MiB"], 4 * MIB)]
    {
        let world = World::new().await;
        let disk = world.disk(16 * MIB);
        disk.write(0, &noise(1, 12 * MIB)).unwrap();
        let first = disk.snapshot();
        let mut copy = snapferry();
        copy.args(["copy", "--quiet", "--profile"]).arg(&profile).args(typed);
        copy.env("SNAPFERRY_SOURCE", first.grant()).env("SNAPFERRY_TARGET", world.target_url());
        let copy = output(copy).await;
        assert!(copy.status.success(), "{}", text(&copy.stderr));
        assert_eq!(largest_write(&world), largest, "{typed:?}");
    }
    std::fs::write(&profile, "concurrency = 3\nchunk-size = \"9MiB\"\n").unwrap();
    for command in ["copy", "sync"] {
        let mut wrong = snapferry();
        wrong.args([command, "--output", "json", "--profile"]).arg(&profile);
        wrong.env("SNAPFERRY_SOURCE", "https://a.blob.core.windows.net/c/b").env("SNAPFERRY_DISK", "/x");
        wrong.env("SNAPFERRY_TARGET", "https://a.blob.core.windows.net/c/b");
        if command == "sync" {
            wrong.env_remove("SNAPFERRY_SOURCE");
        }
        let wrong = output(wrong).await;
        assert_eq!(wrong.status.code(), Some(2));
        let why = document(&wrong.stdout)["error"]["why"].as_str().unwrap().to_owned();
        assert!(why.starts_with("line 2: chunk-size"), "{why}");
    }
}

#[test]
fn mistakes_are_told_before_anything_is_measured() {
    let folder = folder();
    let inside = folder.path().join("no").join("b.html").display().to_string();
    let nameless = folder.path().join("b.pdf").display().to_string();
    for (arguments, code) in [
        (&["--report", &inside][..], 22),
        (&["--report", &nameless], 2),
        (&["--profile", &inside], 22),
        (&["--pattern", "own"], 2),
        (&["--mode", "fast"], 2),
        (&["--concurrency", "0"], 2),
        (&["--chunk-size", "5MiB"], 2),
        (&["--chunk-size", "1000"], 2),
        (&["--size", "1KiB"], 2),
        (&["--duration", "1ms"], 2),
        (&["--repeats", "0"], 2),
        (&["--link", "speed=1"], 2),
        (&["--source", "https://a.blob.core.windows.net/c/b?sig=x"], 2),
        (&["--target", "https://a.blob.core.windows.net/c?sig=x"], 2),
        (&["compare", "one.json"], 2),
        (&["compare", "a.json", "b.json", "--fail-if-slower", "5"], 2),
        (&["clean", "--run", "*", "--target", "https://a.blob.core.windows.net/c?sig=x"], 2),
    ] {
        let run = snapferry().arg("bench").args(arguments).output().unwrap();
        assert_eq!(run.status.code(), Some(code), "{arguments:?}: {}", text(&run.stderr));
        assert_eq!(text(&run.stdout), "");
    }
}

/// Killed, it tells nobody; they find out. (The test ends when they do.)
#[cfg(target_os = "linux")]
#[test]
fn the_emulated_regions_end_with_the_benchmark_however_it_ends() {
    use std::io::Read;
    let mut child = snapferry()
        .args(["bench", "--pattern", "dense", "--size", "1GiB", "--repeats", "1000", "--quiet"])
        .args(["--link", "blob-bytes-per-second=1MiB"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let regions = loop {
        let found = std::fs::read_to_string(&children).unwrap();
        if let Some(id) = found.split_whitespace().next() {
            break id.to_owned();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    let is_there = || {
        let command = std::fs::read_to_string(format!("/proc/{regions}/cmdline")).unwrap_or_default();
        command.contains("emulate")
    };
    while is_there() {
        std::thread::sleep(Duration::from_millis(5));
    }
}
