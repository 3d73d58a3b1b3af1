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
    /// What it is called in messages.
    pub name: String,
    /// What was made later than this came after it: for a snapshot that is listed no more.
    pub made: Timestamp,
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
    if let Some(unfinished) = chain.being_made.first() {
        // It may turn out to be older than what is whole already.
        return Ok(Outline { waiting: Some(unfinished.clone()), ..Outline::default() });
    }
    let all = until(chain, wanted)?;
    let mut made = Outline::default();
    let (mut last, mut rest) = match at {
        At::Nothing => (None, all),
        At::Clean(known) => after(chain, all, known, wanted)?,
        At::Torn { from, to } => match resume(chain, from.as_ref(), to, wanted)? {
            Some(step) => {
                let rest = newer(chain, all, to);
                let last = Some(step.to.clone());
                made.steps.push(step);
                (last, rest)
            }
            None => (None, from.as_ref().map_or(all, |from| newer(chain, all, from))),
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
    let named: Vec<usize> = (0..chain.snapshots.len()).filter(|at| is_it(&chain.snapshots[*at])).collect();
    match named[..] {
        [last] => Ok(&chain.snapshots[..=last]),
        [_, _, ..] => Err(Error::new(
            ErrorKind::Usage,
            format!("copy until the snapshot {name}"),
            "several resource groups have one of that name",
        )
        .on(&chain.disk)
        .next("give its ARM id")),
        [] => Err(Error::new(
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
    let rest = newer(chain, all, known);
    let last = known.unique_id.as_deref().and_then(|id| chain.by_unique_id(id)).cloned();
    match (&last, rest.first()) {
        (None, Some(next)) if !wanted.rebase => Err(offer_rebase(
            ErrorKind::BaseElsewhere,
            next,
            format!(
                "the snapshot that the base blob is clean at ({}) was deleted, and nothing can be diffed against it",
                known.name
            ),
        )),
        _ => Ok((last, rest)),
    }
}

/// What of `all`, the chain or its beginning, came after a snapshot.
fn newer<'a>(chain: &Chain, all: &'a [ManagedSnapshot], known: &Known) -> &'a [ManagedSnapshot] {
    let listed = known.unique_id.as_deref().and_then(|id| chain.position(id));
    let first = listed.map_or_else(
        || all.partition_point(|snapshot| snapshot.created <= Some(known.made)),
        |position| position + 1,
    );
    all.get(first..).unwrap_or_default()
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
        (None, Some(to)) => Ok(Some(Planned { from: None, to, rebase: false })),
        (Some(Some(from)), Some(to)) => Ok(Some(Planned { from: Some(from), to, rebase: false })),
        _ if wanted.rebase => Ok(None),
        (None, None) => refuse(
            format!("the snapshot of its first full copy ({}) was deleted", to.name),
            "begin anew in the same blob: snapferry sync --rebase; where it has points, the last one can be gone back to: snapferry rollback --target <URL>",
        ),
        (Some(None), _) => refuse(
            format!(
                "the snapshot that it began at ({}) was deleted",
                from.map(|from| from.name.as_str()).unwrap_or_default()
            ),
            "begin anew in the same blob, whose points stay: snapferry sync --rebase",
        ),
        (Some(Some(_)), None) => refuse(
            format!("the snapshot that it leads to ({}) was deleted", to.name),
            "put the base blob back to its last point: snapferry rollback --target <URL>; or let sync do that: --rollback",
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::azure::arm::{ArmId, ArmKind};

    const GIB: u64 = 1 << 30;

    fn snapshot(number: i64) -> ManagedSnapshot {
        ManagedSnapshot {
            id: ArmId::new(ArmKind::Snapshot, "s", "g", &format!("n{number}")),
            unique_id: Some(format!("U{number}")),
            location: "here".to_owned(),
            created: Some(Timestamp::from_second(number * 3600).unwrap()),
            size: Some(GIB),
            incremental: true,
            family: Some("f".to_owned()),
            source: None,
            source_unique_id: None,
            create_option: None,
            sector_size: 512,
            provisioning_state: Some("Succeeded".to_owned()),
            disk_state: None,
            completion_percent: None,
            copy_error: None,
        }
    }

    fn chain(numbers: &[i64]) -> Chain {
        Chain {
            disk: ArmId::new(ArmKind::Disk, "s", "g", "d"),
            disk_unique_id: Some("D".to_owned()),
            snapshots: numbers.iter().map(|number| snapshot(*number)).collect(),
            being_made: Vec::new(),
            left_out: Vec::new(),
        }
    }

    fn at(number: i64) -> Known {
        let made = Timestamp::from_second(number * 3600).unwrap();
        Known { unique_id: Some(format!("u{number}")), name: number.to_string(), made }
    }

    /// `from>to`, `>to` for a full copy, `!to` for one that begins anew.
    fn steps(chain: &Chain, at: &At, wanted: &Wanted) -> std::result::Result<String, ErrorKind> {
        let made = outline(chain, at, wanted).map_err(|error| {
            assert!(error.advice().is_some(), "an error without advice: {error}");
            error.kind()
        })?;
        let shown = made.steps.iter().map(|step| {
            let to = step.to.id.name().trim_start_matches('n');
            match &step.from {
                Some(from) => format!("{}>{to}", from.id.name().trim_start_matches('n')),
                None if step.rebase => format!("!{to}"),
                None => format!(">{to}"),
            }
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_is_missing_is_copied_in_order_and_over_gaps() {
        let all = Wanted::default();
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(steps(&chain(&[1, 2, 3]), &At::Nothing, &all), ok(">1 1>2 2>3"));
        assert_eq!(steps(&chain(&[1, 2, 5]), &At::Clean(at(1)), &all), ok("1>2 2>5"));
        assert_eq!(steps(&chain(&[1, 2, 3]), &At::Clean(at(3)), &all), ok(""));
        let newest = Wanted { skip_intermediate: true, ..Wanted::default() };
        assert_eq!(steps(&chain(&[1, 2, 3]), &At::Clean(at(1)), &newest), ok("1>3"));
        assert_eq!(steps(&chain(&[1, 2, 3]), &At::Nothing, &newest), ok(">3"));
        let until = |name: &str| Wanted { until: Some(name.to_owned()), ..Wanted::default() };
        assert_eq!(steps(&chain(&[1, 2, 3]), &At::Nothing, &until("N2")), ok(">1 1>2"));
        assert_eq!(steps(&chain(&[1, 2, 3]), &At::Clean(at(3)), &until("n2")), ok(""));
        assert_eq!(steps(&chain(&[1, 2, 3]), &At::Clean(at(3)), &until("n9")), Err(ErrorKind::NotFound));
    }

    #[test]
    fn where_no_difference_is_possible_it_begins_anew_only_when_that_is_wanted() {
        let (all, anew) = (Wanted::default(), Wanted { rebase: true, ..Wanted::default() });
        let ok = |text: &str| Ok(text.to_owned());
        let deleted = chain(&[1, 3, 4]);
        assert_eq!(steps(&deleted, &At::Clean(at(2)), &all), Err(ErrorKind::BaseElsewhere));
        assert_eq!(steps(&deleted, &At::Clean(at(2)), &anew), ok("!3 3>4"));
        assert_eq!(steps(&chain(&[1]), &At::Clean(at(2)), &all), ok(""), "nothing newer is there");
        let mut grown = chain(&[1, 2, 3]);
        grown.snapshots[0].size = Some(DIFF_BOUNDARY);
        grown.snapshots[1].size = Some(DIFF_BOUNDARY + GIB);
        grown.snapshots[2].size = Some(DIFF_BOUNDARY + GIB);
        assert_eq!(steps(&grown, &At::Clean(at(1)), &all), Err(ErrorKind::GrowthAcross4Tib));
        assert_eq!(steps(&grown, &At::Clean(at(1)), &anew), ok("!2 2>3"));
        assert_eq!(steps(&grown, &At::Nothing, &anew), ok(">1 !2 2>3"));
        let mut other = chain(&[1, 2]);
        other.snapshots[1].family = Some("g".to_owned());
        assert_eq!(steps(&other, &At::Clean(at(1)), &all), Err(ErrorKind::DifferentFamilies));
    }

    #[test]
    fn a_torn_base_is_finished_first_or_told_how() {
        let (all, anew) = (Wanted::default(), Wanted { rebase: true, ..Wanted::default() });
        let ok = |text: &str| Ok(text.to_owned());
        let torn = |from: Option<i64>, to| At::Torn { from: from.map(at), to: at(to) };
        assert_eq!(steps(&chain(&[1, 2, 3]), &torn(Some(1), 2), &all), ok("1>2 2>3"));
        assert_eq!(steps(&chain(&[1, 2, 3]), &torn(None, 1), &all), ok(">1 1>2 2>3"));
        let newest = Wanted { skip_intermediate: true, ..Wanted::default() };
        assert_eq!(steps(&chain(&[1, 2, 3, 4]), &torn(Some(1), 2), &newest), ok("1>2 2>4"));
        for (listed, from) in [(vec![1, 3], Some(1)), (vec![2, 3], Some(1)), (vec![3], None)] {
            assert_eq!(steps(&chain(&listed), &torn(from, 2), &all), Err(ErrorKind::BaseNotClean));
        }
        assert_eq!(steps(&chain(&[2, 3]), &torn(Some(1), 2), &anew), ok("!2 2>3"));
        assert_eq!(steps(&chain(&[3]), &torn(None, 2), &anew), ok("!3"));
    }

    #[test]
    fn nothing_passes_a_snapshot_that_is_not_whole() {
        let mut waiting = chain(&[1, 2, 3]);
        waiting.snapshots[1].completion_percent = Some(12.0);
        let made = outline(&waiting, &At::Clean(at(1)), &Wanted::default()).unwrap();
        assert!(made.steps.is_empty());
        assert_eq!(made.waiting.unwrap().id.name(), "n2");
    }
}
