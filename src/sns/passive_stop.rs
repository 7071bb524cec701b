//! PRStopReq, as sNS (TS002 12.6.3): a network stops to forward a device of ours, or has to.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tracing::Instrument;

use crate::backend::door::{Caller, Deadline, PeerError, StoreError};
use crate::backend::message::{Party, PrStopAns, PrStopReq, Refusal, ResultCode};
use crate::lorawan::DevEui;

use super::visits::Visit;
use super::{Session, Sns};

/// How long a network is told that it has to stop, before the next try.
const PATIENCE: Duration = Duration::from_secs(5);
/// Networks told at the same time.
const AT_ONCE: usize = 8;

impl Sns {
    /// Read the visits of earlier runs.
    pub async fn recall(&self) -> Result<(), StoreError> {
        let all = self.sessions.visits().await?;
        let mut book = self.book();
        for visit in all {
            book.put(visit);
        }
        Ok(())
    }

    /// Networks that forward a device of ours by a context now.
    pub fn visited_by(&self, dev_eui: DevEui) -> Vec<Visit> {
        let now = self.clock.unix();
        self.book().pick(|visit| visit.dev_eui == dev_eui && visit.stands(now))
    }

    /// From an fNS that stops.
    pub async fn stop(&self, from: Caller, req: PrStopReq) -> Result<PrStopAns, Refusal> {
        let dev_eui = req.dev_eui;
        let unknown = || Refusal::new(ResultCode::UnknownDevEui, format!("no context of {dev_eui} here"));
        let Party::Ns(net_id) = from.party else { return Err(unknown()) };
        let found = self.book().pick(|visit| (visit.net_id, visit.dev_eui) == (net_id, dev_eui));
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
        let mut stop = self.book().pick(not_allowed);
        stop.extend(ended.into_iter().filter(|visit| !not_allowed(visit)));
        // a clock that nobody has set ends nothing, and nobody can be asked
        if !self.clock.is_trusted() {
            return Ok(());
        }
        let over = self.book().pick(|visit| !visit.stands(now));
        self.forget(&over).await?;
        stream::iter(&stop).for_each_concurrent(AT_ONCE, |visit| self.tell_to_stop(*visit, &stop, now)).await;
        Ok(())
    }

    /// A new session has begun: whoever forwards an earlier one hears of its end, while the uplink goes on.
    pub(super) fn stop_earlier(self: &Arc<Self>, begun: &Session) {
        if self.book().pick(|visit| visit.dev_eui == begun.dev_eui && visit.session != begun.id).is_empty() {
            return;
        }
        self.stop_all_of(begun.dev_eui);
    }

    /// Sessions of a device have ended: whoever forwards them hears of it in a moment.
    pub(super) fn stop_all_of(self: &Arc<Self>, dev_eui: DevEui) {
        if self.book().pick(|visit| visit.dev_eui == dev_eui).is_empty() {
            return;
        }
        let sns = self.clone();
        let work = async move {
            if let Err(error) = sns.stop_ended().await {
                tracing::warn!("{error}");
            }
        };
        tokio::spawn(work.in_current_span());
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
        let goes_on = !self.book().pick(goes_on).is_empty();
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
        self.sessions.end_visits(of).await?;
        let mut book = self.book();
        visits.iter().for_each(|visit| book.remove(visit));
        Ok(())
    }
}
