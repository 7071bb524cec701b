//! The MQTT sink: events published to a broker, commands taken from it.
//!
//! What the broker has not acknowledged is in the outbox and nowhere else. Events go with QoS 1, a few at a time and in
//! order; a broken connection may bring those few once more. [`line`] is the connection, in the clear or inside TLS.

mod line;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use reqwest::Url;
use rumqttc::{Connect, Packet, PubAck, Publish, QoS, Subscribe, SubscribeReasonCode};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use super::event::{self, Level};
use super::outbox::Sink;
use super::{Commands, Delivery, NotQueued};
use crate::backend::door::StoreError;
use crate::tls::{self, Roots, TlsError};
use line::{Line, LineError};

/// Events under way at once.
const BATCH: u16 = 32;
/// A broker that has not acknowledged them by then is left.
const ACK_TIME: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Between two tries, first and longest.
const PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Of the one subscription; the events have the numbers below.
const SUBSCRIPTION: u16 = BATCH + 1;

/// Section `[application.mqtt]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub server: Server,
    /// How the broker knows us; by default a name of this installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Who we are for the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A file of root certificates that vouch for the broker: with `mqtts://`, and always then. The system's roots
    /// are never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Our certificate, for a broker that wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// Files of a certificate with what it needs above it, and of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// PEM, our own certificate first.
    pub chain: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// What the files of a configuration with `mqtts://` hold.
pub struct Credentials {
    roots: Roots,
    identity: Option<tls::Identity>,
}

impl Config {
    /// Read the files for TLS; `None`: the connection is in the clear.
    pub fn credentials(&self) -> Result<Option<Credentials>, TlsError> {
        if !self.server.tls {
            return Ok(None);
        }
        let roots = Roots::load(self.ca.as_slice())?;
        let identity = self.identity.as_ref();
        let identity = identity.map(|files| tls::Identity::load_any(&files.chain, &files.key)).transpose()?;
        Ok(Some(Credentials { roots, identity }))
    }
}

/// `mqtt://HOST:PORT`, or `mqtts://HOST:PORT` for TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Server {
    host: String,
    port: u16,
    tls: bool,
}

impl Server {
    /// Nobody on the way reads along.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl TryFrom<String> for Server {
    type Error = String;
    fn try_from(text: String) -> Result<Server, String> {
        let form = "write mqtt://HOST or mqtt://HOST:PORT, with mqtts for TLS";
        let url = Url::parse(&text).map_err(|error| format!("{text:?} is no address ({error}): {form}"))?;
        let (tls, port) = match url.scheme() {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            scheme => return Err(format!("{scheme:?} is no way to a broker: {form}")),
        };
        let plain = url.username().is_empty() && url.password().is_none();
        let whole = url.query().is_none() && url.fragment().is_none() && matches!(url.path(), "" | "/");
        match url.host_str() {
            // not repeated: it may hold a password
            _ if !plain => {
                Err("the address holds a name or a password: use username and password_file".into())
            }
            Some(host) if whole && !host.is_empty() => {
                Ok(Server { host: host.into(), port: url.port().unwrap_or(port), tls })
            }
            _ => Err(format!("{text:?} is no broker: {form}")),
        }
    }
}

impl From<Server> for String {
    fn from(server: Server) -> String {
        server.to_string()
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        write!(to, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Why a connection to the broker ended, or was none.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// Nobody there, refused, or gone.
    #[error(transparent)]
    Line(#[from] LineError),
    /// Ours.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator's move.
    #[error("password_file {path}: {why}")]
    Password {
        /// Of the file.
        path: PathBuf,
        /// What is wrong with it.
        why: std::io::Error,
    },
    /// The operator's move.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The broker's fault.
    #[error("it acknowledged no event within {} s", ACK_TIME.as_secs())]
    Silent,
    /// It may be gone.
    #[error("it answered no PINGREQ within {} s", KEEP_ALIVE.as_secs())]
    Dead,
    /// Bytes that the library was not made for.
    #[error("the MQTT library failed")]
    Failed,
}

impl Broken {
    /// The broker sent what cannot be read. Were it kept for us there, it would come again with every connection.
    fn is_unreadable(&self) -> bool {
        matches!(self, Broken::Failed | Broken::Line(LineError::Unreadable(_)))
    }
}

/// Events that the broker has, or is about to get.
#[derive(Debug, Default)]
struct Flight {
    /// In the order in which they were published; the first has number 1 on the line.
    ids: Vec<u64>,
    /// Which of them were acknowledged.
    taken: Vec<bool>,
}

impl Flight {
    fn acknowledged(&mut self, number: u16) {
        if let Some(taken) = usize::from(number).checked_sub(1).and_then(|at| self.taken.get_mut(at)) {
            *taken = true;
        }
    }

    /// The last event that the broker surely has with all before it.
    fn taken(&self) -> Option<u64> {
        let count = self.taken.iter().take_while(|taken| **taken).count();
        self.ids.get(count.checked_sub(1)?).copied()
    }

    fn landed(&self) -> bool {
        self.taken.iter().all(|taken| *taken)
    }
}

/// Speaks to the broker.
pub(super) struct Speaker {
    pub config: Config,
    /// Where the configuration names none.
    pub client_id: String,
    pub delivery: Arc<Delivery>,
    pub commands: Arc<dyn Commands>,
}

impl Speaker {
    /// Deliver for ever.
    pub async fn run(self) {
        let ([mut patience, longest], mut anew) = (PATIENCE, false);
        loop {
            let (mut flight, mut connected) = (Flight::default(), false);
            let connection = self.connection(anew, &mut flight, &mut connected);
            // strangers' bytes end a connection, not the delivery
            let why = match AssertUnwindSafe(connection).catch_unwind().await {
                Ok(Ok(never)) => match never {},
                Ok(Err(why)) => why,
                Err(_panicked) => Broken::Failed,
            };
            anew = why.is_unreadable();
            if anew {
                tracing::warn!("a message of the broker cannot be read: what it keeps for us is given up");
            }
            if let Some(up_to) = flight.taken()
                && let Err(error) = self.delivery.outbox.taken(Sink::Mqtt, up_to).await
            {
                tracing::warn!("events that the broker has may be sent again: {error}");
            }
            if connected {
                patience = PATIENCE[0];
            }
            let (server, seconds) = (&self.config.server, patience.as_secs());
            tracing::warn!("no connection to {server}: {why}; events wait, next try in {seconds} s");
            self.delivery.clock.sleep(patience).await;
            patience = (patience * 2).min(longest);
        }
    }

    async fn connection(
        &self,
        anew: bool,
        flight: &mut Flight,
        connected: &mut bool,
    ) -> Result<std::convert::Infallible, Broken> {
        let mut line = Line::open(&self.config.server, self.tls()?, self.greeting(anew)?).await?;
        tracing::info!("connected to {}", self.config.server);
        *connected = true;
        let filter = self.delivery.events.command_filter();
        let mut subscribe = Subscribe::new(&filter, QoS::AtLeastOnce);
        subscribe.pkid = SUBSCRIPTION;
        line.send([Packet::Subscribe(subscribe)]).await?;
        let clock = &self.delivery.clock;
        let (mut until, mut ping, mut pinged) = (clock.now(), clock.now() + KEEP_ALIVE, false);
        loop {
            if flight.landed() {
                *flight = self.publish_next(&mut line).await?;
                until = clock.now() + ACK_TIME;
            }
            tokio::select! {
                packet = line.receive() => match packet? {
                    Packet::SubAck(answer) if answer.return_codes.contains(&SubscribeReasonCode::Failure) => {
                        let server = &self.config.server;
                        tracing::warn!("{server} refuses the subscription to {filter}: no downlinks from there");
                    }
                    Packet::PubAck(ack) => {
                        flight.acknowledged(ack.pkid);
                        if flight.landed() && let Some(up_to) = flight.taken() {
                            self.delivery.outbox.taken(Sink::Mqtt, up_to).await?;
                        }
                    }
                    Packet::Publish(message) => {
                        self.obey(&message).await?;
                        // acknowledged when it is in the queue, and not before
                        if message.qos == QoS::AtLeastOnce {
                            line.send([Packet::PubAck(PubAck::new(message.pkid))]).await?;
                        }
                    }
                    Packet::PingResp => pinged = false,
                    _ => {}
                },
                () = self.delivery.mqtt.notified(), if flight.landed() => {}
                () = clock.sleep_until(until), if !flight.landed() => return Err(Broken::Silent),
                () = clock.sleep_until(ping) => {
                    if pinged {
                        return Err(Broken::Dead);
                    }
                    line.send([Packet::PingReq]).await?;
                    (pinged, ping) = (true, clock.now() + KEEP_ALIVE);
                }
            }
        }
    }

    /// Read anew for each connection: certificates are renewed.
    fn tls(&self) -> Result<Option<Arc<ClientConfig>>, TlsError> {
        let Some(Credentials { roots, identity }) = self.config.credentials()? else { return Ok(None) };
        tls::service_config(&roots, identity.as_ref(), &self.delivery.clock).map(Arc::new).map(Some)
    }

    fn greeting(&self, anew: bool) -> Result<Connect, Broken> {
        let mut connect = Connect::new(self.config.client_id.as_ref().unwrap_or(&self.client_id));
        connect.keep_alive = KEEP_ALIVE.as_secs() as u16;
        // commands that come while we are away wait at the broker
        connect.clean_session = anew;
        if let Some(username) = &self.config.username {
            let password = match &self.config.password_file {
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|why| Broken::Password { path: path.clone(), why })?,
                None => String::new(),
            };
            connect.set_login(username, password.trim_end_matches(['\r', '\n']));
        }
        Ok(connect)
    }

    /// Publish what waits longest.
    async fn publish_next(&self, line: &mut Line) -> Result<Flight, Broken> {
        let (mut flight, mut packets) = (Flight::default(), Vec::new());
        let waiting = self.delivery.outbox.first(Sink::Mqtt, BATCH.into()).await?;
        for (waiting, number) in waiting.into_iter().zip(1..) {
            let topic = self.delivery.events.topic(&waiting.event);
            let mut publish = Publish::new(topic, QoS::AtLeastOnce, waiting.event.body);
            publish.pkid = number;
            packets.push(Packet::Publish(publish));
            flight.ids.push(waiting.id);
            flight.taken.push(false);
        }
        if !packets.is_empty() {
            line.send(packets).await?;
        }
        Ok(flight)
    }

    /// Do what a command says. An error leaves it with the broker, which brings it again.
    async fn obey(&self, message: &Publish) -> Result<(), StoreError> {
        let Some(dev_eui) = self.delivery.events.device_of(&message.topic) else {
            tracing::debug!(topic = message.topic, "a message that is no command");
            return Ok(());
        };
        let Some(device) = self.commands.device(dev_eui).await? else {
            tracing::warn!(DevEUI = %dev_eui, "a downlink command for a device that is not here is dropped");
            return Ok(());
        };
        let clock = &self.delivery.clock;
        let (why, code) = match event::command(dev_eui, &message.payload, clock.wall(), clock.random()) {
            Ok(item) if device.queue.iter().any(|waiting| waiting.id == item.id) => {
                tracing::debug!(DevEUI = %dev_eui, item = item.id, "the command came before");
                return Ok(());
            }
            Ok(item) => {
                let id = item.id.clone();
                match self.commands.enqueue(dev_eui, item).await {
                    Ok(()) => {
                        tracing::info!(target: "roamgate::frame", milestone = "downlink queued",
                            DevEUI = %dev_eui, item = id, "from MQTT");
                        return Ok(());
                    }
                    Err(NotQueued::Later(error)) => return Err(error),
                    Err(NotQueued::Never(why)) => (why, "UNKNOWN"),
                }
            }
            Err(error) => (error.to_string(), error.code()),
        };
        tracing::warn!(DevEUI = %dev_eui, "a downlink command is dropped: {why}");
        let told = self.delivery.events.log(&device, Level::Warning, code, &why, None, clock.wall());
        self.delivery.put(told).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_named_with_or_without_its_port() {
        let server = |text: &str| Server::try_from(text.to_string()).map(String::from);
        assert_eq!(server("mqtt://broker.example"), Ok("mqtt://broker.example:1883".into()));
        assert_eq!(server("mqtt://[::1]:1884/"), Ok("mqtt://[::1]:1884".into()));
        assert_eq!(server("mqtts://broker.example"), Ok("mqtts://broker.example:8883".into()));
        for bad in ["", "broker.example:1883", "http://broker.example", "mqtt://", "mqtt://a/b", "mqtt://a?b"]
        {
            assert!(server(bad).is_err(), "{bad}");
        }
        let error = server("mqtt://me:secret@broker.example").unwrap_err();
        assert!(error.contains("password_file") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_flight_knows_what_the_broker_surely_has() {
        let mut flight = Flight { ids: vec![7, 8, 9], taken: vec![false; 3] };
        flight.acknowledged(0);
        flight.acknowledged(4);
        assert_eq!((flight.taken(), flight.landed()), (None, false));
        flight.acknowledged(1);
        // a broker that acknowledges out of order proves nothing about what it left out
        flight.acknowledged(3);
        assert_eq!((flight.taken(), flight.landed()), (Some(7), false));
        flight.acknowledged(2);
        assert_eq!((flight.taken(), flight.landed()), (Some(9), true));
        assert!(Flight::default().landed());
    }
}
