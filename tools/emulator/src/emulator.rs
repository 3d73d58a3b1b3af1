//! A running emulator.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::account::Account;
use crate::arm::{Arm, DEFAULT_GROUP};
use crate::config::{Config, Knobs};
use crate::counters::Counters;
use crate::disk::{Disk, DiskError};
use crate::fault::Faults;
use crate::generate::Pattern;
use crate::journal::{RequestRecord, Stats};
use crate::link::Link;
use crate::server;
use crate::service::Service;
use crate::tls;

/// An emulator cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Whatever is kept here is not protected: it stays on this machine.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// The address is taken, or cannot be used.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// `Config::tls` was asked for.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[source] Box<dyn Error + Send + Sync>),
}

/// A running emulator. Dropping it ends it and its connections; what it held is gone, except through `Disk`s and
/// `Account`s that are still there.
#[derive(Debug)]
pub struct Emulator {
    service: Arc<Service>,
    address: SocketAddr,
    acceptor: JoinHandle<()>,
    certificate_pem: Option<String>,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.service.late.abort();
    }
}

impl Emulator {
    /// Starts an emulator on the present Tokio runtime.
    ///
    /// # Errors
    /// The address is not on loopback, or cannot be listened on; with `Config::tls`, no certificate can be made.
    pub async fn start(config: Config) -> Result<Emulator, StartError> {
        if !config.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(config.listen));
        }
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let identity = config.tls.then(tls::self_signed).transpose().map_err(StartError::Certificate)?;
        let scheme = if identity.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{address}");
        let service = Service::new(endpoint, config.seed, config.knobs, config.link, config.record);
        let service = Arc::new(service);
        let (tls, certificate_pem) =
            identity.map(|identity| (identity.acceptor, identity.certificate_pem)).unzip();
        let acceptor = tokio::spawn(server::accept(listener, Arc::clone(&service), tls));
        Ok(Emulator { service, address, acceptor, certificate_pem })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate with which HTTPS is served, for clients to trust; none without `Config::tls`. It is valid for
    /// `127.0.0.1`, `::1` and `localhost`, and is another one with each start.
    pub fn certificate_pem(&self) -> Option<String> {
        self.certificate_pem.clone()
    }

    /// `http://127.0.0.1:PORT`, or `https` with `Config::tls`.
    pub fn endpoint(&self) -> String {
        self.service.endpoint.clone()
    }

    /// The storage account of that name, made if needed. A name that begins with `md-` makes no useful account: the
    /// emulator takes it for a disk export.
    pub fn account(&self, name: &str) -> Account {
        Account::new(Arc::clone(&self.service), name)
    }

    /// The management side: resources, and who may ask for a SAS.
    pub fn arm(&self) -> Arm {
        Arm::new(Arc::clone(&self.service))
    }

    /// Makes a disk that holds nothing, in the resource group `disks`.
    ///
    /// # Errors
    /// The name is taken, or `bytes` is not a multiple of 512.
    pub fn create_disk(&self, name: &str, bytes: u64) -> Result<Disk, DiskError> {
        self.create_disk_in(DEFAULT_GROUP, name, bytes)
    }

    /// Makes a disk that holds nothing, in a resource group that is made if needed.
    ///
    /// # Errors
    /// The name is taken there, or `bytes` is not a multiple of 512.
    pub fn create_disk_in(&self, resource_group: &str, name: &str, bytes: u64) -> Result<Disk, DiskError> {
        Disk::create(Arc::clone(&self.service), resource_group, name, bytes)
    }

    /// Makes a disk in the resource group `disks` whose content is computed and never stored, so it may be as large as a
    /// disk can be: its first snapshot holds `base`, and each of the next differs from the one before by `changes`, in
    /// other places every time. What a page holds depends on where it is and on the snapshot for which it was written.
    /// It can be used as any other disk; blocks of 64 KiB that somebody writes are stored from then on.
    ///
    /// # Errors
    /// The name is taken, `bytes` is not a multiple of 64 KiB, or a pattern does not fit.
    pub fn generate_disk(
        &self,
        name: &str,
        bytes: u64,
        base: Pattern,
        changes: Pattern,
    ) -> Result<Disk, DiskError> {
        Disk::generate(Arc::clone(&self.service), DEFAULT_GROUP, name, bytes, (base, changes))
    }

    /// Deletes the disk of a name in the resource group `disks`, see `Disk::delete`. Returns whether there was one.
    pub fn delete_disk(&self, name: &str) -> bool {
        let mut state = self.service.arm.lock();
        let Some(disk) = state.disk_in_default_group(name) else { return false };
        state.remove_disk(&disk);
        true
    }

    /// Makes a disk with the content of a raw file; sectors of zeros hold nothing. Blocks while it reads.
    ///
    /// # Errors
    /// The name is taken, or the file cannot be read or is not made of whole sectors.
    pub fn load_raw(&self, name: &str, path: &Path) -> Result<Disk, DiskError> {
        Disk::load_raw(Arc::clone(&self.service), DEFAULT_GROUP, name, path)
    }

    /// Makes a disk from a fixed VHD, whose footer is kept byte for byte. Blocks while it reads.
    ///
    /// # Errors
    /// The name is taken, or the file cannot be read or is no fixed VHD.
    pub fn load_vhd(&self, name: &str, path: &Path) -> Result<Disk, DiskError> {
        Disk::load_vhd(Arc::clone(&self.service), DEFAULT_GROUP, name, path)
    }

    /// Changes behaviour from the next request on.
    pub fn set_knobs(&self, knobs: Knobs) {
        self.service.set_knobs(knobs);
    }

    /// Changes latency, bandwidth and limits from the next request on.
    pub fn set_link(&self, link: Link) {
        self.service.set_link(link);
    }

    /// The faults that are set, to be added to and cleared.
    pub fn faults(&self) -> Faults {
        Faults::new(Arc::clone(&self.service))
    }

    /// Ends it, and returns when its port is free again and all connections are closed.
    pub async fn stop(mut self) {
        self.acceptor.abort();
        // It was cancelled, which is what this waits for.
        let _ = (&mut self.acceptor).await;
    }

    /// Moves the clock that leases, SAS, snapshots and dates go by.
    pub fn advance_clock(&self, by: Duration) {
        self.service.clock.advance(by);
    }

    /// Counts since the start, or since [`Emulator::reset_counters`].
    pub fn stats(&self) -> Stats {
        self.service.journal.stats()
    }

    /// The same counts, and those of connections and of requests in flight. Scripts get them with `GET /-/counters`.
    pub fn counters(&self) -> Counters {
        Counters::of(&self.service)
    }

    /// Begins all counts anew, and the peaks with what is there now. Returns what was counted before.
    pub fn reset_counters(&self) -> Counters {
        Counters::reset(&self.service)
    }

    /// The latest requests, oldest first, at most 100,000; none unless `Config::record` is set.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.service.journal.records()
    }
}
