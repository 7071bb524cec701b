//! Class C, at home and away: downlinks that need no uplink.

use super::*;
use crate::backend::message::{ClassMode, DlMeta, XmitDown};

const BARN: GatewayEui = GatewayEui::from_msb([0xBB; 8]);
const S: Duration = Duration::from_secs(1);
/// What RX2 of EU868 is.
const RXC: (u32, Modulation) = (869_525_000, Modulation::Lora { sf: 12, bandwidth: 125_000 });

/// A device of class C that has joined at home.
async fn joined() -> (Arc<Street>, Hotspot, Hotspot, Device) {
    let (street, mut home, away, mut device) = street(ROAMING, true).await;
    home.memory.devices.lock().unwrap().get_mut(&DEV).unwrap().class = ClassMode::C;
    tokio::spawn(home.house.hns.clone().reach_all(HOME));
    join(&mut home, &mut device).await;
    (street, home, away, device)
}

impl Hotspot {
    /// As an operator does it.
    fn send(&self, payload: &[u8], confirmed: bool) {
        self.queue(payload, confirmed);
        self.house.hns.reach(DEV);
    }

    fn waiting(&self) -> usize {
        self.memory.devices.lock().unwrap()[&DEV].queue.len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_downlink_goes_at_once_when_the_device_has_been_heard_once() {
    let (_street, mut home, _away, mut device) = joined().await;
    home.send(b"early", false);
    tokio::time::sleep(60 * S).await;
    assert!(home.transmitted().is_none(), "nobody knows whether it heard its Join-accept");
    home.hears(&device.up(false, false, &[], b"here")).await;
    let (tx, _) = home.transmitted().expect("what waited takes the window");
    assert!(tx.at.is_some() && device.hears(&tx.phy).2.unwrap().1 == b"early");

    tokio::time::sleep(3600 * S).await;
    let from = Instant::now();
    home.send(b"light", false);
    home.send(b"s on", false);
    tokio::time::sleep(5 * S).await;
    let (tx, handed) = home.transmitted().expect("at once");
    assert_eq!((tx.at, (tx.frequency, tx.modulation), handed), (None, RXC, from));
    assert_eq!(device.hears(&tx.phy), (1, false, Some((9, b"light".to_vec()))));
    let (next, after) = home.transmitted().expect("the other one");
    assert_eq!(device.hears(&next.phy), (2, false, Some((9, b"s on".to_vec()))));
    let airtime = crate::jit::airtime(RXC.1, tx.phy.len(), Direction::Down);
    assert!(after >= from + airtime && after < from + airtime + S, "when the first has ended");
    assert_eq!(home.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_about_to_listen_in_rx1_is_not_disturbed() {
    let (_street, mut home, _away, mut device) = joined().await;
    home.hears(&device.up(false, false, &[], b"here")).await;
    let heard = Instant::now();
    tokio::time::sleep(S / 2).await;
    home.send(b"now", false);
    tokio::time::sleep(5 * S).await;
    let (tx, _) = home.transmitted().expect("a downlink");
    assert!(tx.at.is_none() && tx.start >= heard + 5 * S / 4, "{:?}", tx.start - heard);
    assert!(tx.start < heard + 2 * S);
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_downlink_is_repeated_until_it_is_acknowledged_and_holds_up_the_next() {
    let (_street, mut home, _away, mut device) = joined().await;
    home.hears(&device.up(false, false, &[], b"here")).await;
    tokio::time::sleep(60 * S).await;
    home.send(b"confirm", true);
    home.send(b"then", false);
    tokio::time::sleep(S).await;
    let (first, at) = home.transmitted().expect("the confirmed one");
    assert_eq!(first.phy[0] >> 5, 0b101);
    // an uplink that was on the way does not acknowledge it, and is no reason to send it again
    home.hears(&device.up(false, false, &[], b"busy")).await;
    tokio::time::sleep(4 * S).await;
    assert!(home.transmitted().is_none(), "the acknowledgement may still come");
    tokio::time::sleep(8 * S).await;
    let (again, later) = home.transmitted().expect("once more");
    assert!(later >= at + 9 * S && later < at + 12 * S, "{:?}", later - at);
    assert_eq!(device.hears(&again.phy).0, device.hears(&first.phy).0 + 1, "no counter is used twice");
    home.hears(&device.up(false, true, &[], b"got it")).await;
    tokio::time::sleep(5 * S).await;
    let (tx, _) = home.transmitted().expect("the next one");
    assert_eq!(device.hears(&tx.phy).2.unwrap().1, b"then");
    assert!(home.waiting() == 0 && home.transmitted().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_downlink_that_nobody_acknowledges_is_given_up() {
    let (_street, mut home, _away, mut device) = joined().await;
    home.hears(&device.up(false, false, &[], b"here")).await;
    tokio::time::sleep(60 * S).await;
    home.send(b"confirm", true);
    tokio::time::sleep(600 * S).await;
    assert_eq!(std::iter::from_fn(|| home.transmitted()).count(), 8);
    assert_eq!(home.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_duty_cycle_refuses_goes_when_it_allows_and_in_order() {
    let (_street, mut home, _away, mut device) = joined().await;
    home.hears(&device.up(false, false, &[], b"here")).await;
    tokio::time::sleep(60 * S).await;
    let count = 150;
    for n in 0..count {
        home.queue(&[n; 51], false);
    }
    home.house.hns.reach(DEV);
    tokio::time::sleep(3600 * S).await;
    let airtime = crate::jit::airtime(RXC.1, 64, Direction::Down);
    let first: Vec<_> = std::iter::from_fn(|| home.transmitted()).collect();
    let allowed = 360.0 / airtime.as_secs_f64();
    assert!((allowed * 0.9..=allowed).contains(&(first.len() as f64)), "{} of {allowed}", first.len());
    tokio::time::sleep(3600 * S).await;
    let all: Vec<_> = first.into_iter().chain(std::iter::from_fn(|| home.transmitted())).collect();
    let payloads: Vec<u8> = all.iter().map(|(tx, _)| device.hears(&tx.phy).2.unwrap().1[0]).collect();
    assert_eq!(payloads, (0..count).collect::<Vec<_>>());
    let counters: Vec<u32> = all.iter().map(|(tx, _)| device.hears(&tx.phy).0).collect();
    assert!(counters.is_sorted() && *counters.last().unwrap() < 200, "{counters:?}");
}

#[tokio::test(start_paused = true)]
async fn the_head_that_heard_the_device_best_carries_and_where_it_is_gone_the_other() {
    let (_street, mut home, _away, mut device) = joined().await;
    home.ether.online.lock().unwrap().insert(BARN);
    let phy = device.up(false, false, &[], b"here");
    let (far, near) = (home.heard(&phy, ATTIC, 1.0), home.heard(&phy, BARN, 9.0));
    let later = async {
        tokio::time::sleep(S / 20).await;
        home.house.fns.uplink(near).await;
    };
    tokio::join!(home.house.fns.uplink(far), later);
    // one more, so that the fNS knows that two heads hear the device
    tokio::time::sleep(60 * S).await;
    let phy = device.up(true, false, &[], b"here");
    let (far, near) = (home.heard(&phy, ATTIC, 1.0), home.heard(&phy, BARN, 9.0));
    let later = async {
        tokio::time::sleep(S / 20).await;
        home.house.fns.uplink(near).await;
    };
    tokio::join!(home.house.fns.uplink(far), later);
    assert_eq!(home.transmitted().expect("an acknowledgement").0.gateway, BARN);
    tokio::time::sleep(3600 * S).await;
    for carrier in [BARN, ATTIC] {
        home.send(b"light", false);
        tokio::time::sleep(5 * S).await;
        assert_eq!(home.transmitted().expect("a downlink").0.gateway, carrier);
        home.ether.online.lock().unwrap().remove(&carrier);
    }
    // nobody is there: it waits, and goes when one is back
    home.send(b"light", false);
    tokio::time::sleep(60 * S).await;
    assert!(home.transmitted().is_none() && home.waiting() == 1);
    home.ether.online.lock().unwrap().insert(ATTIC);
    tokio::time::sleep(120 * S).await;
    assert!(home.transmitted().is_some() && home.waiting() == 0);
}

#[tokio::test(start_paused = true)]
async fn away_from_home_it_is_reached_through_the_network_that_heard_it_last() {
    let (street, mut home, mut away, mut device) = joined().await;
    home.hears(&device.up(false, false, &[], b"home")).await;
    tokio::time::sleep(60 * S).await;
    away.hears(&device.up(false, false, &[], b"away")).await;
    tokio::time::sleep(60 * S).await;
    street.messages();
    let from = Instant::now();
    home.send(b"light", false);
    home.send(b"s on", false);
    tokio::time::sleep(10 * S).await;
    assert_eq!(street.messages(), ["XmitDataReq", "XmitDataReq"]);
    let (tx, handed) = away.transmitted().expect("at once");
    assert_eq!((tx.at, (tx.frequency, tx.modulation), handed), (None, RXC, from));
    assert_eq!(device.hears(&tx.phy), (0, false, Some((9, b"light".to_vec()))));
    assert_eq!(device.hears(&away.transmitted().expect("then the other").0.phy).2.unwrap().1, b"s on");
    assert!(home.transmitted().is_none() && home.waiting() == 0);

    // its radio is away, and nobody says for how long: it is tried again, ever more rarely
    away.ether.online.lock().unwrap().clear();
    home.send(b"later", false);
    tokio::time::sleep(60 * S).await;
    assert!(away.transmitted().is_none() && home.waiting() == 1);
    assert!((2..=5).contains(&street.messages().len()));
    away.ether.online.lock().unwrap().insert(ATTIC);
    tokio::time::sleep(300 * S).await;
    assert_eq!(device.hears(&away.transmitted().expect("a downlink").0.phy).2.unwrap().1, b"later");

    // back home, our own radio is the way again
    home.hears(&device.up(false, false, &[], b"home")).await;
    tokio::time::sleep(60 * S).await;
    street.messages();
    home.send(b"welcome", false);
    tokio::time::sleep(10 * S).await;
    assert!(home.transmitted().is_some() && street.messages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_way_through_another_network_ends_with_a_day_or_with_the_agreement() {
    let (_street, home, mut away, mut device) = joined().await;
    away.hears(&device.up(false, false, &[], b"away")).await;
    tokio::time::sleep(24 * 3600 * S + S).await;
    home.send(b"light", false);
    tokio::time::sleep(3600 * S).await;
    assert!(away.transmitted().is_none() && home.waiting() == 1, "it may be anywhere");
    away.hears(&device.up(false, false, &[], b"still here")).await;
    let (tx, _) = away.transmitted().expect("in the window of its uplink");
    assert!(tx.at.is_some() && device.hears(&tx.phy).2.unwrap().1 == b"light");

    tokio::time::sleep(60 * S).await;
    let token = home.memory.sessions.lock().unwrap()[0].path.clone().unwrap();
    assert_eq!(token.via, Some(AWAY));
    let down = |fns_ul_token: Option<Vec<u8>>, phy_payload: &[u8]| XmitDown {
        phy_payload: phy_payload.to_vec(),
        dl: DlMeta {
            dl_freq2: Some(RXC.0),
            data_rate2: Some(0),
            class_mode: Some(ClassMode::C),
            fns_ul_token,
            ..DlMeta::default()
        },
        account: None,
    };
    let said = |caller: Caller, request: XmitDown, fns: Arc<crate::fns::Fns>| async move {
        fns.downlink(caller, request).await.map(|_| ()).map_err(|refusal| refusal.code)
    };
    let caller = |from: NetId| {
        let by = Deadline(Instant::now() + S);
        Caller { party: Party::Ns(from), receiver: Party::Ns(AWAY), ours: false, by }
    };
    let mut frame = vec![0x60];
    frame.extend(tx.phy[1..5].iter().chain(&[0, 0, 0, 1, 2, 3, 4]));
    let (fns, other) = (away.house.fns.clone(), NetId::from_msb([0, 0, 2]));
    let ours = token.fns_ul_token;
    // another network's token, a frame for another device, and a partner that is one no more
    let refused = Err(ResultCode::XmitFailed);
    assert_eq!(said(caller(other), down(ours.clone(), &frame), fns.clone()).await, refused);
    let mut stranger = frame.clone();
    stranger[1] ^= 1;
    assert_eq!(said(caller(HOME), down(ours.clone(), &stranger), fns.clone()).await, refused);
    assert_eq!(said(caller(HOME), down(ours.clone(), &frame), fns).await, Ok(()));
    let shut = hotspot(&Arc::new(Street::default()), AWAY, "", true).await;
    let fns = shut.house.fns.clone();
    assert_eq!(said(caller(HOME), down(ours, &frame), fns).await, Err(ResultCode::NoRoamingAgreement));
}
