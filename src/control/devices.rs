//! Devices in numbers and changes to one: the JSON of import, export and `PATCH`.

use serde::{Deserialize, Serialize};

use super::{AddDevice, Class, GivenSession, OperatorError, check_name, invalid};
use crate::lorawan::{DevEui, JoinEui, NetId};

/// Body of `POST /v1/devices/import`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportDevices {
    /// All of them or none.
    pub devices: Vec<AddDevice>,
    /// Only look whether it could be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to an import that could be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// How many were asked for.
    pub devices: usize,
    /// `false`: it was a dry run.
    pub written: bool,
}

/// A device of an import that cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowTrouble {
    /// Its place in the list, from 0.
    pub row: usize,
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub remedy: String,
}

impl RowTrouble {
    pub(super) fn new(row: usize, error: &OperatorError) -> RowTrouble {
        RowTrouble { row, error: error.to_string(), remedy: error.remedy() }
    }
}

/// A device as it is exported: what an import needs to make the same one. No `Debug`, for it may hold a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server; a personalised device may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_eui: Option<JoinEui>,
    /// 32 hexadecimal digits; only where keys were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_key: Option<String>,
    /// 32 hexadecimal digits, of a 1.1 device; only where keys were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nwk_key: Option<String>,
    /// The operator's word for it.
    pub name: String,
    /// LoRaWAN version.
    pub mac_version: String,
    /// May activate and talk through other networks.
    pub roaming: bool,
    /// May activate and talk at all.
    pub enabled: bool,
    /// What it is declared to be, where that is not class A.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// NetID of its home network, where that is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<NetId>,
    /// Of a personalised device; its keys only where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<GivenSession>,
}

/// Body of `PATCH /v1/devices/{dev_eui}`: what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeDevice {
    /// The operator's word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// May activate and talk through other networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roaming: Option<bool>,
    /// May activate and talk at all. `false` ends its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What it is declared to be. A session of 1.0.x that runs follows at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Forget the DevNonces that it has used: it lost its state and begins anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forget_nonces: bool,
}

impl ChangeDevice {
    pub(super) fn check(self) -> Result<ChangeDevice, OperatorError> {
        if self == ChangeDevice::default() {
            let what = "name, roaming, enabled, class or forget_nonces";
            return Err(invalid("nothing is to be changed", what));
        }
        let name = self.name.map(check_name).transpose()?;
        Ok(ChangeDevice { name, ..self })
    }
}

/// Body of `POST /v1/devices/{dev_eui}/rejoin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejoin {
    /// Rejoin Type: 0, or 2 where the device keeps its channels and the network that serves it.
    #[serde(rename = "type", default)]
    pub kind: u8,
}

impl Rejoin {
    pub(super) fn check(self) -> Result<Rejoin, OperatorError> {
        match self.kind {
            0 | 2 => Ok(self),
            kind => {
                Err(invalid(format!("a device cannot be told to rejoin with type {kind}"), "type 0 or 2"))
            }
        }
    }
}

/// Its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// NetID that serves the device, where that is not ours.
    pub served_by: Option<NetId>,
}
