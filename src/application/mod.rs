//! Our application server: decrypt, deliver, encrypt downlinks.
//!
//! Opens AppSKey envelopes, which no network server can. An uplink is delivered when its event is in the outbox; from
//! there `mqtt` and `http` take it to the world in their own time. Without a sink the log is the application. Knows no
//! frame counters' rules and no radio.

pub mod event;
pub mod http;
pub mod mqtt;
pub mod outbox;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::backend::door::{Boxed, Commit, Deadline, PeerError, Peers, StoreError};
use crate::backend::keywrap::Keks;
use crate::backend::message::{AppSKeyReq, Party};
use crate::clock::{Clock, Instant};
use crate::hns::{Activation, Application, Device, Devices, Notice, QueueItem, Uplink};
use crate::lorawan::crypto::{self, Direction};
use crate::lorawan::{DevAddr, DevEui, JoinEuiRange, Key, NetId, Region};

use event::{Events, Level};
use outbox::{Event, Letter, Outbox, Postman, Sink};

/// Dropped events are told so often at most.
const TOLD: Duration = Duration::from_secs(60);

/// Section `[application]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A UUID, the second level of every topic. By default it follows from our first NetID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// `applicationName` of every event.
    pub name: String,
    /// Events that may wait for a sink.
    pub outbox: u32,
    /// A broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<mqtt::Config>,
    /// A web server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<http::Config>,
}

impl Default for Config {
    fn default() -> Config {
        Config { id: None, name: "roamgate".into(), outbox: 10_000, mqtt: None, http: None }
    }
}

impl Config {
    /// The id in force.
    pub fn id(&self, net_id: NetId) -> Id {
        let from_net_id = || Id(event::derived(format!("application of NetID {net_id}").as_bytes()));
        self.id.clone().unwrap_or_else(from_net_id)
    }
}

/// The UUID of an application, in small letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl TryFrom<String> for Id {
    type Error = String;
    fn try_from(text: String) -> Result<Id, String> {
        match event::is_uuid(&text) {
            true => Ok(Id(text.to_ascii_lowercase())),
            false => Err(format!("{text:?} is no UUID")),
        }
    }
}

impl From<Id> for String {
    fn from(Id(text): Id) -> String {
        text
    }
}

/// Why a downlink command did not get into the queue.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotQueued {
    /// Another try may do.
    #[error(transparent)]
    Later(StoreError),
    /// It never will.
    #[error("{0}")]
    Never(String),
}

/// What applications may do with devices.
pub trait Commands: Send + Sync {
    /// A device of ours.
    fn device(&self, dev_eui: DevEui) -> Boxed<'_, Result<Option<Device>, StoreError>>;
    /// Put a downlink into the device's queue.
    fn enqueue(&self, dev_eui: DevEui, item: QueueItem) -> Boxed<'_, Result<(), NotQueued>>;
}

/// Events on their way out.
pub struct Delivery {
    config: Config,
    events: Events,
    outbox: Arc<dyn Outbox>,
    sinks: Vec<Sink>,
    clock: Clock,
    /// Something was put into the line.
    mqtt: Notify,
    http: Notify,
    /// Events that no sink will ever get.
    dropped: Dropped,
}

/// Counts, and says when it is time to tell.
#[derive(Debug, Default)]
struct Dropped {
    count: AtomicU64,
    told: std::sync::Mutex<Option<Instant>>,
}

impl Dropped {
    fn add(&self, more: u64) -> u64 {
        self.count.fetch_add(more, Ordering::Relaxed) + more
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = told.is_none_or(|told| now.duration_since(told) >= TOLD);
        if due {
            *told = Some(now);
        }
        due
    }
}

impl Delivery {
    /// What the configuration asks for; `None` where it names no sink.
    pub fn of(
        config: &Config,
        net_id: NetId,
        region: Region,
        outbox: Arc<dyn Outbox>,
        clock: Clock,
    ) -> Option<Delivery> {
        let mqtt = config.mqtt.iter().map(|_| Sink::Mqtt);
        let sinks: Vec<Sink> = mqtt.chain(config.http.iter().map(|_| Sink::Http)).collect();
        let events = Events {
            application_id: config.id(net_id).into(),
            application_name: config.name.clone(),
            region,
        };
        let config = config.clone();
        let (mqtt, http, dropped) = (Notify::new(), Notify::new(), Dropped::default());
        let delivery = Delivery { config, events, outbox, sinks, clock, mqtt, http, dropped };
        (!delivery.sinks.is_empty()).then_some(delivery)
    }

    /// Begin to deliver, in tasks of `tasks`. `client_id` is our name at the broker where none is configured.
    pub fn start(
        self: &Arc<Delivery>,
        client_id: String,
        commands: Arc<dyn Commands>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), http::HttpError> {
        if let Some(config) = &self.config.http {
            let poster = http::Poster::new(config, self.clone())?;
            tasks.spawn(poster.run().in_current_span());
        }
        if let Some(config) = self.config.mqtt.clone() {
            let speaker = mqtt::Speaker { config, client_id, delivery: self.clone(), commands };
            tasks.spawn(speaker.run().in_current_span());
        }
        Ok(())
    }

    /// Events that were dropped since the start: too many waited, or a server refused them for good.
    pub fn dropped(&self) -> u64 {
        self.dropped.count.load(Ordering::Relaxed)
    }

    /// Returns when the event is safe in the outbox.
    async fn put(&self, event: Event) -> Result<(), StoreError> {
        let dropped = self.outbox.put(self.sinks.clone(), event, self.config.outbox).await?;
        self.posted(dropped);
        Ok(())
    }

    fn event(&self, device: &Device, notice: &Notice) -> Event {
        let (events, now) = (&self.events, self.clock.wall());
        match notice {
            Notice::Joined { activation, ul } => events.join(device, activation, ul),
            Notice::Settled { item, fcnt_down, acknowledged } => {
                events.ack(device, item, *fcnt_down, *acknowledged, now)
            }
            Notice::Expired { item } => {
                let why = "the downlink was not sent: its time (expiresAt) is over";
                events.log(device, Level::Error, "EXPIRED", why, Some(item), now)
            }
            Notice::TooLong { item, why } => {
                events.log(device, Level::Warning, "DOWNLINK_PAYLOAD_SIZE", why, Some(item), now)
            }
            Notice::Sent { item, fcnt_down, taken } => events.tx_ack(device, item, *fcnt_down, taken, now),
        }
    }
}

impl Postman for Delivery {
    fn letter(&self, device: &Device, notice: &Notice) -> Letter {
        Letter { sinks: self.sinks.clone(), event: self.event(device, notice), most: self.config.outbox }
    }

    fn posted(&self, dropped: u64) {
        self.mqtt.notify_one();
        self.http.notify_one();
        if dropped > 0 {
            let count = self.dropped.add(dropped);
            if self.dropped.is_due(self.clock.now()) {
                let most = self.config.outbox;
                tracing::warn!(
                    count,
                    "more than {most} events wait for a sink: the oldest are dropped \
                    (the count is since the start); see whether the broker or server of [application] is up"
                );
            }
        }
    }
}

/// The application server of this house.
pub struct App {
    /// Shared with our join server, which wraps AppSKeys for us.
    keks: Keks,
    delivery: Option<Arc<Delivery>>,
    elsewhere: Option<Elsewhere>,
}

/// Join servers of others keep AppSKeys of devices of ours, and give them to who asks (TS002 12.3).
pub struct Elsewhere {
    /// For these JoinEUIs.
    pub join_euis: Vec<JoinEuiRange>,
    /// The way to them.
    pub peers: Arc<dyn Peers>,
    /// Where what they gave is kept.
    pub devices: Arc<dyn Devices>,
    /// Time.
    pub clock: Clock,
}

/// An uplink whose receive windows are open waits for its key; what comes later is tried again.
const PATIENCE: Duration = Duration::from_secs(3);

impl App {
    /// `keks`: what is agreed between our join server and us. Payloads are told in the log alone.
    pub fn new(keks: Keks) -> App {
        App { keks, delivery: None, elsewhere: None }
    }

    /// With sinks.
    pub fn delivering(keks: Keks, delivery: Option<Arc<Delivery>>) -> App {
        App { keks, delivery, elsewhere: None }
    }

    /// With join servers that have to be asked.
    pub fn asking(self, elsewhere: Elsewhere) -> App {
        App { elsewhere: Some(elsewhere), ..self }
    }

    /// The key of an activation: what came with the join, or what its join server says now. `Err` in `Ok`: there is none.
    async fn key_of(
        &self,
        device: &Device,
        activation: &Activation,
    ) -> Result<Result<Key, StoreError>, StoreError> {
        let own = self.app_s_key(activation);
        let asked = self
            .elsewhere
            .as_ref()
            .filter(|elsewhere| elsewhere.join_euis.iter().any(|range| range.contains(device.join_eui)));
        let (Err(_), Some(elsewhere), Some(id)) = (&own, asked, &activation.session_key_id) else {
            return Ok(own);
        };
        let (dev_eui, by) = (device.dev_eui, Deadline(elsewhere.clock.now() + PATIENCE));
        let question = AppSKeyReq { dev_eui, session_key_id: id.clone() };
        let envelope = match elsewhere.peers.ask(Party::Js(device.join_eui), question, by).await {
            Ok(answer) => answer.app_s_key,
            Err(error @ PeerError::Refused { .. }) => return Ok(Err(StoreError(error.to_string()))),
            // it may be there the next time, and the uplink waits so long
            Err(error) => return Err(StoreError(format!("no AppSKey yet: {error}"))),
        };
        let given = Activation { app_s_key: Some(envelope.clone()), ..activation.clone() };
        let key = self.app_s_key(&given);
        if key.is_ok() {
            let id = activation.session_key_id.clone();
            let keep = move |device: &mut Option<Device>| {
                let all = device.iter_mut().flat_map(|device| &mut device.activations);
                let Some(of) = all.into_iter().find(|of| of.session_key_id == id) else {
                    return Commit::Nothing;
                };
                of.app_s_key = Some(envelope.clone());
                Commit::Durable
            };
            elsewhere.devices.with_device(dev_eui, Box::new(keep)).await?;
        }
        Ok(key)
    }

    fn app_s_key(&self, activation: &Activation) -> Result<Key, StoreError> {
        let envelope = activation.app_s_key.as_ref();
        let envelope = envelope.ok_or_else(|| StoreError("the join server gave no AppSKey".into()))?;
        self.keks.open(envelope).map_err(|error| StoreError(format!("AppSKey: {error}")))
    }
}

fn crypt(key: &Key, direction: Direction, addr: DevAddr, fcnt: u32, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    crypto::crypt_payload(key, direction, addr, fcnt, &mut bytes);
    bytes
}

impl Application for App {
    fn uplink(
        &self,
        device: Device,
        activation: Activation,
        up: Uplink,
    ) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let key = match self.key_of(&device, &activation).await? {
                Ok(key) => key,
                // another try would bring the same, so the uplink is told and not kept
                Err(why) => {
                    tracing::warn!(target: "roamgate::frame", milestone = "payload not delivered",
                        DevEUI = %device.dev_eui, FCntUp = up.ul.fcnt_up, why = %why);
                    if let Some(delivery) = &self.delivery {
                        let (now, why) = (delivery.clock.wall(), why.to_string());
                        let event = delivery.events.log(&device, Level::Error, "UNKNOWN", &why, None, now);
                        delivery.put(event).await?;
                    }
                    return Ok(());
                }
            };
            let fcnt_up = up.ul.fcnt_up.unwrap_or_default();
            let payload = crypt(&key, Direction::Up, activation.dev_addr, fcnt_up, &up.frm_payload);
            if let Some(delivery) = &self.delivery {
                delivery.put(delivery.events.up(&device, &activation, &up.ul, &payload)).await?;
            }
            tracing::info!(target: "roamgate::frame", milestone = "payload delivered", DevEUI = %device.dev_eui,
                device = device.name, FPort = up.ul.f_port, FCntUp = fcnt_up, payload = hex::encode(payload));
            Ok(())
        })
    }

    fn notice(&self, device: Device, notice: Notice) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let Some(delivery) = &self.delivery else { return Ok(()) };
            delivery.put(delivery.event(&device, &notice)).await
        })
    }

    fn encrypt(
        &self,
        activation: &Activation,
        fcnt_down: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let key = self.app_s_key(activation)?;
        Ok(crypt(&key, Direction::Down, activation.dev_addr, fcnt_down, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_has_an_id_although_nobody_gave_it_one() {
        let (config, net_id) = (Config::default(), "C00ABC".parse().unwrap());
        assert_eq!(config.id(net_id), config.id(net_id));
        assert_ne!(config.id(net_id), config.id("C00ABD".parse().unwrap()));
        assert!(event::is_uuid(&config.id(net_id).0));
        let given = Id::try_from("52F14CD4-C6F1-4FBD-8F87-4025E1D49242".to_string()).unwrap();
        let config = Config { id: Some(given.clone()), ..config };
        assert_eq!(config.id(net_id), given);
        assert_eq!(given.0, "52f14cd4-c6f1-4fbd-8f87-4025e1d49242");
    }
}
