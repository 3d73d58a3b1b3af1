//! What the emulator holds: accounts, their containers, and blobs with a lock of their own.
//!
//! No lock is held while anything is sent or awaited; replies carry their own hold on the bytes that they send.

pub(crate) mod blob;
pub(crate) mod blocks;
pub(crate) mod diff;
mod ground;
pub(crate) mod lease;
mod page_data;
mod page_view;
pub(crate) mod pages;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::{Mutex, RwLock};
use sha2::Sha256;

use self::blob::{Blob, Content};
use crate::call::Role;
use crate::clock::Moment;
use crate::request::Target;

/// Name and key of the account that emulators of this service share by convention.
const WELL_KNOWN_ACCOUNT: &str = "devstoreaccount1";
const WELL_KNOWN_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// All accounts.
#[derive(Debug)]
pub(crate) struct Store {
    seed: u64,
    accounts: RwLock<BTreeMap<String, Arc<AccountEntry>>>,
}

/// An account of either role.
#[derive(Debug)]
pub(crate) struct AccountEntry {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) key: Vec<u8>,
    /// Whether it is an account of the premium kind.
    pub(crate) premium: AtomicBool,
    /// Whether page blobs that are made in it drop what they are sent.
    pub(crate) sink: AtomicBool,
    /// Whether there ever was such a blob.
    pub(crate) has_sinks: AtomicBool,
    pub(crate) containers: RwLock<BTreeMap<String, Arc<ContainerEntry>>>,
    /// The stored access policies of an export account, by the `si` that names them.
    pub(crate) grants: Mutex<BTreeMap<String, Grant>>,
}

/// What a grant lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Writing pages, for an upload.
    Write,
}

/// A granted access to a disk or a snapshot of one. The service keeps what a SAS would otherwise say itself.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// None for the blob itself, which is how full snapshots and disks are exported.
    pub(crate) snapshot: Option<Moment>,
    pub(crate) access: Access,
    pub(crate) lapses: Option<Moment>,
    /// Whether the management side gave it, so that it shows there.
    pub(crate) managed: bool,
    /// Whether the SAS alone does not open the snapshot.
    pub(crate) needs_bearer: bool,
}

impl Grant {
    pub(crate) fn is_over(&self, now: Moment) -> bool {
        self.lapses.is_some_and(|lapses| lapses <= now)
    }
}

/// A container.
#[derive(Debug)]
pub(crate) struct ContainerEntry {
    pub(crate) changed: Moment,
    pub(crate) metadata: BTreeMap<String, String>,
    blobs: RwLock<BTreeMap<String, Arc<Mutex<Blob>>>>,
}

impl Store {
    pub(crate) fn new(seed: u64) -> Store {
        Store { seed, accounts: RwLock::default() }
    }

    pub(crate) fn account(&self, name: &str) -> Option<Arc<AccountEntry>> {
        self.accounts.read().get(name).cloned()
    }

    pub(crate) fn account_or_new(&self, name: &str) -> Arc<AccountEntry> {
        let mut accounts = self.accounts.write();
        let make = || Arc::new(AccountEntry::new(name, self.seed));
        Arc::clone(accounts.entry(name.to_owned()).or_insert_with(make))
    }

    /// Where the part begins that a blob keeps of what it is sent, if it is a sink.
    pub(crate) fn sink_tail(&self, target: &Target) -> Option<u64> {
        let account = self.account(&target.account)?;
        // Most accounts have none, and a look at the blob takes its lock.
        if !account.has_sinks.load(Ordering::Relaxed) {
            return None;
        }
        let blob = account.container(&target.container)?.blob(&target.blob)?;
        let blob = blob.lock();
        match &blob.live.as_ref()?.content {
            Content::Pages(pages) if pages.is_sink() => Some(pages.sink_tail()),
            _ => None,
        }
    }

    /// Text that looks random and is the same for the same seed: lower-case hexadecimal, at most 64 characters.
    pub(crate) fn derived_text(&self, purpose: &str, name: &str, characters: usize) -> String {
        let mut text = String::new();
        for byte in derived_bytes(self.seed, purpose, name) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.truncate(characters);
        text
    }

    /// A number that looks random and is the same for the same seed.
    pub(crate) fn derived_seed(&self, purpose: &str, name: &str) -> u64 {
        let bytes = derived_bytes(self.seed, purpose, name);
        bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl AccountEntry {
    fn new(name: &str, seed: u64) -> AccountEntry {
        let key = if name == WELL_KNOWN_ACCOUNT {
            BASE64_STANDARD.decode(WELL_KNOWN_KEY).unwrap_or_default()
        } else {
            let half = |purpose| derived_bytes(seed, purpose, name);
            [half("key, first half"), half("key, second half")].concat()
        };
        AccountEntry {
            name: name.to_owned(),
            role: Role::of_account(name),
            key,
            premium: AtomicBool::new(false),
            sink: AtomicBool::new(false),
            has_sinks: AtomicBool::new(false),
            containers: RwLock::default(),
            grants: Mutex::default(),
        }
    }

    /// Page blobs that are made in it from now on drop what they are sent, or keep it.
    pub(crate) fn set_sink(&self, sink: bool) {
        self.sink.store(sink, Ordering::Relaxed);
        self.has_sinks.fetch_or(sink, Ordering::Relaxed);
    }

    /// The content of a blob that is about to be made here.
    pub(crate) fn adopt(&self, content: Content) -> Content {
        match content {
            Content::Pages(pages) if self.sink.load(Ordering::Relaxed) => Content::Pages(pages.into_sink()),
            // A copy of a sink's blob is none.
            other => other,
        }
    }

    pub(crate) fn container(&self, name: &str) -> Option<Arc<ContainerEntry>> {
        self.containers.read().get(name).cloned()
    }

    /// Adds a container. Returns whether there was none of that name.
    pub(crate) fn add_container(
        &self,
        name: &str,
        changed: Moment,
        metadata: BTreeMap<String, String>,
    ) -> bool {
        let mut containers = self.containers.write();
        let absent = !containers.contains_key(name);
        if absent {
            let container = ContainerEntry { changed, metadata, blobs: RwLock::default() };
            containers.insert(name.to_owned(), Arc::new(container));
        }
        absent
    }
}

impl ContainerEntry {
    pub(crate) fn blob(&self, name: &str) -> Option<Arc<Mutex<Blob>>> {
        self.blobs.read().get(name).cloned()
    }

    pub(crate) fn blob_or_new(&self, name: &str) -> Arc<Mutex<Blob>> {
        Arc::clone(self.blobs.write().entry(name.to_owned()).or_default())
    }

    /// The blobs whose names begin with `prefix`, in the order of their names, deleted ones included.
    pub(crate) fn blobs(&self, prefix: &str) -> Vec<(String, Arc<Mutex<Blob>>)> {
        let blobs = self.blobs.read();
        let from = blobs.range(prefix.to_owned()..);
        let matching = from.take_while(|(name, _)| name.starts_with(prefix));
        matching.map(|(name, blob)| (name.clone(), Arc::clone(blob))).collect()
    }
}

/// HMAC-SHA256; a key may have any length.
pub(crate) fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    // The only error is an invalid length of the key, which HMAC does not have.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn derived_bytes(seed: u64, purpose: &str, name: &str) -> Vec<u8> {
    hmac_sha256(&seed.to_le_bytes(), &format!("{purpose}\n{name}"))
}
