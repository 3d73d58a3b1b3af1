//! Made-up courses and benchmarks as real ones look: a page blob's limits, a service that slows down and recovers.

use snapferry::bench::result::{
    Cell, Environment, FORMAT, Interval, Knee, Mode, Pattern, Repeat, Results, Setting, Statistic, Verdict,
};
use snapferry::measure::{BlockMap, Course, Latency, Limit, Sample, Share};
use snapferry::report::CopyRun;

const MIB: f64 = 1_048_576.0;
const GIB: u64 = 1 << 30;

pub(crate) fn copy_run() -> CopyRun {
    CopyRun {
        source: "https://md-k2x1.z12.blob.storage.azure.net/f3ab/abcd?snapshot=2026-02-02T00:00:00.0000000Z".into(),
        copied: "changes since https://md-k2x1.z12.blob.storage.azure.net/f3ab/abcd?snapshot=2026-02-01T00:00:00.0000000Z".into(),
        target: "https://backups.blob.core.windows.net/disks/web-1".into(),
        point: Some("2026-02-02T00:04:11.0293847Z".into()),
        mode: Some(snapferry::step::Mode::Stream),
        fell_back: None,
        error: None,
        version: "0.1.0".into(),
        began: "2026-02-02T00:00:38Z".parse().unwrap(),
        bytes: course().samples.last().unwrap().bytes_out,
        extents: Some(48_211),
        least_seconds: Some(141.6),
        requests: 8_576,
        retries: 40,
        seconds: 212.4,
    }
}

/// 212 seconds at a page blob's limit: the window opens, the target refuses some, is slowed to a third for 40 seconds,
/// and the page list is late towards the end.
pub(crate) fn course() -> Course {
    let mut random = fastrand::Rng::with_seed(5);
    let mut samples = Vec::new();
    let mut sample = no_sample();
    let step = 0.2124;
    let mut window = 4.0;
    let mut times = [0.0; 8];
    for index in 1..=1000_u32 {
        let at = f64::from(index) * step;
        let is_slowed = (92.0..132.0).contains(&at);
        let is_late = at > 188.0;
        let ceiling = if is_slowed {
            20.0
        } else if is_late {
            34.0
        } else {
            60.0
        };
        let opened: f64 = window * 2.9;
        let rate = opened.min(ceiling) * (0.94 + 0.09 * random.f64()) * MIB;
        let is_refused = opened > ceiling && !is_late && random.f64() < if is_slowed { 0.14 } else { 0.05 };
        let limit = if is_late {
            Limit::Listing
        } else if opened < ceiling * 0.75 {
            Limit::Unknown
        } else if (60.0..78.0).contains(&at) {
            Limit::Link
        } else {
            Limit::Target
        };
        window = if is_refused {
            (window * 0.72_f64).max(3.0)
        } else {
            window + if window < 12.0 { 0.25 } else { 0.09 }
        };
        window = window.min(40.0);
        sample.at = at;
        sample.bytes_in += whole(rate * step * (0.97 + 0.06 * random.f64()));
        sample.bytes_out += whole(rate * step);
        sample.bytes_done += whole(rate * step * if at < 60.0 { 1.5 } else { 1.02 });
        sample.source_requests += whole(rate * step / MIB / 2.4) + 1;
        sample.target_requests += whole(rate * step / MIB / 2.4) + 1;
        sample.target_refused += u64::from(is_refused) * (1 + random.u64(0..2));
        sample.source_refused += u64::from(random.f64() < 0.004);
        sample.in_flight = whole(window * (0.8 + 0.2 * random.f64()));
        sample.window = window;
        sample.cpu += rate / GIB as f64 * 0.66 * step * (0.9 + 0.2 * random.f64()) + 0.004 * step;
        sample.limit = limit;
        times[limit as usize] += step;
        samples.push(sample);
    }
    let mut limits = Vec::new();
    for limit in [Limit::Target, Limit::Listing, Limit::Link, Limit::Unknown] {
        limits.push(Share { limit, part: times[limit as usize] / (1000.0 * step) });
    }
    limits.sort_by(|a, b| b.part.total_cmp(&a.part));
    Course {
        seconds: 212.4,
        samples,
        reads: Latency {
            count: 4_650,
            mean: 74.2,
            p50: 61.3,
            p90: 118.0,
            p99: 264.0,
            p999: 702.0,
            max: 1_834.0,
        },
        writes: Latency {
            count: 4_650,
            mean: 139.4,
            p50: 112.0,
            p90: 247.0,
            p99: 611.0,
            p999: 1_320.0,
            max: 3_115.0,
        },
        map: block_map(2048, 64 * GIB),
        limits,
    }
}

/// Clusters of data, some zeros, and much that did not change.
pub(crate) fn block_map(cells: usize, disk: u64) -> BlockMap {
    let mut random = fastrand::Rng::with_seed(11);
    let cell = disk / cells as u64;
    let mut map = BlockMap { cell, data: vec![0; cells], zero: vec![0; cells] };
    let mut at = 0;
    while at < cells {
        let length = random.usize(1..=cells / 24 + 1);
        let kind = random.u8(0..10);
        for index in at..(at + length).min(cells) {
            let part = random.f64();
            match kind {
                0 | 1 => map.data[index] = whole(cell as f64 * (0.6 + 0.4 * part)),
                2 | 3 => map.data[index] = whole(cell as f64 * part * part * 0.3),
                4 => map.zero[index] = whole(cell as f64 * (0.3 + 0.7 * part)),
                5 if part < 0.2 => map.data[index] = 4096,
                _ => {}
            }
        }
        at += length;
    }
    map
}

/// Every mode, pattern, window and chunk size given, as a model of the service would have it.
pub(crate) fn bench(windows: &[u64], chunks: &[u64]) -> Results {
    let mut cells = Vec::new();
    let mut knees = Vec::new();
    for pattern in Pattern::ALL {
        for mode in Mode::ALL {
            let from = cells.len();
            for chunk in chunks {
                for window in windows {
                    cells.push(cell(Setting { mode, pattern, window: *window, chunk: *chunk }));
                }
            }
            knees.push(knee(&cells[from..]));
        }
    }
    for knee in &knees {
        let cell = cells.iter_mut().find(|cell| cell.setting == knee.setting).unwrap();
        cell.course = Some(short_course(cell.rate.middle));
    }
    let best = knees[0].setting;
    Results {
        format: FORMAT,
        environment: Environment {
            version: "0.1.0".into(),
            os: "linux 6.12".into(),
            arch: "x86_64".into(),
            cores: 4,
            date: "2026-02-02T09:30:00Z".parse().unwrap(),
            seconds: 2_713.0,
            emulated: true,
            size: None,
            link: String::new(),
            seed: 0,
        },
        source: "http://127.0.0.1:10000/source/bench-source".into(),
        target: "http://127.0.0.1:10001/target/bench-target".into(),
        statistic: Statistic::Median,
        confidence: 0.95,
        cells,
        knees,
        verdict: Verdict {
            limit: Limit::Target,
            sentence: "The target limits at 59.4 MiB/s: more in flight is only refused.".into(),
            advice: vec![
                "Keep 8 chunks of 4 MiB in flight: more gain less than 1 %.".into(),
                "A second target blob would double the rate, as this machine is at a fifth of its processors.".into(),
            ],
            best: Some(best),
        },
    }
}

fn cell(setting: Setting) -> Cell {
    let mut random =
        fastrand::Rng::with_seed(setting.window * 31 + setting.chunk + setting.pattern as u64 * 7);
    let is_stream = setting.mode == Mode::Stream;
    let (size, ceiling) = match setting.pattern {
        Pattern::Dense | Pattern::Own => (setting.chunk as f64, 60.0 * MIB),
        Pattern::Scattered => (4096.0, 500.0 * 4096.0),
        Pattern::Mixed => (setting.chunk as f64 / 6.0, 31.0 * MIB),
        Pattern::Zeros => (setting.chunk as f64, 900.0 * MIB),
    };
    let seconds = 0.08 * if is_stream { 2.0 } else { 1.2 } + size / (14.0 * MIB);
    let wanted = setting.window as f64 * size / seconds;
    let reached =
        if wanted > ceiling { ceiling * (0.985 - 0.0006 * setting.window as f64) } else { wanted * 0.97 };
    let mut repeats = Vec::new();
    for _ in 0..5 {
        let rate = reached * (0.97 + 0.05 * random.f64());
        repeats.push(Repeat { seconds: 20.0, bytes: whole(rate * 20.0), rate });
    }
    let mut rates: Vec<f64> = repeats.iter().map(|repeat| repeat.rate).collect();
    rates.sort_by(f64::total_cmp);
    let latency = |factor: f64| Latency {
        count: whole(reached * 100.0 / size).max(40),
        mean: seconds * 540.0 * factor,
        p50: seconds * 480.0 * factor,
        p90: seconds * 790.0 * factor,
        p99: seconds * 1_620.0 * factor,
        p999: seconds * 3_900.0 * factor,
        max: seconds * 7_200.0 * factor,
    };
    let limit = if wanted > ceiling { Limit::Target } else { Limit::Window };
    Cell {
        setting,
        repeats,
        rate: Interval { middle: rates[2], low: rates[0], high: rates[4] },
        reads: if is_stream { latency(1.0) } else { Latency::default() },
        writes: latency(1.7),
        requests_per_second: reached / size * if is_stream { 2.0 } else { 1.0 },
        refused: if wanted > ceiling { (1.0 - ceiling / wanted) * 0.06 } else { 0.0 },
        cpu_per_gib: if is_stream { 0.64 } else { 0.02 } + 0.1 * MIB / setting.chunk as f64,
        peak_memory: Some(61 << 20),
        machine_busy: Some(0.4),
        limits: vec![Share { limit, part: 0.93 }, Share { limit: Limit::Unknown, part: 0.07 }],
        course: None,
    }
}

fn knee(cells: &[Cell]) -> Knee {
    let best = cells.iter().map(|cell| cell.rate.middle).fold(0.0, f64::max);
    let mut good: Vec<&Cell> = cells.iter().filter(|cell| cell.rate.middle > best * 0.95).collect();
    good.sort_by_key(|cell| cell.setting.window);
    Knee { setting: good[0].setting, of_best: good[0].rate.middle / best }
}

fn short_course(rate: f64) -> Course {
    let mut random = fastrand::Rng::with_seed(3);
    let mut sample = no_sample();
    let mut samples = Vec::new();
    for index in 1..=100_u32 {
        sample.at = f64::from(index) * 0.2;
        let now = rate * (f64::from(index) / 12.0).min(1.0) * (0.95 + 0.1 * random.f64());
        sample.bytes_in += whole(now * 0.2);
        sample.bytes_out += whole(now * 0.2);
        sample.bytes_done += whole(now * 0.2);
        sample.source_requests += whole(now * 0.2 / MIB / 4.0).max(1);
        sample.target_requests += whole(now * 0.2 / MIB / 4.0).max(1);
        sample.target_refused += u64::from(random.f64() < 0.05);
        sample.window = f64::from(index.min(16));
        sample.in_flight = u64::from(index.min(16));
        sample.cpu += 0.2 * 0.3 * (0.9 + 0.2 * random.f64());
        sample.limit = if index < 12 { Limit::Unknown } else { Limit::Target };
        samples.push(sample);
    }
    Course {
        seconds: 20.0,
        samples,
        reads: Latency { count: 300, mean: 80.0, p50: 71.0, p90: 130.0, p99: 210.0, p999: 340.0, max: 390.0 },
        writes: Latency {
            count: 300,
            mean: 120.0,
            p50: 99.0,
            p90: 230.0,
            p99: 410.0,
            p999: 640.0,
            max: 690.0,
        },
        map: block_map(512, GIB),
        limits: vec![Share { limit: Limit::Target, part: 0.89 }, Share { limit: Limit::Unknown, part: 0.11 }],
    }
}

pub(crate) fn no_sample() -> Sample {
    Sample {
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
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value as u64
}
