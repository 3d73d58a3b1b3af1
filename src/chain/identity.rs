//! The identity of a snapshot, read from its URL.
//!
//! All incremental snapshots of one disk are snapshots of one hidden page blob: their URLs share host and path
//! and differ in `snapshot=` (seen in recorded traffic of the service). So host and path name the family and
//! the snapshot time names the member, without asking the control plane.

use std::fmt;
use std::str::FromStr;

use crate::azure::Resource;
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageReader;

/// One snapshot of one family. Holds no secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SnapshotId {
    family: String,
    time: String,
}

impl SnapshotId {
    /// Reads the identity from a URL.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the URL names no snapshot: what can still change is not copied.
    pub fn of(resource: &Resource) -> Result<Self> {
        let Some(time) = resource.snapshot() else {
            let role = resource.role();
            return Err(Error::new(
                ErrorKind::Usage,
                format!("use the {role} URL"),
                "it names no snapshot (no snapshot= in it): a disk, or a full snapshot, cannot be diffed",
            )
            .on(resource)
            .next("take an incremental snapshot: az snapshot create --incremental true --source <disk>"));
        };
        Ok(Self { family: resource.location(), time: time.to_owned() })
    }

    /// The identity of an image on this machine: its name, and since when it is what it is.
    pub(crate) fn of_image(image: &ImageReader) -> Self {
        let name = percent_encoding::utf8_percent_encode(&image.name(), percent_encoding::NON_ALPHANUMERIC)
            .to_string();
        Self {
            family: format!("file/{name}"),
            time: image.changed().strftime("%Y-%m-%dT%H:%M:%S.%7fZ").to_string(),
        }
    }

    /// Whether it is an image that lay on a machine, and not a snapshot.
    pub(crate) fn is_image(&self) -> bool {
        self.family.starts_with("file/")
    }

    /// Host and path that the snapshots of one disk share.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// The snapshot time as the service wrote it.
    pub fn time(&self) -> &str {
        &self.time
    }

    /// Whether this snapshot was taken before `other`. Times are compared as times: the number of fractional
    /// digits may differ.
    pub fn is_older_than(&self, other: &Self) -> bool {
        match (self.time.parse::<jiff::Timestamp>(), other.time.parse::<jiff::Timestamp>()) {
            (Ok(mine), Ok(theirs)) => mine < theirs,
            _ => self.time < other.time,
        }
    }

    /// Whether both name the same snapshot; `across_hosts` trusts the time alone, for a disk whose export moved
    /// to another host.
    pub fn is(&self, other: &Self, across_hosts: bool) -> bool {
        let is_of_one_kind = self.is_image() == other.is_image();
        self.time == other.time
            && (self.family == other.family || across_hosts && is_of_one_kind && !self.is_image())
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.family, self.time)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SnapshotId {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.rsplit_once('@') {
            Some((family, time)) if !family.is_empty() && !time.is_empty() => {
                Ok(Self { family: family.to_owned(), time: time.to_owned() })
            }
            _ => Err(format!("'{text}' is not <host>/<path>@<time>")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::azure::{PlainHttp, Role};

    fn id(text: &str) -> SnapshotId {
        SnapshotId::of(&Resource::parse(Role::Source, text, PlainHttp::LoopbackOnly).unwrap()).unwrap()
    }

    #[test]
    fn the_identity_is_host_path_and_time_and_nothing_secret() {
        let one = id(
            "https://md-1.z1.blob.storage.azure.net/c/abcd?snapshot=2021-08-05T20%3A57%3A05.1245659Z&si=1&sig=x",
        );
        let two = id(
            "https://md-1.z1.blob.storage.azure.net/c/abcd?snapshot=2021-08-05T20%3A58%3A06.9075559Z&si=2&sig=y",
        );
        assert_eq!(one.to_string(), "md-1.z1.blob.storage.azure.net/c/abcd@2021-08-05T20:57:05.1245659Z");
        assert_eq!(one.family(), two.family());
        assert!(one.is_older_than(&two) && !two.is_older_than(&one) && !one.is_older_than(&one));
        assert_eq!(one.to_string().parse::<SnapshotId>().unwrap(), one);
    }

    #[test]
    fn a_blob_without_a_snapshot_has_no_identity() {
        let live = Resource::parse(
            Role::Source,
            "https://a.blob.core.windows.net/c/b?sig=x",
            PlainHttp::LoopbackOnly,
        )
        .unwrap();
        assert_eq!(SnapshotId::of(&live).unwrap_err().kind(), ErrorKind::Usage);
    }
}
