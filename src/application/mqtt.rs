//! The MQTT sink: events published to a broker, commands taken from it.
//!
//! Every connection is a new one for the library, so that nothing waits in its memory: what the broker has not
//! acknowledged is in the outbox and nowhere else. Events go with QoS 1, a few at a time and in order; a broken connection
//! may bring those few once more.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use reqwest::Url;
use rumqttc::{
    AsyncClient, ClientError, ConnectionError, Event as Happening, EventLoop, MqttOptions, Packet, Publish,
    QoS, StateError, SubscribeReasonCode,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::event::{self, Level};
use super::outbox::Sink;
use super::{Commands, Delivery, NotQueued};
use crate::backend::door::StoreError;

/// Events under way at once.
const BATCH: u32 = 32;
/// A broker that has not acknowledged them by then is left.
const ACK_TIME: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Between two tries, first and longest.
const PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// The longest command, and the longest event, in bytes.
const PACKETS: [usize; 2] = [64 * 1024, 1024 * 1024];

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
}

/// `mqtt://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Server {
    host: String,
    port: u16,
}

impl TryFrom<String> for Server {
    type Error = String;
    fn try_from(text: String) -> Result<Server, String> {
        let form = "write mqtt://HOST or mqtt://HOST:PORT";
        let url = Url::parse(&text).map_err(|error| format!("{text:?} is no address ({error}): {form}"))?;
        match url.scheme() {
            "mqtt" => {}
            "mqtts" | "ssl" | "tls" => {
                return Err("MQTT over TLS is not in this version: let a broker on this machine, \
                            reached with mqtt://, bridge to the one that wants TLS"
                    .into());
            }
            scheme => return Err(format!("{scheme:?} is no way to a broker: {form}")),
        }
        let plain = url.username().is_empty() && url.password().is_none();
        let whole = url.query().is_none() && url.fragment().is_none() && matches!(url.path(), "" | "/");
        match url.host_str() {
            // not repeated: it may hold a password
            _ if !plain => {
                Err("the address holds a name or a password: use username and password_file".into())
            }
            Some(host) if whole && !host.is_empty() => {
                Ok(Server { host: host.into(), port: url.port().unwrap_or(1883) })
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
        write!(to, "mqtt://{}:{}", self.host, self.port)
    }
}

/// Why a connection to the broker ended, or was none.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// Nobody there, refused, or gone.
    #[error("{0}")]
    Connection(#[from] Box<ConnectionError>),
    /// The library's queue.
    #[error("{0}")]
    Client(#[from] Box<ClientError>),
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
    /// The broker's fault.
    #[error("it acknowledged no event within {} s", ACK_TIME.as_secs())]
    Silent,
    /// The connection's other half has ended.
    #[error("the connection has ended")]
    Ended,
    /// Bytes that the library was not made for.
    #[error("the MQTT library failed")]
    Failed,
}

impl Broken {
    /// The broker sent what cannot be read. Were it kept for us there, it would come again with every connection.
    fn is_unreadable(&self) -> bool {
        let Broken::Connection(error) = self else { return matches!(self, Broken::Failed) };
        matches!(**error, ConnectionError::MqttState(StateError::Deserialization(_)))
    }
}

/// Events that the broker has, or is about to get.
#[derive(Debug, Default)]
struct Flight {
    /// In the order in which they were published.
    ids: Vec<u64>,
    /// A broker acknowledges in the order of publishing (MQTT 3.1.1, 4.6).
    acknowledged: usize,
}

impl Flight {
    /// The last event that the broker surely has.
    fn taken(&self) -> Option<u64> {
        let last = self.acknowledged.checked_sub(1)?;
        self.ids.get(last).copied()
    }
    fn landed(&self) -> bool {
        self.acknowledged >= self.ids.len()
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
        let (client, mut line) = AsyncClient::new(self.options(anew)?, 2 * BATCH as usize + 16);
        let (tells, heard) = mpsc::channel(64);
        // Polling must not be interrupted, or it would begin to connect anew: it is a loop of its own.
        let pump = pin!(pump(&mut line, tells));
        let work = pin!(self.work(&client, heard, flight, connected));
        tokio::select! {
            ended = pump => ended,
            ended = work => ended,
        }
    }

    fn options(&self, anew: bool) -> Result<MqttOptions, Broken> {
        let id = self.config.client_id.clone().unwrap_or_else(|| self.client_id.clone());
        let mut options = MqttOptions::new(id, self.config.server.host.clone(), self.config.server.port);
        let [command, event] = PACKETS;
        options
            .set_keep_alive(KEEP_ALIVE)
            // commands that come while we are away wait at the broker
            .set_clean_session(anew)
            // a command is acknowledged when it is in the queue
            .set_manual_acks(true)
            .set_max_packet_size(command, event);
        if let Some(username) = &self.config.username {
            let password = match &self.config.password_file {
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|why| Broken::Password { path: path.clone(), why })?,
                None => String::new(),
            };
            options.set_credentials(username, password.trim_end_matches(['\r', '\n']));
        }
        Ok(options)
    }

    async fn work(
        &self,
        client: &AsyncClient,
        mut heard: mpsc::Receiver<Happening>,
        flight: &mut Flight,
        connected: &mut bool,
    ) -> Result<std::convert::Infallible, Broken> {
        let clock = &self.delivery.clock;
        let mut until = clock.now();
        loop {
            if *connected && flight.landed() {
                *flight = self.publish_next(client).await?;
                until = clock.now() + ACK_TIME;
            }
            tokio::select! {
                happened = heard.recv() => match happened.ok_or(Broken::Ended)? {
                    Happening::Incoming(Packet::ConnAck(_)) => {
                        tracing::info!("connected to {}", self.config.server);
                        let filter = self.delivery.events.command_filter();
                        client.subscribe(filter, QoS::AtLeastOnce).await.map_err(Box::new)?;
                        *connected = true;
                    }
                    Happening::Incoming(Packet::SubAck(answer))
                        if answer.return_codes.contains(&SubscribeReasonCode::Failure) =>
                    {
                        tracing::warn!("{} refuses the subscription to {}: no downlinks from there",
                            self.config.server, self.delivery.events.command_filter());
                    }
                    Happening::Incoming(Packet::PubAck(_)) => {
                        flight.acknowledged += 1;
                        if flight.landed() && let Some(up_to) = flight.taken() {
                            self.delivery.outbox.taken(Sink::Mqtt, up_to).await?;
                        }
                    }
                    Happening::Incoming(Packet::Publish(message)) => {
                        self.obey(&message).await?;
                        client.ack(&message).await.map_err(Box::new)?;
                    }
                    _ => {}
                },
                () = self.delivery.mqtt.notified(), if *connected && flight.landed() => {}
                () = clock.sleep_until(until), if !flight.landed() => return Err(Broken::Silent),
            }
        }
    }

    /// Publish what waits longest.
    async fn publish_next(&self, client: &AsyncClient) -> Result<Flight, Broken> {
        let mut flight = Flight::default();
        for waiting in self.delivery.outbox.first(Sink::Mqtt, BATCH).await? {
            let topic = self.delivery.events.topic(&waiting.event);
            let published = client.publish(topic, QoS::AtLeastOnce, false, waiting.event.body).await;
            published.map_err(Box::new)?;
            flight.ids.push(waiting.id);
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

async fn pump(
    line: &mut EventLoop,
    tells: mpsc::Sender<Happening>,
) -> Result<std::convert::Infallible, Broken> {
    loop {
        let happened = line.poll().await.map_err(Box::new)?;
        tells.send(happened).await.map_err(|_| Broken::Ended)?;
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
        assert!(server("mqtts://broker.example").unwrap_err().contains("TLS"));
        for bad in ["", "broker.example:1883", "http://broker.example", "mqtt://", "mqtt://a/b", "mqtt://a?b"]
        {
            assert!(server(bad).is_err(), "{bad}");
        }
        let error = server("mqtt://me:secret@broker.example").unwrap_err();
        assert!(error.contains("password_file") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_flight_knows_what_the_broker_surely_has() {
        let mut flight = Flight { ids: vec![7, 8], acknowledged: 0 };
        assert_eq!((flight.taken(), flight.landed()), (None, false));
        flight.acknowledged = 1;
        assert_eq!((flight.taken(), flight.landed()), (Some(7), false));
        flight.acknowledged = 2;
        assert_eq!((flight.taken(), flight.landed()), (Some(8), true));
        assert!(Flight::default().landed());
    }
}
