//! What an operator may do, done on the store: by the running node, or by the command line alone
//! while no daemon runs.

use std::sync::Arc;

use crate::backend::door::{self, Boxed};
use crate::backend::message::MacVersion;
use crate::clock::{Clock, Instant};
use crate::config::{Config, Role};
use crate::control::{self, DeviceView, NewDevice, OperatorError, Status};
use crate::fns::Air;
use crate::hns::{Device, Devices, QueueItem};
use crate::lorawan::{DevEui, NetId};
use crate::radio::Radios;
use crate::store::{self, AddError, Store};

use super::house::Ours;

/// The operator's hands.
pub struct Operator {
    store: Store,
    ours: Ours,
    home: NetId,
    is_js: bool,
    status: Status,
    /// Of a running node.
    running: Option<(Instant, Clock, Arc<Radios>)>,
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
        Operator { store, ours: Ours::of(config), home, is_js, status, running: None }
    }

    /// On a running node.
    pub fn running(config: &Config, store: Store, clock: Clock, radios: Arc<Radios>) -> Operator {
        Operator { running: Some((clock.now(), clock, radios)), ..Operator::alone(config, store) }
    }

    fn check(&self, device: &NewDevice) -> Result<(), OperatorError> {
        let invalid =
            |reason: String, remedy: &str| Err(OperatorError::Invalid { reason, remedy: remedy.into() });
        // without the role, the device's join server is elsewhere and its JoinEUI not ours to judge
        if self.is_js && !self.ours.serves(device.join_eui) {
            let reason = format!("JoinEUI {} is not of [join_server] join_euis", device.join_eui);
            return invalid(reason, "add it there, or give the device a JoinEUI that is ours");
        }
        if device.mac_version >= MacVersion::V1_1 {
            let reason = format!("LoRaWAN {} devices are not supported", device.mac_version);
            return invalid(reason, "1.0 to 1.0.4 are");
        }
        Ok(())
    }
}

impl control::Operator for Operator {
    fn status(&self) -> Boxed<'_, Result<Status, OperatorError>> {
        Box::pin(async move {
            let mut status = self.status.clone();
            status.devices = self.store.devices().await?.len();
            if let Some((since, clock, radios)) = &self.running {
                status.uptime = Some(clock.now().duration_since(*since).as_secs());
                status.heads = radios.heads();
                status.radios = radios.status().iter().map(ToString::to_string).collect();
            }
            Ok(status)
        })
    }

    fn add_device(&self, device: NewDevice) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            self.check(&device)?;
            let dev_eui = device.dev_eui;
            let new = store::NewDevice {
                dev_eui,
                join_eui: device.join_eui,
                name: device.name,
                mac_version: device.mac_version,
                app_key: device.app_key,
                nwk_key: None,
                home: self.home,
                roaming: device.roaming,
            };
            match self.store.add_device(new).await {
                Ok(()) => Ok(()),
                Err(AddError::Duplicate(dev_eui)) => Err(OperatorError::Exists(dev_eui)),
                Err(AddError::Store(error)) => Err(error.into()),
            }
        })
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
                true => Ok(()),
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
