//! Each room's records come back as its decisions left them.

use super::*;
use crate::fns::parked::{Parked, Parking, Place};
use crate::lorawan::region::SubBands;
use crate::sns::plan::{Plan, Told};
use crate::usage::{Carried, TrafficRecord};

#[tokio::test]
async fn sessions_are_inserted_changed_and_deleted_as_the_decision_left_them() {
    let (folder, store) = fresh();
    put(&store, session(1)).await;
    put(&store, session(u64::MAX)).await;
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1), session(u64::MAX)]);
    let change = |sessions: &mut Vec<Session>| {
        sessions.remove(0);
        sessions[0].fcnt_down = 7;
        write(Commit::Durable)
    };
    store.with_dev_addr(ADDR, Box::new(change)).await.unwrap();
    let rewrite = |sessions: &mut Vec<Session>| {
        sessions[0].pending = false;
        sessions[0].keys = NwkKeys::V10 { nwk_s_key: Key::new([9; 16]) };
        sessions[0].roaming = false;
        sessions[0].plan = plan(Told::Left(0));
        sessions[0].expires = None;
        write(Commit::Lazy)
    };
    Sessions::with_device(&store, EUI, Box::new(rewrite)).await.unwrap();
    store.close().await.unwrap();
    let left = Session {
        fcnt_down: 7,
        pending: false,
        keys: NwkKeys::V10 { nwk_s_key: Key::new([9; 16]) },
        roaming: false,
        plan: plan(Told::Left(0)),
        expires: None,
        ..session(u64::MAX)
    };
    let store = open(&folder);
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [left]);
    for told in [Told::Left(6), Told::GivenUp, Told::Agreed] {
        let tell = move |sessions: &mut Vec<Session>| {
            sessions[0].plan = plan(told);
            write(Commit::Durable)
        };
        Sessions::with_device(&store, EUI, Box::new(tell)).await.unwrap();
        assert_eq!(store.sessions_of(EUI).await.unwrap()[0].plan, plan(told));
    }
}

#[tokio::test]
async fn an_activation_ends_what_it_replaces_and_none_that_came_after_it() {
    let (_folder, store) = fresh();
    let elsewhere = |id: u64| Session { dev_addr: DevAddr::new(0x0200_0000 + id as u32), ..session(id) };
    put(&store, Session { pending: false, ..elsewhere(1) }).await;
    for id in [2, 3, 4] {
        put(&store, elsewhere(id)).await;
    }
    // another device's is nobody's business
    let other = Session { dev_eui: "0000000000000077".parse().unwrap(), ..elsewhere(5) };
    put(&store, other.clone()).await;
    let heard = |sessions: &mut Vec<Session>| {
        sessions[0].pending = false;
        sns::Write { succeeds: Some(sessions[0].clone()), ..write(Commit::Durable) }
    };
    store.with_dev_addr(elsewhere(3).dev_addr, Box::new(heard)).await.unwrap();
    let running = Session { pending: false, ..elsewhere(3) };
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [running, elsewhere(4)]);
    store.with_dev_addr(elsewhere(4).dev_addr, Box::new(heard)).await.unwrap();
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [Session { pending: false, ..elsewhere(4) }]);
    assert_eq!(store.sessions_of(other.dev_eui).await.unwrap(), [other]);
}

fn plan(told: Told) -> Plan {
    Plan { region: Some("US915".parse().unwrap()), sub_bands: SubBands::of(&[2, 8]), told }
}

#[tokio::test]
async fn a_decision_that_commits_nothing_writes_nothing() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    let commits = store.stats().commits;
    uplink(&store, 1, Commit::Nothing, true).await;
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1)]);
    assert_eq!((store.waiting().await.unwrap().len(), store.stats().commits), (0, commits));
}

#[tokio::test]
async fn the_outcome_of_a_decision_is_there_when_it_is_committed() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    let (decide, slot) = decided(|sessions: &mut Vec<Session>| {
        let taken = sessions[0].fcnt_down;
        sessions[0].fcnt_down += 1;
        (taken, write(Commit::Durable))
    });
    let decide = std::sync::Arc::new(decide);
    for taken in 0..3 {
        let decide = decide.clone();
        store.with_dev_addr(ADDR, Box::new(move |sessions| decide(sessions))).await.unwrap();
        assert_eq!(outcome(&slot).unwrap(), taken);
    }
}

#[tokio::test]
async fn a_message_for_the_next_room_waits_across_a_restart_until_it_is_answered() {
    let (folder, store) = fresh();
    put(&store, session(u64::MAX)).await;
    for fcnt_up in [9, 3, 5] {
        uplink(&store, fcnt_up, Commit::Lazy, true).await;
    }
    store.close().await.unwrap();
    let store = open(&folder);
    uplink(&store, 4, Commit::Durable, true).await;
    store.forwarded(forward_key(3)).await.unwrap();
    let waiting = store.waiting().await.unwrap();
    assert_eq!(waiting, [9, 5, 4].map(|fcnt_up| (forward_key(fcnt_up), up(fcnt_up))), "oldest first");
    assert!(store.remove_device(EUI).await.unwrap(), "sessions alone");
    assert_eq!(store.waiting().await.unwrap(), []);
}

#[tokio::test]
async fn a_home_device_comes_back_with_its_activations_and_its_queue() {
    let (folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    fn envelope(n: u8) -> KeyEnvelope {
        KeyEnvelope { label: Some("kek".into()), key: vec![n; 24] }
    }
    let activation = |n: u32| Activation {
        dev_addr: DevAddr::new(n),
        session_key_id: Some(vec![n as u8]),
        app_s_key: (n > 1).then(|| envelope(n as u8)),
        fcnt_up: None,
        sns: None,
        fcnt_down: None,
        created: n.into(),
    };
    let item = |n: u8| QueueItem {
        id: format!("item {n}"),
        f_port: n,
        payload: vec![n; 3],
        confirmed: n > 1,
        sent_as: None,
        attempts: 0,
        expires: None,
    };
    let (home, visited) = (store.clone(), Some("C00ABC".parse().unwrap()));
    let change = |decide: fn(&mut hns::Device)| {
        let decide = move |device: &mut Option<hns::Device>| {
            device.as_mut().map(decide);
            Commit::Durable
        };
        Devices::with_device(&home, EUI, Box::new(decide))
    };
    let fill = move |device: &mut Option<hns::Device>| {
        let device = device.as_mut().unwrap();
        device.activations = (1..=2).map(activation).collect();
        device.queue = (1..=3).map(item).collect();
        device.last_seen = Some(1_700_000_000);
        device.last_via = visited;
        Commit::Durable
    };
    Devices::with_device(&store, EUI, Box::new(fill)).await.unwrap();
    change(|device| {
        device.queue.remove(0);
        device.queue[0].sent_as = Some(12);
        device.queue[0].attempts = 1;
        device.activations[1].fcnt_up = Some(4);
    })
    .await
    .unwrap();
    let summary = store.devices().await.unwrap().remove(0);
    assert_eq!((summary.dev_addr, summary.queued, summary.last_via), (Some(DevAddr::new(2)), 2, visited));
    store.close().await.unwrap();

    let store = open(&folder);
    let device = store.device(EUI).await.unwrap().unwrap();
    let newer = Activation { fcnt_up: Some(4), ..activation(2) };
    assert_eq!(device.activations, [activation(1), newer.clone()]);
    assert_eq!(device.queue, [QueueItem { sent_as: Some(12), attempts: 1, ..item(2) }, item(3)]);
    assert_eq!(
        (device.last_seen, device.last_via, device.name.as_str()),
        (Some(1_700_000_000), visited, "attic")
    );
    // a third activation pushes the oldest out
    let join = move |device: &mut Option<hns::Device>| {
        let activations = &mut device.as_mut().unwrap().activations;
        activations.remove(0);
        activations.push(activation(3));
        Commit::Durable
    };
    Devices::with_device(&store, EUI, Box::new(join)).await.unwrap();
    assert_eq!(store.device(EUI).await.unwrap().unwrap().activations, [newer, activation(3)]);
}

#[tokio::test]
async fn a_dev_nonce_is_taken_once_and_a_join_nonce_never_repeats() {
    let (folder, store) = fresh();
    assert_eq!(take_nonces(&store, 1).await, None, "nobody there");
    store.add_device(new_device()).await.unwrap();
    assert_eq!(take_nonces(&store, 1).await, Some(1));
    store.close().await.unwrap();
    let store = open(&folder);
    assert_eq!(take_nonces(&store, 1).await, None);
    assert_eq!(take_nonces(&store, 65_535).await, Some(2));
    assert!(store.clear_dev_nonces(EUI).await.unwrap());
    assert_eq!(take_nonces(&store, 1).await, Some(3));
    // removed and added again, with the same root key
    assert!(store.remove_device(EUI).await.unwrap());
    assert!(!store.remove_device(EUI).await.unwrap());
    store.add_device(new_device()).await.unwrap();
    assert_eq!(take_nonces(&store, 1).await, Some(4));
}

#[tokio::test]
async fn root_keys_are_changed_and_removed_by_decisions_too() {
    let (_folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    let change = |device: &mut Option<js::Device>| {
        let device = device.as_mut().unwrap();
        device.app_key = Key::new([1; 16]);
        device.nwk_key = Some(Key::new([2; 16]));
        device.mac_version = MacVersion::V1_1;
        device.dev_nonces = [5].into();
        Commit::Durable
    };
    RootKeys::with_device(&store, EUI, Box::new(change)).await.unwrap();
    let (decide, slot) = decided(|device: &mut Option<js::Device>| (device.take(), Commit::Durable));
    RootKeys::with_device(&store, EUI, Box::new(decide)).await.unwrap();
    let device = outcome(&slot).unwrap().unwrap();
    assert_eq!((device.app_key, device.nwk_key), (Key::new([1; 16]), Some(Key::new([2; 16]))));
    assert_eq!((device.mac_version, device.dev_nonces), (MacVersion::V1_1, [5].into()));
    assert_eq!(take_nonces(&store, 1).await, None, "gone");
}

#[tokio::test]
async fn a_device_is_added_once_and_removed_with_its_sessions() {
    let (_folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    let again = store.add_device(new_device()).await.unwrap_err();
    assert_eq!(again.to_string(), "there is already a device 726F616D67617465");
    put(&store, session(u64::MAX)).await;
    uplink(&store, 1, Commit::Durable, true).await;
    assert!(store.remove_device(EUI).await.unwrap());
    assert_eq!(store.devices().await.unwrap(), []);
    assert_eq!(store.sessions_of(EUI).await.unwrap(), []);
    assert_eq!(store.waiting().await.unwrap(), []);
    assert_eq!(store.device(EUI).await.unwrap(), None);
}

#[tokio::test]
async fn a_device_of_another_network_is_with_the_join_server_only() {
    let (folder, store) = fresh();
    let theirs = "000013".parse().unwrap();
    store.add_device(NewDevice { home: Some(theirs), ..new_device() }).await.unwrap();
    let (decide, slot) = decided(|device: &mut Option<hns::Device>| (device.is_none(), Commit::Nothing));
    Devices::with_device(&store, EUI, Box::new(decide)).await.unwrap();
    assert!(outcome(&slot).unwrap(), "the home network does not see it");
    let made = js::Derivation { join_nonce: 1, nonce: 2, net_id: theirs, v1_1: false, rj_count0: Some(3) };
    let (decide, _slot) = decided(move |device: &mut Option<js::Device>| {
        let device = device.as_mut().expect("the join server does");
        device.derivations = vec![made];
        ((), Commit::Durable)
    });
    RootKeys::with_device(&store, EUI, Box::new(decide)).await.unwrap();
    store.close().await.unwrap();
    let store = open(&folder);
    assert_eq!(
        root_keys_of(&store).await.map(|keys| (keys.home, keys.derivations)),
        Some((Some(theirs), vec![made]))
    );
    assert_eq!(store.devices().await.unwrap()[0].home, Some(theirs));
    assert_eq!(store.device(EUI).await.unwrap().unwrap().home, Some(theirs));
    assert!(store.remove_device(EUI).await.unwrap());
    assert_eq!(root_keys_of(&store).await, None);
}

fn joins(device: NewDevice, enabled: bool) -> Addition {
    Addition::Joins { device, enabled, class: ClassMode::A }
}

fn given(dev_eui: DevEui, key: u8, fcnt_down: u32) -> Addition {
    let envelope = KeyEnvelope { label: Some("kek".into()), key: vec![1; 24] };
    let activation = Activation {
        dev_addr: ADDR,
        session_key_id: None,
        app_s_key: Some(envelope),
        fcnt_up: Some(9),
        sns: None,
        fcnt_down: None,
        created: 0,
    };
    let keys = NwkKeys::V10 { nwk_s_key: Key::new([key; 16]) };
    Addition::Personalised {
        device: Box::new(hns::Device {
            dev_eui,
            join_eui: "0000000000000000".parse().unwrap(),
            name: "lamp".into(),
            mac_version: MacVersion::V1_0_3,
            enabled: true,
            roaming: false,
            personalised: true,
            class: ClassMode::C,
            activations: vec![activation],
            queue: vec![],
            last_seen: None,
            last_via: None,
            profile_since: 0,
            home: None,
        }),
        session: Box::new(Session {
            dev_eui,
            keys,
            personalised: true,
            class: ClassMode::C,
            pending: false,
            fcnt_up: Some(9),
            fcnt_down,
            expires: None,
            ..session(0)
        }),
    }
}

#[tokio::test]
async fn a_personalised_device_comes_with_its_session_and_no_downlink_counter_is_used_twice() {
    let (folder, store) = fresh();
    let other = DevEui::from_msb([5; 8]);
    let twins = vec![given(EUI, 1, 3), given(other, 1, 0)];
    assert_eq!(store.add_devices(twins, false).await.unwrap(), [(1, Taken::Session(EUI))]);
    assert_eq!(store.devices().await.unwrap(), []);
    assert_eq!(store.add_devices(vec![given(EUI, 1, 3), given(other, 2, 0)], false).await.unwrap(), []);
    let third = DevEui::from_msb([6; 8]);
    assert_eq!(store.add_devices(vec![given(third, 1, 0)], false).await.unwrap(), [(0, Taken::Session(EUI))]);
    store.close().await.unwrap();

    let store = open(&folder);
    let session = || async { store.sessions_of(EUI).await.unwrap().pop().unwrap() };
    let device = store.device(EUI).await.unwrap().unwrap();
    assert!(device.personalised && device.class == ClassMode::C && device.activations[0].created > 0);
    assert!(session().await.personalised && session().await.fcnt_down == 3);
    assert_eq!(store.personalised().await.unwrap().len(), 2);

    // switched off, its session is void and not lost
    for (enabled, expires) in [(false, Some(0)), (true, None)] {
        let change = Change { enabled: Some(enabled), ..Change::default() };
        assert!(store.change_device(EUI, change).await.unwrap());
        assert_eq!(session().await.expires, expires);
    }
    // the counter of its uplinks begins anew in both rooms, and no other
    assert!(store.reset_counter(EUI).await.unwrap());
    assert_eq!((session().await.fcnt_up, session().await.fcnt_down), (None, 3));
    assert_eq!(store.device(EUI).await.unwrap().unwrap().activations[0].fcnt_up, None);
    assert!(!store.reset_counter(third).await.unwrap());

    // away and back: it does not begin at 0
    assert!(store.remove_device(EUI).await.unwrap());
    assert_eq!(store.add_devices(vec![given(EUI, 1, 0)], false).await.unwrap(), []);
    assert_eq!(session().await.fcnt_down, 3);
}

#[tokio::test]
async fn the_declared_class_reaches_a_session_of_1_0_and_none_of_1_1() {
    let (_folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    let key = |n| Key::new([n; 16]);
    let keys = NwkKeys::V11 { s_nwk_s_int_key: key(1), f_nwk_s_int_key: key(2), nwk_s_enc_key: key(3) };
    put(&store, session(1)).await;
    put(&store, Session { keys, ..session(2) }).await;
    for (class, classes) in
        [(ClassMode::C, [ClassMode::C, ClassMode::A]), (ClassMode::A, [ClassMode::A, ClassMode::A])]
    {
        assert!(store.change_device(EUI, Change { class: Some(class), ..Change::default() }).await.unwrap());
        let sessions = store.sessions_of(EUI).await.unwrap();
        assert_eq!(sessions.iter().map(|session| session.class).collect::<Vec<_>>(), classes);
    }
}

#[tokio::test]
async fn a_list_of_devices_is_added_whole_or_not_at_all() {
    let (folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    let numbered = |number: u64| {
        let dev_eui = DevEui::from_msb(number.to_be_bytes());
        NewDevice { dev_eui, ..new_device() }
    };
    let list: Vec<_> = (0..2000).map(|number| joins(numbered(number), number % 2 == 0)).collect();
    let with = |more: NewDevice| {
        let mut list = list.clone();
        list.push(joins(more, true));
        list
    };
    let commits = store.stats().commits;
    let taken = [(2000, Taken::DevEui)];
    assert_eq!(store.add_devices(with(new_device()), false).await.unwrap(), taken, "it is here already");
    assert_eq!(store.add_devices(with(numbered(7)), false).await.unwrap(), taken, "it is in the list before");
    assert_eq!(store.add_devices(list.clone(), true).await.unwrap(), []);
    assert_eq!((store.devices().await.unwrap().len(), store.stats().commits), (1, commits));
    assert_eq!(store.add_devices(list, false).await.unwrap(), []);
    assert_eq!(store.stats().commits, commits + 1, "one commit for all of them");
    store.close().await.unwrap();
    let store = open(&folder);
    let all = store.devices_with_keys().await.unwrap();
    assert_eq!(all.len(), 2001);
    let (odd, key, nwk_key) = &all[7];
    assert_eq!((odd.dev_eui, odd.enabled, odd.roaming), (numbered(7).dev_eui, false, true));
    assert_eq!((key.as_ref(), nwk_key), (Some(&Key::new(KEY)), &None));
}

#[tokio::test]
async fn what_an_operator_changes_reaches_keys_and_running_sessions() {
    let (_folder, store) = fresh();
    assert!(!store.change_device(EUI, Change::default()).await.unwrap());
    store.add_device(new_device()).await.unwrap();
    put(&store, session(1)).await;
    let may_join = async || {
        let (decide, slot) = decided(|device: &mut Option<js::Device>| {
            (device.as_ref().is_some_and(|device| device.enabled), Commit::Nothing)
        });
        RootKeys::with_device(&store, EUI, Box::new(decide)).await.unwrap();
        outcome(&slot).unwrap()
    };
    let change = Change { roaming: Some(false), name: Some("cellar".into()), ..Change::default() };
    assert!(store.change_device(EUI, change).await.unwrap());
    let device = store.device(EUI).await.unwrap().unwrap();
    assert_eq!((&*device.name, device.roaming, device.enabled), ("cellar", false, true));
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [Session { roaming: false, ..session(1) }]);
    assert!(may_join().await);

    let off = Change { enabled: Some(false), ..Change::default() };
    assert!(store.change_device(EUI, off).await.unwrap());
    assert!(!may_join().await && store.sessions_of(EUI).await.unwrap().is_empty());
    assert_eq!(store.device(EUI).await.unwrap().unwrap().name, "cellar");
    let on = Change { enabled: Some(true), ..Change::default() };
    assert!(store.change_device(EUI, on).await.unwrap());
    assert!(may_join().await && store.device(EUI).await.unwrap().unwrap().enabled);
}

#[tokio::test]
async fn learnt_networks_are_known_at_once_and_after_a_restart_and_are_bounded() {
    let (folder, store) = fresh();
    let net_id = |n| NetId::new(n).unwrap();
    store.learn(net_id(0x13)).await.unwrap();
    store.learn(net_id(0x13)).await.unwrap();
    assert_eq!(store.net_ids(), [net_id(0x13)]);
    let clones = (0..learned::MOST).map(|n| {
        let store = store.clone();
        async move { store.learn(net_id(0x60_0000 + n)).await.unwrap() }
    });
    futures_util::future::join_all(clones).await;
    let mut known = store.net_ids();
    store.close().await.unwrap();
    known.sort();
    assert_eq!(known.len(), learned::MOST as usize);
    assert_eq!(open(&folder).net_ids(), known);
}

fn option<T: std::fmt::Debug + Clone + 'static>(
    some: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop::option::of(some)
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_was_kept(
        frm_payload: Vec<u8>,
        ids in (option(any::<[u8; 8]>()), option(any::<u32>()), option(any::<u8>())),
        counters in (option(any::<u32>()), option(any::<u32>()), any::<bool>(), any::<bool>()),
        radio in (option(any::<u8>()), option(any::<u32>()), option("[A-Z0-9\"-]{1,6}"), option(any::<u32>())),
        token in option(prop::collection::vec(any::<u8>(), 0..40)),
        time in 0i64..4_000_000_000_000_000,
        gateways in prop::collection::vec((any::<Option<i32>>(), option(-2000i32..2000), any::<Option<bool>>()), 0..3),
    ) {
        let ul = UlMeta {
            dev_eui: ids.0.map(DevEui::from_msb),
            dev_addr: ids.1.map(DevAddr::new),
            f_port: ids.2,
            fcnt_down: counters.0,
            fcnt_up: counters.1,
            confirmed: counters.2,
            adr: counters.3,
            data_rate: radio.0,
            ul_freq: radio.1,
            fns_ul_token: token.clone(),
            recv_time: jiff::Timestamp::from_microsecond(time).unwrap(),
            rf_region: radio.2,
            gw_cnt: radio.3,
            gw_info: gateways.into_iter().map(|(rssi, tenths, dl_allowed)| GwInfo {
                id: token.clone(),
                rssi,
                snr: tenths.map(|tenths| f64::from(tenths) / 10.0),
                lat: tenths.map(|tenths| f64::from(tenths) / 16.0),
                dl_allowed,
                ..GwInfo::default()
            }).collect(),
        };
        let net_id: NetId = "C00ABC".parse().unwrap();
        let frame = Parked {
            number: 1,
            account: Account { profile: "p".repeat(usize::from(counters.3)), out_of_profile: counters.3, ..Account::of(net_id) },
            by_context: counters.3,
            phy_payload: frm_payload.clone(),
            ul: ul.clone(),
        };
        prop_assert_eq!(parked::from_text(1, net_id, &parked::to_text(&frame).unwrap()).unwrap(), frame);
        let message = XmitAppUp { frm_payload, ul, ack: counters.3, via: None, home: None };
        prop_assert_eq!(forward::from_text(&forward::to_text(&message).unwrap()).unwrap(), message);
    }

    #[test]
    fn a_foreign_text_is_an_error(text: String) {
        prop_assert!(forward::from_text(&text).is_err());
        prop_assert!(parked::from_text(1, NetId::from_msb([0; 3]), &text).is_err());
    }
}

/// A row as the first version wrote it.
#[test]
fn a_waiting_message_of_the_first_version_is_read() {
    let text = r#"{"v":"1","frm":"0102","ack":false,"dev_eui":"0004A30B00000001","dev_addr":"26011BDA","f_port":9,
        "fcnt_down":null,"fcnt_up":7,"confirmed":true,"data_rate":5,"ul_freq":868100000,"fns_ul_token":"aa",
        "recv_time":"2026-11-20T10:00:00Z","rf_region":"EU868","gw_cnt":1,"gw_info":[{"id":"01","rf_region":null,
        "rssi":-80,"snr":7.5,"lat":null,"lon":null,"ul_token":null,"dl_allowed":true}]}"#;
    let message = forward::from_text(text).unwrap();
    assert_eq!((message.frm_payload, message.ul.fcnt_up, message.ul.f_port), (vec![1, 2], Some(7), Some(9)));
    assert_eq!((message.ul.gw_info[0].rssi, message.ul.gw_info[0].snr), (Some(-80), Some(7.5)));
}

#[tokio::test]
async fn frames_that_wait_for_their_home_come_back_after_a_restart_in_order() {
    let (folder, store) = fresh();
    let frame = |number: u64, net_id: &str| Parked {
        number,
        account: Account::of(net_id.parse().unwrap()),
        by_context: number.is_multiple_of(2),
        phy_payload: vec![number as u8; 20],
        ul: UlMeta { dev_addr: Some(DevAddr::new(7)), ..UlMeta::at("2026-11-20T10:00:00Z".parse().unwrap()) },
    };
    for (number, net_id) in [(3, "C00ABC"), (1, "C0002F"), (2, "C00ABC")] {
        store.park(frame(number, net_id)).await.unwrap();
    }
    store.close().await.unwrap();
    let store = open(&folder);
    let places = store.places().await.unwrap();
    assert_eq!(places.iter().map(|place| place.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(places[1], Place::from(&frame(2, "C00ABC")));
    assert_eq!(store.parked(2).await.unwrap(), Some(frame(2, "C00ABC")));
    store.unpark(vec![2, 9]).await.unwrap();
    assert_eq!((store.parked(2).await.unwrap(), store.places().await.unwrap().len()), (None, 2));
    let newer = "UPDATE parked SET message = '{\"v\":\"9\"}' WHERE number = 1";
    store.queue.run(false, move |db| Ok((db.run(newer, [])?, Done::new(Commit::Lazy)))).await.unwrap();
    assert_eq!(store.parked(1).await.unwrap(), None, "unreadable, and no trouble");
}

#[tokio::test]
async fn an_unreadable_row_does_not_stop_the_others() {
    let (_folder, store) = fresh();
    put(&store, session(u64::MAX)).await;
    for fcnt in 1..=3 {
        uplink(&store, fcnt, Commit::Lazy, true).await;
    }
    let newer = "UPDATE forward SET message = '{\"v\":\"9\"}' WHERE fcnt_up = 2";
    store.queue.run(false, move |db| Ok((db.run(newer, [])?, Done::new(Commit::Lazy)))).await.unwrap();
    assert_eq!(store.waiting().await.unwrap().len(), 2);
}

#[tokio::test]
async fn too_many_waiting_messages_drop_the_oldest_and_count_them() {
    let (_folder, store) = fresh();
    let fill = |db: &writer::Db<'_>| {
        for fcnt_up in 0..20 {
            forward::insert(db, forward_key(fcnt_up), &up(fcnt_up))?;
        }
        forward::drop_oldest(db, 15)?;
        Ok(((), Done::new(Commit::Durable)))
    };
    store.queue.run(true, fill).await.unwrap();
    let waiting = store.waiting().await.unwrap();
    assert_eq!((waiting.len(), waiting[0].0.fcnt_up, store.stats().forward_dropped), (15, 5, 5));
}

#[tokio::test]
async fn usage_is_summed_by_month_and_network_and_comes_back_after_a_restart() {
    use crate::fns::usage::Usage;
    use crate::hns::Carriers;
    use crate::store::usage::month;
    use crate::usage::ActivationRecord;
    use crate::usage::{Kind, Way};
    let (folder, store) = fresh();
    let (a, b): (NetId, NetId) = ("C00ABC".parse().unwrap(), "C0002F".parse().unwrap());
    // the last second of November 2026, and the next
    let november = 1_796_083_199;
    assert_eq!((month(november), month(november + 1)), ("2026-11".into(), "2026-12".into()));
    for (net_id, way, bytes, at) in [
        (a, Way::Up, 20, november),
        (a, Way::Up, 5, november),
        (a, Way::Down, 7, november),
        (b, Way::Up, 1, november),
        (a, Way::Up, 9, november + 1),
    ] {
        store
            .carried(Carried { account: Account::of(net_id), kind: Kind::Passive, way, bytes, unix: at })
            .await
            .unwrap();
    }
    store
        .carried(Carried {
            account: Account::of(a),
            kind: Kind::Handover,
            way: Way::Up,
            bytes: 3,
            unix: november,
        })
        .await
        .unwrap();
    store
        .carried_for_us(Carried {
            account: Account::of(a),
            kind: Kind::Passive,
            way: Way::Down,
            bytes: 4,
            unix: november,
        })
        .await
        .unwrap();
    store.roams(b, EUI, Some("p".into()), november).await.unwrap();
    store.roams(b, EUI, None, november + 1).await.unwrap();
    store.close().await.unwrap();
    let store = open(&folder);
    let read = store.usage("2026-11".into()).await.unwrap();
    let of = |net_id, kind, numbers| TrafficRecord::new(net_id, kind, numbers);
    let (passive, handover) = (Kind::Passive, Kind::Handover);
    let expected =
        [of(b, passive, [1, 1, 0, 0]), of(a, passive, [2, 25, 1, 7]), of(a, handover, [1, 3, 0, 0])];
    assert_eq!(read.traffic, expected);
    assert_eq!(read.for_us, [of(a, passive, [0, 0, 1, 4])]);
    let times = |record: &ActivationRecord| {
        (record.dev_eui, record.activation_time.clone(), record.deactivation_time.clone())
    };
    let begun = (Some(EUI), Some("2026-11-30T23:59:59Z".to_string()), None);
    assert_eq!(read.activations.iter().map(times).collect::<Vec<_>>(), [begun]);
    let read = store.usage("2026-12".into()).await.unwrap();
    let ended = (Some(EUI), None, Some("2026-12-01T00:00:00Z".to_string()));
    assert_eq!(
        (&read.traffic[..], read.activations.iter().map(times).collect::<Vec<_>>()),
        (&[of(a, passive, [1, 9, 0, 0])][..], vec![ended])
    );
    // one is here from the first to the last instant of the year's first month, and another is not
    let other = DevEui::from_msb([9; 8]);
    for (dev_eui, active, at) in
        [(EUI, true, november + 1), (other, true, november + 1), (other, false, november + 3_000_000)]
    {
        store.roams(b, dev_eui, active.then(String::new), at).await.unwrap();
    }
    let read = store.usage("2027-01".into()).await.unwrap();
    let all_month: Vec<_> = read
        .activations
        .iter()
        .map(|record| (record.individual_record, record.total_active_devices))
        .collect();
    assert_eq!(all_month, [(true, None), (false, Some(1))]);
}

#[tokio::test]
async fn records_are_of_service_profiles_and_what_is_out_of_profile_is_part_of_the_totals() {
    use crate::fns::usage::Usage;
    use crate::usage::{Kind, Way};
    let (folder, store) = fresh();
    let (a, b): (NetId, NetId) = ("C00ABC".parse().unwrap(), "C0002F".parse().unwrap());
    let at = 1_795_000_000;
    let put = async |net_id, profile: &str, out_of_profile, way, bytes| {
        let account = Account { net_id, profile: profile.into(), out_of_profile };
        store.carried(Carried { account, kind: Kind::Passive, way, bytes, unix: at }).await.unwrap();
    };
    for (profile, out, way, bytes) in [
        ("gold", false, Way::Up, 10),
        ("gold", true, Way::Up, 3),
        ("gold", true, Way::Down, 4),
        ("tin", false, Way::Down, 5),
        ("", false, Way::Up, 1),
    ] {
        put(a, profile, out, way, bytes).await;
    }
    // a home that names a profile for each frame does not fill the disk
    for n in 0..40 {
        put(b, &format!("p{n}"), false, Way::Up, 1).await;
    }
    put(b, "p3", false, Way::Up, 1).await;
    for (profile, dev_eui) in [("gold", [1; 8]), ("tin", [2; 8])] {
        store.roams(a, DevEui::from_msb(dev_eui), Some(profile.into()), at).await.unwrap();
    }
    store.roams(a, DevEui::from_msb([1; 8]), None, at + 60).await.unwrap();
    store.close().await.unwrap();
    let store = open(&folder);
    let read = store.usage("2026-11".into()).await.unwrap();
    let shown = |record: &TrafficRecord| {
        let out = [
            record.total_out_profile_ul_packets,
            record.total_out_profile_ul_bytes,
            record.total_out_profile_dl_packets,
            record.total_out_profile_dl_bytes,
        ];
        (record.service_profile_id.clone(), record.numbers(), out)
    };
    let of_a: Vec<_> = read.traffic.iter().filter(|record| record.net_id == a).map(shown).collect();
    let expected = [
        ("".to_string(), [1, 1, 0, 0], [0; 4]),
        ("gold".to_string(), [2, 13, 1, 4], [1, 3, 1, 4]),
        ("tin".to_string(), [0, 0, 1, 5], [0; 4]),
    ];
    assert_eq!(of_a, expected);
    let of_b: Vec<_> = read.traffic.iter().filter(|record| record.net_id == b).map(shown).collect();
    assert_eq!(of_b.len(), 17);
    assert_eq!(of_b[0], (String::new(), [24, 24, 0, 0], [0; 4]), "{of_b:?}");
    assert!(of_b.contains(&("p3".into(), [2, 2, 0, 0], [0; 4])), "{of_b:?}");
    let profiles: Vec<_> = read.activations.iter().map(|record| &*record.service_profile_id).collect();
    assert_eq!(profiles, ["gold", "tin", "gold"], "an end is of the profile of its beginning");
    let december = store.usage("2026-12".into()).await.unwrap().activations;
    let all: Vec<_> =
        december.iter().map(|record| (&*record.service_profile_id, record.total_active_devices)).collect();
    assert_eq!(all, [("tin", Some(1))]);
}

#[tokio::test]
async fn a_statement_stays_as_it_was_given_and_none_is_left_out_of_the_chain() {
    use crate::fns::usage::Usage;
    use crate::usage::{Kind, Way};
    use crate::usage::{Statement, hash};
    let (_folder, store) = fresh();
    let (us, them): (NetId, NetId) = ("C00ABC".parse().unwrap(), "C0002F".parse().unwrap());
    // September, November; nothing in October
    for at in [1_788_300_000, 1_793_600_000] {
        store
            .carried(Carried {
                account: Account::of(them),
                kind: Kind::Passive,
                way: Way::Up,
                bytes: 5,
                unix: at,
            })
            .await
            .unwrap();
    }
    let november = store.statement(us, them, "2026-11".into()).await.unwrap();
    let september = store.statement(us, them, "2026-09".into()).await.unwrap();
    let read = Statement::read(&november).unwrap();
    assert_eq!((read.issuer, read.partner, read.traffic[0].numbers()), (us, them, [1, 5, 0, 0]));
    assert_eq!(read.previous, Some(hash(&september)));
    assert_eq!(Statement::read(&september).unwrap().previous, None);
    // what comes to light later is in no statement that was given
    store
        .carried(Carried {
            account: Account::of(them),
            kind: Kind::Passive,
            way: Way::Up,
            bytes: 5,
            unix: 1_793_600_000,
        })
        .await
        .unwrap();
    assert_eq!(store.statement(us, them, "2026-11".into()).await.unwrap(), november);
    // a month without anything has one too, where it is asked for
    let december = store.statement(us, them, "2026-12".into()).await.unwrap();
    let read = Statement::read(&december).unwrap();
    assert_eq!((read.traffic.len(), read.previous), (0, Some(hash(&november))));
}
