//! Reports, opened in a real browser: nothing fails in it, nothing is fetched, every plot is there, and all of it is
//! within the page's width. Then what a browser need not judge: hostile names, runs with nothing in them, and size.

#![allow(clippy::unwrap_used, clippy::panic)]

mod judges;
#[path = "report/made.rs"]
mod made;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use judges::Judge;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use snapferry::bench::result::Results;
use snapferry::measure::{BlockMap, Course, Latency, Limit, Sample, Share};
use snapferry::report::{CopyRun, bench, copy};

const PROMISE: &str =
    "that a report opens in a browser without an error, complete, offline and within the page's width";
const PROBE: &str = include_str!("report/probe.js");
const LARGEST: usize = 1 << 20;

/// What `probe.js` saw.
#[derive(Debug, Deserialize)]
struct Seen {
    errors: Vec<String>,
    violations: Vec<String>,
    /// Marks in each plot; 0 where a sentence stands in its place.
    plots: BTreeMap<String, usize>,
    overlaps: Vec<String>,
    outside: Vec<String>,
    width: u32,
    scroll_width: u32,
    background: String,
    requests: Vec<String>,
    scripts: usize,
}

/// The page in a frame as wide as asked for: a browser's own window is never narrower than 500.
const FRAME: &str = r#"<!doctype html><html><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<script>
window.addEventListener('message', function (event) {
  var seen = document.createElement('pre');
  seen.id = 'probe';
  seen.textContent = event.data;
  document.body.appendChild(seen);
});
</script></head>
<body><iframe src="report.html" style="border: 0; height: 2000px; width: WIDTHpx"></iframe></body></html>"#;

/// A page as a browser has it after a while, and what the browser said of it.
fn open(page: &str) -> (String, Vec<String>) {
    let folder = judges::folder();
    std::fs::write(folder.path().join("report.html"), page).unwrap();
    browse(folder.path(), "report.html", &[])
}

fn browse(folder: &Path, file: &str, more: &[&str]) -> (String, Vec<String>) {
    let profile = folder.join("profile");
    std::fs::create_dir(&profile).unwrap();
    let profile = format!("--user-data-dir={}", profile.display());
    let address = url::Url::from_file_path(folder.join(file)).unwrap();
    let usual = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=2000",
        "--window-size=2000,2000",
        "--dump-dom",
        &profile,
    ];
    let verdict = Judge::Chromium.run(usual.iter().chain(more).chain([&address.as_str()])).accepted();
    let said = verdict.stderr.lines().filter(|line| line.contains("CONSOLE")).map(String::from).collect();
    (verdict.text(), said)
}

/// A page with a script before everything else, which its policy is told of.
fn with_script(page: &str, script: &str) -> String {
    let allowed = format!("script-src 'sha256-{}' ", BASE64_STANDARD.encode(Sha256::digest(script)));
    let page = page.replacen("script-src ", &allowed, 1);
    page.replacen("<title>", &format!("<script>{script}</script>\n<title>"), 1)
}

/// What the probe sees in a page of that width.
fn probe(page: &str, width: u32, more: &[&str]) -> Seen {
    let folder = judges::folder();
    std::fs::write(folder.path().join("report.html"), with_script(page, PROBE)).unwrap();
    std::fs::write(folder.path().join("frame.html"), FRAME.replace("WIDTH", &width.to_string())).unwrap();
    let (dom, said) = browse(folder.path(), "frame.html", more);
    let found = dom.split_once("<pre id=\"probe\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let Some((seen, _)) = found else { panic!("the probe told nothing: {said:#?}") };
    let seen = seen.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&");
    serde_json::from_str(&seen).unwrap()
}

/// What holds for every page, at every width.
#[track_caller]
fn is_sound(page: &str) {
    let (_, said) = open(page);
    assert_eq!(said, Vec::<String>::new());
    for width in [420, 700, 1200, 1900] {
        let seen = probe(page, width, &[]);
        let context = format!("at {width}: {seen:#?}");
        assert_eq!(seen.width, width, "{context}");
        assert!(seen.scroll_width <= width, "{context}");
        assert!(seen.errors.is_empty() && seen.violations.is_empty(), "{context}");
        assert!(seen.requests.is_empty(), "{context}");
        assert!(seen.outside.is_empty() && seen.overlaps.is_empty(), "{context}");
        // The probe and the page's own.
        assert_eq!(seen.scripts, 2, "{context}");
    }
    is_self_contained(page);
}

/// What can be told without a browser.
#[track_caller]
fn is_self_contained(page: &str) {
    assert!(page.len() < LARGEST, "{} bytes", page.len());
    assert!(page.contains("default-src 'none'"));
    for reference in ["<img", "<iframe", "<object", "<script ", "<link rel=\"stylesheet", "@import", "url("] {
        assert!(!page.contains(reference), "{reference}");
    }
    // Names that were handed in are shown as text; nothing leads to them.
    for (at, _) in page.match_indices("href=") {
        assert!(page[at..].starts_with("href=\"data:,\""), "{}", &page[at..at + 80]);
    }
    for wrong in ["NaN", ">inf", " inf", "-inf", "Infinity"] {
        assert!(!page.contains(wrong), "{wrong}");
    }
}

/// The names of the plots of a course.
fn course_plots(prefix: &str) -> Vec<String> {
    let names = [
        "throughput",
        "limits-over-time",
        "limits",
        "cpu",
        "latency",
        "window",
        "refused",
        "requests",
        "map",
    ];
    names.iter().map(|name| format!("{prefix}{name}")).collect()
}

#[track_caller]
fn are_drawn(seen: &Seen, plots: &[String]) {
    for plot in plots {
        let marks = seen.plots.get(plot).copied();
        assert!(marks.is_some_and(|marks| marks > 0), "{plot}: {marks:?} of {:#?}", seen.plots);
    }
}

#[test]
fn a_copy_is_drawn_whole_in_a_browser() {
    if !judges::are_here(&[Judge::Chromium], PROMISE) {
        return;
    }
    let page = copy::html(&made::copy_run(), &made::course());
    is_sound(&page);
    let seen = probe(&page, 1200, &[]);
    are_drawn(&seen, &course_plots("plot-"));
    assert_eq!(seen.plots.len(), course_plots("plot-").len());

    let dark = probe(&page, 1200, &["--blink-settings=preferredColorScheme=0"]);
    assert_ne!(dark.background, seen.background);
}

#[test]
fn a_benchmark_is_drawn_whole_in_a_browser() {
    if !judges::are_here(&[Judge::Chromium], PROMISE) {
        return;
    }
    let page = bench::html(&usual_bench());
    is_sound(&page);
    let mut plots = course_plots("plot-");
    plots.push("plot-rates".into());
    for pattern in ["dense", "scattered", "mixed", "zeros", "own"] {
        for mode in ["stream", "server"] {
            plots.push(format!("plot-sweep-{mode}-{pattern}"));
        }
    }
    for other in 1..8 {
        plots.extend(course_plots(&format!("other{other}-")));
    }
    let seen = probe(&page, 1200, &[]);
    are_drawn(&seen, &plots);
    let more: Vec<_> = seen.plots.keys().filter(|plot| !plots.contains(plot)).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn a_browser_draws_the_strangest_runs() {
    if !judges::are_here(&[Judge::Chromium], PROMISE) {
        return;
    }
    for (name, course) in strange_courses() {
        println!("{name}");
        let page = copy::html(&strange_run(), &course);
        let (_, said) = open(&page);
        assert_eq!(said, Vec::<String>::new(), "{name}");
        for width in [420, 1200] {
            let seen = probe(&page, width, &[]);
            assert!(seen.errors.is_empty() && seen.violations.is_empty(), "{name}: {seen:#?}");
            assert!(seen.outside.is_empty() && seen.overlaps.is_empty(), "{name}: {seen:#?}");
            assert!(seen.scroll_width <= width && seen.scripts == 2, "{name}: {seen:#?}");
        }
    }
}

/// A judge that finds nothing must be one that would have found something.
#[test]
fn the_browser_sees_what_is_wrong_with_a_page() {
    if !judges::are_here(&[Judge::Chromium], PROMISE) {
        return;
    }
    let page = copy::html(&made::copy_run(), &made::course());
    let broken = page.replace(
        "</main>",
        "<p id=\"wide\"><svg class=\"plot\" height=\"9\"><text x=\"3000\">a</text><text x=\"3000\">b</text></svg></p>\n\
         <img src=\"http://127.0.0.1:9/x.png\"><script>document.title = 'run';</script></main>",
    );
    let seen = probe(&broken, 1200, &[]);
    assert!(seen.violations.iter().any(|violation| violation.starts_with("img-src http://127.0.0.1:9")));
    assert!(seen.violations.iter().any(|violation| violation.starts_with("script-src")), "{seen:#?}");
    assert!(!seen.outside.is_empty() && !seen.overlaps.is_empty(), "{seen:#?}");
    // What the policy forbids is also said aloud, and does not run.
    let (dom, said) = open(&broken);
    assert!(!said.is_empty() && !dom.contains("<title>run</title>"));

    let (_, said) = open(&with_script(&page, "setTimeout(function () { nobody(); });"));
    assert!(said.iter().any(|line| line.contains("nobody is not defined")), "{said:#?}");
}

#[test]
fn strange_runs_are_told_in_plain_numbers() {
    for (name, course) in strange_courses() {
        println!("{name}");
        for run in [made::copy_run(), strange_run()] {
            is_self_contained(&copy::html(&run, &course));
            let text = copy::markdown(&run, &course);
            assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
            assert!(!text.contains("<script"), "{text}");
        }
        let mut results = usual_bench();
        results.cells[0].course = Some(course);
        results.verdict.best = Some(results.cells[0].setting);
        is_self_contained(&bench::html(&results));
    }
}

#[test]
fn a_benchmark_of_nothing_and_of_nonsense_is_still_a_page() {
    let mut results = usual_bench();
    results.source = HOSTILE.into();
    results.verdict.sentence = HOSTILE.into();
    results.verdict.advice = vec![HOSTILE.repeat(50_000); 100];
    results.environment.os = HOSTILE.into();
    for cell in &mut results.cells {
        cell.rate.middle = f64::NAN;
        cell.rate.high = f64::INFINITY;
        cell.cpu_per_gib = f64::NEG_INFINITY;
        cell.refused = f64::NAN;
        cell.limits.clear();
        cell.repeats.clear();
    }
    results.confidence = f64::NAN;
    let page = bench::html(&results);
    is_self_contained(&page);
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains("&lt;script&gt;"));
    assert!(!bench::markdown(&results).contains("<script"));

    for cell in &mut results.cells {
        cell.rate.middle = f64::MAX;
        cell.setting.window = u64::MAX;
        cell.setting.chunk = u64::MAX;
    }
    is_self_contained(&bench::html(&results));

    results.cells.clear();
    results.knees.clear();
    results.verdict.best = None;
    is_self_contained(&bench::html(&results));
    assert!(bench::markdown(&results).contains("All 0 settings"));
}

#[test]
fn the_largest_benchmark_is_a_page_that_can_be_sent() {
    // Few enough values for numbers in the cells, and many.
    let few: (Vec<u64>, Vec<u64>) = ((1..=16).collect(), (1..=8).map(|step| step << 18).collect());
    let many: (Vec<u64>, Vec<u64>) = ((1..=32).collect(), (1..=16).map(|step| step << 18).collect());
    for (windows, chunks) in [few, many] {
        let mut results = made::bench(&windows, &chunks);
        let mut course = made::course();
        course.map = worst_map();
        for cell in &mut results.cells {
            cell.course = Some(course.clone());
        }
        let page = bench::html(&results);
        println!("{} cells, {} bytes", results.cells.len(), page.len());
        is_self_contained(&page);
    }
}

#[test]
fn markdown_tells_what_the_page_tells() {
    let text = copy::markdown(&made::copy_run(), &made::course());
    let at_best = "| At best | 2 min 22 s where a page blob takes 60.0 MiB/s and 500 requests/s (documented), \
        whichever gaps are joined; this took 1.50 times as long |";
    for part in
        ["MiB/s", "48,211", at_best, "| Target | the target refused (503) or answered late | 65 % |", "█"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let quick = CopyRun { seconds: 70.0, ..made::copy_run() };
    assert!(copy::html(&quick, &made::course()).contains("whichever gaps are joined; this one takes more"));
    let results = usual_bench();
    let text = bench::markdown(&results);
    assert!(text.starts_with(&format!("# {}\n", results.verdict.sentence)));
    let rows = text.lines().filter(|line| line.starts_with("| dense | stream |")).count();
    // Every setting, and the knee once more.
    assert_eq!(rows, 35 + 1);
}

fn usual_bench() -> Results {
    made::bench(&[1, 2, 4, 8, 16, 32, 64], &[1 << 18, 1 << 19, 1 << 20, 2 << 20, 4 << 20])
}

const HOSTILE: &str = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&|`\u{1b}\n";

fn strange_run() -> CopyRun {
    CopyRun {
        source: HOSTILE.into(),
        copied: HOSTILE.into(),
        error: None,
        target: HOSTILE.repeat(20_000),
        point: Some(HOSTILE.into()),
        version: HOSTILE.into(),
        bytes: u64::MAX,
        seconds: 0.0,
        ..made::copy_run()
    }
}

/// Neighbours are never alike, so that none can be drawn together.
fn worst_map() -> BlockMap {
    let data = (0..4096_u64).map(|index| if index % 2 == 0 { u64::MAX >> (index % 60) } else { 0 }).collect();
    let zero = (0..4096_u64).map(|index| if index % 3 == 0 { u64::MAX >> (index % 50) } else { 0 }).collect();
    BlockMap { cell: u64::MAX / 4096, data, zero }
}

fn strange_courses() -> Vec<(&'static str, Course)> {
    let nothing = Course::default();
    let at = |at: f64| Sample { at, ..made::no_sample() };
    let huge = |at: f64| Sample {
        bytes_in: u64::MAX,
        bytes_out: u64::MAX,
        bytes_done: u64::MAX,
        source_requests: u64::MAX,
        target_requests: u64::MAX,
        source_refused: u64::MAX,
        target_refused: u64::MAX,
        in_flight: u64::MAX,
        window: f64::MAX,
        cpu: f64::MAX,
        at,
        limit: Limit::Cpu,
    };
    let broken = |at: f64| Sample { window: f64::NAN, cpu: f64::INFINITY, at, ..made::no_sample() };
    let largest = Latency {
        count: u64::MAX,
        mean: f64::INFINITY,
        p50: f64::NAN,
        p90: 0.0,
        p99: f64::MIN_POSITIVE,
        p999: 1e12,
        max: f64::MAX,
    };
    let samples = |samples: Vec<Sample>| Course { samples, ..nothing.clone() };
    let mut server = made::course();
    for sample in &mut server.samples {
        sample.bytes_in = 0;
        sample.bytes_out = 0;
    }
    server.reads = Latency::default();
    let mut backwards = made::course();
    backwards.samples.reverse();
    vec![
        ("empty", nothing.clone()),
        ("0 seconds", samples(vec![at(0.0), at(0.0)])),
        (
            "one sample",
            Course { seconds: 0.4, ..samples(vec![Sample { bytes_in: 9, bytes_out: 9, ..at(0.4) }]) },
        ),
        ("all zero", samples((1..200).map(|index| at(f64::from(index))).collect())),
        ("two milliseconds", samples(vec![at(0.001), Sample { bytes_out: 512, ..at(0.002) }])),
        ("a month", samples((1..1000).map(|index| at(f64::from(index) * 2_600.0)).collect())),
        ("forever", samples(vec![huge(1e-9), huge(1e300)])),
        (
            "huge",
            Course {
                seconds: 1e300,
                writes: largest,
                reads: largest,
                map: worst_map(),
                limits: vec![
                    Share { limit: Limit::Cpu, part: 1e300 },
                    Share { limit: Limit::Cap, part: f64::NAN },
                ],
                ..samples(vec![huge(1.0), huge(2.0)])
            },
        ),
        (
            "not finite",
            Course {
                seconds: f64::NAN,
                ..samples(vec![broken(f64::NAN), broken(1.0), broken(f64::INFINITY)])
            },
        ),
        ("by the service", server),
        ("backwards", backwards),
        (
            "uneven map",
            Course { map: BlockMap { cell: 7, data: vec![1, 2, 3], zero: vec![] }, ..samples(vec![at(1.0)]) },
        ),
    ]
}
