//! What is asked for: checked as far as that is possible without asking anybody.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::azure::reply::scrub;
use crate::azure::{ArmId, ArmKind};
use crate::error::{Error, ErrorKind, Result};

/// Longest name of a snapshot.
const LONGEST_NAME: usize = 80;
/// Longest name of a resource group.
const LONGEST_GROUP: usize = 90;
/// Most tags of a resource, and their longest parts.
const MOST_TAGS: usize = 50;
const LONGEST_KEY: usize = 512;
const LONGEST_VALUE: usize = 256;

/// How fast the service copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speed {
    /// As the service sees fit.
    #[default]
    Usual,
    /// Faster, at a price (`provisionedBandwidthCopySpeed: Enhanced`).
    Enhanced,
}

/// One copy of one snapshot to one region.
#[derive(Clone, Debug)]
pub struct Request {
    /// The snapshot to copy.
    pub source: ArmId,
    /// The snapshot that it becomes. Of the same subscription.
    pub target: ArmId,
    /// The region to copy to; `West Europe` and `westeurope` are the same.
    pub region: String,
    /// How fast.
    pub speed: Speed,
    /// Tags of the target.
    pub tags: BTreeMap<String, String>,
}

impl Request {
    /// The id of a snapshot `name` in the source's subscription, and in its resource group unless another is named.
    ///
    /// # Errors
    /// When a snapshot, or a resource group, cannot have such a name.
    pub fn target_of(source: &ArmId, group: Option<&str>, name: &str) -> Result<ArmId> {
        check_name(name)?;
        if let Some(group) = group {
            check_group(group)?;
        }
        Ok(ArmId::new(ArmKind::Snapshot, source.subscription(), group.unwrap_or(source.group()), name))
    }

    /// What can be told to be wrong without asking anybody.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], with what is wrong.
    pub fn check(&self) -> Result<()> {
        for (id, role) in [(&self.source, "source"), (&self.target, "target")] {
            if id.kind() != ArmKind::Snapshot {
                return usage(
                    format!("use the {role}"),
                    id,
                    format!("it names a {}, not a snapshot", id.kind()),
                );
            }
        }
        check_name(self.target.name())?;
        check_group(self.target.group())?;
        if !self.source.subscription().eq_ignore_ascii_case(self.target.subscription()) {
            return usage("use the target", &self.target, "it is in another subscription than the source");
        }
        if self.source == self.target {
            return usage(
                "use the target",
                &self.target,
                "it is the source itself: give it another name or group",
            );
        }
        let region = fold_region(&self.region);
        if region.is_empty() || region.len() > 50 || !region.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::new(
                ErrorKind::Usage,
                "use the region",
                "a region's name has letters and digits",
            )
            .on(scrub(&self.region))
            .next("az account list-locations --query '[].name' -o tsv"));
        }
        check_tags(&self.tags)
    }

    /// The region as the service writes it.
    pub fn region_name(&self) -> String {
        fold_region(&self.region)
    }

    /// What the service is sent.
    pub(super) fn body(&self) -> Value {
        let mut creation =
            json!({ "createOption": "CopyStart", "sourceResourceId": self.source.to_string() });
        if self.speed == Speed::Enhanced {
            creation["provisionedBandwidthCopySpeed"] = json!("Enhanced");
        }
        json!({
            "location": self.region_name(),
            "tags": self.tags,
            "properties": { "incremental": true, "creationData": creation },
        })
    }
}

/// Regions are compared so.
pub(crate) fn fold_region(region: &str) -> String {
    region.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase()
}

fn usage<T>(tried: impl Into<String>, on: &ArmId, why: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Usage, tried, why).on(on).next("snapferry managed-copy --help"))
}

fn check_name(name: &str) -> Result<()> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_allowed) {
        return Ok(());
    }
    let why = format!("a snapshot's name has 1 to {LONGEST_NAME} letters, digits, _ and -");
    Err(Error::new(ErrorKind::Usage, "use the name of the target", why)
        .on(scrub(name))
        .next("give another with --target-name"))
}

/// Letters and digits of all languages, and few signs.
fn check_group(group: &str) -> Result<()> {
    let is_allowed = |c: char| c.is_alphanumeric() || "_-.()".contains(c);
    let length = group.chars().count();
    if (1..=LONGEST_GROUP).contains(&length) && group.chars().all(is_allowed) && !group.ends_with('.') {
        return Ok(());
    }
    let why = format!(
        "a resource group's name has 1 to {LONGEST_GROUP} letters, digits, _, -, parentheses and dots, and no dot at its end"
    );
    Err(Error::new(ErrorKind::Usage, "use the resource group of the target", why)
        .on(scrub(group))
        .next("az group list --query '[].name' -o tsv"))
}

/// Refuses tags that no resource can have.
pub(crate) fn check_tags(tags: &BTreeMap<String, String>) -> Result<()> {
    let refuse = |key: &str, why: String| {
        Err(Error::new(ErrorKind::Usage, "use the tags", why)
            .on(scrub(key))
            .next("give it as --tag key=value"))
    };
    if tags.len() > MOST_TAGS {
        return refuse("", format!("a resource has at most {MOST_TAGS} tags"));
    }
    for (key, value) in tags {
        let has_sign = key.contains(|c: char| c.is_control() || "<>%&\\?/".contains(c));
        if key.trim().is_empty() || key.chars().count() > LONGEST_KEY || has_sign {
            return refuse(
                key,
                format!("a tag's name has 1 to {LONGEST_KEY} characters, none of them <>%&\\?/"),
            );
        }
        if value.chars().count() > LONGEST_VALUE || value.contains(char::is_control) {
            return refuse(key, format!("a tag's value has at most {LONGEST_VALUE} characters on one line"));
        }
        let is_same = |other: &&String| other.to_lowercase() == key.to_lowercase();
        if tags.keys().filter(is_same).count() > 1 {
            return refuse(key, "it is given twice; names of tags are compared without case".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(in super::super) fn snapshot_id(name: &str) -> ArmId {
        ArmId::new(ArmKind::Snapshot, "0b1f", "Prod(web)", name)
    }

    pub(in super::super) fn request() -> Request {
        Request {
            source: snapshot_id("monday"),
            target: snapshot_id("monday-copy"),
            region: "West Europe".to_owned(),
            speed: Speed::Usual,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn the_body_asks_for_an_incremental_copy_start() {
        let mut request = request();
        request.check().unwrap();
        request.speed = Speed::Enhanced;
        let body = request.body();
        assert_eq!(body["location"], "westeurope");
        assert_eq!(body["properties"]["incremental"], true);
        let creation = &body["properties"]["creationData"];
        assert_eq!(creation["createOption"], "CopyStart");
        assert_eq!(creation["sourceResourceId"], request.source.to_string());
        assert_eq!(creation["provisionedBandwidthCopySpeed"], "Enhanced");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anybody_is_asked() {
        let source = snapshot_id("monday");
        for name in ["", "a b", "a.b", "a/b", "ü", &"x".repeat(81)] {
            assert_eq!(
                Request::target_of(&source, None, name).unwrap_err().kind(),
                ErrorKind::Usage,
                "{name}"
            );
        }
        for group in ["", "a/b", "a'b", "ends.", "a b", &"x".repeat(91)] {
            assert!(Request::target_of(&source, Some(group), "n").is_err(), "{group}");
        }
        let made = Request::target_of(&source, Some("Übung_(1).x"), &"n".repeat(80)).unwrap();
        assert_eq!((made.group(), made.subscription()), ("Übung_(1).x", "0b1f"));

        let refuse = |change: fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            request.check().unwrap_err().to_string()
        };
        assert!(refuse(|r| r.region = "mars; rm".to_owned()).contains("region"));
        assert!(refuse(|r| r.target = r.source.clone()).contains("itself"));
        assert!(
            refuse(|r| r.source = ArmId::new(ArmKind::Disk, "0b1f", "g", "d")).contains("not a snapshot")
        );
        assert!(refuse(|r| r.target = ArmId::new(ArmKind::Snapshot, "other", "g", "n")).contains("another"));
        for (key, value) in [("", "x"), ("a<b", "x"), ("a\nb", "x"), ("a", "two\nlines")] {
            let mut request = request();
            request.tags.insert(key.to_owned(), value.to_owned());
            assert!(request.check().is_err(), "{key:?}={value:?}");
        }
        assert!(
            refuse(|r| r.tags = [("Team", "a"), ("team", "b")].map(|(k, v)| (k.into(), v.into())).into())
                .contains("twice")
        );
    }
}
