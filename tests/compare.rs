//! Reports of copies side by side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod management;
mod world;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use world::{MIB, World, noise, output, snapferry, text};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn compare(files: &[&PathBuf], form: &str) -> Output {
    snapferry().arg("compare").args(files).args(["--output", form]).output().unwrap()
}

fn rows(files: &[&PathBuf]) -> Vec<Value> {
    let run = compare(files, "json");
    assert!(run.status.success(), "{}", text(&run.stderr));
    let document: Value = serde_json::from_slice(&run.stdout).unwrap();
    document["reports"].as_array().unwrap().clone()
}

fn step(to: &str, sent: u64, seconds: f64) -> Value {
    json!({
        "to": to, "length": 8 * MIB + 512, "bytes_changed": sent, "bytes_sent": sent, "requests": 10,
        "seconds": seconds, "point": {},
    })
}

fn managed(state: &str, seconds: Option<f64>) -> Value {
    json!({
        "kind": "managed", "source": "/subscriptions/0b1f/x/snapshots/monday", "target": "t", "state": state,
        "percent": 100.0, "size": 8 * MIB, "seconds": seconds, "bytes_per_second": 1000,
    })
}

/// What `copy` really prints is what is read.
#[tokio::test(flavor = "multi_thread")]
async fn real_reports_of_copy_are_compared_with_a_managed_one() {
    let (world, folder) = (World::new().await, folder());
    let disk = world.disk(8 * MIB);
    disk.write(0, &noise(1, MIB)).unwrap();
    let snapshot = disk.snapshot();
    let mut copy = snapferry();
    copy.args(["copy", "--quiet", "--output", "json", "--source", &snapshot.grant()]);
    copy.args(["--target", &world.target_url()]);
    let run = output(copy).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let took = report["seconds"].as_f64().unwrap();

    let manual = write(folder.path(), "manual.json", &run.stdout);
    let other = write(folder.path(), "managed.json", managed("done", Some(took * 3.0)).to_string());
    let rows = rows(&[&other, &manual]);
    assert_eq!((rows[0]["kind"].as_str(), rows[1]["kind"].as_str()), (Some("managed"), Some("manual")));
    let ratio = |row: &Value| row["ratio"].as_f64().unwrap();
    assert!((ratio(&rows[0]) - 3.0).abs() < 1e-6 && (ratio(&rows[1]) - 1.0).abs() < 1e-6);
    assert_eq!(rows[1]["size"], 8 * MIB, "the disk, without the footer of its image");
    for field in ["bytes_changed", "bytes_sent", "requests", "seconds"] {
        assert!(report[field].is_number() && rows[1][field] == report[field], "{field}");
        assert!(field == "seconds" || rows[0][field].is_null(), "Azure does not tell {field}");
    }
    assert_eq!(rows[1]["source"], report["to"]);

    let table = text(&compare(&[&manual, &other], "text").stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("REPORT") && lines[0].ends_with("TIMES"), "{table}");
    assert!(lines[1].contains("manual") && lines[1].ends_with("1.00x"), "{table}");
    assert!(lines[2].contains("managed") && lines[2].ends_with("3.00x"), "{table}");
}

/// The reports of `sync` and `managed-copy` as they really are.
#[tokio::test(flavor = "multi_thread")]
async fn real_reports_of_sync_and_managed_copy_are_compared() {
    let (site, world, folder) = (management::Site::new().await, World::new().await, folder());
    let monday = site.disk.snapshot_named("monday");
    site.disk.write(4 * MIB, &noise(2, 8192)).unwrap();
    site.disk.snapshot_named("tuesday");
    site.copies_at(1e9);
    let (disk, id, target) = (site.disk.arm_id(), monday.arm_id(), world.target_url());
    let synced = site.document(&["sync", "--quiet", "--disk", &disk, "--target", &target]).await;
    let copied = site.document(&management::copy_of(&id, "monday-copy")).await;
    let sync = write(folder.path(), "sync.json", synced.to_string());
    let managed = write(folder.path(), "managed.json", copied.to_string());
    let rows = rows(&[&sync, &managed]);
    let steps = synced["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    let sum = |field: &str| steps.iter().map(|step| step[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(rows[0]["bytes_sent"], sum("bytes_sent"));
    assert_eq!(rows[0]["bytes_changed"], sum("bytes_changed"));
    assert_eq!(
        rows[0]["requests"].as_u64(),
        Some(sum("requests") + synced["manager_requests"].as_u64().unwrap())
    );
    assert_eq!((rows[0]["source"].as_str(), rows[1]["source"].as_str()), (Some(&*disk), Some(&*id)));
    assert_eq!((rows[0]["size"].as_u64(), rows[1]["size"].as_u64()), (Some(8 * MIB), Some(8 * MIB)));
    let seconds = |row: usize| rows[row]["seconds"].as_f64().unwrap();
    assert!((seconds(0) - synced["seconds"].as_f64().unwrap()).abs() < 1e-9);
    assert!((seconds(1) - copied["seconds"].as_f64().unwrap()).abs() < 1e-9);
    let fastest = seconds(0).min(seconds(1));
    for (number, row) in rows.iter().enumerate() {
        assert!((row["ratio"].as_f64().unwrap() - seconds(number) / fastest).abs() < 1e-9);
    }
}

#[test]
fn the_steps_of_a_sync_are_added_up() {
    let folder = folder();
    let steps = vec![step("monday", 3 * MIB, 1.0), step("tuesday", MIB, 1.0)];
    let bare = write(folder.path(), "bare.json", json!({ "kind": "sync", "steps": steps }).to_string());
    let whole = json!({
        "kind": "sync", "steps": steps, "disk": "/subscriptions/0b1f/x/disks/web", "seconds": 4.0,
        "manager_requests": 7,
    });
    let whole = write(folder.path(), "whole.json", format!("\u{feff}{whole}"));
    let rows = rows(&[&bare, &whole]);
    for row in &rows {
        assert_eq!((row["kind"].as_str(), row["bytes_sent"].as_u64()), (Some("manual"), Some(4 * MIB)));
    }
    assert_eq!((rows[0]["seconds"].as_f64(), rows[0]["requests"].as_u64()), (Some(2.0), Some(20)));
    assert_eq!(
        (rows[0]["source"].as_str(), rows[0]["bytes_per_second"].as_u64()),
        (Some("tuesday"), Some(2 * MIB))
    );
    // The time between the steps counts.
    assert_eq!((rows[1]["seconds"].as_f64(), rows[1]["requests"].as_u64()), (Some(4.0), Some(27)));
    assert_eq!((rows[1]["bytes_per_second"].as_u64(), rows[1]["ratio"].as_f64()), (Some(MIB), Some(2.0)));
    assert!(rows[1]["source"].as_str().unwrap().ends_with("/disks/web"));
}

#[test]
fn a_copy_that_goes_on_has_no_ratio() {
    let folder = folder();
    let done = write(folder.path(), "done.json", managed("done", Some(10.0)).to_string());
    let going = write(folder.path(), "going.json", managed("copying", Some(1.0)).to_string());
    let unknown = write(folder.path(), "unknown.json", managed("done", None).to_string());
    let rows = rows(&[&done, &going, &unknown]);
    assert_eq!(rows[0]["ratio"], 1.0, "the fastest of those that are done");
    assert!(rows[1]["ratio"].is_null() && rows[2]["ratio"].is_null());
    assert!(text(&compare(&[&done, &going], "text").stdout).contains("1.0 so far"));
}

#[test]
fn what_is_no_report_is_named() {
    let folder = folder();
    let good = write(folder.path(), "good.json", managed("done", Some(1.0)).to_string());
    let mut cut = managed("done", Some(1.0));
    cut.as_object_mut().unwrap().remove("state");
    let mut half = step("monday", 1, 1.0);
    half.as_object_mut().unwrap().remove("length");
    for (name, content, part) in [
        ("text.json", "copied  monday".to_owned(), "not one JSON document"),
        ("empty.json", String::new(), "not one JSON document"),
        ("list.json", "[1]".to_owned(), "no report of copy, sync or managed-copy"),
        ("other.json", json!({"kind": "weather"}).to_string(), "no report of copy, sync or managed-copy"),
        (
            "plan.json",
            json!({"to": "monday", "length": 1, "action": "create"}).to_string(),
            "no report of copy",
        ),
        ("error.json", json!({"error": {"kind": "lease-held"}}).to_string(), "an error (lease-held)"),
        ("cut.json", cut.to_string(), "missing field `state`"),
        ("half.json", half.to_string(), "missing field `length`"),
        ("sync.json", json!({"kind": "sync", "steps": [{}]}).to_string(), "no report of sync"),
        (
            "negative.json",
            json!({"kind": "sync", "steps": [step("m", 1, 1.0)], "manager_requests": -1}).to_string(),
            "no report of sync",
        ),
    ] {
        let bad = write(folder.path(), name, content);
        let run = compare(&[&good, &bad], "text");
        let told = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{name}: {told}");
        assert!(told.contains(name) && told.contains(part), "{name}: {told}");
        assert!(run.stdout.is_empty());
    }
    let missing = folder.path().join("missing.json");
    assert_eq!(compare(&[&good, &missing], "text").status.code(), Some(2));
    assert_eq!(compare(&[&good], "text").status.code(), Some(2), "one is nothing to compare");
}
