//! Networks that refused a device a moment ago are not asked again at once (TS002 12.5 step 8, 13).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::door::PeerError;
use crate::backend::message::ResultCode;
use crate::clock::Instant;
use crate::lorawan::{DevAddr, DevEui, NetId};

/// A refusal without a Lifetime holds for so long.
const DEFAULT: Duration = Duration::from_secs(30);
/// The longest hold-off that anybody may impose on us.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Entries at most.
const ENTRIES: usize = 10_000;

/// A device that a network has served is its device for so long, whatever else comes under its address.
const SERVED: Duration = Duration::from_secs(24 * 3600);

/// Hold-offs by network and device.
#[derive(Debug, Default)]
pub(super) struct HoldOffs {
    until: BTreeMap<(NetId, DevAddr), Instant>,
    served: BTreeMap<(NetId, DevAddr), Instant>,
    devices: BTreeMap<(NetId, DevEui), Instant>,
}

impl HoldOffs {
    /// Whether this network is not to be asked about this device now.
    pub(super) fn contains(&self, net_id: NetId, addr: DevAddr, now: Instant) -> bool {
        self.until.get(&(net_id, addr)).is_some_and(|until| now < *until)
    }

    /// A network said no. A lost message is no refusal.
    pub(super) fn note(&mut self, net_id: NetId, addr: DevAddr, error: &PeerError, now: Instant) {
        let PeerError::Refused { refusal, .. } = error else { return };
        let time = match (refusal.code, refusal.lifetime) {
            (ResultCode::Deferred, Some(0)) => return,
            // anybody can send a frame that fails under a visitor's address, and it shall not silence the visitor
            (ResultCode::MicFailed, None) if self.is_served(net_id, addr, now) => return,
            (_, Some(lifetime)) => Duration::from_secs(lifetime.into()).min(LONGEST),
            (_, None) => DEFAULT,
        };
        insert(&mut self.until, net_id, addr, now, now + time);
    }

    /// A network has said by PRStopReq for how long it wants no PRStartReq for a device; no time at all cancels every
    /// hold-off of the device (12.6.3).
    pub(super) fn impose(
        &mut self,
        net_id: NetId,
        dev_eui: DevEui,
        addrs: impl Iterator<Item = DevAddr>,
        time: Duration,
        now: Instant,
    ) {
        let until = now + time.min(LONGEST);
        for addr in addrs {
            self.until.remove(&(net_id, addr));
            if until > now {
                insert(&mut self.until, net_id, addr, now, until);
            }
        }
        self.devices.remove(&(net_id, dev_eui));
        if until > now {
            insert(&mut self.devices, net_id, dev_eui, now, until);
        }
    }

    /// How long this network is not to be asked about a device that joins.
    pub(super) fn holds(&self, net_id: NetId, dev_eui: DevEui, now: Instant) -> Option<Duration> {
        let until = self.devices.get(&(net_id, dev_eui))?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// A network said that the device is its own.
    pub(super) fn note_served(&mut self, net_id: NetId, addr: DevAddr, now: Instant) {
        self.until.remove(&(net_id, addr));
        insert(&mut self.served, net_id, addr, now, now + SERVED);
    }

    /// A network took an uplink by a context: the device is its own, and what it said about asking anew stands.
    pub(super) fn note_forwarded(&mut self, net_id: NetId, addr: DevAddr, now: Instant) {
        insert(&mut self.served, net_id, addr, now, now + SERVED);
    }

    /// Entries of all kinds.
    pub(super) fn len(&self) -> usize {
        self.until.len() + self.served.len() + self.devices.len()
    }

    /// Whether a network said lately that the device is its own.
    pub(super) fn is_served(&self, net_id: NetId, addr: DevAddr, now: Instant) -> bool {
        self.served.get(&(net_id, addr)).is_some_and(|until| now < *until)
    }
}

fn insert<D: Ord>(
    entries: &mut BTreeMap<(NetId, D), Instant>,
    net_id: NetId,
    device: D,
    now: Instant,
    until: Instant,
) {
    if entries.len() >= ENTRIES {
        entries.retain(|_, until| now < *until);
    }
    if entries.len() < ENTRIES {
        entries.insert((net_id, device), until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::message::{Party, Refusal};

    const HOME: NetId = NetId::from_msb([0, 0, 1]);
    const ADDR: DevAddr = DevAddr::new(0x0200_0001);

    fn refused(code: ResultCode, lifetime: Option<u32>) -> PeerError {
        let refusal = Refusal { lifetime, ..Refusal::new(code, "no") };
        PeerError::Refused { to: Party::Ns(HOME), refusal }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_held_off_and_a_visitor_is_not_silenced_by_frames_that_fail() {
        let (mut hold_offs, now) = (HoldOffs::default(), Instant::now());
        let failed = refused(ResultCode::MicFailed, None);
        hold_offs.note(HOME, ADDR, &failed, now);
        assert!(hold_offs.contains(HOME, ADDR, now) && !hold_offs.contains(HOME, ADDR, now + DEFAULT));
        hold_offs.note_served(HOME, ADDR, now);
        assert!(!hold_offs.contains(HOME, ADDR, now));
        hold_offs.note(HOME, ADDR, &failed, now);
        assert!(!hold_offs.contains(HOME, ADDR, now));
        // what its home itself wants goes for visitors too
        hold_offs.note(HOME, ADDR, &refused(ResultCode::Deferred, Some(60)), now);
        assert!(hold_offs.contains(HOME, ADDR, now + Duration::from_secs(59)));
        hold_offs.note(HOME, ADDR, &failed, now + SERVED);
        assert!(hold_offs.contains(HOME, ADDR, now + SERVED));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_off_that_its_home_imposed_is_lifted_by_it_and_by_nobody_else() {
        let (mut hold_offs, now) = (HoldOffs::default(), Instant::now());
        let (dev, other) = (DevEui::from_msb([1; 8]), NetId::from_msb([0, 0, 2]));
        let hour = Duration::from_secs(3600);
        hold_offs.impose(HOME, dev, [ADDR].into_iter(), hour, now);
        assert!(hold_offs.contains(HOME, ADDR, now) && !hold_offs.contains(other, ADDR, now));
        assert_eq!((hold_offs.holds(HOME, dev, now), hold_offs.holds(other, dev, now)), (Some(hour), None));
        hold_offs.impose(other, dev, [ADDR].into_iter(), Duration::ZERO, now);
        assert!(hold_offs.contains(HOME, ADDR, now) && hold_offs.holds(HOME, dev, now).is_some());
        assert_eq!(hold_offs.holds(HOME, dev, now + hour), None);
        hold_offs.impose(HOME, dev, [ADDR].into_iter(), Duration::ZERO, now);
        assert!(!hold_offs.contains(HOME, ADDR, now) && hold_offs.holds(HOME, dev, now).is_none());
    }
}
