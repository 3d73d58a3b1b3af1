//! All points of a container are held against their records, a share of them every day, and what rots is found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod scene;
mod world;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use scene::{CHUNK, interrupted, small_chunks};
use snapferry::azure::{Destination, PlainHttp};
use snapferry::progress::Progress;
use snapferry::scrub::{Fault, STATE_NAME, ScrubJob, ScrubReport, scrub};
use snapferry::{ErrorKind, Result};
use snapferry_emulator::{Call, DiskSnapshot, FaultKind};
use tokio_util::sync::CancellationToken;
use world::{CONTAINER, HOUR, MIB, World, noise, output, raw, snapferry, step, text};

/// Two base blobs: one with three points, one with one.
struct Fleet {
    world: World,
    points: Vec<(&'static str, String)>,
    total: u64,
}

impl Fleet {
    async fn new() -> Self {
        let mut world = World::new().await;
        small_chunks(&mut world);
        let (mut points, mut total) = (Vec::new(), 0);
        for (blob, steps) in [("a", 3), ("b/nested name", 1)] {
            let disk = world.source.create_disk(&format!("disk-{steps}"), 4 * MIB).unwrap();
            let mut before: Option<DiskSnapshot> = None;
            for round in 0..steps {
                disk.write(round * MIB, &noise(round + steps, MIB)).unwrap();
                let now = disk.snapshot();
                let target = world.account.container_sas(CONTAINER, blob, "rcwdl", HOUR);
                let previous = before.as_ref().map(DiskSnapshot::grant);
                let report = world.run(&step(&now.grant(), previous.as_deref(), &target)).await.unwrap();
                points.push((blob, report.point.point));
                total += now.len();
                before = Some(now);
            }
        }
        Self { world, points, total }
    }

    fn job(&self, per_day: f64, now: Timestamp) -> ScrubJob {
        let container = Destination::parse(&self.world.container_url(), PlainHttp::LoopbackOnly).unwrap();
        ScrubJob { container, per_day, now }
    }

    async fn scrub(&self, per_day: f64, now: Timestamp) -> Result<ScrubReport> {
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        scrub(&self.job(per_day, now), &self.world.client, &self.world.settings, &progress, &cancel).await
    }

    fn rot(&self, point: usize, at: u64) {
        let (blob, time) = &self.points[point];
        assert!(self.world.account.flip_bit(CONTAINER, blob, Some(time), at, 4));
    }

    async fn delete(&self, point: usize) {
        let (blob, time) = &self.points[point];
        let url = self.world.account.container_sas(CONTAINER, blob, "rcwdl", HOUR);
        let deleted = raw(Method::DELETE, &format!("{url}&snapshot={time}"), &[], Vec::new()).await;
        assert_eq!(deleted.status().as_u16(), 202);
    }
}

fn noon() -> Timestamp {
    "2030-01-01T12:00:00Z".parse().unwrap()
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

#[tokio::test]
async fn a_share_a_day_makes_a_pass_in_its_time() {
    let fleet = Fleet::new().await;
    let mut compared = 0;
    for day in 0..4 {
        let report = fleet.scrub(0.25, noon() + days(day)).await.unwrap();
        assert!(report.error().is_none() && report.bytes_unknown == 0, "{report:?}");
        assert_eq!((report.points, report.bytes_total), (4, fleet.total));
        let off = report.bytes_compared.abs_diff(fleet.total / 4);
        assert!(off <= 2 * CHUNK, "day {day}: {} of {}", report.bytes_compared, fleet.total);
        compared += report.bytes_compared;
        assert_eq!(report.last_full_pass.is_some(), compared >= fleet.total, "day {day}");
    }
    // A fifth of an hour later a little is due.
    let later = noon() + days(3) + SignedDuration::from_mins(12);
    let report = fleet.scrub(0.25, later).await.unwrap();
    assert!(report.bytes_compared > 0 && report.bytes_compared <= 2 * CHUNK, "{}", report.bytes_compared);
    // After a long pause it is one pass, and not twenty.
    let report = fleet.scrub(0.25, noon() + days(90)).await.unwrap();
    assert_eq!((report.bytes_due, report.last_full_pass), (fleet.total, Some(noon() + days(90))));
    assert!(report.bytes_compared <= fleet.total + CHUNK);
}

#[tokio::test]
async fn what_rots_is_found_and_known_until_it_is_gone() {
    let fleet = Fleet::new().await;
    fleet.rot(1, 77);
    fleet.rot(3, MIB - 1);
    let name = fleet.world.account.blob_names(CONTAINER);
    let record = name.iter().rfind(|name| name.starts_with("a.records/")).unwrap();
    assert!(fleet.world.account.flip_bit(CONTAINER, record, None, 60, 0));
    let metadata = |value: &str| {
        let (blob, time) = &fleet.points[0];
        fleet.world.account.set_metadata_raw(CONTAINER, blob, Some(time), "snapferry_owner", value);
    };
    let owner = fleet.world.account.read_blob(CONTAINER, "a", Some(&fleet.points[0].1)).unwrap();
    let owner = owner.metadata()["snapferry_owner"].clone();
    metadata("somebody");
    for (day, after_days) in [1, 2].into_iter().enumerate() {
        let report = fleet.scrub(1.0, noon() + days(after_days)).await.unwrap();
        let found: Vec<_> = report
            .findings
            .iter()
            .map(|f| (f.blob.as_str(), f.point.as_str(), f.fault, f.first_difference))
            .collect();
        let point = |index: usize| (fleet.points[index].0, fleet.points[index].1.as_str());
        let expected = [
            (point(0), Fault::MetadataDamaged, None),
            (point(1), Fault::Differs, Some(0)),
            (point(2), Fault::RecordDamaged, None),
            (point(3), Fault::Differs, Some(MIB - 4096)),
        ];
        let expected = expected.map(|((blob, point), fault, first)| (blob, point, fault, first));
        assert_eq!(found, expected, "pass {day}");
        let error = report.error().unwrap();
        assert_eq!(error.kind(), ErrorKind::Differs);
        assert!(error.advice().is_some());
    }
    // What is right again is forgotten when it is seen, what is pruned at once.
    metadata(&owner);
    fleet.rot(1, 77);
    fleet.delete(3).await;
    let report = fleet.scrub(0.01, noon() + days(2) + SignedDuration::from_mins(1)).await.unwrap();
    assert_eq!(report.findings.len(), 3, "{:?}", report.findings);
    let report = fleet.scrub(1.0, noon() + days(4)).await.unwrap();
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!(report.error().unwrap().kind(), ErrorKind::Corruption);
}

#[tokio::test]
async fn an_interrupted_scrub_goes_on_where_it_stopped() {
    let fleet = Fleet::new().await;
    fleet.rot(0, 5);
    fleet.rot(2, 2 * MIB);
    let (world, job) = (&fleet.world, &fleet.job(1.0, noon()));
    let settings = snapferry::step::Settings {
        plan: snapferry::plan::PlanOptions { chunk: 4096, ..world.settings.plan },
        ..world.settings
    };
    for reads in [8, 30, 60] {
        let ended = interrupted(world, Call::GetBlob, reads, |cancel| async move {
            scrub(job, &world.client, &settings, &Progress::default(), &cancel).await
        });
        assert_eq!(ended.await.unwrap_err().kind(), ErrorKind::Interrupted);
    }
    let report = fleet.scrub(1.0, noon()).await.unwrap();
    assert_eq!(report.findings.len(), 2, "{:?}", report.findings);
    assert!(report.last_full_pass.is_some());
}

#[tokio::test]
async fn of_two_scrubs_one_gives_way() {
    let fleet = Fleet::new().await;
    let (world, job) = (&fleet.world, &fleet.job(1.0, Timestamp::now()));
    let held = FaultKind::Stall { lasting: Duration::from_secs(4) };
    world.target.faults().add(snapferry_emulator::Fault::new(held).on(Call::GetBlob).skip(6).times(1));
    let fired = world.target.faults().fired();
    let first = async {
        scrub(job, &world.client, &world.settings, &Progress::default(), &CancellationToken::new()).await
    };
    let others = async {
        while world.target.faults().fired() == fired {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let refused = fleet.scrub(1.0, Timestamp::now()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LeaseHeld, "{refused}");
        // The first shows no sign of life for long: it is taken for dead.
        fleet.scrub(1.0, Timestamp::now() + SignedDuration::from_mins(11)).await.unwrap()
    };
    let (first, second) = tokio::join!(first, others);
    assert_eq!(first.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(second.last_full_pass.is_some() && second.findings.is_empty());
}

#[tokio::test]
async fn an_empty_container_and_a_strange_state() {
    let world = World::new().await;
    let fleet = Fleet { world, points: Vec::new(), total: 0 };
    let report = fleet.scrub(0.5, noon()).await.unwrap();
    assert_eq!((report.points, report.bytes_compared, report.error().is_none()), (0, 0, true));
    assert!(fleet.world.account.flip_bit(CONTAINER, STATE_NAME, None, 0, 0));
    let refused = fleet.scrub(0.5, noon()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corruption);
    assert!(refused.advice().unwrap().contains("delete that blob"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_with_26_while_something_is_known_to_be_wrong() {
    let fleet = Fleet::new().await;
    let run = |url: String, more: &'static [&'static str]| async move {
        let mut command = snapferry();
        command.args(["scrub", "--quiet", "--container", &url]).args(more);
        let ended = output(command).await;
        (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
    };
    let container = fleet.world.container_url();
    let (code, shown, told) = run(container.clone(), &["--per-day", "100%"]).await;
    assert!(code == Some(0) && shown.contains("compared"), "{shown}{told}");
    fleet.rot(0, 9);
    fleet.world.account.delete_blob(CONTAINER, STATE_NAME);
    let (code, shown, told) = run(container, &["--per-day", "100%", "--output", "json"]).await;
    let document: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &document["findings"][0]["fault"]), (Some(26), &"differs".into()), "{told}");
    assert!(!shown.contains("sig=") && !told.contains("sig="));
    let unlisted = fleet.world.account.container_sas(CONTAINER, "x", "rcw", HOUR).replacen("/x?", "?", 1);
    let (code, _, told) = run(unlisted, &[]).await;
    assert!(matches!(code, Some(3 | 4)) && told.contains("list permission"), "{told}");
    assert_eq!(run(fleet.world.target_url(), &[]).await.0, Some(2));
}
