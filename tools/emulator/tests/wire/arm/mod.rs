//! The management side.

mod access;
mod admission;
mod copies;
mod disk_access;
mod disks;
mod imports;
mod lists;
mod operations;
mod snapshots;
mod trouble;
mod uploads;

use serde_json::{Value, json};
use snapferry_emulator::{Arm, ArmKnobs, Config, Disk, Emulator};

use crate::client::{Answer, HOUR, send};

const VERSION: &str = "2024-03-02";
const MIB: u64 = 1 << 20;

/// An emulator with one disk, `data`, and a token.
struct World {
    emulator: Emulator,
    arm: Arm,
    disk: Disk,
    token: String,
}

impl World {
    async fn new() -> World {
        let emulator = Emulator::start(Config { record: true, ..Config::default() }).await.unwrap();
        let arm = emulator.arm();
        let disk = emulator.create_disk("data", MIB).unwrap();
        let token = arm.token(HOUR);
        World { emulator, arm, disk, token }
    }

    fn set(&self, knobs: ArmKnobs) {
        self.arm.set_knobs(knobs);
    }

    /// The id of a snapshot in the group `disks`.
    fn snapshot_id(&self, name: &str) -> String {
        let subscription = self.arm.subscription();
        format!(
            "/subscriptions/{subscription}/resourceGroups/disks/providers/Microsoft.Compute/snapshots/{name}"
        )
    }

    fn disk_id(&self, name: &str) -> String {
        self.snapshot_id(name).replace("/snapshots/", "/disks/")
    }

    /// Asks with the token and a version.
    async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        let url = format!("{}{path}?api-version={VERSION}", self.arm.endpoint());
        self.ask_url(method, &url, body).await
    }

    async fn ask_url(&self, method: &str, url: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        send(method, url, &[("authorization", &bearer), ("content-type", "application/json")], body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, Value::Null).await
    }

    /// The properties of a snapshot.
    async fn properties(&self, name: &str) -> Value {
        let answer = self.get(&self.snapshot_id(name)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        json_of(&answer)["properties"].clone()
    }

    async fn begin(&self, name: &str) -> Answer {
        self.begin_with(name, json!({ "access": "Read", "durationInSeconds": 3600 })).await
    }

    async fn begin_with(&self, name: &str, body: Value) -> Answer {
        self.ask("POST", &format!("{}/beginGetAccess", self.snapshot_id(name)), body).await
    }

    async fn end(&self, name: &str) -> Answer {
        self.ask("POST", &format!("{}/endGetAccess", self.snapshot_id(name)), Value::Null).await
    }
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

/// Status and code of a refusal; its message must not be empty.
fn refusal(answer: &Answer) -> (u16, String) {
    let body = json_of(answer);
    let error = &body["error"];
    assert!(!error["message"].as_str().unwrap().is_empty(), "{body}");
    (answer.status, error["code"].as_str().unwrap().to_owned())
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, says: &str) {
    assert_eq!(refusal(answer), (status, code.to_owned()), "{}", answer.text());
    let body = json_of(answer);
    assert!(body["error"]["message"].as_str().unwrap().contains(says), "{body}");
}

fn sas_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    json_of(answer)["accessSAS"].as_str().unwrap().to_owned()
}
