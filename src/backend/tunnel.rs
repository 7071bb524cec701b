//! The hotspot's end of a tunnel to a front: how a box that nobody can reach is reached.
//!
//! The box dials out, mutual TLS with its own certificate, and stays. On that connection HTTP/2 is spoken with the
//! roles turned round: the front asks, we answer. First it says what it passes on to us (or why not); then each partner's
//! connection is a CONNECT (RFC 9113 8.5) whose bytes are the partner's TLS, which ends here: the front has no key of ours.
//! HTTP/2 brings what a multiplexer needs: flow control for each connection, limits, and PINGs that notice a dead line and
//! keep the NAT's mapping alive.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::Instrument;

use super::server::Arrival;
use crate::clock::Clock;
use crate::tls;

/// The front says here what it passes on to us.
pub const WELCOME: &str = "/welcome";
/// The front says here why it passes nothing on.
pub const REFUSED: &str = "/refused";
/// A line on which nothing is said is tried so often. NAT boxes forget a silent TCP connection after minutes at the earliest.
pub const PING: Duration = Duration::from_secs(20);
/// And given up if nothing comes back in so long.
pub const PONG: Duration = Duration::from_secs(10);
/// Partners' connections through one tunnel at the same time.
pub const STREAMS: u32 = 256;
/// Bytes of one connection that may be under way: a whole message of TS002.
pub const WINDOW: u32 = 256 * 1024;
/// The same for all connections together, so that some slow ones do not stop the rest.
pub const WINDOWS: u32 = 16 * WINDOW;

/// TCP and TLS to the front.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A front that does not say in so long what it passes on is none.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// The first pause before dialling again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// What a front says is not longer.
const BODY_LIMIT: usize = 64 * 1024;

/// What a front passes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Server names that partners ask for; `*.` in front: everything below.
    pub names: Vec<String>,
    /// Where the front sees us.
    pub from: SocketAddr,
}

/// Why a front passes nothing on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Whose move it is.
    pub why: String,
}

/// How a tunnel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not there, for this reason.
    Down(String),
    /// There.
    Up {
        /// Since when.
        since: Timestamp,
        /// What the front said.
        welcome: Welcome,
    },
}

/// A tunnel that is kept up for as long as its future is polled.
pub struct Tunnel {
    /// `HOST:PORT` of the front.
    server: String,
    tls: Arc<ClientConfig>,
    arrivals: mpsc::Sender<Arrival>,
    clock: Clock,
    state: Mutex<State>,
}

impl Tunnel {
    /// To one front; what it brings goes to `arrivals`.
    pub fn new(
        server: String,
        tls: Arc<ClientConfig>,
        arrivals: mpsc::Sender<Arrival>,
        clock: Clock,
    ) -> Arc<Tunnel> {
        let state = Mutex::new(State::Down("not dialled yet".into()));
        Arc::new(Tunnel { server, tls, arrivals, clock, state })
    }

    /// Where it leads.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// How it is now.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Dial, and dial again when the line is lost: at once at first, then ever less often.
    pub async fn keep(self: Arc<Tunnel>) {
        let (first, longest) = PAUSES;
        let mut pause = first;
        loop {
            let ended = self.clone().dial().await;
            let was_up = matches!(self.state(), State::Up { .. });
            let why = ended.err().unwrap_or_else(|| "the front closed the line".into());
            if was_up {
                pause = first;
            }
            tracing::warn!(front = self.server, why, again_in = ?pause, "no tunnel: partners cannot reach us through this front");
            *self.lock() = State::Down(why);
            // not everybody at the same moment after a front was away
            let [share] = self.clock.random::<1>();
            self.clock.sleep(pause.mul_f64(0.5 + f64::from(share) / 512.0)).await;
            pause = (pause * 2).min(longest);
        }
    }

    async fn dial(self: Arc<Tunnel>) -> Result<(), String> {
        if !self.clock.is_trusted() {
            return Err(
                "this machine's clock is not set, so no certificate can be judged; GPS or NTP has to set it"
                    .into(),
            );
        }
        let host = host_of(&self.server).ok_or("HOST:PORT is wanted")?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connect = async {
            let stream = TcpStream::connect(&*self.server).await.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true);
            let connector = TlsConnector::from(self.tls.clone());
            let shaken = connector.connect(name, stream).await;
            shaken.map_err(|error| tls::explain(&error).unwrap_or_else(|| error.to_string()))
        };
        let stream = timeout(CONNECT_TIME, connect)
            .await
            .map_err(|_| format!("no connection in {CONNECT_TIME:?}"))??;
        let told = Arc::new(Mutex::new(None::<Refused>));
        let (tunnel, refused) = (self.clone(), told.clone());
        let service = hyper::service::service_fn(move |request| {
            let (tunnel, refused) = (tunnel.clone(), refused.clone());
            async move { Ok::<_, std::convert::Infallible>(tunnel.answer(request, &refused).await) }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOWS);
        let mut line = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let welcome = async {
            self.clock.sleep(WELCOME_TIME).await;
            match self.state() {
                State::Up { .. } => std::future::pending().await,
                State::Down(_) => {}
            }
        };
        let ended = tokio::select! {
            ended = &mut line => ended.map_err(|error| tls::explain(&error).unwrap_or_else(|| error.to_string())),
            () = welcome => Err(format!("it did not say in {WELCOME_TIME:?} what it passes on: is it a front?")),
        };
        match told.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Refused { why }) => Err(format!("it refused us: {why}")),
            None => ended,
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        refused: &Mutex<Option<Refused>>,
    ) -> Response<Empty<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::CONNECT, _) => self.bring(request),
            (&Method::POST, WELCOME) => match read(request).await {
                Some(welcome) => {
                    self.welcomed(welcome);
                    status(StatusCode::OK)
                }
                None => status(StatusCode::BAD_REQUEST),
            },
            (&Method::POST, REFUSED) => {
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = read(request).await;
                status(StatusCode::OK)
            }
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    fn welcomed(&self, welcome: Welcome) {
        let (names, from) = (welcome.names.join(" "), welcome.from);
        tracing::info!(front = self.server, names, %from, "partners reach us through this front");
        *self.lock() = State::Up { since: self.clock.wall(), welcome };
    }

    /// One partner's connection.
    fn bring(&self, mut request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let forwarded = request.headers().get(hyper::header::FORWARDED);
        let Some(from) = forwarded.and_then(|value| value.to_str().ok()).and_then(forwarded_for) else {
            return status(StatusCode::BAD_REQUEST);
        };
        let Ok(place) = self.arrivals.clone().try_reserve_owned() else {
            return status(StatusCode::SERVICE_UNAVAILABLE);
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let work = async move {
            if let Ok(bytes) = upgrade.await {
                place.send(Arrival { stream: Box::new(TokioIo::new(bytes)), from });
            }
        };
        tokio::spawn(work.in_current_span());
        status(StatusCode::OK)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host of `HOST:PORT`; brackets of an address are no part of it.
pub fn host_of(server: &str) -> Option<&str> {
    let (host, port) = server.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some(host)
}

/// What `Forwarded: for="192.0.2.7:4711"` says (RFC 7239 section 4).
pub fn forwarded_for(value: &str) -> Option<SocketAddr> {
    value.strip_prefix("for=\"")?.strip_suffix('"')?.parse().ok()
}

async fn read<T: serde::de::DeserializeOwned>(request: Request<Incoming>) -> Option<T> {
    let body = Limited::new(request.into_body(), BODY_LIMIT).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

fn status(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_has_a_host_and_a_port() {
        let hosts = ["front.example:443", "[2001:db8::1]:8443", "192.0.2.1:1"].map(host_of);
        assert_eq!(hosts, [Some("front.example"), Some("2001:db8::1"), Some("192.0.2.1")]);
        assert_eq!(
            ["front.example", ":443", "front.example:0", "front.example:x", ""].map(host_of),
            [None; 5]
        );
    }

    #[test]
    fn a_partner_is_where_the_front_saw_it() {
        let (old, new) = ("192.0.2.7:4711".parse().unwrap(), "[2001:db8::17]:47011".parse().unwrap());
        assert_eq!(forwarded_for("for=\"192.0.2.7:4711\""), Some(old));
        assert_eq!(forwarded_for("for=\"[2001:db8::17]:47011\""), Some(new));
        assert_eq!(
            ["", "for=192.0.2.7:1", "for=\"unknown\"", "for=\"192.0.2.7\"", "for=\""].map(forwarded_for),
            [None; 5]
        );
    }
}
