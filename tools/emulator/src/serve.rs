//! An emulator for people: prepared with accounts and disks, and run until it is told to end.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::config::Config;
use crate::disk::{Disk, DiskError};
use crate::emulator::{Emulator, StartError};
use crate::fault::Fault;
use crate::generate::Pattern;
use crate::quantity::parse_bytes;
use crate::random::Random;

/// How long the SAS of containers are valid.
const DAY: Duration = Duration::from_hours(24);

/// Changes are made in stretches of at most this many bytes.
const STRETCH: u64 = 64 * 1024;

/// Stretches written before the first snapshot of a made-up disk, and between two of them.
const FIRST_STRETCHES: u64 = 16;
const MORE_STRETCHES: u64 = 4;

const DISK_FORM: &str =
    "NAME=SIZE[,pattern=PATTERN[,changes=PATTERN]][,snapshots=N] or NAME=FILE[,snapshots=N]";

/// What to serve.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Address, seed, link, knobs and so on.
    pub config: Config,
    /// Faults that are set from the start.
    pub faults: Vec<Fault>,
    /// Storage accounts.
    pub accounts: Vec<AccountSpec>,
    /// Names of accounts that drop the pages they are sent, see `Account::set_sink`.
    pub sinks: Vec<String>,
    /// Managed disks, with snapshots to be read.
    pub disks: Vec<DiskSpec>,
}

/// A storage account. In text: `NAME`, or `NAME=CONTAINER,...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSpec {
    /// Its name, which must not begin with `md-`.
    pub name: String,
    /// The containers that it has from the start.
    pub containers: Vec<String>,
}

/// A managed disk. In text: `NAME=SIZE` or `NAME=FILE`, and optionally `,snapshots=N` after it; one snapshot otherwise.
/// `SIZE` is a number of bytes, or one with `KiB`, `MiB`, `GiB` or `TiB`; a file of such a name is written `./64MiB`.
///
/// With `NAME=SIZE,pattern=PATTERN`, and optionally `,changes=PATTERN`, the content is computed, see
/// `Emulator::generate_disk`: the first snapshot holds the one [`Pattern`], and each of the next differs by the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub content: DiskContent,
    /// How many snapshots of it are taken.
    pub snapshots: u32,
}

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskContent {
    /// So many bytes with a little data in it, which changes a little between two snapshots.
    MadeUp(u64),
    /// So many bytes that are computed.
    Generated {
        /// Bytes of the disk.
        bytes: u64,
        /// What the first snapshot holds.
        base: Pattern,
        /// What changes between two snapshots.
        changes: Pattern,
    },
    /// What a file holds: a fixed VHD if its name ends in `.vhd`, the raw disk otherwise. All snapshots are alike.
    File(PathBuf),
}

/// The text describes no account or no disk.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' does not have the form {form}")]
pub struct BadSpec {
    text: String,
    form: &'static str,
}

impl FromStr for AccountSpec {
    type Err = BadSpec;

    fn from_str(text: &str) -> Result<AccountSpec, BadSpec> {
        let (name, containers) = text.split_once('=').unwrap_or((text, ""));
        let containers: Vec<String> = match containers {
            "" => Vec::new(),
            names => names.split(',').map(str::to_owned).collect(),
        };
        let malformed = |name: &str| name.is_empty() || name.contains('/');
        if malformed(name) || name.starts_with("md-") || containers.iter().any(|name| malformed(name)) {
            return Err(BadSpec { text: text.to_owned(), form: "NAME or NAME=CONTAINER,..." });
        }
        Ok(AccountSpec { name: name.to_owned(), containers })
    }
}

impl FromStr for DiskSpec {
    type Err = BadSpec;

    fn from_str(text: &str) -> Result<DiskSpec, BadSpec> {
        let bad = || BadSpec { text: text.to_owned(), form: DISK_FORM };
        let (name, mut rest) = text.split_once('=').ok_or_else(bad)?;
        let (mut snapshots, mut pattern, mut changes) = (None, None, None);
        // A file's name may hold commas, too, so options are looked for from the end.
        while let Some((before, option)) = rest.rsplit_once(',') {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let pattern_of = |text: &str| {
                text.parse().map_err(|_| BadSpec { text: text.to_owned(), form: Pattern::FORMS })
            };
            match key {
                "snapshots" if snapshots.is_none() => snapshots = Some(value.parse().map_err(|_| bad())?),
                "pattern" if pattern.is_none() => pattern = Some(pattern_of(value)?),
                "changes" if changes.is_none() => changes = Some(pattern_of(value)?),
                _ => break,
            }
            rest = before;
        }
        if name.is_empty() || rest.is_empty() {
            return Err(bad());
        }
        let content = match (parse_bytes(rest), pattern, changes) {
            (Some(bytes), Some(base), changes) => {
                DiskContent::Generated { bytes, base, changes: changes.unwrap_or_default() }
            }
            (Some(bytes), None, None) => DiskContent::MadeUp(bytes),
            (None, None, None) => DiskContent::File(PathBuf::from(rest)),
            _ => return Err(bad()),
        };
        Ok(DiskSpec { name: name.to_owned(), content, snapshots: snapshots.unwrap_or(1) })
    }
}

/// The emulator cannot be served as wished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A disk cannot be made.
    #[error("disk '{name}': {error}")]
    Disk {
        /// The disk's name.
        name: String,
        /// Why.
        #[source]
        error: DiskError,
    },
    /// The thread that prepares the disks was lost, as it is when the runtime ends.
    #[error("the preparation of the disks was ended")]
    Ended,
}

/// Serves until `until` is there.
///
/// Gives `print` a line each for the endpoint, for each snapshot of a disk and for each container, the last word being a
/// URL: those of snapshots and containers with a SAS. Then comes the line `ready`. With `Config::tls`, the certificate comes
/// after the endpoint, in several lines at once. For management there are its endpoint and subscription, what
/// `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` are set to, and the ids of disks and snapshots.
///
/// ```text
/// endpoint http://127.0.0.1:10000
/// arm http://127.0.0.1:10000 0c2ab43e-6a4e-...
/// identity http://127.0.0.1:10000/msi/token 4e1b...
/// disk data id /subscriptions/0c2ab43e-6a4e-.../resourceGroups/disks/providers/Microsoft.Compute/disks/data
/// disk data snapshot 1 http://127.0.0.1:10000/md-1d4f/a1b2/abcd?snapshot=...&sv=2018-11-09&sr=bs&si=...&sig=...
/// disk data snapshot 1 id /subscriptions/0c2ab43e-6a4e-.../providers/Microsoft.Compute/snapshots/data-1
/// account target container disks http://127.0.0.1:10000/target/disks?sv=2021-12-02&se=...&sr=c&sp=racwdl&sig=...
/// ready
/// ```
///
/// # Errors
/// The address cannot be listened on, or a disk cannot be made.
pub async fn serve(
    options: ServeOptions,
    mut print: impl FnMut(String),
    until: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let ServeOptions { config, faults, accounts, sinks, disks } = options;
    let seed = config.seed;
    let emulator = Emulator::start(config).await?;
    print(format!("endpoint {}", emulator.endpoint()));
    if let Some(pem) = emulator.certificate_pem() {
        print(format!("certificate\n{}", pem.trim_end()));
    }
    let arm = emulator.arm();
    print(format!("arm {} {}", arm.endpoint(), arm.subscription()));
    let (identity_endpoint, identity_header) = arm.identity();
    print(format!("identity {identity_endpoint} {identity_header}"));
    // Files are read here, which takes its time.
    let prepared = tokio::task::spawn_blocking(move || {
        let lines = prepare_disks(&emulator, &disks, seed)?;
        Ok::<_, ServeError>((emulator, lines))
    });
    let (emulator, lines) = prepared.await.map_err(|_| ServeError::Ended)??;
    lines.into_iter().for_each(&mut print);
    for name in sinks {
        emulator.account(&name).set_sink(true);
    }
    for AccountSpec { name, containers } in accounts {
        let account = emulator.account(&name);
        for container in containers {
            account.create_container(&container);
            let url = account.container_sas(&container, "", "racwdl", DAY);
            // Without a blob, the path ends in a slash.
            print(format!("account {name} container {container} {}", url.replacen("/?", "?", 1)));
        }
    }
    for fault in faults {
        emulator.faults().add(fault);
    }
    print("ready".to_owned());
    until.await;
    emulator.stop().await;
    Ok(())
}

fn prepare_disks(emulator: &Emulator, disks: &[DiskSpec], seed: u64) -> Result<Vec<String>, ServeError> {
    let mut lines = Vec::new();
    let mut random = Random::new(seed);
    for DiskSpec { name, content, snapshots } in disks {
        let failed = |error| ServeError::Disk { name: name.clone(), error };
        let disk = match content {
            DiskContent::MadeUp(bytes) => emulator.create_disk(name, *bytes),
            DiskContent::Generated { bytes, base, changes } => {
                emulator.generate_disk(name, *bytes, *base, *changes)
            }
            DiskContent::File(path) if is_vhd(path) => emulator.load_vhd(name, path),
            DiskContent::File(path) => emulator.load_raw(name, path),
        };
        let disk = disk.map_err(failed)?;
        lines.push(format!("disk {name} id {}", disk.arm_id()));
        for number in 1..=*snapshots {
            if matches!(content, DiskContent::MadeUp(_)) {
                change(&disk, &mut random, number == 1).map_err(failed)?;
            }
            let snapshot = disk.snapshot();
            lines.push(format!("disk {name} snapshot {number} {}", snapshot.grant()));
            lines.push(format!("disk {name} snapshot {number} id {}", snapshot.arm_id()));
        }
    }
    Ok(lines)
}

fn is_vhd(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("vhd"))
}

/// Writes at some places, and gives one back except the first time.
fn change(disk: &Disk, random: &mut Random, first: bool) -> Result<(), DiskError> {
    let sectors = disk.len() / 512;
    if sectors == 0 {
        return Ok(());
    }
    let stretch = |random: &mut Random| {
        let start = random.below(sectors);
        let length = (1 + random.below(STRETCH / 512)).min(sectors - start);
        (start * 512, length * 512)
    };
    for _ in 0..if first { FIRST_STRETCHES } else { MORE_STRETCHES } {
        let (start, length) = stretch(random);
        let words = (0..length / 8).map(|_| random.next().to_le_bytes());
        disk.write(start, &words.flatten().collect::<Vec<u8>>())?;
    }
    if !first {
        let (start, length) = stretch(random);
        disk.clear(start, length)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn accounts_in_text() {
        let account = |text: &str| text.parse::<AccountSpec>();
        let spec = account("target=disks,other").unwrap();
        assert_eq!(
            (spec.name.as_str(), spec.containers.as_slice()),
            ("target", ["disks".into(), "other".into()].as_slice())
        );
        assert_eq!(account("target").unwrap().containers, Vec::<String>::new());
        for wrong in ["", "=disks", "md-1=disks", "target=a,,b", "a/b"] {
            assert!(account(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn disks_in_text() {
        let disk = |text: &str| text.parse::<DiskSpec>();
        let content = |text: &str| disk(text).map(|disk| (disk.content, disk.snapshots)).unwrap();
        assert_eq!(content("data=64MiB"), (DiskContent::MadeUp(64 << 20), 1));
        assert_eq!(content("data=512,snapshots=3"), (DiskContent::MadeUp(512), 3));
        assert_eq!(content("data=./64MiB"), (DiskContent::File("./64MiB".into()), 1));
        assert_eq!(content("os=/a=b,c.vhd,snapshots=0"), (DiskContent::File("/a=b,c.vhd".into()), 0));
        let dense = |changes| DiskContent::Generated { bytes: 8 << 40, base: Pattern::Dense, changes };
        let scattered = Pattern::Scattered { extents: 100_000, bytes: 4096 };
        let text = "big=8TiB,pattern=dense,changes=scattered:100000x4KiB,snapshots=2";
        assert_eq!(content(text), (dense(scattered), 2));
        assert_eq!(content("big=8TiB,snapshots=2,pattern=dense"), (dense(Pattern::None), 2));
        let wrong_sizes = ["", "data", "=1MiB", "data=", "data=1MiB,snapshots=", "data=1MiB,snapshots=-1"];
        let wrong_patterns = ["data=1MiB,pattern=", "data=1MiB,changes=dense", "data=a.vhd,pattern=dense"];
        for wrong in wrong_sizes.into_iter().chain(wrong_patterns) {
            assert!(disk(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            disk("data").unwrap_err().to_string(),
            format!("'data' does not have the form {DISK_FORM}")
        );
        let told = disk("big=1GiB,pattern=scattered,snapshots=2").unwrap_err().to_string();
        assert!(
            told.starts_with("'scattered' does not have the form none, dense, scattered:COUNTxSIZE"),
            "{told}"
        );
    }
}
