//! Lists of resources, page by page.

use serde_json::Value;
use snapferry_emulator::{ArmKnobs, Call};

use super::{MIB, World, assert_refused, json_of};
use crate::client::Answer;

fn names(answer: &Answer) -> Vec<String> {
    let body = json_of(answer);
    let values = body["value"].as_array().unwrap();
    values.iter().map(|value| value["name"].as_str().unwrap().to_owned()).collect()
}

/// The names on each page.
async fn pages(world: &World, path: &str) -> Vec<Vec<String>> {
    let mut answer = world.get(path).await;
    let mut pages = Vec::new();
    loop {
        assert_eq!(answer.status, 200, "{}", answer.text());
        pages.push(names(&answer));
        let body = json_of(&answer);
        let Some(next) = body["nextLink"].as_str() else { return pages };
        assert!(next.starts_with(&world.arm.endpoint()));
        answer = world.ask_url("GET", next, Value::Null).await;
    }
}

#[tokio::test]
async fn lists_cover_a_group_or_the_subscription() {
    let world = World::new().await;
    let other = world.emulator.create_disk_in("Other", "data", MIB).unwrap();
    world.disk.snapshot_named("B");
    world.disk.snapshot_named("a");
    other.snapshot_named("c");
    let gone = world.disk.snapshot();
    gone.delete();
    let subscription = format!("/subscriptions/{}", world.arm.subscription());
    let list = |scope: &str, kind: &str| format!("{subscription}{scope}/providers/Microsoft.Compute/{kind}");
    assert_eq!(pages(&world, &list("", "snapshots")).await, [["a", "B", "c"]]);
    assert_eq!(pages(&world, &list("/resourceGroups/DISKS", "snapshots")).await, [["a", "B"]]);
    assert_eq!(pages(&world, &list("/resourceGroups/other", "snapshots")).await, [["c"]]);
    assert_eq!(pages(&world, &list("", "disks")).await, [["data", "data"]]);
    assert_eq!(pages(&world, &list("/resourceGroups/other", "disks")).await, [["data"]]);
    let nowhere = world.get(&list("/resourceGroups/none", "snapshots")).await;
    assert_refused(&nowhere, 404, "ResourceGroupNotFound", "'none'");
    assert_eq!(world.emulator.stats().of(Call::ArmListSnapshots).requests, 4);
}

#[tokio::test]
async fn pages_have_the_size_that_is_set_and_stand_changes() {
    let world = World::new().await;
    for number in 1..=5 {
        world.disk.snapshot_named(&format!("s{number}"));
    }
    let list = format!("/subscriptions/{}/providers/Microsoft.Compute/snapshots", world.arm.subscription());
    world.set(ArmKnobs { page_size: 2, ..ArmKnobs::default() });
    assert_eq!(pages(&world, &list).await, [vec!["s1", "s2"], vec!["s3", "s4"], vec!["s5"]]);

    // What goes and comes between two pages neither hides nor repeats the others.
    let first = json_of(&world.get(&list).await);
    world.arm.snapshot(&world.snapshot_id("s2")).unwrap().delete();
    world.disk.snapshot_named("s0");
    let second = world.ask_url("GET", first["nextLink"].as_str().unwrap(), Value::Null).await;
    assert_eq!(names(&second), ["s3", "s4"]);

    world.set(ArmKnobs { page_size: 5, empty_last_page: true, ..ArmKnobs::default() });
    assert_eq!(pages(&world, &list).await, [vec!["s0", "s1", "s3", "s4", "s5"], vec![]]);
    let wrong = format!("{}{list}?api-version={}&$skiptoken=x", world.arm.endpoint(), super::VERSION);
    assert_refused(&world.ask_url("GET", &wrong, Value::Null).await, 400, "InvalidParameter", "skiptoken");
}
