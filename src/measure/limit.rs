//! The limit finder: what keeps a run from being faster, from its counters over the last seconds.
//!
//! It asks in this order, and the first that holds is the answer:
//! 1. Did a side refuse requests for load? That side. A copy that adapted is refused rarely, so a refusal is remembered
//!    for as long as the window is kept small because of it.
//! 2. Had the window room, and nothing to start? The page list.
//! 3. Did requests wait at home for a good part of the time, because a side was found to give no more? That side.
//! 4. Did calls wait for the user's cap for a good part of the time? The cap.
//! 5. Were all processors busy? They.
//! 6. Is the window full, and does a chunk take longer than it did with fewer in flight, about as much longer as there
//!    are more? Then more in flight only wait longer. What became slower is the limit: the source when it is mainly the
//!    reads, the target when it is mainly the writes, the line when it is both. A line that is narrow in one direction
//!    only cannot be told from the service behind it.
//! 7. Is the window full because of the user or of memory, and each chunk as quick as ever? The window.
//! 8. Is the window full because more was found to bring nothing, and has it stopped growing by much? Where the chunks
//!    are for most of their time.
//!
//! It is a function of the counters that it was shown, and looks at no clock.

use std::collections::VecDeque;

use super::counters::{Counters, Side};
use super::hold::Held;
use super::{Found, Limit};

/// Seconds that a verdict is about.
const LOOK_BACK: f64 = 2.0;
/// Seconds that are remembered: for rare refusals, and for chunks that take long.
const REMEMBERED: f64 = 10.0;
/// Counters that come sooner after the last ones are looked at and not kept.
const APART: f64 = 0.1;
/// Nothing can be said of less, in seconds.
const SHORTEST: f64 = 0.2;
/// From this part of its requests on, a side refuses.
const REFUSES: f64 = 0.01;
/// From this part of the time on, something is how it is.
const MOSTLY: f64 = 0.5;
/// From this part of the time of all chunks on, the cap is what they wait for.
const CAPPED: f64 = 0.2;
/// From this part of their time on, the processors are busy.
const BUSY: f64 = 0.9;
/// Chunks that take this much longer have become slower.
const SLOWER: f64 = 1.5;
/// What became slower on one side is that side's doing from this part on.
const MAINLY: f64 = 0.7;
/// A window that grew by this part of itself is still opening.
const OPENING: f64 = 0.1;
/// Chunks that are needed to say how long one takes.
const ENOUGH: u64 = 3;
/// Classes of request sizes, each four times the one before: how long a request takes depends on its size.
const CLASSES: usize = 16;

/// Finds the limit of one run. Shown the counters a few times a second, it keeps those of the last ten seconds, and how
/// long a chunk took when it was quickest.
#[derive(Debug, Default)]
pub struct LimitFinder {
    recent: VecDeque<Counters>,
    quickest: [Option<Pass>; CLASSES],
    /// What was found last of how long chunks take: they may take longer than is remembered.
    last: Found,
}

/// How long a chunk takes, on the average of some time.
#[derive(Clone, Copy, Debug)]
struct Pass {
    /// Seconds at the source.
    source: f64,
    /// Seconds at the target.
    target: f64,
    in_flight: f64,
    class: usize,
}

impl LimitFinder {
    /// What limited the run in the last seconds before `now`.
    pub fn look(&mut self, now: Counters) -> Found {
        let found = self.find(&now);
        if self.recent.back().is_none_or(|last| now.at - last.at >= APART) {
            self.recent.push_back(now);
        }
        while self.recent.get(1).is_some_and(|next| next.at <= now.at - REMEMBERED) {
            self.recent.pop_front();
        }
        found
    }

    fn find(&mut self, now: &Counters) -> Found {
        let Some(oldest) = self.recent.front().copied() else { return Found::default() };
        let before = self.recent.iter().rev().find(|past| past.at <= now.at - LOOK_BACK).unwrap_or(&oldest);
        let passed = Span::between(before, now);
        if passed.seconds < SHORTEST {
            return Found::default();
        }
        let remembered = Span::between(&oldest, now);
        let is_full =
            passed.held.concurrency + passed.held.memory + passed.held.learned >= MOSTLY * passed.seconds;
        if let Some(side) = passed.refusing() {
            return Found { limit: side, by: "503" };
        }
        if passed.held.learned >= MOSTLY * passed.seconds
            && let Some(side) = remembered.refused_most()
        {
            return Found { limit: side, by: "503" };
        }
        if passed.held.listing >= MOSTLY * passed.seconds {
            return Found { limit: Limit::Listing, by: "" };
        }
        if let Some(side) = passed.holding_back() {
            return Found { limit: side, by: "503" };
        }
        if passed.source.capped + passed.target.capped >= CAPPED * passed.held.chunks.max(passed.seconds) {
            return Found { limit: Limit::Cap, by: "" };
        }
        if passed.cpu >= BUSY * now.cores * passed.seconds {
            return Found { limit: Limit::Cpu, by: "" };
        }
        if !is_full {
            return Found::default();
        }
        let Some(pass) = passed.pass().or_else(|| remembered.pass()) else { return self.last };
        self.last = self.of_full_window(now, &passed, pass);
        self.last
    }

    /// The window is full: is it too small, or is what is behind it slow?
    fn of_full_window(&mut self, now: &Counters, passed: &Span, pass: Pass) -> Found {
        let quickest = *self.quickest[pass.class].get_or_insert(pass);
        if pass.seconds() < quickest.seconds() {
            self.quickest[pass.class] = Some(pass);
        }
        let longer = pass.seconds() / quickest.seconds().max(f64::MIN_POSITIVE);
        let more = pass.in_flight / quickest.in_flight.max(f64::MIN_POSITIVE);
        if longer >= SLOWER && longer >= more / 2.0 {
            let (source, target) = (pass.source - quickest.source, pass.target - quickest.target);
            return slow(source.max(0.0), target.max(0.0));
        }
        let held = &passed.held;
        if held.memory >= held.concurrency.max(held.learned) {
            return Found { limit: Limit::Window, by: "--memory" };
        }
        if held.concurrency >= held.learned {
            return Found { limit: Limit::Window, by: "--concurrency" };
        }
        if passed.window >= OPENING * now.window {
            return Found::default();
        }
        slow(passed.source.moving, passed.target.moving)
    }
}

/// The side on which that much more time is spent.
fn slow(source: f64, target: f64) -> Found {
    let part = source / (source + target).max(f64::MIN_POSITIVE);
    let limit = match part {
        part if part >= MAINLY => Limit::Source,
        part if part <= 1.0 - MAINLY => Limit::Target,
        _ => return Found { limit: Limit::Link, by: "" },
    };
    Found { limit, by: "slow" }
}

/// What happened between two looks.
#[derive(Debug)]
struct Span {
    seconds: f64,
    source: Side,
    target: Side,
    held: Held,
    /// By how much the window grew.
    window: f64,
    cpu: f64,
}

impl Span {
    fn between(before: &Counters, now: &Counters) -> Self {
        let held = now.held - before.held;
        Self {
            seconds: now.at - before.at,
            source: now.source - before.source,
            target: now.target - before.target,
            held,
            window: now.window - before.window,
            cpu: now.cpu - before.cpu,
        }
    }

    /// The side that refuses a good part of its requests.
    fn refusing(&self) -> Option<Limit> {
        let refuses = |side: &Side| side.refused > 0 && side.refused as f64 >= REFUSES * side.requests as f64;
        if refuses(&self.source) || refuses(&self.target) { self.refused_most() } else { None }
    }

    /// The side whose learned rates keep requests at home, rather than the user's cap.
    fn holding_back(&self) -> Option<Limit> {
        let (source, target) = (self.source.held_back, self.target.held_back);
        let held_back = source + target;
        let is_much = held_back >= CAPPED * self.held.chunks.max(self.seconds);
        if !is_much || held_back < self.source.capped + self.target.capped {
            return None;
        }
        Some(if source > target { Limit::Source } else { Limit::Target })
    }

    fn refused_most(&self) -> Option<Limit> {
        match (self.source.refused, self.target.refused) {
            (0, 0) => None,
            (source, target) if source > target => Some(Limit::Source),
            _ => Some(Limit::Target),
        }
    }

    /// How long a chunk took, if enough were moved to tell.
    fn pass(&self) -> Option<Pass> {
        let moved = self.source.moved.requests.max(self.target.moved.requests);
        if moved < ENOUGH || self.seconds <= 0.0 {
            return None;
        }
        let mean = |side: &Side| side.moved.seconds / side.moved.requests.max(1) as f64;
        let (mut source, mut target) = (mean(&self.source), mean(&self.target));
        // A file on this machine makes no requests: what is not spent on the other side is spent on it.
        let whole = self.held.chunks / moved as f64;
        if self.source.requests == 0 {
            source = (whole - target).max(0.0);
        } else if self.target.requests == 0 {
            target = (whole - source).max(0.0);
        }
        let bytes = self.source.moved.bytes.max(self.target.moved.bytes) / moved;
        let class = usize::try_from(bytes.max(1).ilog2() / 2).unwrap_or(CLASSES).min(CLASSES - 1);
        Some(Pass { source, target, in_flight: self.held.chunks / self.seconds, class })
    }
}

impl Pass {
    fn seconds(&self) -> f64 {
        self.source + self.target
    }
}

#[cfg(test)]
mod tests {
    use super::super::times::Work;
    use super::*;

    const MIB: f64 = 1_048_576.0;

    /// A copy of which is made up how long its chunks take.
    struct Scene {
        finder: LimitFinder,
        now: Counters,
        found: Found,
    }

    /// What happens in a second.
    #[derive(Clone, Copy)]
    struct Second {
        in_flight: f64,
        /// Seconds of a chunk.
        source: f64,
        target: f64,
        held: Held,
        refused: (u64, u64),
        capped: f64,
        /// At the target.
        held_back: f64,
        /// Of the processors.
        busy: f64,
        grows: f64,
    }

    const NOTHING: Held = Held {
        listing: 0.0,
        concurrency: 0.0,
        memory: 0.0,
        learned: 0.0,
        recording: 0.0,
        drained: 0.0,
        chunks: 0.0,
    };
    const AT_MOST: Held = Held { concurrency: 1.0, ..NOTHING };
    const LEARNED: Held = Held { learned: 1.0, ..NOTHING };
    const USUAL: Second = Second {
        in_flight: 8.0,
        source: 0.05,
        target: 0.05,
        held: AT_MOST,
        refused: (0, 0),
        capped: 0.0,
        held_back: 0.0,
        busy: 0.3,
        grows: 0.0,
    };

    impl Scene {
        fn new() -> Self {
            let now = Counters { window: 8.0, cores: 4.0, ..Counters::default() };
            let mut finder = LimitFinder::default();
            let found = finder.look(now);
            Self { finder, now, found }
        }

        /// Looks four times a second.
        fn pass(&mut self, seconds: u32, each: Second) -> Found {
            for _ in 0..seconds * 4 {
                self.quarter(each);
            }
            self.found
        }

        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        fn quarter(&mut self, each: Second) {
            const DT: f64 = 0.25;
            let now = &mut self.now;
            now.at += DT;
            now.cpu += each.busy * now.cores * DT;
            now.window += each.grows * DT;
            now.held = now.held + each.held.with(NOTHING, |time, _| time * DT);
            now.held.chunks += each.in_flight * DT;
            let waits = each.capped / each.in_flight.max(1.0);
            let chunk = (each.source + each.target) / (1.0 - waits).max(0.01);
            let chunks = (each.in_flight * DT / chunk.max(0.001)).round();
            for (side, time, refused) in [
                (&mut now.source, each.source, each.refused.0),
                (&mut now.target, each.target, each.refused.1),
            ] {
                side.requests += chunks as u64 + refused;
                side.refused += refused;
                side.moving += chunks * time;
                side.moved = side.moved
                    + Work {
                        requests: chunks as u64,
                        bytes: (chunks * 4.0 * MIB) as u64,
                        seconds: chunks * time,
                    };
            }
            now.source.capped += each.capped * DT;
            now.target.held_back += each.held_back * DT;
            self.found = self.finder.look(*now);
        }
    }

    fn limit_of(each: Second) -> Limit {
        Scene::new().pass(4, each).limit
    }

    #[test]
    fn a_side_whose_rate_was_learned_is_the_limit_though_it_refuses_no_more() {
        assert_eq!(limit_of(Second { held_back: 6.0, held: LEARNED, ..USUAL }), Limit::Target);
        assert_eq!(limit_of(Second { held_back: 2.0, capped: 5.0, ..USUAL }), Limit::Cap);
    }

    #[test]
    fn a_side_that_refuses_is_the_limit() {
        let found = Scene::new().pass(4, Second { refused: (0, 1), held: LEARNED, ..USUAL });
        assert_eq!(found.to_string(), "the target (503)");
        assert_eq!(limit_of(Second { refused: (2, 1), held: LEARNED, ..USUAL }), Limit::Source);
        // Also when its page lists are what it refuses.
        let listing = Held { listing: 1.0, ..NOTHING };
        assert_eq!(limit_of(Second { refused: (1, 0), held: listing, ..USUAL }), Limit::Source);
    }

    #[test]
    fn a_rare_refusal_counts_as_long_as_the_window_is_small_because_of_it() {
        let mut scene = Scene::new();
        scene.pass(4, USUAL);
        scene.quarter(Second { refused: (0, 1), ..USUAL });
        assert_eq!(scene.pass(5, Second { held: LEARNED, grows: 0.3, ..USUAL }).limit, Limit::Target);
        assert_eq!(scene.pass(3, USUAL).limit, Limit::Window, "it is open again");
        assert_ne!(scene.pass(11, Second { held: LEARNED, grows: 0.3, ..USUAL }).limit, Limit::Target);
    }

    #[test]
    fn calls_that_wait_for_the_cap_tell_of_the_cap() {
        assert_eq!(limit_of(Second { capped: 6.0, ..USUAL }), Limit::Cap);
        assert_eq!(limit_of(Second { capped: 0.2, ..USUAL }), Limit::Window, "it hardly waits");
    }

    #[test]
    fn busy_processors_are_the_limit_whatever_the_window_is() {
        assert_eq!(limit_of(Second { busy: 0.95, ..USUAL }), Limit::Cpu);
        assert_eq!(limit_of(Second { busy: 0.95, held: LEARNED, ..USUAL }), Limit::Cpu);
        assert_eq!(limit_of(Second { busy: 0.85, ..USUAL }), Limit::Window);
    }

    #[test]
    fn a_window_with_room_and_nothing_to_start_waits_for_the_page_list() {
        let listing = Held { listing: 0.8, learned: 0.2, ..NOTHING };
        assert_eq!(limit_of(Second { held: listing, in_flight: 1.0, ..USUAL }), Limit::Listing);
        let mostly_full = Held { listing: 0.2, concurrency: 0.8, ..NOTHING };
        assert_eq!(limit_of(Second { held: mostly_full, ..USUAL }), Limit::Window);
    }

    #[test]
    fn a_full_window_of_quick_chunks_is_the_limit_itself_and_says_of_what() {
        assert_eq!(Scene::new().pass(4, USUAL).to_string(), "the window (--concurrency)");
        let memory = Held { memory: 1.0, ..NOTHING };
        assert_eq!(
            Scene::new().pass(4, Second { held: memory, ..USUAL }).to_string(),
            "the window (--memory)"
        );
        // A source far away: more in flight would help all the same.
        assert_eq!(limit_of(Second { source: 0.5, ..USUAL }), Limit::Window);
    }

    /// The window grew eightfold, and the chunks took longer as much.
    fn grown(source: f64, target: f64) -> Limit {
        let mut scene = Scene::new();
        scene.pass(3, Second { in_flight: 4.0, grows: 8.0, held: LEARNED, ..USUAL });
        scene.pass(4, Second { in_flight: 32.0, source, target, ..USUAL }).limit
    }

    #[test]
    fn what_became_slower_while_the_window_grew_is_the_limit() {
        assert_eq!(grown(0.75, 0.05), Limit::Source);
        assert_eq!(grown(0.05, 0.75), Limit::Target);
        assert_eq!(grown(0.4, 0.4), Limit::Link);
        assert_eq!(grown(0.06, 0.06), Limit::Window, "hardly slower");
        assert_eq!(grown(0.1, 0.1), Limit::Window, "twice the time for eight times as many: it still pays");
    }

    #[test]
    fn a_side_that_becomes_slow_in_mid_copy_is_told_though_the_window_stays() {
        let mut scene = Scene::new();
        assert_eq!(scene.pass(4, USUAL).limit, Limit::Window);
        assert_eq!(scene.pass(4, Second { target: 0.5, ..USUAL }).to_string(), "the target (slow)");
        assert_eq!(scene.pass(4, USUAL).limit, Limit::Window, "and it is forgotten");
    }

    #[test]
    fn chunks_of_another_size_take_another_time_and_that_says_nothing() {
        let mut scene = Scene::new();
        scene.pass(4, Second { source: 0.005, target: 0.005, ..USUAL });
        // From here on a request carries 4 KiB where it carried 4 MiB, or the other way round.
        let mut small = Scene::new();
        std::mem::swap(&mut small.finder.quickest, &mut scene.finder.quickest);
        let quickest = small.finder.quickest.iter().flatten().count();
        assert_eq!(quickest, 1);
        small.finder.quickest.rotate_right(5);
        assert_eq!(small.pass(4, USUAL).limit, Limit::Window);
    }

    #[test]
    fn a_window_that_is_still_opening_says_nothing() {
        assert_eq!(limit_of(Second { held: LEARNED, grows: 4.0, ..USUAL }), Limit::Unknown);
        // A wide window grows by one with each of its widths, for ever: that is not opening.
        let mut scene = Scene::new();
        scene.now.window = 140.0;
        let wide = Second { in_flight: 140.0, source: 0.25, held: LEARNED, grows: 1.6, ..USUAL };
        assert_eq!(scene.pass(4, wide).limit, Limit::Source);
        assert_eq!(Scene::new().found, Found::default());
        let mut scene = Scene::new();
        assert_eq!(scene.finder.look(Counters { at: 0.01, ..scene.now }), Found::default(), "too early");
    }

    #[test]
    fn nothing_is_said_of_a_copy_that_has_nothing_left_to_start() {
        assert_eq!(limit_of(Second { held: Held { drained: 1.0, ..NOTHING }, ..USUAL }), Limit::Unknown);
        assert_eq!(limit_of(Second { held: NOTHING, in_flight: 0.0, ..USUAL }), Limit::Unknown);
    }

    #[test]
    fn an_image_on_this_machine_can_be_the_slow_side() {
        let mut scene = Scene::new();
        let mut quarter = |in_flight: f64, each: f64| {
            let now = &mut scene.now;
            now.at += 0.25;
            now.held = now.held + Held { concurrency: 0.25, chunks: in_flight / 4.0, ..NOTHING };
            now.target.requests += 10;
            now.target.moved =
                now.target.moved + Work { requests: 10, bytes: 10 << 22, seconds: 10.0 * each };
            scene.finder.look(*now)
        };
        for _ in 0..12 {
            quarter(4.0, 0.02);
        }
        let found = (0..12).map(|_| quarter(32.0, 0.02)).last();
        assert_eq!(found, Some(Found { limit: Limit::Source, by: "slow" }));
    }

    #[test]
    fn chunks_that_take_longer_than_is_remembered_leave_the_last_verdict() {
        let mut scene = Scene::new();
        scene.pass(3, Second { in_flight: 4.0, ..USUAL });
        let slow = Second { in_flight: 32.0, source: 20.0, target: 20.0, ..USUAL };
        assert_eq!(scene.pass(20, Second { source: 0.8, target: 0.8, ..slow }).limit, Limit::Link);
        assert_eq!(scene.pass(20, Second { source: 200.0, target: 200.0, ..slow }).limit, Limit::Link);
    }

    #[test]
    fn every_limit_has_words_and_advice() {
        for limit in Limit::ALL {
            assert!(!limit.words().is_empty() && limit.advice().len() > limit.words().len());
        }
    }
}
