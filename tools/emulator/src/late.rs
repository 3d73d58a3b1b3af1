//! Writes that are applied when nobody waits for them any more.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::auth::Permit;
use crate::body::RequestBody;
use crate::exchange::{Noted, note};
use crate::handlers;
use crate::reply::Reply;
use crate::request::Request;
use crate::service::Service;

/// A write to be applied later, as a request of its own.
#[derive(Debug)]
pub(crate) struct LateWrite {
    pub(crate) request: Arc<Request>,
    pub(crate) permit: Permit,
    pub(crate) body: RequestBody,
    /// The name of the fault that makes it late.
    pub(crate) fault: &'static str,
}

/// The writes that are under way.
#[derive(Debug, Default)]
pub(crate) struct LateWrites(Mutex<JoinSet<()>>);

impl LateWrites {
    pub(crate) fn add(&self, service: &Arc<Service>, after: Duration, write: LateWrite) {
        // The service holds its late writes, so they must not hold it.
        let service = Arc::downgrade(service);
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            sleep(after).await;
            if let Some(service) = service.upgrade() {
                write.apply(&service);
            }
        });
    }

    /// Forgets all that were not applied yet.
    pub(crate) fn abort(&self) {
        self.0.lock().abort_all();
    }
}

impl LateWrite {
    fn apply(&self, service: &Service) {
        let LateWrite { request, permit, body, fault } = self;
        let outcome = handlers::answer(service, request, permit, body);
        let reply = outcome.unwrap_or_else(|failure| {
            Reply::refusal(request.role, &failure, service.fresh_id(), service.clock.now())
        });
        let noted = Noted { bytes_in: body.len(), fault: Some(fault), late: true };
        note(service, request, Some(&reply), noted);
    }
}
