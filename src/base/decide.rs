//! Does a step fit the base blob as it is? Pure: everything that was read is given, nothing is touched.

use super::Look;
use super::marker::{Marker, State, StepId};
use crate::chain::SnapshotId;
use crate::copy::frontier::Checkpoint;
use crate::error::{Error, ErrorKind, Result};

/// What to do with the base blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It does not exist, and the step is a full copy: create it.
    Create,
    /// It is clean at the previous snapshot: begin.
    Begin,
    /// What it holds makes room for a full copy; its points stay.
    Rebase,
    /// It is in the middle of this very step: go on from the checkpoint.
    GoOn(Checkpoint),
    /// Everything is written; only the seal may be missing.
    FinishSeal,
    /// The step is sealed already.
    Done(Box<Marker>),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The step.
    pub step: &'a StepId,
    /// Length of the previous snapshot, for a difference.
    pub from_length: Option<u64>,
    /// Length of the snapshot that the step leads to.
    pub to_length: u64,
    /// Whether snapshots are told apart by their time alone.
    pub across_hosts: bool,
    /// Whether a full copy may take the place of what the base holds.
    pub rebase: bool,
}

/// Decides, or says why the step does not fit and what helps.
pub fn decide(look: &Look, wish: &Wish<'_>) -> Result<Decision> {
    let tried = format!("apply {}", wish.step);
    let refuse = |kind, why: String| Err(Error::new(kind, tried.clone(), why));
    let Some(properties) = &look.properties else {
        return match wish.step.from {
            None => Ok(Decision::Create),
            Some(_) => refuse(ErrorKind::BaseMissing, "the base blob does not exist".to_owned())
                .map_err(|error| error.next("copy the previous snapshot in full first: snapferry copy --source <previous> --target <target>")),
        };
    };
    let Some(marker) = &look.marker else {
        return match wish.step.from {
            None => {
                refuse(ErrorKind::TargetExists, "the target exists and was not made by snapferry".to_owned())
                    .map_err(|error| {
                        error.next("name a blob that does not exist: a full copy never overwrites")
                    })
            }
            Some(_) => refuse(
                ErrorKind::BaseNotClean,
                "the target carries no marker of snapferry: nobody knows what is in it".to_owned(),
            )
            .map_err(|error| error.next("copy the previous snapshot in full to another blob first")),
        };
    };
    let same_step = marker.step.is(wish.step, wish.across_hosts);
    match marker.state {
        State::Clean if same_step && marker.length != wish.to_length => refuse(
            ErrorKind::BaseSizeMismatch,
            format!("it has {} bytes of it, and the source has {}", marker.length, wish.to_length),
        ),
        State::Clean if same_step => Ok(Decision::Done(Box::new(marker.clone()))),
        State::Sealing if same_step => Ok(Decision::FinishSeal),
        State::Applying if same_step && marker.distrusted => {
            refuse(ErrorKind::BaseNotClean, "a page list of this step broke the protocol after pages had been cleared that it named: they may hold data".to_owned())
                .map_err(|error| error.next("put it back to its last point, and run the step again: snapferry rollback --target <URL>"))
        }
        State::Applying if same_step => go_on(marker, wish, properties.length),
        _ if wish.rebase && wish.step.from.is_none() => rebase(marker, wish, properties.length),
        State::Applying | State::Sealing => refuse(
            ErrorKind::BaseNotClean,
            format!("it is in the middle of {} ({}, by {} at {})", marker.step, marker.state_name(), marker.owner, marker.written_at),
        )
        .map_err(|error| error.next(finish_first(marker))),
        State::Clean => match &wish.step.from {
            None => refuse(ErrorKind::TargetExists, format!("the target exists, clean at {}", marker.step.to))
                .map_err(|error| {
                    error.next("name a blob that does not exist, bring this one forward (snapferry copy --previous <SAS URL of the snapshot that it is clean at>), or begin anew in it and keep its points: --rebase")
                }),
            Some(from) if !marker.step.to.is(from, wish.across_hosts) => elsewhere(marker, wish, from),
            Some(_) => begin(marker, wish, properties.length),
        },
    }
}

/// Clean, but not at the previous snapshot: behind it, ahead of it, or of another disk.
fn elsewhere(marker: &Marker, wish: &Wish<'_>, from: &SnapshotId) -> Result<Decision> {
    let at = &marker.step.to;
    let refuse = |kind, why: String, next: String| {
        Err(Error::new(kind, format!("apply {}", wish.step), why).next(next))
    };
    if at.family() != from.family() && !wish.across_hosts {
        let why = format!("the base blob holds another disk: it is clean at {at}");
        return refuse(
            ErrorKind::DifferentFamilies,
            why,
            "give the base blob of this disk as --target".to_owned(),
        );
    }
    let why = format!("it is clean at {at}, and the previous snapshot is {from}");
    if wish.step.to.is_older_than(at) || wish.step.to.is(at, wish.across_hosts) {
        let next =
            "the base is past this step already, and never goes back: snapferry points shows what was sealed";
        return refuse(ErrorKind::BaseElsewhere, why, next.to_owned());
    }
    refuse(ErrorKind::BaseElsewhere, why, format!("give the snapshot of {} as --previous", at.time()))
}

fn begin(marker: &Marker, wish: &Wish<'_>, length: u64) -> Result<Decision> {
    if Some(length) == wish.from_length && length == marker.length {
        return Ok(Decision::Begin);
    }
    Err(Error::new(
        ErrorKind::BaseSizeMismatch,
        format!("apply {}", wish.step),
        format!(
            "the base blob has {length} bytes, its marker says {}, the previous snapshot has {}",
            marker.length,
            wish.from_length.unwrap_or_default()
        ),
    )
    .next("somebody resized the base blob: copy in full to another blob"))
}

/// A full copy over what is there. Not over a seal that is not finished, and never onto a larger disk.
fn rebase(marker: &Marker, wish: &Wish<'_>, length: u64) -> Result<Decision> {
    let tried = || format!("begin anew with {}", wish.step);
    if marker.state == State::Sealing {
        let why = format!("{} is written and waits for its seal", marker.step);
        return Err(Error::new(ErrorKind::BaseNotClean, tried(), why)
            .next("finish it first: snapferry rollback --target <URL>"));
    }
    if length > wish.to_length {
        let why =
            format!("the base blob has {length} bytes, the snapshot {}: it is another disk", wish.to_length);
        return Err(
            Error::new(ErrorKind::BaseSizeMismatch, tried(), why).next("name another blob as --target")
        );
    }
    Ok(Decision::Rebase)
}

/// The marker's own words must fit before a run goes on from them.
fn go_on(marker: &Marker, wish: &Wish<'_>, length: u64) -> Result<Decision> {
    let fits = marker.length == wish.to_length
        && marker.checkpoint.offset <= wish.to_length
        // A crash may have come before the resize.
        && (length == wish.to_length || Some(length) == wish.from_length || wish.step.from.is_none() && length < wish.to_length);
    if fits {
        return Ok(Decision::GoOn(marker.checkpoint));
    }
    Err(Error::new(
        ErrorKind::BaseSizeMismatch,
        format!("go on with {}", wish.step),
        format!(
            "the base blob has {length} bytes, its marker leads to {}, the source has {}",
            marker.length, wish.to_length
        ),
    )
    .next("somebody changed the base blob: copy in full to another blob"))
}

fn finish_first(marker: &Marker) -> String {
    let step = &marker.step;
    let previous = step
        .from
        .as_ref()
        .map_or_else(String::new, |from| format!(" --previous <SAS URL of the snapshot of {}>", from.time()));
    if step.to.is_image() {
        // An image that was changed meanwhile is not there any more.
        let back = if marker.last_point.is_some() {
            "give it up: snapferry rollback --target <URL>"
        } else {
            "begin anew in its place: --rebase"
        };
        return format!("finish that step first, if the image still is what it was; or {back}");
    }
    let finish = format!(
        "finish that step first: snapferry copy --source <SAS URL of the snapshot of {}>{previous}",
        step.to.time()
    );
    // The first copy of all has nothing to go back to.
    if step.from.is_some() || marker.last_point.is_some() {
        format!("{finish}; or give it up: snapferry rollback --target <URL>")
    } else {
        format!("{finish}; or begin anew in its place: --rebase")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::azure::{Metadata, Properties};

    const LENGTH: u64 = 1 << 20;

    fn id(day: u8) -> SnapshotId {
        format!("md-1/c/abcd@2026-01-{day:02}T00:00:00.0000000Z").parse().unwrap()
    }

    fn step(from: Option<u8>, to: u8) -> StepId {
        StepId { from: from.map(id), to: id(to) }
    }

    fn looked(state: Option<State>, at: &StepId, length: u64) -> Look {
        let marker = state.map(|state| Marker {
            state,
            step: at.clone(),
            length: LENGTH,
            generation: 1,
            run: "r".to_owned(),
            owner: "host/1".to_owned(),
            checkpoint: Checkpoint { offset: 512, ..Checkpoint::default() },
            point: Some("2026-02-01T00:00:00.0000000Z".to_owned()),
            last_point: None,
            distrusted: false,
            speed: None,
            origin: None,
            record: None,
            before: None,
            chain: None,
            repairs: None,
            protected: std::collections::BTreeSet::new(),
            written_at: "2026-02-01T00:00:00Z".to_owned(),
        });
        let properties = Properties {
            length,
            etag: "e".to_owned(),
            blob_type: "PageBlob".to_owned(),
            sequence_number: 1,
            lease_state: "available".to_owned(),
            lease_is_infinite: false,
            metadata: Metadata::new(),
            is_versioned: false,
        };
        Look { properties: Some(properties), marker }
    }

    fn asked(look: &Look, step: &StepId) -> std::result::Result<Decision, ErrorKind> {
        let wish = Wish {
            step,
            from_length: step.from.as_ref().map(|_| LENGTH),
            to_length: LENGTH,
            across_hosts: false,
            rebase: false,
        };
        decide(look, &wish).map_err(|error| {
            assert!(error.advice().is_some(), "an error without advice: {error}");
            error.kind()
        })
    }

    #[test]
    fn a_step_is_applied_only_to_a_base_that_is_clean_at_its_previous_snapshot() {
        let nothing = Look { properties: None, marker: None };
        assert_eq!(asked(&nothing, &step(None, 1)), Ok(Decision::Create));
        assert_eq!(asked(&nothing, &step(Some(1), 2)), Err(ErrorKind::BaseMissing));

        let foreign = looked(None, &step(None, 1), LENGTH);
        assert_eq!(asked(&foreign, &step(None, 1)), Err(ErrorKind::TargetExists));
        assert_eq!(asked(&foreign, &step(Some(1), 2)), Err(ErrorKind::BaseNotClean));

        let clean = looked(Some(State::Clean), &step(None, 1), LENGTH);
        assert_eq!(asked(&clean, &step(Some(1), 2)), Ok(Decision::Begin));
        assert!(matches!(asked(&clean, &step(None, 1)), Ok(Decision::Done(_))));
        assert_eq!(asked(&clean, &step(None, 2)), Err(ErrorKind::TargetExists));
        assert_eq!(asked(&clean, &step(Some(2), 3)), Err(ErrorKind::BaseElsewhere));
        let ahead = looked(Some(State::Clean), &step(Some(2), 3), LENGTH);
        assert_eq!(asked(&ahead, &step(Some(1), 2)), Err(ErrorKind::BaseElsewhere));
        assert_eq!(
            asked(&looked(Some(State::Clean), &step(None, 1), LENGTH / 2), &step(Some(1), 2)),
            Err(ErrorKind::BaseSizeMismatch)
        );
    }

    #[test]
    fn a_full_copy_takes_the_place_of_a_base_only_when_that_is_asked_for() {
        let rebase = |look: &Look, to_length: u64| {
            let step = step(None, 3);
            let wish = Wish { step: &step, from_length: None, to_length, across_hosts: false, rebase: true };
            decide(look, &wish).map_err(|error| error.kind())
        };
        let at = step(Some(1), 2);
        assert_eq!(rebase(&looked(Some(State::Clean), &at, LENGTH), LENGTH), Ok(Decision::Rebase));
        assert_eq!(rebase(&looked(Some(State::Applying), &at, LENGTH), LENGTH * 2), Ok(Decision::Rebase));
        assert_eq!(
            rebase(&looked(Some(State::Clean), &at, LENGTH), LENGTH / 2),
            Err(ErrorKind::BaseSizeMismatch)
        );
        assert_eq!(rebase(&looked(Some(State::Sealing), &at, LENGTH), LENGTH), Err(ErrorKind::BaseNotClean));
        assert_eq!(rebase(&looked(None, &at, LENGTH), LENGTH), Err(ErrorKind::TargetExists));
    }

    #[test]
    fn a_step_that_was_begun_can_only_be_finished() {
        let applying = looked(Some(State::Applying), &step(Some(1), 2), LENGTH);
        assert!(
            matches!(asked(&applying, &step(Some(1), 2)), Ok(Decision::GoOn(checkpoint)) if checkpoint.offset == 512)
        );
        let mut distrusted = applying.clone();
        distrusted.marker.as_mut().unwrap().distrusted = true;
        assert_eq!(asked(&distrusted, &step(Some(1), 2)), Err(ErrorKind::BaseNotClean));
        assert_eq!(asked(&applying, &step(Some(2), 3)), Err(ErrorKind::BaseNotClean));
        assert_eq!(asked(&applying, &step(None, 2)), Err(ErrorKind::BaseNotClean));
        assert_eq!(
            asked(&looked(Some(State::Applying), &step(Some(1), 2), LENGTH * 2), &step(Some(1), 2)),
            Err(ErrorKind::BaseSizeMismatch)
        );
        let sealing = looked(Some(State::Sealing), &step(Some(1), 2), LENGTH);
        assert_eq!(asked(&sealing, &step(Some(1), 2)), Ok(Decision::FinishSeal));
        assert_eq!(asked(&sealing, &step(Some(2), 3)), Err(ErrorKind::BaseNotClean));
    }
}
