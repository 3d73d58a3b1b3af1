//! Listening, and the connections that come of it.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::cut::{Line, Scissors};
use crate::exchange;
use crate::service::Service;

/// Serves connections until it is dropped, and they with it.
pub(crate) async fn accept(listener: TcpListener, service: Arc<Service>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A failed accept concerns a connection that is gone already, or a want of descriptors that passes.
                match accepted {
                    Ok((stream, _)) => {
                        drop(connections.spawn(serve(stream, Arc::clone(&service), tls.clone())));
                    }
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, service: Arc<Service>, tls: Option<TlsAcceptor>) {
    let _open = service.connections.enter();
    // Replies are small or large, never trickling: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let round_trips = if tls.is_some() { 2 } else { 1 };
    let handshakes = service.shaper().latency() * round_trips;
    if handshakes > Duration::ZERO {
        tokio::time::sleep(handshakes).await;
    }
    match tls {
        None => converse(stream, service).await,
        Some(tls) => {
            // A failed handshake is the client's: it has been told, and there is nobody else to tell.
            if let Ok(stream) = tls.accept(stream).await {
                converse(stream, service).await;
            }
        }
    }
}

async fn converse<S>(stream: S, service: Arc<Service>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let scissors = Scissors::default();
    let line = Line::new(TokioIo::new(stream), scissors.clone());
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let (service, scissors) = (Arc::clone(&service), scissors.clone());
        async move {
            let (parts, incoming) = request.into_parts();
            exchange::answer(&service, &scissors, parts, incoming).await
        }
    });
    // An error here is a client that went away or sent no HTTP, and has been told as far as it listens; or a cut line.
    let _ = http1::Builder::new().serve_connection(line, answer).await;
}
