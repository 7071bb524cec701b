//! The local control socket: the command line's door to a running daemon.
//!
//! Owns the router and the JSON that it speaks: over a Unix socket now, as REST API of the dashboard
//! later. Acts on an [`Operator`] alone; who that is (a running node, or the store while no daemon
//! runs) it does not know.

use serde::{Deserialize, Serialize};

use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::MacVersion;
use crate::hns;
use crate::lorawan::{DevAddr, DevEui, JoinEui, Key, NetId};

/// Downlinks that may wait for one device.
pub const QUEUE_LIMIT: usize = 64;

/// The longest FRMPayload of any region and data rate, in bytes.
pub const PAYLOAD_LIMIT: usize = 242;

/// What an operator may do. Implemented by the running node and by the store alone.
pub trait Operator: Send + Sync {
    /// How the node is.
    fn status(&self) -> Boxed<'_, Result<Status, OperatorError>>;
    /// Make a device ours: its home network and its root keys.
    fn add_device(&self, device: NewDevice) -> Boxed<'_, Result<hns::Device, OperatorError>>;
    /// All devices, by DevEUI.
    fn devices(&self) -> Boxed<'_, Result<Vec<hns::Device>, OperatorError>>;
    /// One device; [`OperatorError::NoDevice`] where there is none.
    fn device(&self, dev_eui: DevEui) -> Boxed<'_, Result<hns::Device, OperatorError>>;
    /// Forget a device, its keys and its sessions.
    fn remove_device(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>>;
    /// Put a downlink into a device's queue (see [`enqueue`] for the decision).
    fn enqueue(&self, dev_eui: DevEui, item: hns::QueueItem) -> Boxed<'_, Result<(), OperatorError>>;
}

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
    /// AppKey: the only root key of a 1.0.x device.
    pub app_key: Key,
    /// The operator's word for it, may be empty.
    pub name: String,
    /// LoRaWAN version of the device.
    pub mac_version: MacVersion,
    /// May activate and talk through other networks.
    pub roaming: bool,
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
    /// Devices whose home we are.
    pub devices: usize,
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

#[allow(unused)]
type Unused = DevAddr;
