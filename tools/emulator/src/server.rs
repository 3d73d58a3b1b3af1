//! From a connection to replies: read the head, check who asks, take the body in, let the handler answer, note it down.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::auth;
use crate::body;
use crate::error::Outcome;
use crate::handlers;
use crate::journal::{CallStats, RequestRecord};
use crate::reply::{Reply, ReplyBody};
use crate::request::Request;
use crate::service::Service;

/// Serves connections until it is dropped, and they with it.
pub(crate) async fn accept(listener: TcpListener, service: Arc<Service>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A failed accept concerns a connection that is gone already, or a want of descriptors that passes.
                match accepted {
                    Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&service)))),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, service: Arc<Service>) {
    // Replies are small or large, never trickling: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let service = Arc::clone(&service);
        async move {
            let (parts, incoming) = request.into_parts();
            Ok::<_, Infallible>(answer(&service, parts, incoming).await)
        }
    });
    // An error here is a client that went away or sent no HTTP; it has been told as far as it listens.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(service: &Service, parts: Parts, incoming: Incoming) -> Response<ReplyBody> {
    let id = service.fresh_id();
    let request = match Request::parse(parts) {
        Ok(request) => request,
        Err(failure) => {
            let now = service.clock.now();
            return Reply::refusal(&failure, id, now).finish(id, None, None, now);
        }
    };
    let mut bytes_in = 0;
    let outcome = respond(service, &request, incoming, &mut bytes_in).await;
    let now = service.clock.now();
    let mut reply = outcome.unwrap_or_else(|failure| Reply::refusal(&failure, id, now));
    if request.method == hyper::Method::HEAD {
        reply.body = ReplyBody::Empty;
    }
    note(service, &request, &reply, bytes_in);
    reply.finish(id, request.client_id(), request.version().ok().flatten(), now)
}

async fn respond(
    service: &Service,
    request: &Request,
    incoming: Incoming,
    bytes_in: &mut u64,
) -> Outcome<Reply> {
    let authorised = request.version().and_then(|_| auth::authorise(service, request));
    let permit = match authorised {
        Ok(permit) => permit,
        Err(failure) => {
            body::drain(request, incoming).await;
            return Err(failure);
        }
    };
    // Here the call, its account and its blob are known, and nothing has been read or applied yet: this is where
    // limits hold a request back, and where a scripted fault decides what becomes of it.
    let body = body::receive(request, incoming).await?;
    *bytes_in = body.len();
    handlers::answer(service, request, &permit, &body)
}

fn note(service: &Service, request: &Request, reply: &Reply, bytes_in: u64) {
    let refused = reply.error.is_some();
    let bytes_out = reply.body.remaining();
    service
        .journal
        .count(request.call, CallStats { requests: 1, refused: u64::from(refused), bytes_in, bytes_out });
    service.journal.record(|| record(request, reply.status, reply.error.map(crate::ErrorCode::name)));
}

fn record(request: &Request, status: StatusCode, error: Option<&'static str>) -> RequestRecord {
    let interesting = |name: &str| {
        let prefixes = ["x-ms-", "if-"];
        let names = ["range", "content-length", "content-md5", "authorization"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name)
    };
    let headers = request.headers.iter().filter(|(name, _)| interesting(name.as_str()));
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    RequestRecord {
        call: request.call,
        method: request.method.to_string(),
        path_and_query: request.path_and_query.clone(),
        account: request.target.account.clone(),
        container: request.target.container.clone(),
        blob: request.target.blob.clone(),
        snapshot: request.param("snapshot").map(str::to_owned),
        headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
        status: status.as_u16(),
        error,
    }
}
