//! Transfer mode `server`: the service of the base blob pulls the bytes by itself, and nothing that is said of the result
//! goes beyond what is known of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "server_mode/ended.rs"]
mod ended;
mod scene;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use scene::{CHUNK, ask, small_chunks};
use snapferry::ErrorKind;
use snapferry::azure::crc64::Crc64;
use snapferry::azure::{Destination, PlainHttp, Role};
use snapferry::ingest::{ImageJob, copy_image};
use snapferry::progress::Progress;
use snapferry::record::digest;
use snapferry::replicate::replicate;
use snapferry::restore::blob::{BlobJob, restore_to_blob};
use snapferry::restore::point::Which;
use snapferry::scrub::{ScrubJob, scrub};
use snapferry::step::{Mode, Report};
use snapferry::verify::{RecordState, Verdict, VerifyJob, VerifyReport, verify};
use snapferry_emulator::{BusyText, Call, Config, Disk, DiskSnapshot, Fault, FaultKind, Knobs, Link};
use tokio_util::sync::CancellationToken;
use world::manager::Heard;
use world::{CONTAINER, MIB, World, assert_same_bytes, noise, raw, url};

/// A world that copies in server mode, and a disk with something on it.
async fn world(target: Knobs) -> (World, Disk, DiskSnapshot) {
    let mut world = World::with(Config::default(), Config { knobs: target, ..Config::default() }).await;
    small_chunks(&mut world);
    world.settings.mode = Mode::Server;
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, 2 * MIB)).unwrap();
    disk.write(6 * MIB, &noise(2, MIB)).unwrap();
    let first = disk.snapshot();
    (world, disk, first)
}

/// Changes the disk, with something to be cleared.
fn change(disk: &Disk) -> DiskSnapshot {
    disk.write(MIB, &noise(3, MIB)).unwrap();
    disk.clear(0, MIB / 2).unwrap();
    disk.write(4 * MIB, &noise(4, 9 * 512)).unwrap();
    disk.snapshot()
}

fn pulls(world: &World) -> u64 {
    world.target.stats().of(Call::PutPageFromUrl).requests
}

fn puts(world: &World) -> u64 {
    world.target.stats().of(Call::PutPage).requests
}

fn metadata(world: &World, report: &Report) -> BTreeMap<String, String> {
    world.base(Some(&report.point.point)).unwrap().metadata().clone()
}

/// Right in every byte, and of what did not pass this machine nothing is claimed.
fn assert_pulled(world: &World, report: &Report, snapshot: &DiskSnapshot) {
    assert_same_bytes(&world.base(Some(&report.point.point)).unwrap(), snapshot);
    let metadata = metadata(world, report);
    assert!(!metadata.contains_key("snapferry_record"), "{metadata:?}");
    assert_eq!((metadata["snapferry_digest"].as_str(), metadata["snapferry_format"].as_str()), ("none", "3"));
    assert!(metadata["snapferry_bytes_pulled"].parse::<u64>().unwrap() > 0);
    assert_eq!(
        digest::is_right(&metadata),
        Some(true),
        "what is said stands under the digest of the metadata"
    );
    assert!(report.point.digest.is_none() && !report.point.recorded && report.point.bytes_pulled > 0);
    assert_eq!(world.state().as_deref(), Some("clean"));
}

async fn verified(
    world: &World,
    report: &Report,
    source: Option<&DiskSnapshot>,
) -> snapferry::Result<VerifyReport> {
    let job = VerifyJob {
        target: url(Role::Target, &world.target_url()),
        which: Which::Named(report.point.point.clone()),
        source: source.map(|source| url(Role::Source, &source.grant())),
        reference: None,
        sample: None,
        outside_diff: None,
        seed: None,
    };
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    verify(&job, &world.client, &world.settings, &progress, &cancel).await
}

#[tokio::test]
async fn a_full_copy_and_a_difference_are_identical_and_say_what_they_lack() {
    let (mut world, disk, first) = world(Knobs::default()).await;
    let full = world.copy(&first, None).await.unwrap();
    assert_pulled(&world, &full, &first);
    assert_eq!((full.mode, full.fell_back.as_deref()), (Some(Mode::Server), None));
    assert_eq!((full.bytes_sent, full.bytes_pulled), (3 * MIB + 512, 3 * MIB + 512));
    assert_eq!(
        (puts(&world), pulls(&world)),
        (0, full.totals.data_chunks),
        "no byte went through this machine"
    );
    // Four chunks at random, of which one may be the footer.
    let read_back = full.verified.unwrap().bytes;
    assert!(
        [4 * CHUNK, 3 * CHUNK + 512].contains(&read_back),
        "what did not pass was read back: {read_back}"
    );

    let clears = world.target.stats().of(Call::ClearPages).requests;
    let second = change(&disk);
    let difference = world.copy(&second, Some(&first)).await.unwrap();
    assert_pulled(&world, &difference, &second);
    assert!(world.target.stats().of(Call::ClearPages).requests > clears, "clears stay clears");
    assert_eq!(difference.bytes_zero, MIB / 2);

    // Later steps have records again, of what they write.
    world.settings.mode = Mode::Stream;
    disk.write(5 * MIB, &noise(5, CHUNK)).unwrap();
    let third = disk.snapshot();
    let streamed = world.copy(&third, Some(&second)).await.unwrap();
    assert_same_bytes(&world.base(Some(&streamed.point.point)).unwrap(), &third);
    assert!(streamed.point.recorded && streamed.point.digest.is_some() && streamed.point.bytes_pulled == 0);
    let seen = verified(&world, &streamed, None).await.unwrap();
    assert_eq!((seen.verdict, seen.record), (Verdict::Equal, RecordState::Partial));
    assert_eq!(seen.bytes_unknown, third.len() - CHUNK, "what no record knows is not taken for right");
}

#[tokio::test]
async fn a_checksum_in_the_replies_gives_the_digest_and_nothing_else() {
    let knobs = Knobs { put_page_from_url_returns_crc64: true, ..Knobs::default() };
    let (world, _, first) = world(knobs).await;
    let report = world.copy(&first, None).await.unwrap();
    assert_same_bytes(&world.base(Some(&report.point.point)).unwrap(), &first);
    let whole = Crc64::of(&first.read(0, first.len())).value();
    assert_eq!(report.point.digest, Some(format!("{whole:016x}")));
    assert!(!report.point.recorded && metadata(&world, &report)["snapferry_format"] == "3");
}

#[tokio::test]
async fn what_verify_scrub_and_the_list_say_of_such_a_point() {
    let (world, _, first) = world(Knobs::default()).await;
    let report = world.copy(&first, None).await.unwrap();
    let alone = verified(&world, &report, None).await.unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::NotFound);
    assert!(alone.why().contains("server mode") && alone.advice().unwrap().contains("--source"), "{alone}");
    let with_source = verified(&world, &report, Some(&first)).await.unwrap();
    assert_eq!((with_source.verdict, with_source.record), (Verdict::Equal, RecordState::None));
    assert_eq!(with_source.bytes_compared, first.len());
    let container = Destination::parse(&world.container_url(), PlainHttp::LoopbackOnly).unwrap();
    let job = ScrubJob { container, per_day: 1.0, now: Timestamp::now() };
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let scrubbed = scrub(&job, &world.client, &world.settings, &progress, &cancel).await.unwrap();
    assert_eq!((scrubbed.points, scrubbed.points_without_record, scrubbed.bytes_compared), (1, 1, 0));
    assert!(scrubbed.findings.is_empty());
    let (code, list, _) = ask(&world, &["points"]).await;
    assert!(code == Some(0) && list.lines().nth(1).unwrap().contains("none"), "{list}");
    let (_, shown, _) = ask(&world, &["points", "show", "--source", first.time()]).await;
    for part in ["by the service itself (server mode)", "digest        none", "record        none"] {
        assert!(shown.contains(part), "'{part}' is missing in {shown}");
    }
    let (_, json, _) = ask(&world, &["points", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let point = &json["points"][0];
    assert!(
        point["digest"].is_null() && point["recorded"] == false && point["bytes_pulled"] == 3 * MIB + 512
    );
}

#[tokio::test]
async fn a_refusal_of_the_mode_falls_back_after_one_try_and_the_record_is_whole() {
    let knobs = Knobs { copy_from_incremental_refused: true, ..Knobs::default() };
    let (world, disk, first) = world(knobs).await;
    let report = world.copy(&first, None).await.unwrap();
    world.assert_identical(&report, &first);
    assert_eq!((report.mode, report.bytes_pulled), (Some(Mode::Stream), 0));
    let why = report.fell_back.as_deref().unwrap();
    assert!(why.contains("CopySourceCannotBeIncrementalCopyBlob"), "{why}");
    assert_eq!(pulls(&world), 1, "the first chunk is tried alone");
    assert!(report.point.digest.is_some() && report.point.recorded);
    assert_eq!(metadata(&world, &report)["snapferry_format"], "2");
    let second = change(&disk);
    let difference = world.copy(&second, Some(&first)).await.unwrap();
    world.assert_identical(&difference, &second);

    // The same by an answer that says nothing of copies.
    let (world, _, first) = self::world(Knobs::default()).await;
    world.target.faults().add(Fault::new(FaultKind::NotSupported).on(Call::PutPageFromUrl).always());
    let report = world.copy(&first, None).await.unwrap();
    world.assert_identical(&report, &first);
    assert_eq!((pulls(&world), report.fell_back.is_some()), (1, true));
}

/// The number of reads of the source before the first chunk is pulled.
async fn reads_before(world: &World, snapshot: &DiskSnapshot) -> u64 {
    let before = world.source.stats().of(Call::GetBlob).requests;
    world.plan(snapshot, None).await.unwrap();
    world.source.stats().of(Call::GetBlob).requests - before
}

#[tokio::test]
async fn a_source_that_only_the_service_cannot_read_falls_back() {
    let (world, _, first) = world(Knobs::default()).await;
    let reads = reads_before(&world, &first).await;
    world.source.faults().add(Fault::new(FaultKind::Forbidden).on(Call::GetBlob).skip(reads));
    let report = world.copy(&first, None).await.unwrap();
    world.assert_identical(&report, &first);
    let why = report.fell_back.as_deref().unwrap();
    assert!(why.contains("CannotVerifyCopySource"), "{why}");
    assert_eq!(pulls(&world), 1);
}

#[tokio::test]
async fn a_refusal_in_the_middle_goes_on_from_there_and_leaves_no_half_record() {
    let (world, _, first) = world(Knobs::default()).await;
    world.target.faults().add(Fault::new(FaultKind::NotSupported).on(Call::PutPageFromUrl).skip(9).always());
    let report = world.copy(&first, None).await.unwrap();
    assert_pulled(&world, &report, &first);
    assert_eq!((report.mode, report.bytes_pulled), (Some(Mode::Server), 9 * CHUNK));
    assert!(report.fell_back.is_some() && puts(&world) > 0);
    let record = world.account.blob_names(CONTAINER).into_iter().find(|name| name.contains(".records/"));
    assert!(record.is_none() || !metadata(&world, &report).contains_key("snapferry_record"));
}

#[tokio::test]
async fn a_sas_that_ended_is_no_refusal_of_the_mode() {
    let (mut world, _, first) = world(Knobs::default()).await;
    world.target.set_link(Link { latency: Duration::from_millis(2), ..Link::default() });
    world.settings.copy.concurrency = 2;
    let step = world.step(&first, None);
    let ended = async {
        while pulls(&world) < 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.revoke();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        result = world.run(&step) => result.unwrap_err(),
        () = ended => unreachable!(),
    };
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
    assert!(error.to_string().contains("source"), "{error}");
    assert_eq!(puts(&world), 0, "it did not fall back");
    let report = world.copy(&first, None).await.unwrap();
    assert_pulled(&world, &report, &first);
    assert!(report.resumed_from.is_some());
}

#[tokio::test]
async fn a_sas_that_ends_in_mid_copy_is_renewed_and_the_mode_stays() {
    const LIFE: Duration = Duration::from_secs(30);
    let (mut world, disk, first) = world(Knobs::default()).await;
    world.target.set_link(Link { latency: Duration::from_millis(4), ..Link::default() });
    world.settings.copy.concurrency = 2;
    let mut job = world.job(&disk);
    job.grants.duration = LIFE;
    let heard = Heard::default();
    let ends_twice = async {
        for pulled in [12, 30] {
            while pulls(&world) < pulled {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            world.source.advance_clock(LIFE + Duration::from_secs(1));
        }
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        report = world.sync_telling(&job, &heard) => report.unwrap(),
        () = ends_twice => unreachable!(),
    };
    world.assert_points(&[&first]);
    let step = &report.steps[0];
    assert_eq!((step.mode, step.fell_back.as_deref(), puts(&world)), (Some(Mode::Server), None, 0));
    assert!(world.source.stats().of(Call::BeginGetAccess).requests >= 3);
}

#[tokio::test]
async fn a_source_that_is_too_busy_is_waited_for_and_counted_at_the_source() {
    let (world, _, first) = world(Knobs::default()).await;
    let reads = reads_before(&world, &first).await;
    let busy = Fault::new(FaultKind::ServerBusy(BusyText::Busy)).on(Call::GetBlob);
    world.source.faults().add(busy.clone().skip(reads).times(2));
    world.source.faults().add(busy.skip(reads + 10).times(6));
    let (step, progress) = (world.step(&first, None), Progress::default());
    let cancel = CancellationToken::new();
    let report = replicate(&step, &world.client, &world.settings, &progress, &cancel).await.unwrap();
    assert_pulled(&world, &report, &first);
    assert_eq!((report.fell_back.as_deref(), puts(&world)), (None, 0));
    let read = progress.read();
    assert_eq!((read.source.refused, read.target.refused), (8, 0));
    assert_eq!((read.target.retries, read.target.bytes_out), (8, 0));
}

#[tokio::test]
async fn a_source_that_wants_a_token_besides_its_sas_falls_back_and_says_so() {
    let knobs = Knobs { export_needs_bearer: true, ..Knobs::default() };
    let mut world = World::with(Config { knobs, ..Config::default() }, Config::default()).await;
    world.settings.mode = Mode::Server;
    world.client = world.signed_in();
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let first = disk.snapshot();
    let report = world.copy(&first, None).await.unwrap();
    world.assert_identical(&report, &first);
    assert_eq!((pulls(&world), report.mode), (0, Some(Mode::Stream)));
    assert!(report.fell_back.unwrap().contains("token"));
}

#[tokio::test]
async fn a_source_that_no_service_can_read_is_refused_before_anything_is_done() {
    let (world, _, first) = world(Knobs::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, vec![1; 1 << 20]).unwrap();
    let image = format!("file:{}", path.display());
    for command in ["copy", "plan"] {
        let (code, _, told) = ask(&world, &[command, "--mode", "server", "--source", &image]).await;
        assert!(code == Some(2) && told.contains("leave --mode server out"), "{told}");
    }
    let job = ImageJob {
        image: snapferry::image::ImagePath::parse(&image, None).unwrap(),
        target: url(Role::Target, &world.target_url()),
    };
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let refused = copy_image(&job, &world.client, &world.settings, &progress, &cancel).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Usage);
    assert!(world.base(None).is_none());

    world.copy(&first, None).await.unwrap();
    let elsewhere = world.account.container_sas(CONTAINER, "elsewhere", "rcwdl", world::HOUR);
    let job = BlobJob {
        from: url(Role::Source, &world.target_url()),
        which: Which::Latest,
        to: url(Role::Target, &elsewhere),
        differential: false,
    };
    let refused =
        restore_to_blob(&job, &world.client, &world.settings, &progress, &cancel).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Usage);
    assert!(refused.advice().unwrap().contains("--mode"));
}

#[tokio::test]
async fn the_command_line_says_what_was_done() {
    let (world, disk, first) = world(Knobs::default()).await;
    let grant = first.grant();
    let asked = ["--mode", "server", "--chunk-size", "64KiB", "--source", &grant, "--output", "json"];
    let json = async |command: &str| -> serde_json::Value {
        let (code, shown, told) = ask(&world, &[&[command], &asked[..]].concat()).await;
        assert_eq!(code, Some(0), "{told}");
        serde_json::from_str(&shown).unwrap()
    };
    let planned = json("plan").await;
    assert_eq!(planned["mode"], "server");
    let copied = json("copy").await;
    assert_eq!((&copied["mode"], &copied["fell_back"]), (&"server".into(), &serde_json::Value::Null));
    assert_eq!(copied["bytes_pulled"], copied["bytes_sent"]);
    assert_eq!(planned["requests_planned"].as_u64().unwrap(), pulls(&world));
    assert!(json("copy").await["mode"].is_null(), "nothing was left to move");

    let second = change(&disk);
    world.target.faults().add(Fault::new(FaultKind::NotSupported).on(Call::PutPageFromUrl));
    let (one, two) = (first.grant(), second.grant());
    let (code, shown, told) =
        ask(&world, &["copy", "--mode", "server", "--source", &two, "--previous", &one]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(shown.contains("mode          stream, not server: "), "{shown}");
    assert_eq!(told.matches("going on in stream mode").count(), 1, "{told}");
}

/// The service shows the SAS to the source byte for byte, and nobody else sees it.
#[tokio::test]
async fn the_sas_of_the_source_is_shown_to_the_source_alone() {
    let (world, _, first) = world(Knobs::default()).await;
    let grant = first.grant();
    world.run(&world::step(&grant, None, &world.target_url())).await.unwrap();
    let query = grant.split_once('?').unwrap().1;
    let gets: Vec<_> =
        world.source.requests().into_iter().filter(|request| request.call == Call::GetBlob).collect();
    assert!(gets.len() as u64 > pulls(&world));
    assert!(gets.iter().all(|request| request.path_and_query.ends_with(query)));
    let kept = format!("{:?}", world.base(None).unwrap().metadata());
    let signature = query.split('&').find_map(|pair| pair.strip_prefix("sig=")).unwrap();
    assert!(!kept.contains(signature));
    // A read of the base blob does not give away where it came from.
    let head = raw(reqwest::Method::HEAD, &world.target_url(), &[], Vec::new()).await;
    assert!(!format!("{:?}", head.headers()).contains(signature));
    let shown = Arc::new(world.step(&first, None));
    assert!(!format!("{shown:?}").contains(signature));
}
