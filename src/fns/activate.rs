//! A Join-request was heard (TS002 12.2, 12.10): our own network first, then the device's home.

use std::time::Duration;

use crate::backend::door::{Deadline, PeerError};
use crate::backend::message::{HomeNsReq, Party, PrStartAns, ResultCode};
use crate::lorawan::NetId;
use crate::lorawan::frame::JoinRequest;

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

impl Fns {
    /// Answer a Join-request, or say why not.
    pub(super) async fn activate(
        &self,
        heard: Numbered<'_>,
        join: JoinRequest<'_>,
    ) -> Result<(), Unanswered> {
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
        if net_id != self.me && carried.is_ok() {
            self.note_roaming(net_id, join.dev_eui(), true).await;
        }
        // 12.10 step 11
        self.keep(net_id, &granted, (joining(&heard.phy), None)).await;
        carried
    }

    /// Not ours: find its home by its join server, and ask there.
    async fn abroad(
        &self,
        heard: Numbered<'_>,
        join: JoinRequest<'_>,
        by: Deadline,
    ) -> Result<(PrStartAns, NetId), Unanswered> {
        let (dev_eui, join_eui) = (join.dev_eui(), join.join_eui());
        if !self.partners.roams() {
            tracing::info!(target: "roamgate::frame", milestone = "device does not exist", DevEUI = %dev_eui,
                JoinEUI = %join_eui, "roaming is off: no [roaming.default] and no [[roaming.partner]] admits anybody");
            return Err(Unanswered::Rule(format!("device {dev_eui} does not exist here and roaming is off")));
        }
        if !self.clock.is_trusted() {
            self.count.clock.add();
            return Err(Unanswered::Rule(
                "the clock is not set: visitors wait until GPS or NTP sets it".into(),
            ));
        }
        tracing::info!(target: "roamgate::frame", milestone = "unknown device, try passive roaming activation",
            DevEUI = %dev_eui, JoinEUI = %join_eui);
        let h_net_id = self.home_of(heard, join, by).await?;
        let agreement = self.partners.agreement(h_net_id);
        if !agreement.passive.activation {
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
        let answer = self.start(h_net_id, heard, by).await;
        if let Err(error) = &answer
            && (error.is(ResultCode::NoRoamingAgreement)
                || error.is(ResultCode::RoamingActDisallowed)
                || error.is(ResultCode::Deferred)
                || error.is(ResultCode::UnknownDevEui))
        {
            self.homes().refuse(dev_eui, error.to_string(), self.clock.now());
        }
        let answer = answer?;
        self.note_there(h_net_id);
        if let Some(addr) = answer.0.dev_addr {
            self.hold_offs().note_served(h_net_id, addr, self.clock.now());
        }
        Ok(answer)
    }

    /// HomeNSReq, or what is remembered of the last one.
    async fn home_of(
        &self,
        heard: Numbered<'_>,
        join: JoinRequest<'_>,
        by: Deadline,
    ) -> Result<NetId, Unanswered> {
        let (dev_eui, join_eui) = (join.dev_eui(), join.join_eui());
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
}
