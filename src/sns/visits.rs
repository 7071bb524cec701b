//! Networks that forward a device of ours by a context that we granted (TS002 12.5 step 6, 12.6, 13).
//!
//! At rest behind [`Visits`]. Wall time rules.

use crate::backend::door::{Boxed, StoreError};
use crate::lorawan::{DevAddr, DevEui, NetId};

/// Our side lives so much longer than the one that was granted: the answer was some time on its way.
const GRACE: u64 = 5;

/// One session at one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// The session.
    pub session: u64,
    /// The network that forwards it.
    pub net_id: NetId,
    /// Its device.
    pub dev_eui: DevEui,
    /// Its address.
    pub dev_addr: DevAddr,
    /// Seconds since 1970 at which it ends, as it was granted.
    pub until: u64,
}

impl Visit {
    /// Whether it still stands at a time, seconds since 1970.
    pub fn stands(&self, now: u64) -> bool {
        now < self.until.saturating_add(GRACE)
    }
}

/// Visits at rest. A visit outlives its session: whoever forwards has to hear of the end.
pub trait Visits: Send + Sync {
    /// Networks that forward any.
    fn hosts(&self) -> Boxed<'_, Result<Vec<NetId>, StoreError>>;
    /// Those of an address at a network.
    fn visits_at(&self, net_id: NetId, addr: DevAddr) -> Boxed<'_, Result<Vec<Visit>, StoreError>>;
    /// Those of a device.
    fn visits_of(&self, dev_eui: DevEui) -> Boxed<'_, Result<Vec<Visit>, StoreError>>;
    /// So many at most of those at a network.
    fn visits_to(&self, net_id: NetId, most: usize) -> Boxed<'_, Result<Vec<Visit>, StoreError>>;
    /// So many at most that were granted until then or earlier, seconds since 1970.
    fn visits_until(&self, unix: u64, most: usize) -> Boxed<'_, Result<Vec<Visit>, StoreError>>;
    /// Those whose session is no more or may not roam any longer.
    fn ended_visits(&self) -> Boxed<'_, Result<Vec<Visit>, StoreError>>;
    /// Write one, in the place of that of the same session and network. On disk when this returns.
    fn grant(&self, visit: Visit) -> Boxed<'_, Result<(), StoreError>>;
    /// Delete some, by session and network.
    fn end_visits(&self, of: Vec<(u64, NetId)>) -> Boxed<'_, Result<(), StoreError>>;
}

/// Granted until then or earlier, a visit does not stand at a time any more.
pub(super) fn over_at(now: u64) -> u64 {
    now.saturating_sub(GRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_ends_a_little_later_than_was_granted() {
        let net_id = NetId::from_msb([0, 0, 1]);
        let (dev_eui, dev_addr) = (DevEui::from_msb([1; 8]), net_id.dev_addr(5));
        let visit = Visit { session: 1, net_id, dev_eui, dev_addr, until: 1000 };
        for now in [999, 1000, 1004, 1005, 1006, u64::MAX] {
            assert_eq!(visit.stands(now), visit.until > over_at(now), "{now}");
        }
        assert!(visit.stands(1004) && !visit.stands(1005));
    }
}
