//! `snapferry bench`: which settings are best here, and what limits. Also `bench compare` and `bench clean`.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::bench_args::{BenchArgs, BenchCommand, BenchCompareArgs, CleanArgs, SweepArgs};
use super::bench_emulator::EmulatedRegions;
use super::bench_text;
use super::options::AccessArgs;
use super::output::{self, Output};
use super::progress::{Look, Shown, watch};
use super::report::Form;
use super::settings;
use super::whole_file::WholeFile;
use crate::azure::reply::scrub;
use crate::azure::{Client, Destination, PlainHttp, RetryPolicy, Role, Timeouts};
use crate::bench::compare::{Comparison, told};
use crate::bench::estimate::estimate;
use crate::bench::ground::Ground;
use crate::bench::profile::Profile;
use crate::bench::result::{Environment, Pattern, Results, Setting};
use crate::bench::run::{Bound, Subject};
use crate::bench::sweep::{CONFIDENCE, Done, Sweep, Witness, measure};
use crate::error::{Error, ErrorKind, Result};
use crate::price::PriceTable;
use crate::report;

pub(super) const HELP: &str = "\
Without URLs it measures on two emulated regions on this machine: what the machine can do, not what Azure does. With
--source and --target it measures there: it writes to blobs of its own, snapferry-bench-<run>/..., never to one that
exists, and deletes them at the end, on an error and on Ctrl-C alike. Before it begins it says what that takes and costs,
and asks; where nobody can answer, it wants --yes.

Each cell of the sweep (window x chunk size x mode x pattern) is a real copy with all of its checks, run several times in
an order that is shuffled anew for each round. What counts is the time from the first chunk to the last.

Examples:
  snapferry bench --report bench.html --report bench.json
  snapferry bench --link latency=20ms,blob-bytes-per-second=60MiB,blob-requests-per-second=500
  snapferry bench --source @second.sas --previous @first.sas --target 'https://backups.../disks?<SAS>' --profile fast.toml
  snapferry copy --profile fast.toml --source ...
  snapferry bench compare monday.json tuesday.json --fail-if-slower 5%";

/// A document of more than this is none.
const LARGEST_DOCUMENT: u64 = 256 << 20;

pub(super) async fn bench(args: BenchArgs, output: Output, cancel: &CancellationToken) -> Result<()> {
    match args.command {
        Some(BenchCommand::Compare(args)) => compare(&args, output),
        Some(BenchCommand::Clean(args)) => super::unless(cancel, clean(&args, output)).await,
        None => sweep(&args.sweep, output, cancel).await,
    }
}

/// Where a benchmark takes place.
struct Place {
    subjects: Vec<Subject>,
    destination: Destination,
    client: Client,
    /// Runs for as long as this lives.
    _emulated: Option<EmulatedRegions>,
}

async fn sweep(args: &SweepArgs, output: Output, cancel: &CancellationToken) -> Result<()> {
    let prices = settings::prices(args.prices.as_deref())?;
    let files = Files::of(args)?;
    let is_emulated = args.is_emulated()?;
    let sizes = args.sizes(is_emulated)?;
    let place = if is_emulated { super::unless(cancel, emulated(args, sizes)).await? } else { own(args)? };
    let sweep = Sweep {
        windows: args.windows(),
        chunks: args.chunks()?,
        modes: args.modes(is_emulated),
        subjects: place.subjects.clone(),
        repeats: args.repeats,
        warm_up: args.warm_up,
        // Emulated disks are as large as a run.
        bound: Bound { bytes: (!is_emulated).then_some(sizes), time: args.duration },
        seed: args.seed,
    };
    sweep.check()?;
    let ground = Ground::new(&place.destination, &place.client)?;
    if !super::unless(cancel, agree(args, &sweep, &ground, &place.client, &prices, output)).await? {
        return Ok(());
    }
    if !is_emulated && output.progress {
        output::say(&format!(
            "writes to {}; bench clean --run {} deletes that, should this be killed",
            ground.blobs(),
            ground.run()
        ));
    }
    let environment = environment(args, is_emulated, sizes);
    let told = Arc::new(Mutex::new(Told { of: sweep.runs(), ..Told::default() }));
    let mut teller = Teller(Arc::clone(&told));
    let work = measure(&sweep, &ground, &place.client, environment, &mut teller, cancel);
    let shown = Shown { wanted: output.progress, lines: None };
    let Done { results, error, left } = watch(|| lock(&told).look(), shown, work).await;
    let is_complete = error.is_none();
    let mut left = left.map(|left| left.into_error(&ground));
    let error = error.or_else(|| left.take());
    if let Some(left) = left {
        output::say_error(&left);
        left.advice().into_iter().for_each(|next| output::say(&format!("  next:  {next}")));
    }
    match (results, error) {
        (Some(results), error) => {
            let written = files.write(&results, is_complete);
            output.verdict(&results, &bench_text::results(&results), error)?;
            written
        }
        (None, error) => error.map_or(Ok(()), Err),
    }
}

async fn emulated(args: &SweepArgs, size: u64) -> Result<Place> {
    let regions = EmulatedRegions::start(&args.patterns(), size, args.link.as_deref()).await?;
    let retry = RetryPolicy { budget: args.retry_for, ..RetryPolicy::default() };
    Ok(Place {
        subjects: regions.subjects.clone(),
        destination: regions.destination.clone(),
        client: Client::new(Timeouts::default(), retry, None)?,
        _emulated: Some(regions),
    })
}

fn own(args: &SweepArgs) -> Result<Place> {
    let read = |role: Role, text: &Option<String>| {
        let given = text.as_ref().filter(|text| !text.trim().is_empty());
        given.map(|text| settings::resource(role, text, &args.access)).transpose()
    };
    let inputs = [&args.source, &args.previous, &args.target];
    if inputs.iter().filter(|text| text.as_deref().is_some_and(|text| text.trim() == "-")).count() > 1 {
        return Err(Error::new(
            ErrorKind::Usage,
            "read the URLs",
            "only one of them can come from standard input",
        )
        .next("put the others into files: --target @FILE"));
    }
    let destination = destination(args.target.as_deref().unwrap_or_default(), &args.access)?;
    let Some(source) = read(Role::Source, &args.source)? else {
        return Err(Error::new(ErrorKind::Internal, "read the source URL", "it is not there"));
    };
    let previous = read(Role::Previous, &args.previous)?;
    let is_signed = source.is_signed() && destination.is_signed();
    let client = client(args.retry_for, &args.access, !is_signed)?;
    let subject = Subject { pattern: Pattern::Own, source, previous, is_kept: true };
    Ok(Place { subjects: vec![subject], destination, client, _emulated: None })
}

fn destination(text: &str, access: &AccessArgs) -> Result<Destination> {
    let plain = if access.allow_http { PlainHttp::Anywhere } else { PlainHttp::LoopbackOnly };
    Destination::parse(&settings::url_text("target", text)?, plain)
}

fn client(retry_for: Duration, access: &AccessArgs, needs_sign_in: bool) -> Result<Client> {
    let retry = RetryPolicy { budget: retry_for, ..RetryPolicy::default() };
    let tokens = match access.login_type.credential() {
        Ok(tokens) => Some(tokens),
        Err(error) if needs_sign_in => return Err(error),
        Err(_) => None,
    };
    Client::new(Timeouts::default(), retry, tokens)
}

/// Says what it takes, and asks where it may cost money. Whether it is to begin.
async fn agree(
    args: &SweepArgs,
    sweep: &Sweep,
    ground: &Ground,
    client: &Client,
    prices: &PriceTable,
    output: Output,
) -> Result<bool> {
    let is_emulated = args.source.as_ref().is_none_or(|source| source.trim().is_empty());
    let cells = sweep.settings();
    let forecast =
        if is_emulated { None } else { Some(estimate(sweep, &ground.blob(0)?, client, prices).await?) };
    if args.dry_run {
        let document = json!({
            "kind": "bench-plan", "cells": cells, "runs": sweep.runs(), "estimate": forecast, "prices": prices,
        });
        let forecast = forecast.as_ref().map(|forecast| (forecast, prices));
        output.result(&document, &bench_text::plan(&cells, sweep.runs(), forecast))?;
        return Ok(false);
    }
    let Some(forecast) = forecast else { return Ok(true) };
    let text = bench_text::cost(&forecast, prices);
    let asks = !args.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if output.progress || asks {
        output::say(&text);
    }
    if args.yes || (asks && is_answered_with_yes().await) {
        return Ok(true);
    }
    let why =
        if asks { "it was not agreed to" } else { "it may cost money, and nobody is there to be asked" };
    Err(Error::new(ErrorKind::Usage, "begin the benchmark", why)
        .next("look at what it takes with --dry-run, then give --yes"))
}

/// Asks on a thread of its own, which the runtime does not wait for.
async fn is_answered_with_yes() -> bool {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let _ = write!(std::io::stderr(), "begin? [y/N] ");
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        let _ = answer.send(read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes"));
    });
    answered.await.unwrap_or(false)
}

fn environment(args: &SweepArgs, emulated: bool, size: u64) -> Environment {
    Environment {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        date: Timestamp::now(),
        seconds: 0.0,
        emulated,
        size: Some(size),
        link: args.link.clone().unwrap_or_default(),
        seed: args.seed,
    }
}

/// What is shown while it runs.
#[derive(Default)]
struct Told {
    number: u64,
    of: u64,
    last: Option<(Setting, Option<f64>)>,
}

struct Teller(Arc<Mutex<Told>>);

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Witness for Teller {
    fn ran(&mut self, number: u64, of: u64, setting: Setting, rate: Option<f64>) {
        *lock(&self.0) = Told { number, of, last: Some((setting, rate)) };
    }
}

impl Told {
    fn look(&self) -> Look {
        let last = self.last.map_or_else(String::new, |(setting, rate)| {
            let rate =
                rate.map_or_else(|| "warm-up".to_owned(), |rate| format!("{:.1} MiB/s", rate / 1_048_576.0));
            format!(", last {}: {rate}", told(setting))
        });
        Look { line: format!("run {} of {}{last}", self.number, self.of), done: self.number, of: self.of }
    }
}

/// Where results go besides standard output.
struct Files {
    reports: Vec<(Form, WholeFile)>,
    profile: Option<WholeFile>,
}

impl Files {
    fn of(args: &SweepArgs) -> Result<Self> {
        let mut reports = Vec::new();
        for path in &args.report {
            reports.push((Form::of(path)?, WholeFile::at(path, "--report", "report")?));
        }
        if let Some(path) = args.profile.as_ref().filter(|path| args.report.contains(path)) {
            let why = format!("{} is to be the report, too", scrub(&path.display().to_string()));
            return Err(Error::new(ErrorKind::Usage, "use --profile", why));
        }
        let profile = args.profile.as_deref().map(|path| WholeFile::at(path, "--profile", "profile"));
        Ok(Self { reports, profile: profile.transpose()? })
    }

    /// Settings are kept only of what is complete.
    fn write(&self, results: &Results, is_complete: bool) -> Result<()> {
        for (form, file) in &self.reports {
            file.write(&match form {
                Form::Html => report::bench::html(results),
                Form::Markdown => report::bench::markdown(results),
                Form::Json => results.to_json()? + "\n",
            })?;
        }
        match (&self.profile, Profile::of(results)) {
            (Some(file), Some(profile)) if is_complete => file.write(&profile.to_toml(results)),
            _ => Ok(()),
        }
    }
}

fn compare(args: &BenchCompareArgs, output: Output) -> Result<()> {
    let mut read: Vec<(String, Results)> = Vec::new();
    for path in &args.results {
        read.push((scrub(&path.display().to_string()), document(path)?));
    }
    let Some(((old_name, old), others)) = read.split_first() else { return Ok(()) };
    let (mut texts, mut documents, mut slower) = (Vec::new(), Vec::new(), Vec::new());
    for (name, new) in others {
        let compared = Comparison::of(old, new, CONFIDENCE);
        if compared.cells.is_empty() {
            let why = format!("{name} has no cell that {old_name} has");
            return Err(Error::new(ErrorKind::Usage, "compare the benchmarks", why)
                .next("measure both with the same --concurrency, --chunk-size, --mode and --pattern"));
        }
        texts.push(bench_text::comparison(old_name, name, &compared));
        if args.fail_if_slower.is_some() && compared.tells_nothing() {
            let why = format!("every setting of {old_name} or of {name} was run once only: nothing is known");
            return Err(Error::new(ErrorKind::Usage, "tell whether anything became slower", why)
                .next("measure both again with --repeats 3 or more"));
        }
        let part = args.fail_if_slower.unwrap_or(1.0);
        slower.extend(compared.slower_by(part).into_iter().map(|what| format!("{name}: {what}")));
        documents.push(json!({ "old": old_name, "new": name, "comparison": compared }));
    }
    let error = (!slower.is_empty()).then(|| {
        Error::new(ErrorKind::Slower, "pass the benchmark", slower.join("; "))
            .next("measure both again on a quiet machine; if it stays so, find what changed")
    });
    let document = json!({ "kind": "bench-comparison", "comparisons": documents });
    output.verdict(&document, &texts.join("\n\n"), error)
}

fn document(path: &Path) -> Result<Results> {
    let name = scrub(&path.display().to_string());
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_DOCUMENT).read_to_string(&mut text))
        .map_err(|error| {
            Error::new(ErrorKind::Usage, "read a benchmark's results", error.to_string())
                .on(&name)
                .next("make one: snapferry bench --report results.json")
        })?;
    Results::from_json(text.trim_start_matches('\u{feff}')).map_err(|error| error.on(&name))
}

async fn clean(args: &CleanArgs, output: Output) -> Result<()> {
    let destination = destination(&args.target, &args.access)?;
    let client = client(RetryPolicy::default().budget, &args.access, !destination.is_signed())?;
    let ground = Ground::of_run(&destination, &client, &args.run)?;
    let deleted = ground.clean().await.map_err(|left| left.into_error(&ground))?;
    let container = ground.container();
    let text = match deleted {
        0 => format!("there was nothing of the benchmark {} in {container}", ground.run()),
        1 => format!("1 blob was deleted; nothing of the benchmark is left in {container}"),
        count => format!("{count} blobs were deleted; nothing of the benchmark is left in {container}"),
    };
    let document = json!({ "run": ground.run(), "container": container, "deleted": deleted, "left": [] });
    output.result(&document, &text)
}
