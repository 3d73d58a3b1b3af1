//! What a verification says.

use serde::Serialize;

use super::differences::{Difference, MOST_LISTED, Tally};
use crate::error::{Error, ErrorKind};

/// What a point was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// The checksums that were recorded when it was sealed.
    Record,
    /// Its source snapshot.
    Source,
    /// Both.
    SourceAndRecord,
}

/// What the point's metadata says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DigestState {
    /// The metadata is what was written.
    Right,
    /// It is not, or its digest is gone.
    Damaged,
    /// The point is of a version that wrote no digests.
    None,
}

/// What became of the point's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordState {
    /// It was read to its end, and says what every leaf must be.
    Complete,
    /// It was read to its end; some leaves are not in it.
    Partial,
    /// It is damaged, or a part of it is gone.
    Damaged,
    /// The point has none.
    None,
    /// It was not asked, or may not be read.
    NotRead,
}

/// The sum of it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What was compared is equal, and nothing is damaged.
    Equal,
    /// The point differs from its record, and there is no source to tell which of them is wrong.
    DiffersFromRecord,
    /// The point differs from its source, and no record tells which of them is wrong.
    DiffersFromSource,
    /// The point differs from its source and from its record, which agree.
    PointIsWrong,
    /// The source differs from the point and from its record, which agree.
    SourceIsWrong,
    /// The source differs from the point and from its record in what the step did not read of it: the service's page list
    /// left it out, or called it cleared.
    ListWasWrong,
    /// The record differs from the point and from its source, which agree.
    RecordIsWrong,
    /// Not everywhere is the same one wrong.
    Mixed,
    /// The record is damaged; where there is a source, the point equals it.
    RecordDamaged,
    /// The metadata is damaged; where there is a source, the point equals it.
    MetadataDamaged,
}

/// What was compared, and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The base blob, without its SAS.
    pub target: String,
    /// The point.
    pub point: String,
    /// The snapshot that it must equal.
    pub source: String,
    /// What was compared with it.
    pub against: Compared,
    /// The part of its chunks that were compared, where it was not all of them.
    pub sample: Option<f64>,
    /// The part of its chunks of which was compared what its step did not write.
    pub outside_diff: Option<f64>,
    /// What chooses the same chunks again.
    pub seed: Option<u64>,
    /// Length in bytes.
    pub length: u64,
    /// Bytes that were compared, with those that hold nothing on any side.
    pub bytes_compared: u64,
    /// Bytes that were read for it, of each side.
    pub bytes_read: u64,
    /// Bytes of which no record says what they must be, and no source was at hand.
    pub bytes_unknown: u64,
    /// What came out.
    pub verdict: Verdict,
    /// The same in words.
    pub why: String,
    /// Byte at which the first difference begins.
    pub first_difference: Option<u64>,
    /// The first thousand differing ranges, neighbours joined: pages against a source, leaves against a record.
    pub differences: Vec<Difference>,
    /// How many there are in all.
    pub differing_ranges: u64,
    /// How many bytes are in all of them.
    pub differing_bytes: u64,
    /// The metadata of the point.
    pub digest: DigestState,
    /// The record of the point.
    pub record: RecordState,
    /// What is wrong with the record.
    pub record_damage: Option<String>,
    /// Requests to both sides, retries included.
    pub requests: u64,
    /// Wall-clock time.
    pub seconds: f64,
}

impl VerifyReport {
    /// The error that the command ends with; `None` when all is well.
    ///
    /// Its kind is [`ErrorKind::Differs`] when something differs and [`ErrorKind::Corruption`] when the record or the
    /// metadata is damaged and no source was at hand that would tell about the point.
    pub fn error(&self) -> Option<Error> {
        let had_source = self.against != Compared::Record;
        let kind = match self.verdict {
            Verdict::Equal => return None,
            Verdict::RecordDamaged | Verdict::MetadataDamaged if !had_source => ErrorKind::Corruption,
            _ => ErrorKind::Differs,
        };
        let next = match self.verdict {
            Verdict::RecordDamaged | Verdict::RecordIsWrong | Verdict::MetadataDamaged if had_source => {
                "the point is right; give it a record again: snapferry repair --record --target <URL> --source <SAS URL>"
            }
            Verdict::RecordDamaged | Verdict::MetadataDamaged => {
                "compare it with its source while there is one: snapferry verify --target <URL> --source <SAS URL>"
            }
            Verdict::DiffersFromRecord => {
                "a source tells which of them is wrong: snapferry verify --target <URL> --source <SAS URL>. Whether the base blob is right, and to mend it: snapferry repair --target <URL> --source <SAS URL> --dry-run"
            }
            Verdict::ListWasWrong => {
                "mend the base blob and its record, which makes a new point: snapferry repair --record --target <URL> --source <SAS URL>; and report this"
            }
            Verdict::SourceIsWrong => {
                "give the SAS of the very snapshot; if it is, it is not what it was when it was copied"
            }
            _ => {
                "a point cannot be changed; the base blob can, which then makes a new point: snapferry repair --target <URL> --source <SAS URL>"
            }
        };
        Some(
            Error::new(kind, "find the point equal to what it must be", self.why.clone())
                .on(format!("{}?snapshot={}", self.target, self.point))
                .next(next),
        )
    }

    /// Judges what was counted.
    pub(super) fn conclude(&mut self, tally: Tally) {
        self.bytes_compared = tally.compared;
        self.bytes_read = tally.read;
        self.bytes_unknown = tally.unknown;
        self.first_difference = tally.first();
        self.differing_ranges = tally.ranges;
        self.differing_bytes = tally.bytes;
        self.verdict = self.judge(&tally);
        self.differences = tally.listed;
        self.why = self.words();
    }

    fn judge(&self, tally: &Tally) -> Verdict {
        if tally.bytes == 0 {
            return match (self.record, self.digest) {
                (RecordState::Damaged, _) => Verdict::RecordDamaged,
                (_, DigestState::Damaged) => Verdict::MetadataDamaged,
                _ => Verdict::Equal,
            };
        }
        let all = tally.bytes;
        match self.against {
            Compared::Record => Verdict::DiffersFromRecord,
            _ if all == tally.bytes_point => Verdict::PointIsWrong,
            _ if all == tally.bytes_source => Verdict::SourceIsWrong,
            _ if all == tally.bytes_list => Verdict::ListWasWrong,
            _ if all == tally.bytes_record => Verdict::RecordIsWrong,
            Compared::Source => Verdict::DiffersFromSource,
            Compared::SourceAndRecord => Verdict::Mixed,
        }
    }

    fn words(&self) -> String {
        let damage = self.record_damage.as_deref().unwrap_or_default();
        let has_source = self.against != Compared::Record;
        let mut why = match self.verdict {
            Verdict::Equal => match self.against {
                Compared::Record => "the point equals its record".to_owned(),
                Compared::Source => "the point equals its source".to_owned(),
                Compared::SourceAndRecord => "the point equals its source and its record".to_owned(),
            },
            Verdict::DiffersFromRecord => "the point differs from its record".to_owned(),
            Verdict::DiffersFromSource => "the point differs from its source".to_owned(),
            Verdict::PointIsWrong => {
                "the point differs from its source and from its record, which agree: the point is wrong".to_owned()
            }
            Verdict::SourceIsWrong => {
                "the source differs from the point and from its record, which agree: this is not what was copied".to_owned()
            }
            Verdict::ListWasWrong => {
                "the page list of the service was wrong: the point and its record follow it, and the source has something else".to_owned()
            }
            Verdict::RecordIsWrong => "the record is wrong: the point equals its source".to_owned(),
            Verdict::Mixed => {
                "the point, its source and its record differ, and not everywhere is the same one wrong".to_owned()
            }
            Verdict::RecordDamaged if has_source => {
                format!("the record is damaged ({damage}), and the point is right: it equals its source")
            }
            Verdict::RecordDamaged => {
                format!("the record is damaged, which says nothing about the point: {damage}")
            }
            Verdict::MetadataDamaged if has_source => {
                "the metadata of the point is damaged (its digest is wrong), and the point is right: it equals its source".to_owned()
            }
            Verdict::MetadataDamaged => {
                "the metadata of the point is damaged: its digest is wrong, so that its record need not be its own".to_owned()
            }
        };
        if let Some(first) = self.differences.first() {
            why = format!(
                "{why}; {} in {}, the first at bytes {}..{}",
                bytes(self.differing_bytes),
                ranges(self.differing_ranges),
                first.start,
                first.end
            );
            if self.digest == DigestState::Damaged {
                why.push_str("; and its metadata is damaged (its digest is wrong)");
            }
            if self.record == RecordState::Damaged {
                why = format!("{why}; and its record is damaged: {damage}");
            }
        }
        why
    }

    /// Whether more ranges differ than are listed.
    pub fn is_cut(&self) -> bool {
        self.differing_ranges > MOST_LISTED as u64
    }
}

fn bytes(count: u64) -> String {
    format!("{count} bytes")
}

fn ranges(count: u64) -> String {
    if count == 1 { "1 range".to_owned() } else { format!("{count} ranges") }
}
