//! PRStopReq, as fNS (TS002 12.6.3): the sNS ends a context, or we do.

use std::time::Duration;

use crate::backend::door::{Caller, Deadline};
use crate::backend::message::{Party, PrStopAns, PrStopReq, Refusal, ResultCode};

use super::Fns;
use super::contexts::ContextId;

/// How long an sNS is told that we stop.
const PARTING: Duration = Duration::from_secs(5);

impl Fns {
    /// From the sNS of a visitor. It ends contexts of its own only: another network's have another NetID.
    pub async fn stop(&self, from: Caller, req: PrStopReq) -> Result<PrStopAns, Refusal> {
        let unknown =
            || Refusal::new(ResultCode::UnknownDevEui, format!("no context of {} here", req.dev_eui));
        let Party::Ns(net_id) = from.party else { return Err(unknown()) };
        // 2: the context goes; the hold-off is noted in both cases
        let of_device = self.contexts.of_device(net_id, req.dev_eui).await?;
        let meant = |id: &ContextId| req.dev_addr.is_none_or(|addr| addr == id.dev_addr);
        let ended: Vec<ContextId> = of_device.iter().map(|context| context.id).filter(meant).collect();
        if let Some(lifetime) = req.lifetime {
            let time = Duration::from_secs(lifetime.into());
            let addrs: Vec<_> = ended.iter().map(|id| id.dev_addr).chain(req.dev_addr).collect();
            self.hold_off(net_id, req.dev_eui, &addrs, time).await;
        }
        if ended.is_empty() {
            return Err(unknown());
        }
        self.forget(ended).await?;
        tracing::info!(DevEUI = %req.dev_eui, NetID = %net_id, Lifetime = req.lifetime, "its home has ended a roaming context");
        Ok(PrStopAns)
    }

    /// Tell the sNS that we stop. Once: its side ends with the Lifetime anyhow.
    pub(super) async fn part(&self, id: ContextId) {
        let stop = PrStopReq { dev_eui: id.dev_eui, dev_addr: None, lifetime: None };
        let by = Deadline(self.clock.now() + PARTING);
        if let Err(error) = self.peers.ask(Party::Ns(id.net_id), stop, by).await {
            tracing::debug!(DevEUI = %id.dev_eui, "{error}");
        }
    }
}
