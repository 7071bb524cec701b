//! Our application server: decrypt, deliver, encrypt downlinks.
//!
//! Opens AppSKey envelopes, which no network server can. Knows no frame counters' rules and no radio.

use crate::backend::door::{Boxed, StoreError};
use crate::backend::keywrap::Keks;
use crate::hns::{Activation, Application, Device, Uplink};
use crate::lorawan::crypto::{self, Direction};
use crate::lorawan::{DevAddr, Key};

/// The application server of this house.
pub struct App {
    /// Shared with our join server, which wraps AppSKeys for us.
    keks: Keks,
}

impl App {
    /// `keks`: what is agreed between our join server and us.
    pub fn new(keks: Keks) -> App {
        App { keks }
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
            let key = match self.app_s_key(&activation) {
                Ok(key) => key,
                // another try would bring the same, so the uplink is told and not kept
                Err(why) => {
                    tracing::warn!(target: "roamgate::frame", milestone = "payload not delivered",
                        DevEUI = %device.dev_eui, FCntUp = up.ul.fcnt_up, why = %why);
                    return Ok(());
                }
            };
            let fcnt_up = up.ul.fcnt_up.unwrap_or_default();
            let payload = crypt(&key, Direction::Up, activation.dev_addr, fcnt_up, &up.frm_payload);
            tracing::info!(target: "roamgate::frame", milestone = "payload delivered", DevEUI = %device.dev_eui,
                device = device.name, FPort = up.ul.f_port, FCntUp = fcnt_up, payload = hex::encode(payload));
            Ok(())
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
