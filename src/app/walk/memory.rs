//! Storage of the walks: in memory and hostile. It runs every decision twice and keeps the second run.

use super::*;

#[derive(Default)]
pub(super) struct Memory {
    pub(super) sessions: Mutex<Vec<sns::Session>>,
    pub(super) forward: Mutex<BTreeMap<ForwardKey, XmitAppUp>>,
    pub(super) devices: Mutex<BTreeMap<DevEui, hns::Device>>,
    pub(super) root_keys: Mutex<BTreeMap<DevEui, js::Device>>,
    pub(super) learned: Mutex<BTreeSet<NetId>>,
    hold_offs: Mutex<Vec<fns::hold_off::HoldOff>>,
    airtime: Mutex<BTreeMap<NetId, (u64, Duration)>>,
    pub(super) contexts: Mutex<BTreeMap<fns::contexts::ContextId, fns::contexts::Context>>,
    pub(super) visits: Mutex<BTreeMap<(u64, NetId), sns::Visit>>,
    /// Its disk is.
    pub(super) full: Mutex<bool>,
    pub(super) parked: Mutex<BTreeMap<u64, fns::parked::Parked>>,
    pub(super) carried: Mutex<Vec<(NetId, crate::usage::Kind, crate::usage::Way, usize)>>,
    /// On whose account each of `carried` went.
    pub(super) accounts: Mutex<Vec<crate::backend::message::Account>>,
    pub(super) for_us: Mutex<Vec<(NetId, crate::usage::Kind, crate::usage::Way, usize)>>,
    pub(super) roams: Mutex<Vec<(NetId, DevEui, bool)>>,
}

impl Memory {
    fn over(&self, pick: impl Fn(&sns::Session) -> bool, decide: &sns::Decide) {
        let mut all = self.sessions.lock().unwrap();
        let found: Vec<_> = all.iter().filter(|session| pick(session)).cloned().collect();
        decide(&mut found.clone()); // a conflict: this run is thrown away
        let mut decided = found;
        let write = decide(&mut decided);
        all.retain(|session| !pick(session));
        all.extend(decided);
        if let Some(heard) = write.succeeds {
            all.retain(|session| session.dev_eui != heard.dev_eui || !heard.replaces(session));
        }
        self.forward.lock().unwrap().extend(write.forward);
    }
}

fn done<T: Send + 'static>(value: T) -> Boxed<'static, Result<T, StoreError>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Sessions for Memory {
    fn with_dev_addr(&self, addr: DevAddr, decide: sns::Decide) -> Boxed<'_, Result<(), StoreError>> {
        self.over(|session| session.dev_addr == addr, &decide);
        done(())
    }
    fn with_device(&self, dev_eui: DevEui, decide: sns::Decide) -> Boxed<'_, Result<(), StoreError>> {
        self.over(|session| session.dev_eui == dev_eui, &decide);
        done(())
    }
    fn guests(&self) -> Boxed<'_, Result<Vec<sns::Session>, StoreError>> {
        let all = self.sessions.lock().unwrap();
        done(all.iter().filter(|session| session.home.is_some()).cloned().collect())
    }
    fn forwarded(&self, key: ForwardKey) -> Boxed<'_, Result<(), StoreError>> {
        self.forward.lock().unwrap().remove(&key);
        done(())
    }
    fn waiting(&self) -> Boxed<'_, Result<Vec<(ForwardKey, XmitAppUp)>, StoreError>> {
        done(self.forward.lock().unwrap().clone().into_iter().collect())
    }
}

fn twice<D: Clone, W>(
    all: &Mutex<BTreeMap<DevEui, D>>,
    dev_eui: DevEui,
    decide: impl Fn(&mut Option<D>) -> W,
) {
    let mut all = all.lock().unwrap();
    decide(&mut all.get(&dev_eui).cloned());
    let mut device = all.remove(&dev_eui);
    decide(&mut device);
    all.extend(device.map(|device| (dev_eui, device)));
}

impl hns::Devices for Memory {
    fn with_device(&self, dev_eui: DevEui, decide: hns::Decide) -> Boxed<'_, Result<(), StoreError>> {
        twice(&self.devices, dev_eui, decide);
        done(())
    }
    fn ended_handovers(&self) -> Boxed<'_, Result<Vec<hns::Handover>, StoreError>> {
        let devices = self.devices.lock().unwrap();
        let ended = devices.values().flat_map(|device| {
            let used = device.activations.iter().rposition(|activation| activation.fcnt_up.is_some());
            let (left, goes_on) = device.activations.split_at(used.unwrap_or(0));
            let over = move |activation: &&hns::Activation| {
                activation.sns.is_some() && goes_on.iter().all(|other| other.sns != activation.sns)
            };
            left.iter().filter(over).map(|activation| hns::Handover {
                dev_eui: device.dev_eui,
                dev_addr: activation.dev_addr,
                net_id: activation.sns.unwrap(),
            })
        });
        done(ended.collect())
    }
    fn end_handover(&self, of: hns::Handover) -> Boxed<'_, Result<bool, StoreError>> {
        let mut devices = self.devices.lock().unwrap();
        let mut activations =
            devices.get_mut(&of.dev_eui).into_iter().flat_map(|device| &mut device.activations);
        let found = activations
            .find(|activation| (activation.dev_addr, activation.sns) == (of.dev_addr, Some(of.net_id)));
        let known = found.is_some();
        if let Some(activation) = found {
            activation.sns = None;
        }
        done(known)
    }
}

impl js::RootKeys for Memory {
    fn with_device(&self, dev_eui: DevEui, decide: js::Decide) -> Boxed<'_, Result<(), StoreError>> {
        twice(&self.root_keys, dev_eui, decide);
        done(())
    }
}

impl fns::Learned for Memory {
    fn net_ids(&self) -> Vec<NetId> {
        self.learned.lock().unwrap().iter().copied().collect()
    }
    fn learn(&self, net_id: NetId) -> Boxed<'_, Result<(), StoreError>> {
        self.learned.lock().unwrap().insert(net_id);
        done(())
    }
}

impl Memory {
    fn contexts_where(&self, of: impl Fn(&fns::contexts::Context) -> bool) -> Vec<fns::contexts::Context> {
        self.contexts.lock().unwrap().values().filter(|context| of(context)).cloned().collect()
    }

    fn visits_where(
        &self,
        of: impl Fn(&sns::Visit) -> bool,
    ) -> Boxed<'static, Result<Vec<sns::Visit>, StoreError>> {
        done(self.visits.lock().unwrap().values().filter(|visit| of(visit)).copied().collect())
    }
}

impl fns::contexts::Contexts for Memory {
    fn page(
        &self,
        after: Option<fns::contexts::ContextId>,
        most: usize,
    ) -> Boxed<'_, Result<Vec<fns::contexts::ContextId>, StoreError>> {
        let contexts = self.contexts.lock().unwrap();
        let rest = contexts.keys().filter(|id| after.is_none_or(|after| **id > after));
        done(rest.take(most).copied().collect())
    }
    fn with_addr(&self, addr: DevAddr) -> Boxed<'_, Result<Vec<fns::contexts::Context>, StoreError>> {
        done(self.contexts_where(|context| context.id.dev_addr == addr))
    }
    fn of_device(
        &self,
        net_id: NetId,
        dev_eui: DevEui,
    ) -> Boxed<'_, Result<Vec<fns::contexts::Context>, StoreError>> {
        done(self.contexts_where(|context| (context.id.net_id, context.id.dev_eui) == (net_id, dev_eui)))
    }
    fn over(&self, now: u64, most: usize) -> Boxed<'_, Result<Vec<fns::contexts::ContextId>, StoreError>> {
        let over = self.contexts_where(|context| context.until <= now);
        done(over.into_iter().take(most).map(|context| context.id).collect())
    }
    fn keep(&self, context: fns::contexts::Context) -> Boxed<'_, Result<bool, StoreError>> {
        done(self.contexts.lock().unwrap().insert(context.id, context).is_none())
    }
    fn forget(
        &self,
        ids: Vec<fns::contexts::ContextId>,
    ) -> Boxed<'_, Result<Vec<(fns::contexts::ContextId, bool)>, StoreError>> {
        let mut contexts = self.contexts.lock().unwrap();
        let gone: Vec<_> = ids.into_iter().filter(|id| contexts.remove(id).is_some()).collect();
        let of = |id: &fns::contexts::ContextId| (id.net_id, id.dev_eui);
        done(gone.into_iter().map(|id| (id, contexts.keys().any(|other| of(other) == of(&id)))).collect())
    }
}

impl fns::hold_off::Limits for Memory {
    fn hold_offs(&self) -> Boxed<'_, Result<Vec<fns::hold_off::HoldOff>, StoreError>> {
        done(self.hold_offs.lock().unwrap().clone())
    }
    fn hold_off(&self, of: fns::hold_off::HoldOff) -> Boxed<'_, Result<(), StoreError>> {
        let mut all = self.hold_offs.lock().unwrap();
        all.retain(|other| (other.net_id, other.whom) != (of.net_id, of.whom));
        all.push(of);
        done(())
    }
    fn airtime(&self, day: u64) -> Boxed<'_, Result<Vec<(NetId, Duration)>, StoreError>> {
        let all = self.airtime.lock().unwrap();
        let today = all.iter().filter(|(_, (of, _))| *of == day);
        done(today.map(|(net_id, (_, time))| (*net_id, *time)).collect())
    }
    fn use_airtime(&self, day: u64, net_id: NetId, time: Duration) -> Boxed<'_, Result<(), StoreError>> {
        self.airtime.lock().unwrap().insert(net_id, (day, time));
        done(())
    }
}

impl fns::parked::Parking for Memory {
    fn is_full(&self) -> bool {
        *self.full.lock().unwrap()
    }
    fn places(&self) -> Boxed<'_, Result<Vec<fns::parked::Place>, StoreError>> {
        done(self.parked.lock().unwrap().values().map(fns::parked::Place::from).collect())
    }
    fn park(&self, frame: fns::parked::Parked) -> Boxed<'_, Result<(), StoreError>> {
        self.parked.lock().unwrap().insert(frame.number, frame);
        done(())
    }
    fn parked(&self, number: u64) -> Boxed<'_, Result<Option<fns::parked::Parked>, StoreError>> {
        done(self.parked.lock().unwrap().get(&number).cloned())
    }
    fn unpark(&self, numbers: Vec<u64>) -> Boxed<'_, Result<(), StoreError>> {
        self.parked.lock().unwrap().retain(|number, _| !numbers.contains(number));
        done(())
    }
}

impl fns::usage::Usage for Memory {
    fn carried(&self, frame: crate::usage::Carried) -> Boxed<'_, Result<(), StoreError>> {
        self.carried.lock().unwrap().push((frame.account.net_id, frame.kind, frame.way, frame.bytes));
        self.accounts.lock().unwrap().push(frame.account);
        done(())
    }
    fn roams(
        &self,
        net_id: NetId,
        dev_eui: DevEui,
        begins: Option<String>,
        _unix: u64,
    ) -> Boxed<'_, Result<(), StoreError>> {
        self.roams.lock().unwrap().push((net_id, dev_eui, begins.is_some()));
        done(())
    }
}

impl hns::Carriers for Memory {
    fn carried_for_us(&self, frame: crate::usage::Carried) -> Boxed<'_, Result<(), StoreError>> {
        self.for_us.lock().unwrap().push((frame.account.net_id, frame.kind, frame.way, frame.bytes));
        done(())
    }
}

impl sns::Visits for Memory {
    fn hosts(&self) -> Boxed<'_, Result<Vec<NetId>, StoreError>> {
        let hosts: BTreeSet<NetId> = self.visits.lock().unwrap().values().map(|visit| visit.net_id).collect();
        done(hosts.into_iter().collect())
    }
    fn visits_at(&self, net_id: NetId, addr: DevAddr) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.visits_where(|visit| (visit.net_id, visit.dev_addr) == (net_id, addr))
    }
    fn visits_of(&self, dev_eui: DevEui) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.visits_where(|visit| visit.dev_eui == dev_eui)
    }
    fn visits_to(&self, net_id: NetId, _most: usize) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.visits_where(|visit| visit.net_id == net_id)
    }
    fn visits_until(&self, unix: u64, _most: usize) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        self.visits_where(|visit| visit.until <= unix)
    }
    fn ended_visits(&self) -> Boxed<'_, Result<Vec<sns::Visit>, StoreError>> {
        let sessions = self.sessions.lock().unwrap();
        let runs = |visit: &&sns::Visit| {
            !sessions.iter().any(|session| session.id == visit.session && session.roaming)
        };
        done(self.visits.lock().unwrap().values().filter(runs).copied().collect())
    }
    fn grant(&self, visit: sns::Visit) -> Boxed<'_, Result<(), StoreError>> {
        self.visits.lock().unwrap().insert((visit.session, visit.net_id), visit);
        done(())
    }
    fn end_visits(&self, of: Vec<(u64, NetId)>) -> Boxed<'_, Result<(), StoreError>> {
        self.visits.lock().unwrap().retain(|key, _| !of.contains(key));
        done(())
    }
}
