//! Visitors with a context: the first frame asks, the next ones do not.

use super::*;
use crate::backend::message::{DlMeta, PrStartAns, PrStopReq, UlMeta, XmitUp};
use crate::fns::contexts::Context;

const HOUR: &str = "[default]\npassive = { start = true, activation = true, lifetime = \"1h\" }";
const CHECKED: &str =
    "[default]\npassive = { start = true, activation = true, lifetime = \"1h\", mic_check = true }";
const OTHER: NetId = NetId::from_msb([0, 0, 2]);

impl Street {
    fn otherwise(&self, answer: impl Fn(&mut Answer) + Send + 'static) {
        *self.otherwise.lock().unwrap() = Some(Box::new(move |given| {
            given.map(|mut given| {
                answer(&mut given);
                given
            })
        }));
    }
}

impl Hotspot {
    fn contexts(&self) -> Vec<Context> {
        self.memory.contexts.lock().unwrap().values().cloned().collect()
    }
}

fn caller(from: NetId) -> Caller {
    let by = Deadline(Instant::now() + Duration::from_secs(2));
    Caller { party: Party::Ns(from), receiver: Party::Ns(HOME), ours: false, by }
}

fn xmit_up(phy: &[u8]) -> XmitUp {
    let ul = UlMeta {
        data_rate: Some(5),
        ul_freq: Some(868_300_000),
        rf_region: Some("EU868".into()),
        ..UlMeta::at("2026-11-20T10:00:00Z".parse().unwrap())
    };
    XmitUp { phy_payload: phy.to_vec(), ul, downlink_in_answer: true }
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_joined_is_forwarded_by_its_context_with_downlinks_both_ways() {
    for (rides, down) in [(true, None), (false, Some("XmitDataReq"))] {
        let (street, home, mut away, mut device) = houses(HOUR, ROAMING, rides).await;
        join(&mut away, &mut device).await;
        assert_eq!(street.messages(), ["HomeNSReq", "PRStartReq"]);
        assert_eq!((away.contexts().len(), away.contexts()[0].lifetime), (1, 3600));
        for round in 0..3 {
            home.queue(b"open", false);
            away.hears(&device.up(true, false, &[], b"21.5")).await;
            let (tx, _) = away.transmitted().expect("a downlink");
            assert_eq!(device.hears(&tx.phy), (round, true, Some((9, b"open".to_vec()))));
            assert!(away.transmitted().is_none(), "one");
            let expected: Vec<_> = ["XmitDataReq"].into_iter().chain(down).collect();
            assert_eq!(street.messages(), expected);
            assert_eq!(home.delivered(), Some(round));
            seconds(5).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_joined_at_home_gets_its_context_with_its_first_frame_away() {
    let (street, mut home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[], b"1")).await;
    assert!(street.messages().is_empty());
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert!(away.transmitted().is_some());
    assert_eq!(street.messages(), ["PRStartReq"], "the frame was taken with the question");
    seconds(5).await;
    away.hears(&device.up(true, false, &[], b"3")).await;
    assert!(away.transmitted().is_some());
    assert_eq!(street.messages(), ["XmitDataReq"]);
    assert_eq!(home.delivered(), Some(2));
    // at home nothing changes
    seconds(5).await;
    home.hears(&device.up(true, false, &[], b"4")).await;
    assert!(home.transmitted().is_some() && street.messages().is_empty());
}

/// ChirpStack's way: what comes with PRStartReq is not said to be taken, so it comes again.
#[tokio::test(start_paused = true)]
async fn a_frame_that_is_sent_again_after_the_start_is_answered_and_delivered_once() {
    for rides in [true, false] {
        let (street, mut home, mut away, mut device) = houses(HOUR, ROAMING, rides).await;
        join(&mut home, &mut device).await;
        street.otherwise(|answer| {
            if let Answer::PrStart(ans) = answer {
                *ans = PrStartAns { taken: false, phy_payload: None, dl: None, ..ans.clone() };
            }
        });
        home.queue(b"open", false);
        away.hears(&device.up(true, false, &[], b"1")).await;
        let expected: &[_] = if rides {
            &["PRStartReq", "XmitDataReq"]
        } else {
            &["PRStartReq", "XmitDataReq", "XmitDataReq"]
        };
        assert_eq!(street.messages(), expected);
        assert_eq!(home.memory.sessions.lock().unwrap()[0].fcnt_down, 1, "one answer was made");
        assert_eq!(usize::from(!rides), usize::from(away.transmitted().is_some()));
        assert_eq!(home.delivered(), Some(0));
        // and a repetition by the device is one
        seconds(3).await;
        *street.otherwise.lock().unwrap() = None;
        device.fcnt_up = 0;
        away.hears(&device.up(true, false, &[], b"1")).await;
        assert!(away.transmitted().is_some(), "acknowledged by itself");
    }
}

#[tokio::test(start_paused = true)]
async fn a_context_is_renewed_with_an_uplink_near_its_end_and_else_ends_quietly() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    let first = away.contexts()[0].until;
    seconds(3100).await;
    away.hears(&device.up(false, false, &[], b"1")).await;
    assert_eq!(street.messages()[2..], ["XmitDataReq"]);
    seconds(300).await;
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert!(away.transmitted().is_some());
    assert_eq!(street.messages(), ["PRStartReq"], "the last tenth has begun");
    assert!(away.contexts()[0].until > first + 3000);
    seconds(1).await;
    away.hears(&device.up(false, false, &[], b"3")).await;
    assert_eq!(street.messages(), ["XmitDataReq"]);
    // silence for longer than an hour
    seconds(3700).await;
    away.house.fns.tend_contexts().await.unwrap();
    home.house.sns.stop_ended().await.unwrap();
    assert!(away.contexts().is_empty() && home.memory.visits.lock().unwrap().is_empty());
    assert!(street.messages().is_empty(), "nobody is told");
    away.hears(&device.up(false, false, &[], b"4")).await;
    assert_eq!(street.messages(), ["PRStartReq"]);
    assert_eq!(home.delivered(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_home_that_does_not_renew_is_served_until_the_end() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    seconds(3400).await;
    street.messages();
    *street.otherwise.lock().unwrap() = Some(Box::new(|answer| match answer {
        Ok(Answer::PrStart(_)) => {
            Err(Refusal { lifetime: Some(900), ..Refusal::new(ResultCode::Deferred, "not now") })
        }
        other => other,
    }));
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert_eq!(street.messages(), ["PRStartReq", "XmitDataReq"]);
    seconds(5).await;
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert_eq!(street.messages(), ["XmitDataReq"], "held off");
    assert_eq!(home.delivered(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn restarts_of_either_side_lose_no_context() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    street.messages();
    let mut away = hotspot_on(&street, AWAY, ROAMING, true, away.memory.clone()).await;
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(away.transmitted().is_some());
    assert_eq!(street.messages(), ["XmitDataReq"]);
    seconds(5).await;
    let home = hotspot_on(&street, HOME, HOUR, true, home.memory.clone()).await;
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert!(away.transmitted().is_some());
    assert_eq!((street.messages(), home.delivered()), (vec!["XmitDataReq"], Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_home_that_forgot_the_context_is_asked_anew_with_the_same_frame() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    street.messages();
    home.memory.visits.lock().unwrap().clear();
    let home = hotspot_on(&street, HOME, HOUR, true, home.memory.clone()).await;
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(away.transmitted().is_some(), "no uplink is lost");
    assert_eq!((street.messages(), home.delivered()), (vec!["XmitDataReq", "PRStartReq"], Some(0)));
    seconds(5).await;
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert_eq!((street.messages(), home.delivered()), (vec!["XmitDataReq"], Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_home_whose_operator_ends_roaming_says_so_until_it_is_heard() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    away.hears(&device.up(false, false, &[], b"1")).await;
    street.messages();
    home.memory.sessions.lock().unwrap()[0].roaming = false;
    *street.unplugged.lock().unwrap() = Some(Party::Ns(AWAY));
    home.house.sns.stop_ended().await.unwrap();
    assert_eq!((street.messages(), away.contexts().len()), (vec!["PRStopReq"], 1));
    // also by the next run
    *street.unplugged.lock().unwrap() = None;
    let home = hotspot_on(&street, HOME, HOUR, true, home.memory.clone()).await;
    home.house.sns.stop_ended().await.unwrap();
    assert_eq!((street.messages(), away.contexts().len()), (vec!["PRStopReq"], 0));
    home.house.sns.stop_ended().await.unwrap();
    assert!(street.messages().is_empty(), "once");
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert!(away.transmitted().is_none());
    assert_eq!((street.messages(), home.delivered()), (vec!["PRStartReq"], Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_hotspot_whose_rules_change_parts_from_its_visitors() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    street.messages();
    let away = hotspot_on(&street, AWAY, "", true, away.memory.clone()).await;
    away.house.fns.tend_contexts().await.unwrap();
    assert_eq!((street.messages(), away.contexts().len()), (vec!["PRStopReq"], 0));
    assert!(home.memory.visits.lock().unwrap().is_empty());
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(street.messages().is_empty(), "nothing leaves the house");
}

#[tokio::test(start_paused = true)]
async fn a_new_session_ends_the_context_of_the_one_before() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    away.hears(&device.up(false, false, &[], b"1")).await;
    join(&mut away, &mut device).await;
    // the device may not have heard the second Join-accept
    assert_eq!(away.contexts().len(), 2);
    street.messages();
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(away.transmitted().is_some());
    seconds(1).await;
    assert_eq!(
        (street.messages(), away.contexts().len()),
        (vec!["XmitDataReq"], 1),
        "it goes on in the new one"
    );
    assert_eq!(home.memory.visits.lock().unwrap().len(), 1);
    // a join at home ends it too, and there the hotspot has to hear of it
    let mut home = home;
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[], b"1")).await;
    seconds(1).await;
    assert_eq!((street.messages(), away.contexts().len()), (vec!["PRStopReq"], 0));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_does_not_fit_or_is_ours_makes_no_context() {
    for addr in [OTHER.dev_addr(5), AWAY.dev_addr(5)] {
        let (street, _home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
        street.otherwise(move |answer| {
            if let Answer::PrStart(ans) = answer {
                ans.dev_addr = Some(addr);
            }
        });
        // the Join-accept is its home's business
        join(&mut away, &mut device).await;
        assert!(away.contexts().is_empty());
        *street.otherwise.lock().unwrap() = None;
        street.messages();
        away.hears(&device.up(true, false, &[], b"1")).await;
        assert!(away.transmitted().is_some());
        assert_eq!(street.messages(), ["PRStartReq"]);
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_key_of_the_home_a_forged_frame_does_not_leave_the_house() {
    let (street, home, mut away, mut device) = houses(CHECKED, CHECKED, true).await;
    join(&mut away, &mut device).await;
    street.messages();
    let mut forged = device.up(true, false, &[], b"1");
    let at = forged.len() - 1;
    forged[at] ^= 1;
    device.fcnt_up = 0;
    away.hears(&forged).await;
    assert!(street.messages().is_empty() && away.transmitted().is_none());
    assert_eq!(away.house.fns.counters().forged.get(), 1);
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(away.transmitted().is_some());
    assert_eq!((street.messages(), home.delivered()), (vec!["XmitDataReq"], Some(0)));
    // a key is not asked for where nothing is agreed, and not given
    for (theirs, ours) in [(CHECKED, HOUR), (HOUR, CHECKED)] {
        let (_street, _home, mut away, mut device) = houses(theirs, ours, true).await;
        street.otherwise(|_| ());
        join(&mut away, &mut device).await;
        // one that is sent unasked is not opened
        assert_eq!(away.contexts()[0].mic_key, None);
    }
}

#[tokio::test(start_paused = true)]
async fn one_partner_neither_uses_nor_stops_what_another_was_granted() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    street.messages();
    let frame = device.up(true, false, &[], b"1");
    let stop = |dev_eui| PrStopReq { dev_eui, dev_addr: None, lifetime: None };
    // at home: no context of theirs, and the frame is not used up by the attempt
    let refused = home.house.sns.passive_data(caller(OTHER), xmit_up(&frame)).await.unwrap_err();
    assert_eq!(refused.code, ResultCode::UnknownDevAddr);
    let refused = home.house.clone().answer(caller(OTHER), stop(DEV).into()).await.unwrap_err();
    assert_eq!(refused.code, ResultCode::UnknownDevEui);
    // abroad: not their device
    let with_hold_off =
        PrStopReq { lifetime: Some(3600), dev_addr: Some(away.contexts()[0].id.dev_addr), ..stop(DEV) };
    let refused = away.house.clone().answer(caller(OTHER), with_hold_off.into()).await.unwrap_err();
    assert_eq!(refused.code, ResultCode::UnknownDevEui);
    assert_eq!((away.contexts().len(), home.memory.visits.lock().unwrap().len()), (1, 1));
    away.hears(&frame).await;
    assert!(away.transmitted().is_some());
    assert_eq!((street.messages(), home.delivered()), (vec!["XmitDataReq"], Some(0)));
    // and nobody without an agreement
    let shut = hotspot_on(&street, HOME, "", true, home.memory.clone()).await;
    let refused = shut.house.sns.passive_data(caller(AWAY), xmit_up(&frame)).await.unwrap_err();
    assert_eq!(refused.code, ResultCode::NoRoamingAgreement);
}

#[tokio::test(start_paused = true)]
async fn a_stop_with_a_hold_off_keeps_the_visited_network_quiet_until_it_is_lifted() {
    let (street, _home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    street.messages();
    let dev_addr = Some(away.contexts()[0].id.dev_addr);
    let stop = |lifetime| PrStopReq { dev_eui: DEV, dev_addr, lifetime: Some(lifetime) };
    away.house.clone().answer(caller(HOME), stop(600).into()).await.unwrap();
    // a restart changes nothing
    let mut away = hotspot_on(&street, AWAY, ROAMING, true, away.memory.clone()).await;
    away.hears(&device.up(true, false, &[], b"1")).await;
    away.hears(&device.join_request()).await;
    assert_eq!(street.messages(), ["HomeNSReq"], "where its home is has to be asked again, and nothing else");
    assert!(away.transmitted().is_none());
    let lifted = away.house.clone().answer(caller(HOME), stop(0).into()).await.unwrap_err();
    assert_eq!(lifted.code, ResultCode::UnknownDevEui, "by the letter; lifted nevertheless");
    seconds(3).await;
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert!(away.transmitted().is_some());
    assert_eq!(street.messages(), ["PRStartReq"]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_not_set_neither_uses_nor_ends_a_context() {
    let (street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    street.messages();
    // a board that boots in the far future of its contexts, or so it believes
    away.clock.set_trusted(false);
    away.clock.move_wall(jiff::SignedDuration::from_hours(24 * 365));
    away.house.fns.tend_contexts().await.unwrap();
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(street.messages().is_empty() && away.contexts().len() == 1);
    away.clock.move_wall(jiff::SignedDuration::from_hours(-24 * 365));
    away.clock.set_trusted(true);
    seconds(3).await;
    away.hears(&device.up(true, false, &[], b"2")).await;
    assert_eq!((street.messages(), home.delivered()), (vec!["XmitDataReq"], Some(1)));
    // a clock that goes back: nobody knows how old the context is, so it is renewed
    away.clock.move_wall(jiff::SignedDuration::from_hours(-2));
    seconds(3).await;
    away.hears(&device.up(true, false, &[], b"3")).await;
    assert_eq!((street.messages(), home.delivered()), (vec!["PRStartReq"], Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_stateful_downlink_names_the_device_and_a_stateless_one_does_not() {
    let dl = |rules| async move {
        let (street, _home, mut away, mut device) = houses(rules, ROAMING, true).await;
        join(&mut away, &mut device).await;
        let (tell, told) = std::sync::mpsc::channel::<DlMeta>();
        street.otherwise(move |answer| match answer {
            Answer::PrStart(PrStartAns { dl: Some(dl), .. }) => tell.send(dl.clone()).unwrap(),
            Answer::Xmit(ans) => ans.riding.iter().for_each(|(_, dl)| tell.send(dl.clone()).unwrap()),
            _ => (),
        });
        away.hears(&device.up(true, false, &[], b"1")).await;
        told.try_recv().unwrap().dev_eui
    };
    assert_eq!((dl(HOUR).await, dl(ROAMING).await), (Some(DEV), None));
}

/// What visitors were carried is on record, once each.
#[tokio::test(start_paused = true)]
async fn usage_is_counted_once_for_each_counter_and_activations_begin_and_end() {
    use crate::usage::Kind::Passive;
    use crate::usage::Way::{Down, Up};
    let (_street, home, mut away, mut device) = houses(HOUR, ROAMING, true).await;
    join(&mut away, &mut device).await;
    let roams = |away: &Hotspot| away.memory.roams.lock().unwrap().clone();
    assert_eq!(roams(&away), [(HOME, DEV, true)]);
    home.queue(b"open", false);
    let frame = device.up(true, false, &[], b"21.5");
    away.hears(&frame).await;
    assert!(away.transmitted().is_some());
    seconds(3).await;
    // the device has not heard the answer
    away.hears(&frame).await;
    seconds(3).await;
    // a port and nothing behind it
    away.hears(&device.up(false, true, &[], b"")).await;
    seconds(3).await;
    let carried = away.memory.carried.lock().unwrap().clone();
    let ups: Vec<_> = carried.iter().filter(|(.., way, _)| *way == Up).copied().collect();
    assert_eq!(ups, [(HOME, Passive, Up, 4), (HOME, Passive, Up, 0)]);
    assert_eq!(carried.iter().find(|(.., way, _)| *way == Down), Some(&(HOME, Passive, Down, 4)));
    assert!(home.memory.carried.lock().unwrap().is_empty(), "a home keeps no record of its own devices");
    seconds(4000).await;
    away.house.fns.tend_contexts().await.unwrap();
    assert_eq!(roams(&away), [(HOME, DEV, true), (HOME, DEV, false)]);
    // back with a frame: its context is new
    away.hears(&device.up(false, false, &[], b"1")).await;
    assert_eq!(roams(&away).len(), 3);
    assert_eq!(roams(&away)[2], (HOME, DEV, true));
}

#[tokio::test(start_paused = true)]
async fn who_is_kept_out_costs_no_question_and_who_has_used_its_air_waits_for_the_next_day() {
    for (filter, words) in [
        ("join_euis = [\"70B3D57ED0000000/40\"]", "join_euis"),
        ("refuse_dev_euis = [\"5817B1C3EB890BC4\"]", "refuse_dev_euis"),
    ] {
        let rules = format!("{ROAMING}\n[filter]\n{filter}");
        let (street, _home, mut away, mut device) = houses(ROAMING, &rules, true).await;
        away.hears(&device.join_request()).await;
        assert!(away.transmitted().is_none() && street.messages().is_empty(), "{words}");
        assert_eq!(away.house.fns.counters().filtered.get(), 1);
    }
    let rules = format!("{ROAMING}\n[filter]\ndev_addrs = [\"E0000000/4\"]");
    let (street, mut home, away, mut device) = houses(ROAMING, &rules, true).await;
    join(&mut home, &mut device).await;
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(street.messages().is_empty());
    // a second of air: the Join-accept and some twenty answers of 40 ms
    let rules = format!("{ROAMING}\nairtime = \"1s\"");
    let (street, _home, mut away, mut device) = houses(ROAMING, &rules, true).await;
    join(&mut away, &mut device).await;
    let mut answers = 0;
    for _ in 0..40 {
        away.hears(&device.up(true, false, &[], b"1")).await;
        answers += usize::from(away.transmitted().is_some());
        seconds(30).await;
    }
    assert!((15..30).contains(&answers), "{answers}");
    // and it stays used over a restart
    let mut away = hotspot_on(&street, AWAY, &rules, true, away.memory.clone()).await;
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(away.transmitted().is_none());
    away.clock.move_wall(jiff::SignedDuration::from_hours(24));
    away.hears(&device.up(true, false, &[], b"1")).await;
    assert!(away.transmitted().is_some(), "a day later");
}
