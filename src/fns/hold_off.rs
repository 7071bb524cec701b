//! Networks that refused a device a moment ago are not asked again at once (TS002 12.5 step 8, 13). What they asked for with a
//! Lifetime outlives a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::door::{Boxed, PeerError, StoreError};
use crate::backend::message::{Refusal, ResultCode};
use crate::clock::Instant;
use crate::lorawan::{DevAddr, DevEui, NetId};

use super::Fns;

/// A refusal without a Lifetime holds for so long.
const DEFAULT: Duration = Duration::from_secs(30);
/// The longest hold-off that anybody may impose on us.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Entries at most.
const ENTRIES: usize = 10_000;

/// A device that a network has served is its device for so long, whatever else comes under its address.
const SERVED: Duration = Duration::from_secs(24 * 3600);

/// A device that a network does not want to be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldOff {
    /// The network.
    pub net_id: NetId,
    /// The device.
    pub whom: Whom,
    /// Seconds since 1970; 0: it may be asked.
    pub until: u64,
}

/// As what a device is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// By the address of its frames.
    Addr(DevAddr),
    /// By its identity.
    Device(DevEui),
}

/// Limits at rest: what partners want, and what they have used.
pub trait Limits: Send + Sync {
    /// All hold-offs.
    fn hold_offs(&self) -> Boxed<'_, Result<Vec<HoldOff>, StoreError>>;
    /// Write one, or forget it where its time is over.
    fn hold_off(&self, of: HoldOff) -> Boxed<'_, Result<(), StoreError>>;
    /// What networks have used of the air on a day since 1970.
    fn airtime(&self, day: u64) -> Boxed<'_, Result<Vec<(NetId, Duration)>, StoreError>>;
    /// What a network has used on a day by now.
    fn use_airtime(&self, day: u64, net_id: NetId, time: Duration) -> Boxed<'_, Result<(), StoreError>>;
}

/// Keeps nothing.
impl Limits for () {
    fn hold_offs(&self) -> Boxed<'_, Result<Vec<HoldOff>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn hold_off(&self, _: HoldOff) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn airtime(&self, _: u64) -> Boxed<'_, Result<Vec<(NetId, Duration)>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn use_airtime(&self, _: u64, _: NetId, _: Duration) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Fns {
    /// Read what earlier runs were told.
    pub(super) async fn recall_limits(&self) -> Result<(), StoreError> {
        let (now, unix) = (self.clock.now(), self.clock.unix());
        for HoldOff { net_id, whom, until } in self.limits.hold_offs().await? {
            let time = Duration::from_secs(until.saturating_sub(unix));
            match whom {
                Whom::Addr(addr) => self.hold_offs().impose_on(net_id, addr, time, now),
                Whom::Device(dev_eui) => {
                    self.hold_offs().impose(net_id, dev_eui, std::iter::empty(), time, now);
                }
            }
        }
        self.recall_airtime().await
    }

    /// A network said no to frames of an address.
    pub(super) async fn refused(&self, net_id: NetId, addr: DevAddr, error: &PeerError) {
        let now = self.clock.now();
        self.hold_offs().note(net_id, addr, error, now);
        if let PeerError::Refused { refusal: Refusal { lifetime: Some(lifetime @ 1..), .. }, .. } = error {
            let time = Duration::from_secs((*lifetime).into());
            self.keep_hold_off(net_id, Whom::Addr(addr), time).await;
        }
    }

    /// A network has said for how long it wants no question about a device; no time at all cancels every hold-off.
    pub(super) async fn hold_off(&self, net_id: NetId, dev_eui: DevEui, addrs: &[DevAddr], time: Duration) {
        self.hold_offs().impose(net_id, dev_eui, addrs.iter().copied(), time, self.clock.now());
        self.keep_hold_off(net_id, Whom::Device(dev_eui), time).await;
        for addr in addrs {
            self.keep_hold_off(net_id, Whom::Addr(*addr), time).await;
        }
    }

    async fn keep_hold_off(&self, net_id: NetId, whom: Whom, time: Duration) {
        let lifted = time.is_zero();
        let until = if lifted { 0 } else { self.clock.unix().saturating_add(time.min(LONGEST).as_secs()) };
        if let Err(error) = self.limits.hold_off(HoldOff { net_id, whom, until }).await {
            tracing::warn!(NetID = %net_id, "a hold-off holds until the next start only: {error}");
        }
    }
}

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

    /// The same of one address.
    fn impose_on(&mut self, net_id: NetId, addr: DevAddr, time: Duration, now: Instant) {
        insert(&mut self.until, net_id, addr, now, now + time.min(LONGEST));
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
    use crate::backend::message::Party;

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
