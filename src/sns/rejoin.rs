//! A Rejoin-request, as sNS (TS002 12.7, 12.11; the comments are their steps), and what makes a device send one.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::door::{self, Caller, Commit};
use crate::backend::message::{NwkKeys, PrStartAns, PrStartReq, Refusal, ResultCode};
use crate::clock::Instant;
use crate::lorawan::frame::{RejoinKind, RejoinRequest};
use crate::lorawan::{DevEui, NetId};

use super::activate::{Newcomer, profile_then};
use super::{Session, Sns, Write};

/// So long a Rejoin-request is an answer to a ForceRejoinReq (TS002 13).
const FORCED: Duration = Duration::from_secs(3600);

/// A ForceRejoinReq that the device has not followed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forced {
    /// 0 or 2.
    pub(super) kind: u8,
    /// From then on a Rejoin-request is unsolicited again.
    pub(super) until: Instant,
}

impl Sns {
    /// PRStartReq with a Rejoin-request.
    pub(super) async fn rejoin(
        self: &Arc<Self>,
        from: &Caller,
        visited: Option<NetId>,
        req: &PrStartReq,
        rejoin: RejoinRequest<'_>,
    ) -> Result<PrStartAns, Refusal> {
        let dev_eui = rejoin.dev_eui();
        let mut who = Newcomer::joining(dev_eui, req);
        let sessions = self.sessions_of(dev_eui).await?;
        match rejoin.kind() {
            // type 1, step 1: a healthy session needs no other; step 2: else it is a Join-request
            RejoinKind::Recovery(_) if sessions.iter().any(|session| !session.pending) => {
                let why = format!("device {dev_eui} has a session here, and goes on with it");
                return Err(Refusal::new(ResultCode::NoAction, why));
            }
            RejoinKind::Recovery(_) => {}
            // 12.7 step 6: the home has told our fNS that we may
            RejoinKind::Handover(_) if req.home.is_some() => {}
            kind @ (RejoinKind::Handover(home) | RejoinKind::Rekeying(home)) => {
                match signing(&sessions, rejoin) {
                    Some(session) => {
                        let count = rejoin.rj_count();
                        if session.rj_count0.is_some_and(|last| count <= last) {
                            let last = session.rj_count0.unwrap_or(0);
                            let why = format!("RJcount0 {count} is not above {last}");
                            return Err(Refusal::new(ResultCode::FrameReplayed, why));
                        }
                        self.was_asked_for(dev_eui, kind)?;
                        who.home = session.home;
                        who.profile = session.home.and_then(|_| profile_then(session));
                        who.keeps_channels = matches!(kind, RejoinKind::Rekeying(_));
                        who.rejoins = Some((session.id, count));
                    }
                    None if !sessions.is_empty() => {
                        let why = format!("no session of {dev_eui} makes this MIC right");
                        return Err(Refusal::new(ResultCode::MicFailed, why));
                    }
                    // 12.8.4 step 4: ours, and elsewhere: whether it may come back the hNS knows
                    None if matches!(kind, RejoinKind::Handover(_)) && home == self.net_id => {}
                    None => {
                        let why = format!("no session of {dev_eui} here");
                        return Err(Refusal::new(ResultCode::UnknownDevEui, why));
                    }
                }
            }
        }
        let answer = self.activate(from, visited, req, who).await?;
        self.forced().remove(&dev_eui);
        Ok(answer)
    }

    /// An unsolicited Rejoin-request of type 0 or 2 is dropped by the network that serves the device (12.7 step 2, 12.11).
    fn was_asked_for(&self, dev_eui: DevEui, kind: RejoinKind) -> Result<(), Refusal> {
        let now = self.clock.now();
        let asked = self
            .forced()
            .get(&dev_eui)
            .is_some_and(|forced| forced.kind == kind.number() && now < forced.until);
        if asked {
            return Ok(());
        }
        let why = format!("nobody has asked {dev_eui} for a Rejoin-request of type {}", kind.number());
        Err(Refusal { lifetime: Some(0), ..Refusal::new(ResultCode::Deferred, why) })
    }

    /// Have a device send a Rejoin-request of type 0 or 2 after its next uplinks (ForceRejoinReq), as far as its session is of
    /// LoRaWAN 1.1 and served here. `home`: whose it is, where it is not ours.
    pub async fn force_rejoin(&self, dev_eui: DevEui, kind: u8, home: Option<NetId>) -> Result<(), Refusal> {
        let sessions = self.sessions_of(dev_eui).await?;
        let Some(session) = sessions.iter().rev().find(|session| !session.pending && session.home == home)
        else {
            let why = format!("no session of {dev_eui} is served here");
            return Err(Refusal::new(ResultCode::UnknownDevEui, why));
        };
        if !session.is_v11() {
            let why =
                format!("the session of {dev_eui} is not of LoRaWAN 1.1: only a Join-request renews it");
            return Err(Refusal::new(ResultCode::Other, why));
        }
        let until = self.clock.now() + FORCED;
        let mut forced = self.forced();
        forced.retain(|_, other| other.until > self.clock.now());
        forced.insert(dev_eui, Forced { kind, until });
        Ok(())
    }

    /// Its sessions that are in force.
    async fn sessions_of(&self, dev_eui: DevEui) -> Result<Vec<Session>, Refusal> {
        let now = self.clock.unix();
        let (decide, slot) = door::decided(move |sessions: &mut Vec<Session>| {
            let mut found = sessions.clone();
            found.retain(|session| session.expires.is_none_or(|expires| expires > now));
            (found, Write::sessions(Commit::Nothing))
        });
        self.sessions.with_device(dev_eui, Box::new(decide)).await?;
        Ok(door::outcome(&slot)?)
    }
}

/// The session whose SNwkSIntKey made the MIC.
fn signing<'a>(sessions: &'a [Session], rejoin: RejoinRequest<'_>) -> Option<&'a Session> {
    sessions.iter().rev().find(|session| match &session.keys {
        NwkKeys::V11 { s_nwk_s_int_key, .. } => rejoin.mic_matches(s_nwk_s_int_key),
        NwkKeys::V10 { .. } => false,
    })
}
