//! Objects of TS002 tables 4, 5, 11 and 13: what each message carries beside its header.
//!
//! Reading is as strict as the tables say for what a procedure needs and blind to the rest;
//! writing gives the specification's form.

use super::json::{Fields, Members, malformed};
use super::profile::{profile, put_profile, put_service_profile, service_profile};
use super::*;
use crate::backend::keywrap::KekError;
use crate::lorawan::Key;
use crate::lorawan::frame::{FrameError, RejoinKind, Uplink};

type Decoded<T> = Result<T, Refusal>;

/// The longest FRMPayload of any data rate (TS001 4.3).
const MAX_FRM_PAYLOAD: usize = 242;

// ---- requests

/// Steps 10 and 11 of section 6.1.
pub(super) fn request(message_type: MessageType, fields: &Fields) -> Decoded<Request> {
    Ok(match message_type {
        MessageType::HomeNs => HomeNsReq { dev_eui: dev_eui(fields)? }.into(),
        MessageType::PrStart => pr_start_req(fields)?.into(),
        MessageType::XmitData => xmit_data_req(fields)?,
        MessageType::Join => join_req(fields)?.into(),
        MessageType::Rejoin => RejoinReq(rejoin_req(fields)?).into(),
        // without PHYPayload: the home network wants its device back
        MessageType::HrStart if !fields.has("PHYPayload") => {
            let dev_eui = fields.array("DevEUI")?.map(DevEui::from_msb);
            HrRegainReq {
                dev_eui: dev_eui.ok_or_else(|| malformed("PHYPayload is missing, and DevEUI too"))?,
            }
            .into()
        }
        MessageType::HrStart => hr_start_req(fields)?.into(),
        MessageType::HrStop => {
            HrStopReq { dev_eui: dev_eui(fields)?, lifetime: fields.u32("Lifetime")?, of: Vec::new() }.into()
        }
        MessageType::Profile => ProfileReq { dev_eui: dev_eui(fields)? }.into(),
        MessageType::PrStop => PrStopReq {
            dev_eui: dev_eui(fields)?,
            dev_addr: fields.array("DevAddr")?.map(u32::from_be_bytes).map(DevAddr::new),
            lifetime: fields.u32("Lifetime")?,
        }
        .into(),
        MessageType::AppSKey => {
            let id = fields.need("SessionKeyID", session_key_id(fields)?)?;
            AppSKeyReq { dev_eui: dev_eui(fields)?, session_key_id: id }.into()
        }
        // its objects are not known
        MessageType::XmitLoc => {
            return Err(Refusal::new(ResultCode::Other, "XmitLocReq is not supported here"));
        }
    })
}

fn pr_start_req(fields: &Fields) -> Decoded<PrStartReq> {
    let phy_payload = phy_payload(fields)?;
    let ul = ul_meta_of_frame(fields)?;
    match frame(&phy_payload)? {
        Uplink::Join(join) => same_dev_eui(ul.dev_eui, join.dev_eui())?,
        Uplink::Rejoin(rejoin) => same_dev_eui(ul.dev_eui, rejoin.dev_eui())?,
        Uplink::Data(data) => same_dev_addr(ul.dev_addr, data.dev_addr())?,
    }
    let downlink_in_answer = downlink_in_answer(fields);
    let dedup_window = dedup_window(fields)?;
    Ok(PrStartReq { phy_payload, ul, downlink_in_answer, dedup_window, mic_check: false, home: None })
}

/// DedupWindowSize (1.1), milliseconds. One client writes text such as "250ms".
fn dedup_window(fields: &Fields) -> Decoded<Option<u32>> {
    let text = fields.text("DedupWindowSize").ok().flatten();
    match text.and_then(|text| text.strip_suffix("ms")) {
        Some(number) => {
            number.trim().parse().map(Some).map_err(|_| fields.wrong("DedupWindowSize", "is no time"))
        }
        None => fields.u32("DedupWindowSize"),
    }
}

/// Four messages with one name: PHYPayload or FRMPayload, ULMetaData or DLMetaData.
fn xmit_data_req(fields: &Fields) -> Decoded<Request> {
    let (phy, frm) = (fields.has("PHYPayload"), fields.has("FRMPayload"));
    // An empty FRMPayload is a payload of length zero, not an absent one.
    let frm = frm || (!phy && fields.is_empty_text("FRMPayload"));
    match (phy, frm) {
        (true, true) => return Err(malformed("PHYPayload and FRMPayload exclude each other")),
        (false, false) => return Err(malformed("PHYPayload or FRMPayload is missing")),
        _ => {}
    }
    match (phy, fields.object("ULMetaData")?, fields.object("DLMetaData")?) {
        (_, Some(_), Some(_)) => Err(malformed("ULMetaData and DLMetaData exclude each other")),
        (_, None, None) => Err(malformed("ULMetaData or DLMetaData is missing")),
        (true, Some(_), None) => {
            let (phy_payload, ul) = (phy_payload(fields)?, ul_meta_of_frame(fields)?);
            match frame(&phy_payload)? {
                Uplink::Data(data) => same_dev_addr(ul.dev_addr, data.dev_addr())?,
                _ => return Err(malformed("Join and Rejoin frames never travel in an XmitDataReq")),
            }
            Ok(XmitUp { phy_payload, ul, downlink_in_answer: downlink_in_answer(fields) }.into())
        }
        (true, None, Some(meta)) => {
            let (phy_payload, dl) = (phy_payload(fields)?, dl_meta_of_frame(&meta)?);
            check_data_down(&phy_payload)?;
            Ok(XmitDown { phy_payload, dl, account: None }.into())
        }
        (false, Some(meta), None) => {
            let ul = ul_meta(&meta)?;
            meta.need("DevEUI", ul.dev_eui)?;
            meta.need("FCntUp", ul.fcnt_up)?;
            // the last one there; the next one here
            let fcnt_down = Some(ul.fcnt_down.map_or(0, |last| last.saturating_add(1)));
            let (frm_payload, ul) = (frm_payload(fields)?, UlMeta { fcnt_down, ..ul });
            let ack = roamgate_flag(fields, ACKNOWLEDGED);
            Ok(XmitAppUp { frm_payload, ul, ack, via: None, home: None }.into())
        }
        (false, None, Some(meta)) => {
            // beyond one byte too: there is a code for it, which is more use than "malformed"
            let f_port = meta.integer("FPort", 0..=i64::from(u32::MAX))?;
            if !(1..=255).contains(&meta.need("FPort", f_port)?) {
                return Err(Refusal::new(ResultCode::InvalidFPort, "DLMetaData.FPort is not 1 to 255"));
            }
            let dl = dl_meta(&meta)?;
            meta.need("DevEUI", dl.dev_eui)?;
            meta.need("FCntDown", dl.fcnt_down)?;
            Ok(XmitAppDown { frm_payload: frm_payload(fields)?, dl, dev_addr: None }.into())
        }
    }
}

/// What JoinReq, RejoinReq and the form of HRStartReq with a frame share.
struct JoinParts {
    mac_version: MacVersion,
    phy_payload: Vec<u8>,
    dev_eui: DevEui,
    dev_addr: DevAddr,
    dl_settings: u8,
    rx_delay: u8,
    cf_list: Option<[u8; 16]>,
}

/// `joins`, `rejoins`: which frames may come.
fn join_parts(fields: &Fields, said: Option<DevEui>, joins: bool, rejoins: bool) -> Decoded<JoinParts> {
    let mac_version: MacVersion = fields
        .need("MACVersion", fields.text("MACVersion")?)?
        .parse()
        .map_err(|error| fields.wrong("MACVersion", format_args!("is wrong: {error}")))?;
    let phy_payload = phy_payload(fields)?;
    let dev_addr = fields.array("DevAddr")?.map(u32::from_be_bytes).map(DevAddr::new);
    let [dl_settings] = fields.need("DLSettings", fields.array("DLSettings")?)?;
    let (opt_neg, v1_1) = (dl_settings & 0x80 != 0, mac_version >= MacVersion::V1_1);
    if opt_neg != v1_1 {
        return Err(malformed(format!("OptNeg of DLSettings does not fit MACVersion {mac_version}")));
    }
    let dev_eui = match frame(&phy_payload)? {
        Uplink::Join(join) if joins => join.dev_eui(),
        Uplink::Rejoin(rejoin) if rejoins => rejoin.dev_eui(),
        _ if joins => return Err(malformed("PHYPayload is no Join-request")),
        _ => return Err(malformed("PHYPayload is no Rejoin-request")),
    };
    let rekeying = matches!(
        frame(&phy_payload)?,
        Uplink::Rejoin(rejoin) if matches!(rejoin.kind(), RejoinKind::Rekeying(_))
    );
    if matches!(frame(&phy_payload)?, Uplink::Rejoin(_)) && !v1_1 {
        return Err(malformed(format!("a Rejoin-request, but MACVersion is {mac_version}")));
    }
    same_dev_eui(said, dev_eui)?;
    Ok(JoinParts {
        mac_version,
        dev_eui,
        dev_addr: fields.need("DevAddr", dev_addr)?,
        dl_settings,
        rx_delay: fields.need("RxDelay", fields.u8("RxDelay", 0..=15)?)?,
        // the device must not change its channels with a type 2
        cf_list: fields.array("CFList")?.filter(|_| !rekeying),
        phy_payload,
    })
}

fn join_req(fields: &Fields) -> Decoded<JoinReq> {
    Ok(for_the_js(join_parts(fields, Some(dev_eui(fields)?), true, false)?))
}

fn rejoin_req(fields: &Fields) -> Decoded<JoinReq> {
    Ok(for_the_js(join_parts(fields, Some(dev_eui(fields)?), false, true)?))
}

fn for_the_js(parts: JoinParts) -> JoinReq {
    let JoinParts { mac_version, phy_payload, dev_eui, dev_addr, dl_settings, rx_delay, cf_list } = parts;
    JoinReq { mac_version, phy_payload, dev_eui, dev_addr, dl_settings, rx_delay, cf_list }
}

fn hr_start_req(fields: &Fields) -> Decoded<HrStartReq> {
    let said = fields.array("DevEUI")?.map(DevEui::from_msb);
    let ul = ul_meta_of_frame(fields)?;
    let parts = join_parts(fields, said.or(ul.dev_eui), true, true)?;
    let profile_time = fields.need("DeviceProfileTimestamp", fields.time("DeviceProfileTimestamp")?)?;
    same_dev_eui(ul.dev_eui, parts.dev_eui)?;
    let JoinParts { mac_version, phy_payload, dev_eui, dev_addr, dl_settings, rx_delay, cf_list } = parts;
    Ok(HrStartReq {
        mac_version,
        phy_payload,
        dev_eui,
        dev_addr,
        dl_settings,
        rx_delay,
        cf_list,
        ul,
        visited: None,
        profile_time: Some(profile_time),
    })
}

/// The objects of a request. Fields that are "inside the house only" have no object in TS002 and stay there.
pub(super) fn put_request(to: &mut Members, version: Version, request: &Request) {
    match request {
        Request::HomeNs(req) => to.shown("DevEUI", Some(req.dev_eui)),
        Request::PrStart(req) => {
            to.hex("PHYPayload", &req.phy_payload);
            to.some("DedupWindowSize", req.dedup_window.filter(|_| version == Version::V1_1));
            to.put("ULMetaData", ul_object(&req.ul, version));
            put_downlink_in_answer(to, req.downlink_in_answer);
        }
        Request::PrStop(req) => {
            to.shown("DevEUI", Some(req.dev_eui));
            to.shown("DevAddr", req.dev_addr);
            to.some("Lifetime", req.lifetime);
        }
        Request::XmitUp(req) => {
            to.hex("PHYPayload", &req.phy_payload);
            to.put("ULMetaData", ul_object(&req.ul, version));
            put_downlink_in_answer(to, req.downlink_in_answer);
        }
        Request::XmitDown(req) => {
            to.hex("PHYPayload", &req.phy_payload);
            to.put("DLMetaData", dl_object(&req.dl, true));
        }
        Request::XmitAppUp(req) => {
            to.hex("FRMPayload", &req.frm_payload);
            let fcnt_down = req.ul.fcnt_down.and_then(|next| next.checked_sub(1));
            let ul = UlMeta { fcnt_down, fns_ul_token: None, ..req.ul.clone() };
            to.put("ULMetaData", ul_object(&ul, version));
            put_roamgate_flag(to, ACKNOWLEDGED, req.ack);
        }
        Request::XmitAppDown(req) => {
            to.hex("FRMPayload", &req.frm_payload);
            to.put("DLMetaData", dl_object(&req.dl, false));
        }
        Request::Join(req) | Request::Rejoin(RejoinReq(req)) => put_join(to, req),
        Request::HrStart(req) => {
            put_radio(to, req.mac_version, &req.phy_payload, req.dev_addr);
            put_settings(to, req.dl_settings, req.rx_delay, req.cf_list);
            // optional, and in the metadata already
            to.shown("DevEUI", Some(req.dev_eui).filter(|_| req.ul.dev_eui.is_none()));
            to.put("ULMetaData", ul_object(&req.ul, version));
            if let Some(time) = req.profile_time {
                to.time("DeviceProfileTimestamp", time);
            }
        }
        Request::HrRegain(req) => to.shown("DevEUI", Some(req.dev_eui)),
        Request::HrStop(req) => {
            to.shown("DevEUI", Some(req.dev_eui));
            to.some("Lifetime", req.lifetime);
        }
        Request::Profile(req) => to.shown("DevEUI", Some(req.dev_eui)),
        Request::AppSKey(req) => {
            to.shown("DevEUI", Some(req.dev_eui));
            to.hex("SessionKeyID", &req.session_key_id);
        }
    }
}

fn put_join(to: &mut Members, req: &JoinReq) {
    put_radio(to, req.mac_version, &req.phy_payload, req.dev_addr);
    to.shown("DevEUI", Some(req.dev_eui));
    put_settings(to, req.dl_settings, req.rx_delay, req.cf_list);
}

fn put_radio(to: &mut Members, mac_version: MacVersion, phy_payload: &[u8], dev_addr: DevAddr) {
    to.put("MACVersion", mac_version.to_string());
    to.hex("PHYPayload", phy_payload);
    to.shown("DevAddr", Some(dev_addr));
}

fn put_settings(to: &mut Members, dl_settings: u8, rx_delay: u8, cf_list: Option<[u8; 16]>) {
    to.hex("DLSettings", &[dl_settings]);
    to.put("RxDelay", rx_delay);
    to.some_hex("CFList", cf_list.as_ref().map(|list| &list[..]));
}

// ---- answers

/// The objects of a successful answer to `asked`.
pub(super) fn answer(asked: &Request, version: Version, fields: &Fields, keks: &Keks) -> Decoded<Answer> {
    Ok(match asked {
        Request::HomeNs(_) => {
            let h_net_id = fields.array("HNetID")?.map(NetId::from_msb);
            // in 1.0 an NSID is ignored, whatever it is
            let h_nsid = fields.array("HNSID").ok().flatten().filter(|_| version == Version::V1_1);
            let h_nsid = h_nsid.map(NsId::from_msb);
            Answer::HomeNs(HomeNsAns { h_net_id: fields.need("HNetID", h_net_id)?, h_nsid })
        }
        Request::PrStart(req) => Answer::PrStart(PrStartAns {
            phy_payload: fields.bytes("PHYPayload")?,
            dev_eui: fields.array("DevEUI")?.map(DevEui::from_msb),
            dev_addr: fields.array("DevAddr")?.map(u32::from_be_bytes).map(DevAddr::new),
            lifetime: fields.u32("Lifetime")?,
            // a widely deployed peer sends keys in clear that nobody has asked for
            mic_key: if req.mic_check { mic_key(fields, keks)? } else { None },
            fcnt_up: fields.u32("FCntUp")?,
            dl: fields.object("DLMetaData")?.map(|meta| dl_meta(&meta)).transpose()?,
            service: service_profile(fields)?,
            account: None,
            taken: roamgate_flag(fields, UPLINK_TAKEN),
            asked: None,
        }),
        Request::PrStop(_) => Answer::PrStop(PrStopAns),
        Request::XmitUp(_) | Request::XmitDown(_) | Request::XmitAppUp(_) | Request::XmitAppDown(_) => {
            let riding = match (fields.bytes("PHYPayload")?, fields.object("DLMetaData")?) {
                (Some(phy_payload), Some(meta)) => Some((phy_payload, dl_meta(&meta)?)),
                _ => None,
            };
            Answer::Xmit(XmitAns {
                dl_freq1: fields.hertz("DLFreq1")?,
                dl_freq2: fields.hertz("DLFreq2")?,
                riding,
                radiated: None,
                until_end: None,
            })
        }
        Request::Join(_) | Request::Rejoin(_) => {
            let app_s_key = envelope(fields, "AppSKey")?;
            let session_key_id = session_key_id(fields)?;
            if app_s_key.is_none() && session_key_id.is_none() {
                return Err(malformed("AppSKey or SessionKeyID is missing"));
            }
            Answer::Join(JoinAns {
                phy_payload: phy_payload(fields)?,
                lifetime: fields.u32("Lifetime")?.unwrap_or(0),
                keys: nwk_keys(fields, keks)?,
                app_s_key,
                session_key_id,
            })
        }
        Request::HrStart(req) => {
            let service = service_profile(fields)?;
            Answer::HrStart(HrStartAns {
                phy_payload: phy_payload(fields)?,
                lifetime: fields.u32("Lifetime")?.unwrap_or(0),
                keys: nwk_keys(fields, keks)?,
                roaming: service.as_ref().is_none_or(|service| service.passive),
                service,
                dl: fields.object("DLMetaData")?.map(|meta| dl_meta(&meta)).transpose()?,
                // the word for it is the Device Profile's, which the asker has
                class: ClassMode::A,
                mac_version: req.mac_version,
            })
        }
        Request::HrRegain(_) => Answer::HrRegain(HrRegainAns),
        Request::HrStop(_) => Answer::HrStop(HrStopAns),
        Request::AppSKey(_) => {
            let app_s_key = fields.need("AppSKey", envelope(fields, "AppSKey")?)?;
            Answer::AppSKey(AppSKeyAns { app_s_key })
        }
        Request::Profile(_) => {
            let kind = fields.need("RoamingActivationType", fields.text("RoamingActivationType")?)?;
            let activation = match kind {
                "Passive" => RoamingActivation::Passive,
                "Handover" => RoamingActivation::Handover,
                _ => return Err(fields.wrong("RoamingActivationType", "is neither Passive nor Handover")),
            };
            let profile = profile(fields)?;
            if activation == RoamingActivation::Handover {
                fields.need("DeviceProfile", profile.as_ref())?;
            }
            Answer::Profile(ProfileAns { activation, profile })
        }
    })
}

/// The objects of a successful answer; an error where a key may not leave.
pub(super) fn put_answer(
    to: &mut Members,
    answer: &Answer,
    version: Version,
    keks: &Keks,
) -> Result<(), KekError> {
    match answer {
        Answer::HomeNs(ans) => {
            to.shown("HNetID", Some(ans.h_net_id));
            to.shown("HNSID", ans.h_nsid.filter(|_| version == Version::V1_1));
        }
        Answer::PrStart(ans) => {
            to.some_hex("PHYPayload", ans.phy_payload.as_deref());
            to.shown("DevEUI", ans.dev_eui);
            to.shown("DevAddr", ans.dev_addr);
            to.put("Lifetime", ans.lifetime.unwrap_or(0));
            put_mic_key(to, ans, keks)?;
            to.some("DLMetaData", ans.dl.as_ref().map(|dl| dl_object(dl, true)));
            if let Some(service) = &ans.service {
                put_service_profile(to, service);
            }
            put_roamgate_flag(to, UPLINK_TAKEN, ans.taken);
        }
        Answer::PrStop(PrStopAns) => {}
        Answer::Xmit(ans) => {
            to.hertz("DLFreq1", ans.dl_freq1);
            to.hertz("DLFreq2", ans.dl_freq2);
            if let Some((phy_payload, dl)) = &ans.riding {
                to.hex("PHYPayload", phy_payload);
                to.put("DLMetaData", dl_object(dl, true));
            }
        }
        Answer::Join(ans) => {
            to.hex("PHYPayload", &ans.phy_payload);
            to.put("Lifetime", ans.lifetime);
            put_nwk_keys(to, &ans.keys, keks)?;
            // A clear AppSKey would tell the network what only the application may know.
            let may_leave = |envelope: &&KeyEnvelope| envelope.label.is_some() || keks.allow_clear;
            let app_s_key = ans.app_s_key.as_ref().filter(may_leave);
            if app_s_key.is_none() && ans.session_key_id.is_none() {
                return Err(KekError::NoKek);
            }
            to.some("AppSKey", app_s_key.map(envelope_object));
            to.some_hex("SessionKeyID", ans.session_key_id.as_deref());
        }
        Answer::HrStart(ans) => {
            to.hex("PHYPayload", &ans.phy_payload);
            to.put("Lifetime", ans.lifetime);
            put_nwk_keys(to, &ans.keys, keks)?;
            if let Some(service) = &ans.service {
                put_service_profile(to, service);
            }
            to.some("DLMetaData", ans.dl.as_ref().map(|dl| dl_object(dl, true)));
        }
        Answer::HrRegain(HrRegainAns) | Answer::HrStop(HrStopAns) => {}
        Answer::AppSKey(ans) => {
            if ans.app_s_key.label.is_none() && !keks.allow_clear {
                return Err(KekError::NoKek);
            }
            to.put("AppSKey", envelope_object(&ans.app_s_key));
        }
        Answer::Profile(ans) => {
            let kind = match ans.activation {
                RoamingActivation::Passive => "Passive",
                RoamingActivation::Handover => "Handover",
            };
            to.put("RoamingActivationType", kind);
            if let Some(at) = &ans.profile {
                put_profile(to, at);
            }
        }
    }
    Ok(())
}

// ---- keys

fn envelope(fields: &Fields, name: &str) -> Decoded<Option<KeyEnvelope>> {
    let Some(inside) = fields.object(name)? else { return Ok(None) };
    let label = inside.text("KEKLabel")?.map(str::to_owned);
    let key = inside.need("AESKey", inside.bytes("AESKey")?)?;
    let length = if label.is_some() { 24 } else { 16 };
    if key.len() != length {
        return Err(inside.wrong("AESKey", format_args!("is not {length} bytes")));
    }
    Ok(Some(KeyEnvelope { label, key }))
}

fn envelope_object(envelope: &KeyEnvelope) -> serde_json::Value {
    let mut object = Members::default();
    object.some("KEKLabel", envelope.label.as_deref());
    object.hex("AESKey", &envelope.key);
    object.object()
}

fn key(fields: &Fields, name: &str, keks: &Keks) -> Decoded<Option<Key>> {
    let Some(envelope) = envelope(fields, name)? else { return Ok(None) };
    let opened = keks.open(&envelope);
    opened.map(Some).map_err(|error| fields.wrong(name, format_args!("cannot be opened: {error}")))
}

fn nwk_keys(fields: &Fields, keks: &Keks) -> Decoded<NwkKeys> {
    let key = |name| key(fields, name, keks);
    match (key("NwkSKey")?, key("SNwkSIntKey")?, key("FNwkSIntKey")?, key("NwkSEncKey")?) {
        (Some(nwk_s_key), None, None, None) => Ok(NwkKeys::V10 { nwk_s_key }),
        (None, Some(s_nwk_s_int_key), Some(f_nwk_s_int_key), Some(nwk_s_enc_key)) => {
            Ok(NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key })
        }
        _ => Err(malformed("neither NwkSKey alone nor SNwkSIntKey, FNwkSIntKey and NwkSEncKey together")),
    }
}

fn put_nwk_keys(to: &mut Members, keys: &NwkKeys, keks: &Keks) -> Result<(), KekError> {
    let mut put = |name, key| keks.seal(key).map(|envelope| to.put(name, envelope_object(&envelope)));
    match keys {
        NwkKeys::V10 { nwk_s_key } => put("NwkSKey", nwk_s_key),
        NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key } => {
            put("SNwkSIntKey", s_nwk_s_int_key)?;
            put("FNwkSIntKey", f_nwk_s_int_key)?;
            put("NwkSEncKey", nwk_s_enc_key)
        }
    }
}

/// The key for MIC checks at the fNS, where one was sent.
fn mic_key(fields: &Fields, keks: &Keks) -> Decoded<Option<MicKey>> {
    match (key(fields, "NwkSKey", keks)?, key(fields, "FNwkSIntKey", keks)?) {
        (None, None) => Ok(None),
        (Some(key), None) => Ok(Some(MicKey::NwkSKey(key))),
        (None, Some(key)) => Ok(Some(MicKey::FNwkSIntKey(key))),
        (Some(_), Some(_)) => Err(malformed("NwkSKey and FNwkSIntKey exclude each other")),
    }
}

/// The key is optional in a success (table 13), and the sNS checks every MIC itself: where no key-encryption key
/// is agreed the answer goes without it, rather than the key in clear or the device without its answer.
fn put_mic_key(to: &mut Members, ans: &PrStartAns, keks: &Keks) -> Result<(), KekError> {
    if let Some(key) = &ans.mic_key {
        let (name, key) = match key {
            MicKey::NwkSKey(key) => ("NwkSKey", key),
            MicKey::FNwkSIntKey(key) => ("FNwkSIntKey", key),
        };
        match keks.seal(key) {
            Ok(envelope) => to.put(name, envelope_object(&envelope)),
            Err(KekError::NoKek) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    to.some("FCntUp", ans.fcnt_up);
    Ok(())
}

fn session_key_id(fields: &Fields) -> Decoded<Option<Vec<u8>>> {
    let id = fields.bytes("SessionKeyID")?;
    match id {
        Some(id) if id.len() > 32 => Err(fields.wrong("SessionKeyID", "is longer than 32 bytes")),
        id => Ok(id),
    }
}

// ---- metadata

fn ul_meta(meta: &Fields) -> Decoded<UlMeta> {
    let gateway = |gateway: &Fields| {
        let id = gateway.bytes("ID")?;
        if id.as_ref().is_some_and(|id| id.len() > 16) {
            return Err(gateway.wrong("ID", "is longer than 16 bytes"));
        }
        Ok(GwInfo {
            id,
            rf_region: gateway.text("RFRegion")?.map(str::to_owned),
            // whole dBm by the table; a peer that measures finer is rounded
            rssi: gateway.number("RSSI")?.map(|rssi| rssi.round() as i32),
            snr: gateway.number("SNR")?,
            fine_recv_time: gateway
                .integer("FineRecvTime", 0..=999_999_999)
                .ok()
                .flatten()
                .map(|ns| ns as u32),
            lat: gateway.number("Lat")?,
            lon: gateway.number("Lon")?,
            ul_token: gateway.bytes("ULToken")?,
            dl_allowed: gateway.flag("DLAllowed")?,
        })
    };
    Ok(UlMeta {
        dev_eui: meta.array("DevEUI")?.map(DevEui::from_msb),
        dev_addr: meta.array("DevAddr")?.map(u32::from_be_bytes).map(DevAddr::new),
        f_port: meta.u8("FPort", 0..=255)?,
        fcnt_down: meta.u32("FCntDown")?,
        fcnt_up: meta.u32("FCntUp")?,
        confirmed: meta.flag("Confirmed")?.unwrap_or(false),
        adr: false,
        data_rate: meta.u8("DataRate", 0..=15)?,
        ul_freq: meta.hertz("ULFreq")?,
        fns_ul_token: meta.bytes("FNSULToken")?,
        recv_time: meta.need("RecvTime", meta.time("RecvTime")?)?,
        rf_region: meta.text("RFRegion")?.map(str::to_owned),
        gw_cnt: meta.u32("GWCnt")?,
        gw_info: meta.objects("GWInfo")?.iter().map(gateway).collect::<Result<_, _>>()?,
    })
}

/// ULMetaData beside a PHYPayload: what a foreign fNS must say of any frame (A37).
fn ul_meta_of_frame(fields: &Fields) -> Decoded<UlMeta> {
    let meta = fields.need("ULMetaData", fields.object("ULMetaData")?)?;
    let ul = ul_meta(&meta)?;
    meta.need("DataRate", ul.data_rate)?;
    meta.need("ULFreq", ul.ul_freq)?;
    meta.need("RFRegion", ul.rf_region.as_ref())?;
    Ok(ul)
}

fn ul_object(ul: &UlMeta, version: Version) -> serde_json::Value {
    let gateway = |gateway: &GwInfo| {
        let mut object = Members::default();
        // a 32-bit number by the specification: the low half of an EUI
        object.some_hex("ID", gateway.id.as_deref().map(|id| id.last_chunk::<4>().map_or(id, |low| low)));
        object.some("RFRegion", gateway.rf_region.as_deref());
        object.some("RSSI", gateway.rssi);
        object.some("SNR", gateway.snr);
        object.some("FineRecvTime", gateway.fine_recv_time.filter(|_| version == Version::V1_1));
        object.some("Lat", gateway.lat);
        object.some("Lon", gateway.lon);
        object.some_hex("ULToken", gateway.ul_token.as_deref());
        object.some("DLAllowed", gateway.dl_allowed);
        object.object()
    };
    let mut object = Members::default();
    object.shown("DevEUI", ul.dev_eui);
    object.shown("DevAddr", ul.dev_addr);
    object.some("FPort", ul.f_port);
    object.some("FCntDown", ul.fcnt_down);
    object.some("FCntUp", ul.fcnt_up);
    object.some("Confirmed", ul.confirmed.then_some(true));
    object.some("DataRate", ul.data_rate);
    object.hertz("ULFreq", ul.ul_freq);
    object.some_hex("FNSULToken", ul.fns_ul_token.as_deref());
    object.time("RecvTime", ul.recv_time);
    object.some("RFRegion", ul.rf_region.as_deref());
    object.some("GWCnt", ul.gw_cnt);
    // an array even when empty: peers fail without it
    object.put("GWInfo", ul.gw_info.iter().map(gateway).collect::<Vec<_>>());
    object.object()
}

fn dl_meta(meta: &Fields) -> Decoded<DlMeta> {
    let mut ul_tokens = Vec::new();
    for gateway in meta.objects("GWInfo")? {
        ul_tokens.extend(gateway.bytes("ULToken")?);
    }
    let class_mode = match meta.text("ClassMode")? {
        None => None,
        Some("A") => Some(ClassMode::A),
        Some("C") => Some(ClassMode::C),
        Some(_) => return Err(meta.wrong("ClassMode", "is neither A nor C")),
    };
    Ok(DlMeta {
        dev_eui: meta.array("DevEUI")?.map(DevEui::from_msb),
        f_port: meta.u8("FPort", 0..=255)?,
        fcnt_down: meta.u32("FCntDown")?,
        confirmed: meta.flag("Confirmed")?.unwrap_or(false),
        dl_freq1: meta.hertz("DLFreq1")?,
        dl_freq2: meta.hertz("DLFreq2")?,
        rx_delay1: meta.u8("RXDelay1", 0..=15)?,
        class_mode,
        data_rate1: meta.u8("DataRate1", 0..=15)?,
        data_rate2: meta.u8("DataRate2", 0..=15)?,
        fns_ul_token: meta.bytes("FNSULToken")?,
        ul_tokens,
        hi_priority: meta.flag("HiPriorityFlag")?.unwrap_or(false),
    })
}

/// DLMetaData beside a PHYPayload must say when and where (section 8.2).
fn dl_meta_of_frame(meta: &Fields) -> Decoded<DlMeta> {
    let dl = dl_meta(meta)?;
    let class = meta.need("ClassMode", dl.class_mode)?;
    if dl.dl_freq1.is_none() && dl.dl_freq2.is_none() {
        return Err(malformed("DLMetaData has neither DLFreq1 nor DLFreq2"));
    }
    if dl.dl_freq1.is_some() {
        meta.need("DataRate1", dl.data_rate1)?;
        if class == ClassMode::A {
            meta.need("RXDelay1", dl.rx_delay1)?;
        }
    }
    if dl.dl_freq2.is_some() {
        meta.need("DataRate2", dl.data_rate2)?;
    }
    Ok(dl)
}

fn dl_object(dl: &DlMeta, of_frame: bool) -> serde_json::Value {
    let mut object = Members::default();
    object.shown("DevEUI", dl.dev_eui);
    object.some("FPort", dl.f_port);
    object.some("FCntDown", dl.fcnt_down);
    object.some("Confirmed", dl.confirmed.then_some(true));
    object.hertz("DLFreq1", dl.dl_freq1);
    object.hertz("DLFreq2", dl.dl_freq2);
    object.some("RXDelay1", dl.rx_delay1);
    let class = dl.class_mode.map(|class| match class {
        ClassMode::A => "A",
        ClassMode::C => "C",
    });
    object.some("ClassMode", class);
    object.some("DataRate1", dl.data_rate1);
    object.some("DataRate2", dl.data_rate2);
    object.some_hex("FNSULToken", dl.fns_ul_token.as_deref());
    if of_frame || !dl.ul_tokens.is_empty() {
        let gateway = |token: &Vec<u8>| {
            let mut object = Members::default();
            object.hex("ULToken", token);
            object.object()
        };
        object.put("GWInfo", dl.ul_tokens.iter().map(gateway).collect::<Vec<_>>());
    }
    object.some("HiPriorityFlag", dl.hi_priority.then_some(true));
    object.object()
}

// ---- frames

fn phy_payload(fields: &Fields) -> Decoded<Vec<u8>> {
    fields.need("PHYPayload", fields.bytes("PHYPayload")?)
}

fn frm_payload(fields: &Fields) -> Decoded<Vec<u8>> {
    let payload = fields.bytes("FRMPayload")?.unwrap_or_default();
    if payload.len() > MAX_FRM_PAYLOAD {
        let size = format!("FRMPayload has {} bytes, more than {MAX_FRM_PAYLOAD}", payload.len());
        return Err(Refusal::new(ResultCode::FrameSizeError, size));
    }
    Ok(payload)
}

fn frame(phy: &[u8]) -> Decoded<Uplink<'_>> {
    Uplink::parse(phy).map_err(frame_refusal)
}

fn frame_refusal(error: FrameError) -> Refusal {
    let refusal = Refusal::from(error);
    Refusal { description: format!("PHYPayload: {error}"), ..refusal }
}

/// A data downlink whose length is possible.
fn check_data_down(phy: &[u8]) -> Decoded<()> {
    let mhdr = phy.first().copied().unwrap_or_default();
    if mhdr & 0b11 != 0 || !matches!(mhdr >> 5, 0b011 | 0b101) {
        return Err(frame_refusal(FrameError::Type(mhdr)));
    }
    let fopts = usize::from(phy.get(5).copied().unwrap_or_default() & 0x0F);
    let rest = phy.len().checked_sub(12 + fopts);
    // FPort and FRMPayload
    match rest {
        Some(rest) if rest <= 1 + MAX_FRM_PAYLOAD && phy.len() <= 255 => Ok(()),
        _ => Err(frame_refusal(FrameError::Size(phy.len()))),
    }
}

fn same_dev_eui(said: Option<DevEui>, sent: DevEui) -> Decoded<()> {
    match said {
        Some(said) if said != sent => Err(malformed(format!("DevEUI {said}, but the frame says {sent}"))),
        _ => Ok(()),
    }
}

fn same_dev_addr(said: Option<DevAddr>, sent: DevAddr) -> Decoded<()> {
    match said {
        Some(said) if said != sent => Err(malformed(format!("DevAddr {said}, but the frame says {sent}"))),
        _ => Ok(()),
    }
}

fn dev_eui(fields: &Fields) -> Decoded<DevEui> {
    fields.need("DevEUI", fields.array("DevEUI")?.map(DevEui::from_msb))
}

// ---- what Roamgates tell each other beyond TS002

/// The vendor that TS002 has no number for: nobody else's extension has this member.
const VENDOR_ID: &str = "000000";

/// The asker takes a downlink in the answer.
const DOWNLINK_IN_ANSWER: &str = "DownlinkInAnswer";
/// The answerer has taken the uplink of the question.
const UPLINK_TAKEN: &str = "UplinkTaken";
/// The device has acknowledged the last confirmed downlink of the application.
const ACKNOWLEDGED: &str = "Acknowledged";
/// The counter that a refused downlink should have been encrypted for.
const NEXT_FCNT_DOWN: &str = "NextFCntDown";

fn downlink_in_answer(fields: &Fields) -> bool {
    roamgate_flag(fields, DOWNLINK_IN_ANSWER)
}

fn put_downlink_in_answer(to: &mut Members, wanted: bool) {
    put_roamgate_flag(to, DOWNLINK_IN_ANSWER, wanted);
}

/// What one Roamgate tells another. A vendor extension is never an error.
fn roamgate<'a, T>(
    fields: &Fields<'a>,
    read: impl FnOnce(&Fields<'a>) -> Result<Option<T>, Refusal>,
) -> Option<T> {
    let extension = fields.object("VSExtension").ok()??;
    let object = extension.object("Object").ok()??;
    read(&object.object("Roamgate").ok()??).ok()?
}

fn roamgate_flag(fields: &Fields, name: &str) -> bool {
    roamgate(fields, |fields| fields.flag(name)).unwrap_or(false)
}

fn put_roamgate(to: &mut Members, name: &str, value: impl Into<serde_json::Value>) {
    let object = serde_json::json!({ "Roamgate": { name: value.into() } });
    to.put("VSExtension", serde_json::json!({ "VendorID": VENDOR_ID, "Object": object }));
}

fn put_roamgate_flag(to: &mut Members, name: &str, set: bool) {
    if set {
        put_roamgate(to, name, true);
    }
}

pub(super) fn next_fcnt_down(fields: &Fields) -> Option<u32> {
    roamgate(fields, |fields| fields.u32(NEXT_FCNT_DOWN))
}

pub(super) fn put_next_fcnt_down(to: &mut Members, next: Option<u32>) {
    if let Some(next) = next {
        put_roamgate(to, NEXT_FCNT_DOWN, next);
    }
}
