//! SAS URLs of snapshots: granted, used, ended, and kept from everybody else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod management;
mod world;

use management::{Site, assert_no_secret};
use serde_json::Value;
use snapferry_emulator::{ArmKnobs, AsyncReply, Call};
use world::{MIB, World, noise, output, snapferry, text};

const GRANT: [&str; 3] = ["access", "grant", "--snapshot"];
const REVOKE: [&str; 3] = ["access", "revoke", "--snapshot"];

/// Grant to a file, copy with the file, revoke: what the help shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_granted_url_goes_through_a_file_into_a_copy_and_ends() {
    let (site, world) = (Site::new().await, World::new().await);
    let monday = site.disk.snapshot_named("monday");
    let id = monday.arm_id();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("monday.sas");
    let mut grant = site.command(&[&GRANT[..], &[&id, "--duration", "30m"]].concat());
    grant.stdout(std::fs::File::create(&file).unwrap());
    let run = output(grant).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("is a secret"));
    assert_no_secret(&text(&run.stderr));
    let held = std::fs::read_to_string(&file).unwrap();
    assert!(held.starts_with("http") && held.contains("sig=") && held.lines().count() == 1, "one line");
    assert_eq!(site.arm.active_grants(), [id.as_str()]);

    let mut copy = snapferry();
    copy.args(["copy", "--quiet", "--source", &format!("@{}", file.display())]);
    copy.args(["--target", &world.target_url()]);
    let run = output(copy).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let point = world.base(None).unwrap().snapshots()[0].clone();
    world::assert_same_bytes(&world.base(Some(&point)).unwrap(), &monday);

    let revoked = site.document(&[&REVOKE[..], &[&id]].concat()).await;
    assert_eq!(revoked["revoked"], serde_json::json!([id]));
    assert_eq!(site.arm.active_grants(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_the_url_as_a_document() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let knobs = ArmKnobs {
        begin_access: AsyncReply::AsyncOperation,
        lower_case_sas: true,
        retry_after: Some(0),
        ..ArmKnobs::default()
    };
    site.arm.set_knobs(knobs);
    let id = monday.arm_id();
    let granted = site.document(&[&GRANT[..], &[&id, "--duration", "60d"]].concat()).await;
    assert_eq!(granted["snapshot"], id);
    assert_eq!(granted["expires_in_seconds"], 60 * 24 * 3600);
    assert!(granted["url"].as_str().unwrap().contains("sig="));
    assert_eq!(granted.as_object().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_stands_on_standard_output_and_nowhere_else() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let id = monday.arm_id();
    let mut grant = site.command(&[&GRANT[..], &[&id, "-vvv"]].concat());
    grant.env("RUST_LOG", "trace");
    let run = output(grant).await;
    assert!(run.status.success());
    let told = text(&run.stderr);
    assert!(told.contains("Snapshots Grant Access"), "the log is on: {told}");
    assert_no_secret(&told);
    assert!(!told.contains(&site.arm.identity().1));
    let url = text(&run.stdout);
    let signature = url.trim().split_once("sig=").unwrap().1.to_owned();
    assert!(signature.len() > 10);
    // Everything that comes after knows of the SAS, and shows none of it.
    for arguments in [
        [&GRANT[..], &[&id]].concat(),
        [&GRANT[..], &[&id, "-o", "json"]].concat(),
        [&GRANT[..], &[url.trim()]].concat(),
        [&REVOKE[..], &[url.trim()]].concat(),
        [&REVOKE[..], &[&id]].concat(),
        vec!["access", "grant", url.trim()],
    ] {
        let mut command = site.command(&arguments);
        command.arg("-vvv");
        let run = output(command).await;
        let shown = text(&run.stdout) + &text(&run.stderr);
        assert!(!shown.contains(&signature), "{shown}");
        assert_no_secret(&shown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_granted_is_refused() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let (id, disk) = (monday.arm_id(), site.disk.arm_id());
    let machine = id.replace("/snapshots/", "/virtualMachines/");
    let nobody = site.beside("nobody");
    for (arguments, code, part) in [
        (vec![&*id, "--duration", "29s"], 2, "30 seconds to 60 days"),
        (vec![&*id, "--duration", "60d 1s"], 2, "30 seconds to 60 days"),
        (vec![&*id, "--duration", "soon"], 2, "--duration"),
        (vec!["monday"], 2, "/subscriptions/<id>/resourceGroups"),
        (vec![&*disk], 2, "not a snapshot"),
        (vec![&*machine], 2, "not a snapshot"),
        (vec![&*nobody], 5, "az snapshot list"),
    ] {
        let run = site.run(&[&GRANT[..], &arguments].concat()).await;
        let told = text(&run.stderr);
        assert_eq!(run.status.code(), Some(code), "{told}");
        assert!(told.contains(part), "'{part}' is missing in {told}");
        assert!(run.stdout.is_empty());
    }
    assert_eq!(site.count(Call::BeginGetAccess), 1, "only the one that does not exist was asked for");
    let (code, told) = site.refused(&["access", "revoke"]).await;
    assert_eq!(code, 2, "{told}");
    let (code, told) = site.refused(&["access", "revoke", "--disk", &id]).await;
    assert_eq!(code, 2, "a snapshot is no disk: {told}");
    let (code, _) = site.refused(&["access", "revoke", "--disk", &disk, "--snapshot", &id]).await;
    assert_eq!(code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_grant_names_the_way_to_end_the_first() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let id = monday.arm_id();
    let grant = [&GRANT[..], &[&id]].concat();
    assert!(site.run(&grant).await.status.success());
    let (code, told) = site.refused(&grant).await;
    assert_eq!(code, 24, "{told}");
    let next = format!("snapferry access revoke --snapshot '{id}'");
    assert!(told.contains(&next), "{told}");
    let (code, told) = site.refused(&[&REVOKE[..], &[&id]].concat()).await;
    assert_eq!(code, 0, "{told}");
    assert!(site.run(&grant).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let id = monday.arm_id();
    for (arguments, action) in [
        (GRANT, "Microsoft.Compute/snapshots/beginGetAccess/action"),
        (REVOKE, "Microsoft.Compute/snapshots/endGetAccess/action"),
    ] {
        site.arm.deny(action);
        let run = site.run(&[&arguments[..], &[&id, "-o", "json"]].concat()).await;
        assert_eq!(run.status.code(), Some(4), "{}", text(&run.stderr));
        let error: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert!(error["error"]["next"].as_str().unwrap().contains(action), "{error:#}");
        site.arm.allow_all();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_freed_of_its_sas_and_others_keep_theirs() {
    let site = Site::new().await;
    site.arm.set_knobs(ArmKnobs { page_size: 1, ..ArmKnobs::default() });
    let other = site.emulator.create_disk("other", MIB).unwrap();
    other.write(0, &noise(2, 512)).unwrap();
    let theirs = other.snapshot_named("theirs");
    let [one, two, three] = ["one", "two", "three"].map(|name| site.disk.snapshot_named(name));
    for snapshot in [&one, &three, &theirs] {
        assert!(site.run(&[&GRANT[..], &[&snapshot.arm_id()]].concat()).await.status.success());
    }
    let disk = site.disk.arm_id();
    let revoked = site.document(&["access", "revoke", "--disk", &disk.to_uppercase()]).await;
    let mut ended: Vec<&str> =
        revoked["revoked"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    ended.sort_unstable();
    let mut expected = [one.arm_id(), three.arm_id()];
    expected.sort();
    assert_eq!(ended, expected);
    assert_eq!(site.arm.active_grants(), [theirs.arm_id()]);
    assert_eq!(site.count(Call::EndGetAccess), 2, "{} had none", two.name());

    let run = site.run(&["access", "revoke", "--disk", &disk]).await;
    assert!(run.status.success() && text(&run.stdout).contains("no SAS is out"));
    let (code, told) = site.refused(&["access", "revoke", "--disk", &disk.replace("/web", "/wbe")]).await;
    assert_eq!(code, 5, "a misspelt name: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_ended_does_not_keep_the_others() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let id = monday.arm_id();
    assert!(site.run(&[&GRANT[..], &[&id]].concat()).await.status.success());
    let nobody = site.beside("nobody");
    // Given twice, in another spelling, it is ended once.
    let again = id.to_uppercase();
    let (code, told) =
        site.refused(&[&REVOKE[..], &[&nobody, "--snapshot", &id, "--snapshot", &again]].concat()).await;
    assert_eq!(code, 5, "{told}");
    assert!(told.contains("nobody") && told.contains("ended meanwhile: monday"), "{told}");
    assert_eq!(site.arm.active_grants(), [""; 0]);
    assert_eq!(site.count(Call::EndGetAccess), 2);
}

/// A URL that could not be written is lost; the SAS is not.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_nobody_could_read_is_told_to_be_out() {
    let site = Site::new().await;
    let monday = site.disk.snapshot_named("monday");
    let mut grant = site.command(&[&GRANT[..], &[&monday.arm_id()]].concat());
    grant.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let run = output(grant).await;
    let told = text(&run.stderr);
    assert_eq!(run.status.code(), Some(22), "{told}");
    assert!(told.contains("snapferry access revoke --snapshot '"), "{told}");
    assert_no_secret(&told);
}
