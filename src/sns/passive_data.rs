//! XmitDataReq(up), as sNS (TS002 12.6.1): an uplink of a device that a partner forwards by a context.

use std::sync::Arc;

use crate::backend::door::{Caller, StoreError};
use crate::backend::message::{PrStartReq, Refusal, ResultCode, XmitAns, XmitUp};
use crate::lorawan::frame::Uplink;
use crate::lorawan::{DevAddr, NetId};

use super::visits::Visit;
use super::{Session, Sns};

impl Sns {
    /// The same procedure as behind PRStartReq; only who may knock differs, and what is granted: nothing new.
    pub async fn passive_data(self: &Arc<Self>, from: Caller, req: XmitUp) -> Result<XmitAns, Refusal> {
        let no_context =
            || Refusal::new(ResultCode::UnknownDevAddr, "no roaming context with you: send PRStartReq");
        // our own fNS asks with PRStartReq
        let visited = self.visited(&from)?.ok_or_else(no_context)?;
        let agreement = self.partners.agreement(visited);
        if !agreement.passive.any() {
            let why = format!("passive roaming is off for NetID {visited}: {}", agreement.line);
            return Err(Refusal::new(ResultCode::NoRoamingAgreement, why));
        }
        let XmitUp { phy_payload, ul, downlink_in_answer } = req;
        let dedup_window = None;
        let req =
            PrStartReq { phy_payload, ul, downlink_in_answer, dedup_window, mic_check: false, home: None };
        let Uplink::Data(frame) = Uplink::parse(&req.phy_payload)? else {
            let why = "Join and Rejoin frames never travel in an XmitDataReq";
            return Err(Refusal::new(ResultCode::MalformedRequest, why));
        };
        let answer = self.data(from, Some(visited), &req, frame, true).await?;
        Ok(XmitAns { riding: answer.phy_payload.zip(answer.dl), ..XmitAns::default() })
    }

    /// Let a network forward a session by a context, where the agreement has a Lifetime; seconds, 0: stateless. On disk
    /// before anybody hears of it.
    pub(super) async fn grant(&self, session: &Session, visited: Option<NetId>) -> u32 {
        let Some(net_id) = visited else { return 0 };
        let now = self.clock.unix();
        let agreed = self.partners.agreement(net_id).passive.lifetime.seconds();
        // no longer than the session itself
        let left = session.expires.map_or(u64::MAX, |expires| expires.saturating_sub(now));
        let lifetime = u32::try_from(left).unwrap_or(u32::MAX).min(agreed);
        if lifetime == 0 {
            return 0;
        }
        let until = now.saturating_add(lifetime.into());
        let visit = Visit {
            session: session.id,
            net_id,
            dev_eui: session.dev_eui,
            dev_addr: session.dev_addr,
            until,
        };
        if let Err(error) = self.sessions.grant(visit).await {
            tracing::warn!(DevEUI = %session.dev_eui, NetID = %net_id, "no roaming context is granted: {error}");
            return 0;
        }
        lifetime
    }

    /// Sessions of an address that a network forwards by a context.
    pub(super) async fn forwarded_by(
        &self,
        net_id: NetId,
        addr: DevAddr,
        now: u64,
    ) -> Result<Vec<u64>, StoreError> {
        let visits = self.sessions.visits_at(net_id, addr).await?;
        Ok(visits.iter().filter(|visit| visit.stands(now)).map(|visit| visit.session).collect())
    }

    /// Whether the agreement with a network says that it checks MICs.
    pub(super) fn checks_mics(&self, visited: Option<NetId>) -> bool {
        visited.is_some_and(|net_id| self.partners.agreement(net_id).passive.mic_check)
    }
}
