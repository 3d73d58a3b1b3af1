//! Two emulated regions, a disk in one and a container in the other: what most tests start from.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs, unreachable_pub)]

pub mod manager;
pub mod record;

use std::time::Duration;

use snapferry::azure::{Client, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use snapferry::dry_run::plan;
use snapferry::progress::Progress;
use snapferry::replicate::replicate;
use snapferry::step::{PlanReport, Report, Settings, Step};
use snapferry_emulator::{Account, BlobView, Config, Disk, DiskSnapshot, Emulator};
use tokio_util::sync::CancellationToken;

pub const HOUR: Duration = Duration::from_hours(1);
pub const MIB: u64 = 1 << 20;
pub const CONTAINER: &str = "disks";
pub const BASE: &str = "base";

pub struct World {
    pub source: Emulator,
    pub target: Emulator,
    pub account: Account,
    pub settings: Settings,
    pub client: Client,
    /// How long a call may fail, where it is not the usual time.
    pub retry_for: Option<Duration>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Config::default(), Config::default()).await
    }

    pub async fn with(source: Config, target: Config) -> Self {
        let source = Emulator::start(Config { record: true, ..source }).await.unwrap();
        let target = Emulator::start(Config { record: true, ..target }).await.unwrap();
        let account = target.account("target");
        account.create_container(CONTAINER);
        Self { source, target, account, settings: settings(), client: client(), retry_for: None }
    }

    pub fn disk(&self, bytes: u64) -> Disk {
        self.source.create_disk("disk", bytes).unwrap()
    }

    /// The base blob with a SAS that allows everything.
    pub fn target_url(&self) -> String {
        self.account.container_sas(CONTAINER, BASE, "rcwdl", HOUR)
    }

    pub fn step(&self, source: &DiskSnapshot, previous: Option<&DiskSnapshot>) -> Step {
        step(&source.grant(), previous.map(DiskSnapshot::grant).as_deref(), &self.target_url())
    }

    pub async fn copy(
        &self,
        source: &DiskSnapshot,
        previous: Option<&DiskSnapshot>,
    ) -> snapferry::Result<Report> {
        self.run(&self.step(source, previous)).await
    }

    pub async fn run(&self, step: &Step) -> snapferry::Result<Report> {
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        replicate(step, &self.client, &self.settings, &progress, &cancel).await
    }

    pub async fn plan(
        &self,
        source: &DiskSnapshot,
        previous: Option<&DiskSnapshot>,
    ) -> snapferry::Result<PlanReport> {
        plan(&self.step(source, previous), &self.client, &self.settings, &Progress::default()).await
    }

    /// The base blob, or one of its points, as the emulator holds it.
    pub fn base(&self, point: Option<&str>) -> Option<BlobView> {
        self.account.read_blob(CONTAINER, BASE, point)
    }

    /// Fails unless the point equals the snapshot, byte for byte; neither is read through the code under test.
    pub fn assert_identical(&self, report: &Report, snapshot: &DiskSnapshot) {
        let point = self.base(Some(&report.point.point)).expect("the point exists");
        assert_same_bytes(&point, snapshot);
        record::assert_recorded(&self.account, CONTAINER, &point, snapshot);
    }

    /// The state that the base claims for itself.
    pub fn state(&self) -> Option<String> {
        self.base(None)?.metadata().get("snapferry_state").cloned()
    }

    pub fn points(&self) -> usize {
        self.base(None).map_or(0, |base| base.snapshots().len())
    }
}

pub fn assert_same_bytes(point: &BlobView, snapshot: &DiskSnapshot) {
    assert_eq!(point.len(), snapshot.len(), "lengths differ");
    let mut at = 0;
    while at < point.len() {
        let length = (4 * MIB).min(point.len() - at);
        let (ours, theirs) = (point.read(at, length), snapshot.read(at, length));
        if let Some(byte) = ours.iter().zip(&theirs).position(|(a, b)| a != b) {
            panic!("the point differs from its snapshot at byte {}", at + byte as u64);
        }
        at += length;
    }
}

pub fn step(source: &str, previous: Option<&str>, target: &str) -> Step {
    Step {
        source: url(Role::Source, source),
        previous: previous.map(|previous| url(Role::Previous, previous)),
        target: url(Role::Target, target),
        origin: None,
    }
}

pub fn url(role: Role, text: &str) -> Resource {
    Resource::parse(role, text, PlainHttp::LoopbackOnly).unwrap()
}

/// Limits at which a test that must fail fails soon.
pub fn client() -> Client {
    let timeouts = Timeouts {
        connect: Duration::from_secs(2),
        call: Duration::from_secs(20),
        stall: Duration::from_secs(10),
    };
    let retry = RetryPolicy {
        budget: Duration::from_secs(20),
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(100),
    };
    Client::new(timeouts, retry, None).unwrap()
}

pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.copy.checkpoint_every = Duration::from_millis(20);
    settings.copy.concurrency = 8;
    settings.lease.wait = Duration::ZERO;
    settings
}

/// Bytes without zeros that depend on the seed.
pub fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    random.fill(&mut bytes);
    for byte in &mut bytes {
        *byte |= 1;
    }
    bytes
}

/// The real program, with nothing of our own in its environment.
pub fn snapferry() -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_snapferry"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SNAPFERRY_") {
            command.env_remove(name);
        }
    }
    command.stdin(std::process::Stdio::null());
    command
}

/// Runs a command to its end without blocking the emulators.
pub async fn output(mut command: std::process::Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A request that is not made through the code under test.
pub async fn raw(
    method: reqwest::Method,
    url: &str,
    headers: &[(&'static str, &str)],
    body: Vec<u8>,
) -> reqwest::Response {
    let mut request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .request(method, url)
        .header("x-ms-version", "2021-12-02")
        .header("content-length", body.len());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).send().await.unwrap()
}
