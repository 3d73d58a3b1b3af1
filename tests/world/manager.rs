//! The resource manager of the source's region, and chains copied by it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use snapferry::azure::arm::{Arm, ArmEndpoint, ArmId, ArmKind, ManagedSnapshot};
use snapferry::azure::{Client, Destination, PlainHttp, RetryPolicy};
use snapferry::chain::grants::GrantOptions;
use snapferry::chain::outline::{Planned, Wanted};
use snapferry::progress::Progress;
use snapferry::step::Report;
use snapferry::sync::{Job, Outlook, SyncReport, Witness, sync};
use snapferry_emulator::{Disk, DiskSnapshot};
use tokio_util::sync::CancellationToken;

use super::{CONTAINER, HOUR, World, assert_same_bytes, client};

/// Signs in at the emulated region.
#[derive(Debug)]
pub struct SignedIn(pub snapferry_emulator::Arm);

#[async_trait::async_trait]
impl TokenCredential for SignedIn {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new(self.0.token(HOUR), OffsetDateTime::now_utc() + HOUR))
    }
}

/// Remembers what a run told.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<String>>);

impl Witness for Heard {
    fn found(&self, outlook: &Outlook) {
        let names: Vec<_> = outlook.outline.steps.iter().map(|step| step.to.id.name()).collect();
        self.say(format!("found {}", names.join(" ")));
    }

    fn begins(&self, planned: &Planned, _: &Arc<Progress>) {
        self.say(format!("begins {}", planned.to.id.name()));
    }

    fn sealed(&self, planned: &Planned, _: &Report) {
        self.say(format!("sealed {}", planned.to.id.name()));
    }

    fn waits(&self, snapshot: &ManagedSnapshot) {
        self.say(format!("waits {}", snapshot.id.name()));
    }
}

impl Heard {
    fn say(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl World {
    /// A client that is signed in, with the limits of the world's own.
    pub fn signed_in(&self) -> Client {
        let limits = client();
        let retry = RetryPolicy { budget: self.retry_for.unwrap_or(limits.retry.budget), ..limits.retry };
        Client::new(limits.timeouts, retry, Some(Arc::new(SignedIn(self.source.arm())))).unwrap()
    }

    pub fn arm(&self) -> Arm {
        let endpoint = ArmEndpoint::parse(&self.source.arm().endpoint(), PlainHttp::LoopbackOnly).unwrap();
        Arm::new(self.signed_in(), endpoint, Arc::default())
    }

    pub fn container_url(&self) -> String {
        let blob = self.account.container_sas(CONTAINER, "x", "rcwdl", HOUR);
        blob.replacen("/x?", "?", 1)
    }

    /// Everything of the disk, into the usual base blob.
    pub fn job(&self, disk: &Disk) -> Job {
        Job {
            disk: ArmId::parse(ArmKind::Disk, &disk.arm_id()).unwrap(),
            destination: Destination::parse(&self.target_url(), PlainHttp::LoopbackOnly).unwrap(),
            scope: None,
            wanted: Wanted::default(),
            roll_back: false,
            ready_every: Duration::from_millis(20),
            grants: GrantOptions { duration: Duration::from_mins(10), ..GrantOptions::default() },
        }
    }

    pub async fn sync(&self, job: &Job) -> snapferry::Result<SyncReport> {
        self.sync_telling(job, &Heard::default()).await
    }

    pub async fn sync_telling(&self, job: &Job, heard: &Heard) -> snapferry::Result<SyncReport> {
        let cancel = CancellationToken::new();
        sync(job, &self.arm(), &self.signed_in(), &self.settings, heard, &cancel).await
    }

    /// Fails unless there is one point for each of these snapshots, in this order, each equal byte for byte, and no
    /// SAS is left.
    pub fn assert_points(&self, snapshots: &[&DiskSnapshot]) {
        let base = self.base(None).expect("the base blob exists");
        let points: Vec<_> = base
            .snapshots()
            .iter()
            .filter(|time| {
                let point = self.base(Some(time)).expect("it was listed");
                point.metadata().get("snapferry_state").is_some_and(|state| state == "sealing")
            })
            .cloned()
            .collect();
        assert_eq!(points.len(), snapshots.len(), "points: {points:?}");
        for (time, snapshot) in points.iter().zip(snapshots) {
            assert_same_bytes(&self.base(Some(time)).expect("it was listed"), snapshot);
        }
        assert_eq!(self.source.arm().active_grants(), Vec::<String>::new(), "a SAS was left");
    }
}
