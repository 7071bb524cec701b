//! Handover roaming between two houses: the visited network serves the device (TS002 12.8 and 12.9).

use super::*;
use crate::backend::message::{HrStopReq, UlMeta, XmitAppDown, XmitAppUp};
use crate::usage::{Kind, Way};

/// Both may serve each other's devices.
const HANDOVER: &str = "[default]\nhandover = { start = true, activation = true }";
const BOTH: &str = "[default]\npassive = { start = true, activation = true }\nhandover = { start = true, activation = true }";
const OTHER: NetId = NetId::from_msb([0, 0, 2]);

/// Join abroad; the address is of the network that was visited.
async fn join_away(away: &mut Hotspot, device: &mut Device) {
    let from = Instant::now();
    away.hears(&device.join_request()).await;
    let (tx, _) = away.transmitted().expect("a Join-accept");
    assert_eq!(tx.start - from, Duration::from_secs(5));
    device.joined_at(&tx.phy, AWAY);
    seconds(7).await;
}

fn caller(from: NetId, receiver: NetId) -> Caller {
    let by = Deadline(Instant::now() + Duration::from_secs(2));
    Caller { party: Party::Ns(from), receiver: Party::Ns(receiver), ours: false, by }
}

async fn refused(house: &Hotspot, from: NetId, receiver: NetId, request: impl Into<Request>) -> ResultCode {
    house.house.clone().answer(caller(from, receiver), request.into()).await.unwrap_err().code
}

fn app_up(dev_addr: Option<DevAddr>) -> XmitAppUp {
    let at = UlMeta::at("2026-11-20T10:00:00Z".parse().unwrap());
    let ul = UlMeta { dev_eui: Some(DEV), dev_addr, f_port: Some(2), fcnt_up: Some(9), ..at };
    XmitAppUp { frm_payload: vec![1], ul, ack: false, via: None, home: None }
}

impl Hotspot {
    fn sessions(&self) -> usize {
        self.memory.sessions.lock().unwrap().len()
    }
    fn activation(&self) -> hns::Activation {
        self.memory.devices.lock().unwrap()[&DEV].activations.last().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn the_visited_network_serves_the_device_and_its_home_has_the_application() {
    let (street, home, mut away, mut device) = houses(HANDOVER, HANDOVER, false).await;
    join_away(&mut away, &mut device).await;
    assert_eq!(street.messages(), ["HomeNSReq", "ProfileReq", "HRStartReq"]);
    assert_eq!((home.sessions(), away.sessions()), (0, 1));
    assert_eq!(home.activation().sns, Some(AWAY));
    for round in 0..3 {
        home.queue(b"open", round == 1);
        away.hears(&device.up(true, round == 2, &[], b"21.5")).await;
        let (tx, _) = away.transmitted().expect("a downlink");
        assert_eq!(device.hears(&tx.phy), (round, true, Some((9, b"open".to_vec()))));
        assert!(away.transmitted().is_none(), "one");
        assert_eq!(street.messages(), ["XmitDataReq", "XmitDataReq"]);
        assert_eq!(home.delivered(), Some(round));
        seconds(5).await;
    }
    assert!(home.memory.devices.lock().unwrap()[&DEV].queue.is_empty(), "sent, acknowledged, sent");
    // MAC commands stay where the device is served
    away.hears(&device.up(true, false, &[0x02], b"")).await;
    let (tx, _) = away.transmitted().expect("LinkCheckAns and an acknowledgement");
    assert_eq!(device.hears(&tx.phy).0, 3);
    assert_eq!(away.memory.roams.lock().unwrap()[..], [(HOME, DEV, true)]);
    let carried = away.memory.carried.lock().unwrap().clone();
    let up = (HOME, Kind::Handover, Way::Up, 4);
    let down = (HOME, Kind::Handover, Way::Down, 4);
    assert_eq!(carried[..2], [down, up]);
    // their home counts the same: three of each, and the last without a payload
    let as_seen_at_home = home.memory.for_us.lock().unwrap().clone();
    let by = |(_, kind, way, bytes): &(NetId, Kind, Way, usize)| (AWAY, *kind, *way, *bytes);
    let mut expected: Vec<_> = carried.iter().map(by).collect();
    let mut seen = as_seen_at_home;
    let order = |one: &(NetId, Kind, Way, usize)| (one.2 == Way::Up, one.3);
    expected.sort_by_key(order);
    seen.sort_by_key(order);
    assert_eq!(seen, expected);
    assert_eq!(carried.iter().filter(|one| **one == down).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn where_both_kinds_are_agreed_the_home_stays_in_charge() {
    let (street, home, mut away, mut device) = houses(BOTH, BOTH, false).await;
    join(&mut away, &mut device).await;
    assert_eq!(street.messages(), ["HomeNSReq", "ProfileReq", "PRStartReq"]);
    assert_eq!((home.sessions(), away.sessions()), (1, 0));
    // what the home offers has to be agreed here too
    let (street, _home, mut away, mut device) = houses(BOTH, HANDOVER, false).await;
    away.hears(&device.join_request()).await;
    assert!(away.transmitted().is_none());
    assert_eq!(street.messages(), ["HomeNSReq", "ProfileReq"]);
}

#[tokio::test(start_paused = true)]
async fn a_stale_profile_is_exchanged_and_the_question_put_again() {
    let (street, home, mut away, mut device) = houses(HANDOVER, HANDOVER, false).await;
    join_away(&mut away, &mut device).await;
    street.messages();
    home.memory.devices.lock().unwrap().get_mut(&DEV).unwrap().profile_since = 1_900_000_000;
    join_away(&mut away, &mut device).await;
    assert_eq!(street.messages(), ["HRStartReq", "HRStartReq"], "home and profile are remembered");
}

#[tokio::test(start_paused = true)]
async fn the_home_takes_its_device_back_with_the_first_frame_heard_there() {
    let (street, mut home, mut away, mut device) = houses(HANDOVER, HANDOVER, false).await;
    join_away(&mut away, &mut device).await;
    away.hears(&device.up(false, false, &[], b"1")).await;
    join(&mut home, &mut device).await;
    home.house.hns.stop_ended().await.unwrap();
    assert_eq!(away.sessions(), 1, "it may not have heard the Join-accept");
    street.messages();
    home.hears(&device.up(false, false, &[], b"2")).await;
    *street.unplugged.lock().unwrap() = Some(Party::Ns(AWAY));
    home.house.hns.stop_ended().await.unwrap();
    assert_eq!((street.messages(), away.sessions()), (vec!["HRStopReq"], 1));
    *street.unplugged.lock().unwrap() = None;
    home.house.hns.stop_ended().await.unwrap();
    assert!(street.messages().is_empty(), "not before a minute");
    seconds(61).await;
    home.house.hns.stop_ended().await.unwrap();
    assert_eq!((street.messages(), away.sessions()), (vec!["HRStopReq"], 0));
    home.house.hns.stop_ended().await.unwrap();
    assert!(street.messages().is_empty(), "once it has answered");
    assert_eq!(away.memory.roams.lock().unwrap()[..], [(HOME, DEV, true), (HOME, DEV, false)]);
    assert_eq!(
        refused(&away, HOME, AWAY, HrStopReq { dev_eui: DEV, lifetime: None, of: vec![] }).await,
        ResultCode::UnknownDevEui
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_at_home_ends_with_the_first_frame_heard_abroad() {
    let (street, mut home, mut away, mut device) = houses(HANDOVER, HANDOVER, false).await;
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[], b"1")).await;
    join_away(&mut away, &mut device).await;
    assert_eq!(home.sessions(), 1);
    away.hears(&device.up(false, false, &[], b"2")).await;
    assert_eq!(home.sessions(), 0);
    assert_eq!(home.delivered(), Some(0), "of the new session");
    // another session at the same network ends nothing there
    join_away(&mut away, &mut device).await;
    away.hears(&device.up(false, false, &[], b"3")).await;
    street.messages();
    home.house.hns.stop_ended().await.unwrap();
    assert_eq!((street.messages(), away.sessions()), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn uplinks_wait_for_a_home_that_is_away_and_end_with_one_that_disowns_the_device() {
    let (street, home, mut away, mut device) = houses(HANDOVER, HANDOVER, false).await;
    join_away(&mut away, &mut device).await;
    *street.unplugged.lock().unwrap() = Some(Party::Ns(HOME));
    for _ in 0..3 {
        away.hears(&device.up(true, false, &[], b"1")).await;
        assert!(away.transmitted().is_some(), "it is acknowledged, for it is kept");
        seconds(5).await;
    }
    street.messages();
    assert_eq!(away.house.sns.resend_waiting().await.unwrap(), 3);
    assert_eq!(street.messages(), ["XmitDataReq"], "one tells enough");
    *street.unplugged.lock().unwrap() = None;
    away.house.sns.resend_waiting().await.unwrap();
    assert_eq!((street.messages().len(), home.delivered()), (3, Some(2)));
    assert!(away.memory.forward.lock().unwrap().is_empty());
    home.memory.devices.lock().unwrap().get_mut(&DEV).unwrap().enabled = false;
    away.hears(&device.up(false, false, &[], b"1")).await;
    assert_eq!(away.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_speaks_for_a_device_that_was_not_handed_over_to_him() {
    let (_street, home, mut away, mut device) = houses(HANDOVER, HANDOVER, false).await;
    join_away(&mut away, &mut device).await;
    away.hears(&device.up(false, false, &[], b"1")).await;
    let addr = home.activation().dev_addr;
    for addr in [None, Some(addr)] {
        assert_eq!(refused(&home, OTHER, HOME, app_up(addr)).await, ResultCode::UnknownDevEui);
    }
    home.house.clone().answer(caller(AWAY, HOME), app_up(None).into()).await.unwrap();
    let stop = || HrStopReq { dev_eui: DEV, lifetime: None, of: vec![] };
    assert_eq!(refused(&away, OTHER, AWAY, stop()).await, ResultCode::UnknownDevEui);
    assert_eq!(refused(&home, OTHER, HOME, stop()).await, ResultCode::UnknownDevEui);
    let dl = crate::backend::message::DlMeta {
        dev_eui: Some(DEV),
        f_port: Some(2),
        fcnt_down: Some(0),
        ..Default::default()
    };
    let down = |dl| XmitAppDown { frm_payload: vec![1], dl, dev_addr: None };
    assert_eq!(refused(&away, OTHER, AWAY, down(dl.clone())).await, ResultCode::UnknownDevEui);
    assert_eq!(refused(&away, HOME, AWAY, down(dl)).await, ResultCode::XmitFailed, "no window is open");
    // the network that serves it stops
    home.house.clone().answer(caller(AWAY, HOME), stop().into()).await.unwrap();
    assert_eq!(refused(&home, AWAY, HOME, app_up(Some(addr))).await, ResultCode::UnknownDevEui);
}

#[tokio::test(start_paused = true)]
async fn without_an_agreement_no_key_leaves_the_home() {
    for (home, messages) in
        [(ROAMING, vec!["HomeNSReq", "ProfileReq"]), ("", vec!["HomeNSReq", "ProfileReq"])]
    {
        let (street, home, mut away, mut device) = houses(home, HANDOVER, false).await;
        away.hears(&device.join_request()).await;
        assert!(away.transmitted().is_none());
        assert_eq!(street.messages(), messages);
        assert_eq!((home.sessions(), away.sessions()), (0, 0));
        // it is not asked again at once
        seconds(5).await;
        away.hears(&device.join_request()).await;
        assert!(street.messages().is_empty());
    }
    let (_street, home, _away, mut device) = houses(HANDOVER, HANDOVER, false).await;
    let frame = device.join_request();
    let start = |dev_addr| crate::backend::message::HrStartReq {
        mac_version: MacVersion::V1_0_3,
        phy_payload: frame.clone(),
        dev_eui: DEV,
        dev_addr,
        dl_settings: 0,
        rx_delay: 1,
        cf_list: None,
        ul: UlMeta::at("2026-11-20T10:00:00Z".parse().unwrap()),
        visited: None,
        profile_time: Some("2026-11-20T10:00:00Z".parse().unwrap()),
    };
    // an address that is ours, or somebody else's
    for addr in [HOME.dev_addr(1), OTHER.dev_addr(1)] {
        assert_eq!(refused(&home, AWAY, HOME, start(addr)).await, ResultCode::MalformedRequest);
    }
    home.memory.devices.lock().unwrap().get_mut(&DEV).unwrap().roaming = false;
    assert_eq!(refused(&home, AWAY, HOME, start(AWAY.dev_addr(1))).await, ResultCode::RoamingActDisallowed);
}

#[tokio::test(start_paused = true)]
async fn a_network_that_may_no_longer_serve_a_device_stops_and_says_so() {
    let (street, home, mut away, mut device) = houses(HANDOVER, HANDOVER, false).await;
    join_away(&mut away, &mut device).await;
    away.house.sns.end_guests().await.unwrap();
    assert_eq!(away.sessions(), 1);
    street.messages();
    street.houses.lock().unwrap().remove(0);
    let away = hotspot_on(&street, AWAY, ROAMING, false, away.memory).await;
    away.house.sns.end_guests().await.unwrap();
    assert_eq!((away.sessions(), street.messages()), (0, vec!["HRStopReq"]));
    assert_eq!(home.activation().sns, None);
}

/// Passive roaming on top of handover: three networks at once.
#[tokio::test(start_paused = true)]
async fn a_third_network_forwards_a_device_that_another_serves_for_its_home() {
    let (street, home, mut away, mut device) = houses(HANDOVER, BOTH, false).await;
    // what the home offers counts
    let mut third = hotspot(&street, OTHER, ROAMING, true).await;
    join_away(&mut away, &mut device).await;
    away.hears(&device.up(false, false, &[], b"1")).await;
    street.messages();
    home.queue(b"open", false);
    third.hears(&device.up(true, false, &[], b"2")).await;
    let (tx, _) = third.transmitted().expect("the downlink, by two networks");
    assert_eq!(device.hears(&tx.phy), (0, true, Some((9, b"open".to_vec()))));
    assert_eq!(street.messages(), ["PRStartReq", "XmitDataReq", "XmitDataReq"]);
    assert_eq!(home.delivered(), Some(1));
    assert!(away.transmitted().is_none());
    assert_eq!(
        third.memory.carried.lock().unwrap()[..],
        [(AWAY, Kind::Passive, Way::Down, 4), (AWAY, Kind::Passive, Way::Up, 1)]
    );
    // its home keeps it to the networks that it knows
    home.memory.devices.lock().unwrap().get_mut(&DEV).unwrap().roaming = false;
    seconds(5).await;
    third.hears(&device.up(true, false, &[], b"3")).await;
    assert_eq!((home.delivered(), away.sessions()), (Some(1), 0));
}
