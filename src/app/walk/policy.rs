//! What homes pay for, whom they want, and what single devices may do (TS002 sections 9.2, 12.5 step 5.5, 14).

use super::*;
use crate::backend::message::Account;
use crate::lorawan::frame::Uplink;

/// A home that grants an hour and pays for so much.
fn paying(limits: &str) -> String {
    format!("[default]\npassive = {{ start = true, activation = true, lifetime = \"1h\" }}\n{limits}")
}

impl Hotspot {
    fn accounts(&self) -> Vec<Account> {
        std::mem::take(&mut *self.memory.accounts.lock().unwrap())
    }
}

/// Frames of a device three seconds apart: which of them its home has got, and which were answered.
async fn talk(home: &Hotspot, away: &mut Hotspot, device: &mut Device, frames: u32) -> Vec<(bool, bool)> {
    let mut came = Vec::new();
    for _ in 0..frames {
        let frame = device.up(true, false, &[], b"21.5");
        let Ok(Uplink::Data(data)) = Uplink::parse(&frame) else { panic!("a data frame") };
        let fcnt = u32::from(data.fcnt());
        away.hears(&frame).await;
        came.push((home.delivered() == Some(fcnt), away.transmitted().is_some()));
        seconds(3).await;
    }
    came
}

#[tokio::test(start_paused = true)]
async fn what_is_above_a_rate_that_drops_is_not_forwarded_and_on_no_record() {
    let rules = paying("ul = { rate = 60, bucket = 2, policy = \"drop\" }");
    let (street, home, mut away, mut device) = houses(&rules, ROAMING, true).await;
    join(&mut away, &mut device).await;
    street.messages();
    let came = talk(&home, &mut away, &mut device, 4).await;
    assert_eq!(came, [(true, true), (true, true), (false, false), (false, false)]);
    assert_eq!(street.messages(), ["XmitDataReq"; 2], "nor by another question");
    // both ways, and none for the two that stayed; an acknowledgement has nothing of a user in it
    let account = Account { profile: "roamgate-ul60/2Drop".into(), ..Account::of(HOME) };
    assert_eq!(away.accounts(), [account.clone(), account]);
    assert_eq!(away.house.fns.counters().above_rate.get(), 2);
    // a token a minute comes back
    seconds(60).await;
    assert_eq!(talk(&home, &mut away, &mut device, 2).await, [(true, true), (false, false)]);
    assert_eq!(away.memory.roams.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_above_a_rate_that_marks_goes_on_and_counts_as_out_of_profile() {
    let rules = paying("ul = { rate = 60, bucket = 2, policy = \"mark\" }");
    let (_street, home, mut away, mut device) = houses(&rules, ROAMING, true).await;
    join(&mut away, &mut device).await;
    assert_eq!(talk(&home, &mut away, &mut device, 4).await, [(true, true); 4]);
    let marks: Vec<bool> = away.accounts().into_iter().map(|account| account.out_of_profile).collect();
    assert_eq!(marks, [false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn downlinks_have_a_rate_of_their_own_with_acknowledgements_in_it() {
    for (policy, answered, marks) in [("drop", 1, vec![false]), ("mark", 3, vec![false, true, true])] {
        let rules = paying(&format!("dl = {{ rate = 60, bucket = 1, policy = \"{policy}\" }}"));
        let (_street, home, mut away, mut device) = houses(&rules, ROAMING, true).await;
        join(&mut away, &mut device).await;
        for _ in 0..3 {
            home.queue(b"open", false);
        }
        let came = talk(&home, &mut away, &mut device, 3).await;
        assert!(came.iter().all(|(delivered, _)| *delivered), "uplinks have no limit");
        assert_eq!(came.iter().filter(|(_, answered)| *answered).count(), answered, "{policy}");
        // three uplinks of four bytes, and the downlinks that went out
        let carried = away.memory.carried.lock().unwrap().clone();
        let downs =
            carried.iter().zip(away.accounts()).filter(|((.., way, _), _)| *way == crate::usage::Way::Down);
        assert_eq!(downs.map(|(_, account)| account.out_of_profile).collect::<Vec<_>>(), marks);
        assert_eq!(away.memory.carried.lock().unwrap().len(), 3 + marks.len());
    }
}

/// The network that serves a device for its home keeps to the home's rates as well.
#[tokio::test(start_paused = true)]
async fn a_device_that_was_handed_over_brings_its_rates_along() {
    const HANDOVER: &str = "[default]\nhandover = { start = true, activation = true }\n";
    for (policy, delivered, marks) in [
        ("drop", [true, true, false], vec![false, false]),
        ("mark", [true, true, true], vec![false, false, true]),
    ] {
        let rules = format!("{HANDOVER}ul = {{ rate = 60, bucket = 2, policy = \"{policy}\" }}");
        let (_street, home, mut away, mut device) = houses(&rules, HANDOVER, true).await;
        away.hears(&device.join_request()).await;
        let (tx, _) = away.transmitted().expect("a Join-accept");
        device.joined_at(&tx.phy, AWAY);
        seconds(7).await;
        let came = talk(&home, &mut away, &mut device, 3).await;
        let expected: Vec<_> = delivered.into_iter().map(|delivered| (delivered, true)).collect();
        assert_eq!(came, expected, "{policy}: who serves it acknowledges all the same");
        let accounts = away.accounts();
        let profile = if policy == "drop" { "roamgate-ul60/2Drop" } else { "roamgate-ul60/2Mark" };
        assert!(accounts.iter().all(|account| account.net_id == HOME && account.profile == profile));
        assert_eq!(accounts.iter().map(|account| account.out_of_profile).collect::<Vec<_>>(), marks);
        // what was dropped does not come later
        assert_eq!(away.house.sns.resend_waiting().await.unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_hears_what_our_own_radio_hears_is_deferred_for_a_while_and_loses_nothing() {
    const DEFERS: &str =
        "[default]\npassive = { start = true, activation = true, lifetime = \"1h\", defer = \"10m\" }";
    let (street, mut home, mut away, mut device) = houses(DEFERS, ROAMING, true).await;
    join(&mut home, &mut device).await;
    let both = async |home: &mut Hotspot, away: &mut Hotspot, frame: Vec<u8>| {
        home.hears(&frame).await;
        away.hears(&frame).await;
        let answered = (home.transmitted().is_some(), away.transmitted().is_some());
        seconds(5).await;
        answered
    };
    let frame = device.up(true, false, &[], b"1");
    assert_eq!(both(&mut home, &mut away, frame).await, (true, false));
    assert_eq!((street.messages(), home.delivered()), (vec!["PRStartReq"], Some(0)));
    assert!(away.memory.contexts.lock().unwrap().is_empty(), "no context");
    let frame = device.up(true, false, &[], b"2");
    assert_eq!(both(&mut home, &mut away, frame).await, (true, false));
    assert!(street.messages().is_empty(), "it was told not to ask");
    // where ours is deaf, it is asked for as soon as the time is over
    seconds(600).await;
    away.hears(&device.up(true, false, &[], b"3")).await;
    assert!(away.transmitted().is_some());
    assert_eq!((street.messages(), home.delivered()), (vec!["PRStartReq"], Some(2)));
}

#[tokio::test(start_paused = true)]
async fn the_network_that_is_visited_asks_nobody_about_devices_that_may_not_activate() {
    // the walker's JoinEUI is of this range
    let devices = "[[devices]]\njoin_euis = [\"0000000000000000/40\"]\npassive = { start = true }";
    let (street, _home, mut away, mut device) = houses(ROAMING, &format!("{ROAMING}\n{devices}"), true).await;
    away.hears(&device.join_request()).await;
    assert!(away.transmitted().is_none());
    assert_eq!(street.messages(), ["HomeNSReq"], "and its home hears nothing of it");
}

#[tokio::test(start_paused = true)]
async fn a_home_says_what_its_device_may_not_do() {
    let devices = "[[devices]]\njoin_euis = [\"0000000000000000/40\"]\npassive = { start = true }";
    let (street, home, mut away, mut device) = houses(&format!("{ROAMING}\n{devices}"), ROAMING, true).await;
    away.hears(&device.join_request()).await;
    assert!(away.transmitted().is_none());
    assert_eq!(street.messages(), ["HomeNSReq", "PRStartReq"]);
    assert_eq!(home.memory.sessions.lock().unwrap().len(), 0);
    // its running session may be carried
    let mut home = home;
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[], b"1")).await;
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert!(away.transmitted().is_some());
    // and of a device whose session may not
    let devices = format!("[[devices]]\ndev_euis = [\"{DEV}\"]\npassive = {{ activation = true }}");
    let (street, mut home, mut away, mut device) =
        houses(&format!("{ROAMING}\n{devices}"), ROAMING, true).await;
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[], b"1")).await;
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert!(away.transmitted().is_none());
    assert_eq!(street.messages(), ["PRStartReq"]);
    assert_eq!(home.delivered(), Some(0));
}
