//! Several radio heads at one node: copies, the best head, heads that die, repetitions.

use super::*;

const BARN: GatewayEui = GatewayEui::from_msb([0xBB; 8]);
const TOWER: GatewayEui = GatewayEui::from_msb([0xCC; 8]);
const MS: Duration = Duration::from_millis(1);
const NOW: Duration = Duration::ZERO;

/// A node with three heads, and a device that has joined.
async fn joined(at_home: bool) -> (Arc<Street>, Hotspot, Hotspot, Device) {
    let (street, mut home, mut away, mut device) = street(ROAMING, true).await;
    join(if at_home { &mut home } else { &mut away }, &mut device).await;
    for hotspot in [&home, &away] {
        hotspot.ether.online.lock().unwrap().extend([ATTIC, BARN, TOWER]);
        hotspot.ether.asked.lock().unwrap().clear();
    }
    (street, home, away, device)
}

impl Hotspot {
    /// Heads hear a frame that ends now; what each reports arrives so much later.
    async fn all_hear(&self, phy: &[u8], heads: &[(GatewayEui, f64, Duration)]) {
        let reports = heads.iter().map(|(gateway, snr, delay)| {
            let heard = self.heard(phy, *gateway, *snr);
            async move {
                tokio::time::sleep(*delay).await;
                self.house.fns.uplink(heard).await;
            }
        });
        futures_util::future::join_all(reports).await;
    }

    fn carried_by(&mut self) -> Vec<GatewayEui> {
        std::iter::from_fn(|| self.transmitted()).map(|(tx, _)| tx.gateway).collect()
    }

    fn asked(&self) -> Vec<GatewayEui> {
        std::mem::take(&mut *self.ether.asked.lock().unwrap())
    }
}

/// The three heads have heard a frame together a while ago.
async fn acquainted(hotspot: &mut Hotspot, device: &mut Device) {
    let heads = [(ATTIC, 1.0, NOW), (BARN, 1.0, NOW), (TOWER, 1.0, NOW)];
    hotspot.all_hear(&device.up(false, false, &[], b"0"), &heads).await;
    assert!(hotspot.transmitted().is_none());
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn heads_that_never_shared_a_frame_wait_for_nobody() {
    let (_street, mut home, _away, mut device) = joined(true).await;
    let from = Instant::now();
    home.all_hear(&device.up(true, false, &[], b"1"), &[(ATTIC, 1.0, NOW)]).await;
    let (tx, handed) = home.transmitted().expect("an acknowledgement");
    assert_eq!((tx.gateway, handed), (ATTIC, from));
}

#[tokio::test(start_paused = true)]
async fn the_head_with_the_better_snr_carries_the_downlink_though_another_reported_first() {
    for at_home in [true, false] {
        let (_street, mut home, mut away, mut device) = joined(at_home).await;
        let hotspot = if at_home { &mut home } else { &mut away };
        acquainted(hotspot, &mut device).await;
        let from = Instant::now();
        let heads = [(ATTIC, -3.0, NOW), (BARN, 9.0, 120 * MS), (TOWER, 4.0, 30 * MS)];
        hotspot.all_hear(&device.up(true, false, &[], b"1"), &heads).await;
        let (tx, handed) = hotspot.transmitted().expect("an acknowledgement");
        assert_eq!((tx.gateway, tx.start - from), (BARN, 1000 * MS));
        assert_eq!(handed - from, 120 * MS, "handed over as soon as all had reported");
        assert!(device.hears(&tx.phy).1 && hotspot.transmitted().is_none());
        assert_eq!(hotspot.house.fns.counters().copies.get(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_did_not_hear_is_waited_for_a_moment_and_no_window_is_lost() {
    let (_street, mut home, _away, mut device) = joined(true).await;
    acquainted(&mut home, &mut device).await;
    let from = Instant::now();
    home.all_hear(&device.up(true, false, &[], b"1"), &[(ATTIC, 1.0, NOW), (BARN, 2.0, 10 * MS)]).await;
    let (tx, handed) = home.transmitted().expect("an acknowledgement");
    assert_eq!((tx.gateway, tx.start - from, handed - from), (BARN, 1000 * MS, 200 * MS));
    // a report that comes so late that waiting could cost the window is answered at once
    let from = Instant::now();
    home.all_hear(&device.up(true, false, &[], b"2"), &[(ATTIC, 1.0, 600 * MS)]).await;
    let (tx, handed) = home.transmitted().expect("an acknowledgement");
    assert_eq!((tx.start - from, handed - from), (1000 * MS, 600 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_went_offline_is_not_chosen_and_one_that_refuses_leaves_it_to_the_next() {
    let (_street, mut home, _away, mut device) = joined(true).await;
    let heads = [(ATTIC, 5.0, NOW), (BARN, 9.0, NOW), (TOWER, 1.0, NOW)];
    home.ether.online.lock().unwrap().remove(&BARN);
    home.all_hear(&device.up(true, false, &[], b"1"), &heads).await;
    assert_eq!((home.asked(), home.carried_by()), (vec![ATTIC], vec![ATTIC]));
    home.ether.online.lock().unwrap().insert(BARN);
    for refusal in [
        AirError::TooLate,
        AirError::CollisionPacket,
        AirError::CollisionBeacon,
        AirError::Gone(BARN),
        AirError::Frequency,
    ] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        home.ether.refuse.lock().unwrap().push(refusal);
        home.all_hear(&device.up(true, false, &[], b"2"), &heads).await;
        assert_eq!(home.asked(), [BARN, ATTIC], "in RX1, by the second best");
        let (tx, _) = home.transmitted().expect("an acknowledgement");
        assert_eq!((tx.gateway, tx.frequency), (ATTIC, 868_300_000));
        assert!(home.transmitted().is_none());
    }
    // nobody is there any more
    tokio::time::sleep(Duration::from_secs(5)).await;
    home.ether.online.lock().unwrap().clear();
    home.all_hear(&device.up(true, false, &[], b"3"), &heads).await;
    assert_eq!((home.asked(), home.carried_by()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn after_a_silent_head_nobody_sends_and_the_next_answer_goes_another_way() {
    let (_street, mut home, _away, mut device) = joined(true).await;
    let heads = [(ATTIC, 5.0, NOW), (BARN, 9.0, NOW), (TOWER, 1.0, NOW)];
    home.ether.refuse.lock().unwrap().push(AirError::Silent);
    home.all_hear(&device.up(true, false, &[], b"1"), &heads).await;
    assert_eq!((home.asked(), home.carried_by()), (vec![BARN], vec![]), "it may have been sent");
    tokio::time::sleep(Duration::from_secs(5)).await;
    home.all_hear(&device.up(true, false, &[], b"2"), &heads).await;
    assert_eq!((home.asked(), home.carried_by()), (vec![ATTIC], vec![ATTIC]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    home.all_hear(&device.up(true, false, &[], b"3"), &heads).await;
    assert_eq!(home.carried_by(), [BARN], "it gets another chance");
}

#[tokio::test(start_paused = true)]
async fn a_busy_head_leaves_the_window_to_the_next_best() {
    let (_street, mut home, _away, mut device) = joined(true).await;
    let heads = [(ATTIC, 1.0, NOW), (BARN, 9.0, NOW), (TOWER, 4.0, NOW)];
    let [one, other] = [device.up(true, false, &[], b"1"), device.join_request()];
    home.all_hear(&one, &heads).await;
    assert_eq!(home.carried_by(), [BARN]);
    // the Join-accept's RX1 is four seconds later than the acknowledgement
    tokio::time::sleep(Duration::from_secs(10)).await;
    home.all_hear(&other, &heads).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    home.asked();
    home.all_hear(&device.up(true, false, &[], b"2"), &heads).await;
    let by = home.carried_by();
    assert_eq!(by, [BARN, TOWER], "one frame at a time from each head");
    assert_eq!(home.asked(), [TOWER], "the busy one was not even asked");
}

#[tokio::test(start_paused = true)]
async fn repetitions_that_two_heads_hear_are_acknowledged_one_by_one() {
    for late in [0, 1, 2, 3] {
        let (_street, mut home, _away, mut device) = joined(true).await;
        let frame = device.up(true, false, &[], b"1");
        let mut delays = [10, 20, 30, 40].map(|delay| delay * MS);
        delays[late] = 700 * MS;
        let first = [(ATTIC, 5.0, delays[0]), (BARN, 9.0, delays[1])];
        let second = [(ATTIC, 5.0, delays[2]), (BARN, 9.0, delays[3])];
        let again = async {
            tokio::time::sleep(1500 * MS).await;
            home.all_hear(&frame, &second).await;
        };
        tokio::join!(home.all_hear(&frame, &first), again);
        let sent: Vec<_> = std::iter::from_fn(|| home.transmitted()).collect();
        let counters: Vec<u32> = sent.iter().map(|(tx, _)| device.hears(&tx.phy).0).collect();
        assert_eq!(counters, [0, 1], "late: {late}");
        assert_eq!(home.house.fns.counters().copies.get(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn copies_are_credited_while_the_message_has_not_gone_and_late_ones_are_counted() {
    let (_street, mut home, _away, mut device) = joined(true).await;
    // LinkCheckReq
    let phy = device.up(false, false, &[0x02], b"1");
    let heads = [(ATTIC, 8.0, NOW), (BARN, 1.0, 2500 * MS)];
    home.all_hear(&phy, &heads).await;
    let (tx, _) = home.transmitted().expect("LinkCheckAns");
    assert_eq!(device.hears(&tx.phy).2.unwrap().1, [0x02, 16, 1], "one head by then");
    let counters = home.house.fns.counters();
    assert_eq!((counters.copies.get(), counters.late.get()), (0, 1));
    assert!(home.transmitted().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_visitors_home_is_told_of_every_head_that_reported_in_time() {
    let (_street, _home, mut away, mut device) = joined(false).await;
    let heads = [(ATTIC, 1.0, NOW), (BARN, 8.0, NOW), (TOWER, 3.0, 90 * MS)];
    away.all_hear(&device.up(false, false, &[0x02], b"1"), &heads).await;
    let (tx, _) = away.transmitted().expect("LinkCheckAns");
    // 8 dB over the -7.5 dB that SF7 needs, and two heads: the third came when the question had gone
    assert_eq!(device.hears(&tx.phy).2.unwrap().1, [0x02, 16, 2]);
    assert_eq!(tx.gateway, BARN);
}

/// The token names a head and a transmission; the head serves where the transmission is another one now.
#[tokio::test(start_paused = true)]
async fn a_token_that_outlives_the_memory_leads_to_the_head_inside() {
    let (_street, _home, mut away, mut device) = joined(false).await;
    away.all_hear(&device.up(false, false, &[], b"1"), &[(BARN, 9.0, NOW), (TOWER, 1.0, NOW)]).await;
    let (addr, keys) = device.session.as_ref().unwrap();
    let phy = crate::lorawan::frame::Downlink::default().build(&keys.nwk_s_key, *addr, 5);
    let seal = Seal::new(&[7; 32], away.epoch);
    for number in [1, 99] {
        let at = Instant::now();
        let tmst = Count(77);
        let hearing =
            fns::Hearing { gateway: ATTIC, session: 1, tmst, at, time: 0, dev_addr: Some(*addr), number };
        let dl = crate::backend::message::DlMeta {
            dl_freq1: Some(868_300_000),
            data_rate1: Some(5),
            rx_delay1: Some(1),
            fns_ul_token: Some(seal.make(&Party::Ns(HOME), &hearing, [1; 12])),
            ..Default::default()
        };
        let by = Deadline(at + Duration::from_secs(2));
        let from = Caller { party: Party::Ns(HOME), receiver: Party::Ns(AWAY), ours: false, by };
        let req = crate::backend::message::XmitDown { phy_payload: phy.clone(), dl, account: None };
        away.house.fns.downlink(from, req).await.unwrap();
        let (tx, _) = away.transmitted().expect("a downlink");
        assert_eq!((tx.gateway, tx.at), (ATTIC, Some(Count(1_000_077))));
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}
