//! Networks that forward a device of ours by a context that we granted (TS002 12.5 step 6, 12.6, 13).
//!
//! At rest behind [`Visits`], and in memory, so that an uplink costs no look at the disk. Wall time rules.

use std::collections::BTreeMap;

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
    /// All of them.
    fn visits(&self) -> Boxed<'_, Result<Vec<Visit>, StoreError>>;
    /// Those whose session is no more or may not roam any longer.
    fn ended_visits(&self) -> Boxed<'_, Result<Vec<Visit>, StoreError>>;
    /// Write one, in the place of that of the same session and network. On disk when this returns.
    fn grant(&self, visit: Visit) -> Boxed<'_, Result<(), StoreError>>;
    /// Delete some, by session and network.
    fn end_visits(&self, of: Vec<(u64, NetId)>) -> Boxed<'_, Result<(), StoreError>>;
}

/// All visits, by who forwards which address.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<(NetId, DevAddr), Vec<Visit>>);

impl Book {
    /// Put one in, in the place of that of the same session and network.
    pub(super) fn put(&mut self, visit: Visit) {
        let here = self.0.entry((visit.net_id, visit.dev_addr)).or_default();
        here.retain(|other| other.session != visit.session);
        here.push(visit);
    }

    /// Take one out.
    pub(super) fn remove(&mut self, visit: &Visit) {
        let key = (visit.net_id, visit.dev_addr);
        let Some(here) = self.0.get_mut(&key) else { return };
        here.retain(|other| other.session != visit.session);
        if here.is_empty() {
            self.0.remove(&key);
        }
    }

    /// Sessions of an address that a network forwards by a context.
    pub(super) fn sessions(&self, net_id: NetId, addr: DevAddr, now: u64) -> Vec<u64> {
        let here = self.0.get(&(net_id, addr)).into_iter().flatten();
        here.filter(|visit| visit.stands(now)).map(|visit| visit.session).collect()
    }

    /// Those that something is true of.
    pub(super) fn pick(&self, of: impl Fn(&Visit) -> bool) -> Vec<Visit> {
        self.0.values().flatten().filter(|visit| of(visit)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_is_of_one_session_at_one_network_and_ends_a_little_late() {
        let (home, one, two) =
            (NetId::from_msb([0, 0, 1]), NetId::from_msb([0, 0, 2]), NetId::from_msb([0, 0, 3]));
        let visit = |session, net_id, until| Visit {
            session,
            net_id,
            dev_eui: DevEui::from_msb([1; 8]),
            dev_addr: home.dev_addr(5),
            until,
        };
        let addr = home.dev_addr(5);
        let mut book = Book::default();
        book.put(visit(1, one, 1000));
        book.put(visit(2, one, 1000));
        book.put(visit(1, one, 2000));
        assert_eq!(book.sessions(one, addr, 1004), [2, 1]);
        assert_eq!(book.sessions(one, addr, 1005), [1], "5 s longer than was granted");
        assert!(book.sessions(two, addr, 0).is_empty());
        assert!(book.sessions(one, home.dev_addr(6), 0).is_empty());
        book.remove(&visit(1, one, 0));
        assert_eq!(book.sessions(one, addr, 0), [2]);
        assert_eq!(book.pick(|visit| !visit.stands(5000)).len(), 1);
    }
}
