//! Points that outlive every rule.

use std::collections::BTreeSet;

use snapferry::ErrorKind;
use snapferry::base::protect::Change;
use snapferry_emulator::{Call, Fault, FaultKind};

use crate::history::History;
use crate::last;
use crate::world::raw;

#[tokio::test]
async fn protected_points_outlive_every_rule_and_every_run() {
    let mut history = History::of(4).await;
    let first = history.protect(Change::Protect, &[0, 2]).await.unwrap();
    assert_eq!((first.changed.len(), first.protected.len()), (2, 2));
    let again = history.protect(Change::Protect, &[0, 2]).await.unwrap();
    assert_eq!((again.changed.len(), again.protected.len()), (0, 2));

    history.next_day().await.unwrap();
    assert_eq!(history.protected().await, [0, 2], "begin and seal hand the set on");
    history.tear().await;
    assert_eq!(history.protected().await, [0, 2], "a torn base has it");
    assert_eq!(history.protect(Change::Protect, &[3]).await.unwrap().changed.len(), 1);
    history.roll_back().await;
    assert_eq!(history.protected().await, [0, 2, 3], "a rollback hands it on");
    history.world.settings.rebase = true;
    let snapshot = history.snapshot();
    let rebased = history.world.copy(&snapshot, None).await.unwrap();
    history.world.settings.rebase = false;
    assert_eq!(history.protected().await, [0, 2, 3], "a rebase hands it on");
    history.snapshots.push(snapshot);
    history.reports.push(rebased);

    history.prune(last(1)).await;
    assert_eq!(history.days(), [0, 2, 3, 5]);
    history.assert_identical(&[0, 2, 3, 5]);

    let ended = history.protect(Change::Unprotect, &[2, 3]).await.unwrap();
    assert_eq!((ended.changed.len(), ended.protected.len()), (2, 1));
    assert_eq!(history.protect(Change::Unprotect, &[2, 3]).await.unwrap().changed.len(), 0);
    history.prune(last(1)).await;
    assert_eq!(history.days(), [0, 5]);
}

/// A seal that a crash interrupted: the marker "sealing" has the set too.
#[tokio::test]
async fn a_seal_that_is_finished_later_hands_the_protected_points_on() {
    let mut history = History::of(2).await;
    history.protect(Change::Protect, &[0]).await.unwrap();
    let snapshot = history.snapshot();
    history.world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::SnapshotBlob).always());
    assert!(history.world.copy(&snapshot, history.snapshots.last()).await.is_err());
    history.world.target.faults().clear();
    assert_eq!(history.world.state().as_deref(), Some("sealing"));
    history.prune(last(1)).await;
    assert_eq!(history.days(), [0, 1], "the last point of a base that waits for its seal stays");
    assert_eq!(history.roll_back().await.outcome, "seal-finished");
    assert_eq!(history.protected().await, [0]);
    // Points do not carry the set.
    let newest = history.world.base(None).unwrap().snapshots().last().cloned().unwrap();
    let metadata = history.world.base(Some(&newest)).unwrap().metadata().clone();
    assert!(!metadata.contains_key("snapferry_protected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_points_are_protected_and_not_while_a_run_is_at_work() {
    let history = History::of(2).await;
    let unknown = BTreeSet::from(["2026-01-01T00:00:00.0000000Z".to_owned(), history.point(0).to_owned()]);
    for what in [Change::Protect, Change::Unprotect] {
        let refused = history.change(what, unknown.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    }
    assert!(history.protected().await.is_empty(), "nothing was changed");

    let blob = history.blob();
    let id = "00000000-0000-4000-8000-000000000001";
    blob.acquire_lease(Some(id), 60).await.unwrap();
    let (code, _, told) =
        history.run(&["protect", "--point", history.point(0), "--wait-for-lease", "0s"]).await;
    assert_eq!(code, Some(17), "{told}");
    assert!(history.protected().await.is_empty());
    blob.release_lease(id).await.unwrap();
    let (code, shown, told) = history.run(&["protect", "--point", history.point(0), history.point(1)]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(shown.contains("in all        2 protected"), "{shown}");
    assert_eq!(history.protected().await, [0, 1]);
    assert_eq!(history.run(&["unprotect", "--point", history.point(0)]).await.0, Some(0));
    assert_eq!(history.protected().await, [1]);
    blob.acquire_lease(Some(id), 60).await.expect("the lease was released");
}

/// A point that was deleted by other means can be taken out of the set.
#[tokio::test]
async fn a_protected_point_that_is_gone_can_be_unprotected() {
    let history = History::of(2).await;
    history.protect(Change::Protect, &[0]).await.unwrap();
    let point = format!("{}&snapshot={}", history.world.target_url(), history.point(0));
    assert_eq!(raw(reqwest::Method::DELETE, &point, &[], Vec::new()).await.status().as_u16(), 202);
    assert!(history.protect(Change::Unprotect, &[0]).await.unwrap().protected.is_empty());
}

#[tokio::test]
async fn metadata_without_room_for_the_set_is_told_before_a_copy_trips_over_it() {
    let mut history = History::of(2).await;
    let mut metadata = history.world.base(None).unwrap().metadata().clone();
    metadata.insert("notes".to_owned(), "x".repeat(5700));
    let headers: Vec<(&'static str, &str)> = metadata
        .iter()
        .map(|(name, value)| (&*Box::leak(format!("x-ms-meta-{name}").into_boxed_str()), value.as_str()))
        .collect();
    let set = format!("{}&comp=metadata", history.world.target_url());
    assert_eq!(raw(reqwest::Method::PUT, &set, &headers, Vec::new()).await.status().as_u16(), 200);
    let refused = history.protect(Change::Protect, &[0]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.why().contains("8 KiB") && refused.advice().is_some(), "{refused}");
    history.next_day().await.unwrap();
    history.assert_identical(&[0, 1, 2]);
}
