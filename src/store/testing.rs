//! For tests of the rooms: a store that runs every decision twice, as a conflict would.

use super::Store;
use crate::backend::door::{Boxed, StoreError};
use crate::backend::message::XmitAppUp;
use crate::lorawan::{DevAddr, DevEui, NetId};
use crate::sns::ForwardKey;
use crate::{fns, hns, js, sns};

/// Wraps a store: each decision first runs over a copy of the records, and what it did there is
/// thrown away; then it runs over the records.
#[derive(Clone)]
pub struct Twice(pub Store);

fn twice<A: Clone + 'static, W: 'static>(
    decide: impl Fn(&mut A) -> W + Send + Sync + 'static,
) -> Box<dyn Fn(&mut A) -> W + Send + Sync> {
    Box::new(move |records| {
        decide(&mut records.clone());
        decide(records)
    })
}

impl sns::Sessions for Twice {
    fn with_dev_addr(&self, addr: DevAddr, decide: sns::Decide) -> Boxed<'_, Result<(), StoreError>> {
        self.0.with_dev_addr(addr, twice(decide))
    }
    fn with_device(&self, dev_eui: DevEui, decide: sns::Decide) -> Boxed<'_, Result<(), StoreError>> {
        sns::Sessions::with_device(&self.0, dev_eui, twice(decide))
    }
    fn guests(&self) -> Boxed<'_, Result<Vec<sns::Session>, StoreError>> {
        self.0.guests()
    }
    fn forwarded(&self, key: ForwardKey) -> Boxed<'_, Result<(), StoreError>> {
        self.0.forwarded(key)
    }
    fn waiting(&self) -> Boxed<'_, Result<Vec<(ForwardKey, XmitAppUp)>, StoreError>> {
        self.0.waiting()
    }
}

impl hns::Devices for Twice {
    fn with_device(&self, dev_eui: DevEui, decide: hns::Decide) -> Boxed<'_, Result<(), StoreError>> {
        hns::Devices::with_device(&self.0, dev_eui, twice(decide))
    }
    fn ended_handovers(&self) -> Boxed<'_, Result<Vec<hns::Handover>, StoreError>> {
        self.0.ended_handovers()
    }
    fn end_handover(&self, handover: hns::Handover) -> Boxed<'_, Result<bool, StoreError>> {
        self.0.end_handover(handover)
    }
}

impl js::RootKeys for Twice {
    fn with_device(&self, dev_eui: DevEui, decide: js::Decide) -> Boxed<'_, Result<(), StoreError>> {
        js::RootKeys::with_device(&self.0, dev_eui, twice(decide))
    }
}

impl fns::Learned for Twice {
    fn net_ids(&self) -> Vec<NetId> {
        self.0.net_ids()
    }
    fn learn(&self, net_id: NetId) -> Boxed<'_, Result<(), StoreError>> {
        self.0.learn(net_id)
    }
}

impl sns::Visits for Twice {
    fn hosts(&self) -> Boxed<'_, Result<Vec<NetId>, StoreError>> {
        self.0.hosts()
    }
    fn visits_at(&self, net_id: NetId, addr: DevAddr) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.0.visits_at(net_id, addr)
    }
    fn visits_of(&self, dev_eui: DevEui) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.0.visits_of(dev_eui)
    }
    fn visits_to(&self, net_id: NetId, most: usize) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.0.visits_to(net_id, most)
    }
    fn visits_until(&self, unix: u64, most: usize) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.0.visits_until(unix, most)
    }
    fn ended_visits(&self) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.0.ended_visits()
    }
    fn grant(&self, visit: sns::Visit) -> Boxed<'_, Result<(), StoreError>> {
        self.0.grant(visit)
    }
    fn end_visits(&self, of: Vec<(u64, NetId)>) -> Boxed<'_, Result<(), StoreError>> {
        self.0.end_visits(of)
    }
}
