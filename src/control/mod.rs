//! The local control socket: the command line's door to a running daemon.
//!
//! Owns the router and the JSON that it speaks, over a Unix socket now, as REST API of the dashboard
//! later, and the client for it. Acts on an [`Operator`] alone; who that is (a running node, or the store while no daemon
//! runs) it does not know.

mod client;
mod devices;
mod partners;
mod personalised;
mod router;
mod socket;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::{ClassMode, MacVersion, UnknownMacVersion};
use crate::backup::archive::{Lock, Recipient};
use crate::clock::Clock;
use crate::discovery::cache::Line;
use crate::hns;
use crate::lorawan::{DevAddr, DevEui, JoinEui, Key, NetId};
use crate::radio::sx1302::model::Modelled;
use crate::tls::signed::Signed;

pub use client::{Client, ClientError, Method};
pub use devices::{ChangeDevice, DeviceRecord, ImportDevices, ImportReport, Rejoin, RowTrouble, Served};
pub use partners::{Everybody, PartnerView, PartnersView, Whereabouts};
pub use personalised::{Counters, GivenSession, NewPersonalised};
pub use router::router;
pub use socket::{Socket, SocketError};
pub use usage::UsageView;

/// Downlinks that may wait for one device.
pub const QUEUE_LIMIT: usize = 64;

/// The longest FRMPayload of any region and data rate, in bytes.
pub const PAYLOAD_LIMIT: usize = 242;

/// What an operator may do. Implemented by the running node and by the store alone.
pub trait Operator: Send + Sync {
    /// How the node is.
    fn status(&self) -> Boxed<'_, Result<Status, OperatorError>>;
    /// Whether what makes this node work is well now.
    fn health(&self) -> Boxed<'_, Result<Health, OperatorError>>;
    /// The model that is this node's radio, if one is.
    fn model(&self) -> Option<Modelled>;
    /// Make a device ours: its home network and its root keys.
    fn add_device(&self, device: NewDevice) -> Boxed<'_, Result<(), OperatorError>>;
    /// All devices, by DevEUI.
    fn devices(&self) -> Boxed<'_, Result<Vec<DeviceView>, OperatorError>>;
    /// One device; [`OperatorError::NoDevice`] where there is none.
    fn device(&self, dev_eui: DevEui) -> Boxed<'_, Result<hns::Device, OperatorError>>;
    /// Forget a device, its keys and its sessions.
    fn remove_device(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>>;
    /// Make many devices ours, all or none. Answers which of them (by place) cannot be and why; none was
    /// written then. `dry_run`: none is written anyway.
    fn add_devices(&self, devices: Vec<Import>, dry_run: bool) -> Boxed<'_, Result<Wrong, OperatorError>>;
    /// All devices, by DevEUI, as [`Operator::add_devices`] takes them; root keys only where they are asked for.
    fn export_devices(&self, keys: bool) -> Boxed<'_, Result<Vec<DeviceRecord>, OperatorError>>;
    /// Change what an operator decides about a device. Running sessions follow.
    fn change_device(&self, dev_eui: DevEui, change: ChangeDevice) -> Boxed<'_, Result<(), OperatorError>>;
    /// Take a personalised device's next uplink counter whatever it is.
    fn reset_counter(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>>;
    /// Have a device send a Rejoin-request (LoRaWAN 1.1): `kind` 0 for everything anew, and back home where another network
    /// serves it, 2 for other keys and another address. Answers who serves it, where that is not us.
    fn rejoin(&self, dev_eui: DevEui, kind: u8) -> Boxed<'_, Result<Option<NetId>, OperatorError>>;
    /// Who may roam how.
    fn partners(&self) -> Boxed<'_, Result<PartnersView, OperatorError>>;
    /// What applies to one network, listed or not.
    fn partner(&self, net_id: NetId) -> Boxed<'_, Result<PartnerView, OperatorError>>;
    /// Read certificate, key, roots and lists of revoked certificates again; says what is shown now.
    fn reload(&self) -> Boxed<'_, Result<String, OperatorError>>;
    /// Everything that makes this node this node, in one locked file.
    fn backup(&self, lock: Lock) -> Boxed<'_, Result<Vec<u8>, OperatorError>>;
    /// What the DNS has said of names.
    fn names(&self) -> Boxed<'_, Result<Vec<Line>, OperatorError>>;
    /// Forget what it has said of one name, or of all; how many were forgotten.
    fn forget_names(&self, name: Option<String>) -> Boxed<'_, Result<usize, OperatorError>>;
    /// What visitors were carried in a month, YYYY-MM.
    fn usage(&self, month: String) -> Boxed<'_, Result<UsageView, OperatorError>>;
    /// The same for one network, signed; of a month that is over.
    fn statement(&self, month: String, net_id: NetId) -> Boxed<'_, Result<Signed, OperatorError>>;
    /// Put a downlink into a device's queue (see [`enqueue`] for the decision).
    fn enqueue(&self, dev_eui: DevEui, item: hns::QueueItem) -> Boxed<'_, Result<(), OperatorError>>;
}

/// `POST /v1/backup`: who can open it.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MakeBackup {
    /// Recipients of age.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<Recipient>,
    /// Whoever knows this; instead of recipients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Zeroizing<String>>,
}

impl MakeBackup {
    /// How it is locked.
    pub fn lock(self) -> Result<Lock, OperatorError> {
        match (self.recipients.is_empty(), self.passphrase) {
            (false, None) => Ok(Lock::Recipients(self.recipients)),
            (true, Some(text)) if !text.trim().is_empty() => Ok(Lock::passphrase(&text)),
            _ => Err(OperatorError::Invalid {
                reason: "a backup is locked either for recipients or with a passphrase".into(),
                remedy: "`roamgate backup key` makes a key and its recipient".into(),
            }),
        }
    }
}

/// Answer to `POST /v1/reload`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// What partners see from now on.
    pub certificate: String,
}

/// Answer to `DELETE /v1/names`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// How many names.
    pub forgotten: usize,
}

/// Devices that cannot be added, by their place in the list.
pub type Wrong = Vec<(usize, OperatorError)>;

/// Why an operator did not get it. Each says whose move it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The operator's move.
    #[error("no device with DevEUI {0}")]
    NoDevice(DevEui),
    /// The operator's move.
    #[error("a device with DevEUI {0} is here already")]
    Exists(DevEui),
    /// The operator's move: wait for the device, or remove it and add it again.
    #[error("{QUEUE_LIMIT} downlinks wait for DevEUI {0} already")]
    QueueFull(DevEui),
    /// The operator's move: a value that cannot be.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The machine's: disk full, damaged file.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for OperatorError {
    fn from(error: StoreError) -> OperatorError {
        OperatorError::Failed(error.to_string())
    }
}

impl OperatorError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            OperatorError::NoDevice(_) => "`roamgate device list` shows those that are here".into(),
            OperatorError::Exists(dev_eui) => {
                format!("`roamgate device show {dev_eui}` shows it; remove it first to add it anew")
            }
            OperatorError::QueueFull(_) => {
                "wait for the device's next uplinks: each takes one downlink along".into()
            }
            OperatorError::Invalid { remedy, .. } => remedy.clone(),
            OperatorError::Failed(_) => "look at the log, and at the disk's free space".into(),
        }
    }
}

/// A device to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server.
    pub join_eui: JoinEui,
    /// AppKey: the only root key of a 1.0.x device. `None`: its join server is elsewhere, and has it.
    pub app_key: Option<Key>,
    /// NwkKey, of a 1.1 device.
    pub nwk_key: Option<Key>,
    /// The operator's word for it, may be empty.
    pub name: String,
    /// LoRaWAN version of the device.
    pub mac_version: MacVersion,
    /// May activate and talk through other networks.
    pub roaming: bool,
    /// Its home network, where that is not ours.
    pub home: Option<NetId>,
}

/// A device to be added as it was elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// What it is.
    pub device: New,
    /// May activate and talk at all.
    pub enabled: bool,
    /// What it is declared to be.
    pub class: ClassMode,
}

/// A device, by the way it comes to its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum New {
    /// It joins (OTAA).
    Joins(NewDevice),
    /// It was given one (ABP).
    Personalised(Box<NewPersonalised>),
}

impl New {
    /// Identity.
    pub fn dev_eui(&self) -> DevEui {
        match self {
            New::Joins(device) => device.dev_eui,
            New::Personalised(device) => device.dev_eui,
        }
    }
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Ours, the first the one we allocate from.
    pub net_ids: Vec<NetId>,
    /// Region of RP002.
    pub region: String,
    /// Roles of TS002, small letters.
    pub roles: Vec<String>,
    /// Whether anything roams.
    pub roaming: bool,
    /// Seconds since the start; absent where no daemon runs.
    pub uptime: Option<u64>,
    /// What each radio is, one line each.
    pub radios: Vec<String>,
    /// Radio heads online.
    pub heads: usize,
    /// How partners reach this node besides at its own port, and whom it is a front for: a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<String>,
    /// What it shows to partners, and certificates that end soon: a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate: Vec<String>,
    /// When the last backup was made, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<u64>,
    /// Nobody has set the clock yet, so nobody roams.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_unset: bool,
    /// Devices whose home we are.
    pub devices: usize,
    /// What was counted since the start, by room: `radio`, `fns` and `store`; empty where no daemon runs.
    #[serde(default)]
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Whether what makes a node work is well: what an update can break, and neither the clock nor the Internet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The store's writer answers.
    pub store: bool,
    /// Each radio, by its name: it lives, and has a head that is online.
    pub radios: BTreeMap<String, bool>,
}

/// A frame for the air around a model of a concentrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelHeard {
    /// PHYPayload, hexadecimal.
    pub phy: String,
    /// Hertz.
    pub frequency: u32,
    /// As Semtech's `datr` writes it.
    pub data_rate: String,
    /// When its last symbol left, microseconds since 1970: whoever plays the device has the same clock, and takes time to say it.
    pub ended_unix_us: i64,
}

/// What a model of a concentrator was told to radiate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSent {
    /// To be asked for next.
    pub next: usize,
    /// What came since.
    pub frames: Vec<ModelFrame>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFrame {
    /// PHYPayload, hexadecimal.
    pub phy: String,
    /// Hertz.
    pub frequency: u32,
    /// As Semtech's `datr` writes it.
    pub data_rate: String,
    /// When its first symbol leaves, microseconds since 1970.
    pub starts_unix_us: i64,
}

/// May this downlink wait for the device? The decision for [`Operator::enqueue`]; may run twice.
pub fn enqueue(
    dev_eui: DevEui,
    device: &mut Option<hns::Device>,
    item: &hns::QueueItem,
) -> (Result<(), OperatorError>, Commit) {
    let Some(device) = device else { return (Err(OperatorError::NoDevice(dev_eui)), Commit::Nothing) };
    if device.queue.len() >= QUEUE_LIMIT {
        return (Err(OperatorError::QueueFull(dev_eui)), Commit::Nothing);
    }
    device.queue.push(item.clone());
    (Ok(()), Commit::Durable)
}

/// A device as JSON. No keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server.
    pub join_eui: JoinEui,
    /// The operator's word for it.
    pub name: String,
    /// LoRaWAN version.
    pub mac_version: String,
    /// May activate and talk at all.
    pub enabled: bool,
    /// May activate and talk through other networks.
    pub roaming: bool,
    /// It was given its session (ABP); `false`: it joins.
    #[serde(default)]
    pub personalised: bool,
    /// What it is declared to be: `A` or `C`.
    #[serde(default)]
    pub class: Class,
    /// Address of the newest activation.
    pub dev_addr: Option<DevAddr>,
    /// When that was: RFC 3339, UTC.
    pub joined: Option<String>,
    /// The newest uplink's counter.
    pub fcnt_up: Option<u32>,
    /// When the last uplink came: RFC 3339, UTC.
    pub last_seen: Option<String>,
    /// NetID through which it came, where that was not ours.
    pub last_via: Option<NetId>,
    /// NetID that serves the newest activation, where that is not ours (handover roaming).
    #[serde(default)]
    pub served_by: Option<NetId>,
    /// NetID of its home network, where that is not ours: this is its join server only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<NetId>,
    /// Downlinks that wait.
    pub waiting: usize,
}

impl From<&hns::Device> for DeviceView {
    fn from(device: &hns::Device) -> DeviceView {
        let newest = device.activations.last();
        DeviceView {
            dev_eui: device.dev_eui,
            join_eui: device.join_eui,
            name: device.name.clone(),
            mac_version: device.mac_version.to_string(),
            enabled: device.enabled,
            roaming: device.roaming,
            personalised: device.personalised,
            class: device.class.into(),
            dev_addr: newest.map(|activation| activation.dev_addr),
            joined: newest.and_then(|activation| date(activation.created)),
            fcnt_up: newest.and_then(|activation| activation.fcnt_up),
            last_seen: device.last_seen.and_then(date),
            last_via: device.last_via,
            served_by: newest.and_then(|activation| activation.sns),
            home: device.home,
            waiting: device.queue.len(),
        }
    }
}

fn date(unix: u64) -> Option<String> {
    let timestamp = Timestamp::from_second(i64::try_from(unix).ok()?).ok()?;
    Some(timestamp.to_string())
}

/// A downlink as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownlinkView {
    /// A UUID.
    pub id: String,
    /// 1 to 223.
    pub f_port: u8,
    /// Hexadecimal.
    pub payload: String,
    /// Wants the device's acknowledgement.
    pub confirmed: bool,
    /// Sent with this FCntDown and not acknowledged yet.
    pub sent_as: Option<u32>,
    /// How often it was sent.
    pub attempts: u32,
}

impl From<&hns::QueueItem> for DownlinkView {
    fn from(item: &hns::QueueItem) -> DownlinkView {
        DownlinkView {
            id: item.id.clone(),
            f_port: item.f_port,
            payload: hex::encode_upper(&item.payload),
            confirmed: item.confirmed,
            sent_as: item.sent_as,
            attempts: item.attempts,
        }
    }
}

/// A class of devices, as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Class {
    #[default]
    #[serde(alias = "a")]
    A,
    #[serde(alias = "c")]
    C,
}

impl From<ClassMode> for Class {
    fn from(class: ClassMode) -> Class {
        if class == ClassMode::C { Class::C } else { Class::A }
    }
}

impl From<Class> for ClassMode {
    fn from(class: Class) -> ClassMode {
        if class == Class::C { ClassMode::C } else { ClassMode::A }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(if *self == Class::C { "C" } else { "A" })
    }
}

impl std::str::FromStr for Class {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Class, &'static str> {
        match text {
            "A" | "a" => Ok(Class::A),
            "C" | "c" => Ok(Class::C),
            _ => Err("A or C"),
        }
    }
}

/// Body of `POST /v1/devices`. A device joins and has JoinEUI and root key, or was given a session.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDevice {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_eui: Option<JoinEui>,
    /// 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_key: Option<String>,
    /// 32 hexadecimal digits; of a 1.1 device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nwk_key: Option<String>,
    /// The session of a personalised device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<GivenSession>,
    /// `A` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The operator's word for it.
    #[serde(default)]
    pub name: String,
    /// Where none is given, `1.1` with NwkKey and `1.0.4` without.
    pub mac_version: Option<String>,
    /// `true` where nothing is said.
    pub roaming: Option<bool>,
    /// `true` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// NetID of its home network, where that is not ours: then this is its join server only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<NetId>,
}

/// Body of `POST /v1/devices/{dev_eui}/queue`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDownlink {
    /// 1 to 223.
    pub f_port: u8,
    /// Hexadecimal.
    pub payload: String,
    /// Wants the device's acknowledgement.
    #[serde(default)]
    pub confirmed: bool,
}

/// Every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub remedy: String,
    /// Of an import: every row that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowTrouble>,
}

impl AddDevice {
    fn check(self) -> Result<Import, OperatorError> {
        let key = |name: &str, text: String| -> Result<Key, OperatorError> {
            let text = Zeroizing::new(text);
            text.trim().parse().map_err(|e: crate::lorawan::key::KeyError| {
                invalid(format!("{name}: {e}"), "the maker of the device gives it along with the DevEUI")
            })
        };
        let nwk_key = self.nwk_key.map(|text| key("NwkKey", text)).transpose()?;
        let has_1_1 = |session: &GivenSession| session.f_nwk_s_int_key.is_some();
        let is_1_1 = nwk_key.is_some() || self.session.as_ref().is_some_and(has_1_1);
        let default = if is_1_1 { "1.1" } else { "1.0.4" };
        let version = self.mac_version.as_deref().unwrap_or(default);
        let mac_version = version.parse().map_err(|error: UnknownMacVersion| {
            invalid(error.to_string(), "one of 1.0, 1.0.1, 1.0.2, 1.0.3, 1.0.4, 1.1; the data sheet tells")
        })?;
        let name = check_name(self.name)?;
        let (enabled, roaming) = (self.enabled.unwrap_or(true), self.roaming.unwrap_or(true));
        let (dev_eui, class) = (self.dev_eui, self.class.unwrap_or_default().into());
        if let Some(session) = self.session {
            if self.app_key.is_some() || nwk_key.is_some() {
                let reason = "a personalised device does not join: it has no root key";
                return Err(invalid(reason, "leave out the root keys, or the session"));
            }
            if self.home.is_some() {
                let reason = "a personalised device of another network has nothing to do with a join server";
                return Err(invalid(reason, "give it to its home network, or leave home out"));
            }
            let personalised::Checked { dev_addr, keys, app_s_key, counters } = session.check(mac_version)?;
            let join_eui = self.join_eui.unwrap_or(JoinEui::from_msb([0; 8]));
            let device = NewPersonalised {
                dev_eui,
                join_eui,
                name,
                mac_version,
                roaming,
                dev_addr,
                keys,
                app_s_key,
                counters,
            };
            return Ok(Import { device: New::Personalised(Box::new(device)), enabled, class });
        }
        let needed = |what: &str| {
            invalid(format!("{what} is missing"), "the maker of the device gives it along with the DevEUI")
        };
        let join_eui = self.join_eui.ok_or_else(|| needed("join_eui"))?;
        let app_key = self.app_key.map(|text| key("AppKey", text)).transpose()?;
        let device =
            NewDevice { dev_eui, join_eui, app_key, nwk_key, name, mac_version, roaming, home: self.home };
        Ok(Import { device: New::Joins(device), enabled, class })
    }
}

fn check_name(name: String) -> Result<String, OperatorError> {
    if name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(invalid("the name is too long or has control characters", "100 characters at most"));
    }
    Ok(name)
}

impl AddDownlink {
    fn check(self, clock: &Clock) -> Result<hns::QueueItem, OperatorError> {
        let AddDownlink { f_port, payload, confirmed } = self;
        if !(1..=223).contains(&f_port) {
            return Err(invalid(format!("FPort {f_port} is not for applications"), "use 1 to 223"));
        }
        let payload = hex::decode(payload.trim()).map_err(|error| {
            invalid(format!("the payload is not hexadecimal: {error}"), "two digits a byte")
        })?;
        if payload.len() > PAYLOAD_LIMIT {
            return Err(invalid(
                format!("{} bytes are more than any data rate carries ({PAYLOAD_LIMIT})", payload.len()),
                "send it in parts; 51 bytes pass at every data rate of EU868",
            ));
        }
        Ok(hns::QueueItem {
            id: uuid(clock.random()),
            f_port,
            payload,
            confirmed,
            sent_as: None,
            attempts: 0,
            expires: None,
        })
    }
}

fn invalid(reason: impl Into<String>, remedy: &str) -> OperatorError {
    OperatorError::Invalid { reason: reason.into(), remedy: remedy.into() }
}

/// A random UUID (RFC 9562 version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let text = hex::encode(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}
