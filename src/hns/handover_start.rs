//! HRStartReq, as hNS (TS002 12.2, 12.7, 12.9, 12.11; the comments are their steps). Our own sNS asks with the same message as
//! a partner's that wants to serve the device.

use crate::backend::door::{self, Caller, Commit, PeerError};
use crate::backend::message::{
    ClassMode, DlMeta, HrStartAns, HrStartReq, JoinAns, JoinReq, MacVersion, NwkKeys, OPT_NEG, Party,
    Refusal, RejoinReq, ResultCode, ServiceProfile, opt_neg,
};
use crate::lorawan::frame::{RejoinKind, Uplink};
use crate::lorawan::region::is_channel_masks;
use crate::lorawan::{NetId, Region};

use super::profile::{not_now, visited};
use super::{Activation, Device, Hns};

/// Activations kept, where a device joins again and again and never hears it.
const ACTIVATIONS: usize = 8;

impl Hns {
    /// A device wants to join or to rejoin, heard by the sNS that asks.
    pub async fn handover_start(&self, from: Caller, mut req: HrStartReq) -> Result<HrStartAns, Refusal> {
        // who will serve it, where that is not us
        let sns = if from.ours { None } else { Some(visited(&from)?) };
        let rejoin = match Uplink::parse(&req.phy_payload)? {
            Uplink::Rejoin(rejoin) => Some(rejoin.kind()),
            _ => None,
        };
        if let Some(net_id) = sns {
            self.agreed(net_id, rejoin, &req)?;
            req.visited = sns;
        }
        // 12.9 step 8, 12.7 step 7.1: the device is known and may activate, here or as a visitor elsewhere
        let device = self.device(req.dev_eui).await?;
        // type 1 is a Join-request by another name
        let rejoins = rejoin.is_some_and(|kind| !matches!(kind, RejoinKind::Recovery(_)));
        let device = self.may_activate(device, &req, sns.is_some(), rejoins)?;
        if let Some(RejoinKind::Handover(net_id) | RejoinKind::Rekeying(net_id)) = rejoin
            && !self.abroad.ours.contains(&net_id)
        {
            let why = format!("the Rejoin-request names NetID {net_id}, which is not ours");
            return Err(Refusal::new(ResultCode::MalformedRequest, why));
        }
        self.may_move(&device, sns, rejoin)?;
        // 12.7 step 7.2
        let known = self.profile_of(&device);
        // a version that the device does not speak is of another profile too
        let stale = |time: jiff::Timestamp| {
            time.as_second() < known.since.as_second() || req.mac_version > device.mac_version
        };
        if req.profile_time.is_some_and(stale) {
            let why = "the Device Profile has changed since";
            let refusal = Refusal::new(ResultCode::StaleDeviceProfile, why);
            return Err(Refusal { profile: Some(Box::new(known)), ..refusal });
        }
        let (ul, dev_addr, mac_version) =
            (req.ul.clone(), req.dev_addr, req.mac_version.min(device.mac_version));
        let answer = self.ask_js(&from, req, &device, rejoin.is_some()).await?;
        // 12.2 step 10: what the AS will need, before anybody can use the session
        let activation = Activation {
            dev_addr,
            session_key_id: answer.session_key_id,
            app_s_key: answer.app_s_key,
            fcnt_up: None,
            sns,
            fcnt_down: None,
            created: self.clock.unix(),
        };
        // the sNS that asks writes its session after this, and waits for the disk
        let commit = Commit::Durable.asked_by(&from);
        let (decide, slot) = door::decided(move |device: &mut Option<Device>| match device {
            Some(device) => {
                make_room(&mut device.activations);
                device.activations.push(activation.clone());
                (true, commit)
            }
            None => (false, Commit::Nothing),
        });
        self.devices.with_device(device.dev_eui, Box::new(decide)).await?;
        if !door::outcome(&slot)? {
            let why = format!("device {} was removed while it joined", device.dev_eui);
            return Err(Refusal::new(ResultCode::UnknownDevEui, why));
        }
        if let Some(net_id) = sns {
            tracing::info!(target: "roamgate::frame", milestone = "handed over", DevEUI = %device.dev_eui,
                DevAddr = %dev_addr, NetID = %net_id);
        }
        let windows = || {
            let region: Option<Region> = ul.rf_region.as_ref().and_then(|name| name.parse().ok());
            region.map(|region| DlMeta { dev_eui: Some(device.dev_eui), ..DlMeta::of_join(&ul, &region) })
        };
        let lets = self.abroad.partners.lets(device.dev_eui, Some(device.join_eui));
        let roaming = device.roaming && lets.passive.start;
        Ok(HrStartAns {
            phy_payload: answer.phy_payload,
            lifetime: answer.lifetime,
            // a 1.1 device says itself what class it is in (TS001 1.1, DeviceModeInd)
            class: match answer.keys {
                NwkKeys::V10 { .. } => device.class,
                NwkKeys::V11 { .. } => ClassMode::A,
            },
            mac_version,
            keys: answer.keys,
            roaming,
            service: sns.map(|net_id| {
                let terms = self.abroad.partners.agreement(net_id).terms();
                ServiceProfile::new(terms, roaming, true)
            }),
            dl: sns.and_then(|_| windows()),
        })
    }

    /// 12.7 step 7.1, 12.9 step 8, for another network.
    fn agreed(&self, net_id: NetId, rejoin: Option<RejoinKind>, req: &HrStartReq) -> Result<(), Refusal> {
        let agreement = self.abroad.partners.agreement(net_id);
        let (allowed, what) = match rejoin {
            // type 1 is a Join-request by another name
            None | Some(RejoinKind::Recovery(_)) => (agreement.handover.activation, "handover.activation"),
            Some(_) => (agreement.handover.start, "handover.start"),
        };
        if !allowed {
            let why = format!("{what} is off for NetID {net_id}: {}", agreement.line);
            return Err(not_now(ResultCode::NoRoamingAgreement, why));
        }
        // 3.2: an address of its own, or its frames would be taken for ours
        let ours = self.abroad.ours.iter().any(|ours| ours.covers(req.dev_addr));
        if ours || !net_id.covers(req.dev_addr) {
            let why = format!("DevAddr {} is not of NetID {net_id}", req.dev_addr);
            return Err(Refusal::new(ResultCode::MalformedRequest, why));
        }
        Ok(())
    }

    /// Known, enabled, and allowed where it was heard (TS002 section 14: the device switches). `handed_over`: to the network
    /// that asks.
    fn may_activate(
        &self,
        device: Option<Device>,
        req: &HrStartReq,
        handed_over: bool,
        rejoins: bool,
    ) -> Result<Device, Refusal> {
        let Some(device) = device else {
            return Err(Refusal::new(ResultCode::UnknownDevEui, format!("no device {} here", req.dev_eui)));
        };
        if !device.enabled {
            let why = format!("device {} is disabled", req.dev_eui);
            return Err(Refusal::new(ResultCode::ActivationDisallowed, why));
        }
        let lets = self.abroad.partners.lets(device.dev_eui, Some(device.join_eui));
        let switches = if handed_over { lets.handover } else { lets.passive };
        let may = device.roaming && if rejoins { switches.start } else { switches.activation };
        if req.visited.is_some() && !may {
            let (code, what) = match rejoins {
                true => (ResultCode::DevRoamingDisallowed, "roam"),
                false => (ResultCode::RoamingActDisallowed, "activate while roaming"),
            };
            let by = if device.roaming { format!(": {lets}") } else { String::new() };
            return Err(not_now(code, format!("device {} may not {what}{by}", req.dev_eui)));
        }
        Ok(device)
    }

    /// 12.8.4 step 4: while we want it back nobody else gets it, and without that it stays where it is.
    fn may_move(
        &self,
        device: &Device,
        sns: Option<NetId>,
        rejoin: Option<RejoinKind>,
    ) -> Result<(), Refusal> {
        let Some(RejoinKind::Handover(_)) = rejoin else { return Ok(()) };
        let serves = device.activations.iter().rfind(|activation| activation.fcnt_up.is_some());
        let elsewhere = serves.and_then(|activation| activation.sns);
        let why = match (sns, elsewhere, self.wants_back(device.dev_eui)) {
            (Some(_), _, true) => "we want it back",
            (None, Some(_), false) => "another network serves it, and we have not asked for it",
            _ => return Ok(()),
        };
        Err(not_now(ResultCode::DevRoamingDisallowed, format!("device {}: {why}", device.dev_eui)))
    }

    /// 12.2 step 5, 12.7 step 7.4.
    async fn ask_js(
        &self,
        from: &Caller,
        req: HrStartReq,
        device: &Device,
        rejoins: bool,
    ) -> Result<JoinAns, Refusal> {
        // the highest version that both speak, and OptNeg accordingly: a device of 1.0.x could not read a Join-accept of 1.1
        let mac_version = req.mac_version.min(device.mac_version);
        let join = JoinReq {
            mac_version,
            phy_payload: req.phy_payload,
            dev_eui: req.dev_eui,
            dev_addr: req.dev_addr,
            dl_settings: req.dl_settings & !OPT_NEG | opt_neg(mac_version),
            rx_delay: req.rx_delay,
            // devices of 1.0.2 and older do not read channel masks
            cf_list: req.cf_list.filter(|list| mac_version >= MacVersion::V1_0_3 || !is_channel_masks(list)),
        };
        let to = Party::Js(device.join_eui);
        let answer = match rejoins {
            true => self.peers.ask(to, RejoinReq(join), from.by).await,
            false => self.peers.ask(to, join, from.by).await,
        };
        let answer = answer.map_err(PeerError::into_refusal)?;
        if matches!(answer.keys, NwkKeys::V11 { .. }) != (mac_version >= MacVersion::V1_1) {
            let why = format!("the join server gave keys of another version than {mac_version}");
            return Err(Refusal::new(ResultCode::Other, why));
        }
        Ok(answer)
    }
}

/// Before another activation comes. The newest that was ever used stays, for it is used until the first uplink under
/// newer keys, and so does its predecessor, of which something may wait on its way home. Of those that came after it, and
/// that the device may or may not have heard, the newest stay.
fn make_room(activations: &mut Vec<Activation>) {
    let used = activations.iter().rposition(|activation| activation.fcnt_up.is_some());
    activations.drain(..used.unwrap_or(0).saturating_sub(1));
    let used = activations.iter().rposition(|activation| activation.fcnt_up.is_some());
    let unused = used.map_or(0, |used| used + 1);
    let surplus = (activations.len() + 1).saturating_sub(ACTIVATIONS).min(activations.len() - unused);
    activations.drain(unused..unused + surplus);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lorawan::DevAddr;

    fn addresses(used: &[bool]) -> Vec<u32> {
        let mut activations = (0..)
            .zip(used)
            .map(|(addr, used)| Activation {
                dev_addr: DevAddr::new(addr),
                session_key_id: None,
                app_s_key: None,
                fcnt_up: used.then_some(0),
                sns: None,
                fcnt_down: None,
                created: 0,
            })
            .collect();
        make_room(&mut activations);
        activations.iter().map(|activation| activation.dev_addr.number()).collect()
    }

    #[test]
    fn the_running_session_outlives_joins_that_nobody_heard() {
        assert_eq!(addresses(&[]), [0u32; 0]);
        assert_eq!(addresses(&[true]), [0]);
        assert_eq!(addresses(&[true, true, true]), [1, 2]);
        assert_eq!(addresses(&[true, true, false, false]), [0, 1, 2, 3]);
        assert_eq!(
            addresses(&[true, false, false, false, false, false, false, false]),
            [0, 2, 3, 4, 5, 6, 7]
        );
        assert_eq!(addresses(&[false; 9]), [2, 3, 4, 5, 6, 7, 8]);
    }
}
