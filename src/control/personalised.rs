//! Devices that were given their session (ABP): what must be known of one, and of no other.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{OperatorError, invalid};
use crate::backend::message::{MacVersion, NwkKeys};
use crate::lorawan::{DevAddr, DevEui, JoinEui, Key};

/// A personalised device to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPersonalised {
    /// Identity.
    pub dev_eui: DevEui,
    /// Zero where the device has none.
    pub join_eui: JoinEui,
    /// The operator's word for it, may be empty.
    pub name: String,
    /// LoRaWAN version of the device.
    pub mac_version: MacVersion,
    /// May talk through other networks.
    pub roaming: bool,
    /// Its address.
    pub dev_addr: DevAddr,
    /// Its network session keys, as its version has them.
    pub keys: NwkKeys,
    /// AppSKey.
    pub app_s_key: Key,
    /// Where its counters stand.
    pub counters: Counters,
}

/// How far the counters of a session have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Last FCntUp; `None`: the device has not spoken.
    pub fcnt_up: Option<u32>,
    /// Next FCntDown, in 1.1 the next NFCntDown.
    pub fcnt_down: u32,
    /// Next AFCntDown, of 1.1.
    pub a_fcnt_down: u32,
}

/// The session of a personalised device, as JSON. No `Debug`, for it holds keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenSession {
    /// Its address.
    pub dev_addr: DevAddr,
    /// NwkSKey of 1.0.x.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nwk_s_key: Option<String>,
    /// FNwkSIntKey of 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f_nwk_s_int_key: Option<String>,
    /// SNwkSIntKey of 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s_nwk_s_int_key: Option<String>,
    /// NwkSEncKey of 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nwk_s_enc_key: Option<String>,
    /// AppSKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_s_key: Option<String>,
    /// Last FCntUp; absent where the device has not spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fcnt_up: Option<u32>,
    /// Next FCntDown, in 1.1 the next NFCntDown; 0 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fcnt_down: Option<u32>,
    /// Next AFCntDown, of 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a_fcnt_down: Option<u32>,
}

impl GivenSession {
    /// The session of a device; its keys only where they are asked for.
    pub fn of(device: &NewPersonalised, with_keys: bool) -> GivenSession {
        let text = |key: &Key| with_keys.then(|| hex::encode_upper(key.expose()));
        let (nwk_s_key, f_int, s_int, enc) = match &device.keys {
            NwkKeys::V10 { nwk_s_key } => (text(nwk_s_key), None, None, None),
            NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key } => {
                (None, text(f_nwk_s_int_key), text(s_nwk_s_int_key), text(nwk_s_enc_key))
            }
        };
        let Counters { fcnt_up, fcnt_down, a_fcnt_down } = device.counters;
        let is_1_1 = device.mac_version >= MacVersion::V1_1;
        GivenSession {
            dev_addr: device.dev_addr,
            nwk_s_key,
            f_nwk_s_int_key: f_int,
            s_nwk_s_int_key: s_int,
            nwk_s_enc_key: enc,
            app_s_key: text(&device.app_s_key),
            fcnt_up,
            fcnt_down: Some(fcnt_down),
            a_fcnt_down: is_1_1.then_some(a_fcnt_down),
        }
    }

    /// Its keys by their names, as its version has them.
    pub fn keys(&self) -> [(&'static str, Option<&str>); 5] {
        [
            ("nwk_s_key", self.nwk_s_key.as_deref()),
            ("f_nwk_s_int_key", self.f_nwk_s_int_key.as_deref()),
            ("s_nwk_s_int_key", self.s_nwk_s_int_key.as_deref()),
            ("nwk_s_enc_key", self.nwk_s_enc_key.as_deref()),
            ("app_s_key", self.app_s_key.as_deref()),
        ]
    }

    /// Which keys a version has: all of them, and no other.
    pub(super) fn check(self, mac_version: MacVersion) -> Result<Checked, OperatorError> {
        let needed: &[&str] = match mac_version {
            MacVersion::V1_1 => &["f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key", "app_s_key"],
            _ => &["nwk_s_key", "app_s_key"],
        };
        let remedy = "1.0.x has nwk_s_key and app_s_key; 1.1 has f_nwk_s_int_key, s_nwk_s_int_key, nwk_s_enc_key \
                      and app_s_key";
        for (name, key) in self.keys() {
            if key.is_some() != needed.contains(&name) {
                let is = if key.is_some() { "no key of it" } else { "missing" };
                return Err(invalid(
                    format!("a personalised LoRaWAN {mac_version} device: {name} is {is}"),
                    remedy,
                ));
            }
        }
        let key = |name: &str, text: &Option<String>| -> Result<Key, OperatorError> {
            let text = Zeroizing::new(text.clone().unwrap_or_default());
            text.trim().parse().map_err(|error: crate::lorawan::key::KeyError| {
                invalid(format!("{name}: {error}"), "32 hexadecimal digits, as the device was given them")
            })
        };
        let keys = match mac_version {
            MacVersion::V1_1 => NwkKeys::V11 {
                s_nwk_s_int_key: key("s_nwk_s_int_key", &self.s_nwk_s_int_key)?,
                f_nwk_s_int_key: key("f_nwk_s_int_key", &self.f_nwk_s_int_key)?,
                nwk_s_enc_key: key("nwk_s_enc_key", &self.nwk_s_enc_key)?,
            },
            _ => NwkKeys::V10 { nwk_s_key: key("nwk_s_key", &self.nwk_s_key)? },
        };
        let counters = Counters {
            fcnt_up: self.fcnt_up,
            fcnt_down: self.fcnt_down.unwrap_or(0),
            a_fcnt_down: self.a_fcnt_down.unwrap_or(0),
        };
        let app_s_key = key("app_s_key", &self.app_s_key)?;
        Ok(Checked { dev_addr: self.dev_addr, keys, app_s_key, counters })
    }
}

/// What a session is, read.
pub(super) struct Checked {
    pub dev_addr: DevAddr,
    pub keys: NwkKeys,
    pub app_s_key: Key,
    pub counters: Counters,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> GivenSession {
        GivenSession {
            dev_addr: "FC00ABCD".parse().unwrap(),
            nwk_s_key: Some("2B".repeat(16)),
            f_nwk_s_int_key: None,
            s_nwk_s_int_key: None,
            nwk_s_enc_key: None,
            app_s_key: Some("2C".repeat(16)),
            fcnt_up: Some(7),
            fcnt_down: Some(3),
            a_fcnt_down: None,
        }
    }

    #[test]
    fn each_version_has_its_keys_and_no_other() {
        let why = |given: GivenSession, version| given.check(version).err().map(|error| error.to_string());
        assert_eq!(why(given(), MacVersion::V1_0_3), None);
        let said = why(given(), MacVersion::V1_1).unwrap();
        assert_eq!(said, "a personalised LoRaWAN 1.1 device: nwk_s_key is no key of it");
        let without = GivenSession { app_s_key: None, ..given() };
        let said = why(without, MacVersion::V1_0).unwrap();
        assert_eq!(said, "a personalised LoRaWAN 1.0 device: app_s_key is missing");
        let short = GivenSession { nwk_s_key: Some("2B".into()), ..given() };
        let said = why(short, MacVersion::V1_0_4).unwrap();
        assert!(said.starts_with("nwk_s_key: ") && !said.contains("2B"), "{said}");
        let three = GivenSession {
            nwk_s_key: None,
            f_nwk_s_int_key: Some("01".repeat(16)),
            s_nwk_s_int_key: Some("02".repeat(16)),
            nwk_s_enc_key: Some("03".repeat(16)),
            ..given()
        };
        let read = three.check(MacVersion::V1_1).ok().unwrap();
        assert!(
            matches!(read.keys, NwkKeys::V11 { f_nwk_s_int_key, .. } if f_nwk_s_int_key == Key::new([1; 16]))
        );
    }
}
