//! A Join-request is answered (TS002 12.2 steps 6 and 7): MIC, nonces, keys, Join-accept.

use crate::backend::door::Commit;
use crate::backend::keywrap::Keks;
use crate::backend::message::{JoinAns, JoinReq, MacVersion, NwkKeys, OPT_NEG, Refusal, ResultCode, opt_neg};
use crate::lorawan::crypto::{self, SessionKeys, SessionKeys11};
use crate::lorawan::frame::{Answered, JoinAccept, JoinRequest, RejoinKind, Uplink};
use crate::lorawan::{Key, NetId};

use super::{Derivation, Device};

/// Sessions whose keys can be derived again: the last ones, one of which the device uses.
const DERIVATIONS: usize = 4;
/// The last JoinNonce there is: 24 bits on the air.
const JOIN_NONCE_MAX: u32 = 0xFF_FFFF;

/// Who asks for a Join-accept.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// SenderID.
    pub sender: NetId,
    /// The home network of devices that have no other.
    pub us: NetId,
    /// They wrap the AppSKey for the application server: no network server ever sees it. `None`: it stays here until
    /// the application server asks for it.
    pub as_keks: Option<&'a Keks>,
}

impl Asking<'_> {
    fn may(&self, device: &Device) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::new(ResultCode::ActivationDisallowed, why));
        if !device.enabled {
            return refuse(format!("device {} is disabled", device.dev_eui));
        }
        if self.sender != device.home.unwrap_or(self.us) {
            return refuse(format!("NetID {} is not the home network of this device", self.sender));
        }
        Ok(())
    }
}

/// Decide a JoinReq; the nonces change only when everything else was right.
pub fn accept_join(
    device: &mut Option<Device>,
    req: &JoinReq,
    asking: Asking<'_>,
) -> (Result<JoinAns, Refusal>, Commit) {
    match try_accept(device, req, asking) {
        Ok(answer) => (Ok(answer), Commit::Durable),
        Err(refusal) => (Err(refusal), Commit::Nothing),
    }
}

fn try_accept(device: &mut Option<Device>, req: &JoinReq, asking: Asking<'_>) -> Result<JoinAns, Refusal> {
    let refuse = |code, why: String| Err(Refusal::new(code, why));
    let frame = JoinRequest::parse(&req.phy_payload)?;
    if frame.dev_eui() != req.dev_eui {
        let why = format!("DevEUI {} is not the frame's {}", req.dev_eui, frame.dev_eui());
        return refuse(ResultCode::MalformedRequest, why);
    }
    // 6.1: the device is known, with this JoinEUI
    let Some(device) = device.as_mut().filter(|device| device.join_eui == frame.join_eui()) else {
        let why = format!("no device {} with JoinEUI {} here", req.dev_eui, frame.join_eui());
        return refuse(ResultCode::UnknownDevEui, why);
    };
    // 6.2
    asking.may(device)?;
    // 6.3: a device of 1.0.x must never get a Join-accept of 1.1, which it could not read
    let is_v11 = req.mac_version >= MacVersion::V1_1;
    if is_v11 && device.mac_version < MacVersion::V1_1 {
        let why = format!("device {} is of LoRaWAN {}", req.dev_eui, device.mac_version);
        return refuse(ResultCode::JoinReqFailed, why);
    }
    if req.dl_settings & OPT_NEG != opt_neg(req.mac_version) {
        let why = format!("OptNeg of DLSettings does not fit MACVersion {}", req.mac_version);
        return refuse(ResultCode::MalformedRequest, why);
    }
    // 6.4
    let Some(root) = root_of(device) else {
        return refuse(ResultCode::JoinReqFailed, format!("no NwkKey of device {} here", req.dev_eui));
    };
    let Some(join) = frame.verify(&root) else {
        return refuse(ResultCode::MicFailed, "Join-request MIC does not match".into());
    };
    // 6.5: the device's own version decides the rule, not the MACVersion of the request
    let dev_nonce = join.dev_nonce();
    let counts = device.mac_version >= MacVersion::V1_0_4;
    let last = device.dev_nonces.last().copied();
    if counts && last.is_some_and(|last| dev_nonce <= last) {
        let why = format!("DevNonce {dev_nonce} is not above {}; {}", last.unwrap_or(0), lost_state(req));
        return refuse(ResultCode::JoinReqFailed, why);
    }
    if !counts && device.dev_nonces.contains(&dev_nonce) {
        let why = format!("DevNonce {dev_nonce} already used; {}", lost_state(req));
        return refuse(ResultCode::JoinReqFailed, why);
    }
    // 6.6, 6.7: keys and envelope first; from the nonces on nothing fails
    let asked = Asked { kind: Answered::JOIN, nonce: dev_nonce, is_v11 };
    let answer = answer(device, req, asking, &root, asked)?;
    if counts {
        device.dev_nonces.clear();
    }
    device.dev_nonces.insert(dev_nonce);
    Ok(answer)
}

/// The request that a Join-accept answers.
#[derive(Clone, Copy)]
struct Asked {
    /// JoinReqType.
    kind: u8,
    /// DevNonce or RJcount.
    nonce: u16,
    is_v11: bool,
}

/// TS002 12.2 steps 6.6 and 6.7, 12.7 step 8: the next JoinNonce, the keys, the Join-accept. Where it fails nothing has
/// changed.
fn answer(
    device: &mut Device,
    req: &JoinReq,
    asking: Asking<'_>,
    root: &Key,
    asked: Asked,
) -> Result<JoinAns, Refusal> {
    if device.join_nonce >= JOIN_NONCE_MAX {
        let why = "every JoinNonce of this device is used";
        return Err(Refusal::new(ResultCode::JoinReqFailed, why));
    }
    let (join_nonce, nonce, v1_1) = (device.join_nonce + 1, asked.nonce, asked.is_v11);
    let derivation = Derivation { join_nonce, nonce, net_id: asking.sender, v1_1, rj_count0: None };
    let (keys, app_s_key) = derive(device, root, derivation);
    let app_s_key = asking.as_keks.map(|keks| keks.seal(&app_s_key)).transpose().map_err(|error| {
        Refusal::new(ResultCode::JoinReqFailed, format!("AppSKey cannot be delivered: {error}"))
    })?;
    device.join_nonce = derivation.join_nonce;
    let surplus = (device.derivations.len() + 1).saturating_sub(DERIVATIONS);
    device.derivations.drain(..surplus);
    device.derivations.push(derivation);
    let accept = JoinAccept {
        join_nonce: derivation.join_nonce,
        net_id: asking.sender,
        dev_addr: req.dev_addr,
        dl_settings: req.dl_settings,
        rx_delay: req.rx_delay,
        cf_list: req.cf_list,
    };
    let phy_payload = if asked.is_v11 {
        let (js_enc_key, js_int_key) = crypto::join_server_keys(root, device.dev_eui);
        let answered = Answered { kind: asked.kind, join_eui: device.join_eui, nonce: asked.nonce };
        let encrypt = if asked.kind == Answered::JOIN { root } else { &js_enc_key };
        accept.build_11(encrypt, &js_int_key, answered)
    } else {
        accept.build(root)
    };
    Ok(JoinAns {
        phy_payload,
        lifetime: 0,
        keys,
        app_s_key,
        // unique for the device, as JoinNonce never repeats
        session_key_id: Some(derivation.join_nonce.to_be_bytes().to_vec()),
    })
}

/// Network keys and AppSKey of a session.
fn derive(device: &Device, root: &Key, of: Derivation) -> (NwkKeys, Key) {
    let Derivation { join_nonce, nonce, net_id, v1_1, .. } = of;
    if v1_1 {
        let keys = crypto::session_keys_11(root, &device.app_key, join_nonce, device.join_eui, nonce);
        let SessionKeys11 { f_nwk_s_int_key, s_nwk_s_int_key, nwk_s_enc_key, app_s_key } = keys;
        (NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key }, app_s_key)
    } else {
        let SessionKeys { nwk_s_key, app_s_key } = crypto::session_keys(root, join_nonce, net_id, nonce);
        (NwkKeys::V10 { nwk_s_key }, app_s_key)
    }
}

/// The AppSKey of a session that was, `None` where a root key is missing.
pub(super) fn app_s_key(device: &Device, of: Derivation) -> Option<Key> {
    let root = root_of(device)?;
    Some(derive(device, &root, of).1)
}

/// What signs and derives: NwkKey of a 1.1 device, on a 1.0.x network too (TS002 11.2).
fn root_of(device: &Device) -> Option<Key> {
    match device.mac_version >= MacVersion::V1_1 {
        true => device.nwk_key.clone(),
        false => Some(device.app_key.clone()),
    }
}

/// Decide a RejoinReq (TS002 12.7 step 8, 12.11). RJcount0 belongs to a session, RJcount1 to the device; both are
/// tracked here, whoever else does.
pub fn accept_rejoin(
    device: &mut Option<Device>,
    req: &JoinReq,
    asking: Asking<'_>,
) -> (Result<JoinAns, Refusal>, Commit) {
    match try_rejoin(device, req, asking) {
        Ok(answer) => (Ok(answer), Commit::Durable),
        Err(refusal) => (Err(refusal), Commit::Nothing),
    }
}

fn try_rejoin(device: &mut Option<Device>, req: &JoinReq, asking: Asking<'_>) -> Result<JoinAns, Refusal> {
    let refuse = |code, why: String| Err(Refusal::new(code, why));
    let Uplink::Rejoin(frame) = Uplink::parse(&req.phy_payload)? else {
        return refuse(ResultCode::MalformedRequest, "PHYPayload is no Rejoin-request".into());
    };
    let (kind, rj_count) = (frame.kind(), frame.rj_count());
    let theirs = match kind {
        RejoinKind::Recovery(join_eui) => Some(join_eui),
        _ => None,
    };
    let known = |device: &&mut Device| theirs.is_none_or(|join_eui| join_eui == device.join_eui);
    let Some(device) = device.as_mut().filter(known) else {
        return refuse(ResultCode::UnknownDevEui, format!("no device {} here", req.dev_eui));
    };
    asking.may(device)?;
    let Some(root) = device.nwk_key.clone().filter(|_| device.mac_version >= MacVersion::V1_1) else {
        let why = format!("device {} is of LoRaWAN {}: it cannot rejoin", req.dev_eui, device.mac_version);
        return refuse(ResultCode::JoinReqFailed, why);
    };
    // which session it is of; `None` for type 1, which is of the device
    let session = match kind {
        RejoinKind::Recovery(_) => {
            let signed = frame.mic_matches(&crypto::join_server_keys(&root, device.dev_eui).1);
            signed.then_some(None)
        }
        // the last one or one before, of which the device may not have heard the end
        _ => {
            let of = |of: &Derivation| {
                of.v1_1
                    && matches!(derive(device, &root, *of).0,
                        NwkKeys::V11 { s_nwk_s_int_key, .. } if frame.mic_matches(&s_nwk_s_int_key))
            };
            device.derivations.iter().rposition(of).map(Some)
        }
    };
    let Some(session) = session else {
        return refuse(ResultCode::MicFailed, "Rejoin-request MIC does not match".into());
    };
    let last = match session {
        None => device.rj_count1,
        Some(at) => device.derivations.get(at).and_then(|of| of.rj_count0),
    };
    if let Some(last) = last.filter(|last| rj_count <= *last) {
        let why = match session {
            None => format!("RJcount1 {rj_count} is not above {last}; {}", lost_state(req)),
            Some(_) => format!("RJcount0 {rj_count} is not above {last}"),
        };
        return refuse(ResultCode::FrameReplayed, why);
    }
    let used = session.and_then(|at| device.derivations.get(at).map(|of| of.join_nonce));
    let asked = Asked { kind: kind.number(), nonce: rj_count, is_v11: true };
    let answer = answer(device, req, asking, &root, asked)?;
    match used {
        None => device.rj_count1 = Some(rj_count),
        Some(used) => {
            let of = device.derivations.iter_mut().find(|of| of.join_nonce == used);
            of.into_iter().for_each(|of| of.rj_count0 = Some(rj_count));
        }
    }
    Ok(answer)
}

/// A device whose counter begins anew cannot be told from somebody who replays its requests: only who knows
/// the device can.
fn lost_state(req: &JoinReq) -> String {
    format!(
        "if the device lost its state, its operator lets it begin anew: roamgate device set {} --forget-nonces",
        req.dev_eui
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hex_literal::hex;

    use super::*;
    use crate::backend::keywrap::Kek;
    use crate::lorawan::{DevAddr, DevEui, JoinEui};

    const HOME: NetId = NetId::from_msb([0x60, 0x05, 0x0A]);

    fn device(mac_version: MacVersion) -> Option<Device> {
        Some(Device {
            dev_eui: DevEui::from_msb(hex!("ACDE480001020234")),
            join_eui: JoinEui::from_msb(hex!("00005E100000002F")),
            mac_version,
            app_key: Key::new(hex!("f3f1ec959f4ed6c33a994d2859e7e019")),
            nwk_key: None,
            home: None,
            enabled: true,
            dev_nonces: BTreeSet::new(),
            join_nonce: 0,
            rj_count1: None,
            derivations: Vec::new(),
        })
    }

    /// The Join-request of a device, signed with its key.
    fn request(device: &Option<Device>, dev_nonce: u16) -> JoinReq {
        let device = device.as_ref().unwrap();
        let mut phy_payload = vec![0];
        phy_payload.extend(device.join_eui.to_air());
        phy_payload.extend(device.dev_eui.to_air());
        phy_payload.extend(dev_nonce.to_le_bytes());
        phy_payload.extend(crypto::join_mic(&device.app_key, &phy_payload.clone()));
        JoinReq {
            mac_version: MacVersion::V1_0_3,
            phy_payload,
            dev_eui: device.dev_eui,
            dev_addr: DevAddr::new(0xEA14_ABCD),
            dl_settings: 0,
            rx_delay: 1,
            cf_list: Some(hex!("184F84E85684B85E84886684586E8400")),
        }
    }

    fn keks() -> Keks {
        let kek = Kek::new("as", hex!("000102030405060708090a0b0c0d0e0f")).unwrap();
        Keks { send: Some(kek), ..Keks::default() }
    }

    fn by(sender: NetId, as_keks: &Keks) -> Asking<'_> {
        Asking { sender, us: HOME, as_keks: Some(as_keks) }
    }

    fn code(outcome: (Result<JoinAns, Refusal>, Commit)) -> (ResultCode, Commit) {
        (outcome.0.map_or_else(|refusal| refusal.code, |_| ResultCode::Success), outcome.1)
    }

    #[test]
    fn the_published_join_of_a_1_0_3_device_comes_out_to_the_byte() {
        let mut device = device(MacVersion::V1_0_3);
        let req = request(&device, 6699);
        assert_eq!(hex::encode_upper(&req.phy_payload), "002F000000105E0000340202010048DEAC2B1AFC9477E5");
        let (answer, commit) = accept_join(&mut device, &req, by(HOME, &keks()));
        let answer = answer.unwrap();
        let accept = "206F251FCD7177ADAA1F3B0564FB2BE1350479143111EE59DB751F439AF893108B";
        assert_eq!(hex::encode_upper(&answer.phy_payload), accept);
        let nwk_s_key = Key::new(hex!("2389006ac52cd9c8510421b6b1a21d64"));
        assert_eq!(answer.keys, NwkKeys::V10 { nwk_s_key });
        assert_eq!(commit, Commit::Durable);
    }

    fn newer() -> Option<Device> {
        let device = device(MacVersion::V1_1)?;
        Some(Device { nwk_key: Some(Key::new([7; 16])), ..device })
    }

    /// The Join-request of a 1.1 device, signed with its NwkKey, on a network of this version.
    fn newer_request(device: &Option<Device>, dev_nonce: u16, network: MacVersion) -> JoinReq {
        let mut signed = device.clone();
        let keys = signed.as_mut().unwrap();
        keys.app_key = keys.nwk_key.clone().unwrap();
        let req = request(&signed, dev_nonce);
        JoinReq { mac_version: network, dl_settings: opt_neg(network), ..req }
    }

    /// The fields of a Join-accept and whether the key made its MIC, over what stands before it.
    fn opened(phy: &[u8], enc_key: &Key, mic_key: &Key, before: &[u8]) -> (Vec<u8>, bool) {
        let mut clear = phy.to_vec();
        crypto::decrypt_join_accept(enc_key, &mut clear[1..]);
        let mic = clear.split_off(clear.len() - 4);
        let right = crypto::join_mic(mic_key, &[before, &clear].concat()) == mic[..];
        (clear, right)
    }

    #[test]
    fn a_1_1_device_on_a_1_1_network_gets_an_accept_of_1_1_and_keys_of_both_roots() {
        let mut device = newer();
        let req = newer_request(&device, 3, MacVersion::V1_1);
        let answer = accept_join(&mut device, &req, by(HOME, &keks())).0.unwrap();
        let root = Key::new([7; 16]);
        let (_, js_int_key) = crypto::join_server_keys(&root, req.dev_eui);
        let join_eui = device.as_ref().unwrap().join_eui;
        let before = [&[0xFF][..], &join_eui.to_air(), &[3, 0]].concat();
        let (clear, right) = opened(&answer.phy_payload, &root, &js_int_key, &before);
        assert!(right, "signed with JSIntKey");
        assert_eq!((clear[11], &clear[1..4]), (0x80, &[1, 0, 0][..]), "OptNeg, and the first JoinNonce");
        let app_key = device.as_ref().unwrap().app_key.clone();
        let keys = crypto::session_keys_11(&root, &app_key, 1, join_eui, 3);
        let NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key } = answer.keys else {
            panic!("keys of 1.1")
        };
        assert_eq!(s_nwk_s_int_key, keys.s_nwk_s_int_key);
        assert_eq!(f_nwk_s_int_key, keys.f_nwk_s_int_key);
        assert_eq!(nwk_s_enc_key, keys.nwk_s_enc_key);
        let envelope = answer.app_s_key.unwrap();
        let keks = Keks { open: keks().send.into_iter().collect(), ..Keks::default() };
        assert_eq!(keks.open(&envelope), Ok(keys.app_s_key));
    }

    #[test]
    fn on_a_1_0_x_network_nwkkey_is_the_one_root_of_a_1_1_device() {
        let mut device = newer();
        let req = newer_request(&device, 3, MacVersion::V1_0_4);
        let answer = accept_join(&mut device, &req, by(HOME, &keks())).0.unwrap();
        let root = Key::new([7; 16]);
        let (clear, right) = opened(&answer.phy_payload, &root, &root, &[]);
        assert!(right && clear[11] == 0, "signed with NwkKey, OptNeg clear");
        let keys = crypto::session_keys(&root, 1, HOME, 3);
        assert_eq!(answer.keys, NwkKeys::V10 { nwk_s_key: keys.nwk_s_key });
        // the counters are the same, whatever the network speaks
        let lower = newer_request(&device, 3, MacVersion::V1_1);
        assert_eq!(code(accept_join(&mut device, &lower, by(HOME, &keks()))).0, ResultCode::JoinReqFailed);
        let higher = newer_request(&device, 4, MacVersion::V1_1);
        assert_eq!(code(accept_join(&mut device, &higher, by(HOME, &keks()))).0, ResultCode::Success);
        assert_eq!(device.unwrap().join_nonce, 2);
    }

    #[test]
    fn a_device_joins_for_its_home_only_and_its_app_s_key_stays_where_nobody_can_open_it() {
        let theirs = NetId::from_msb([0, 0, 0x13]);
        let mut device = Some(Device { home: Some(theirs), ..device(MacVersion::V1_0_3).unwrap() });
        let req = request(&device, 1);
        let ours = code(accept_join(&mut device, &req, by(HOME, &keks())));
        assert_eq!(ours, (ResultCode::ActivationDisallowed, Commit::Nothing));
        let asking = Asking { sender: theirs, us: HOME, as_keks: None };
        let answer = accept_join(&mut device, &req, asking).0.unwrap();
        assert_eq!((answer.app_s_key, answer.session_key_id), (None, Some(vec![0, 0, 0, 1])));
        // whoever is its home later: this session's key is what it was
        let mut moved = device.unwrap();
        moved.home = None;
        let made = crypto::session_keys(&moved.app_key, 1, theirs, 1);
        assert!(app_s_key(&moved, moved.derivations[0]) == Some(made.app_s_key));
        let req = request(&Some(moved.clone()), 2);
        let renamed = Asking { sender: theirs, us: theirs, as_keks: None };
        assert_eq!(code(accept_join(&mut Some(moved), &req, renamed)).0, ResultCode::Success);
    }

    #[test]
    fn nobody_gets_a_join_accept_of_a_version_that_it_cannot_read() {
        // a device of 1.0.x, asked for as if it were of 1.1
        let old = device(MacVersion::V1_0_4);
        let req = JoinReq { mac_version: MacVersion::V1_1, dl_settings: OPT_NEG, ..request(&old, 1) };
        let refused = code(accept_join(&mut old.clone(), &req, by(HOME, &keks())));
        assert_eq!(refused, (ResultCode::JoinReqFailed, Commit::Nothing));
        // one of 1.1 without its NwkKey, on either network
        let mut half = newer();
        let requests = [MacVersion::V1_1, MacVersion::V1_0_4].map(|version| newer_request(&half, 1, version));
        half.as_mut().unwrap().nwk_key = None;
        for req in requests {
            assert_eq!(code(accept_join(&mut half, &req, by(HOME, &keks()))).0, ResultCode::JoinReqFailed);
        }
        // OptNeg and MACVersion say two things
        for (network, dl_settings) in [(MacVersion::V1_1, 0), (MacVersion::V1_0_4, OPT_NEG)] {
            let mut device = newer();
            let req = JoinReq { dl_settings, ..newer_request(&device, 1, network) };
            assert_eq!(
                code(accept_join(&mut device, &req, by(HOME, &keks()))).0,
                ResultCode::MalformedRequest
            );
        }
    }

    #[test]
    fn a_1_1_device_signs_with_nwkkey_and_not_with_appkey() {
        let mut device = newer();
        let req = JoinReq { mac_version: MacVersion::V1_1, dl_settings: OPT_NEG, ..request(&device, 3) };
        assert_eq!(code(accept_join(&mut device, &req, by(HOME, &keks()))).0, ResultCode::MicFailed);
    }

    #[test]
    fn a_dev_nonce_serves_once_up_to_1_0_3_in_any_order() {
        let mut device = device(MacVersion::V1_0_3);
        for (nonce, expected) in [
            (7, ResultCode::Success),
            (3, ResultCode::Success),
            (7, ResultCode::JoinReqFailed),
            (3, ResultCode::JoinReqFailed),
        ] {
            let req = request(&device, nonce);
            assert_eq!(
                code(accept_join(&mut device, &req, by(HOME, &keks()))).0,
                expected,
                "DevNonce {nonce}"
            );
        }
        assert_eq!(device.unwrap().join_nonce, 2);
    }

    #[test]
    fn a_dev_nonce_must_grow_from_1_0_4_on_and_may_start_at_0() {
        let mut device = device(MacVersion::V1_0_4);
        for (nonce, expected) in [
            (0, ResultCode::Success),
            (0, ResultCode::JoinReqFailed),
            (9, ResultCode::Success),
            (8, ResultCode::JoinReqFailed),
            (65535, ResultCode::Success),
            (0, ResultCode::JoinReqFailed),
        ] {
            let req = request(&device, nonce);
            assert_eq!(
                code(accept_join(&mut device, &req, by(HOME, &keks()))).0,
                expected,
                "DevNonce {nonce}"
            );
        }
    }

    #[test]
    fn a_wrong_mic_changes_nothing() {
        let mut device = device(MacVersion::V1_0_4);
        let mut req = request(&device, 1);
        req.phy_payload[22] ^= 1;
        let before = device.clone();
        let refused = code(accept_join(&mut device, &req, by(HOME, &keks())));
        assert_eq!(refused, (ResultCode::MicFailed, Commit::Nothing));
        assert_eq!(device, before);
    }

    #[test]
    fn strangers_disabled_devices_and_foreign_networks_get_their_own_codes() {
        let known = device(MacVersion::V1_0_4);
        let req = request(&known, 1);
        assert_eq!(code(accept_join(&mut None, &req, by(HOME, &keks()))).0, ResultCode::UnknownDevEui);
        let other = NetId::from_msb([0, 0, 1]);
        let refused = code(accept_join(&mut known.clone(), &req, by(other, &keks())));
        assert_eq!(refused.0, ResultCode::ActivationDisallowed);
        let mut disabled = known.clone();
        disabled.as_mut().unwrap().enabled = false;
        let refused = code(accept_join(&mut disabled, &req, by(HOME, &keks())));
        assert_eq!(refused.0, ResultCode::ActivationDisallowed);
        let mut spent = known;
        spent.as_mut().unwrap().join_nonce = JOIN_NONCE_MAX;
        assert_eq!(code(accept_join(&mut spent, &req, by(HOME, &keks()))).0, ResultCode::JoinReqFailed);
    }

    #[test]
    fn a_short_frame_and_a_foreign_frame_are_told_apart() {
        let mut device = device(MacVersion::V1_0_4);
        let mut short = request(&device, 1);
        short.phy_payload.pop();
        assert_eq!(code(accept_join(&mut device, &short, by(HOME, &keks()))).0, ResultCode::FrameSizeError);
        let mut data = request(&device, 1);
        data.phy_payload[0] = 0x40;
        assert_eq!(code(accept_join(&mut device, &data, by(HOME, &keks()))).0, ResultCode::MalformedRequest);
    }

    /// A Rejoin-request of a 1.1 device, and the question for it.
    fn rejoin_request(device: &Option<Device>, kind: u8, count: u16, key: &Key) -> JoinReq {
        let known = device.as_ref().unwrap();
        let mut phy = vec![0xC0, kind];
        match kind {
            1 => phy.extend(known.join_eui.to_air()),
            _ => phy.extend(HOME.to_air()),
        }
        phy.extend(known.dev_eui.to_air());
        phy.extend(count.to_le_bytes());
        phy.extend(crypto::join_mic(key, &phy.clone()));
        let base = request(device, 0);
        JoinReq {
            mac_version: MacVersion::V1_1,
            phy_payload: phy,
            dl_settings: OPT_NEG,
            cf_list: None,
            ..base
        }
    }

    #[test]
    fn a_rejoin_of_each_type_is_signed_by_its_key_and_gives_keys_of_its_count() {
        let mut device = newer();
        let root = Key::new([7; 16]);
        let join = newer_request(&device, 3, MacVersion::V1_1);
        accept_join(&mut device, &join, by(HOME, &keks())).0.unwrap();
        let (js_enc_key, js_int_key) = crypto::join_server_keys(&root, join.dev_eui);
        let app_key = device.as_ref().unwrap().app_key.clone();
        let join_eui = device.as_ref().unwrap().join_eui;
        let of = |join_nonce, n| crypto::session_keys_11(&root, &app_key, join_nonce, join_eui, n);
        for (kind, key, join_nonce) in
            [(0, of(1, 3).s_nwk_s_int_key, 2), (2, of(2, 9).s_nwk_s_int_key, 3), (1, js_int_key.clone(), 4)]
        {
            let req = rejoin_request(&device, kind, 9, &key);
            let (answer, commit) = accept_rejoin(&mut device, &req, by(HOME, &keks()));
            let answer = answer.unwrap_or_else(|refusal| panic!("type {kind}: {refusal}"));
            assert_eq!(commit, Commit::Durable);
            let before = [&[kind][..], &join_eui.to_air(), &[9, 0]].concat();
            let (clear, right) = opened(&answer.phy_payload, &js_enc_key, &js_int_key, &before);
            assert!(right, "signed with JSIntKey, encrypted with JSEncKey");
            assert_eq!(clear[1..4], [join_nonce, 0, 0]);
            let keys = of(u32::from(join_nonce), 9);
            let NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key } = answer.keys else {
                panic!()
            };
            assert_eq!((s_nwk_s_int_key, f_nwk_s_int_key), (keys.s_nwk_s_int_key, keys.f_nwk_s_int_key));
            assert_eq!(nwk_s_enc_key, keys.nwk_s_enc_key);
            // the same once more, by another network perhaps
            let again = code(accept_rejoin(&mut device, &req, by(HOME, &keks())));
            assert_eq!(again, (ResultCode::FrameReplayed, Commit::Nothing), "type {kind}");
        }
        assert_eq!(device.unwrap().rj_count1, Some(9));
    }

    #[test]
    fn a_rejoin_in_vain_changes_nothing_and_gets_its_code() {
        let mut device = newer();
        let join = newer_request(&device, 3, MacVersion::V1_1);
        accept_join(&mut device, &join, by(HOME, &keks())).0.unwrap();
        let (_, js_int_key) = crypto::join_server_keys(&Key::new([7; 16]), join.dev_eui);
        let req = rejoin_request(&device, 1, 5, &js_int_key);
        let refused = |device: &Option<Device>, req: &JoinReq, sender| {
            let mut after = device.clone();
            let outcome = code(accept_rejoin(&mut after, req, by(sender, &keks())));
            assert_eq!((&after, outcome.1), (device, Commit::Nothing));
            outcome.0
        };
        let changed = |change: fn(&mut Device)| {
            let mut device = device.clone();
            change(device.as_mut().unwrap());
            device
        };
        assert_eq!(refused(&None, &req, HOME), ResultCode::UnknownDevEui);
        let other = NetId::from_msb([0, 0, 1]);
        assert_eq!(refused(&device, &req, other), ResultCode::ActivationDisallowed);
        assert_eq!(
            refused(&changed(|device| device.enabled = false), &req, HOME),
            ResultCode::ActivationDisallowed
        );
        let older = changed(|device| device.mac_version = MacVersion::V1_0_4);
        assert_eq!(refused(&older, &req, HOME), ResultCode::JoinReqFailed);
        let spent = changed(|device| device.join_nonce = JOIN_NONCE_MAX);
        assert_eq!(refused(&spent, &req, HOME), ResultCode::JoinReqFailed);
        let replayed = changed(|device| device.rj_count1 = Some(5));
        assert_eq!(refused(&replayed, &req, HOME), ResultCode::FrameReplayed);
        // by the key of another type, or of nobody
        for (kind, key) in [(0, js_int_key), (2, Key::new([1; 16])), (1, Key::new([1; 16]))] {
            assert_eq!(
                refused(&device, &rejoin_request(&device, kind, 5, &key), HOME),
                ResultCode::MicFailed
            );
        }
        let another = changed(|device| device.join_eui = JoinEui::from_msb([9; 8]));
        assert_eq!(refused(&another, &req, HOME), ResultCode::UnknownDevEui);
    }
}
