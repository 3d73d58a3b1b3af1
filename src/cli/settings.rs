//! What was typed becomes what it means: checked once, before anything is done.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;

use super::args::{StepArgs, TargetArgs};
use super::options::{AccessArgs, ArmArgs, CopyingArgs, LeaseArgs, PlanningArgs};
use super::output::size;
use crate::azure::reply::scrub;
use crate::azure::{
    Arm, ArmEndpoint, Caps, Client, LARGEST_CHUNK, PlainHttp, Resource, RetryPolicy, Role, Timeouts,
};
use crate::base::lease::LeaseOptions;
use crate::chain::survey::LARGEST_BLOB;
use crate::copy::{CopyOptions, LEAST_MEMORY};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::PlanOptions;
use crate::price::PriceTable;
use crate::range::PAGE;
use crate::step::{Settings, Step};

/// Variables of the environment that mean something. Any other with our prefix is a mistake, and a mistake in
/// the environment of a scheduler is not seen by anybody.
const ENVIRONMENT: [&str; 8] = [
    "SNAPFERRY_SOURCE",
    "SNAPFERRY_PREVIOUS",
    "SNAPFERRY_TARGET",
    "SNAPFERRY_FROM",
    "SNAPFERRY_TO",
    "SNAPFERRY_DISK",
    "SNAPFERRY_LOGIN_TYPE",
    "SNAPFERRY_ARM_ENDPOINT",
];

/// Longer times are mistakes.
const HOUR: Duration = Duration::from_hours(1);

/// Longest URL that is looked at.
const LONGEST_URL: u64 = 16 << 10;

/// Refuses variables with our prefix that mean nothing.
pub(super) fn refuse_unknown_environment() -> Result<()> {
    let unknown = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .find(|name| name.starts_with("SNAPFERRY_") && !ENVIRONMENT.contains(&name.as_str()));
    match unknown {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorKind::Usage, "read the environment", format!("{name} is unknown"))
            .next(format!("unset it, or use one of {}", ENVIRONMENT.join(", ")))),
    }
}

/// The URLs of a step.
pub(super) fn step(args: &StepArgs) -> Result<Step> {
    // A variable that is set to nothing is as good as none; an argument that is empty is a mistake.
    let unset = std::env::var("SNAPFERRY_PREVIOUS").is_ok_and(|text| text.is_empty());
    let previous = args.previous.as_ref().filter(|text| !(unset && text.is_empty()));
    let inputs = [Some(&args.source), previous, Some(&args.target)];
    if inputs.iter().flatten().filter(|text| text.trim() == "-").count() > 1 {
        return Err(Error::new(
            ErrorKind::Usage,
            "read the URLs",
            "only one of them can come from standard input",
        )
        .next("put the others into files: --target @FILE"));
    }
    Ok(Step {
        source: resource(Role::Source, &args.source, &args.planning.access)?,
        previous: previous.map(|text| resource(Role::Previous, text, &args.planning.access)).transpose()?,
        target: resource(Role::Target, &args.target, &args.planning.access)?,
        origin: None,
    })
}

/// A URL as it is, from a file (`@FILE`) or from standard input (`-`).
pub(super) fn resource(role: Role, text: &str, access: &AccessArgs) -> Result<Resource> {
    let plain = if access.allow_http { PlainHttp::Anywhere } else { PlainHttp::LoopbackOnly };
    Resource::parse(role, &url_text(&role.to_string(), text)?, plain)
}

/// The text of a URL: as it is, out of a file (`@FILE`) or from standard input (`-`).
pub(super) fn url_text(role: &str, text: &str) -> Result<String> {
    let text = text.trim();
    if text == "-" {
        return read_url(role, "standard input", std::io::stdin());
    }
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    let file = std::fs::File::open(path).map_err(|error| {
        Error::new(ErrorKind::Usage, format!("read the {role} URL"), error.to_string())
            .on(scrub(path))
            .next("the file must exist and hold one URL; a URL itself is given without the @")
    })?;
    read_url(role, path, file)
}

fn read_url(role: &str, from: &str, input: impl Read) -> Result<String> {
    let mut text = String::new();
    let unreadable =
        |why: String| Error::new(ErrorKind::Usage, format!("read the {role} URL"), why).on(scrub(from));
    input
        .take(LONGEST_URL + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(error.to_string()).next("the URL must be plain text in UTF-8"))?;
    if text.len() as u64 > LONGEST_URL {
        return Err(unreadable("it is too long for a URL".to_owned()));
    }
    // As PowerShell and `az` without `-o tsv` write it: with a mark, in quotes.
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().map(|line| line.trim().trim_matches('"')).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) if line.starts_with("http") => Ok(line.to_owned()),
        (Some(_), None) => Err(unreadable("it holds no URL".to_owned()).next(
            "az snapshot grant-access names the field accessSAS, older versions accessSas: --query 'accessSAS || accessSas' -o tsv",
        )),
        (None, _) => Err(unreadable("it is empty".to_owned())),
        (Some(_), Some(_)) => Err(unreadable("it holds more than one line; one URL is expected".to_owned())),
    }
}

/// The client of a step.
pub(super) fn step_client(args: &PlanningArgs, step: &Step) -> Result<Client> {
    // A disk may demand a token besides its SAS, which is only known once it says so.
    let resources = [Some(&step.source), step.previous.as_ref(), Some(&step.target)];
    client(args, resources.into_iter().flatten().any(|resource| !resource.is_signed()))
}

/// A client that can sign in; where it will have to, it must be able to.
pub(super) fn client(args: &PlanningArgs, needs_sign_in: bool) -> Result<Client> {
    let timeouts =
        Timeouts { connect: args.connect_timeout, call: args.call_timeout, stall: args.stall_timeout };
    for (name, time) in [
        ("--connect-timeout", timeouts.connect),
        ("--call-timeout", timeouts.call),
        ("--stall-timeout", timeouts.stall),
    ] {
        if time.is_zero() || time > HOUR {
            let why = "it must be more than nothing and at most an hour";
            return Err(Error::new(ErrorKind::Usage, format!("use {name}"), why).next("leave it out"));
        }
    }
    let retry = RetryPolicy { budget: args.retry_for, ..RetryPolicy::default() };
    let tokens = match args.access.login_type.credential() {
        Ok(tokens) => Some(tokens),
        Err(error) if needs_sign_in => return Err(error),
        Err(_) => None,
    };
    Client::new(timeouts, retry, tokens)
}

/// A client of the resource manager that signs in as `client` does.
pub(super) fn arm(args: &ArmArgs, client: &Client, plain: PlainHttp) -> Result<Arm> {
    let endpoint = ArmEndpoint::parse(&args.arm_endpoint, plain)?;
    Ok(Arm::new(client.clone(), endpoint, Arc::default()))
}

/// The price table: out of a file, or the one that comes with the program.
pub(super) fn prices(path: Option<&str>) -> Result<PriceTable> {
    let Some(path) = path else { return Ok(PriceTable::default()) };
    let unusable = |why: String| {
        Error::new(ErrorKind::Usage, "read the price table", why)
            .on(scrub(path))
            .next("snapferry prices > prices.json, edit it, and give it as --prices prices.json")
    };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let table: PriceTable = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    if table.is_sensible() { Ok(table) } else { Err(unusable("a price in it is negative".to_owned())) }
}

/// The client of a command that only looks at the target.
pub(super) fn target_client(args: &TargetArgs, target: &Resource) -> Result<Client> {
    let tokens = if target.is_signed() { None } else { Some(args.access.login_type.credential()?) };
    let retry = RetryPolicy { budget: args.retry_for, ..RetryPolicy::default() };
    Client::new(Timeouts::default(), retry, tokens)
}

/// How the step is listed and planned.
pub(super) fn plan_settings(args: &PlanningArgs) -> Result<Settings> {
    let absurd = |name: &str, why: String| Err(Error::new(ErrorKind::Usage, format!("use {name}"), why));
    if args.chunk_size < PAGE || args.chunk_size > LARGEST_CHUNK || !args.chunk_size.is_multiple_of(PAGE) {
        let why = format!(
            "{} is not a multiple of {PAGE} bytes up to 4MiB, the most that one request may carry",
            args.chunk_size
        );
        return absurd("--chunk-size", why);
    }
    if let Gap(Some(gap)) = args.join_gap
        && gap > LARGEST_CHUNK
    {
        return absurd("--join-gap", format!("{gap} is more than a chunk"));
    }
    if !(crate::diff::SMALLEST_WINDOW..=LARGEST_BLOB).contains(&args.list_window) {
        let why =
            "less than 150MiB costs requests and gains nothing, and no blob has more than 8TiB".to_owned();
        return absurd("--list-window", why);
    }
    let mut settings = Settings {
        plan: PlanOptions { chunk: args.chunk_size, join_gap: args.join_gap.0 },
        ..Settings::default()
    };
    settings.listing.window = args.list_window;
    settings.caps = Caps { bytes_per_second: rate(args)?, requests_per_second: args.request_limit };
    Ok(settings)
}

/// How the step is copied.
pub(super) fn copy_settings(planning: &PlanningArgs, args: &CopyingArgs) -> Result<Settings> {
    let mut settings = plan_settings(planning)?;
    if args.memory < LEAST_MEMORY {
        let why = format!("less than {} is too little for the program and its chunks", size(LEAST_MEMORY));
        return Err(Error::new(ErrorKind::Usage, "use --memory", why).next("leave it out: 256MiB"));
    }
    if args.checkpoint_every > HOUR {
        let why = "after an interruption, all that was written since the last checkpoint is written again";
        return Err(Error::new(ErrorKind::Usage, "use --checkpoint-every", why).next("give at most 1h"));
    }
    settings.zero_run = args.zero_run.max(PAGE);
    settings.copy.concurrency = usize::from(args.concurrency);
    settings.copy.memory = CopyOptions::chunks_within(args.memory);
    settings.copy.checkpoint_every = args.checkpoint_every;
    settings.lease = lease(&args.lease)?;
    Ok(settings)
}

/// How the lease is taken.
pub(super) fn lease(args: &LeaseArgs) -> Result<LeaseOptions> {
    if args.wait_for_lease > HOUR {
        let why = "a lease that nobody renews lapses within a minute";
        return Err(Error::new(ErrorKind::Usage, "use --wait-for-lease", why).next("give at most 1h"));
    }
    Ok(LeaseOptions {
        seconds: args.lease_duration,
        wait: args.wait_for_lease,
        break_it: args.break_lease,
        id: None,
    })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rate(args: &PlanningArgs) -> Result<Option<u64>> {
    let Some(megabits) = args.cap_mbps else { return Ok(args.rate_limit) };
    if !megabits.is_finite() || !(0.01..=1e9).contains(&megabits) {
        return Err(Error::new(
            ErrorKind::Usage,
            "use --cap-mbps",
            "it is not a sensible number of megabits a second",
        ));
    }
    Ok(Some((megabits * 125_000.0) as u64))
}

/// A size such as `200MiB`, `4M` or `1048576`.
pub(super) fn parse_size(text: &str) -> std::result::Result<u64, String> {
    text.trim()
        .parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "expected a size such as 4MiB, 200MB or 1GiB".to_owned())
}

/// How wide a gap may be that is copied along; `None` for as wide as pays.
#[derive(Clone, Copy, Debug)]
pub struct Gap(pub(super) Option<u64>);

/// A size, or `auto`.
pub(super) fn parse_gap(text: &str) -> std::result::Result<Gap, String> {
    if text.trim() == "auto" {
        return Ok(Gap(None));
    }
    parse_size(text).map(|gap| Gap(Some(gap))).map_err(|error| format!("{error}, or auto"))
}

/// A rate such as `60MiB/s`; the `/s` may be left out.
pub(super) fn parse_rate(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let size = text.strip_suffix("/s").unwrap_or(text);
    match parse_size(size) {
        Ok(rate) if rate >= PAGE => Ok(rate),
        Ok(_) => Err(format!("expected at least {PAGE} bytes a second")),
        Err(_) => Err("expected a rate such as 60MiB/s".to_owned()),
    }
}

/// A number of requests such as `400/s`; the `/s` may be left out.
pub(super) fn parse_requests(text: &str) -> std::result::Result<u32, String> {
    let text = text.trim();
    match text.strip_suffix("/s").unwrap_or(text).trim().parse() {
        Ok(0) | Err(_) => Err("expected a number of requests a second such as 400/s".to_owned()),
        Ok(rate) => Ok(rate),
    }
}

/// A part such as `5%` or `0.5%`, as a fraction. Without its sign it could be meant as either.
pub(super) fn parse_percent(text: &str) -> std::result::Result<f64, String> {
    const EXPECTED: &str = "expected more than 0% and at most 100%, such as 5% or 0.5%";
    let number =
        text.trim().strip_suffix('%').ok_or("expected a percentage with its sign, such as 5% or 0.5%")?;
    let percent: f64 = number.trim().parse().map_err(|_| EXPECTED.to_owned())?;
    if percent > 0.0 && percent <= 100.0 { Ok(percent / 100.0) } else { Err(EXPECTED.to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_and_rates_are_read_as_people_write_them() {
        assert_eq!(parse_size("200MiB").unwrap(), 200 << 20);
        assert_eq!(parse_size("1 GB").unwrap(), 1_000_000_000);
        assert_eq!(parse_rate("60MiB/s").unwrap(), 60 << 20);
        assert_eq!(parse_rate("60MiB").unwrap(), 60 << 20);
        assert_eq!(parse_requests("400/s").unwrap(), 400);
        for bad in ["", "fast", "-1", "0/s", "10MiB/min", "1e99EiB"] {
            assert!(parse_rate(bad).is_err() && parse_requests(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_are_written_with_their_sign() {
        for (text, fraction) in [("5%", 0.05), ("0.5 %", 0.005), ("100%", 1.0), ("1e-3%", 1e-5)] {
            assert!((parse_percent(text).unwrap() - fraction).abs() < 1e-12, "{text}");
        }
        for bad in ["", "%", "5", "0.05", "0%", "-1%", "100.1%", "NaN%", "inf%", "5%%", "five%"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
