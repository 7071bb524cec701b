//! What an operator may do, done on the store: by the running node, or by the command line alone
//! while no daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::Instrument;

use crate::backend::door::{self, Boxed};
use crate::backend::message::MacVersion;
use crate::clock::{Clock, Instant};
use crate::config::{Config, Role};
use crate::control::{
    self, ChangeDevice, DeviceRecord, DeviceView, Import, NewDevice, OperatorError, PartnerView,
    PartnersView, Status, Wrong,
};
use crate::fns::{Air, Learned};
use crate::hns::{Device, Devices, QueueItem};
use crate::lorawan::{DevEui, Key, NetId};
use crate::radio::Radios;
use crate::store::{self, Store};

use super::house::{House, Ours};
use super::partners;

/// The operator's hands.
pub struct Operator {
    store: Store,
    config: Config,
    ours: Ours,
    home: NetId,
    is_js: bool,
    status: Status,
    /// Of a running node.
    running: Option<Running>,
}

struct Running {
    since: Instant,
    clock: Clock,
    radios: Arc<Radios>,
    house: Arc<House>,
    /// What the node does at the operator's word is told as the node's.
    span: tracing::Span,
}

impl Operator {
    /// On a store alone: no daemon runs.
    pub fn alone(config: &Config, store: Store) -> Operator {
        let status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            net_ids: config.network.net_ids.all().to_vec(),
            region: config.network.region.to_string(),
            roles: config.network.roles.iter().map(|role| role.to_string()).collect(),
            roaming: config.roaming.roams(),
            ..Status::default()
        };
        let home = config.network.net_ids.first();
        let is_js = config.network.roles.has(Role::Js);
        Operator { store, config: config.clone(), ours: Ours::of(config), home, is_js, status, running: None }
    }

    /// On a running node.
    pub fn running(
        config: &Config,
        store: Store,
        clock: Clock,
        radios: Arc<Radios>,
        house: Arc<House>,
    ) -> Operator {
        let running = Running { since: clock.now(), clock, radios, house, span: tracing::Span::current() };
        Operator { running: Some(running), ..Operator::alone(config, store) }
    }

    fn new_device(&self, device: NewDevice) -> store::NewDevice {
        store::NewDevice {
            dev_eui: device.dev_eui,
            join_eui: device.join_eui,
            name: device.name,
            mac_version: device.mac_version,
            app_key: device.app_key,
            nwk_key: device.nwk_key,
            home: self.home,
            roaming: device.roaming,
        }
    }

    /// Networks that forward a device by a context hear at once that they have to stop; the operator does not wait for it.
    fn stop_ended(&self) {
        let Some(Running { house, span, .. }) = &self.running else { return };
        let sns = house.sns.clone();
        let work = async move {
            if let Err(error) = sns.stop_ended().await {
                tracing::warn!("{error}");
            }
        };
        tokio::spawn(work.instrument(span.clone()));
    }

    fn check(&self, device: &NewDevice) -> Result<(), OperatorError> {
        let invalid =
            |reason: String, remedy: &str| Err(OperatorError::Invalid { reason, remedy: remedy.into() });
        // without the role, the device's join server is elsewhere and its JoinEUI not ours to judge
        if self.is_js && !self.ours.serves(device.join_eui) {
            let reason = format!("JoinEUI {} is not of [join_server] join_euis", device.join_eui);
            return invalid(reason, "add it there, or give the device a JoinEUI that is ours");
        }
        let version = device.mac_version;
        match (version >= MacVersion::V1_1, &device.nwk_key) {
            (true, None) => {
                let reason =
                    format!("a device of LoRaWAN {version} has two root keys, and NwkKey is missing");
                invalid(reason, "give both, as the maker of the device gave them")?;
            }
            (false, Some(_)) => {
                let reason = format!("a device of LoRaWAN {version} has one root key, AppKey, and no NwkKey");
                invalid(reason, "leave NwkKey out; where the data sheet says 1.1, say so")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// By name; what several radios count is added up.
fn summed<'a>(counters: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (name, count) in counters {
        *sums.entry(name.to_string()).or_default() += count;
    }
    sums
}

fn record(device: &store::DeviceSummary) -> DeviceRecord {
    DeviceRecord {
        dev_eui: device.dev_eui,
        join_eui: device.join_eui,
        app_key: None,
        nwk_key: None,
        name: device.name.clone(),
        mac_version: device.mac_version.to_string(),
        roaming: device.roaming,
        enabled: device.enabled,
    }
}

impl control::Operator for Operator {
    fn status(&self) -> Boxed<'_, Result<Status, OperatorError>> {
        Box::pin(async move {
            let mut status = self.status.clone();
            status.devices = self.store.devices().await?.len();
            if let Some(Running { since, clock, radios, house, .. }) = &self.running {
                status.uptime = Some(clock.now().duration_since(*since).as_secs());
                status.heads = radios.heads();
                status.radios = radios.status().iter().map(ToString::to_string).collect();
                let radio = radios.0.iter().flat_map(|radio| radio.counters());
                status.counters = BTreeMap::from([
                    ("radio".into(), summed(radio)),
                    ("fns".into(), summed(house.fns.counters().named())),
                    ("store".into(), summed(self.store.stats().named())),
                ]);
            }
            Ok(status)
        })
    }

    fn add_device(&self, device: NewDevice) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            match self.add_devices(vec![Import { device, enabled: true }], false).await?.pop() {
                Some((_, error)) => Err(error),
                None => Ok(()),
            }
        })
    }

    fn add_devices(&self, devices: Vec<Import>, dry_run: bool) -> Boxed<'_, Result<Wrong, OperatorError>> {
        Box::pin(async move {
            let mut wrong = Wrong::new();
            for (place, new) in devices.iter().enumerate() {
                wrong.extend(self.check(&new.device).err().map(|error| (place, error)));
            }
            let dry = dry_run || !wrong.is_empty();
            let mut seen = BTreeSet::new();
            let names: Vec<(DevEui, bool)> =
                devices.iter().map(|new| new.device.dev_eui).map(|name| (name, !seen.insert(name))).collect();
            let new = devices.into_iter().map(|new| (self.new_device(new.device), new.enabled)).collect();
            for place in self.store.add_devices(new, dry).await? {
                let error = match names.get(place) {
                    None => continue,
                    Some((dev_eui, true)) => {
                        let reason = format!("DevEUI {dev_eui} stands in the list before");
                        OperatorError::Invalid { reason, remedy: "leave one of them out".into() }
                    }
                    Some((dev_eui, false)) => OperatorError::Exists(*dev_eui),
                };
                wrong.push((place, error));
            }
            Ok(wrong)
        })
    }

    fn export_devices(&self, keys: bool) -> Boxed<'_, Result<Vec<DeviceRecord>, OperatorError>> {
        Box::pin(async move {
            if !keys {
                return Ok(self.store.devices().await?.iter().map(record).collect());
            }
            let devices = self.store.devices_with_keys().await?;
            tracing::warn!(
                devices = devices.len(),
                "root keys were given out: an operator exported all devices"
            );
            let text = |key: &Option<Key>| key.as_ref().map(|key| hex::encode_upper(key.expose()));
            let with_keys = |(summary, app_key, nwk_key): &_| DeviceRecord {
                app_key: text(app_key),
                nwk_key: text(nwk_key),
                ..record(summary)
            };
            Ok(devices.iter().map(with_keys).collect())
        })
    }

    fn change_device(&self, dev_eui: DevEui, change: ChangeDevice) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            let ChangeDevice { name, roaming, enabled, forget_nonces } = change;
            if forget_nonces && !self.store.clear_dev_nonces(dev_eui).await? {
                return Err(OperatorError::NoDevice(dev_eui));
            }
            if forget_nonces {
                tracing::info!(DevEUI = %dev_eui, "its DevNonces are forgotten: it may begin anew");
            }
            match self.store.change_device(dev_eui, store::Change { name, roaming, enabled }).await? {
                true => {
                    self.stop_ended();
                    Ok(())
                }
                false => Err(OperatorError::NoDevice(dev_eui)),
            }
        })
    }

    fn partners(&self) -> Boxed<'_, Result<PartnersView, OperatorError>> {
        let learnt = self.running.is_some().then(|| self.store.net_ids());
        let view = partners::all(&self.config, learnt.as_deref());
        Box::pin(std::future::ready(Ok(view)))
    }

    fn partner(&self, net_id: NetId) -> Boxed<'_, Result<PartnerView, OperatorError>> {
        let learnt = self.running.is_some().then(|| self.store.net_ids());
        let view = partners::one(&self.config, net_id, learnt.as_deref());
        Box::pin(std::future::ready(Ok(view)))
    }

    fn devices(&self) -> Boxed<'_, Result<Vec<DeviceView>, OperatorError>> {
        Box::pin(async move {
            let mut devices = Vec::new();
            for summary in self.store.devices().await? {
                let device = self.store.device(summary.dev_eui).await?;
                devices.extend(device.as_ref().map(DeviceView::from));
            }
            Ok(devices)
        })
    }

    fn device(&self, dev_eui: DevEui) -> Boxed<'_, Result<Device, OperatorError>> {
        Box::pin(async move {
            let device = self.store.device(dev_eui).await?;
            device.ok_or(OperatorError::NoDevice(dev_eui))
        })
    }

    fn remove_device(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            match self.store.remove_device(dev_eui).await? {
                true => {
                    self.stop_ended();
                    Ok(())
                }
                false => Err(OperatorError::NoDevice(dev_eui)),
            }
        })
    }

    fn enqueue(&self, dev_eui: DevEui, item: QueueItem) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            let (decide, slot) =
                door::decided(move |device: &mut Option<Device>| control::enqueue(dev_eui, device, &item));
            self.store.with_device(dev_eui, Box::new(decide)).await?;
            door::outcome(&slot)?
        })
    }
}
