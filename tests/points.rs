//! Points: shown, protected, pruned. Whatever the rules, the base blob stays usable and protected points stay.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "points/history.rs"]
mod history;
#[path = "points/protected.rs"]
mod protected;
mod world;

use std::time::Duration;

use history::{DAY, History};
use serde_json::Value;
use snapferry::ErrorKind;
use snapferry::base::protect::Change;
use snapferry::base::prune;
use snapferry::base::retention::Retention;
use snapferry::chain::Origin;
use snapferry_emulator::{Call, Fault, FaultKind};
use tokio_util::sync::CancellationToken;
use world::{output, raw, snapferry, text};

fn last(many: u32) -> Retention {
    Retention { last: Some(many), ..Retention::default() }
}

fn days_of<'a>(history: &History, points: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let mut days: Vec<_> = points
        .map(|time| (0..history.reports.len()).find(|&day| history.point(day) == time).unwrap())
        .collect();
    days.sort_unstable();
    days
}

#[tokio::test]
async fn prune_keeps_what_the_rules_keep_and_the_next_difference_is_right() {
    let mut history = History::of(6).await;
    let report = history.prune(Retention { last: Some(2), weekly: None, ..Retention::default() }).await;
    assert!(report.error.is_none() && report.to_delete.is_empty());
    assert_eq!(days_of(&history, report.deleted.iter().map(|point| point.point.as_str())), [0, 1, 2, 3]);
    assert_eq!(history.days(), [4, 5]);
    history.assert_identical(&[4, 5]);
    history.next_day().await.unwrap();
    history.next_day().await.unwrap();
    assert_eq!(history.days(), [4, 5, 6, 7]);
    history.assert_identical(&[4, 5, 6, 7]);
    // Asked again, nothing is left to delete.
    let again = history.prune(Retention { daily: Some(4), ..Retention::default() }).await;
    assert!(again.deleted.is_empty() && again.kept.len() == 4);
    let within = history.prune(Retention { within: Some(DAY * 3 / 2), ..Retention::default() }).await;
    assert_eq!(within.deleted.len(), 2);
    assert_eq!(history.days(), [6, 7]);
}

/// After a rebase to an older snapshot the newest point by its source is not the one that the base is clean at.
#[tokio::test]
async fn the_point_that_the_base_is_clean_at_is_never_deleted() {
    let mut history = History::of(3).await;
    history.world.settings.rebase = true;
    let rebased = history.world.copy(&history.snapshots[0], None).await.unwrap();
    let report = history.prune(last(1)).await;
    assert_eq!(days_of(&history, report.deleted.iter().map(|point| point.point.as_str())), [0, 1]);
    history.assert_identical(&[2]);
    history.world.assert_identical(&rebased, &history.snapshots[0]);
    assert_eq!(history.world.points(), 2);
    let next = history.world.copy(&history.snapshots[1], Some(&history.snapshots[0])).await.unwrap();
    history.world.assert_identical(&next, &history.snapshots[1]);
}

#[tokio::test]
async fn the_last_point_of_a_torn_base_stays_and_rollback_finds_it() {
    let mut history = History::of(3).await;
    let older = history.world.copy(&history.snapshots[2], Some(&history.snapshots[1])).await.unwrap();
    assert!(older.already_sealed);
    let torn = history.tear().await;
    let report = history.prune(last(1)).await;
    assert_eq!(history.days(), [2]);
    let reasons = serde_json::to_value(&report.kept[0].reasons).unwrap();
    assert_eq!(reasons, serde_json::json!(["last-point", "last"]));
    let back = history.roll_back().await;
    assert_eq!((back.outcome, back.point.point.as_str()), ("rolled-back", history.point(2)));
    let base = history.world.base(None).unwrap();
    world::assert_same_bytes(&base, &history.snapshots[2]);
    let step = history.world.copy(&torn, Some(&history.snapshots[2])).await.unwrap();
    history.world.assert_identical(&step, &torn);
}

/// The rebase of an older snapshot is torn: the point to go back to is not the newest one.
#[tokio::test]
async fn the_last_point_of_a_torn_base_stays_also_when_no_rule_keeps_it() {
    let mut history = History::of(3).await;
    history.world.settings.rebase = true;
    let rebased = history.world.copy(&history.snapshots[0], None).await.unwrap();
    history.world.settings.rebase = false;
    history.world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::PutPage).always());
    assert!(history.world.copy(&history.snapshots[1], Some(&history.snapshots[0])).await.is_err());
    history.world.target.faults().clear();
    let report = history.prune(last(1)).await;
    assert_eq!((report.kept.len(), report.deleted.len()), (2, 2));
    assert_eq!(history.days(), [2]);
    let back = history.roll_back().await;
    assert_eq!(back.point.point, rebased.point.point);
    world::assert_same_bytes(&history.world.base(None).unwrap(), &history.snapshots[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_deletes_nothing_and_names_the_command_that_does() {
    let history = History::of(4).await;
    let deletes = || history.world.target.stats().of(Call::DeleteBlob).requests;
    let rules = ["prune", "--keep-daily", "1", "--keep-within", "25h", "--retry-for", "5s"];
    let (code, shown, told) = history.run(&rules).await;
    assert_eq!((code, deletes()), (Some(0), 0), "{told}");
    assert_eq!(history.days(), [0, 1, 2, 3]);
    assert!(
        shown.contains("snapferry points prune --target <URL> --keep-daily 1 --keep-within 1day1h --yes"),
        "{shown}"
    );
    let lines: Vec<_> = shown.lines().filter(|line| line.starts_with("delete ")).collect();
    assert!(lines.len() == 2 && lines[0].contains(history.point(0)) && lines[1].contains(history.point(1)));
    assert!(
        shown.lines().any(|line| line.contains(history.point(3)) && line.ends_with("current, daily, within")),
        "{shown}"
    );

    let (code, shown, _) = history.run(&[&rules[..], &["--yes", "--output", "json"]].concat()).await;
    let document: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, deletes()), (Some(0), 2));
    assert_eq!(history.days(), [2, 3]);
    assert_eq!(
        (document["deleted"].as_array().unwrap().len(), &document["dry_run"]),
        (2, &Value::Bool(false))
    );
    assert_eq!(document["kept"][1]["reasons"], serde_json::json!(["current", "daily", "within"]));
    history.assert_identical(&[2, 3]);
    // The blob itself was not deleted, and no request could have deleted it.
    for request in history.world.target.requests().iter().filter(|request| request.call == Call::DeleteBlob) {
        assert!(request.snapshot.is_some() && request.header("x-ms-delete-snapshots").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_without_a_rule_is_a_usage_error() {
    let history = History::of(1).await;
    for arguments in [&["prune"][..], &["prune", "--yes"], &["prune", "--keep-last", "0", "--yes"]] {
        let (code, _, told) = history.run(arguments).await;
        assert_eq!(code, Some(2), "{told}");
    }
    assert_eq!(history.days(), [0]);
}

#[tokio::test]
async fn snapshots_that_are_no_points_and_blobs_without_a_marker_are_left_alone() {
    let mut history = History::of(2).await;
    let target = history.world.target_url();
    let snapshot = format!("{target}&comp=snapshot");
    let foreign = raw(reqwest::Method::PUT, &snapshot, &[("x-ms-meta-owner", "team")], Vec::new()).await;
    assert_eq!(foreign.status().as_u16(), 201);
    history.tear().await;
    // It carries the marker "applying".
    let torn = raw(reqwest::Method::PUT, &snapshot, &[], Vec::new()).await;
    assert_eq!(torn.status().as_u16(), 201);
    let report = history.prune(last(1)).await;
    assert_eq!((report.deleted.len(), history.world.points()), (1, 3));

    for metadata in [&[("x-ms-meta-snapferry_format", "99")][..], &[]] {
        let set = raw(reqwest::Method::PUT, &format!("{target}&comp=metadata"), metadata, Vec::new()).await;
        assert_eq!(set.status().as_u16(), 200);
        let refused = prune::prune(&history.blob(), &last(1), &CancellationToken::new()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BaseNotClean, "{refused}");
        assert_eq!(history.world.points(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_deleted_is_told_and_does_not_keep_the_rest_from_it() {
    let history = History::of(5).await;
    let target = history.world.account.container_sas(world::CONTAINER, world::BASE, "rwcl", world::HOUR);
    let mut command = snapferry();
    command.args(["points", "prune", "--keep-last", "1", "--yes", "-o", "json", "--target", &target]);
    let run = output(command).await;
    assert_eq!(run.status.code(), Some(4), "{}", text(&run.stderr));
    let document: Value = serde_json::from_slice(&run.stdout).expect("one document");
    assert_eq!(document["failed"].as_array().unwrap().len(), 4);
    assert_eq!(document["error"]["kind"], "permission-missing");
    assert!(text(&run.stderr).contains("permission 'd'"), "{}", text(&run.stderr));
    assert_eq!(history.days(), [0, 1, 2, 3, 4]);

    history.world.target.faults().add(Fault::new(FaultKind::Forbidden).on(Call::DeleteBlob).skip(1));
    history.world.target.faults().add(Fault::new(FaultKind::CutAfterApply).on(Call::DeleteBlob).skip(1));
    let report = history.prune(last(1)).await;
    assert_eq!(days_of(&history, report.failed.iter().map(|failed| failed.point.point.as_str())), [1]);
    assert_eq!(report.error.unwrap().kind(), ErrorKind::AccessDenied);
    assert_eq!(days_of(&history, report.deleted.iter().map(|point| point.point.as_str())), [0, 2, 3]);
    assert_eq!(history.days(), [1, 4]);
}

#[tokio::test]
async fn an_interruption_leaves_what_was_not_deleted() {
    let history = History::of(4).await;
    history
        .world
        .target
        .faults()
        .add(Fault::new(FaultKind::Stall { lasting: Duration::from_secs(5) }).on(Call::DeleteBlob).skip(1));
    let cancel = CancellationToken::new();
    let (blob, rules) = (history.blob(), last(1));
    let (report, ()) = tokio::join!(prune::prune(&blob, &rules, &cancel), async {
        while history.world.target.faults().fired() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    });
    let report = report.unwrap();
    assert_eq!(report.error.unwrap().kind(), ErrorKind::Interrupted);
    assert_eq!((report.deleted.len(), report.to_delete.len()), (1, 2));
    assert_eq!(history.days(), [1, 2, 3]);
}

#[tokio::test]
async fn a_point_that_is_protected_while_prune_is_at_work_stays() {
    let history = History::of(4).await;
    let stall = FaultKind::Stall { lasting: Duration::from_secs(3) };
    history.world.target.faults().add(Fault::new(stall).on(Call::DeleteBlob));
    let (report, ()) = tokio::join!(history.prune(last(1)), async {
        while history.world.target.faults().fired() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        history.protect(Change::Protect, &[1]).await.unwrap();
    });
    assert!(report.error.is_none());
    assert_eq!(history.days(), [1, 3]);
    let kept = report.kept.iter().find(|kept| kept.point.point == history.point(1)).unwrap();
    assert_eq!(serde_json::to_value(&kept.reasons).unwrap(), serde_json::json!(["protected"]));
}

#[tokio::test]
async fn prune_and_copy_at_the_same_time_do_not_harm_each_other() {
    let mut history = History::of(8).await;
    let blob = history.blob();
    for _ in 0..4 {
        let cancel = CancellationToken::new();
        let rules = last(2);
        let (report, copied) = tokio::join!(prune::prune(&blob, &rules, &cancel), history.next_day());
        copied.unwrap();
        assert!(report.unwrap().error.is_none());
        let days = history.days();
        assert!(days.len() >= 2 && days.ends_with(&[history.reports.len() - 2, history.reports.len() - 1]));
        history.assert_identical(&days);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_point_is_shown_with_everything_that_is_known_of_it() {
    let mut history = History::of(1).await;
    let snapshot = history.snapshot();
    let id = "/subscriptions/1/resourceGroups/g/providers/Microsoft.Compute/snapshots/Tuesday";
    let mut step = history.world.step(&snapshot, history.snapshots.last());
    step.origin = Some(Origin {
        snapshot: id.to_owned(),
        unique_id: "u2".to_owned(),
        created: None,
        previous_unique_id: Some("u1".to_owned()),
        disk_unique_id: Some("d1".to_owned()),
        family: None,
    });
    let report = history.world.run(&step).await.unwrap();
    history.snapshots.push(snapshot);
    history.reports.push(report.clone());
    history.protect(Change::Protect, &[1]).await.unwrap();

    let time = history.snapshots[1].time().to_owned();
    for asked in [
        ["--point", history.point(1)],
        ["--source", &time],
        ["--source", &report.point.source],
        ["--source", "tuesday"],
        ["--source", id],
    ] {
        let (code, shown, told) = history.run(&[&["show"], &asked[..]].concat()).await;
        assert_eq!(code, Some(0), "{asked:?} {told}");
        for part in [
            history.point(1),
            &report.point.source,
            report.point.previous.as_deref().unwrap(),
            id,
            "u1",
            "d1",
            report.point.digest.as_deref().unwrap(),
            &report.point.sealed_at,
            "current, protected",
            &format!("?snapshot={}", history.point(1)),
            "az disk create",
            "snapferry restore",
        ] {
            assert!(shown.contains(part), "'{part}' is missing in {shown}");
        }
        assert!(!shown.contains("sig="), "{shown}");
    }
    let (_, shown, _) = history.run(&["show", "--point", history.point(0), "--output", "json"]).await;
    let document: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(document["point"]["point"], history.point(0));
    assert_eq!(
        (&document["point"]["current"], &document["point"]["protected"]),
        (&false.into(), &false.into())
    );
    assert!(document["point"]["previous"].is_null() && document["point"]["origin"].is_null());
    assert_eq!(document["url_suffix"], format!("?snapshot={}", history.point(0)));
    assert!(!shown.contains("sig="));
    for unknown in [["--point", "2026-01-01T00:00:00.0000000Z"], ["--source", "wednesday"]] {
        assert_eq!(history.run(&[&["show"], &unknown[..]].concat()).await.0, Some(5));
    }
    assert_eq!(history.run(&["show"]).await.0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_tells_which_point_is_current_and_which_are_protected() {
    let history = History::of(3).await;
    history.protect(Change::Protect, &[1]).await.unwrap();
    let (_, short, _) = history.run(&[]).await;
    let (code, long, _) = history.run(&["list"]).await;
    assert_eq!((code, &short), (Some(0), &long));
    let endings = long.lines().skip(1).map(|line| line.rsplit("  ").next().unwrap().trim());
    let digests = history.reports.iter().map(|report| report.point.digest.as_deref().unwrap());
    assert_eq!(endings.collect::<Vec<_>>(), [digests.clone().next().unwrap(), "protected", "current"]);
    assert!(digests.into_iter().all(|digest| long.contains(digest)));
    let (_, shown, _) = history.run(&["--output", "json"]).await;
    let document: Value = serde_json::from_str(&shown).unwrap();
    let told = |field: &str| -> Vec<bool> {
        let points = document["points"].as_array().unwrap();
        points.iter().map(|point| point[field].as_bool().unwrap()).collect()
    };
    assert_eq!(told("current"), [false, false, true]);
    assert_eq!(told("protected"), [false, true, false]);
}
