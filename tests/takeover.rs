//! Whose base blob is it? A dead writer's lease is waited for, a living one's is respected, and one that is broken lets
//! nothing of its old holder land.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use snapferry::azure::{PageBlob, Role};
use snapferry::progress::Progress;
use snapferry::replicate::replicate;
use snapferry::rollback::rollback;
use snapferry::step::{Report, Settings, Step};
use snapferry::{ErrorKind, Result};
use snapferry_emulator::{Call, DiskSnapshot, Fault, FaultKind};
use tokio_util::sync::CancellationToken;
use world::{MIB, World, noise, snapferry, text, url};

const LEASE_LAPSES: Duration = Duration::from_secs(61);
/// A wait that no test has the time for.
const LONG: Duration = Duration::from_mins(5);
/// The lease is looked at every two seconds.
const SOON: Duration = Duration::from_secs(15);

/// A base blob that is clean at the first of two snapshots.
struct Scene {
    world: World,
    first: DiskSnapshot,
    second: DiskSnapshot,
    step: Step,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let disk = world.disk(64 * MIB);
        disk.write(0, &noise(1, 32 * MIB)).unwrap();
        let first = disk.snapshot();
        world.copy(&first, None).await.unwrap();
        disk.write(0, &noise(2, 32 * MIB)).unwrap();
        let second = disk.snapshot();
        let step = world.step(&second, Some(&first));
        Self { world, first, second, step }
    }

    /// The step, by a writer who takes long.
    async fn slowly(&self, cancel: &CancellationToken) -> Result<Report> {
        let mut settings = self.world.settings;
        settings.caps.bytes_per_second = Some(2 * MIB);
        settings.plan.chunk = MIB / 4;
        self.run(settings, cancel).await
    }

    /// The step, by a writer who waits that long for the lease.
    async fn patiently(&self, wait: Duration) -> Result<Report> {
        let mut settings = self.world.settings;
        settings.lease.wait = wait;
        self.run(settings, &CancellationToken::new()).await
    }

    async fn breaking_in(&self) -> Result<Report> {
        let mut settings = self.world.settings;
        settings.lease.break_it = true;
        self.run(settings, &CancellationToken::new()).await
    }

    async fn run(&self, settings: Settings, cancel: &CancellationToken) -> Result<Report> {
        replicate(&self.step, &self.world.client, &settings, &Progress::default(), cancel).await
    }

    /// Waits until the step is being written.
    async fn under_way(&self) {
        let checkpoint = || {
            let base = self.world.base(None).unwrap();
            let is_under_way = base.metadata()["snapferry_state"] == "applying";
            is_under_way.then(|| base.metadata()["snapferry_checkpoint"].parse::<u64>().unwrap())
        };
        while checkpoint().unwrap_or_default() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Fails if a page write of the generation that was overtaken landed after one of the next.
    fn assert_fenced(&self) {
        let requests = self.world.target.requests();
        let writes: Vec<(u64, u16)> = requests
            .iter()
            .filter(|request| request.call == Call::PutPage)
            .map(|request| {
                (request.header("x-ms-if-sequence-number-eq").unwrap().parse().unwrap(), request.status)
            })
            .collect();
        let newest = writes.iter().map(|(generation, _)| *generation).max().unwrap();
        let taken_over = writes.iter().position(|(generation, _)| *generation == newest).unwrap();
        let landed =
            writes[taken_over..].iter().filter(|(generation, status)| *generation < newest && *status == 201);
        assert_eq!(landed.count(), 0);
    }
}

#[tokio::test]
async fn the_lease_of_a_dead_run_is_waited_for_and_no_longer() {
    let scene = Scene::new().await;
    let never = CancellationToken::new();
    // Whoever is dropped says no farewell.
    tokio::select! {
        ended = scene.slowly(&never) => panic!("it came to its end: {ended:?}"),
        () = scene.under_way() => {}
    }
    assert_eq!(scene.patiently(Duration::ZERO).await.unwrap_err().kind(), ErrorKind::LeaseHeld);
    let mut waiting = Box::pin(scene.patiently(LONG));
    let early = tokio::time::timeout(Duration::from_secs(3), &mut waiting).await;
    assert!(early.is_err(), "the lease still holds");
    scene.world.target.advance_clock(LEASE_LAPSES);
    let report =
        tokio::time::timeout(SOON, waiting).await.expect("it starts as soon as the lease lapses").unwrap();
    assert!(report.resumed_from.is_some_and(|offset| offset > 0));
    scene.world.assert_identical(&report, &scene.second);
    scene.assert_fenced();
}

#[tokio::test]
async fn a_living_writer_is_not_waited_for() {
    let scene = Scene::new().await;
    let cancel = CancellationToken::new();
    let second = async {
        scene.under_way().await;
        let started = Instant::now();
        let refused = scene.patiently(LONG).await.unwrap_err();
        assert!(started.elapsed() < SOON);
        assert_eq!(refused.kind(), ErrorKind::LeaseHeld);
        assert!(refused.why().contains("it is at work"), "{refused}");
        assert!(refused.why().contains("its marker was last written by"), "{refused}");
        cancel.cancel();
    };
    let (first, ()) = tokio::join!(scene.slowly(&cancel), second);
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Interrupted, "it was not disturbed");
    let report = scene.patiently(Duration::ZERO).await.unwrap();
    scene.world.assert_identical(&report, &scene.second);
}

/// Somebody holds the lease and shows no sign: the wait ends when it is over.
#[tokio::test]
async fn a_silent_holder_is_waited_for_as_long_as_was_asked() {
    let scene = Scene::new().await;
    let blob = PageBlob::connect(url(Role::Target, &scene.world.target_url()), &scene.world.client).unwrap();
    blob.acquire_lease(Some("00000000-0000-4000-8000-000000000001"), 60).await.unwrap();
    let (started, wait) = (Instant::now(), Duration::from_secs(3));
    let refused = scene.patiently(wait).await.unwrap_err();
    assert!(started.elapsed() >= wait && started.elapsed() < SOON);
    assert_eq!(refused.kind(), ErrorKind::LeaseHeld);
    assert!(!refused.why().contains("at work") && refused.advice().unwrap().contains("--break-lease"));
    assert_eq!(scene.world.state().as_deref(), Some("clean"));
}

#[tokio::test]
async fn a_broken_lease_lets_nothing_of_its_holder_land() {
    let scene = Scene::new().await;
    let never = CancellationToken::new();
    let second = async {
        scene.under_way().await;
        let started = Instant::now();
        let report = scene.breaking_in().await.unwrap();
        assert!(started.elapsed() < SOON, "it takes over at once");
        report
    };
    let (first, report) = tokio::join!(scene.slowly(&never), second);
    let lost = first.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::LeaseLost, "{lost}");
    assert!(report.resumed_from.is_some());
    scene.assert_fenced();
    scene.world.assert_identical(&report, &scene.second);
    world::assert_same_bytes(&scene.world.base(None).unwrap(), &scene.second);
    assert_eq!((scene.world.points(), scene.world.state().as_deref()), (2, Some("clean")));
}

/// A write of the old holder that the network delays.
#[tokio::test]
async fn a_late_write_of_the_old_holder_is_refused() {
    let scene = Scene::new().await;
    let late = FaultKind::DelayedApply { after: Duration::from_secs(4) };
    scene.world.target.faults().add(Fault::new(late).on(Call::PutPage).skip(3).times(2));
    let never = CancellationToken::new();
    tokio::select! {
        ended = scene.slowly(&never) => panic!("it came to its end: {ended:?}"),
        () = scene.under_way() => {}
    }
    let report = scene.breaking_in().await.unwrap();
    let late = || -> Vec<u16> {
        let requests = scene.world.target.requests();
        requests.iter().filter(|request| request.late).map(|request| request.status).collect()
    };
    while late().len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(late(), [412, 412]);
    scene.world.assert_identical(&report, &scene.second);
    world::assert_same_bytes(&scene.world.base(None).unwrap(), &scene.second);
}

/// A rollback may break in as well: the step ends, and the base equals its last point.
#[tokio::test]
async fn a_rollback_takes_the_base_from_a_running_step() {
    let scene = Scene::new().await;
    let never = CancellationToken::new();
    let back = async {
        scene.under_way().await;
        let mut settings = scene.world.settings;
        let target = url(Role::Target, &scene.world.target_url());
        let progress = Progress::default();
        let refused = rollback(&target, &scene.world.client, &settings, &progress, &never).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LeaseHeld);
        settings.lease.break_it = true;
        rollback(&target, &scene.world.client, &settings, &progress, &never).await.unwrap()
    };
    let (step, back) = tokio::join!(scene.slowly(&never), back);
    assert_eq!(step.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(back.outcome, "rolled-back");
    scene.assert_fenced();
    world::assert_same_bytes(&scene.world.base(None).unwrap(), &scene.first);
    assert_eq!((scene.world.points(), scene.world.state().as_deref()), (1, Some("clean")));
}

fn start(scene: &Scene, arguments: &[&str]) -> Child {
    let mut command: Command = snapferry();
    command.args(["copy", "--quiet", "--checkpoint-every", "50ms", "--chunk-size", "256KiB"]).args(arguments);
    command.env("SNAPFERRY_SOURCE", scene.second.grant()).env("SNAPFERRY_PREVIOUS", scene.first.grant());
    command.env("SNAPFERRY_TARGET", scene.world.target_url());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn ended(child: Child) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    (output.status.code(), text(&output.stderr))
}

/// The program itself: killed, waited for with the default wait, and broken into.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_waits_for_a_killed_run_and_breaks_in_when_asked() {
    let scene = Scene::new().await;
    let mut killed = start(&scene, &["--rate-limit", "2MiB/s"]);
    scene.under_way().await;
    killed.kill().unwrap();
    ended(killed).await;
    let mut waiting = start(&scene, &["--rate-limit", "2MiB/s"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    let run_of = || scene.world.base(None).unwrap().metadata()["snapferry_run"].clone();
    let of_the_killed = run_of();
    scene.world.target.advance_clock(LEASE_LAPSES);
    let started = Instant::now();
    while run_of() == of_the_killed {
        assert!(started.elapsed() < SOON, "it starts as soon as the lease lapses");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It is at work now: one that is not to break in gives up, one that is does not.
    let (code, told) = ended(start(&scene, &[])).await;
    assert_eq!(code, Some(17), "{told}");
    let (code, told) = ended(start(&scene, &["--break-lease"])).await;
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = ended(waiting).await;
    assert_eq!(code, Some(18), "{told}");
    world::assert_same_bytes(&scene.world.base(None).unwrap(), &scene.second);
    assert_eq!((scene.world.points(), scene.world.state().as_deref()), (2, Some("clean")));
    scene.assert_fenced();
}
