//! Background copies of snapshots to other regions: one at a time for each disk and region, in the order of their making.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::resource::SnapshotEntry;
use crate::clock::Moment;

/// The copies that are under way, oldest first.
#[derive(Debug, Default)]
pub(super) struct Copies {
    queue: Vec<Pending>,
    /// Up to when they have got on.
    settled: Option<Moment>,
}

#[derive(Debug)]
struct Pending {
    copy: Arc<SnapshotEntry>,
    source: Arc<SnapshotEntry>,
}

impl Pending {
    /// Copies in the same line wait for each other.
    fn line(&self) -> (Uuid, String) {
        let disk = self.source.creation.source.as_ref().map(|(_, unique_id)| *unique_id);
        (disk.unwrap_or_default(), self.copy.location.clone())
    }
}

impl Copies {
    pub(super) fn add(&mut self, copy: Arc<SnapshotEntry>, source: Arc<SnapshotEntry>) {
        self.queue.push(Pending { copy, source });
    }

    /// How many copies to a region are not complete.
    pub(super) fn under_way(&self, location: &str) -> usize {
        self.queue.iter().filter(|pending| pending.copy.location == location).count()
    }

    /// Lets the time since the last call pass.
    pub(super) fn settle(&mut self, now: Moment, percent_per_second: f64) {
        let passed = now.since(self.settled.unwrap_or(now)).as_secs_f64();
        self.settled = Some(now);
        let mut budgets: BTreeMap<(Uuid, String), f64> = BTreeMap::new();
        self.queue.retain(|pending| {
            let budget = budgets.entry(pending.line()).or_insert(passed * percent_per_second);
            pending.get_on(budget)
        });
    }
}

impl Pending {
    /// Uses what it can of a number of per cent. Returns whether it is still under way.
    fn get_on(&self, budget: &mut f64) -> bool {
        let source_is_gone = self.source.state().deleted;
        let mut under_way = false;
        self.copy.change(|state| {
            let missing = 100.0 - state.completion.unwrap_or_default();
            if state.deleted || missing <= 0.0 {
                return;
            }
            if source_is_gone {
                let text = "The source snapshot was deleted before the copy was complete.";
                state.copy_error = Some(text.to_owned());
                return;
            }
            under_way = *budget < missing;
            state.completion = Some(if under_way { 100.0 - missing + *budget } else { 100.0 });
            *budget = if under_way { 0.0 } else { *budget - missing };
        });
        under_way
    }
}
