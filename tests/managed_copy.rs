//! Azure's own copy: started, refused, followed, found again, and told to other tools.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod management;
mod world;

use std::process::Stdio;
use std::time::Duration;

use management::{AWAY, Site, assert_no_secret, assert_same_bytes, copy_of, until};
use serde_json::Value;
use snapferry::azure::arm::{ArmId, ArmKind};
use snapferry::managed::{self, Phase, Polling, Request, Speed, Watch};
use snapferry_emulator::{ArmKnobs, AsyncReply, Call, Fault, FaultKind};
use tokio_util::sync::CancellationToken;
use world::{MIB, noise, output, snapferry, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_copied_to_another_region_and_reported() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let tags = ["--target-resource-group", "disks", "--tag", "team=web", "--tag", "why=it's = \"x\""];
    site.emulator.create_disk("other", MIB).unwrap();
    let report = site.document(&[copy_of(&monday.arm_id(), "monday-copy"), tags.to_vec()].concat()).await;
    let target = report["target"].as_str().unwrap();
    assert!(target.ends_with("/resourceGroups/disks/providers/Microsoft.Compute/snapshots/monday-copy"));
    assert_same_bytes(&site.arm.snapshot(target).unwrap(), &monday);
    let shown: Vec<_> =
        ["kind", "source", "region", "state"].map(|field| report[field].as_str().unwrap()).into();
    assert_eq!(shown, ["managed", &monday.arm_id(), AWAY, "done"]);
    assert_eq!((report["percent"].as_f64(), report["size"].as_u64()), (Some(100.0), Some(8 * MIB)));
    assert_eq!(report["found"], false);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert!(report["bytes_per_second"].as_u64().unwrap() > 0);
    assert!(report["requests"].as_u64().unwrap() >= 4);
    let time = |field: &str| report[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("started_at") < time("finished_at"));

    let status = site.document(&["managed-copy", "status", "--snapshot", target]).await;
    assert_eq!((status["state"].as_str(), status["percent"].as_f64()), (Some("done"), Some(100.0)));
    assert!(status["seconds"].is_null() && status["finished_at"].is_null(), "nobody saw when it ended");
    assert_eq!(status["source"], report["source"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_again_follows_the_copy_that_it_started() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    site.copies_at(0.0);
    let id = monday.arm_id();
    let no_wait = [copy_of(&id, "monday-copy"), vec!["--no-wait"]].concat();
    let first = site.document(&no_wait).await;
    assert_eq!((first["state"].as_str(), first["found"].as_bool()), (Some("copying"), Some(false)));
    let again = site.document(&no_wait).await;
    assert_eq!((again["state"].as_str(), again["found"].as_bool()), (Some("copying"), Some(true)));
    assert_eq!(again["target"], first["target"]);
    site.copies_at(200.0);
    let followed = site.document(&copy_of(&id, "monday-copy")).await;
    assert_eq!((followed["state"].as_str(), followed["found"].as_bool()), (Some("done"), Some(true)));
    assert_eq!(site.count(Call::ArmPutSnapshot), 1, "it was started once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_managed_copies_are_told_before_anything_is_started() {
    let site = Site::new().await;
    // Every page of the list holds one snapshot: what stands in the way is on another one than the source.
    let knobs = ArmKnobs { page_size: 1, copy_percent_per_second: 0.0, ..ArmKnobs::default() };
    site.arm.set_knobs(knobs.clone());
    let [sunday, monday, tuesday] =
        ["sunday", "monday", "tuesday"].map(|name| site.disk.snapshot_named(name));
    let (sunday, monday, tuesday) = (sunday.arm_id(), monday.arm_id(), tuesday.arm_id());
    let pending = [copy_of(&monday, "z-monday"), vec!["--no-wait"]].concat();
    let run = site.run(&pending).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let told = text(&run.stderr);
    assert!(told.contains("older snapshots of this disk that are not in northeurope: 1;"), "{told}");

    let (code, told) = site.refused(&copy_of(&tuesday, "z-tuesday")).await;
    assert_eq!(code, 19, "{told}");
    assert!(told.contains("one at a time") && told.contains("managed-copy status --snapshot '"), "{told}");
    assert!(told.contains("can succeed when it is run again"));
    // The limit is of each region.
    let mut elsewhere = copy_of(&tuesday, "z-tuesday");
    elsewhere[4] = "uksouth";
    elsewhere.push("--no-wait");
    assert!(site.run(&elsewhere).await.status.success());

    site.arm.set_knobs(ArmKnobs { copy_percent_per_second: 1e9, ..knobs });
    let run = site.run(&pending).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let (code, told) = site.refused(&copy_of(&sunday, "z-sunday")).await;
    assert_eq!(code, 9, "{told}");
    assert!(told.contains("newer") && told.contains("z-monday"), "{told}");
    let (code, told) = site.refused(&copy_of(&tuesday, "z-monday")).await;
    assert_eq!(code, 16, "{told}");
    assert!(told.contains("--target-name"), "{told}");
    let (code, told) = site.refused(&copy_of(&tuesday, "tuesday")).await;
    assert_eq!(code, 2, "the source itself: {told}");
    let (code, told) = site.refused(&copy_of(&tuesday, "sunday")).await;
    assert_eq!(code, 16, "an ordinary snapshot: {told}");
    assert_eq!(site.count(Call::ArmPutSnapshot), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_own_reason() {
    let site = Site::new().await;
    let (good, full) = (site.disk.snapshot_named("monday"), site.disk.full_snapshot_named("whole"));
    let (good, full) = (good.arm_id(), full.arm_id());
    let machine = good.replace("/snapshots/", "/virtualMachines/");
    let long = "x".repeat(81);
    let base = || copy_of(&good, "copy");
    let replaced = |position: usize, value: &'static str| {
        let mut arguments = base().into_iter().map(str::to_owned).collect::<Vec<_>>();
        value.clone_into(&mut arguments[position]);
        arguments
    };
    let own = |arguments: Vec<&str>| arguments.into_iter().map(str::to_owned).collect::<Vec<String>>();
    let cases: Vec<(Vec<String>, i32, &str)> = vec![
        (own(copy_of("monday", "copy")), 2, "/subscriptions/<id>/resourceGroups"),
        (own(copy_of(&machine, "copy")), 2, "virtualMachines, not a snapshot"),
        (own(copy_of(&site.disk.arm_id(), "copy")), 2, "not a snapshot"),
        (own(copy_of(&full, "copy")), 6, "full snapshot"),
        (own(copy_of(&site.beside("nobody"), "copy")), 5, "az snapshot list"),
        (own(copy_of(&good, &long)), 2, "1 to 80 letters"),
        (own(copy_of(&good, "a.b")), 2, "1 to 80 letters"),
        (replaced(4, "West Europe"), 2, "in westeurope already"),
        (replaced(4, "mars/moon"), 2, "letters and digits"),
        (own([base(), vec!["--target-resource-group", "a/b"]].concat()), 2, "parentheses"),
        (own([base(), vec!["--tag", "a<b=x"]].concat()), 2, "<>%&"),
        (own([base(), vec!["--tag", "novalue"]].concat()), 2, "KEY=VALUE"),
        (own([base(), vec!["--tag", "a=1", "--tag", "A=2"]].concat()), 2, "twice"),
        (own([base(), vec!["--arm-endpoint", "https://h/x"]].concat()), 2, "scheme and host alone"),
        (own([base(), vec!["--arm-endpoint", "http://192.0.2.1"]].concat()), 23, "clear text"),
        (own(vec!["managed-copy"]), 2, "--source"),
        (own(vec!["managed-copy", "status", "--snapshot", &good]), 2, "it was made by Copy"),
        (own(vec!["managed-copy", "status", "--snapshot", &site.beside("nobody")]), 5, "az snapshot list"),
    ];
    for (arguments, code, part) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (found, told) = site.refused(&arguments).await;
        assert_eq!(found, code, "{arguments:?}: {told}");
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(part), "'{part}' is missing in {told}");
    }
    assert_eq!(site.count(Call::ArmPutSnapshot), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let id = monday.arm_id();
    for action in ["Microsoft.Compute/snapshots/read", "Microsoft.Compute/snapshots/write"] {
        site.arm.deny(action);
        let run = site.run(&[copy_of(&id, "copy"), vec!["-o", "json"]].concat()).await;
        assert_eq!(run.status.code(), Some(4), "{}", text(&run.stderr));
        let error: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(error["error"]["kind"], "permission-missing");
        assert!(error["error"]["next"].as_str().unwrap().contains(action), "{error:#}");
        site.arm.allow_all();
    }
    // Who may read the snapshot but not list the subscription is told what for.
    site.emulator.faults().add(Fault::new(FaultKind::Forbidden).on(Call::ArmListSnapshots));
    let (code, told) = site.refused(&copy_of(&id, "copy")).await;
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("whole subscription") && told.contains("snapshots/read"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_failed_is_an_error() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    site.copies_at(0.0);
    let id = monday.arm_id();
    let started = site.document(&[copy_of(&id, "copy"), vec!["--no-wait"]].concat()).await;
    let target = started["target"].as_str().unwrap();
    monday.delete();
    for wait in [&[][..], &["--wait"]] {
        let arguments = [&["managed-copy", "status", "--snapshot", target], wait].concat();
        let (code, told) = site.refused(&arguments).await;
        assert_eq!(code, 5, "{told}");
        assert!(told.contains("CopySourceNotFound") && told.contains("az snapshot delete --ids '"), "{told}");
    }
}

/// Ctrl-C ends the following and not the copy, and the command that it names finds it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_goes_on_in_the_service() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    site.copies_at(0.0);
    let (id, target) = (monday.arm_id(), site.beside("copy"));
    let mut command = site.command(&copy_of(&id, "copy"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = child.id();
    // The first look belongs to the start.
    until("the copy is followed", || {
        let requests = site.emulator.requests();
        let started = requests.iter().skip_while(|request| request.call != Call::ArmPutSnapshot);
        started.filter(|request| request.call == Call::ArmGetSnapshot).count() >= 2
    })
    .await;
    std::process::Command::new("kill").args(["-INT", &process.to_string()]).status().unwrap();
    let run = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let told = text(&run.stderr);
    assert_eq!(run.status.code(), Some(130), "{told}");
    assert!(told.contains("the copy goes on in the service"), "{told}");
    let next = format!("snapferry managed-copy status --snapshot '{target}' --wait");
    assert!(told.contains(&next), "{told}");

    site.copies_at(1e9);
    let status = site.document(&["managed-copy", "status", "--snapshot", &target, "--wait"]).await;
    assert_eq!(status["state"], "done");
    assert_same_bytes(&site.arm.snapshot(&target).unwrap(), &monday);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_shown_at_the_most_verbose_level_holds_a_token() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    site.copies_at(1e9);
    site.emulator
        .faults()
        .add(Fault::new(FaultKind::TooManyRequests { seconds: 0 }).on(Call::ArmGetSnapshot));
    let id = monday.arm_id();
    let mut command = site.command(&[copy_of(&id, "copy"), vec!["-vvv", "-o", "json"]].concat());
    command.env("RUST_LOG", "trace");
    let run = output(command).await;
    let shown = text(&run.stdout) + &text(&run.stderr);
    assert!(run.status.success(), "{shown}");
    assert!(text(&run.stderr).contains("Snapshots Create Or Update"), "the log is on: {shown}");
    assert_no_secret(&shown);
    assert!(!shown.contains(&site.arm.identity().1));
    let (code, told) =
        site.refused(&[copy_of("https://h/c?sig=abcdefgh", "copy"), vec!["-vvv"]].concat()).await;
    assert_eq!(code, 2);
    assert_no_secret(&told);
}

fn request(source: &str, target: &str) -> Request {
    Request {
        source: ArmId::parse(ArmKind::Snapshot, source).unwrap(),
        target: ArmId::parse(ArmKind::Snapshot, target).unwrap(),
        region: AWAY.to_owned(),
        speed: Speed::Enhanced,
        tags: [("team".to_owned(), "web".to_owned())].into(),
    }
}

const SOON: Polling = Polling { first: Duration::from_millis(10), longest: Duration::from_millis(20) };

#[tokio::test(flavor = "multi_thread")]
async fn the_library_starts_and_follows_through_throttling_and_slow_operations() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let (arm, watch, cancel) = (site.client(), Watch::default(), CancellationToken::new());
    let request = request(&monday.arm_id(), &site.beside("copy"));
    for how in [AsyncReply::Both, AsyncReply::Location] {
        let knobs = ArmKnobs {
            other_changes: how,
            retry_after: Some(0),
            copy_percent_per_second: 0.0,
            ..ArmKnobs::default()
        };
        site.arm.set_knobs(knobs);
        if let Some(former) = site.arm.snapshot(&site.beside("copy")) {
            former.delete();
        }
        let throttled = Fault::new(FaultKind::TooManyRequests { seconds: 1 });
        site.emulator.faults().add(throttled.on(Call::ArmPutSnapshot));
        assert_eq!(watch.read().phase == Phase::Copying, how == AsyncReply::Location);
        let copy = managed::start(&arm, &request, &watch, &cancel).await.unwrap();
        assert!(!copy.is_done());
        let target = site.arm.snapshot(&site.beside("copy")).unwrap();
        let following = copy.follow(&arm, SOON, &watch, &cancel);
        let growing = async {
            for percent in [10.0, 60.0] {
                target.set_completion(percent);
                until("it is seen", || (watch.read().percent - percent).abs() < 0.001).await;
            }
            let seen = watch.read();
            assert!(seen.percent_per_second.unwrap() > 0.0 && seen.left.unwrap() > Duration::ZERO);
            assert_eq!(seen.size, Some(8 * MIB));
            target.set_completion(100.0);
        };
        let (report, ()) = tokio::join!(following, growing);
        let report = report.unwrap();
        assert_eq!((report.state, report.found), (managed::State::Done, false));
    }
    assert!(arm.meter().read().retries >= 2, "it was throttled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_asked_any_more_does_not_end_the_copy() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    site.copies_at(0.0);
    let retry = snapferry::azure::RetryPolicy { budget: Duration::from_millis(50), ..world::client().retry };
    let arm = site.client_with(retry);
    let (watch, cancel) = (Watch::default(), CancellationToken::new());
    let request = request(&monday.arm_id(), &site.beside("copy"));
    let copy = managed::start(&arm, &request, &watch, &cancel).await.unwrap();
    site.emulator.faults().add(Fault::new(FaultKind::InternalError).on(Call::ArmGetSnapshot).always());
    let error = copy.follow(&arm, SOON, &watch, &cancel).await.unwrap_err();
    assert_eq!(error.kind(), snapferry::ErrorKind::Unavailable);
    assert!(error.advice().unwrap().contains("managed-copy status --snapshot"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_reply_was_lost_is_found() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let retry = snapferry::azure::RetryPolicy { budget: Duration::from_millis(50), ..world::client().retry };
    let (arm, watch, cancel) = (site.client_with(retry), Watch::default(), CancellationToken::new());
    let request = request(&monday.arm_id(), &site.beside("copy"));
    let put = |kind| Fault::new(kind).on(Call::ArmPutSnapshot).always();
    site.emulator.faults().add(put(FaultKind::CutBeforeApply));
    let error = managed::start(&arm, &request, &watch, &cancel).await.unwrap_err();
    assert_eq!(error.kind(), snapferry::ErrorKind::Unavailable);
    assert!(error.advice().unwrap().contains("not known"), "{error}");
    site.emulator.faults().clear();
    site.emulator.faults().add(put(FaultKind::CutAfterApply));
    let copy = managed::start(&arm, &request, &watch, &cancel).await.unwrap();
    assert_eq!(copy.target().to_string(), site.beside("copy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_disk_of_the_same_region_is_no_obstacle() {
    let site = Site::new().await;
    site.copies_at(0.0);
    let other = site.emulator.create_disk("other", MIB).unwrap();
    other.write(0, &noise(3, 512)).unwrap();
    for (snapshot, name) in
        [(other.snapshot_named("o1"), "o1-copy"), (site.disk.snapshot_named("monday"), "monday-copy")]
    {
        let id = snapshot.arm_id();
        let report = site.document(&[copy_of(&id, name), vec!["--no-wait"]].concat()).await;
        assert_eq!(report["state"], "copying");
    }
    assert_eq!(site.count(Call::ArmPutSnapshot), 2);
}

const SOURCE: &str =
    "/subscriptions/0b1f/resourceGroups/prod_(web).1/providers/Microsoft.Compute/snapshots/monday";
const TAG: &str = "owner=it's $(touch pwned) \"and\" `id` ’quoted’";

fn emit(form: &str, more: &[&str]) -> String {
    let run = snapferry()
        .args(copy_of(SOURCE, "copy"))
        .args(["--tag", TAG, "--bandwidth", "enhanced", "--emit", form])
        .args(more)
        // Nobody is there to be asked.
        .env("SNAPFERRY_ARM_ENDPOINT", "https://127.0.0.1:9")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    text(&run.stdout)
}

#[test]
fn the_template_is_what_the_resource_manager_expects() {
    let template: Value = serde_json::from_str(&emit("arm-template", &[])).unwrap();
    assert!(template["$schema"].as_str().unwrap().ends_with("/2019-04-01/deploymentTemplate.json#"));
    assert_eq!(template["contentVersion"], "1.0.0.0");
    assert_eq!(template["parameters"]["sourceSnapshotId"]["defaultValue"], SOURCE);
    let resource = &template["resources"][0];
    assert_eq!(resource["type"], "Microsoft.Compute/snapshots");
    assert_eq!(resource["apiVersion"], snapferry::azure::arm::API_VERSION);
    assert_eq!(resource["tags"]["owner"], TAG.strip_prefix("owner=").unwrap());
    assert_eq!(resource["properties"]["incremental"], true);
    assert_eq!(resource["properties"]["creationData"]["createOption"], "CopyStart");
    assert_eq!(resource["properties"]["creationData"]["provisionedBandwidthCopySpeed"], "Enhanced");
}

/// A stand-in for `az` writes down the words that it is given.
#[cfg(unix)]
#[test]
fn the_az_command_gives_az_the_words_as_they_are() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let az = folder.path().join("az");
    std::fs::write(&az, "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\n' \"$word\"; done\n").unwrap();
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = std::process::Command::new("sh")
        .args(["-c", &emit("az", &[])])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    let told = text(&run.stdout);
    let words: Vec<&str> = told.lines().collect();
    let after = |name: &str| words[words.iter().position(|word| *word == name).unwrap() + 1];
    assert_eq!(words[..2], ["snapshot", "create"]);
    assert_eq!(after("--source"), SOURCE);
    assert_eq!(after("--resource-group"), "prod_(web).1");
    assert_eq!((after("--incremental"), after("--copy-start")), ("true", "true"));
    assert_eq!(after("--bandwidth-copy-speed"), "Enhanced");
    assert_eq!(after("--tags"), TAG);
    assert!(!folder.path().join("pwned").exists());
    let document: Value = serde_json::from_str(&emit("az", &["-o", "json"])).unwrap();
    assert!(document["text"].as_str().unwrap().starts_with("az snapshot create"));
}

#[test]
fn the_powershell_script_quotes_as_powershell_reads() {
    let script = emit("powershell", &[]);
    assert!(script.contains("-CreateOption CopyStart") && script.contains("-Incremental"));
    assert!(script.contains("-ResourceGroupName 'prod_(web).1'"), "{script}");
    // Within single quotes nothing is expanded; quotes, straight or not, are doubled.
    assert!(script.contains("'owner' = 'it''s $(touch pwned) \"and\" `id` ’’quoted’’'"), "{script}");
}
