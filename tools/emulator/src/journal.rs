//! What went over the wire: counts per call, and the latest requests for tests to look at.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

use crate::call::Call;

/// How many requests are kept.
const RECORD_LIMIT: usize = 100_000;

/// Counts of one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Requests that arrived whole, refused ones included, and those whose connection was cut.
    pub requests: u64,
    /// Requests answered with an error or with 304.
    pub refused: u64,
    /// Bytes of bodies received.
    pub bytes_in: u64,
    /// Bytes of bodies handed over for sending; the client may not have taken all of them.
    pub bytes_out: u64,
}

/// Counts since the emulator was started, or since they were reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    by_call: BTreeMap<Call, CallStats>,
}

impl Stats {
    /// The counts of one call.
    pub fn of(&self, call: Call) -> CallStats {
        self.by_call.get(&call).copied().unwrap_or_default()
    }

    /// The counts of all calls, summed.
    pub fn total(&self) -> CallStats {
        self.by_call.values().fold(CallStats::default(), |sum, call| CallStats {
            requests: sum.requests + call.requests,
            refused: sum.refused + call.refused,
            bytes_in: sum.bytes_in + call.bytes_in,
            bytes_out: sum.bytes_out + call.bytes_out,
        })
    }

    /// The calls that were made, with their counts.
    pub fn calls(&self) -> impl Iterator<Item = (Call, CallStats)> {
        self.by_call.iter().map(|(call, stats)| (*call, *stats))
    }
}

/// One request and how it was answered. It holds signatures: it is for tests, not for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// What kind of call it was.
    pub call: Call,
    /// The HTTP method.
    pub method: String,
    /// Path and query, byte for byte as received.
    pub path_and_query: String,
    /// Names from the path, decoded; empty if absent. Of a management call, there is no account, the container is the
    /// resource group, and the blob is the resource.
    pub account: String,
    /// See `account`.
    pub container: String,
    /// See `account`.
    pub blob: String,
    /// The query parameter `snapshot`, decoded.
    pub snapshot: Option<String>,
    /// The headers `x-ms-*`, `x-identity-header`, `If-*`, `Range`, `Content-Length`, `Content-MD5` and `Authorization`, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The HTTP status of the reply, also if it was lost; 0 if there was none.
    pub status: u16,
    /// The reply's error code, as on the wire.
    pub error: Option<&'static str>,
    /// The name of the fault that the request met, such as `cut-after-apply`.
    pub fault: Option<&'static str>,
    /// Whether nobody sent this: it is the late application of a request before it, see `FaultKind::LateDuplicate` and
    /// `FaultKind::DelayedApply`.
    pub late: bool,
}

impl RequestRecord {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Keeps counts always, and records only if asked to.
#[derive(Debug)]
pub(crate) struct Journal {
    stats: Mutex<Stats>,
    records: Option<Mutex<VecDeque<RequestRecord>>>,
}

impl Journal {
    pub(crate) fn new(record: bool) -> Journal {
        Journal { stats: Mutex::default(), records: record.then(Mutex::default) }
    }

    pub(crate) fn count(&self, call: Call, served: CallStats) {
        let mut stats = self.stats.lock();
        let counts = stats.by_call.entry(call).or_default();
        counts.requests += served.requests;
        counts.refused += served.refused;
        counts.bytes_in += served.bytes_in;
        counts.bytes_out += served.bytes_out;
    }

    pub(crate) fn record(&self, record: impl FnOnce() -> RequestRecord) {
        let Some(records) = &self.records else { return };
        let mut records = records.lock();
        if records.len() == RECORD_LIMIT {
            records.pop_front();
        }
        records.push_back(record());
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats.lock().clone()
    }

    /// Begins to count anew. Returns the counts so far.
    pub(crate) fn reset_stats(&self) -> Stats {
        std::mem::take(&mut self.stats.lock())
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.records.as_ref().map_or_else(Vec::new, |records| records.lock().iter().cloned().collect())
    }
}
