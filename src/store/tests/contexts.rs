//! Roaming contexts at rest: of visitors, and of our own devices elsewhere.

use super::*;
use crate::backend::message::MicKey;
use crate::fns::contexts::{Context, ContextId, Contexts};
use crate::lorawan::JoinEui;
use crate::sns::{Visit, Visits};

fn context(net_id: &str, mic_key: Option<MicKey>) -> Context {
    let id = ContextId { net_id: net_id.parse().unwrap(), dev_eui: EUI, dev_addr: ADDR };
    Context {
        id,
        until: 1_795_172_400,
        lifetime: 3600,
        mic_key,
        fcnt_up: 7,
        terms: Terms::ours(Some(LIMIT), None),
    }
}

#[tokio::test]
async fn contexts_come_back_with_their_keys_after_a_restart_and_go_one_by_one() {
    let (folder, store) = fresh();
    let all = [
        context("000001", None),
        context("000002", Some(MicKey::NwkSKey(Key::new(KEY)))),
        context("000003", Some(MicKey::FNwkSIntKey(Key::new(KEY)))),
    ];
    for context in all.clone() {
        assert!(store.keep(context.clone()).await.unwrap(), "a new one");
        assert!(!store.keep(context).await.unwrap(), "the same");
    }
    assert_eq!(store.with_addr(ADDR).await.unwrap(), all);
    store.close().await.unwrap();
    let at_rest = std::fs::read(config(&folder).url.path()).unwrap();
    assert!(!at_rest.windows(KEY.len()).any(|bytes| bytes == KEY), "a key lies open in the file");
    let store = open(&folder);
    assert_eq!(store.with_addr(ADDR).await.unwrap(), all);
    // page by page, by device, by end
    let ids = all.each_ref().map(|context| context.id);
    assert_eq!(store.page(None, 2).await.unwrap(), ids[..2]);
    assert_eq!(store.page(Some(ids[1]), 2).await.unwrap(), ids[2..]);
    assert_eq!(store.page(Some(ids[2]), 2).await.unwrap(), []);
    assert_eq!(store.of_device(ids[1].net_id, EUI).await.unwrap(), all[1..2]);
    store.keep(Context { until: 1_795_180_000, ..all[1].clone() }).await.unwrap();
    let over = |now, most| store.over(now, most);
    assert_eq!(over(1_795_172_399, 9).await.unwrap(), []);
    assert_eq!(over(1_795_172_400, 9).await.unwrap(), [ids[0], ids[2]]);
    assert_eq!(over(u64::MAX >> 1, 1).await.unwrap().len(), 1);
    // the device has another address at the same network
    let second = ContextId { dev_addr: DevAddr::new(9), ..ids[0] };
    store.keep(Context { id: second, ..all[0].clone() }).await.unwrap();
    assert_eq!(store.forget(vec![ids[0], ids[0]]).await.unwrap(), [(ids[0], true)]);
    assert_eq!(store.forget(vec![ids[0], second]).await.unwrap(), [(second, false)]);
    let left = store.with_addr(ADDR).await.unwrap();
    assert_eq!((left.len(), left[0].until, &left[1]), (2, 1_795_180_000, &all[2]));
}

#[tokio::test]
async fn a_key_that_was_moved_to_another_context_does_not_open() {
    let (_folder, store) = fresh();
    store.keep(context("000001", Some(MicKey::NwkSKey(Key::new(KEY))))).await.unwrap();
    let moved = "UPDATE contexts SET net_id = '000002'";
    store.queue.run(true, move |db| Ok((db.run(moved, [])?, Done::new(Commit::Durable)))).await.unwrap();
    assert!(store.with_addr(ADDR).await.is_err());
}

#[tokio::test]
async fn a_visit_outlives_its_session_until_it_is_ended() {
    let (folder, store) = fresh();
    let visit = |session, net_id: &str| Visit {
        session,
        net_id: net_id.parse().unwrap(),
        dev_eui: EUI,
        dev_addr: ADDR,
        until: 1_795_172_400,
    };
    let device = Addition::Joins { device: new_device(), enabled: true, class: ClassMode::A };
    assert_eq!(store.add_devices(vec![device], false).await.unwrap(), []);
    put(&store, session(u64::MAX)).await;
    put(&store, session(5)).await;
    let all = [visit(5, "000001"), visit(u64::MAX, "000001"), visit(u64::MAX, "000002")];
    for visit in all {
        store.grant(visit).await.unwrap();
        store.grant(visit).await.unwrap();
    }
    let found = async |store: &Store| {
        (store.visits_of(EUI).await.unwrap().len(), store.ended_visits().await.unwrap().len())
    };
    assert_eq!(found(&store).await, (3, 0));
    let (one, two) = (all[0].net_id, all[2].net_id);
    assert_eq!(store.hosts().await.unwrap(), [one, two]);
    assert_eq!(store.visits_at(one, ADDR).await.unwrap().len(), 2);
    assert_eq!(store.visits_at(two, DevAddr::new(9)).await.unwrap(), []);
    assert_eq!(store.visits_to(two, 9).await.unwrap(), all[2..]);
    assert_eq!(store.visits_to(one, 1).await.unwrap().len(), 1);
    assert_eq!(store.visits_until(1_795_172_399, 9).await.unwrap(), []);
    assert_eq!(store.visits_until(1_795_172_400, 9).await.unwrap().len(), 3);
    // one session ends, then the device may not roam, then it is gone
    let decide = |sessions: &mut Vec<Session>| {
        sessions.retain(|session| session.id != 5);
        write(Commit::Durable)
    };
    store.with_dev_addr(ADDR, Box::new(decide)).await.unwrap();
    assert_eq!(store.ended_visits().await.unwrap(), [visit(5, "000001")]);
    store.end_visits(vec![(5, visit(5, "000001").net_id)]).await.unwrap();
    assert_eq!(found(&store).await, (2, 0));
    let change = Change { roaming: Some(false), ..Change::default() };
    assert!(store.change_device(EUI, change).await.unwrap());
    assert_eq!(found(&store).await, (2, 2));
    let change = Change { roaming: Some(true), ..Change::default() };
    store.change_device(EUI, change).await.unwrap();
    assert_eq!(found(&store).await, (2, 0));
    assert!(store.remove_device(EUI).await.unwrap());
    store.close().await.unwrap();
    assert_eq!(found(&open(&folder)).await, (2, 2));
}

#[tokio::test]
async fn sessions_follow_what_the_configuration_says_of_their_device_and_its_own_switch() {
    let (_folder, store) = fresh();
    let device = Addition::Joins { device: new_device(), enabled: true, class: ClassMode::A };
    assert_eq!(store.add_devices(vec![device], false).await.unwrap(), []);
    put(&store, Session { home: None, roaming: true, ..session(1) }).await;
    let roams = async |store: &Store| store.sessions_of(EUI).await.unwrap()[0].roaming;
    assert!(roams(&store).await);
    let join_eui: JoinEui = "0000000000000001".parse().unwrap();
    for (may, expected) in [(false, false), (true, true)] {
        store.align_roaming(move |dev_eui, of| (dev_eui, of) != (EUI, join_eui) || may).await.unwrap();
        assert_eq!(roams(&store).await, expected);
    }
    let off = Change { roaming: Some(false), ..Change::default() };
    store.change_device(EUI, off).await.unwrap();
    store.align_roaming(|_, _| true).await.unwrap();
    assert!(!roams(&store).await);
}

#[tokio::test]
async fn hold_offs_and_used_air_outlive_a_restart_and_end_in_time() {
    use crate::fns::hold_off::{HoldOff, Limits, Whom};
    let (folder, store) = fresh();
    let unix = Clock::system().unix();
    let of = |whom, until| HoldOff { net_id: NetId::from_msb([0, 0, 1]), whom, until };
    let (by_addr, by_device) = (Whom::Addr(ADDR), Whom::Device(EUI));
    for hold_off in [of(by_addr, unix + 600), of(by_device, unix + 900), of(by_device, unix + 800)] {
        store.hold_off(hold_off).await.unwrap();
    }
    let two = NetId::from_msb([0, 0, 2]);
    store.use_airtime(20_000, two, Duration::from_millis(1500)).await.unwrap();
    store.use_airtime(20_001, two, Duration::from_millis(41)).await.unwrap();
    store.close().await.unwrap();
    let store = open(&folder);
    let all = store.hold_offs().await.unwrap();
    assert_eq!(all, [of(by_addr, unix + 600), of(by_device, unix + 800)]);
    assert_eq!(store.airtime(20_000).await.unwrap(), [], "a day that is over");
    assert_eq!(store.airtime(20_001).await.unwrap(), [(two, Duration::from_millis(41))]);
    // lifted
    store.hold_off(of(by_addr, 0)).await.unwrap();
    assert_eq!(store.hold_offs().await.unwrap(), [of(by_device, unix + 800)]);
}
