//! Where a benchmark writes: blobs of its own in a container, which it deletes again.
//!
//! **Names.** `snapferry-bench-<run>/<number>`, the run being a random number of 128 bits: no such blob exists, and a full
//! copy refuses a blob that does. Records lie beside their blob and begin with the same name.
//!
//! **Deleting.** Whatever the container lists under the run's name is deleted, with its snapshots and in spite of a lease
//! that a run which broke off could not give back. That the container can be listed is found out before the first write;
//! that blobs can be deleted, after the first run.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::azure::crc64::Crc64;
use crate::azure::failure::CallError;
use crate::azure::{Caps, Client, Destination, Endpoint, Pace, PageBlob, Resource, Role};
use crate::base::Base;
use crate::copy::frontier::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::prepare::prepare;
use crate::progress::Progress;
use crate::range::{PAGE, PageRange};
use crate::step::{Settings, Step};

/// What all names begin with.
const PREFIX: &str = "snapferry-bench-";
/// Digits of a run's name, hexadecimal.
const RUN_DIGITS: usize = 32;

/// Where one benchmark writes.
#[derive(Debug)]
pub struct Ground {
    destination: Destination,
    run: String,
    /// Names the container, for lists; never written to.
    anchor: PageBlob,
}

/// Something that is still there.
#[derive(Debug)]
pub struct Left {
    /// The names of blobs, as far as they are known.
    pub blobs: Vec<String>,
    /// Why they could not be deleted.
    pub error: Error,
}

impl Ground {
    /// The ground of a new benchmark.
    ///
    /// # Errors
    /// When the URL is for one blob alone, so that no other can be written.
    pub fn new(destination: &Destination, client: &Client) -> Result<Self> {
        Self::of_run(destination, client, &uuid::Uuid::new_v4().simple().to_string())
    }

    /// The ground of a benchmark that was.
    ///
    /// # Errors
    /// As above, and when `run` is no name of one: a name that is cut short must not stand for others.
    pub fn of_run(destination: &Destination, client: &Client, run: &str) -> Result<Self> {
        // As the blobs are called, too.
        let run = run.strip_prefix(PREFIX).unwrap_or(run).trim_end_matches('/');
        let is_run = run.len() == RUN_DIGITS && run.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_run {
            let why = format!("'{run}' is not the name of one: {RUN_DIGITS} hexadecimal digits");
            return Err(Error::new(ErrorKind::Usage, "find what a benchmark wrote", why)
                .next(format!("the blobs are called {PREFIX}<run>/...")));
        }
        let resource = blob_in(destination, &format!("{PREFIX}{run}/0"))?;
        let anchor = PageBlob::new(Endpoint::new(
            resource,
            client,
            Arc::new(Pace::new(Caps::default())),
            Arc::default(),
        ))?;
        Ok(Self { destination: destination.clone(), run: run.to_owned(), anchor })
    }

    /// The name of the benchmark.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The container, without its query.
    pub fn container(&self) -> String {
        self.anchor.resource().container().map(|(url, _)| url.to_string()).unwrap_or_default()
    }

    /// The blob of one run.
    pub fn blob(&self, number: u64) -> Result<Resource> {
        blob_in(&self.destination, &self.name(number))
    }

    fn name(&self, number: u64) -> String {
        format!("{PREFIX}{}/{number}", self.run)
    }

    /// Finds out whether the container can be listed: without that, what was written could not be found again.
    pub async fn check(&self) -> Result<()> {
        self.anchor.names_beside(&self.prefix()).await.map_err(explain)?;
        Ok(())
    }

    /// Deletes the blob of one run and its records.
    pub async fn delete(&self, number: u64) -> std::result::Result<(), Left> {
        let name = self.name(number);
        let records = format!("{name}.records/");
        self.delete_all(&name, |found| found == name || found.starts_with(&records)).await.map(|_| ())
    }

    /// Deletes all that this benchmark wrote.
    pub async fn clean(&self) -> std::result::Result<usize, Left> {
        let prefix = self.prefix();
        self.delete_all(&prefix, |found| found.starts_with(&prefix)).await
    }

    /// What its blobs are called, for people.
    pub fn blobs(&self) -> String {
        format!("{}/{}...", self.container(), self.prefix())
    }

    fn prefix(&self) -> String {
        format!("{PREFIX}{}/", self.run)
    }

    async fn delete_all(
        &self,
        prefix: &str,
        is_ours: impl Fn(&str) -> bool,
    ) -> std::result::Result<usize, Left> {
        let names = match self.anchor.names_beside(prefix).await {
            Ok(names) => names,
            Err(error) => return Err(Left { blobs: vec![format!("{prefix}*")], error: explain(error) }),
        };
        let names: BTreeSet<String> = names.into_iter().filter(|name| is_ours(name)).collect();
        let count = names.len();
        let (mut left, mut first) = (Vec::new(), None);
        for name in names {
            if let Err(error) = self.delete_one(&name).await {
                left.push(name);
                first = first.or(Some(error));
            }
        }
        match first {
            None => Ok(count),
            Some(error) => Err(Left { blobs: left, error }),
        }
    }

    async fn delete_one(&self, name: &str) -> Result<()> {
        let Some(blob) = self.anchor.neighbour(name)? else { return Err(one_blob_only()) };
        let deleted = match blob.delete_with_snapshots(None).await {
            Err(error) if error.code() == "LeaseIdMissing" => {
                blob.break_lease().await?;
                blob.delete_with_snapshots(None).await
            }
            deleted => deleted,
        };
        match deleted {
            // The reply to an attempt before may have been lost.
            Err(error) if error.status() == Some(404) => Ok(()),
            Err(error) => Err(explain(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Makes the base blob of a run that copies a difference: it says that it is clean at the previous snapshot, and holds
    /// nothing of it. A difference reads nothing of what it does not write, so that copying into it is the same work; the
    /// gigabytes of the previous snapshot need not cross a border for it. No disk could be made of such a blob: it lives as
    /// long as its run and under the benchmark's name.
    pub async fn pretend(
        &self,
        previous: &Resource,
        target: &Resource,
        client: &Client,
        settings: &Settings,
    ) -> Result<()> {
        let step = Step {
            source: previous.in_role(Role::Source),
            previous: None,
            target: target.clone(),
            origin: None,
        };
        let prepared = prepare(&step, client, settings, &Progress::default()).await?;
        let length = prepared.opening.length;
        let mut base = Base::create(&prepared.target, &prepared.opening).await?;
        let sealed = async {
            base.begin(&prepared.opening, Checkpoint::default()).await?;
            // A difference need not name the footer, and it is looked for before the seal.
            if let Some(footer) = &prepared.survey.footer
                && let Ok(last) = PageRange::new(length.saturating_sub(PAGE), length)
            {
                let fence = base.fence();
                base.blob().put_pages(last, vec![footer.clone().into()], Crc64::of(footer), &fence).await?;
            }
            base.seal(Checkpoint { offset: length, ..Checkpoint::default() }).await
        };
        let sealed = sealed.await;
        base.farewell().await;
        sealed.map(drop)
    }
}

fn explain(error: CallError) -> Error {
    let error = Error::from(error);
    match error.kind() {
        ErrorKind::PermissionMissing | ErrorKind::AccessDenied => error.next(
            "a benchmark needs a SAS of the container, or a sign-in, that may read, write, create, list and delete (rwcdl)",
        ),
        _ => error,
    }
}

fn blob_in(destination: &Destination, name: &str) -> Result<Resource> {
    match destination {
        Destination::Container(_) => destination.blob(name),
        Destination::Blob(blob) => blob.beside(name).ok_or_else(one_blob_only),
    }
}

fn one_blob_only() -> Error {
    Error::new(
        ErrorKind::Usage,
        "write blobs of the benchmark's own",
        "the SAS of the target is for one blob alone",
    )
    .next("give --target the URL of a container, with a SAS that may read, write, create, list and delete (rwcdl)")
}

impl Left {
    /// The error as it is told: what is left, and how it is deleted.
    pub fn into_error(self, ground: &Ground) -> Error {
        let count = self.blobs.len();
        let named: Vec<&str> = self.blobs.iter().take(5).map(String::as_str).collect();
        let more =
            if count > named.len() { format!(" and {} more", count - named.len()) } else { String::new() };
        let why = format!("{}; left: {}{more}", self.error.why(), named.join(", "));
        Error::new(self.error.kind(), "delete what the benchmark wrote", why)
            .on(ground.container())
            .next(format!("snapferry bench clean --run {} --target '<URL of the container>'", ground.run()))
    }
}
