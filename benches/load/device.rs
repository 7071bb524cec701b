//! End devices, as far as the network sees them: LoRaWAN 1.0.3, home at the home hotspot.

use anyhow::{Context, bail};
use roamgate::demo::federation::HOME;
use roamgate::lorawan::crypto::{self, Direction};
use roamgate::lorawan::{DevAddr, DevEui, Key, NetId};

/// A device.
pub struct Device {
    pub dev_eui: DevEui,
    app_key: [u8; 16],
    dev_nonce: u16,
    session: Option<(DevAddr, Key)>,
    pub fcnt: u32,
}

impl Device {
    /// The device with this number. Its key is no secret.
    pub fn new(number: u64) -> Device {
        let dev_eui = DevEui::from_msb((0x0200_0000_0000_0000 + number).to_be_bytes());
        let app_key = (0x5EC2_E700_0000_0000_0000_0000_0000_0000 + u128::from(number)).to_be_bytes();
        Device { dev_eui, app_key, dev_nonce: 0, session: None, fcnt: 0 }
    }

    /// Its line for `roamgate device import`.
    pub fn csv(&self) -> String {
        format!("{},{},{},,1.0.3,true\n", self.dev_eui, HOME.join_eui, hex::encode(self.app_key))
    }

    pub fn join_request(&mut self) -> Vec<u8> {
        self.dev_nonce += 1;
        let mut phy = vec![0];
        phy.extend(HOME.join_eui.to_air());
        phy.extend(self.dev_eui.to_air());
        phy.extend(self.dev_nonce.to_le_bytes());
        let mic = crypto::join_mic(&Key::new(self.app_key), &phy);
        phy.extend(mic);
        phy
    }

    pub fn accept(&mut self, phy: &[u8]) -> anyhow::Result<()> {
        let (key, mut clear) = (Key::new(self.app_key), phy.to_vec());
        crypto::decrypt_join_accept(&key, clear.get_mut(1..).context("a Join-accept")?);
        let [0x20, j0, j1, j2, n0, n1, n2, a0, a1, a2, a3, ..] = clear[..] else {
            bail!("no Join-accept: {phy:02X?}")
        };
        let join_nonce = u32::from_le_bytes([j0, j1, j2, 0]);
        let keys = crypto::session_keys(&key, join_nonce, NetId::from_msb([n2, n1, n0]), self.dev_nonce);
        self.session = Some((DevAddr::from_air([a0, a1, a2, a3]), keys.nwk_s_key));
        self.fcnt = 0;
        Ok(())
    }

    /// Its DevAddr as it goes over the air.
    pub fn address(&self) -> Option<[u8; 4]> {
        self.session.as_ref().map(|(addr, _)| addr.to_air())
    }

    pub fn has_joined(&self) -> bool {
        self.session.is_some()
    }

    /// Whether an uplink with this counter is its own.
    pub fn made(&self, phy: &[u8], fcnt: u32) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|(addr, key)| crypto::data_mic_matches(key, Direction::Up, *addr, fcnt, phy))
    }

    /// 20 bytes on port 5.
    pub fn uplink(&mut self, confirmed: bool) -> anyhow::Result<Vec<u8>> {
        let (addr, key) = self.session.as_ref().context("a session")?;
        let mut phy = vec![if confirmed { 0x80 } else { 0x40 }];
        phy.extend(addr.to_air());
        phy.push(0);
        phy.extend(&self.fcnt.to_le_bytes()[..2]);
        phy.push(5);
        phy.extend([0xA5; 20]);
        let mic = crypto::data_mic(key, Direction::Up, *addr, self.fcnt, &phy);
        phy.extend(mic);
        self.fcnt += 1;
        Ok(phy)
    }
}
