//! HRStartReq with a Join-request, as hNS (TS002 12.2 and 12.9; the comments are their steps).

use crate::backend::door::{self, Caller, Commit};
use crate::backend::message::{
    ClassMode, HrStartAns, HrStartReq, JoinReq, MacVersion, NwkKeys, OPT_NEG, Party, Refusal, ResultCode,
    opt_neg,
};
use crate::lorawan::region::is_channel_masks;

use super::{Activation, Device, Hns};

/// Activations kept, where a device joins again and again and never hears it.
const ACTIVATIONS: usize = 8;

impl Hns {
    /// A device wants to join, heard by the sNS that asks.
    pub async fn handover_start(&self, from: Caller, req: HrStartReq) -> Result<HrStartAns, Refusal> {
        if !from.ours {
            let why = "handover roaming is not offered here; passive activation is";
            return Err(Refusal::new(ResultCode::NoRoamingAgreement, why));
        }
        // 12.9 step 8: the device is known and may activate, here or as a visitor elsewhere
        let device = self.device(req.dev_eui).await?;
        let device = may_activate(device, &req)?;
        // 12.2 step 5: the highest version that both speak, and OptNeg accordingly: a device of 1.0.x could not
        // read a Join-accept of 1.1
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
        let answer = self.peers.ask(to, join, from.by).await.map_err(|error| error.into_refusal())?;
        if matches!(answer.keys, NwkKeys::V11 { .. }) != (mac_version >= MacVersion::V1_1) {
            let why = format!("the join server gave keys of another version than {mac_version}");
            return Err(Refusal::new(ResultCode::Other, why));
        }
        // 12.2 step 10: what the AS will need, before anybody can use the session
        let activation = Activation {
            dev_addr: req.dev_addr,
            session_key_id: answer.session_key_id,
            app_s_key: answer.app_s_key,
            fcnt_up: None,
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
        self.devices.with_device(req.dev_eui, Box::new(decide)).await?;
        if !door::outcome(&slot)? {
            let why = format!("device {} was removed while it joined", req.dev_eui);
            return Err(Refusal::new(ResultCode::UnknownDevEui, why));
        }
        Ok(HrStartAns {
            phy_payload: answer.phy_payload,
            lifetime: answer.lifetime,
            // a 1.1 device says itself what class it is in (TS001 1.1, DeviceModeInd)
            class: match answer.keys {
                NwkKeys::V10 { .. } => device.class,
                NwkKeys::V11 { .. } => ClassMode::A,
            },
            keys: answer.keys,
            roaming: device.roaming,
            mac_version,
        })
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

/// Known, enabled, and allowed where it was heard (TS002 section 14: the device switch).
fn may_activate(device: Option<Device>, req: &HrStartReq) -> Result<Device, Refusal> {
    let Some(device) = device else {
        return Err(Refusal::new(ResultCode::UnknownDevEui, format!("no device {} here", req.dev_eui)));
    };
    if !device.enabled {
        let why = format!("device {} is disabled", req.dev_eui);
        return Err(Refusal::new(ResultCode::ActivationDisallowed, why));
    }
    if req.visited.is_some() && !device.roaming {
        let why = format!("device {} may not activate while roaming", req.dev_eui);
        return Err(Refusal::new(ResultCode::RoamingActDisallowed, why));
    }
    Ok(device)
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
