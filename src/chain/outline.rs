//! What is to be done to bring a base blob up to date: which snapshots, in which order, from which to which. Pure:
//! everything that was listed and read is given, nothing is asked.

use jiff::Timestamp;
use serde::Serialize;

use super::listing::Chain;
use super::survey::DIFF_BOUNDARY;
use crate::azure::arm::ManagedSnapshot;
use crate::error::{Error, ErrorKind, Result};

/// Where the base blob stands, in the resource manager's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// It does not exist.
    Nothing,
    /// Clean at a snapshot.
    Clean(Known),
    /// In the middle of a step.
    Torn {
        /// Where it began; `None` for a full copy.
        from: Option<Known>,
        /// Where it leads.
        to: Known,
    },
}

/// A snapshot that the base blob names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its unique id; `None` when none of the listed snapshots is it.
    pub unique_id: Option<String>,
    /// Its time, as its URL had it.
    pub time: Timestamp,
}

/// What is wanted of an outline.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Name or ARM id of the last snapshot to be copied.
    pub until: Option<String>,
    /// Leave out all but the newest.
    pub skip_intermediate: bool,
    /// Begin anew where no difference is possible.
    pub rebase: bool,
}

/// One step of an outline.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where it begins; `None` for a full copy.
    pub from: Option<ManagedSnapshot>,
    /// Where it leads.
    pub to: ManagedSnapshot,
    /// A full copy in the place of what the base holds.
    pub rebase: bool,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// In this order.
    pub steps: Vec<Planned>,
    /// Snapshots that are left out because only the newest is wanted.
    pub skipped: Vec<ManagedSnapshot>,
    /// The next snapshot is not whole yet: nothing after it is copied before it.
    pub waiting: Option<ManagedSnapshot>,
}

/// Decides, or says what stands in the way.
pub fn outline(chain: &Chain, at: &At, wanted: &Wanted) -> Result<Outline> {
    let all = until(chain, wanted)?;
    let mut made = Outline::default();
    let (mut last, mut rest) = match at {
        At::Nothing => (None, all),
        At::Clean(known) => after(chain, all, known, wanted)?,
        At::Torn { from, to } => match resume(chain, from.as_ref(), to, wanted)? {
            Some(step) => {
                let rest = newer(all, to.time, to.unique_id.as_deref());
                let last = Some(step.to.clone());
                made.steps.push(step);
                (last, rest)
            }
            None => (None, newer(all, from.as_ref().map_or(Timestamp::MIN, |from| from.time), None)),
        },
    };
    // Something is there that the first step does not build upon.
    let mut anew = last.is_none() && *at != At::Nothing;
    if wanted.skip_intermediate
        && let Some((newest, between)) = rest.split_last()
    {
        made.skipped = between.to_vec();
        rest = std::slice::from_ref(newest);
    }
    for to in rest {
        if !to.is_ready() {
            made.waiting = Some(to.clone());
            break;
        }
        let from = match &last {
            Some(from) => match no_difference(from, to) {
                None => Some(from.clone()),
                Some(_) if wanted.rebase => {
                    anew = true;
                    None
                }
                Some((kind, why)) => return Err(offer_rebase(kind, to, why)),
            },
            None => None,
        };
        made.steps.push(Planned { from, to: to.clone(), rebase: anew });
        anew = false;
        last = Some(to.clone());
    }
    Ok(made)
}

/// The chain up to the snapshot that the user named.
fn until<'a>(chain: &'a Chain, wanted: &Wanted) -> Result<&'a [ManagedSnapshot]> {
    let Some(name) = &wanted.until else { return Ok(&chain.snapshots) };
    let is_it = |snapshot: &ManagedSnapshot| {
        snapshot.id.name().eq_ignore_ascii_case(name) || snapshot.id.to_string().eq_ignore_ascii_case(name)
    };
    let newest = chain.snapshots.last().map(|snapshot| snapshot.id.name()).unwrap_or_default();
    match chain.snapshots.iter().position(is_it) {
        Some(last) => Ok(&chain.snapshots[..=last]),
        None => Err(Error::new(
            ErrorKind::NotFound,
            format!("copy until the snapshot {name}"),
            "the disk has no incremental snapshot of that name",
        )
        .on(&chain.disk)
        .next(format!("give its name or its ARM id; the newest is {newest}"))),
    }
}

/// What comes after the snapshot that the base is clean at.
fn after<'a>(
    chain: &Chain,
    all: &'a [ManagedSnapshot],
    known: &Known,
    wanted: &Wanted,
) -> Result<(Option<ManagedSnapshot>, &'a [ManagedSnapshot])> {
    let rest = newer(all, known.time, known.unique_id.as_deref());
    let last = known.unique_id.as_deref().and_then(|id| chain.by_unique_id(id)).cloned();
    match (&last, rest.first()) {
        (None, Some(next)) if !wanted.rebase => Err(offer_rebase(
            ErrorKind::BaseElsewhere,
            next,
            format!(
                "the snapshot that the base blob is clean at ({}) was deleted, and nothing can be diffed against it",
                known.time
            ),
        )),
        _ => Ok((last, rest)),
    }
}

/// The snapshots after one that is known by its unique id, or else by its time.
fn newer<'a>(all: &'a [ManagedSnapshot], time: Timestamp, unique_id: Option<&str>) -> &'a [ManagedSnapshot] {
    let is_it = |snapshot: &ManagedSnapshot| {
        let theirs = snapshot.unique_id.as_deref();
        unique_id.zip(theirs).is_some_and(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs))
    };
    match all.iter().position(is_it) {
        Some(at) => &all[at + 1..],
        // It was deleted, or is newer than what is wanted.
        None => &all[all.partition_point(|snapshot| snapshot.created <= Some(time))..],
    }
}

/// The step that tore the base, to be finished; `None` when it cannot be and the base shall begin anew.
fn resume(chain: &Chain, from: Option<&Known>, to: &Known, wanted: &Wanted) -> Result<Option<Planned>> {
    let find = |known: &Known| known.unique_id.as_deref().and_then(|id| chain.by_unique_id(id)).cloned();
    let refuse = |why: String, next: &str| {
        Err(Error::new(
            ErrorKind::BaseNotClean,
            "finish the step that the base blob is in the middle of",
            why,
        )
        .on(&chain.disk)
        .next(next))
    };
    match (from.map(find), find(to)) {
        (None, Some(to)) => Ok(Some(Planned { from: None, to, rebase: true })),
        (Some(Some(from)), Some(to)) => Ok(Some(Planned { from: Some(from), to, rebase: false })),
        _ if wanted.rebase => Ok(None),
        (None, None) => refuse(
            format!("the snapshot of its first full copy ({}) was deleted", to.time),
            "begin anew in the same blob: snapferry sync --rebase",
        ),
        (Some(None), _) => refuse(
            format!(
                "the snapshot that it began at ({}) was deleted",
                from.map(|from| from.time).unwrap_or_default()
            ),
            "begin anew in the same blob, whose points stay: snapferry sync --rebase",
        ),
        (Some(Some(_)), None) => refuse(
            format!("the snapshot that it leads to ({}) was deleted", to.time),
            "put the base blob back to its last point: snapferry rollback --target <URL>; or let sync do that: --roll-back",
        ),
    }
}

/// Why the service makes no difference between two snapshots of a disk.
fn no_difference(from: &ManagedSnapshot, to: &ManagedSnapshot) -> Option<(ErrorKind, String)> {
    let families = (from.family.as_deref(), to.family.as_deref());
    if let (Some(one), Some(other)) = families
        && !one.eq_ignore_ascii_case(other)
    {
        let why = format!("{} is of another family than {}", to.id.name(), from.id.name());
        return Some((ErrorKind::DifferentFamilies, why));
    }
    match (from.size, to.size) {
        (Some(before), Some(after)) if before <= DIFF_BOUNDARY && after > DIFF_BOUNDARY => Some((
            ErrorKind::GrowthAcross4Tib,
            "the disk grew across 4 TiB, and Azure makes no differences across that".to_owned(),
        )),
        _ => None,
    }
}

fn offer_rebase(kind: ErrorKind, to: &ManagedSnapshot, why: String) -> Error {
    Error::new(kind, format!("copy {} as a difference", to.id.name()), why)
        .on(&to.id)
        .next("begin anew in the same blob, whose points stay: snapferry sync --rebase")
}

/// An outline in short, for reports.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedSummary {
    /// ARM id of the snapshot that the step begins at.
    pub from: Option<String>,
    /// ARM id of the snapshot that it leads to.
    pub to: String,
    /// Whether it takes the place of what the base holds.
    pub rebase: bool,
}

impl From<&Planned> for PlannedSummary {
    fn from(planned: &Planned) -> Self {
        Self {
            from: planned.from.as_ref().map(|from| from.id.to_string()),
            to: planned.to.id.to_string(),
            rebase: planned.rebase,
        }
    }
}
