//! A home that cannot be reached: frames of its visitors wait and go home later, in order.

use super::*;

const STATEFUL: &str = "[default]\npassive = { start = true, activation = true, lifetime = \"1h\" }";

impl Street {
    fn unplug(&self, away: bool) {
        *self.unplugged.lock().unwrap() = away.then_some(Party::Ns(HOME));
    }
}

impl Hotspot {
    fn counted(&self) -> [u64; 3] {
        let count = self.house.fns.counters();
        [count.parked.get(), count.parked_sent.get(), count.parked_dropped.get()]
    }

    /// Each frame that waits: its counter, and whether it may be answered.
    fn standing(&self) -> Vec<(u16, bool)> {
        let parked = self.memory.parked.lock().unwrap();
        let told = |frame: &fns::parked::Parked| {
            (u16::from_le_bytes([frame.phy_payload[6], frame.phy_payload[7]]), frame.ul.allows_downlink())
        };
        parked.values().map(told).collect()
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// A visitor that joined away and talked once.
async fn visiting(rules: &str) -> (Arc<Street>, Hotspot, Hotspot, Device) {
    let street = Arc::new(Street::default());
    let mut away = hotspot(&street, AWAY, rules, true).await;
    let home = hotspot(&street, HOME, rules, true).await;
    let mut device = Device::new();
    home.add(&device);
    join(&mut away, &mut device).await;
    away.hears(&device.up(true, false, &[], b"0")).await;
    assert!(away.transmitted().is_some());
    pause().await;
    street.messages();
    (street, home, away, device)
}

#[tokio::test(start_paused = true)]
async fn frames_wait_for_a_home_that_is_away_and_go_there_in_order_with_and_without_contexts() {
    for (rules, message) in [(ROAMING, "PRStartReq"), (STATEFUL, "XmitDataReq")] {
        let (street, home, mut away, mut device) = visiting(rules).await;
        street.unplug(true);
        for payload in [b"1", b"2", b"3"] {
            away.hears(&device.up(true, false, &[], payload)).await;
            pause().await;
        }
        assert_eq!(street.messages(), [message], "the first found out, the others stand behind it");
        assert_eq!(away.standing(), [(1, false), (2, false), (3, false)]);
        assert!(away.transmitted().is_none());
        away.house.fns.send_parked().await.unwrap();
        assert_eq!((street.messages().len(), away.house.fns.parked()), (1, 3), "still away");
        street.unplug(false);
        // a younger frame stands behind them too
        away.hears(&device.up(true, false, &[], b"4")).await;
        assert_eq!(street.messages(), [""; 0]);
        pause().await;
        away.house.fns.send_parked().await.unwrap();
        assert_eq!(street.messages(), [message; 4]);
        assert_eq!((home.delivered(), away.counted()), (Some(4), [4, 4, 0]));
        // nobody can answer them any more
        assert!(away.transmitted().is_none());
        assert!(away.standing().is_empty() && away.house.fns.parked() == 0);
        // and from now on everything is as it was
        away.hears(&device.up(true, false, &[], b"5")).await;
        let (tx, _) = away.transmitted().expect("an acknowledgement");
        assert!(device.hears(&tx.phy).1, "{message}");
        assert_eq!(home.delivered(), Some(5));
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_survives_a_restart_and_a_context_that_ended_meanwhile() {
    let (street, home, mut away, mut device) = visiting(STATEFUL).await;
    street.unplug(true);
    away.hears(&device.up(false, false, &[], b"1")).await;
    let memory = away.memory.clone();
    drop(away);
    away = hotspot_on(&street, AWAY, STATEFUL, true, memory).await;
    assert_eq!(away.house.fns.parked(), 1);
    pause().await;
    away.hears(&device.up(false, false, &[], b"2")).await;
    assert_eq!(away.standing(), [(1, false), (2, false)]);
    street.unplug(false);
    street.messages();
    home.memory.visits.lock().unwrap().clear();
    pause().await;
    away.house.fns.send_parked().await.unwrap();
    let messages = street.messages();
    assert_eq!((home.delivered(), away.house.fns.parked()), (Some(2), 0), "{messages:?}");
}

#[tokio::test(start_paused = true)]
async fn joins_and_strangers_never_wait_and_what_is_not_wanted_goes() {
    let (street, home, away, mut device) = visiting(ROAMING).await;
    street.unplug(true);
    away.hears(&device.join_request()).await;
    let mut stranger = device.up(false, false, &[], b"x");
    // another address of the same network
    stranger[2] ^= 1;
    away.hears(&stranger).await;
    assert_eq!((away.house.fns.parked(), away.counted()), (0, [0; 3]));
    pause().await;
    // a forged frame of the visitor's address waits like any other, and is refused
    let mut forged = device.up(false, false, &[], b"1");
    *forged.last_mut().unwrap() ^= 1;
    away.hears(&forged).await;
    pause().await;
    away.hears(&device.up(false, false, &[], b"2")).await;
    assert_eq!(away.house.fns.parked(), 2);
    street.unplug(false);
    away.house.fns.send_parked().await.unwrap();
    assert_eq!(away.counted(), [2, 1, 1]);
    assert_eq!(home.delivered(), Some(device.fcnt_up - 1));
}

#[tokio::test(start_paused = true)]
async fn a_join_that_succeeds_says_that_the_home_is_back() {
    let (street, home, mut away, mut device) = visiting(ROAMING).await;
    street.unplug(true);
    away.hears(&device.up(false, false, &[], b"1")).await;
    for _ in 0..8 {
        away.house.fns.send_parked().await.unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
    }
    away.house.fns.send_parked().await.unwrap();
    street.unplug(false);
    away.house.fns.send_parked().await.unwrap();
    assert_eq!(away.house.fns.parked(), 1, "left alone for a minute");
    join(&mut away, &mut device).await;
    away.house.fns.send_parked().await.unwrap();
    assert_eq!((away.house.fns.parked(), away.counted()), (0, [1, 1, 0]));
    drop(home);
}

#[tokio::test(start_paused = true)]
async fn after_a_day_and_under_an_untrusted_clock_nothing_is_sent() {
    let (street, _home, away, mut device) = visiting(ROAMING).await;
    street.unplug(true);
    away.hears(&device.up(false, false, &[], b"1")).await;
    street.unplug(false);
    street.messages();
    away.clock.set_trusted(false);
    pause().await;
    away.house.fns.send_parked().await.unwrap();
    assert_eq!((away.house.fns.parked(), street.messages().len()), (1, 0));
    away.clock.set_trusted(true);
    tokio::time::sleep(Duration::from_secs(25 * 3600)).await;
    away.house.fns.send_parked().await.unwrap();
    assert_eq!((away.house.fns.parked(), street.messages().len(), away.counted()), (0, 0, [1, 0, 1]));
}

#[tokio::test(start_paused = true)]
async fn where_the_disk_is_full_visitors_are_turned_away_and_the_devices_at_home_are_not() {
    for rules in [ROAMING, STATEFUL] {
        let (street, mut home, mut away, mut device) = visiting(rules).await;
        *away.memory.full.lock().unwrap() = true;
        away.hears(&device.up(true, false, &[], b"1")).await;
        pause().await;
        assert!(away.transmitted().is_none());
        away.hears(&Device::new().join_request()).await;
        pause().await;
        assert_eq!((street.messages().len(), away.house.fns.counters().disk.get()), (0, 2));
        // its own devices a hotspot carries on
        *home.memory.full.lock().unwrap() = true;
        home.hears(&device.up(true, false, &[], b"2")).await;
        assert!(home.transmitted().is_some());
        pause().await;
        // and abroad as well, as soon as there is room
        *away.memory.full.lock().unwrap() = false;
        away.hears(&device.up(true, false, &[], b"3")).await;
        assert!(away.transmitted().is_some());
    }
}
