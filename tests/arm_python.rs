//! The emulator's management side, asked by Microsoft's own client for Python.
//!
//! What our client is tested against must not merely agree with it: the client of others must get on there, too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod judges;

use std::path::Path;

use judges::Judge;
use snapferry_emulator::{ArmKnobs, AsyncReply, Call, Config, Emulator};

const PROMISE: &str = "that the emulated management of snapshots is what Microsoft's client speaks to";

/// An emulator with TLS, without which that client sends no token, and one disk.
async fn emulator() -> Emulator {
    let emulator = Emulator::start(Config { tls: true, record: true, ..Config::default() }).await.unwrap();
    let disk = emulator.create_disk("data", 1 << 20).unwrap();
    disk.write(0, &[7; 512]).unwrap();
    emulator
}

/// Runs a script of the folder `arm_python` to its end.
async fn run(emulator: &Emulator, script: &str, argument: &str) {
    let folder = judges::folder();
    let certificate = folder.path().join("certificate.pem");
    std::fs::write(&certificate, emulator.certificate_pem().unwrap()).unwrap();
    let arm = emulator.arm();
    let (identity_endpoint, identity_header) = arm.identity();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/arm_python").join(script);
    let arguments = [
        // Compiled scripts are not left in the source tree.
        "-B".to_owned(),
        script.display().to_string(),
        format!("--endpoint={}", arm.endpoint()),
        format!("--subscription={}", arm.subscription()),
        format!("--identity-endpoint={identity_endpoint}"),
        format!("--identity-header={identity_header}"),
        format!("--certificate={}", certificate.display()),
        argument.to_owned(),
    ];
    tokio::task::spawn_blocking(move || Judge::AzureMgmt.run(arguments).accepted()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_made_listed_copied_and_deleted() {
    if !judges::are_here(&[Judge::AzureMgmt], PROMISE) {
        return;
    }
    let emulator = emulator().await;
    for other_changes in
        [AsyncReply::AtOnce, AsyncReply::AsyncOperation, AsyncReply::Location, AsyncReply::Both]
    {
        let knobs =
            ArmKnobs { page_size: 2, other_changes, polls: 2, retry_after: Some(0), ..ArmKnobs::default() };
        emulator.arm().set_knobs(knobs);
        emulator.faults().add("arm-get-disk:too-many-requests=1".parse().unwrap());
        let before = emulator.requests().len();
        run(&emulator, "resources.py", "data").await;

        let requests = &emulator.requests()[before..];
        let statuses = |call: Call| {
            requests.iter().filter(move |record| record.call == call).map(|record| record.status)
        };
        assert_eq!(statuses(Call::ArmGetDisk).take(2).collect::<Vec<_>>(), [429, 200]);
        assert_eq!(statuses(Call::ArmListSnapshots).count(), 10);
        let is_late = other_changes != AsyncReply::AtOnce;
        assert!(statuses(Call::ArmDeleteSnapshot).all(|status| status == if is_late { 202 } else { 200 }));
        assert_eq!(statuses(Call::ArmPoll).count() > 10, is_late, "{other_changes:?}");
        assert!(emulator.delete_disk("restored"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sas_is_given_and_ended_in_every_shape() {
    if !judges::are_here(&[Judge::AzureMgmt], PROMISE) {
        return;
    }
    let emulator = emulator().await;
    let arm = emulator.arm();
    let snapshot = arm
        .disk(&format!(
            "/subscriptions/{}/resourceGroups/disks/providers/Microsoft.Compute/disks/data",
            arm.subscription()
        ))
        .unwrap()
        .snapshot();
    let plain = ArmKnobs { polls: 2, retry_after: Some(0), ..ArmKnobs::default() };
    let shape = |how: AsyncReply| ArmKnobs { begin_access: how, other_changes: how, ..plain.clone() };
    for knobs in [
        shape(AsyncReply::AtOnce),
        shape(AsyncReply::AsyncOperation),
        shape(AsyncReply::Location),
        shape(AsyncReply::Both),
        ArmKnobs { poll_moves: true, ..shape(AsyncReply::Location) },
        ArmKnobs { late_refusals: true, ..shape(AsyncReply::Location) },
    ] {
        let asked = emulator.stats().of(Call::ArmPoll).requests;
        let is_late = knobs.begin_access != AsyncReply::AtOnce;
        arm.set_knobs(knobs);
        run(&emulator, "access.py", snapshot.name()).await;
        assert_eq!(emulator.stats().of(Call::ArmPoll).requests > asked + 4, is_late);
        assert!(arm.active_grants().is_empty());
    }
}
