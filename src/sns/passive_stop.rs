//! PRStopReq, as sNS (TS002 12.6.3): a network stops to forward a device of ours, or has to.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tracing::Instrument;

use crate::backend::door::{Caller, Deadline, PeerError, StoreError};
use crate::backend::message::{Party, PrStopAns, PrStopReq, Refusal, ResultCode};
use crate::lorawan::DevEui;

use super::visits::{self, Visit};
use super::{Session, Sns};

/// How long a network is told that it has to stop, before the next try.
const PATIENCE: Duration = Duration::from_secs(5);
/// Visits read at once.
const PAGE: usize = 1_000;
/// Networks told at the same time.
const AT_ONCE: usize = 8;

impl Sns {
    /// From an fNS that stops.
    pub async fn stop(&self, from: Caller, req: PrStopReq) -> Result<PrStopAns, Refusal> {
        let dev_eui = req.dev_eui;
        let unknown = || Refusal::new(ResultCode::UnknownDevEui, format!("no context of {dev_eui} here"));
        let Party::Ns(net_id) = from.party else { return Err(unknown()) };
        let mut found = self.sessions.visits_of(dev_eui).await?;
        found.retain(|visit| visit.net_id == net_id);
        if found.is_empty() {
            return Err(unknown());
        }
        self.forget(&found).await?;
        tracing::info!(DevEUI = %dev_eui, NetID = %net_id, "a network forwards this device no longer");
        Ok(PrStopAns)
    }

    /// Whoever forwards a device whose session has ended, or that may not roam any more, or with whom nothing is agreed
    /// any more, is told to stop: now, and again until it has answered or the Lifetime is over.
    pub async fn stop_ended(self: &Arc<Self>) -> Result<(), StoreError> {
        let ended = self.sessions.ended_visits().await?;
        let now = self.clock.unix();
        let not_allowed = |visit: &Visit| !self.partners.agreement(visit.net_id).passive.any();
        let mut stop = Vec::new();
        for net_id in self.sessions.hosts().await? {
            if !self.partners.agreement(net_id).passive.any() {
                stop.extend(self.sessions.visits_to(net_id, PAGE).await?);
            }
        }
        stop.extend(ended.into_iter().filter(|visit| !not_allowed(visit)));
        // a clock that nobody has set ends nothing, and nobody can be asked
        if !self.clock.is_trusted() {
            return Ok(());
        }
        loop {
            let over = self.sessions.visits_until(visits::over_at(now), PAGE).await?;
            self.forget(&over).await?;
            if over.len() < PAGE {
                break;
            }
        }
        stop.retain(|visit| visit.stands(now));
        stream::iter(&stop).for_each_concurrent(AT_ONCE, |visit| self.tell_to_stop(*visit, &stop, now)).await;
        Ok(())
    }

    /// A new session has begun: whoever forwards an earlier one hears of its end, while the uplink goes on.
    pub(super) fn stop_earlier(self: &Arc<Self>, begun: &Session) {
        self.stop_in_a_moment(begun.dev_eui, Some(begun.id));
    }

    /// Sessions of a device have ended: whoever forwards them hears of it in a moment.
    pub(super) fn stop_all_of(self: &Arc<Self>, dev_eui: DevEui) {
        self.stop_in_a_moment(dev_eui, None);
    }

    fn stop_in_a_moment(self: &Arc<Self>, dev_eui: DevEui, but: Option<u64>) {
        let sns = self.clone();
        let work = async move {
            let forwarded = sns.sessions.visits_of(dev_eui).await?;
            match forwarded.iter().any(|visit| Some(visit.session) != but) {
                true => sns.stop_ended().await,
                false => Ok(()),
            }
        };
        let told = async move {
            if let Err(error) = work.await {
                tracing::warn!("{error}");
            }
        };
        tokio::spawn(told.in_current_span());
    }

    async fn tell_to_stop(&self, visit: Visit, all: &[Visit], now: u64) {
        // another session of the device may go on there, and to some networks a device has one context
        let goes_on = |other: &Visit| {
            (other.net_id, other.dev_eui) == (visit.net_id, visit.dev_eui)
                && other.stands(now)
                && all
                    .iter()
                    .all(|stopped| (stopped.session, stopped.net_id) != (other.session, other.net_id))
        };
        let goes_on = match self.sessions.visits_of(visit.dev_eui).await {
            Ok(of_device) => of_device.iter().any(goes_on),
            Err(error) => return tracing::warn!(DevEUI = %visit.dev_eui, "{error}"),
        };
        if visit.stands(now) && !goes_on {
            let stop = PrStopReq { dev_eui: visit.dev_eui, dev_addr: Some(visit.dev_addr), lifetime: None };
            let by = Deadline(self.clock.now() + PATIENCE);
            match self.peers.ask(Party::Ns(visit.net_id), stop, by).await {
                Ok(_) | Err(PeerError::Refused { .. }) => {
                    tracing::info!(DevEUI = %visit.dev_eui, NetID = %visit.net_id, "told to forward this device no longer");
                }
                Err(error) => {
                    tracing::debug!(DevEUI = %visit.dev_eui, NetID = %visit.net_id, "cannot be told yet: {error}");
                    return;
                }
            }
        }
        if let Err(error) = self.forget(&[visit]).await {
            tracing::warn!(DevEUI = %visit.dev_eui, "{error}");
        }
    }

    async fn forget(&self, visits: &[Visit]) -> Result<(), StoreError> {
        if visits.is_empty() {
            return Ok(());
        }
        let of = visits.iter().map(|visit| (visit.session, visit.net_id)).collect();
        self.sessions.end_visits(of).await
    }
}
