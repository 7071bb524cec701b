//! Devices of other networks that we serve: HRStopReq and the regain form of HRStartReq, as sNS (TS002 12.8.3, 12.8.4), and the end
//! that we make ourselves.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::door::{self, Caller, Commit, Deadline, StoreError};
use crate::backend::message::{HrRegainAns, HrRegainReq, HrStopAns, HrStopReq, Party, Refusal, ResultCode};
use crate::lorawan::frame::RejoinKind;
use crate::lorawan::{DevEui, NetId};

use super::{Session, Sns, Write};

/// How long a home is told that we stop.
const PARTING: Duration = Duration::from_secs(5);

impl Sns {
    /// From the hNS: another network serves the device from now on.
    pub async fn handover_stop(self: &Arc<Self>, from: Caller, req: HrStopReq) -> Result<HrStopAns, Refusal> {
        let (dev_eui, home) = (req.dev_eui, home_of(&from)?);
        let ends = move |session: &Session| {
            session.home == home && (home.is_some() || req.of.contains(&session.dev_addr))
        };
        if !self.end_sessions(dev_eui, ends).await? {
            let why = format!("no session of {dev_eui} that NetID {} has handed over", self.named(home));
            return Err(Refusal::new(ResultCode::UnknownDevEui, why));
        }
        tracing::info!(DevEUI = %dev_eui, NetID = %self.named(home), "its home says that this device is served elsewhere");
        Ok(HrStopAns)
    }

    /// From the hNS: it wants its device back, which only the device can do.
    pub async fn regain(&self, from: Caller, req: HrRegainReq) -> Result<HrRegainAns, Refusal> {
        let home = home_of(&from)?;
        let back = RejoinKind::Handover(self.named(home)).number();
        self.force_rejoin(req.dev_eui, back, home).await.map(|()| HrRegainAns)
    }

    /// The home of a device that we served refuses it: our session is over.
    pub(super) async fn disowned(self: &Arc<Self>, dev_eui: DevEui, session: u64) {
        match self.end_sessions(dev_eui, move |of| of.id == session && of.home.is_some()).await {
            Ok(true) => tracing::info!(DevEUI = %dev_eui, "its home no longer lets us serve this device"),
            Ok(false) => {}
            Err(error) => tracing::warn!(DevEUI = %dev_eui, "{error}"),
        }
    }

    /// Devices of networks with which nothing is agreed any more, and sessions whose Lifetime is over: they end, and the
    /// home hears of it, once. Its own rules end its side.
    pub async fn end_guests(self: &Arc<Self>) -> Result<(), StoreError> {
        if !self.clock.is_trusted() {
            return Ok(());
        }
        let now = self.clock.unix();
        for session in self.sessions.guests().await? {
            let Some(home) = session.home else { continue };
            let agreed = self.partners.agreement(home).handover.any();
            let over = session.expires.is_some_and(|expires| expires <= now);
            if agreed && !over {
                continue;
            }
            let (dev_eui, id) = (session.dev_eui, session.id);
            self.end_sessions(dev_eui, move |of| of.id == id).await?;
            tracing::info!(DevEUI = %dev_eui, NetID = %home, agreed, "this device is served no longer");
            let stop = HrStopReq { dev_eui, lifetime: None, of: Vec::new() };
            let by = Deadline(self.clock.now() + PARTING);
            if let Err(error) = self.peers.ask(Party::Ns(home), stop, by).await {
                tracing::debug!(DevEUI = %dev_eui, NetID = %home, "{error}");
            }
        }
        Ok(())
    }

    /// `false`: there was none. Whoever forwards them by a context hears of it.
    async fn end_sessions(
        self: &Arc<Self>,
        dev_eui: DevEui,
        ends: impl Fn(&Session) -> bool + Send + Sync + 'static,
    ) -> Result<bool, StoreError> {
        let (decide, slot) = door::decided(move |sessions: &mut Vec<Session>| {
            let before = sessions.len();
            sessions.retain(|session| !ends(session));
            let ended = sessions.len() < before;
            (ended, Write::sessions(if ended { Commit::Durable } else { Commit::Nothing }))
        });
        self.sessions.with_device(dev_eui, Box::new(decide)).await?;
        let ended = door::outcome(&slot)?;
        if ended {
            self.stop_all_of(dev_eui);
        }
        Ok(ended)
    }

    fn named(&self, home: Option<NetId>) -> NetId {
        home.unwrap_or(self.net_id)
    }
}

/// Whose devices the asker speaks of; `None`: ours.
fn home_of(from: &Caller) -> Result<Option<NetId>, Refusal> {
    match (&from.party, from.ours) {
        (_, true) => Ok(None),
        (Party::Ns(net_id), false) => Ok(Some(*net_id)),
        _ => Err(Refusal::new(ResultCode::MalformedRequest, "it comes from a network server")),
    }
}
