//! What visitors of other networks were carried: usage records of the visited network (TS002 section 15, tables 9 and 10).
//!
//! Only what a user sent counts: frames with an FPort from 1 on, once for each counter; an uplink when its home has taken it, a
//! downlink when a head has taken it. Bytes are those of FRMPayload.

use std::collections::BTreeMap;

use crate::backend::door::{Boxed, StoreError};
use crate::backend::message::Account;
use crate::lorawan::frame::Uplink;
use crate::lorawan::{DevAddr, DevEui, NetId};

use crate::usage::{Carried, Kind, Way};

use super::{Fns, lock};

/// Devices whose last counter is remembered, so that a repetition is not counted.
const DEVICES: usize = 10_000;

/// What is kept of visitors.
pub trait Usage: Send + Sync {
    /// A frame was carried for a network.
    fn carried(&self, frame: Carried) -> Boxed<'_, Result<(), StoreError>>;
    /// A device of a network begins to roam here, under a ServiceProfileID, or (`None`) ends.
    fn roams(
        &self,
        net_id: NetId,
        dev_eui: DevEui,
        begins: Option<String>,
        unix: u64,
    ) -> Boxed<'_, Result<(), StoreError>>;
}

/// Last counters that were counted.
#[derive(Debug, Default)]
pub(super) struct Counted(BTreeMap<(NetId, DevAddr), u16>);

impl Counted {
    /// Whether this counter is another one than the last.
    fn is_new(&mut self, net_id: NetId, dev_addr: DevAddr, fcnt: u16) -> bool {
        if self.0.len() >= DEVICES && !self.0.contains_key(&(net_id, dev_addr)) {
            // whichever it is: at worst a repetition of its last frame is counted
            self.0.pop_first();
        }
        self.0.insert((net_id, dev_addr), fcnt) != Some(fcnt)
    }
}

/// Bytes of FRMPayload of a data frame in either direction; `None`: nothing of a user is in it.
fn user_bytes(phy: &[u8]) -> Option<usize> {
    let is_data = (0b010..=0b101).contains(&(phy.first()? >> 5));
    let port = 8 + usize::from(phy.get(5)? & 0x0f);
    // between port and MIC
    let bytes = phy.len().checked_sub(port + 1 + 4)?;
    (is_data && *phy.get(port)? > 0).then_some(bytes)
}

impl Fns {
    /// Its home has taken an uplink.
    pub(super) async fn note_up(&self, account: Account, kind: Kind, phy: &[u8]) {
        let (Some(bytes), Ok(Uplink::Data(frame))) = (user_bytes(phy), Uplink::parse(phy)) else { return };
        if lock(&self.counted).is_new(account.net_id, frame.dev_addr(), frame.fcnt()) {
            self.note(account, kind, Way::Up, bytes).await;
        }
    }

    /// A head has taken a downlink of a network, or of ours for a device that is at home there.
    pub(super) async fn note_down(&self, account: Account, kind: Kind, phy: &[u8]) {
        if let Some(bytes) = user_bytes(phy) {
            self.note(account, kind, Way::Down, bytes).await;
        }
    }

    async fn note(&self, account: Account, kind: Kind, way: Way, bytes: usize) {
        let net_id = account.net_id;
        let frame = Carried { account, kind, way, bytes, unix: self.clock.unix() };
        if let Err(error) = self.usage.carried(frame).await {
            tracing::warn!(NetID = %net_id, "a frame is missing in the usage records: {error}");
        }
    }

    /// A visitor begins to roam here, under a ServiceProfileID, or (`None`) ends.
    pub(super) async fn note_roaming(&self, net_id: NetId, dev_eui: DevEui, begins: Option<String>) {
        if let Err(error) = self.usage.roams(net_id, dev_eui, begins, self.clock.unix()).await {
            tracing::warn!(NetID = %net_id, DevEUI = %dev_eui, "an activation is missing in the usage records: {error}");
        }
    }
}

/// Keeps nothing.
impl Usage for () {
    fn carried(&self, _: Carried) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn roams(&self, _: NetId, _: DevEui, _: Option<String>, _: u64) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_a_user_sent_has_bytes() {
        let frame =
            |mhdr: u8, fctrl: u8, rest: &[u8]| [&[mhdr, 1, 2, 3, 4, fctrl, 0, 0][..], rest, &[9; 4]].concat();
        assert_eq!(user_bytes(&frame(0x40, 0, &[5, 1, 2, 3])), Some(3));
        assert_eq!(user_bytes(&frame(0x60, 2, &[2, 2, 5, 1])), Some(1), "behind two bytes of commands");
        assert_eq!(user_bytes(&frame(0xa0, 0, &[5])), Some(0), "a port and nothing behind it");
        assert_eq!(user_bytes(&frame(0x40, 0, &[0, 1, 2])), None, "commands only");
        assert_eq!(user_bytes(&frame(0x80, 3, &[1, 1, 1])), None, "no port");
        assert_eq!(user_bytes(&frame(0x20, 0, &[5, 1])), None, "a Join-accept");
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_no_trouble(phy in proptest::collection::vec(any::<u8>(), 0..260)) {
            prop_assert!(user_bytes(&phy).is_none_or(|bytes| bytes + 13 <= phy.len()));
        }
    }

    #[test]
    fn a_repetition_is_not_counted_and_memory_is_bounded() {
        let mut counted = Counted::default();
        let (net_id, addr) = (NetId::from_msb([0, 0, 1]), DevAddr::new(7));
        assert!(counted.is_new(net_id, addr, 1) && !counted.is_new(net_id, addr, 1));
        assert!(counted.is_new(net_id, addr, 2) && counted.is_new(NetId::from_msb([0, 0, 2]), addr, 2));
        for n in 0..20_000 {
            counted.is_new(net_id, DevAddr::new(n), 1);
        }
        assert_eq!(counted.0.len(), DEVICES);
    }
}
