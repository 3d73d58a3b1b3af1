//! The marker: the base blob's own word on its state, kept in its metadata. It is the only state there is.
//!
//! It is written before the first byte of a step ("applying A -> B, generation g"), renewed with a checkpoint
//! every few seconds, and says "clean at B" after the seal. Any machine can read it, go on, or refuse.
//! A point carries the marker of its seal, so that each point tells where it came from.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::azure::Metadata;
use crate::azure::crc64::Crc64;
use crate::chain::{Origin, SnapshotId};
use crate::copy::frontier::{Checkpoint, Counts};
use crate::range::PAGE;
use crate::record::{RecordId, digest};

/// All names in the metadata begin with this; other names belong to the user and are left as they are.
const PREFIX: &str = "snapferry_";
/// Layout of the metadata. A higher number is not understood.
const FORMAT: u32 = 3;
/// What is written as long as the layout before says all that there is to say: older versions go on understanding it.
const FORMAT_WITH_DIGEST: u32 = 2;
/// The first layout, without records and digests of points.
const FORMAT_WITHOUT_DIGEST: u32 = 1;
/// In the place of a CRC-64 that nobody knows.
const UNKNOWN: &str = "none";

/// What the base blob is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A step is being written: between two snapshots, fit for nothing but going on.
    Applying,
    /// Everything is written; the point may or may not exist.
    Sealing,
    /// The base equals the snapshot, and the point exists.
    Clean,
}

/// From which snapshot to which. `from` is `None` for a full copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepId {
    /// The previous snapshot.
    pub from: Option<SnapshotId>,
    /// The snapshot that is copied.
    pub to: SnapshotId,
}

impl StepId {
    /// Whether both are the same step.
    pub fn is(&self, other: &Self, across_hosts: bool) -> bool {
        let same_from = match (&self.from, &other.from) {
            (None, None) => true,
            (Some(mine), Some(theirs)) => mine.is(theirs, across_hosts),
            _ => false,
        };
        same_from && self.to.is(&other.to, across_hosts)
    }
}

impl std::fmt::Display for StepId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.from {
            Some(from) => write!(f, "the difference from {from} to {}", self.to),
            None => write!(f, "the full copy of {}", self.to),
        }
    }
}

/// What a run sent, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Bytes.
    pub bytes: u64,
    /// Milliseconds from the first chunk to the last.
    pub millis: u64,
}

impl Speed {
    fn read(text: &str) -> Option<Self> {
        let (bytes, millis) = text.split_once('/')?;
        Some(Self { bytes: bytes.parse().ok()?, millis: millis.parse().ok()? })
    }

    /// Bytes a second.
    pub fn rate(self) -> Option<u64> {
        self.bytes.saturating_mul(1000).checked_div(self.millis)
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// What the base is in the middle of.
    pub state: State,
    /// The step that is being applied, or was the last to be sealed.
    pub step: StepId,
    /// Length of `to` in bytes, footer included.
    pub length: u64,
    /// The fencing number of the run that wrote this.
    pub generation: u64,
    /// Names the run that wrote this: for idempotence, and for a person.
    pub run: String,
    /// Host and process of that run: who may hold the lease.
    pub owner: String,
    /// How far the step is written.
    pub checkpoint: Checkpoint,
    /// Time of the point's blob snapshot, once it exists.
    pub point: Option<String>,
    /// While a step is applied: the point that the base equalled before it, to which it can be rolled back.
    pub last_point: Option<String>,
    /// While a step is applied: a page list that broke the protocol may have had pages cleared that hold data. The
    /// step cannot be finished; it can be undone.
    pub distrusted: bool,
    /// How fast the run that sealed it was.
    pub speed: Option<Speed>,
    /// Who the snapshots are in Azure Resource Manager, where that is known.
    pub origin: Option<Origin>,
    /// Points that are never deleted.
    pub protected: BTreeSet<String>,
    /// The record of the step, as far as the checkpoint; `None` where none could be kept.
    pub record: Option<RecordId>,
    /// The digest of the point that the step began at.
    pub before: Option<String>,
    /// The digest of the point.
    pub chain: Option<String>,
    /// The point that this one is made to stand for, because the base blob had changed since: see [`crate::repair`].
    pub repairs: Option<String>,
    /// When this was written (RFC 3339).
    pub written_at: String,
}

impl Marker {
    /// Reads the marker out of metadata; `None` when there is none.
    ///
    /// # Errors
    /// What is wrong with it. A marker that cannot be read is never taken for "clean".
    pub fn read(metadata: &Metadata) -> Result<Option<Self>, String> {
        if !metadata.keys().any(|name| name.starts_with(PREFIX)) {
            return Ok(None);
        }
        let fields = Fields(metadata);
        let format: u32 = fields.number("format")?;
        if !(FORMAT_WITHOUT_DIGEST..=FORMAT).contains(&format) {
            return Err(format!(
                "its format is {format}; this version of snapferry reads formats up to {FORMAT}"
            ));
        }
        let state = match fields.text("state")? {
            "applying" => State::Applying,
            "sealing" => State::Sealing,
            "clean" => State::Clean,
            other => return Err(format!("its state '{other}' is unknown")),
        };
        let from = match fields.text("from")? {
            "none" => None,
            text => Some(text.parse::<SnapshotId>()?),
        };
        let (offset, length): (u64, u64) = (fields.number("checkpoint")?, fields.number("length")?);
        if !offset.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) || offset > length {
            return Err(format!("its checkpoint {offset} of {length} bytes makes no sense"));
        }
        let digest = match fields.text("digest")? {
            UNKNOWN if format > FORMAT_WITH_DIGEST => None,
            text => Some(u64::from_str_radix(text, 16).map_err(|_| "its digest is not hex")?),
        };
        let point = Some(fields.text("point")?).filter(|text| *text != "none").map(str::to_owned);
        let protected = fields.optional("protected").unwrap_or_default();
        if state == State::Clean && point.is_none() {
            return Err("it says clean and names no point".to_owned());
        }
        Ok(Some(Self {
            state,
            step: StepId { from, to: fields.text("to")?.parse()? },
            length,
            generation: fields.number("generation")?,
            run: fields.text("run")?.to_owned(),
            owner: fields.text("owner")?.to_owned(),
            checkpoint: Checkpoint {
                offset,
                counts: Counts {
                    chunks: fields.number("chunks")?,
                    bytes: fields.number("bytes")?,
                    bytes_sent: fields.number("bytes_sent")?,
                    bytes_pulled: if format > FORMAT_WITH_DIGEST {
                        fields.number("bytes_pulled")?
                    } else {
                        0
                    },
                    bytes_zero: fields.number("bytes_zero")?,
                },
                digest: digest.map(|digest| Crc64::from_parts(digest, offset)),
            },
            point,
            last_point: fields.optional("last_point").map(str::to_owned),
            distrusted: fields.optional("distrusted").is_some(),
            speed: fields.optional("speed").and_then(Speed::read),
            origin: fields.origin(),
            record: fields.optional("record").map(read_record).transpose()?,
            before: fields.optional("before").map(str::to_owned),
            chain: fields.optional("chain").map(str::to_owned),
            repairs: fields.optional("repairs").map(str::to_owned),
            protected: protected.split(',').filter(|time| !time.is_empty()).map(str::to_owned).collect(),
            written_at: fields.text("written_at")?.to_owned(),
        }))
    }

    /// The metadata of the blob with this marker in it; what is not ours in `others` stays.
    pub fn write(&self, others: &Metadata) -> Metadata {
        let counts = self.checkpoint.counts;
        let fields = [
            ("format", self.format().to_string()),
            ("state", self.state_name().to_owned()),
            ("from", self.step.from.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
            ("to", self.step.to.to_string()),
            ("length", self.length.to_string()),
            ("generation", self.generation.to_string()),
            ("run", self.run.clone()),
            ("owner", self.owner.clone()),
            ("checkpoint", self.checkpoint.offset.to_string()),
            ("chunks", counts.chunks.to_string()),
            ("bytes", counts.bytes.to_string()),
            ("bytes_sent", counts.bytes_sent.to_string()),
            ("bytes_zero", counts.bytes_zero.to_string()),
            ("digest", self.checkpoint.digest.map_or_else(|| UNKNOWN.to_owned(), digest_text)),
            ("point", self.point.clone().unwrap_or_else(|| "none".to_owned())),
            ("written_at", self.written_at.clone()),
        ];
        let mut optional = vec![("last_point", self.last_point.clone().unwrap_or_default())];
        if self.format() > FORMAT_WITH_DIGEST {
            optional.push(("bytes_pulled", counts.bytes_pulled.to_string()));
        }
        if let Some(speed) = self.speed {
            optional.push(("speed", format!("{}/{}", speed.bytes, speed.millis)));
        }
        if self.distrusted {
            optional.push(("distrusted", "yes".to_owned()));
        }
        if let Some(origin) = &self.origin {
            optional.extend([
                ("snapshot", origin.encoded_snapshot()),
                ("snapshot_uid", origin.unique_id.clone()),
                ("created", origin.created.clone().unwrap_or_default()),
                ("previous_uid", origin.previous_unique_id.clone().unwrap_or_default()),
                ("disk_uid", origin.disk_unique_id.clone().unwrap_or_default()),
                ("family", origin.family.clone().unwrap_or_default()),
            ]);
        }
        optional.extend([
            ("record", self.record.as_ref().map(RecordId::to_text).unwrap_or_default()),
            ("before", self.before.clone().unwrap_or_default()),
            ("chain", self.chain.clone().unwrap_or_default()),
            ("repairs", self.repairs.clone().unwrap_or_default()),
        ]);
        optional.push(("protected", self.protected.iter().cloned().collect::<Vec<_>>().join(",")));
        let optional = optional.into_iter().filter(|(_, value)| !value.is_empty());
        let others = others.iter().filter(|(name, _)| !name.starts_with(PREFIX));
        others
            .map(|(name, value)| (name.clone(), value.clone()))
            .chain(fields.into_iter().chain(optional).map(|(name, value)| (format!("{PREFIX}{name}"), value)))
            .collect()
    }

    /// What the service pulled by itself an older version would take for what it read and checked.
    fn format(&self) -> u32 {
        let is_new = self.checkpoint.digest.is_none() || self.checkpoint.counts.bytes_pulled > 0;
        if is_new { FORMAT } else { FORMAT_WITH_DIGEST }
    }

    /// The digest of a point whose metadata this becomes.
    pub(crate) fn digest(&self) -> String {
        let fields = Self { chain: None, ..self.clone() }.write(&Metadata::new());
        digest::of_metadata(&fields)
    }

    /// Whether the base is clean, and equals this point.
    pub fn is_clean_at(&self, point: &str) -> bool {
        self.state == State::Clean && self.point.as_deref() == Some(point)
    }

    /// The state as in metadata and output.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Applying => "applying",
            State::Sealing => "sealing",
            State::Clean => "clean",
        }
    }
}

/// A CRC-64 as it stands in markers and output.
pub(crate) fn digest_text(digest: Crc64) -> String {
    format!("{:016x}", digest.value())
}

fn read_record(text: &str) -> Result<RecordId, String> {
    RecordId::from_text(text).ok_or_else(|| "it does not say what its record is".to_owned())
}

/// Now, as it stands in markers.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

struct Fields<'a>(&'a Metadata);

impl<'a> Fields<'a> {
    fn text(&self, name: &str) -> Result<&'a str, String> {
        self.0
            .get(&format!("{PREFIX}{name}"))
            .map(String::as_str)
            .ok_or_else(|| format!("it lacks {PREFIX}{name}"))
    }

    /// What older versions did not write, and what need not be there.
    fn optional(&self, name: &str) -> Option<&'a str> {
        self.text(name).ok().filter(|text| !text.is_empty())
    }

    fn origin(&self) -> Option<Origin> {
        let owned = |name| self.optional(name).map(str::to_owned);
        Some(Origin {
            snapshot: Origin::decoded_snapshot(self.optional("snapshot")?),
            unique_id: owned("snapshot_uid")?,
            created: owned("created"),
            previous_unique_id: owned("previous_uid"),
            disk_unique_id: owned("disk_uid"),
            family: owned("family"),
        })
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<T, String> {
        self.text(name)?.parse().map_err(|_| format!("{PREFIX}{name} is not a number"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn marker() -> Marker {
        let id = |time: &str| format!("md-1.z1.blob.storage.azure.net/c/abcd@{time}").parse().unwrap();
        Marker {
            state: State::Applying,
            step: StepId {
                from: Some(id("2026-01-01T00:00:00.0000001Z")),
                to: id("2026-01-02T00:00:00.0000001Z"),
            },
            length: 1 << 40,
            generation: 7,
            run: "0b0e".to_owned(),
            owner: "host/123".to_owned(),
            checkpoint: Checkpoint {
                offset: 4096,
                counts: Counts {
                    chunks: 3,
                    bytes: 2048,
                    bytes_sent: 1024,
                    bytes_pulled: 512,
                    bytes_zero: 1024,
                },
                digest: Some(Crc64::of(&[7; 4096])),
            },
            point: None,
            last_point: Some("2026-01-03T00:00:00.0000000Z".to_owned()),
            distrusted: true,
            speed: Some(Speed { bytes: 1 << 40, millis: 7 }),
            origin: Some(Origin {
                snapshot: "/subscriptions/1/resourceGroups/Büro (2)/providers/Microsoft.Compute/snapshots/s"
                    .to_owned(),
                unique_id: "u2".to_owned(),
                created: Some("2026-01-02T00:00:00.5Z".to_owned()),
                previous_unique_id: Some("u1".to_owned()),
                disk_unique_id: Some("d".to_owned()),
                family: Some("f".to_owned()),
            }),
            protected: BTreeSet::from([
                "2026-01-03T00:00:00.0000000Z".to_owned(),
                "2026-01-04T00:00:00.0000000Z".to_owned(),
            ]),
            record: Some(RecordId {
                name: "Büro/web 1.vhd.records/x".to_owned(),
                bytes: 77,
                sha256: "0f".repeat(32),
            }),
            before: Some("1a".repeat(32)),
            chain: Some("2b".repeat(32)),
            repairs: Some("2026-01-02T00:00:00.0000000Z".to_owned()),
            written_at: now(),
        }
    }

    #[test]
    fn a_marker_is_read_back_and_leaves_what_is_not_its_own() {
        let others = Metadata::from([
            ("owner".to_owned(), "team".to_owned()),
            ("snapferry_old".to_owned(), "x".to_owned()),
        ]);
        let metadata = marker().write(&others);
        assert_eq!(Marker::read(&metadata).unwrap().unwrap(), marker());
        assert_eq!(metadata.get("owner").map(String::as_str), Some("team"));
        assert!(!metadata.contains_key("snapferry_old"));
        let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(size < 4096, "{size} of the 8 KiB that metadata may take");
        assert!(metadata.values().all(|value| value.is_ascii()), "metadata travels in headers");
        assert!(
            metadata.keys().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        );
    }

    #[test]
    fn no_marker_is_none_and_a_damaged_one_is_an_error() {
        assert_eq!(Marker::read(&Metadata::new()).unwrap(), None);
        let without = Marker {
            last_point: None,
            distrusted: false,
            speed: None,
            origin: None,
            protected: BTreeSet::new(),
            record: None,
            before: None,
            chain: None,
            repairs: None,
            ..marker()
        };
        let whole = without.write(&Metadata::new());
        assert_eq!(Marker::read(&whole).unwrap().unwrap(), without);
        for name in whole.keys() {
            let mut damaged = whole.clone();
            damaged.remove(name);
            assert!(Marker::read(&damaged).is_err(), "without {name}");
            damaged.insert(name.clone(), "\u{7f}?".to_owned());
            if !["snapferry_run", "snapferry_owner", "snapferry_written_at", "snapferry_point"]
                .contains(&name.as_str())
            {
                assert!(Marker::read(&damaged).is_err(), "with a bad {name}");
            }
        }
        let unknown = Marker { checkpoint: Checkpoint { digest: None, ..marker().checkpoint }, ..marker() };
        let metadata = unknown.write(&Metadata::new());
        assert_eq!(metadata["snapferry_digest"], "none");
        assert_eq!(Marker::read(&metadata).unwrap().unwrap(), unknown);
        let clean = Marker { state: State::Clean, ..marker() }.write(&Metadata::new());
        assert!(Marker::read(&clean).is_err(), "clean without a point");
    }
}
