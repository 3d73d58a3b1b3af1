//! What the service would refuse, seen before it is asked: the state of the source, and the limits of managed copies
//! (at most 100 under way in a subscription and region, one at a time of a disk, in the order of their making;
//! "Copy an incremental snapshot to a new region" in the documentation of Azure's disks).

use super::request::{Request, fold_region};
use super::{quote, status_command};
use crate::azure::arm::ListScope;
use crate::azure::{Arm, ArmId, ArmKind, ManagedSnapshot};
use crate::error::{Error, ErrorKind, Result};

/// Copies that may be under way in one subscription and region.
pub const MOST_PENDING: usize = 100;

const TRIED: &str = "start the managed copy";

/// All snapshots of the subscription.
pub(super) async fn list(arm: &Arm, request: &Request) -> Result<Vec<ManagedSnapshot>> {
    let subscription = request.source.subscription();
    arm.snapshots(&ListScope::Subscription(subscription.to_owned())).await.map_err(|error| {
        let error = Error::from(error);
        if error.kind() != ErrorKind::PermissionMissing {
            return error;
        }
        error.next(format!(
            "the limits of managed copies hold for the whole subscription, so its snapshots are listed: the identity needs Microsoft.Compute/snapshots/read on it: az role assignment create --role Reader --scope /subscriptions/{subscription} --assignee <identity>"
        ))
    })
}

/// Whether the source can be copied there at all.
pub(super) fn check_source(source: &ManagedSnapshot, request: &Request) -> Result<()> {
    let refuse = |kind, why: String| Error::new(kind, TRIED, why).on(&source.id);
    if !source.incremental {
        return Err(refuse(
            ErrorKind::SourceUnsuitable,
            "it is a full snapshot: Azure copies only incremental ones across regions".to_owned(),
        )
        .next("make an incremental one: az snapshot create --incremental true --source <disk> --resource-group <group> --name <name>"));
    }
    if source.has_failed() {
        let state = source.provisioning_state.as_deref().unwrap_or("unknown");
        return Err(refuse(
            ErrorKind::SourceUnsuitable,
            format!("it will never be whole: its state is {state}"),
        )
        .next("copy another snapshot: az snapshot list -o table"));
    }
    if !source.is_ready() {
        let percent = source.completion_percent.unwrap_or_default();
        return Err(refuse(
            ErrorKind::Unavailable,
            format!("it is not whole yet: {percent} percent are done"),
        )
        .next(format!(
            "wait until it is: az snapshot show --ids {} --query completionPercent",
            quote::posix(&source.id.to_string())
        )));
    }
    if fold_region(&source.location) == request.region_name() {
        return Err(refuse(
            ErrorKind::Usage,
            format!("it is in {} already: a managed copy goes to another region", source.location),
        )
        .next("give another region with --region: az account list-locations --query '[].name' -o tsv"));
    }
    Ok(())
}

/// The copy that the same request started before, or nothing when it may be started now.
pub(super) fn check(
    all: &[ManagedSnapshot],
    source: &ManagedSnapshot,
    request: &Request,
) -> Result<Option<ManagedSnapshot>> {
    if let Some(there) = all.iter().find(|snapshot| snapshot.id == request.target) {
        return same_copy(there, source, request).map(|()| Some(there.clone()));
    }
    let region = request.region_name();
    let copies: Vec<&ManagedSnapshot> = all
        .iter()
        .filter(|copy| is_copy_start(copy) && !copy.has_failed() && fold_region(&copy.location) == region)
        .collect();
    let of_disk: Vec<CopyOfDisk<'_>> =
        copies.iter().filter_map(|copy| of_same_disk(copy, all, source)).collect();

    if let Some(CopyOfDisk { copy: pending, .. }) = of_disk.iter().find(|known| !known.copy.is_ready()) {
        let percent = pending.completion_percent.unwrap_or_default();
        let why = format!(
            "another snapshot of this disk is being copied to {region} ({}, {percent} percent): Azure copies one at a time",
            pending.id.name()
        );
        return Err(Error::new(ErrorKind::Unavailable, TRIED, why)
            .on(&source.id)
            .next(format!("wait for that one, then run this again: {}", status_command(&pending.id, true))));
    }
    let newer = of_disk.iter().find_map(|known| {
        let of = known.of.filter(|of| is_newer(of, source))?;
        Some((known.copy, of))
    });
    if let Some((copy, of)) = newer {
        let why = format!(
            "a newer snapshot of this disk ({}) is in {region} already (as {}): Azure copies them in the order in which they were made",
            of.id.name(),
            copy.id.name()
        );
        return Err(Error::new(ErrorKind::SnapshotOrder, TRIED, why)
            .on(&source.id)
            .next("copy a snapshot that is newer than that; for an older one copy it yourself: snapferry copy --help"));
    }
    let pending = copies.iter().filter(|copy| !copy.is_ready()).count();
    if pending >= MOST_PENDING {
        let why = format!(
            "{pending} managed copies are under way to {region} in this subscription, and Azure allows {MOST_PENDING}"
        );
        return Err(Error::new(ErrorKind::Unavailable, TRIED, why).on(&source.id).next(
            "run this again when one of them is done: az snapshot list --query \"[?completionPercent<`100`].{id:id, percent:completionPercent}\"",
        ));
    }
    warn_of_skipped(all, &of_disk, source, &region);
    Ok(None)
}

/// What has the target's name must be the copy that was asked for.
pub(super) fn same_copy(there: &ManagedSnapshot, source: &ManagedSnapshot, request: &Request) -> Result<()> {
    let why = if !is_copy_start(there) {
        "a snapshot of this name exists, and it is no managed copy".to_owned()
    } else if !is_of(there, source) {
        let other = there.source.as_deref().unwrap_or("an unknown snapshot");
        format!("a snapshot of this name exists, and it is a copy of {}", crate::azure::reply::scrub(other))
    } else if fold_region(&there.location) != request.region_name() {
        format!("the copy of this name is in {}, not in {}", there.location, request.region_name())
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::TargetExists, TRIED, why)
        .on(&there.id)
        .next("give another name with --target-name; nothing is overwritten"))
}

/// Older snapshots of the disk that cannot follow any more.
fn warn_of_skipped(
    all: &[ManagedSnapshot],
    copies: &[CopyOfDisk<'_>],
    source: &ManagedSnapshot,
    region: &str,
) {
    let is_there = |mate: &ManagedSnapshot| copies.iter().any(|known| is_of(known.copy, mate));
    let skipped = all
        .iter()
        .filter(|mate| mate.incremental && !is_copy_start(mate) && is_of_disk(mate, source))
        .filter(|mate| is_newer(source, mate) && !is_there(mate))
        .count();
    if skipped > 0 {
        tracing::warn!(
            "older snapshots of this disk that are not in {region}: {skipped}; Azure copies none of them after this one"
        );
    }
}

/// Whether the service made it, or makes it, by copying in the background.
pub(super) fn is_copy_start(snapshot: &ManagedSnapshot) -> bool {
    snapshot.create_option.as_deref().is_some_and(|option| option.eq_ignore_ascii_case("CopyStart"))
}

/// What a copy says it was made of, when that is a snapshot.
pub(super) fn snapshot_id(text: &str) -> Option<ArmId> {
    ArmId::parse(ArmKind::Snapshot, text).ok()
}

/// Whether `copy` was made of `snapshot`, and not of one that had its name before. Which unique id a copy shows (of the
/// snapshot, or of its disk) is not documented: either will do.
fn is_of(copy: &ManagedSnapshot, snapshot: &ManagedSnapshot) -> bool {
    let has_id = copy.source.as_deref().and_then(snapshot_id).is_some_and(|id| id == snapshot.id);
    let known = [&snapshot.unique_id, &snapshot.source_unique_id];
    has_id
        && match &copy.source_unique_id {
            Some(shown) if known.iter().any(|id| id.is_some()) => {
                known.into_iter().flatten().any(|id| id.eq_ignore_ascii_case(shown))
            }
            _ => true,
        }
}

/// Whether two snapshots are of one disk.
fn is_of_disk(a: &ManagedSnapshot, b: &ManagedSnapshot) -> bool {
    let same = |a: &Option<String>, b: &Option<String>| match (a, b) {
        (Some(a), Some(b)) => Some(a.eq_ignore_ascii_case(b)),
        _ => None,
    };
    same(&a.family, &b.family).unwrap_or_else(|| {
        same(&a.source, &b.source) == Some(true)
            && same(&a.source_unique_id, &b.source_unique_id).unwrap_or(true)
    })
}

/// A copy of a snapshot of the disk in question.
struct CopyOfDisk<'a> {
    copy: &'a ManagedSnapshot,
    /// The snapshot that it was made of, as far as that still exists.
    of: Option<&'a ManagedSnapshot>,
}

/// `copy`, if it is of the disk of `source`.
fn of_same_disk<'a>(
    copy: &'a ManagedSnapshot,
    all: &'a [ManagedSnapshot],
    source: &'a ManagedSnapshot,
) -> Option<CopyOfDisk<'a>> {
    let of = std::iter::once(source).chain(all).find(|snapshot| is_of(copy, snapshot));
    // Where its source is gone, all that is left to go by is the family: a copy may keep that of its source.
    let keeps_family = || {
        let families = copy.family.as_ref().zip(source.family.as_ref());
        families.is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    let is_same = of.map_or_else(keeps_family, |of| of.id == source.id || is_of_disk(of, source));
    is_same.then_some(CopyOfDisk { copy, of })
}

fn is_newer(a: &ManagedSnapshot, b: &ManagedSnapshot) -> bool {
    a.created.zip(b.created).is_some_and(|(a, b)| a > b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::request::tests::{request, snapshot_id};
    use super::*;

    const DISK: &str = "/subscriptions/0b1f/resourceGroups/Prod/providers/Microsoft.Compute/disks/web-1";

    /// The snapshot of a disk that was made at `hour`.
    fn snapshot(name: &str, family: &str, hour: u8) -> ManagedSnapshot {
        ManagedSnapshot {
            id: snapshot_id(name),
            unique_id: Some(format!("unique-{name}")),
            location: "northeurope".to_owned(),
            created: Some(format!("2026-02-01T{hour:02}:00:00Z").parse().unwrap()),
            size: Some(1 << 30),
            incremental: true,
            family: Some(family.to_owned()),
            source: Some(DISK.to_owned()),
            source_unique_id: Some(format!("disk-{family}")),
            create_option: Some("Copy".to_owned()),
            sector_size: 512,
            provisioning_state: Some("Succeeded".to_owned()),
            disk_state: Some("Unattached".to_owned()),
            completion_percent: Some(100.0),
            copy_error: None,
        }
    }

    fn copy_of(of: &ManagedSnapshot, name: &str, percent: f64) -> ManagedSnapshot {
        ManagedSnapshot {
            location: "West Europe".to_owned(),
            created: Some("2026-02-02T00:00:00Z".parse().unwrap()),
            family: Some(format!("another-{name}")),
            source: Some(of.id.to_string().to_uppercase()),
            source_unique_id: of.unique_id.clone(),
            create_option: Some("CopyStart".to_owned()),
            completion_percent: Some(percent),
            ..snapshot(name, "any", 0)
        }
    }

    fn kind(result: Result<Option<ManagedSnapshot>>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn one_copy_of_a_disk_at_a_time() {
        let (source, sunday) = (snapshot("monday", "a", 9), snapshot("sunday", "a", 8));
        let other = snapshot("other", "b", 8);
        let mut all = vec![source.clone(), sunday.clone(), other.clone(), copy_of(&other, "other-copy", 5.0)];
        assert_eq!(kind(check(&all, &source, &request())), None, "another disk's copy is no obstacle");
        all.push(copy_of(&sunday, "sunday-copy", 5.0));
        let error = check(&all, &source, &request()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.why().contains("sunday-copy") && error.advice().unwrap().contains("managed-copy status")
        );
        let elsewhere = ManagedSnapshot { location: "uksouth".to_owned(), ..all.pop().unwrap() };
        all.push(elsewhere);
        assert_eq!(kind(check(&all, &source, &request())), None, "the limit is one of each region");
        // Its source is gone; only the family tells whose it is.
        let orphan = ManagedSnapshot {
            family: Some("A".to_owned()),
            ..copy_of(&snapshot("gone", "a", 1), "gone-copy", 5.0)
        };
        all.push(orphan);
        assert_eq!(kind(check(&all, &source, &request())), Some(ErrorKind::Unavailable));
    }

    #[test]
    fn copies_go_in_the_order_of_their_sources() {
        let (source, tuesday) = (snapshot("monday", "a", 9), snapshot("tuesday", "a", 10));
        let newer = copy_of(&tuesday, "tuesday-copy", 100.0);
        let all = [source.clone(), tuesday.clone(), newer.clone()];
        assert_eq!(kind(check(&all, &source, &request())), Some(ErrorKind::SnapshotOrder));
        let failed = ManagedSnapshot { copy_error: Some("CopySourceNotFound: x".to_owned()), ..newer };
        assert_eq!(
            kind(check(&[source.clone(), tuesday, failed], &source, &request())),
            None,
            "a copy that failed is not there"
        );
        // Copied later than the source was made, and still of an older snapshot.
        let older = snapshot("sunday", "a", 8);
        let all = [source.clone(), copy_of(&older, "sunday-copy", 100.0), older];
        assert_eq!(kind(check(&all, &source, &request())), None);
    }

    #[test]
    fn a_region_takes_a_hundred_copies_at_once() {
        let source = snapshot("monday", "a", 9);
        let mut all: Vec<ManagedSnapshot> = (0..MOST_PENDING)
            .map(|number| {
                copy_of(
                    &snapshot(&format!("s{number}"), &format!("f{number}"), 1),
                    &format!("c{number}"),
                    1.0,
                )
            })
            .collect();
        let error = check(&all, &source, &request()).unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.why().contains("100"), "{error}");
        all[0].completion_percent = Some(100.0);
        assert_eq!(kind(check(&all, &source, &request())), None);
    }

    #[test]
    fn the_same_request_finds_its_own_copy_and_nothing_else() {
        let source = snapshot("monday", "a", 9);
        let own = copy_of(&source, "monday-copy", 40.0);
        let found = check(std::slice::from_ref(&own), &source, &request()).unwrap().unwrap();
        assert_eq!(found.completion_percent, Some(40.0));
        let exists = |there: ManagedSnapshot| kind(check(&[there], &source, &request()));
        let taken = Some(ErrorKind::TargetExists);
        assert_eq!(exists(snapshot("monday-copy", "a", 9)), taken, "an ordinary snapshot");
        assert_eq!(exists(copy_of(&snapshot("sunday", "a", 8), "monday-copy", 40.0)), taken, "of another");
        let former = ManagedSnapshot { source_unique_id: Some("unique-former".to_owned()), ..own.clone() };
        assert_eq!(exists(former), taken, "of one that had the name before");
        assert_eq!(exists(ManagedSnapshot { location: "uksouth".to_owned(), ..own }), taken, "elsewhere");
    }

    #[test]
    fn a_source_that_cannot_be_copied_says_why() {
        let source = snapshot("monday", "a", 9);
        let refuse = |change: fn(&mut ManagedSnapshot)| {
            let mut changed = source.clone();
            change(&mut changed);
            check_source(&changed, &request()).unwrap_err()
        };
        check_source(&source, &request()).unwrap();
        assert_eq!(refuse(|s| s.incremental = false).kind(), ErrorKind::SourceUnsuitable);
        assert_eq!(refuse(|s| s.completion_percent = Some(99.5)).kind(), ErrorKind::Unavailable);
        assert_eq!(
            refuse(|s| s.provisioning_state = Some("Failed".to_owned())).kind(),
            ErrorKind::SourceUnsuitable
        );
        let same = refuse(|s| s.location = "WestEurope".to_owned());
        assert!(same.kind() == ErrorKind::Usage && same.why().contains("already"), "{same}");
    }
}
