//! Packet forwarders that speak Semtech's UDP protocol, version 2, as radio heads.
//!
//! One socket serves many gateways. The protocol has no authentication: without `gateways` and
//! `allow_from` only the local network is served. Times that matter are in `protocol`,
//! bytes in `codec`; here are the socket and the task that reads it.

pub mod allow;
pub mod codec;
pub mod protocol;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout_at};

use super::{HeadStatus, Heads, Radio, RadioError};
use crate::backend::door::{Boxed, Deadline};
use crate::clock::Clock;
use crate::fns::{Air, AirError, Heard, Sent, Tx};
use crate::lorawan::GatewayEui;

pub use allow::Network;
use protocol::{Outgoing, Protocol};

/// Frames that may wait for the house.
const QUEUE: usize = 256;
/// How often heads are looked after.
const LOOK: Duration = Duration::from_secs(5);

/// `[[radio]] kind = "semtech-udp"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// For people and logs; the address where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where forwarders send to.
    pub listen: SocketAddr,
    /// The gateways that may be our heads; empty: any. Without `allow_from` those listed may come
    /// from anywhere, and any others from local addresses only.
    pub gateways: Vec<GatewayEui>,
    /// Addresses and networks that gateways may come from; empty: see `gateways`.
    pub allow_from: Vec<Network>,
    /// The forwarders' keep-alive period. A head is offline after three of them without PULL_DATA.
    pub keep_alive: Span,
    /// How long to wait for TX_ACK.
    pub ack_timeout: Span,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: None,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1700)),
            gateways: Vec::new(),
            allow_from: Vec::new(),
            keep_alive: Span(Duration::from_secs(10)),
            ack_timeout: Span(Duration::from_secs(1)),
        }
    }
}

/// A time of 10 ms to 10 minutes, written `"10s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let span = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        to.collect_str(&format_args!("{span:#}"))
    }
}
impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        let text = String::deserialize(from)?;
        let span = text.parse().ok().and_then(|span: SignedDuration| Duration::try_from(span).ok());
        let sane = |span: &Duration| (Duration::from_millis(10)..=Duration::from_secs(600)).contains(span);
        let wrong = || serde::de::Error::custom(format_args!("{text:?} is no time from \"10ms\" to \"10m\""));
        span.filter(sane).map(Span).ok_or_else(wrong)
    }
}

/// The radio's heads. The socket closes when these and the reading task are gone.
struct Gateways {
    name: String,
    socket: UdpSocket,
    protocol: Mutex<Protocol>,
    ack_timeout: Duration,
    clock: Clock,
}

/// Bind the socket and start to serve.
pub async fn open(config: &Config, clock: &Clock) -> Result<Radio, RadioError> {
    let name = config.name.clone().unwrap_or_else(|| format!("semtech-udp {}", config.listen));
    let socket = match UdpSocket::bind(config.listen).await {
        Ok(socket) => socket,
        Err(source) => return Err(RadioError::Bind { name, listen: config.listen, source }),
    };
    let allow = allow::Allow::new(&config.gateways, &config.allow_from);
    let protocol = Protocol::new(allow, 3 * config.keep_alive.0, clock.rng());
    let gateways = Arc::new(Gateways {
        name: name.clone(),
        socket,
        protocol: Mutex::new(protocol),
        ack_timeout: config.ack_timeout.0,
        clock: clock.clone(),
    });
    tracing::info!(radio = %name, listen = %config.listen, "waiting for packet forwarders");
    let (sender, heard) = mpsc::channel(QUEUE);
    tokio::spawn(gateways.clone().serve(sender));
    Ok(Radio { name, heard, heads: gateways })
}

impl Gateways {
    /// Nothing inside panics while it holds the lock; were it so, what is there is still of use.
    fn protocol(&self) -> MutexGuard<'_, Protocol> {
        self.protocol.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Read the socket until nobody wants to hear any more.
    async fn serve(self: Arc<Self>, heard: mpsc::Sender<Heard>) {
        let mut buffer = vec![0; 65_535];
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = heard.closed() => break,
                _ = look.tick() => self.protocol().poll(self.clock.now()),
                got = self.socket.recv_from(&mut buffer) => match got {
                    Ok((length, from)) => {
                        self.receive(buffer.get(..length).unwrap_or_default(), from, &heard).await;
                    }
                    Err(error) => self.pause(&error).await,
                },
            }
        }
    }

    /// One datagram: acknowledged first, then read.
    async fn receive(&self, bytes: &[u8], from: SocketAddr, heard: &mpsc::Sender<Heard>) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let Some(datagram) = self.protocol().admit(bytes, from, now, wall) else { return };
        if let Some(ack) = datagram.ack()
            && let Err(error) = self.socket.send_to(&ack, from).await
        {
            tracing::debug!(%from, %error, "cannot acknowledge");
        }
        let frames = self.protocol().handle(&datagram, now, wall);
        for frame in frames {
            let counted = heard.try_send(frame).is_ok();
            self.protocol().passed_on(counted);
        }
    }

    /// The system refuses to receive: some errors are of one datagram, none is worth a busy loop.
    async fn pause(&self, error: &io::Error) {
        tracing::debug!(radio = %self.name, %error, "cannot receive");
        self.clock.sleep(Duration::from_millis(20)).await;
    }

    async fn send(&self, tx: Tx, before: Deadline) -> Result<Sent, AirError> {
        let now = self.clock.now();
        let Outgoing { bytes, to, token, answer } = self.protocol().send(&tx, now)?;
        // whoever ends the waiting, the token is free again
        let _waiting = Waiting { heads: self, gateway: tx.gateway, token };
        self.socket.send_to(&bytes, to).await.map_err(|error| {
            tracing::warn!(gateway = %tx.gateway, %to, %error, "cannot send PULL_RESP");
            AirError::Gone(tx.gateway)
        })?;
        let until = before.0.min(now + self.ack_timeout);
        let answer = timeout_at(until, answer).await;
        answer.ok().and_then(Result::ok).unwrap_or(Err(AirError::Silent))
    }
}

/// A token that waits for its TX_ACK.
struct Waiting<'a> {
    heads: &'a Gateways,
    gateway: GatewayEui,
    token: [u8; 2],
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.heads.protocol().give_up(self.gateway, self.token);
    }
}

impl Air for Gateways {
    fn transmit(&self, tx: Tx, before: Deadline) -> Boxed<'_, Result<Sent, AirError>> {
        Box::pin(self.send(tx, before))
    }
    fn heads(&self) -> usize {
        self.protocol().online(self.clock.now())
    }
    fn online(&self, gateway: GatewayEui) -> bool {
        self.protocol().is_online(gateway, self.clock.now())
    }
}

impl Heads for Gateways {
    fn has(&self, gateway: GatewayEui) -> bool {
        self.protocol().has(gateway)
    }
    fn status(&self) -> Vec<HeadStatus> {
        self.protocol().status(&self.name, self.clock.now())
    }
    fn listening(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.protocol().stats().named().to_vec()
    }
}
