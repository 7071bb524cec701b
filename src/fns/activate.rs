//! A Join-request or Rejoin-request was heard (TS002 12.2, 12.7, 12.9 to 12.11): our own network first, then the device's home.

use std::time::Duration;

use crate::backend::door::{Caller, Deadline, PeerError};
use crate::backend::message::{
    Home, HomeNsReq, HrStopReq, Party, PrStartAns, ProfileAt, ProfileReq, Refusal, ResultCode,
    RoamingActivation,
};
use crate::lorawan::frame::{JoinRequest, RejoinKind, RejoinRequest};
use crate::lorawan::{DevEui, JoinEui, NetId};

use super::homes::Known;
use super::passive_data::joining;
use super::{Fns, Numbered};

/// RX2 of a Join-accept opens this long after the end of the Join-request.
const JOIN_RX2: Duration = Duration::from_secs(6);

/// Why a Join-request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{0}")]
    Peer(#[from] PeerError),
    #[error("{0}")]
    Rule(String),
    #[error("{0}")]
    NotSent(crate::backend::message::Refusal),
}

/// A device that wants a session, and what its frame says of its home.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining {
    dev_eui: DevEui,
    towards: Towards,
}

#[derive(Debug, Clone, Copy)]
enum Towards {
    /// The join server knows the home.
    Js(JoinEui),
    /// Rejoin-request of type 0: this home may let us serve it.
    Handover(NetId),
    /// Of type 2: this home serves it.
    Rekeying(NetId),
}

impl From<JoinRequest<'_>> for Joining {
    fn from(join: JoinRequest<'_>) -> Joining {
        Joining { dev_eui: join.dev_eui(), towards: Towards::Js(join.join_eui()) }
    }
}

impl From<RejoinRequest<'_>> for Joining {
    fn from(rejoin: RejoinRequest<'_>) -> Joining {
        let towards = match rejoin.kind() {
            RejoinKind::Recovery(join_eui) => Towards::Js(join_eui),
            RejoinKind::Handover(net_id) => Towards::Handover(net_id),
            RejoinKind::Rekeying(net_id) => Towards::Rekeying(net_id),
        };
        Joining { dev_eui: rejoin.dev_eui(), towards }
    }
}

impl Fns {
    /// Answer a Join-request or Rejoin-request, or say why not.
    pub(super) async fn activate(&self, heard: Numbered<'_>, join: Joining) -> Result<(), Unanswered> {
        let by = Deadline(heard.at + JOIN_RX2);
        let home = match self.start(self.me, heard, by).await {
            Err(error) if error.is(ResultCode::UnknownDevEui) => self.abroad(heard, join, by).await?,
            answer => answer?,
        };
        let (answer, net_id) = home;
        if let Some(dev_addr) = answer.dev_addr {
            self.hold_offs().note_served(net_id, dev_addr, self.clock.now());
        }
        let granted = PrStartAns { phy_payload: None, dl: None, ..answer.clone() };
        // the Join-accept first: it has a window to reach
        let carried = self.carry(heard, Party::Ns(net_id), answer).await;
        if let Some(transaction) = granted.asked {
            let failed = |why: &Unanswered| Refusal::new(ResultCode::XmitFailed, why.to_string());
            let outcome = carried.as_ref().copied().map_err(failed);
            self.peers.notify(Party::Ns(net_id), transaction, outcome);
        }
        let stateful = granted.lifetime.unwrap_or(0) > 0;
        let profile =
            granted.service.as_ref().filter(|_| stateful).map(|service| service.terms.profile.clone());
        let passive = || (net_id != self.me).then(|| (net_id, profile.unwrap_or_default()));
        let handover = granted.account.clone().map(|account| (account.net_id, account.profile));
        if let Some((whose, profile)) = handover.or_else(passive).filter(|_| carried.is_ok()) {
            self.note_roaming(whose, join.dev_eui, Some(profile)).await;
        }
        // 12.10 step 11
        self.keep(net_id, &granted, (joining(&heard.phy), None)).await;
        carried
    }

    /// Not ours: find its home, by its join server or as the frame names it, and ask there.
    async fn abroad(
        &self,
        heard: Numbered<'_>,
        join: Joining,
        by: Deadline,
    ) -> Result<(PrStartAns, NetId), Unanswered> {
        let dev_eui = join.dev_eui;
        if !self.partners.roams() {
            tracing::info!(target: "roamgate::frame", milestone = "device does not exist", DevEUI = %dev_eui,
                "roaming is off: no [roaming.default] and no [[roaming.partner]] admits anybody");
            return Err(Unanswered::Rule(format!("device {dev_eui} does not exist here and roaming is off")));
        }
        self.has_time()?;
        self.has_room()?;
        let join_eui = match join.towards {
            Towards::Js(join_eui) => Some(join_eui),
            Towards::Handover(_) | Towards::Rekeying(_) => None,
        };
        if let Err(key) = self.partners.filter.admits(dev_eui, join_eui) {
            self.count.filtered.add();
            return Err(Unanswered::Rule(format!("visitor {dev_eui} may not join here: {key}")));
        }
        let (h_net_id, rejoins) = match join.towards {
            Towards::Js(join_eui) => {
                tracing::info!(target: "roamgate::frame", milestone = "unknown device, try passive roaming activation",
                    DevEUI = %dev_eui, JoinEUI = %join_eui);
                (self.home_of(heard, dev_eui, join_eui, by).await?, None)
            }
            Towards::Handover(net_id) | Towards::Rekeying(net_id) => (net_id, Some(join.towards)),
        };
        // strangers cost little: nobody has looked at the MIC of a Rejoin-request yet
        if rejoins.is_some()
            && let Err(wait) = self.admit_unserved(heard.gateway, h_net_id, false)
        {
            self.count.throttled.add();
            let why = format!("too many Rejoin-requests of devices of NetID {h_net_id}: {wait}");
            return Err(Unanswered::Rule(why));
        }
        let agreement = self.partners.agreement(h_net_id);
        let (passive, handover) = match rejoins {
            None => (agreement.passive.activation, agreement.handover.activation),
            // 12.6.1: the home serves it, and we may carry its frames
            Some(Towards::Rekeying(_)) => (agreement.passive.any(), false),
            // 12.7 step 2
            Some(_) => (false, agreement.handover.start),
        };
        let lets = self.partners.lets(dev_eui, join_eui);
        let (of_passive, of_handover) = match rejoins {
            None => (lets.passive.activation, lets.handover.activation),
            Some(_) => (lets.passive.start, lets.handover.start),
        };
        if (passive || handover) && !(passive && of_passive || handover && of_handover) {
            return Err(Unanswered::Rule(format!("visitor {dev_eui} may not activate here: {lets}")));
        }
        let (passive, handover) = (passive && of_passive, handover && of_handover);
        if self.ours.contains(&h_net_id) || !passive && !handover {
            let why = format!("visitors of NetID {h_net_id} may not activate here: {}", agreement.line);
            return Err(Unanswered::Rule(why));
        }
        tracing::info!(target: "roamgate::frame", milestone = "roaming agreement", NetID = %h_net_id, rule = agreement.line);
        if let Some(wait) = self.hold_offs().holds(h_net_id, dev_eui, self.clock.now()) {
            let why = format!(
                "NetID {h_net_id} does not want to be asked about {dev_eui} for {} s",
                wait.as_secs()
            );
            return Err(Unanswered::Rule(why));
        }
        let kind = match handover {
            true => self.kind_of(h_net_id, dev_eui, rejoins.is_some(), by).await.map_err(Unanswered::Peer),
            false => Ok((RoamingActivation::Passive, None)),
        };
        let answer = match kind {
            Ok((RoamingActivation::Handover, Some(profile))) => {
                let home = Home { net_id: h_net_id, profile };
                self.start_for(self.me, Some(Box::new(home)), heard, by).await
            }
            Ok((RoamingActivation::Passive, _)) if passive => self.start(h_net_id, heard, by).await,
            Ok((kind, _)) => {
                let why = format!(
                    "NetID {h_net_id} offers {kind:?} roaming, which is not agreed: {}",
                    agreement.line
                );
                return Err(Unanswered::Rule(why));
            }
            Err(Unanswered::Peer(error)) => Err(error),
            Err(why) => return Err(why),
        };
        if let Err(error) = &answer {
            self.note_refused(h_net_id, dev_eui, error, rejoins.is_some()).await;
        }
        let answer = answer?;
        self.note_there(h_net_id);
        if let Some(addr) = answer.0.dev_addr {
            self.hold_offs().note_served(answer.1, addr, self.clock.now());
        }
        Ok(answer)
    }

    /// A home said no; where it said for how long, it is not asked so long (TS002 13).
    async fn note_refused(&self, net_id: NetId, dev_eui: DevEui, error: &PeerError, rejoins: bool) {
        let now = self.clock.now();
        self.homes().forget_profile(net_id, dev_eui);
        if let PeerError::Refused { refusal, .. } = error
            && let Some(lifetime) = refusal.lifetime.filter(|lifetime| *lifetime > 0)
        {
            let time = Duration::from_secs(lifetime.into());
            self.hold_off(net_id, dev_eui, &[], time).await;
        }
        let lasting = [
            ResultCode::NoRoamingAgreement,
            ResultCode::RoamingActDisallowed,
            ResultCode::Deferred,
            ResultCode::UnknownDevEui,
        ];
        if !rejoins && lasting.into_iter().any(|code| error.is(code)) {
            self.homes().refuse(dev_eui, error.to_string(), now);
        }
    }

    /// ProfileReq, or what is remembered of the last one (12.7 step 4, 12.9 step 5).
    async fn kind_of(
        &self,
        home: NetId,
        dev_eui: DevEui,
        rejoins: bool,
        by: Deadline,
    ) -> Result<(RoamingActivation, Option<ProfileAt>), PeerError> {
        let now = self.clock.now();
        let known = self.homes().profile(home, dev_eui, now);
        let answer = match known {
            Some(known) => known,
            None => {
                let answer = self.peers.ask(Party::Ns(home), ProfileReq { dev_eui }, by).await?;
                self.homes().learn_profile(home, dev_eui, answer.clone(), self.clock.now());
                answer
            }
        };
        let kind = match (rejoins, &answer.profile) {
            // a Rejoin-request of type 0 is for one kind only
            (true, Some(_)) => RoamingActivation::Handover,
            _ => answer.activation,
        };
        Ok((kind, answer.profile))
    }

    /// HomeNSReq, or what is remembered of the last one.
    async fn home_of(
        &self,
        heard: Numbered<'_>,
        dev_eui: DevEui,
        join_eui: JoinEui,
        by: Deadline,
    ) -> Result<NetId, Unanswered> {
        let now = self.clock.now();
        match self.homes().known(dev_eui, join_eui, now) {
            Some(Known::Home(net_id)) => return Ok(net_id),
            Some(Known::Refused(why)) => {
                return Err(Unanswered::Rule(format!("refused a moment ago: {why}")));
            }
            None => {}
        }
        // strangers cost little: a bucket before any lookup
        if let Err(wait) = self.strangers().admit(heard.gateway, join_eui, now) {
            self.count.throttled.add();
            return Err(Unanswered::Rule(format!("too many unknown devices of JoinEUI {join_eui}: {wait}")));
        }
        let answer = self.peers.ask(Party::Js(join_eui), HomeNsReq { dev_eui }, by).await;
        let home = match answer {
            Ok(answer) => answer.h_net_id,
            Err(error) => {
                // a refusal is remembered for a while, a lost message is not
                if matches!(error, PeerError::Refused { .. }) {
                    self.homes().refuse(dev_eui, error.to_string(), now);
                }
                return Err(error.into());
            }
        };
        if self.ours.contains(&home) {
            // 12.9 step 4: the join server says it is ours, and we do not know it
            let why = format!(
                "the join server of {join_eui} says that NetID {home}, which is ours, is home to {dev_eui}"
            );
            if let Some(left_out) = self.complain(heard.gateway, &why) {
                tracing::warn!(left_out, "{why}: add the device here, or correct its home there");
            }
            return Err(Unanswered::Rule(why));
        }
        tracing::info!(target: "roamgate::frame", milestone = "JoinEUI resolved to NetID", DevEUI = %dev_eui,
            JoinEUI = %join_eui, HNetID = %home);
        self.homes().learn(dev_eui, join_eui, home, self.clock.now());
        if let Err(error) = self.learned.learn(home).await {
            tracing::warn!("the home of {dev_eui} is remembered until the next start only: {error}");
        }
        Ok(home)
    }

    /// A home has ended the handover of a device to us, and says for how long it wants no HRStartReq (12.8.3).
    pub async fn handover_over(&self, from: &Caller, req: &HrStopReq, ended: bool) {
        let (Party::Ns(home), false) = (&from.party, from.ours) else { return };
        self.homes().forget_profile(*home, req.dev_eui);
        if let Some(lifetime) = req.lifetime {
            let time = Duration::from_secs(lifetime.into());
            self.hold_off(*home, req.dev_eui, &[], time).await;
        }
        if ended {
            self.note_roaming(*home, req.dev_eui, None).await;
        }
    }
}
