//! Join server: root keys, nonces, session keys.

pub mod config;

use std::collections::BTreeSet;

use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::MacVersion;
use crate::lorawan::{DevEui, JoinEui, Key, NetId};

/// A device whose root keys we hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Identity.
    pub dev_eui: DevEui,
    /// The JoinEUI it joins with.
    pub join_eui: JoinEui,
    /// LoRaWAN version of the device: decides the DevNonce rule (TS002 11.6).
    pub mac_version: MacVersion,
    /// AppKey (1.0.x: for everything).
    pub app_key: Key,
    /// NwkKey (1.1 only).
    pub nwk_key: Option<Key>,
    /// Its home network: HNetID.
    pub home: NetId,
    /// May join.
    pub enabled: bool,
    /// DevNonces used with this JoinEUI: all of them up to 1.0.3, the highest one from 1.0.4 on.
    pub dev_nonces: BTreeSet<u16>,
    /// Last JoinNonce given out; the first is 1, 24 bits.
    pub join_nonce: u32,
}

/// A decision over one device, `None` where there is none; changes it in place. May run twice.
pub type Decide = Box<dyn Fn(&mut Option<Device>) -> Commit + Send + Sync>;

/// Root keys and nonces at rest, root keys encrypted.
pub trait RootKeys: Send + Sync {
    /// Read, decide, write, return.
    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>>;
}
