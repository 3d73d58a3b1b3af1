//! The page blob behind a disk or a full snapshot: no client sees it but through what is granted.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::auth::sas;
use crate::clock::Moment;
use crate::request::Target;
use crate::service::Service;
use crate::store::blob::{Blob, Content, ContentHeaders, Version};
use crate::store::pages::Pages;
use crate::store::{AccountEntry, Grant};
use crate::vhd::FOOTER;

/// The name of every exported blob.
const BLOB_NAME: &str = "abcd";

/// The sequence number that exported blobs show.
const SEQUENCE_NUMBER: u64 = 2;

/// The beginnings of the account names: of blobs whose snapshots are exported, and of blobs exported themselves.
pub(crate) const OF_INCREMENTAL: &str = "md-";
pub(crate) const OF_FULL: &str = "md-impexp-";

/// A blob in an export account of its own.
#[derive(Debug)]
pub(crate) struct HiddenBlob {
    account: Arc<AccountEntry>,
    target: Target,
    blob: Arc<Mutex<Blob>>,
}

impl HiddenBlob {
    /// A blob that holds these pages. The same `name` gives the same address.
    pub(crate) fn new(service: &Service, prefix: &str, name: &str, pages: Pages) -> HiddenBlob {
        let derived = |purpose| service.store.derived_text(purpose, name, 12);
        let (account_name, container) =
            (format!("{prefix}{}", derived("disk account")), derived("disk container"));
        let account = service.store.account_or_new(&account_name);
        let tick = service.clock.tick();
        account.add_container(&container, tick, BTreeMap::new());
        let blob = account.container(&container).map(|container| container.blob_or_new(BLOB_NAME));
        let blob = blob.unwrap_or_default();
        // The service shows the checksum that the blob had when it was first made, whatever its bytes are by now.
        let stale_md5 = service.store.derived_text("stale checksum", name, 16);
        let md5 = crate::checksum::md5([&bytes::Bytes::from(stale_md5)]);
        let content_headers =
            ContentHeaders { md5: Some(crate::checksum::md5_text(md5)), ..ContentHeaders::default() };
        blob.lock().live = Some(Version {
            content: Content::Pages(pages),
            content_headers,
            metadata: std::iter::once(("pirtag".to_owned(), "1".to_owned())).collect(),
            sequence_number: SEQUENCE_NUMBER,
            created: tick,
            etag: tick,
            last_modified: tick,
            incarnation: tick,
            copy: None,
        });
        let target = Target { account: account_name, container, blob: BLOB_NAME.to_owned() };
        HiddenBlob { account, target, blob }
    }

    /// Looks at the present pages, or changes them.
    pub(crate) fn with_pages<T>(&self, act: impl FnOnce(&mut Pages) -> T) -> T {
        let mut blob = self.blob.lock();
        match blob.live.as_mut().map(|version| &mut version.content) {
            Some(Content::Pages(pages)) => act(pages),
            // Nothing else is ever stored under an export account.
            _ => act(&mut Pages::new(FOOTER)),
        }
    }

    /// Takes a snapshot named `time`, and returns what it holds.
    pub(crate) fn take_snapshot(&self, time: Moment) -> Pages {
        let mut blob = self.blob.lock();
        let pages = blob.take_snapshot(time).and_then(|version| {
            version.touch(time);
            match &version.content {
                Content::Pages(pages) => Some(pages.clone()),
                Content::Block(_) => None,
            }
        });
        pages.unwrap_or_else(|| Pages::new(FOOTER))
    }

    /// Makes a snapshot, or without one the blob itself, hold something else.
    pub(crate) fn replace(&self, snapshot: Option<Moment>, pages: Pages) {
        let mut blob = self.blob.lock();
        let version = match snapshot {
            Some(time) => blob.snapshots.get_mut(&time),
            None => blob.live.as_mut(),
        };
        if let Some(version) = version {
            version.content = Content::Pages(pages);
        }
    }

    /// Removes a snapshot, or without one the blob itself.
    pub(crate) fn remove(&self, snapshot: Option<Moment>) {
        let mut blob = self.blob.lock();
        match snapshot {
            Some(time) => drop(blob.snapshots.remove(&time)),
            None => blob.live = None,
        }
    }

    /// Gives access to whoever has the URL that is returned.
    pub(crate) fn grant(&self, service: &Service, grant: Grant) -> String {
        let derived =
            |characters| service.store.derived_text("policy", &service.fresh_id().to_string(), characters);
        // A snapshot's policy has a long name, any other is a GUID.
        let policy = match grant.snapshot {
            Some(_) => derived(64),
            None => Uuid::try_parse(&derived(32)).unwrap_or_default().to_string(),
        };
        let url = self.url(service, grant.snapshot, &policy);
        self.account.grants.lock().insert(policy, grant);
        url
    }

    /// The URL with the SAS that names a policy.
    pub(crate) fn url(&self, service: &Service, snapshot: Option<Moment>, policy: &str) -> String {
        let query = sas::make_grant(&self.account, &self.target, snapshot, policy);
        format!("{}?{query}", self.address(service))
    }

    /// The URL without a SAS.
    pub(crate) fn address(&self, service: &Service) -> String {
        let Target { account, container, blob } = &self.target;
        format!("{}/{account}/{container}/{blob}", service.endpoint)
    }

    /// Ends such access to a snapshot, or without one to the blob itself.
    pub(crate) fn revoke(&self, snapshot: Option<Moment>, such: impl Fn(&Grant) -> bool) {
        self.account.grants.lock().retain(|_, grant| grant.snapshot != snapshot || !such(grant));
    }

    /// The policies that management gave for a snapshot, as far as they are alive.
    pub(crate) fn managed_policies(&self, snapshot: Option<Moment>, now: Moment) -> Vec<String> {
        let grants = self.account.grants.lock();
        let alive = grants
            .iter()
            .filter(|(_, grant)| grant.managed && grant.snapshot == snapshot && !grant.is_over(now));
        alive.map(|(policy, _)| policy.clone()).collect()
    }
}
