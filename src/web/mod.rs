//! What pages and APIs of ours share: HTTP in front of a router with bounded connections, bounded patience and the address of whoever
//! asks; how a page looks ([`page`]); who has signed in ([`session`]). Knows nothing of what they say.

pub mod page;
pub mod session;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::clock::Clock;

/// Connections at once; a full house closes the door.
const CONNECTIONS: usize = 256;
/// A request's head comes within so long.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// A connection lasts so long at most, so that nobody holds a place for ever.
const LONGEST: Duration = Duration::from_secs(600);

/// A listening server; dropping it ends it.
#[derive(Debug)]
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// Listen, and answer every request by the router.
pub async fn serve(listen: SocketAddr, router: Router, clock: Clock) -> io::Result<Served> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, router, clock));
    Ok(Served { address, _tasks: tasks })
}

async fn accept(listener: TcpListener, router: Router, clock: Clock) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let arrived = tokio::select! {
            arrived = listener.accept() => arrived,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, from) = match arrived {
            Ok(arrived) => arrived,
            Err(error) => {
                // out of file descriptors, or a connection that is gone already
                tracing::debug!(%error, "cannot accept a connection");
                clock.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%from, limit = CONNECTIONS, "too many connections: turned one away");
            continue;
        };
        let router = router.clone();
        let service =
            hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo(from));
                router.clone().oneshot(request.map(Body::new))
            });
        let clock = clock.clone();
        connections.spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
            let connection = http.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                },
                () = clock.sleep(LONGEST) => {}
            }
            drop(place);
        });
    }
}
