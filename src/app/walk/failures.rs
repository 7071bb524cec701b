//! Failure lines of TS002 section 12, one by one: what a home answers to a network that asks in vain.

use super::*;
use crate::backend::message::{
    HomeNsReq, HrRegainReq, HrStartReq, HrStopReq, PrStartReq, PrStopReq, ProfileReq, UlMeta, XmitAppDown,
    XmitUp,
};

const HANDOVER: &str = "[default]\nhandover = { start = true, activation = true }";
const JOINS_ONLY: &str = "[default]\npassive = { activation = true }";
const DATA_ONLY: &str = "[default]\npassive = { start = true }";

/// A home with one device, whose session has been used.
async fn home(roaming: &str) -> (Hotspot, Device) {
    let street = Arc::new(Street::default());
    let mut home = hotspot(&street, HOME, roaming, false).await;
    let mut device = Device::new();
    home.add(&device);
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[], b"1")).await;
    (home, device)
}

fn ul() -> UlMeta {
    UlMeta {
        data_rate: Some(5),
        ul_freq: Some(868_300_000),
        rf_region: Some("EU868".into()),
        ..UlMeta::at("2026-11-20T10:00:00Z".parse().unwrap())
    }
}

fn start(phy: &[u8]) -> Request {
    let (phy_payload, ul) = (phy.to_vec(), ul());
    PrStartReq {
        phy_payload,
        ul,
        downlink_in_answer: false,
        dedup_window: None,
        mic_check: false,
        home: None,
    }
    .into()
}

fn handover(phy: &[u8]) -> HrStartReq {
    HrStartReq {
        mac_version: MacVersion::V1_0_3,
        phy_payload: phy.to_vec(),
        dev_eui: DEV,
        dev_addr: AWAY.dev_addr(7),
        dl_settings: 0,
        rx_delay: 1,
        cf_list: None,
        ul: ul(),
        visited: None,
        profile_time: Some("2026-11-20T10:00:00Z".parse().unwrap()),
    }
}

/// A Rejoin-request of type 0 or 2, by nobody's key.
fn rejoin(kind: u8, net_id: NetId) -> Vec<u8> {
    let mut phy = vec![0xC0, kind];
    phy.extend(net_id.to_air());
    phy.extend(DEV.to_air());
    phy.extend([0, 0, 1, 2, 3, 4]);
    phy
}

/// What the home says to network 000000; what does not go through the codec is no request of a partner.
async fn refusal(home: &Hotspot, request: impl Into<Request>) -> Refusal {
    let by = Deadline(Instant::now() + Duration::from_secs(2));
    let from = Caller { party: Party::Ns(AWAY), receiver: Party::Ns(HOME), ours: false, by };
    home.house.clone().answer(from, request.into()).await.unwrap_err()
}

async fn code(home: &Hotspot, request: impl Into<Request>) -> ResultCode {
    refusal(home, request).await.code
}

fn set(home: &Hotspot, change: impl Fn(&mut hns::Device)) {
    change(home.memory.devices.lock().unwrap().get_mut(&DEV).unwrap());
}

/// 12.5 steps 5.1 to 5.4.
#[tokio::test(start_paused = true)]
async fn a_data_frame_that_is_asked_about_in_vain() {
    let (home, mut device) = home(JOINS_ONLY).await;
    let frame = device.up(false, false, &[], b"2");
    assert_eq!(code(&home, start(&frame)).await, ResultCode::NoRoamingAgreement);
    let (home, mut device) = self::home(DATA_ONLY).await;
    let frame = device.up(false, false, &[], b"2");
    assert_eq!(code(&home, start(&frame[..11])).await, ResultCode::FrameSizeError);
    assert_eq!(code(&home, start(&[&[0x60][..], &frame[1..]].concat())).await, ResultCode::MalformedRequest);
    assert_eq!(code(&home, start(&[])).await, ResultCode::MalformedRequest);
    let mut forged = frame.clone();
    forged[9] ^= 1;
    assert_eq!(code(&home, start(&forged)).await, ResultCode::MicFailed);
    let mut nobodys = frame.clone();
    nobodys[1] ^= 1;
    assert_eq!(code(&home, start(&nobodys)).await, ResultCode::MicFailed, "and not UnknownDevAddr");
    // the MIC comes before the policy of the device
    home.memory.sessions.lock().unwrap()[0].roaming = false;
    assert_eq!(code(&home, start(&forged)).await, ResultCode::MicFailed);
    assert_eq!(code(&home, start(&frame)).await, ResultCode::DevRoamingDisallowed);
}

/// 12.10 step 8, 12.2 step 6.
#[tokio::test(start_paused = true)]
async fn a_join_that_is_asked_about_in_vain() {
    let (home, mut device) = home(DATA_ONLY).await;
    let frame = device.join_request();
    assert_eq!(code(&home, start(&frame)).await, ResultCode::NoRoamingAgreement);
    let (home, mut device) = self::home(JOINS_ONLY).await;
    let used = device.join_request();
    home.hears(&used).await;
    assert_eq!(code(&home, start(&used)).await, ResultCode::JoinReqFailed, "DevNonce");
    let mut forged = device.join_request();
    forged[20] ^= 1;
    assert_eq!(code(&home, start(&forged)).await, ResultCode::MicFailed);
    set(&home, |device| device.roaming = false);
    assert_eq!(code(&home, start(&device.join_request())).await, ResultCode::RoamingActDisallowed);
    set(&home, |device| device.enabled = false);
    assert_eq!(code(&home, start(&device.join_request())).await, ResultCode::ActivationDisallowed);
    home.memory.devices.lock().unwrap().clear();
    assert_eq!(code(&home, start(&device.join_request())).await, ResultCode::UnknownDevEui);
}

/// 12.9 step 4, 12.12.
#[tokio::test(start_paused = true)]
async fn a_home_that_is_asked_for_in_vain() {
    let (home, _device) = home(ROAMING).await;
    let stranger = DevEui::from_msb([9; 8]);
    assert_eq!(code(&home, HomeNsReq { dev_eui: stranger }).await, ResultCode::UnknownDevEui);
    home.memory.root_keys.lock().unwrap().get_mut(&DEV).unwrap().enabled = false;
    assert_eq!(code(&home, HomeNsReq { dev_eui: DEV }).await, ResultCode::ActivationDisallowed);
    let js = Js::new(home.memory.clone(), Keks::default(), HOME, Authorise::Only(vec![HOME]));
    let by = Deadline(Instant::now());
    let from = Caller { party: Party::Ns(AWAY), receiver: Party::Ns(HOME), ours: false, by };
    let refused = js.home_ns(from.clone(), HomeNsReq { dev_eui: DEV }).await.unwrap_err();
    assert_eq!(refused.code, ResultCode::NoRoamingAgreement);
    // and by device
    home.memory.root_keys.lock().unwrap().get_mut(&DEV).unwrap().enabled = true;
    for (net_ids, answer) in [(vec![AWAY], Ok(HOME)), (vec![HOME], Err(ResultCode::NoRoamingAgreement))] {
        let entry = js::config::Authorised { dev_euis: vec![DEV], net_ids, ..Default::default() };
        let js = Js::new(home.memory.clone(), Keks::default(), HOME, Authorise::Default);
        let said = js.authorising(vec![entry]).home_ns(from.clone(), HomeNsReq { dev_eui: DEV }).await;
        assert_eq!(said.map(|home| home.h_net_id).map_err(|refusal| refusal.code), answer);
    }
}

/// 12.7 step 5, 12.9 step 6, 12.12: with a Lifetime where it is policy.
#[tokio::test(start_paused = true)]
async fn a_profile_that_is_asked_for_in_vain() {
    let of = |dev_eui| ProfileReq { dev_eui };
    let said = |refusal: Refusal| (refusal.code, refusal.lifetime.is_some());
    let (home, _device) = home("").await;
    assert_eq!(said(refusal(&home, of(DEV)).await), (ResultCode::NoRoamingAgreement, true));
    let (home, _device) = self::home(DATA_ONLY).await;
    assert_eq!(said(refusal(&home, of(DEV)).await), (ResultCode::RoamingActDisallowed, true));
    let (home, _device) = self::home(HANDOVER).await;
    assert_eq!(said(refusal(&home, of(DevEui::from_msb([9; 8]))).await), (ResultCode::UnknownDevEui, false));
    set(&home, |device| device.roaming = false);
    assert_eq!(said(refusal(&home, of(DEV)).await), (ResultCode::RoamingActDisallowed, true));
}

/// 12.7 step 7, 12.9 step 8.
#[tokio::test(start_paused = true)]
async fn a_handover_that_is_asked_for_in_vain() {
    let said = |refusal: Refusal| (refusal.code, refusal.lifetime.is_some());
    let (home, mut device) = home(ROAMING).await;
    let frame = device.join_request();
    assert_eq!(said(refusal(&home, handover(&frame)).await), (ResultCode::NoRoamingAgreement, true));
    let type_0 =
        HrStartReq { mac_version: MacVersion::V1_1, dl_settings: 0x80, ..handover(&rejoin(0, HOME)) };
    assert_eq!(said(refusal(&home, type_0.clone()).await), (ResultCode::NoRoamingAgreement, true));
    let (home, mut device) = self::home(HANDOVER).await;
    // another network's Rejoin-request
    let theirs = HrStartReq { phy_payload: rejoin(0, AWAY), ..type_0.clone() };
    assert_eq!(code(&home, theirs).await, ResultCode::MalformedRequest);
    // a version that the device does not speak is of another profile
    assert_eq!(code(&home, type_0.clone()).await, ResultCode::StaleDeviceProfile);
    // what the JS says is passed on: it has no NwkKey of this device
    set(&home, |device| device.mac_version = MacVersion::V1_1);
    assert_eq!(code(&home, type_0.clone()).await, ResultCode::JoinReqFailed);
    set(&home, |device| device.mac_version = MacVersion::V1_0_3);
    let stale = refusal(
        &home,
        HrStartReq {
            profile_time: Some(jiff::Timestamp::UNIX_EPOCH - jiff::SignedDuration::from_secs(1)),
            ..handover(&device.join_request())
        },
    )
    .await;
    assert_eq!((stale.code, stale.profile.is_some()), (ResultCode::StaleDeviceProfile, true));
    let mut forged = device.join_request();
    forged[20] ^= 1;
    assert_eq!(code(&home, handover(&forged)).await, ResultCode::MicFailed);
    set(&home, |device| device.roaming = false);
    let refused = refusal(&home, handover(&device.join_request())).await;
    assert_eq!(said(refused), (ResultCode::RoamingActDisallowed, true));
    assert_eq!(said(refusal(&home, type_0).await), (ResultCode::DevRoamingDisallowed, true));
    let stranger = HrStartReq { dev_eui: DevEui::from_msb([9; 8]), ..handover(&device.join_request()) };
    assert_eq!(code(&home, stranger).await, ResultCode::UnknownDevEui);
}

/// 12.6.1 step 3, 12.6.3, 12.8.2 to 12.8.4.
#[tokio::test(start_paused = true)]
async fn what_is_sent_or_stopped_without_a_context() {
    let (home, mut device) = home(ROAMING).await;
    let up = |phy: &[u8]| XmitUp { phy_payload: phy.to_vec(), ul: ul(), downlink_in_answer: false };
    let frame = device.up(false, false, &[], b"2");
    assert_eq!(code(&home, up(&frame)).await, ResultCode::UnknownDevAddr);
    let mut forged = frame.clone();
    forged[9] ^= 1;
    assert_eq!(code(&home, up(&forged)).await, ResultCode::MicFailed);
    assert_eq!(code(&home, up(&device.join_request())).await, ResultCode::MalformedRequest);
    assert_eq!(code(&home, up(&frame[..11])).await, ResultCode::FrameSizeError);
    let stop = PrStopReq { dev_eui: DEV, dev_addr: None, lifetime: None };
    assert_eq!(code(&home, stop).await, ResultCode::UnknownDevEui);
    let stop = HrStopReq { dev_eui: DEV, lifetime: None, of: vec![] };
    assert_eq!(code(&home, stop).await, ResultCode::UnknownDevEui);
    assert_eq!(code(&home, HrRegainReq { dev_eui: DEV }).await, ResultCode::UnknownDevEui);
    let dl = crate::backend::message::DlMeta {
        dev_eui: Some(DEV),
        f_port: Some(0),
        fcnt_down: Some(0),
        ..Default::default()
    };
    let down = |dl| XmitAppDown { frm_payload: vec![1], dl, dev_addr: None };
    assert_eq!(code(&home, down(dl.clone())).await, ResultCode::InvalidFPort);
    let dl = crate::backend::message::DlMeta { f_port: Some(2), ..dl };
    assert_eq!(code(&home, down(dl)).await, ResultCode::UnknownDevEui);
    let (home, _device) = self::home("").await;
    assert_eq!(code(&home, up(&frame)).await, ResultCode::NoRoamingAgreement);
}
