//! The calls, one file per family. A handler sees an authorised request with its whole body and answers at once; each
//! takes its blob's lock for as long as it decides and changes, so a call applies wholly or not at all.

mod block_list;
mod container;
mod copy_blob;
mod delete;
mod get_blob;
mod lease;
mod list;
mod metadata;
mod page_list;
mod put_blob;
mod put_block;
mod put_page;
mod put_page_from_url;
mod set_properties;
mod snapshot;

pub(crate) use self::put_page_from_url::UrlRanges;

use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::arm;
use crate::auth::Permit;
use crate::body::RequestBody;
use crate::call::{Call, Role};
use crate::clock::Moment;
use crate::conditions::{Conditions, Purpose};
use crate::config::Knobs;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::request::Request;
use crate::service::Service;
use crate::store::blob::{Blob, Content, Version};
use crate::store::lease::Lease;
use crate::store::pages::Pages;
use crate::store::{AccountEntry, ContainerEntry};

/// Answers an authorised request.
pub(crate) fn answer(
    service: &Service,
    request: &Request,
    permit: &Permit,
    body: &RequestBody,
) -> Outcome<Reply> {
    if request.role == Role::Management {
        return arm::answer(service, request, body);
    }
    let task = Task::new(service, request, permit)?;
    match request.call {
        Call::ListContainers => list::list_containers(&task),
        Call::CreateContainer => container::create(&task),
        Call::ContainerProperties => container::properties(&task),
        Call::DeleteContainer => container::delete(&task),
        Call::ListBlobs => list::list_blobs(&task),
        Call::PutBlob => put_blob::put_blob(&task, body),
        Call::PutBlock => put_block::put_block(&task, body),
        Call::PutBlockList => block_list::put_block_list(&task, body),
        Call::GetBlockList => block_list::get_block_list(&task),
        Call::PutPage => put_page::put_page(&task, body),
        Call::ClearPages => put_page::clear_pages(&task, body),
        Call::GetBlob | Call::HeadBlob => get_blob::get_blob(&task),
        Call::PageRanges | Call::PageRangesDiff => page_list::page_list(&task),
        Call::SetProperties => set_properties::set_properties(&task),
        Call::SetMetadata => metadata::set_metadata(&task),
        Call::SnapshotBlob => snapshot::snapshot_blob(&task),
        Call::Lease => lease::lease_blob(&task),
        Call::DeleteBlob => delete::delete_blob(&task),
        Call::PutPageFromUrl => put_page_from_url::put_page_from_url(&task, body),
        Call::CopyBlob => copy_blob::copy_blob(&task, body),
        Call::AbortCopy => copy_blob::abort_copy(&task),
        Call::IncrementalCopy => copy_blob::incremental_copy(&task),
        _ => Err(match request.method.as_str() {
            "GET" | "HEAD" | "PUT" | "DELETE" => ErrorCode::NotImplemented.into(),
            _ => ErrorCode::UnsupportedHttpVerb.into(),
        }),
    }
}

/// Checks a Put Page From URL as far as that can be done without its source, so that nothing is read in vain.
pub(crate) fn check_put_page_from_url(
    service: &Service,
    request: &Request,
    permit: &Permit,
) -> Outcome<UrlRanges> {
    put_page_from_url::check(&Task::new(service, request, permit)?)
}

/// The same for a Copy Blob.
pub(crate) fn check_copy_blob(service: &Service, request: &Request, permit: &Permit) -> Outcome<()> {
    copy_blob::check(&Task::new(service, request, permit)?)
}

/// One request being served.
pub(crate) struct Task<'a> {
    service: &'a Service,
    request: &'a Request,
    permit: &'a Permit,
    account: Arc<AccountEntry>,
    knobs: Knobs,
    now: Moment,
}

/// A blob that may be changed: its lease and the request's conditions allow it.
struct Writable<'b> {
    version: &'b mut Version,
    lease: &'b mut Lease,
}

impl Writable<'_> {
    /// Notes that the blob was changed, and begins the reply to that.
    fn changed(self, task: &Task<'_>, status: hyper::StatusCode) -> Reply {
        self.version.touch(task.service.clock.tick());
        if !matches!(task.request.call, Call::PutPage | Call::ClearPages | Call::PutPageFromUrl) {
            self.version.copy = None;
        }
        self.lease.written(task.now);
        Reply::new(status).with_validators(self.version)
    }

    fn pages(&mut self) -> Outcome<&mut Pages> {
        match &mut self.version.content {
            Content::Pages(pages) => Ok(pages),
            Content::Block(_) => Err(ErrorCode::InvalidBlobType.into()),
        }
    }
}

impl<'a> Task<'a> {
    fn new(service: &'a Service, request: &'a Request, permit: &'a Permit) -> Outcome<Task<'a>> {
        request.refuse_unserved_headers()?;
        let account = service.store.account(&request.target.account).ok_or(ErrorCode::ResourceNotFound)?;
        Ok(Task { service, request, permit, account, knobs: service.knobs(), now: service.clock.now() })
    }

    fn container(&self) -> Outcome<Arc<ContainerEntry>> {
        let container = self.account.container(&self.request.target.container);
        container.ok_or_else(|| ErrorCode::ContainerNotFound.into())
    }

    fn blob(&self) -> Outcome<Arc<Mutex<Blob>>> {
        let blob = self.container()?.blob(&self.request.target.blob);
        blob.ok_or_else(|| ErrorCode::BlobNotFound.into())
    }

    fn is_export(&self) -> bool {
        self.account.role == Role::DiskExport
    }

    fn lease_id(&self) -> Outcome<Option<Uuid>> {
        self.guid_header("x-ms-lease-id")
    }

    fn guid_header(&self, name: &str) -> Outcome<Option<Uuid>> {
        let Some(text) = self.request.header(name)? else { return Ok(None) };
        Uuid::try_parse(text).map(Some).map_err(|_| Failure::bad_header(name, text))
    }

    /// The state that a read addresses, if the request's lease id and conditions let it be read.
    fn readable<'b>(&self, blob: &'b Blob) -> Outcome<&'b Version> {
        let version = blob.version(self.request.snapshot()?).ok_or(ErrorCode::BlobNotFound)?;
        blob.lease.check_read(self.now, self.lease_id()?)?;
        Conditions::of(self.request)?.check(Purpose::Read, Some(version.validators()))?;
        Ok(version)
    }

    /// The present state, if the request's lease id and conditions let it be changed.
    fn writable<'b>(&self, blob: &'b mut Blob) -> Outcome<Writable<'b>> {
        self.refuse_snapshot()?;
        let version = blob.live.as_mut().ok_or(ErrorCode::BlobNotFound)?;
        blob.lease.check_write(self.now, self.lease_id()?)?;
        Conditions::of(self.request)?.check(Purpose::Write, Some(version.validators()))?;
        Ok(Writable { version, lease: &mut blob.lease })
    }

    /// Whether the request's permissions, conditions and lease id let it write a whole blob.
    fn check_overwrite(&self, blob: &Blob, conditions: &Conditions) -> Outcome<()> {
        if blob.live.is_some() {
            if !self.permit.has('w') {
                return Err(ErrorCode::AuthorizationPermissionMismatch.into());
            }
            if conditions.only_if_absent() {
                return Err(ErrorCode::BlobAlreadyExists.into());
            }
        }
        blob.lease.check_write(self.now, self.lease_id()?)?;
        conditions.check(Purpose::Write, blob.live.as_ref().map(Version::validators))
    }

    /// Refuses to change a snapshot.
    fn refuse_snapshot(&self) -> Outcome<()> {
        match self.request.snapshot()? {
            Some(_) => Err(ErrorCode::InvalidOperation.into()),
            None => Ok(()),
        }
    }
}
