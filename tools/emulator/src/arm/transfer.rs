//! Access to a disk itself: the blob behind its SAS, to read the disk from or to upload it to.
//!
//! The disk's content stays where it is. A SAS for reading opens a copy of it, as it was when access was asked for; one for
//! writing opens a blob that becomes the content when access is ended and it ends with a footer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::registry::State;
use super::resource::DiskEntry;
use crate::clock::Moment;
use crate::disk::{HiddenBlob, OF_FULL};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::service::Service;
use crate::store::pages::Pages;
use crate::store::{Access, Grant};
use crate::vhd::{BadFooter, FOOTER, Footer};

/// What can change of a disk besides its content.
#[derive(Debug)]
pub(crate) struct DiskState {
    pub(super) tags: BTreeMap<String, String>,
    stage: Stage,
    /// What a SAS for the disk opens, once there was one.
    transfer: Option<Arc<HiddenBlob>>,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It was not begun, or it ended with something that is no VHD. What was uploaded so far is kept.
    Awaited,
    /// Access to write was given, whether or not it has lapsed, and it was not ended.
    UnderWay,
    /// It is over, or there never was one.
    Filled,
}

impl DiskState {
    pub(super) fn new(tags: BTreeMap<String, String>, is_upload: bool) -> DiskState {
        let stage = if is_upload { Stage::Awaited } else { Stage::Filled };
        DiskState { tags, stage, transfer: None }
    }
}

impl DiskEntry {
    pub(crate) fn stage(&self) -> Stage {
        self.state.lock().stage
    }

    /// `diskState`.
    pub(crate) fn state_text(&self, now: Moment) -> &'static str {
        match self.stage() {
            Stage::Awaited => "ReadyToUpload",
            Stage::UnderWay => "ActiveUpload",
            Stage::Filled if self.has_managed_access(now) => "ActiveSAS",
            Stage::Filled => "Unattached",
        }
    }

    /// Refuses what needs the disk's content while there is none.
    pub(super) fn check_filled(&self) -> Outcome<()> {
        if self.stage() == Stage::Filled {
            return Ok(());
        }
        let text = format!("The disk '{}' cannot be used until its upload is complete.", self.id.name);
        Err(Failure::from(ErrorCode::OperationNotAllowed).saying(text))
    }

    /// Disk and footer; of an upload that is not complete, what has arrived.
    pub(crate) fn with_image<T>(&self, act: impl FnOnce(&mut Pages) -> T) -> T {
        let uploaded = {
            let state = self.state.lock();
            state.transfer.clone().filter(|_| state.stage != Stage::Filled)
        };
        uploaded.as_ref().unwrap_or(&self.hidden).with_pages(act)
    }

    /// The URLs that management gave and that still open the disk.
    pub(super) fn managed_urls(&self, service: &Service) -> Vec<String> {
        let Some(transfer) = self.state.lock().transfer.clone() else { return Vec::new() };
        let policies = transfer.managed_policies(None, service.clock.now());
        policies.iter().map(|policy| transfer.url(service, None, policy)).collect()
    }

    pub(crate) fn has_managed_access(&self, now: Moment) -> bool {
        let transfer = self.state.lock().transfer.clone();
        transfer.is_some_and(|transfer| !transfer.managed_policies(None, now).is_empty())
    }

    /// Ends the access that was given, and nothing else: an upload goes on with another SAS.
    pub(super) fn revoke_managed(&self) {
        if let Some(transfer) = &self.state.lock().transfer {
            transfer.revoke(None, |_| true);
        }
    }

    /// Gives access to the disk in the name of management.
    pub(super) fn grant(
        &self,
        service: &Service,
        registry: &mut State,
        access: Access,
        lapses: Moment,
    ) -> String {
        let mut state = self.state.lock();
        let transfer = state.transfer.get_or_insert_with(|| {
            let address = registry.next_address(&self.id.name);
            let length = self.hidden.with_pages(|pages| pages.len());
            Arc::new(HiddenBlob::new(service, OF_FULL, &address, Pages::new(length)))
        });
        let transfer = Arc::clone(transfer);
        match access {
            // Who reads already goes on reading what there was.
            Access::Read if !transfer.managed_policies(None, service.clock.now()).is_empty() => {}
            Access::Read => transfer.replace(None, self.hidden.with_pages(Pages::freeze)),
            Access::Write => state.stage = Stage::UnderWay,
        }
        let grant =
            Grant { snapshot: None, access, lapses: Some(lapses), managed: true, needs_bearer: false };
        transfer.grant(service, grant)
    }

    /// Ends the access that was given. An upload is over then: if it is a VHD, the disk is made of it, and if not, it can be
    /// begun again where it was.
    pub(super) fn end_access(&self, service: &Service) -> Outcome<()> {
        let mut state = self.state.lock();
        let Some(transfer) = state.transfer.clone() else { return Ok(()) };
        transfer.revoke(None, |_| true);
        if state.stage != Stage::UnderWay {
            return Ok(());
        }
        state.stage = Stage::Awaited;
        let pages = transfer.with_pages(|pages| pages.clone());
        check_vhd(&pages).map_err(|bad| invalid_vhd(&transfer.address(service), bad))?;
        self.hidden.replace(None, pages);
        transfer.remove(None);
        state.stage = Stage::Filled;
        state.transfer = None;
        Ok(())
    }

    /// Ends all access, and removes what it opened.
    pub(super) fn end_transfer(&self) {
        if let Some(transfer) = self.state.lock().transfer.take() {
            transfer.revoke(None, |_| true);
            transfer.remove(None);
        }
    }
}

/// Whether pages end with the footer of a fixed VHD of their length.
pub(super) fn check_vhd(pages: &Pages) -> Result<(), BadFooter> {
    let bytes = pages.len().checked_sub(FOOTER).ok_or(BadFooter::Cookie)?;
    let mut footer = [0; 512];
    footer.copy_from_slice(&pages.view(bytes..bytes + FOOTER).to_vec());
    Footer::parse(&footer, bytes).map(drop)
}

/// 409 for what was to become a disk; the service names the blob, and calls the disk by the blob's name.
pub(super) fn invalid_vhd(url: &str, bad: BadFooter) -> Failure {
    let name = url.rsplit('/').next().unwrap_or_default();
    let text = match bad {
        BadFooter::Cookie => format!(
            "The specified cookie value in VHD footer indicates that disk '{name}' with blob {url} is not a \
             supported VHD. Disk is expected to have cookie value 'conectix'."
        ),
        other => format!("The disk '{name}' with blob {url} is not a supported VHD: {other}."),
    };
    Failure::from(ErrorCode::InvalidVhd).saying(text)
}
