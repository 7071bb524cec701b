//! Home network server: devices, profiles, the downlink queue, the relations to JS and AS.

mod class_c;
mod delivered;
mod handover_start;
mod handover_stop;
mod profile;
mod uplink;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::door::{self, Boxed, Commit, Peers, StoreError};
use crate::backend::message::{Account, ClassMode, KeyEnvelope, MacVersion, UlMeta, XmitAns};
use crate::clock::{Clock, Instant};
use crate::lorawan::{DevAddr, DevEui, JoinEui, NetId};
use crate::partners;
use crate::usage::{Carried, Kind, Way};

use delivered::Delivered;

/// A device whose home we are.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server.
    pub join_eui: JoinEui,
    /// The operator's word for it.
    pub name: String,
    /// LoRaWAN version of the device.
    pub mac_version: MacVersion,
    /// May activate and talk at all.
    pub enabled: bool,
    /// May activate and talk through other networks.
    pub roaming: bool,
    /// It was given its session (ABP): its one activation, which no join made and no join ends.
    pub personalised: bool,
    /// What the operator declares it to be. Class C: it can be reached without an uplink.
    pub class: ClassMode,
    /// Newest last. Until the first uplink under the newer keys an older one may be in use.
    pub activations: Vec<Activation>,
    /// Downlinks that wait, first to go first. Clear text: a 1.0.x device shares its counter with
    /// MAC-only frames, so nothing can be encrypted ahead of time.
    pub queue: Vec<QueueItem>,
    /// Seconds since 1970 of the last accepted uplink.
    pub last_seen: Option<u64>,
    /// NetID through which the last uplink came, where that was not ours.
    pub last_via: Option<NetId>,
    /// Seconds since 1970 when what a serving network must know of it changed last (DeviceProfileTimestamp).
    pub profile_since: u64,
    /// Its home network, where that is not ours: then only our join server has to do with it, and no room sees it.
    pub home: Option<NetId>,
}

impl Device {
    /// The activation that gave this address.
    pub fn activation(&self, dev_addr: DevAddr) -> Option<&Activation> {
        self.activations.iter().rev().find(|activation| activation.dev_addr == dev_addr)
    }
}

/// What one activation gave the application side.
#[derive(Debug, Clone, PartialEq)]
pub struct Activation {
    /// Address of the session.
    pub dev_addr: DevAddr,
    /// The JS's name for the session.
    pub session_key_id: Option<Vec<u8>>,
    /// Unopened: for the AS.
    pub app_s_key: Option<KeyEnvelope>,
    /// Highest FCntUp that was delivered.
    pub fcnt_up: Option<u32>,
    /// The network that serves this session, where that is not ours (handover roaming).
    pub sns: Option<NetId>,
    /// The last FCntDown that such a network took: a payload is never encrypted for the same one twice.
    pub fcnt_down: Option<u32>,
    /// Seconds since 1970.
    pub created: u64,
}

/// A downlink that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueItem {
    /// For the operator and for events: a UUID.
    pub id: String,
    /// 1 to 223.
    pub f_port: u8,
    /// Clear text.
    pub payload: Vec<u8>,
    /// Wants the device's acknowledgement.
    pub confirmed: bool,
    /// Sent with this FCntDown and not acknowledged yet (confirmed items only).
    pub sent_as: Option<u32>,
    /// How often it was sent.
    pub attempts: u32,
    /// Seconds since 1970 from which on it is not sent any more; `None`: it waits for ever.
    pub expires: Option<u64>,
}

/// A decision over one device, `None` where there is none; changes it in place. May run twice.
pub type Decide = Box<dyn Fn(&mut Option<Device>) -> Commit + Send + Sync>;

/// The same, with what the application must be told if the decision stands.
pub type Telling = Box<dyn Fn(&mut Option<Device>) -> (Commit, Vec<Notice>) + Send + Sync>;

/// A session of ours that another network serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    /// The device.
    pub dev_eui: DevEui,
    /// Address of the session.
    pub dev_addr: DevAddr,
    /// Who serves it.
    pub net_id: NetId,
}

/// What other networks carry of our devices is on record.
pub trait Carriers: Send + Sync {
    /// A frame was carried.
    fn carried_for_us(&self, frame: Carried) -> Boxed<'_, Result<(), StoreError>>;
}

/// Keeps nothing.
impl Carriers for () {
    fn carried_for_us(&self, _: Carried) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Devices at rest.
pub trait Devices: Send + Sync {
    /// Handovers whose session is no more, or is followed by another that has been used, or whose device may not roam any
    /// longer.
    fn ended_handovers(&self) -> Boxed<'_, Result<Vec<Handover>, StoreError>>;
    /// Whoever served it knows: forget it. `false`: it was unknown.
    fn end_handover(&self, handover: Handover) -> Boxed<'_, Result<bool, StoreError>>;
    /// Read, decide, write, return.
    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>>;
    /// The same; the notices are on their way to the application by the same commit, so that no crash comes
    /// between the two. Where there is nobody to tell, they are dropped.
    fn telling(&self, dev_eui: DevEui, decide: Telling) -> Boxed<'_, Result<(), StoreError>> {
        self.with_device(dev_eui, Box::new(move |device| decide(device).0))
    }
}

/// The application server that an uplink goes to.
pub trait Application: Send + Sync {
    /// Take an uplink; returns when it is safe with the application side.
    fn uplink(&self, device: Device, activation: Activation, up: Uplink)
    -> Boxed<'_, Result<(), StoreError>>;
    /// Take note of what else became of a device; returns when that is safe with the application side.
    fn notice(&self, device: Device, notice: Notice) -> Boxed<'_, Result<(), StoreError>> {
        let _ = (device, notice);
        Box::pin(std::future::ready(Ok(())))
    }
    /// Encrypt a queued payload for exactly this counter.
    fn encrypt(&self, activation: &Activation, fcnt_down: u32, payload: &[u8])
    -> Result<Vec<u8>, StoreError>;
}

/// An uplink on its way to the application, still encrypted.
#[derive(Debug, Clone, PartialEq)]
pub struct Uplink {
    /// As the device encrypted it.
    pub frm_payload: Vec<u8>,
    /// FPort, FCntUp, how it was heard.
    pub ul: UlMeta,
}

/// What an application may want to know besides uplinks.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The first uplink of an activation over the air: the device has heard the Join-accept.
    Joined {
        /// What the join gave.
        activation: Activation,
        /// How that uplink was heard.
        ul: UlMeta,
    },
    /// A confirmed downlink has come to its end.
    Settled {
        /// Of the queue item.
        item: String,
        /// It was sent last with this counter.
        fcnt_down: u32,
        /// By the device; else we have given it up.
        acknowledged: bool,
    },
    /// A downlink was given up before it was sent: its time was over.
    Expired {
        /// Of the queue item.
        item: String,
    },
    /// A downlink is longer than the next window allows: it stays in the queue.
    TooLong {
        /// Of the queue item.
        item: String,
        /// In the words of the sNS.
        why: String,
    },
    /// A network has taken a downlink for its radio.
    Sent {
        /// Of the queue item.
        item: String,
        /// It was sent with this counter.
        fcnt_down: u32,
        /// What the network said.
        taken: XmitAns,
    },
}

/// The home network server.
pub struct Hns {
    devices: Arc<dyn Devices>,
    application: Arc<dyn Application>,
    peers: Arc<dyn Peers>,
    clock: Clock,
    /// Devices of class C that something waits for.
    reaching: class_c::Reaching,
    delivered: Mutex<Delivered>,
    abroad: Abroad,
    stopping: handover_stop::Stopping,
    /// Devices that we want back from the network that serves them, and until when their Rejoin-request is awaited.
    regaining: Mutex<BTreeMap<DevEui, Instant>>,
}

/// What the hNS has to know of other networks.
pub struct Abroad {
    /// Our NetIDs; the first is the one we speak as.
    pub ours: Vec<NetId>,
    /// RFRegion of our devices.
    pub region: String,
    /// Who may roam how.
    pub partners: Arc<partners::Config>,
    /// What they carry for us.
    pub carriers: Arc<dyn Carriers>,
}

impl Default for Abroad {
    /// Nobody.
    fn default() -> Abroad {
        let (ours, region, partners) = Default::default();
        Abroad { ours, region, partners, carriers: Arc::new(()) }
    }
}

impl Hns {
    /// With its storage, its application server and its doors.
    pub fn new(
        devices: Arc<dyn Devices>,
        application: Arc<dyn Application>,
        peers: Arc<dyn Peers>,
        clock: Clock,
    ) -> Hns {
        let reaching = class_c::Reaching::default();
        Hns {
            devices,
            application,
            peers,
            clock,
            reaching,
            delivered: Mutex::default(),
            abroad: Abroad::default(),
            stopping: Default::default(),
            regaining: Mutex::default(),
        }
    }

    /// With partners that may serve devices of ours; without, none may.
    pub fn knowing(self, abroad: Abroad) -> Hns {
        Hns { abroad, ..self }
    }

    /// An operator let the uplink counter of a personalised device begin anew.
    pub fn began_anew(&self, dev_eui: DevEui) {
        self.delivered().forget(dev_eui);
    }

    /// A network has carried a frame of a user for us, `via` it.
    async fn note_carried(&self, via: Option<NetId>, activation: &Activation, way: Way, bytes: usize) {
        let Some(net_id) = via else { return };
        let kind = if activation.sns.is_some() { Kind::Handover } else { Kind::Passive };
        let frame = Carried { account: Account::of(net_id), kind, way, bytes, unix: self.clock.unix() };
        if let Err(error) = self.abroad.carriers.carried_for_us(frame).await {
            tracing::warn!(NetID = %net_id, "a frame is missing in the usage records: {error}");
        }
    }

    fn delivered(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn device(&self, dev_eui: DevEui) -> Result<Option<Device>, StoreError> {
        let (decide, slot) = door::decided(|device: &mut Option<Device>| (device.clone(), Commit::Nothing));
        self.devices.with_device(dev_eui, Box::new(decide)).await?;
        door::outcome(&slot)
    }
}
