//! The front: partners reach hotspots behind NAT through it (role `front`).
//!
//! One port. A hotspot dials in with its own certificate and stays (see [`crate::backend::tunnel`]); a partner's TLS
//! connection is passed on, unopened, to the hotspot whose certificate speaks for the server name that it asks for. So
//! nothing has to be configured for each hotspot, nobody gets what another's certificate names, and the front cannot read
//! or change what it passes on. What is asked for under names of this node itself goes to its own server.

pub mod hello;
mod tunnels;

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::Instrument;

use crate::backend::server::{Arrival, Wire};
use crate::backend::tunnel::{PONG, REFUSED, Refused, WELCOME, WINDOW, WINDOWS, Welcome};
use crate::clock::Clock;
use crate::limits::{Buckets, Rate, Seldom, household};
use crate::pki::check::PeerIdentity;
use crate::tls::{self, Trust};

use hello::Hello;
use tunnels::{Ask, Tunnel, Tunnels};

/// The first message and, of a hotspot, the handshake.
const HELLO_TIME: Duration = Duration::from_secs(5);
/// A name for which nobody is there waits so long for its hotspot: after a restart of ours all are about to come back.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections of partners at the same time.
const CONNECTIONS: usize = 2048;
/// Hotspots at the same time, and lines of one of them.
const HOTSPOTS: usize = 1024;
const LINES_OF_ONE: usize = 4;
/// New connections of one address.
const OF_ONE: Rate = Rate { burst: 512, every: Duration::from_millis(30) };
/// Addresses remembered.
const REMEMBERED: usize = 4096;
/// A line and its certificate are looked at so often. The hotspot looks at its line more often, since it is the one to dial.
const LOOK: Duration = Duration::from_secs(60);

/// Section `[front]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The port to which partners and hotspots come.
    pub listen: SocketAddr,
    /// Take every hotspot that our roots vouch for, not only those listed.
    #[serde(default)]
    pub anyone: bool,
    /// Hotspots that may come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hotspot: Vec<Hotspot>,
}

/// A hotspot that may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hotspot {
    /// A name of its certificate.
    pub identity: String,
    /// What is passed on to it besides the names of its certificate, such as JoinEUI names that are CNAMEs to its host name:
    /// a client asks for the name it was given. `*.` in front: everything below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// What a front needs of the house.
pub struct Parts {
    /// Who may come.
    pub config: Config,
    /// Who we are to hotspots.
    pub tls: Arc<ServerConfig>,
    /// The judge of their certificates.
    pub trust: Arc<Trust>,
    /// Names of our own, and the server that answers to them.
    pub own: Option<(Vec<String>, mpsc::Sender<Arrival>)>,
    /// Time.
    pub clock: Clock,
}

/// A front that runs, until it is dropped.
pub struct Front {
    address: SocketAddr,
    inner: Arc<Inner>,
    _accepting: JoinSet<()>,
}

struct Inner {
    parts: Parts,
    tunnels: Tunnels,
    places: Arc<Semaphore>,
    hotspots: Arc<Semaphore>,
    buckets: Mutex<Buckets<std::net::IpAddr>>,
    seldom: Mutex<Seldom>,
    lines: AtomicU64,
    passed: AtomicU64,
    refused: AtomicU64,
}

/// Open the port.
pub async fn open(parts: Parts) -> io::Result<Front> {
    let listener = TcpListener::bind(parts.config.listen).await?;
    let address = listener.local_addr()?;
    let inner = Arc::new(Inner {
        parts,
        tunnels: Tunnels::default(),
        places: Arc::new(Semaphore::new(CONNECTIONS)),
        hotspots: Arc::new(Semaphore::new(HOTSPOTS)),
        buckets: Mutex::new(Buckets::new(OF_ONE, REMEMBERED)),
        seldom: Mutex::default(),
        lines: AtomicU64::new(0),
        passed: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    });
    let mut accepting = JoinSet::new();
    accepting.spawn(inner.clone().accept(listener).in_current_span());
    tracing::info!(%address, "hotspots and their partners may come to this front");
    Ok(Front { address, inner, _accepting: accepting })
}

impl Front {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it is, a line for itself and one for each hotspot.
    pub fn status(&self) -> Vec<String> {
        let Inner { tunnels, passed, refused, .. } = &*self.inner;
        let (passed, refused) = (passed.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
        let all = tunnels.all();
        let own = format!(
            "front on {}: {} hotspots, {passed} connections passed on, {refused} refused",
            self.address,
            all.len()
        );
        let lines = all.iter().map(|line| {
            let passed = line.passed.load(Ordering::Relaxed);
            format!("{} at {} since {:.0}, passed on {passed}", line.names.join(" "), line.from, line.since)
        });
        std::iter::once(own).chain(lines).collect()
    }
}

impl Inner {
    async fn accept(self: Arc<Inner>, listener: TcpListener) {
        // what was begun ends with the front
        let mut working = JoinSet::new();
        loop {
            let arrived = tokio::select! {
                arrived = listener.accept() => arrived,
                Some(_ended) = working.join_next() => continue,
            };
            let (stream, from) = match arrived {
                Ok(arrived) => arrived,
                Err(error) => {
                    // out of file descriptors, or a connection that is gone already
                    self.refuse(None, &error.to_string(), "if it lasts: a higher LimitNOFILE");
                    self.parts.clock.sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.refuse(
                    Some(from),
                    "too many connections",
                    "a front of its own for some of the hotspots",
                );
                continue;
            };
            let now = self.parts.clock.now();
            let taken =
                self.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(household(from.ip()), now);
            if taken.is_err() {
                self.refuse(
                    Some(from),
                    "too many connections of one address",
                    "a firewall, if it is nobody you know",
                );
                continue;
            }
            // small messages for which somebody waits
            let _ = stream.set_nodelay(true);
            working.spawn(self.clone().receive(stream, from, place).in_current_span());
        }
    }

    async fn receive(self: Arc<Inner>, mut stream: TcpStream, from: SocketAddr, place: OwnedSemaphorePermit) {
        let (hello, taken) = match timeout(HELLO_TIME, hello::read(&mut stream)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                self.refuse(Some(from), &format!("no TLS: {error}"), "nothing, if it is rare");
                return;
            }
            Err(_elapsed) => {
                self.refuse(Some(from), "no first message in time", "nothing, if it is rare");
                return;
            }
        };
        match hello {
            Hello { tunnel: true, .. } => {
                drop(place);
                self.hotspot(unread(taken, stream), from).await;
            }
            Hello { name, .. } => {
                self.partner(name.as_deref(), taken, stream, from).await;
                drop(place);
            }
        }
    }

    /// A partner wants somebody.
    async fn partner(&self, name: Option<&str>, taken: Vec<u8>, mut stream: TcpStream, from: SocketAddr) {
        let own = self.parts.own.as_ref().filter(|(names, _)| {
            // who names nobody, or an address, can only mean us
            name.is_none_or(|name| names.iter().any(|own| own == name))
        });
        if let Some((_, server)) = own {
            // it is full: whoever comes now has to come again
            let _ = server.try_send(Arrival { stream: unread(taken, stream), from });
            return;
        }
        let Some(name) = name else {
            self.refuse(Some(from), "no server name (SNI): nobody can be meant", "its operator asks by name");
            return;
        };
        let until = self.parts.clock.now() + PATIENCE;
        let (mut arrivals, mut why) = (self.tunnels.arrivals(), None);
        let opened = loop {
            let mut opened = None;
            for line in self.tunnels.of(name) {
                match self.line(&line, name, from).await {
                    Ok(bytes) => {
                        opened = Some(bytes);
                        break;
                    }
                    Err(error) => why = Some(error),
                }
            }
            if let Some(bytes) = opened {
                break bytes;
            }
            tokio::select! {
                Ok(()) = arrivals.changed() => {}
                () = self.parts.clock.sleep_until(until) => {
                    let why = why.map_or_else(|| "it has no tunnel to here".into(), |why| format!("its tunnel: {why}"));
                    let remedy = "its [backend] reachability names this front, and its certificate that name";
                    self.refuse(Some(from), &format!("{name}: {why}"), remedy);
                    return;
                }
            }
        };
        self.passed.fetch_add(1, Ordering::Relaxed);
        let mut bytes = TokioIo::new(opened);
        let passed = async {
            bytes.write_all(&taken).await?;
            copy_bidirectional(&mut stream, &mut bytes).await
        };
        match passed.await {
            Ok((up, down)) => tracing::debug!(name, %from, up, down, "a connection passed on has ended"),
            Err(error) => tracing::debug!(name, %from, %error, "a connection passed on was cut"),
        }
    }

    async fn line(
        &self,
        line: &Tunnel,
        name: &str,
        from: SocketAddr,
    ) -> Result<hyper::upgrade::Upgraded, String> {
        match self.has_ended(&line.peer) {
            Some(why) => Err(why),
            None => line.open(name, from).await,
        }
    }

    fn has_ended(&self, peer: &PeerIdentity) -> Option<String> {
        let clock = &self.parts.clock;
        let valid = clock.is_trusted() && peer.is_valid_at(clock.wall());
        (!valid).then(|| format!("its certificate ended on {}", peer.valid_until))
    }

    /// Whether it would be let in today as it was, by what there is to judge by now.
    fn still(&self, peer: &PeerIdentity, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let again = self.parts.trust.peer_identity(Some(chain)).map_err(|error| error.to_string())?;
        match again.names == peer.names {
            true => Ok(()),
            false => Err("what it may be called has changed".into()),
        }
    }

    /// A hotspot wants to be passed on to; here until its line ends.
    async fn hotspot(self: Arc<Inner>, stream: Box<dyn Wire>, from: SocketAddr) {
        let Ok(_place) = self.hotspots.clone().try_acquire_owned() else {
            self.refuse(Some(from), "too many hotspots", "a second front");
            return;
        };
        let acceptor = TlsAcceptor::from(self.parts.tls.clone());
        let shaken = match timeout(HELLO_TIME, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
                let peer = self.parts.trust.peer_identity(Some(&chain));
                peer.map(|peer| (stream, peer, chain)).map_err(|error| error.to_string())
            }
            Ok(Err(error)) => Err(tls::explain(&error).unwrap_or_else(|| error.to_string())),
            Err(_elapsed) => Err("its handshake hung".into()),
        };
        let (stream, peer, chain) = match shaken {
            Ok(shaken) => shaken,
            Err(why) => {
                self.refuse(
                    Some(from),
                    &format!("a hotspot: {why}"),
                    "its operator corrects its certificate",
                );
                return;
            }
        };
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(LOOK)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOWS);
        let (ask, line) = match http.handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await {
            Ok(both) => both,
            Err(error) => {
                self.refuse(Some(from), &format!("a hotspot: {error}"), "nothing, if it is rare");
                return;
            }
        };
        // what comes on the line is read there
        let served = self.serve(ask, &peer, &chain, from);
        tokio::select! {
            _ended = line => {}
            () = served => {}
        }
        tracing::info!(%from, names = peer.names.join(" "), "a hotspot's tunnel has ended");
    }

    /// Admit a hotspot, and keep its place for as long as it may have it.
    async fn serve(&self, ask: Ask, peer: &PeerIdentity, chain: &[CertificateDer<'_>], from: SocketAddr) {
        let mut edition = self.parts.trust.edition();
        let names = match self.admit(peer) {
            Ok(names) => names,
            Err(why) => {
                self.refuse(
                    Some(from),
                    &format!("a hotspot: {why}"),
                    "list it in [[front.hotspot]], if it may",
                );
                // it hears it, if it still listens
                let _ = tunnels::tell(ask, REFUSED, &Refused { why }).await;
                return;
            }
        };
        let number = self.lines.fetch_add(1, Ordering::Relaxed);
        let line = Arc::new(Tunnel {
            number,
            peer: peer.clone(),
            names: names.clone(),
            from,
            since: self.parts.clock.wall(),
            passed: AtomicU64::new(0),
            ask,
            end: Notify::new(),
        });
        let held = Held { tunnels: &self.tunnels, line: &line };
        self.tunnels.add(&line);
        if let Err(why) = line.tell(WELCOME, &Welcome { names: names.clone(), from }).await {
            tracing::info!(%from, why, "a hotspot did not take its welcome");
            return;
        }
        tracing::info!(%from, names = names.join(" "), "a hotspot's tunnel is up");
        self.try_older(&line);
        loop {
            tokio::select! {
                () = self.parts.clock.sleep(LOOK) => {}
                () = line.end.notified() => break,
            }
            let now = self.parts.trust.edition();
            let why = match edition == now {
                true => None,
                false => self.still(peer, chain).err(),
            };
            edition = now;
            if let Some(why) = why.or_else(|| self.has_ended(peer)) {
                self.refuse(Some(from), &format!("a hotspot: {why}"), "its operator renews it");
                break;
            }
        }
        drop(held);
    }

    /// A hotspot that dials again has often lost its older line, which is not known here yet. What was passed on through
    /// it ends now, so that partners do not wait for answers.
    fn try_older(&self, line: &Tunnel) {
        let same = |other: &Arc<Tunnel>| other.peer.pin == line.peer.pin && other.number < line.number;
        for older in self.tunnels.all().into_iter().filter(same) {
            let work = async move {
                let welcome = Welcome { names: older.names.clone(), from: older.from };
                if older.tell(WELCOME, &welcome).await.is_err() {
                    older.end.notify_one();
                }
            };
            tokio::spawn(work.in_current_span());
        }
    }

    /// The names that are passed on to a hotspot.
    fn admit(&self, peer: &PeerIdentity) -> Result<Vec<String>, String> {
        if peer.names.is_empty() {
            return Err("its certificate speaks for no name".into());
        }
        let listed: Vec<&Hotspot> =
            self.parts.config.hotspot.iter().filter(|hotspot| peer.speaks_for(&hotspot.identity)).collect();
        if listed.is_empty() && !self.parts.config.anyone {
            return Err(format!("{} is not listed at this front", peer.names.join(", ")));
        }
        let lines = self.tunnels.all().iter().filter(|line| line.peer.pin == peer.pin).count();
        if lines >= LINES_OF_ONE {
            return Err(format!("{lines} tunnels of this certificate are up already"));
        }
        let further = listed.iter().flat_map(|hotspot| &hotspot.names).map(|name| name.to_ascii_lowercase());
        Ok(peer.names.iter().cloned().chain(further).collect())
    }

    /// Count it, and say it once a minute.
    fn refuse(&self, from: Option<SocketAddr>, why: &str, remedy: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let who = from.map(|from| from.ip().to_string()).unwrap_or_default();
        let now = self.parts.clock.now();
        let told = self.seldom.lock().unwrap_or_else(PoisonError::into_inner).tell(&who, why, now);
        if let Some(left_out) = told {
            tracing::warn!(from = who, why, remedy, left_out, "turned away");
        }
    }
}

/// A hotspot's place; it goes however its line ends.
struct Held<'a> {
    tunnels: &'a Tunnels,
    line: &'a Tunnel,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.tunnels.remove(self.line);
    }
}

/// A stream of which something was read already, as if it were not.
fn unread(taken: Vec<u8>, stream: TcpStream) -> Box<dyn Wire> {
    let (from, to) = stream.into_split();
    Box::new(tokio::io::join(Cursor::new(taken).chain(from), to))
}
