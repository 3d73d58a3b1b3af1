//! A whole copy over loopback, side by side with the *bare pump*: a loop that hands each reply's stream to the next
//! request, with the same HTTP library, and looks at nothing.
//!
//! ```sh
//! cargo bench --bench loopback                     # 2 GiB, three rounds
//! cargo bench --bench loopback -- --size 8 --rounds 5 --tls
//! cargo bench --bench loopback -- --chunk 1024 --window 4   # KiB, and in flight; otherwise as it comes
//! ```
//!
//! Servers and each way run in processes of their own; the ways take turns, so that what else the machine does meets
//! all of them. The server's data is generated and what is written to it is checked and dropped, so that its own work is
//! small. Told are the median rate, the processor seconds of the client for each GiB, and both as ratios to the pump.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt;
use snapferry::azure::{Client, LARGEST_CHUNK, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use snapferry::replicate::replicate;
use snapferry::step::{Settings, Step, Verify};
use snapferry_emulator::{Config, Emulator, Pattern};

/// The one that the command line has, for all ways.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const GIB: u64 = 1 << 30;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut size, mut rounds, mut tls) = (2, 3, false);
    let (mut chunk, mut window) = (LARGEST_CHUNK, Settings::default().copy.concurrency);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap();
        match &*argument {
            "--size" => size = value().parse().unwrap(),
            "--rounds" => rounds = value().parse().unwrap(),
            "--tls" => tls = true,
            "--chunk" => chunk = value().parse::<u64>().unwrap() << 10,
            "--window" => window = value().parse().unwrap(),
            "serve" => return serve(&value()),
            "pump" => return report(|| pump(&value(), &value(), chunk)),
            "copy" => return report(|| copy(&value(), &value(), chunk, window)),
            unknown => {
                panic!("{unknown} is unknown: --size GIB, --rounds N, --tls, --chunk KIB, --window N")
            }
        }
    }
    let given = ["--chunk".to_owned(), (chunk >> 10).to_string(), "--window".to_owned(), window.to_string()];
    compare(size * GIB, rounds, tls, &given);
}

/// Runs the ways in turns and prints a table.
fn compare(size: u64, rounds: usize, tls: bool, given: &[String]) {
    let server = Server::start(size, tls);
    let ways = ["pump", "copy"];
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        for (way, runs) in ways.iter().zip(&mut runs) {
            let target = server.target.replacen("/base?", &format!("/{way}-{round}?"), 1);
            let run = Run::of(&server, given, way, &target, size);
            println!("{way:8} {:6.2} GiB/s {:6.2} CPU s/GiB {:4} MiB", run.rate, run.cpu, run.peak >> 20);
            runs.push(run);
        }
    }
    let median = |runs: &[Run], of: fn(&Run) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!("\n| way | GiB/s | of the pump | CPU s/GiB | of the pump |\n|---|---|---|---|---|");
    let pump = (median(&runs[0], |run| run.rate), median(&runs[0], |run| run.cpu));
    for (way, runs) in ways.iter().zip(&runs) {
        let (rate, cpu) = (median(runs, |run| run.rate), median(runs, |run| run.cpu));
        println!("| {way} | {rate:.2} | {:.2} | {cpu:.2} | {:.2} |", rate / pump.0, cpu / pump.1);
    }
}

/// What one run took.
#[derive(Clone)]
struct Run {
    /// GiB a second.
    rate: f64,
    /// Processor seconds for each GiB.
    cpu: f64,
    /// Most memory, in bytes.
    peak: u64,
}

impl Run {
    fn of(server: &Server, given: &[String], way: &str, target: &str, size: u64) -> Self {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(given)
            .args([way, &server.source, target])
            .envs(server.certificate.as_ref().map(|path| ("SSL_CERT_FILE", path.path())))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{way} failed");
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let gib = size as f64 / GIB as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Self { rate: gib / numbers[0], cpu: numbers[1] / gib, peak: numbers[2] as u64 }
    }
}

/// The emulated regions, in a process of their own.
struct Server {
    child: Child,
    source: String,
    target: String,
    certificate: Option<tempfile::NamedTempFile>,
}

impl Server {
    fn start(size: u64, tls: bool) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", &format!("{size},{tls}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let (source, target) = (lines.next().unwrap(), lines.next().unwrap());
        let certificate = tls.then(|| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let pem: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            std::fs::write(file.path(), pem.join("\n")).unwrap();
            file
        });
        Self { child, source, target, certificate }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// The server's process: ends when its standard input does.
fn serve(what: &str) {
    let (size, tls) = what.split_once(',').unwrap();
    let (size, tls): (u64, bool) = (size.parse().unwrap(), tls.parse().unwrap());
    runtime().block_on(async {
        let emulator = Emulator::start(Config { tls, ..Config::default() }).await.unwrap();
        emulator.account("target").create_container("disks");
        emulator.account("target").set_sink(true);
        let disk = emulator.generate_disk("disk", size, Pattern::Dense, Pattern::None).unwrap();
        println!("{}", disk.snapshot().grant());
        println!(
            "{}",
            emulator.account("target").container_sas("disks", "base", "rcwdl", Duration::from_hours(1))
        );
        if let Some(pem) = emulator.certificate_pem() {
            println!("{}\n", pem.trim_end());
        }
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
    });
}

/// Runs `work` and prints its wall-clock seconds, processor seconds and peak memory.
fn report(work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!(
        "{} {} {}",
        begun.elapsed().as_secs_f64(),
        cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        peak * 1024
    );
}

/// The product, with everything that it checks.
fn copy(source: &str, target: &str, chunk: u64, window: usize) {
    let parse = |role, text: &str| Resource::parse(role, text, PlainHttp::LoopbackOnly).unwrap();
    let step = Step {
        source: parse(Role::Source, source),
        previous: None,
        target: parse(Role::Target, target),
        origin: None,
    };
    let client = Client::new(Timeouts::default(), RetryPolicy::default(), None).unwrap();
    let mut settings = Settings { verify: Verify::None, ..Settings::default() };
    (settings.plan.chunk, settings.copy.concurrency) = (chunk, window);
    let (progress, cancel) = Default::default();
    runtime().block_on(replicate(&step, &client, &settings, &progress, &cancel)).unwrap();
}

/// 16 chunks at a time, each reply handed to the next request as it comes.
fn pump(source: &str, target: &str, chunk: u64) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let http = &http;
    runtime().block_on(async move {
        let head = http.head(source).header("x-ms-version", "2021-12-02").send().await.unwrap();
        let size: u64 = head.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let create =
            http.put(target).header("x-ms-version", "2021-12-02").header("x-ms-blob-type", "PageBlob");
        let create =
            create.header("x-ms-blob-content-length", size.to_string()).header("content-length", "0");
        assert_eq!(create.send().await.unwrap().status().as_u16(), 201);
        futures::stream::iter((0..size).step_by(usize::try_from(chunk).unwrap()))
            .for_each_concurrent(16, |at| async move {
                let length = chunk.min(size - at);
                let range = format!("bytes={at}-{}", at + length - 1);
                let read = http.get(source).header("x-ms-version", "2021-12-02").header("x-ms-range", &range);
                let body = reqwest::Body::wrap_stream(read.send().await.unwrap().bytes_stream());
                let write = http.put(format!("{target}&comp=page")).header("x-ms-version", "2021-12-02");
                let write = write.header("x-ms-page-write", "update").header("x-ms-range", range);
                let written = write.header("content-length", length).body(body).send().await.unwrap();
                assert_eq!(written.status().as_u16(), 201);
            })
            .await;
    });
}
