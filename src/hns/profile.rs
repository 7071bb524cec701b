//! ProfileReq, as hNS (TS002 12.7 step 5, 12.9 step 6, 12.12): how a network may serve a device of ours.

use jiff::Timestamp;

use crate::backend::door::Caller;
use crate::backend::message::{
    DeviceProfile, MacVersion, Party, ProfileAns, ProfileAt, ProfileReq, Refusal, ResultCode,
    RoamingActivation,
};
use crate::lorawan::NetId;

use super::{Device, Hns};

/// So long, in seconds, a network that was refused by policy need not ask again.
pub(super) const HOLD_OFF: u32 = 600;

impl Hns {
    /// A network has heard a device that may be ours.
    pub async fn profile(&self, from: Caller, req: ProfileReq) -> Result<ProfileAns, Refusal> {
        let visited = visited(&from)?;
        let agreement = self.abroad.partners.agreement(visited);
        let (passive, handover) = (&agreement.passive, agreement.handover);
        if !passive.any() && !handover.any() {
            let why = format!("no roaming with NetID {visited}: {}", agreement.line);
            return Err(not_now(ResultCode::NoRoamingAgreement, why));
        }
        let device = self.device(req.dev_eui).await?;
        let device = device.ok_or_else(|| {
            Refusal::new(ResultCode::UnknownDevEui, format!("no device {} here", req.dev_eui))
        })?;
        if !device.enabled || !device.roaming {
            let why = format!("device {} may not activate while roaming", req.dev_eui);
            return Err(not_now(ResultCode::RoamingActDisallowed, why));
        }
        let lets = self.abroad.partners.lets(device.dev_eui, Some(device.join_eui));
        let by_passive = passive.activation && lets.passive.activation;
        let by_handover =
            handover.activation && lets.handover.activation || handover.start && lets.handover.start;
        // where both are agreed the home stays in charge
        let activation = match (by_passive, by_handover) {
            (true, _) => RoamingActivation::Passive,
            (false, true) => RoamingActivation::Handover,
            (false, false) => {
                let why = format!("no activation with NetID {visited}: {}, {lets}", agreement.line);
                return Err(not_now(ResultCode::RoamingActDisallowed, why));
            }
        };
        let profile = handover.any().then(|| self.profile_of(&device));
        Ok(ProfileAns { activation, profile })
    }

    /// What a serving network must know of a device.
    pub(super) fn profile_of(&self, device: &Device) -> ProfileAt {
        let reg_params_revision = match device.mac_version {
            MacVersion::V1_0_3 => "A",
            MacVersion::V1_0_4 => "RP002-1.0.3",
            _ => "B",
        };
        let since =
            i64::try_from(device.profile_since).ok().and_then(|unix| Timestamp::from_second(unix).ok());
        let profile = DeviceProfile {
            id: format!("roamgate-{}-{}", self.abroad.region, device.mac_version),
            mac_version: device.mac_version,
            reg_params_revision: reg_params_revision.into(),
            class: device.class,
            supports_join: !device.personalised,
            max_eirp: 16,
            rf_region: self.abroad.region.clone(),
        };
        ProfileAt { profile, since: since.unwrap_or(Timestamp::UNIX_EPOCH) }
    }
}

/// The network that asks.
pub(super) fn visited(from: &Caller) -> Result<NetId, Refusal> {
    match &from.party {
        Party::Ns(net_id) => Ok(*net_id),
        _ => Err(Refusal::new(ResultCode::MalformedRequest, "it comes from a network server")),
    }
}

/// A refusal that holds for a while.
pub(super) fn not_now(code: ResultCode, why: String) -> Refusal {
    Refusal { lifetime: Some(HOLD_OFF), ..Refusal::new(code, why) }
}
