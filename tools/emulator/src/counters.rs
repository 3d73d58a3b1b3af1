//! What benchmarks want to know of a run: counts per call, and how many connections and requests there were at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use crate::journal::{CallStats, Stats};
use crate::service::Service;

/// Counts since the emulator was started, or since they were reset. Requests under `/-/` are not counted; the connections
/// that they come over are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests, refusals and bytes of bodies, per call.
    pub calls: Stats,
    /// Connections that are open.
    pub connections: u64,
    /// The most that were open at once.
    pub most_connections: u64,
    /// Requests that have begun, and whose reply is not sent whole.
    pub in_flight: u64,
    /// The most of them at once.
    pub most_in_flight: u64,
}

impl Counters {
    pub(crate) fn of(service: &Service) -> Counters {
        Counters::with(service, service.journal.stats())
    }

    pub(crate) fn reset(service: &Service) -> Counters {
        let counters = Counters::with(service, service.journal.reset_stats());
        service.connections.reset_peak();
        service.in_flight.reset_peak();
        counters
    }

    fn with(service: &Service, calls: Stats) -> Counters {
        let Service { connections, in_flight, .. } = service;
        Counters {
            calls,
            connections: connections.now(),
            most_connections: connections.peak(),
            in_flight: in_flight.now(),
            most_in_flight: in_flight.peak(),
        }
    }

    /// As `GET /-/counters` answers.
    pub fn to_json(&self) -> Value {
        let counts = |stats: CallStats| {
            json!({
                "requests": stats.requests, "refused": stats.refused,
                "bytes_in": stats.bytes_in, "bytes_out": stats.bytes_out,
            })
        };
        let calls = self.calls.calls().map(|(call, stats)| (call.name().to_owned(), counts(stats)));
        json!({
            "connections": { "now": self.connections, "most": self.most_connections },
            "in_flight": { "now": self.in_flight, "most": self.most_in_flight },
            "total": counts(self.calls.total()),
            "calls": calls.collect::<Map<String, Value>>(),
        })
    }
}

/// How many of something there are, and the most that there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<Levels>);

#[derive(Debug, Default)]
struct Levels {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Gauge {
    /// One more, until what is returned is dropped.
    pub(crate) fn enter(&self) -> Present {
        let now = self.0.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.peak.fetch_max(now, Ordering::Relaxed);
        Present(self.clone())
    }

    fn now(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    fn peak(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }

    fn reset_peak(&self) {
        self.0.peak.store(self.now(), Ordering::Relaxed);
    }
}

/// One of what a gauge counts.
#[derive(Debug)]
pub(crate) struct Present(Gauge);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_knows_its_peak() {
        let gauge = Gauge::default();
        let first = gauge.enter();
        let second = gauge.enter();
        drop(first);
        assert_eq!((gauge.now(), gauge.peak()), (1, 2));
        gauge.reset_peak();
        assert_eq!(gauge.peak(), 1);
        drop(second);
        assert_eq!((gauge.now(), gauge.peak()), (0, 1));
    }
}
