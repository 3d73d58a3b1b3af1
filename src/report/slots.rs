//! The course of a run cut into slots: what all plots over time draw.
//!
//! Samples are counters; a slot is what happened between two of them. Where there are more samples than a plot can show,
//! some of them are left out, and a slot then spans more time: its rates are still exact, as counters only grow.

use crate::measure::{Course, Limit, Sample};

use super::units::ratio;

/// What happened between two moments; rates are per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) bytes_done: f64,
    pub(super) source_requests: f64,
    pub(super) target_requests: f64,
    pub(super) source_refused: f64,
    pub(super) target_refused: f64,
    /// The largest in the slot, as is `in_flight`: a short collapse is seen by its neighbours.
    pub(super) window: f64,
    pub(super) in_flight: f64,
    /// Processor seconds per second: busy cores.
    pub(super) cpu: f64,
    /// What limited it for most of the slot.
    pub(super) limit: Limit,
}

/// Cuts a course into at most `most` slots; none when there is no time in it.
pub(super) fn cut(course: &Course, most: usize) -> Vec<Slot> {
    let samples = in_order(course);
    let group = samples.len().div_ceil(most.max(1)).max(1);
    let mut slots = Vec::new();
    let mut before = Sample {
        at: 0.0,
        bytes_in: 0,
        bytes_out: 0,
        bytes_done: 0,
        source_requests: 0,
        target_requests: 0,
        source_refused: 0,
        target_refused: 0,
        in_flight: 0,
        window: 0.0,
        cpu: 0.0,
        limit: Limit::Unknown,
    };
    for group in samples.chunks(group) {
        slots.push(slot(before, group));
        if let Some(last) = group.last() {
            before = **last;
        }
    }
    slots
}

/// The samples that time passed before.
fn in_order(course: &Course) -> Vec<&Sample> {
    let mut last = 0.0;
    let mut samples = Vec::new();
    for sample in &course.samples {
        if sample.at.is_finite() && sample.at > last {
            last = sample.at;
            samples.push(sample);
        }
    }
    samples
}

fn slot(before: Sample, group: &[&Sample]) -> Slot {
    let last = group.last().map_or(before, |last| **last);
    let seconds = last.at - before.at;
    let rate = |from: u64, to: u64| ratio(to.saturating_sub(from) as f64, seconds);
    Slot {
        from: before.at,
        to: last.at,
        bytes_in: rate(before.bytes_in, last.bytes_in),
        bytes_out: rate(before.bytes_out, last.bytes_out),
        bytes_done: rate(before.bytes_done, last.bytes_done),
        source_requests: rate(before.source_requests, last.source_requests),
        target_requests: rate(before.target_requests, last.target_requests),
        source_refused: rate(before.source_refused, last.source_refused),
        target_refused: rate(before.target_refused, last.target_refused),
        window: group.iter().fold(0.0, |most, sample| sample.window.max(most)),
        in_flight: group.iter().fold(0, |most, sample| sample.in_flight.max(most)) as f64,
        cpu: ratio((last.cpu - before.cpu).max(0.0), seconds),
        limit: longest_limit(before.at, group),
    }
}

fn longest_limit(from: f64, group: &[&Sample]) -> Limit {
    let mut times: Vec<(Limit, f64)> = Vec::new();
    let mut last = from;
    for sample in group {
        let time = sample.at - last;
        last = sample.at;
        match times.iter_mut().find(|(limit, _)| *limit == sample.limit) {
            Some((_, sum)) => *sum += time,
            None => times.push((sample.limit, time)),
        }
    }
    times.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(Limit::Unknown, |(limit, _)| limit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)]

    use super::*;

    fn sample(at: f64, bytes_in: u64, limit: Limit) -> Sample {
        Sample {
            at,
            bytes_in,
            bytes_out: 0,
            bytes_done: 0,
            source_requests: 0,
            target_requests: 0,
            source_refused: 0,
            target_refused: 0,
            in_flight: 3,
            window: 4.0,
            cpu: 0.0,
            limit,
        }
    }

    fn course(samples: Vec<Sample>) -> Course {
        Course { seconds: 10.0, samples, ..Course::default() }
    }

    #[test]
    fn rates_are_what_passed_between_two_samples() {
        let slots = cut(&course(vec![sample(2.0, 10, Limit::Cpu), sample(4.0, 50, Limit::Cap)]), 10);
        assert_eq!(slots.iter().map(|slot| slot.bytes_in).collect::<Vec<_>>(), [5.0, 20.0]);
        assert_eq!((slots[1].from, slots[1].to, slots[1].limit), (2.0, 4.0, Limit::Cap));
    }

    #[test]
    fn a_thousand_samples_keep_their_mean_in_fewer_slots() {
        let samples =
            (1..=1000_u32).map(|index| sample(f64::from(index) / 100.0, u64::from(index) * 7, Limit::Link));
        let slots = cut(&course(samples.collect()), 160);
        // Six or seven samples each would be uneven.
        assert_eq!(slots.len(), 143);
        let bytes: f64 = slots.iter().map(|slot| slot.bytes_in * (slot.to - slot.from)).sum();
        assert!((bytes - 7000.0).abs() < 1e-6);
    }

    #[test]
    fn samples_without_time_between_them_are_left_out() {
        assert!(cut(&course(vec![]), 10).is_empty());
        assert!(
            cut(&course(vec![sample(0.0, 5, Limit::Cpu), sample(f64::NAN, 5, Limit::Cpu)]), 10).is_empty()
        );
        let slots = cut(
            &course(vec![sample(1.0, 5, Limit::Cpu), sample(1.0, 9, Limit::Cpu), sample(2.0, 1, Limit::Cpu)]),
            10,
        );
        assert_eq!(slots.iter().map(|slot| slot.bytes_in).collect::<Vec<_>>(), [5.0, 0.0]);
    }
}
