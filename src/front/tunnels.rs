//! Which hotspots are there, and who of them is meant by a name. Called by `front` only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper::header::FORWARDED;
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::pki::check::PeerIdentity;

/// A hotspot that does not take a connection in so long is passed over.
const OPEN_TIME: Duration = Duration::from_secs(3);

/// How a front asks on a tunnel.
pub(super) type Ask = SendRequest<Full<Bytes>>;

/// One hotspot's line.
pub(super) struct Tunnel {
    /// Tells lines apart.
    pub(super) number: u64,
    /// Who it is.
    pub(super) peer: PeerIdentity,
    /// What is passed on to it.
    pub(super) names: Vec<String>,
    /// Where it is.
    pub(super) from: SocketAddr,
    /// Since when.
    pub(super) since: Timestamp,
    /// Connections passed on to it.
    pub(super) passed: AtomicU64,
    /// To ask on.
    pub(super) ask: Ask,
    /// Told when it is to end.
    pub(super) end: Notify,
}

/// All lines, by the names that are passed on. Of several for one name the newest counts: an older one is of a box that
/// has moved, or a second one that stands in.
#[derive(Default)]
pub(super) struct Tunnels {
    by_name: Mutex<BTreeMap<String, Vec<Arc<Tunnel>>>>,
    changed: watch::Sender<()>,
}

impl Tunnels {
    /// From now on it gets what is meant for its names.
    pub(super) fn add(&self, tunnel: &Arc<Tunnel>) {
        let mut by_name = self.lock();
        for name in &tunnel.names {
            by_name.entry(name.clone()).or_default().insert(0, tunnel.clone());
        }
        drop(by_name);
        self.changed.send_replace(());
    }

    /// And from now on not.
    pub(super) fn remove(&self, tunnel: &Tunnel) {
        self.lock().retain(|_, lines| {
            lines.retain(|line| line.number != tunnel.number);
            !lines.is_empty()
        });
    }

    /// Whoever is meant by a server name, the newest first: by the name itself, else by the longest `*.` above it.
    pub(super) fn of(&self, name: &str) -> Vec<Arc<Tunnel>> {
        let by_name = self.lock();
        let above =
            name.match_indices('.').map(|(dot, _)| format!("*{}", name.get(dot..).unwrap_or_default()));
        let mut found = std::iter::once(name.to_owned()).chain(above).filter_map(|name| by_name.get(&name));
        found.next().cloned().unwrap_or_default()
    }

    /// Ends when a line has come since the call.
    pub(super) fn arrivals(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Each line once.
    pub(super) fn all(&self) -> Vec<Arc<Tunnel>> {
        let by_number: BTreeMap<u64, Arc<Tunnel>> =
            self.lock().values().flatten().map(|line| (line.number, line.clone())).collect();
        by_number.into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Arc<Tunnel>>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tunnel {
    /// A new connection through it, for a partner at `from` that asked for `name`.
    pub(super) async fn open(&self, name: &str, from: SocketAddr) -> Result<Upgraded, String> {
        let mut ask = self.ask.clone();
        let request = Request::connect(format!("{name}:443"))
            .header(FORWARDED, format!("for=\"{from}\""))
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        let opening = async {
            ask.ready().await.map_err(|error| error.to_string())?;
            let response = ask.send_request(request).await.map_err(|error| error.to_string())?;
            match response.status() {
                StatusCode::OK => hyper::upgrade::on(response).await.map_err(|error| error.to_string()),
                StatusCode::SERVICE_UNAVAILABLE => Err("it has too many connections".into()),
                other => Err(format!("it answered {other}")),
            }
        };
        let opened =
            timeout(OPEN_TIME, opening).await.map_err(|_| format!("no answer in {OPEN_TIME:?}"))??;
        self.passed.fetch_add(1, Ordering::Relaxed);
        Ok(opened)
    }

    /// Tell it something.
    pub(super) async fn tell(&self, path: &str, what: &impl serde::Serialize) -> Result<(), String> {
        tell(self.ask.clone(), path, what).await
    }
}

/// Tell a hotspot something, whether it has a place here or not.
pub(super) async fn tell(mut ask: Ask, path: &str, what: &impl serde::Serialize) -> Result<(), String> {
    let body = serde_json::to_vec(what).map_err(|error| error.to_string())?;
    let request = Request::post(path).body(Full::from(body)).map_err(|error| error.to_string())?;
    let telling = async {
        ask.ready().await.map_err(|error| error.to_string())?;
        let response = ask.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let _read = body.collect().await;
        if head.status.is_success() { Ok(()) } else { Err(format!("it answered {}", head.status)) }
    };
    timeout(OPEN_TIME, telling).await.map_err(|_| format!("no answer in {OPEN_TIME:?}"))?
}
