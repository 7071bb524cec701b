//! HRStopReq, as hNS (TS002 12.8.3): a network no longer serves a device of ours, or has to stop.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::backend::door::{Caller, Deadline, PeerError, StoreError};
use crate::backend::message::{HrRegainAns, HrRegainReq, HrStopAns, HrStopReq, Party, Refusal, ResultCode};
use crate::clock::Instant;
use crate::lorawan::{DevEui, NetId};

use super::profile::visited;
use super::{Activation, Device, Handover, Hns};

/// How long a network is told that it has to stop, before the next try.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between the first tries, and at the most.
const PAUSE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

/// So long a Rejoin-request is awaited after we have asked for a device.
const REGAINING: Duration = Duration::from_secs(3600);

/// Networks that have to be told, and could not be yet.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    again: Mutex<BTreeMap<(DevEui, NetId), (Instant, Duration)>>,
    news: Notify,
}

impl Stopping {
    fn again(&self) -> MutexGuard<'_, BTreeMap<(DevEui, NetId), (Instant, Duration)>> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, of: &Handover, now: Instant) -> bool {
        self.again().get(&(of.dev_eui, of.net_id)).is_none_or(|(at, _)| *at <= now)
    }

    fn note(&self, of: &Handover, told: bool, now: Instant) {
        let key = (of.dev_eui, of.net_id);
        let mut again = self.again();
        if told {
            again.remove(&key);
        } else {
            let pause = again.get(&key).map_or(PAUSE, |(_, pause)| pause.saturating_mul(2).min(LONGEST));
            again.insert(key, (now + pause, pause));
        }
    }
}

impl Hns {
    /// From an sNS that stops.
    pub async fn stopped(&self, from: Caller, req: HrStopReq) -> Result<HrStopAns, Refusal> {
        let (net_id, dev_eui) = (visited(&from)?, req.dev_eui);
        let device = self.device(dev_eui).await?;
        let activations = device.map(|device| device.activations).unwrap_or_default();
        let mut ended = false;
        for activation in activations.iter().filter(|activation| activation.sns == Some(net_id)) {
            let of = Handover { dev_eui, dev_addr: activation.dev_addr, net_id };
            ended |= self.devices.end_handover(of).await?;
        }
        if !ended {
            let why = format!("no handover of {dev_eui} to NetID {net_id}");
            return Err(Refusal::new(ResultCode::UnknownDevEui, why));
        }
        tracing::info!(DevEUI = %dev_eui, NetID = %net_id, "a network serves this device no longer");
        Ok(HrStopAns)
    }

    /// The device was heard for the first time in an activation: whoever served it before stops (12.7 step 12).
    pub(super) async fn end_earlier(&self, device: &Device, begun: &Activation, by: Deadline) {
        let earlier = || device.activations.iter().take_while(|earlier| earlier.dev_addr != begun.dev_addr);
        let of: Vec<_> =
            earlier().filter(|earlier| earlier.sns.is_none()).map(|earlier| earlier.dev_addr).collect();
        if begun.sns.is_some()
            && !of.is_empty()
            && let Some(me) = self.abroad.ours.first()
        {
            let stop = HrStopReq { dev_eui: device.dev_eui, lifetime: None, of };
            match self.peers.ask(Party::Ns(*me), stop, by).await {
                Ok(HrStopAns) | Err(PeerError::Refused { .. }) => {}
                // it hears nothing there any more
                Err(error) => tracing::debug!(DevEUI = %device.dev_eui, "a session stays here: {error}"),
            }
        }
        self.regaining().remove(&device.dev_eui);
        if earlier().any(|earlier| earlier.sns.is_some_and(|sns| Some(sns) != begun.sns)) {
            self.stopping.news.notify_one();
        }
    }

    /// Until there may be something to do for [`Hns::stop_ended`].
    pub async fn handover_ended(&self) {
        self.stopping.news.notified().await;
    }

    /// Tell the networks whose handover has ended, until they have answered.
    pub async fn stop_ended(&self) -> Result<(), StoreError> {
        let mut ended = self.devices.ended_handovers().await?;
        let now = self.clock.now();
        ended.retain(|of| self.stopping.is_due(of, now));
        // one message ends all sessions of a device there
        let mut told = BTreeMap::new();
        for of in ended {
            let key = (of.dev_eui, of.net_id);
            let done = match told.get(&key) {
                Some(done) => *done,
                None => self.tell_to_stop(&of).await,
            };
            told.insert(key, done);
            self.stopping.note(&of, done, now);
            if done {
                self.devices.end_handover(of).await?;
            }
        }
        Ok(())
    }

    async fn tell_to_stop(&self, of: &Handover) -> bool {
        if !self.clock.is_trusted() {
            return false;
        }
        let stop = HrStopReq { dev_eui: of.dev_eui, lifetime: None, of: Vec::new() };
        let by = Deadline(self.clock.now() + PATIENCE);
        match self.peers.ask(Party::Ns(of.net_id), stop, by).await {
            Ok(HrStopAns) | Err(PeerError::Refused { .. }) => {
                tracing::info!(DevEUI = %of.dev_eui, NetID = %of.net_id, "told to serve this device no longer");
                true
            }
            Err(error) => {
                tracing::debug!(DevEUI = %of.dev_eui, NetID = %of.net_id, "cannot be told yet: {error}");
                false
            }
        }
    }

    /// Regain control of a device that another network serves (12.8.4): it is told to rejoin, which only the device can do.
    /// The network that serves it; `None`: we do.
    pub async fn regain(&self, dev_eui: DevEui, by: Deadline) -> Result<Option<NetId>, Refusal> {
        let unknown = || Refusal::new(ResultCode::UnknownDevEui, format!("no device {dev_eui} here"));
        let device = self.device(dev_eui).await?.ok_or_else(unknown)?;
        let serves = device.activations.iter().rfind(|activation| activation.fcnt_up.is_some());
        let Some(net_id) = serves.and_then(|activation| activation.sns) else { return Ok(None) };
        self.regaining().insert(dev_eui, self.clock.now() + REGAINING);
        match self.peers.ask(Party::Ns(net_id), HrRegainReq { dev_eui }, by).await {
            Ok(HrRegainAns) => Ok(Some(net_id)),
            Err(error) => {
                self.regaining().remove(&dev_eui);
                Err(error.into_refusal())
            }
        }
    }

    /// Whether its Rejoin-request is awaited here.
    pub(super) fn wants_back(&self, dev_eui: DevEui) -> bool {
        let now = self.clock.now();
        self.regaining().get(&dev_eui).is_some_and(|until| now < *until)
    }

    pub(super) fn regaining(&self) -> MutexGuard<'_, BTreeMap<DevEui, Instant>> {
        self.regaining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
