//! Tests of the store through its public side, on real files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::testing::Twice;
use super::*;
use crate::backend::door::{decided, outcome};
use crate::backend::message::{GwInfo, KeyEnvelope, MacVersion, UlMeta, XmitAppUp};
use crate::fns::Learned;
use crate::hns::{self, Activation, Devices, QueueItem};
use crate::js::{self, RootKeys};
use crate::lorawan::{DevAddr, DevEui, Key};
use crate::sns::{self, ForwardKey, Session, Sessions};

const EUI: DevEui = DevEui::from_msb(*b"roamgate");
const ADDR: DevAddr = DevAddr::new(0x2600_0001);
const KEY: [u8; 16] = *b"a key of 16 byte";

fn clock() -> Clock {
    Clock::following("2026-11-20T10:00:00Z".parse().unwrap())
}

fn config(folder: &TempDir) -> Config {
    Config { url: Url::sqlite(folder.path().join("data/roamgate.db")), ..Config::default() }
}

fn open_with(folder: &TempDir, durability: Durability) -> Store {
    Store::open(&Config { durability, ..config(folder) }, clock()).unwrap()
}

fn open(folder: &TempDir) -> Store {
    open_with(folder, Durability::Balanced)
}

fn fresh() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    (folder, store)
}

fn session(id: u64) -> Session {
    Session {
        id,
        dev_eui: EUI,
        dev_addr: ADDR,
        net_id: "000013".parse().unwrap(),
        nwk_s_key: Key::new(KEY),
        fcnt_up: None,
        fcnt_down: 0,
        pending: true,
        rx_delay: 1,
        rx1_dr_offset: 0,
        rx2_frequency: 869_525_000,
        rx2_data_rate: 0,
        created: 1_700_000_000 + (id & 0xFF),
        expires: Some(1_700_003_600),
    }
}

fn new_device() -> NewDevice {
    NewDevice {
        dev_eui: EUI,
        join_eui: "0000000000000001".parse().unwrap(),
        name: "attic".into(),
        mac_version: MacVersion::V1_0_3,
        app_key: Key::new(KEY),
        nwk_key: None,
        home: "000013".parse().unwrap(),
        roaming: true,
    }
}

fn up(fcnt_up: u32) -> XmitAppUp {
    let mut ul = UlMeta::at("2026-11-20T10:00:00.123456Z".parse().unwrap());
    ul.dev_eui = Some(EUI);
    ul.fcnt_up = Some(fcnt_up);
    XmitAppUp { frm_payload: vec![1, 2, 3], ul, ack: false }
}

fn forward_key(fcnt_up: u32) -> ForwardKey {
    ForwardKey { session: u64::MAX, fcnt_up }
}

fn write(commit: Commit) -> sns::Write {
    sns::Write { commit, forward: None }
}

async fn put(store: &impl Sessions, session: Session) {
    let decide = move |sessions: &mut Vec<Session>| {
        sessions.push(session.clone());
        write(Commit::Durable)
    };
    store.with_device(EUI, Box::new(decide)).await.unwrap();
}

/// Take an uplink, as the sNS does.
async fn uplink(store: &impl Sessions, fcnt_up: u32, commit: Commit, forward: bool) {
    let decide = move |sessions: &mut Vec<Session>| {
        for session in sessions {
            session.fcnt_up = Some(fcnt_up);
        }
        sns::Write { commit, forward: forward.then(|| (forward_key(fcnt_up), up(fcnt_up))) }
    };
    store.with_dev_addr(ADDR, Box::new(decide)).await.unwrap();
}

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
        sessions[0].nwk_s_key = Key::new([9; 16]);
        sessions[0].expires = None;
        write(Commit::Lazy)
    };
    Sessions::with_device(&store, EUI, Box::new(rewrite)).await.unwrap();
    store.close().await.unwrap();
    let left = Session {
        fcnt_down: 7,
        pending: false,
        nwk_s_key: Key::new([9; 16]),
        expires: None,
        ..session(u64::MAX)
    };
    assert_eq!(open(&folder).sessions_of(EUI).await.unwrap(), [left]);
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
        created: n.into(),
    };
    let item = |n: u8| QueueItem {
        id: format!("item {n}"),
        f_port: n,
        payload: vec![n; 3],
        confirmed: n > 1,
        sent_as: None,
        attempts: 0,
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

async fn take_nonces(store: &impl RootKeys, dev_nonce: u16) -> Option<u32> {
    let (decide, slot) = decided(move |device: &mut Option<js::Device>| {
        let Some(device) = device else { return (None, Commit::Nothing) };
        if !device.dev_nonces.insert(dev_nonce) {
            return (None, Commit::Nothing);
        }
        device.join_nonce += 1;
        (Some(device.join_nonce), Commit::Durable)
    });
    store.with_device(EUI, Box::new(decide)).await.unwrap();
    outcome(&slot).unwrap()
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

#[tokio::test]
async fn decisions_may_run_twice() {
    let (_folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    let twice = Twice(store.clone());
    put(&twice, session(u64::MAX)).await;
    uplink(&twice, 5, Commit::Durable, true).await;
    assert_eq!(take_nonces(&twice, 1).await, Some(1));
    let rename = |device: &mut Option<hns::Device>| {
        device.as_mut().unwrap().name.push('!');
        Commit::Lazy
    };
    Devices::with_device(&twice, EUI, Box::new(rename)).await.unwrap();
    assert_eq!(store.device(EUI).await.unwrap().unwrap().name, "attic!");
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [Session { fcnt_up: Some(5), ..session(u64::MAX) }]);
    assert_eq!(twice.waiting().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_that_turns_out_to_be_durable_is_taken_back_and_run_again() {
    let (_folder, store) = fresh();
    put(&store, session(u64::MAX)).await;
    uplink(&store, 1, Commit::Lazy, false).await;
    let before = store.stats();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let decide = move |sessions: &mut Vec<Session>| {
        counted.fetch_add(1, Ordering::Relaxed);
        sessions[0].fcnt_up = sessions[0].fcnt_up.map(|fcnt| fcnt + 1);
        write(Commit::Durable)
    };
    store.with_dev_addr(ADDR, Box::new(decide)).await.unwrap();
    let after = store.stats();
    assert_eq!((runs.load(Ordering::Relaxed), after.reruns - before.reruns), (2, 1));
    assert_eq!(after.full_commits - before.full_commits, 1, "durable before it returned");
    assert_eq!(store.sessions_of(EUI).await.unwrap()[0].fcnt_up, Some(2), "and counted once");
}

#[tokio::test]
async fn a_failing_job_takes_back_its_own_writes_only() {
    let (_folder, store) = fresh();
    let panicking = |sessions: &mut Vec<Session>| -> sns::Write {
        assert!(sessions.is_empty(), "first");
        panic!("a bug in a room")
    };
    let taken = |sessions: &mut Vec<Session>| {
        sessions.push(Session { dev_eui: DevEui::from_msb([7; 8]), ..session(7) });
        sessions.push(session(7));
        write(Commit::Durable)
    };
    let (first, second, third) = tokio::join!(
        store.with_dev_addr(ADDR, Box::new(panicking)),
        Sessions::with_device(&store, EUI, Box::new(taken)),
        put(&store, session(1)),
    );
    assert_eq!(first.unwrap_err().to_string(), "store: the decision panicked");
    assert!(second.unwrap_err().0.contains("UNIQUE"));
    let () = third;
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1)]);
    assert_eq!(store.sessions_of(DevEui::from_msb([7; 8])).await.unwrap(), []);
    assert_eq!(store.stats().failed, 2);
}

#[tokio::test]
async fn a_full_disk_is_an_error_for_the_batch_and_not_the_end() {
    let (_folder, store) = fresh();
    let limit = |pages: u32| {
        store.queue.run(false, move |db| {
            db.sql.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            Ok(((), Done::new(Commit::Nothing)))
        })
    };
    limit(1).await.unwrap();
    let many = |sessions: &mut Vec<Session>| {
        sessions.extend((0..1000).map(session));
        write(Commit::Durable)
    };
    let error = Sessions::with_device(&store, EUI, Box::new(many)).await.unwrap_err();
    assert!(error.0.contains("full"), "{error}");
    limit(1_000_000).await.unwrap();
    put(&store, session(1)).await;
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1)]);
}

#[tokio::test]
async fn jobs_that_queue_are_committed_together() {
    let (_folder, store) = fresh();
    let before = store.stats();
    let take = |id: u64| {
        let session = Session { dev_eui: DevEui::from_msb(id.to_be_bytes()), ..session(id) };
        let decide = move |sessions: &mut Vec<Session>| {
            sessions.push(session.clone());
            write(Commit::Durable)
        };
        Sessions::with_device(&store, DevEui::from_msb(id.to_be_bytes()), Box::new(decide))
    };
    for taken in futures_util::future::join_all((0..200).map(take)).await {
        taken.unwrap();
    }
    let after = store.stats();
    assert_eq!(after.jobs - before.jobs, 200);
    assert!(after.commits - before.commits <= 10, "{} commits", after.commits - before.commits);
    assert_eq!(after.full_commits - before.full_commits, after.commits - before.commits);
    let (decide, slot) = decided(|sessions: &mut Vec<Session>| (sessions.len(), write(Commit::Nothing)));
    store.with_dev_addr(ADDR, Box::new(decide)).await.unwrap();
    assert_eq!(outcome(&slot).unwrap(), 200);
}

#[tokio::test]
async fn a_caller_who_gives_up_does_not_stop_the_work() {
    let (_folder, store) = fresh();
    let mut abandoned = Box::pin(put(&store, session(1)));
    // polled once: handed over
    assert!(futures_util::poll!(abandoned.as_mut()).is_pending());
    drop(abandoned);
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1)]);
}

#[tokio::test(start_paused = true)]
async fn lazy_counters_reach_the_disk_within_30_seconds() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    let before = store.stats();
    uplink(&store, 1, Commit::Lazy, false).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    uplink(&store, 2, Commit::Lazy, false).await;
    assert_eq!(store.stats().full_commits, before.full_commits);
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    let after = store.stats();
    assert_eq!((after.full_commits - before.full_commits, after.pushes), (1, 1));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(store.stats(), after, "the push served both, and nothing polls the disk");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_reaches_the_disk_within_a_second_and_an_answered_one_need_not() {
    let (_folder, store) = fresh();
    put(&store, session(u64::MAX)).await;
    uplink(&store, 1, Commit::Lazy, true).await;
    store.forwarded(forward_key(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(store.stats().pushes, 0);
    uplink(&store, 2, Commit::Lazy, true).await;
    tokio::time::sleep(Duration::from_millis(950)).await;
    assert_eq!(store.stats().pushes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_push_that_fails_is_tried_again_and_does_not_spin() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    uplink(&store, 1, Commit::Lazy, false).await;
    let rename = |sql: &'static str| {
        let work = move |db: &writer::Db<'_>| {
            db.run(sql, [])?;
            Ok(((), Done { harmless: true, ..Done::new(Commit::Lazy) }))
        };
        store.queue.run(false, work)
    };
    rename("ALTER TABLE meta RENAME TO hidden").await.unwrap();
    tokio::time::sleep(Duration::from_millis(39_500)).await;
    assert_eq!(store.stats().pushes, 11);
    rename("ALTER TABLE hidden RENAME TO meta").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.stats().pushes, 12);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_1024_frames_are_lazy() {
    let (_folder, store) = fresh();
    let fill = |sessions: &mut Vec<Session>| {
        sessions.extend((0..256).map(session));
        write(Commit::Durable)
    };
    store.with_dev_addr(ADDR, Box::new(fill)).await.unwrap();
    let before = store.stats();
    for fcnt in 1..=3 {
        uplink(&store, fcnt, Commit::Lazy, false).await;
    }
    let after = store.stats();
    assert_eq!((after.uplinks, after.full_commits), (768, before.full_commits));
    uplink(&store, 4, Commit::Lazy, false).await;
    assert_eq!(store.stats().full_commits - before.full_commits, 1);
}

#[tokio::test]
async fn an_uplink_costs_two_small_commits_and_the_log_stays_short() {
    let (folder, store) = fresh();
    put(&store, session(u64::MAX)).await;
    let before = store.stats();
    for fcnt in 0..1000 {
        uplink(&store, fcnt, Commit::Lazy, true).await;
        store.forwarded(forward_key(fcnt)).await.unwrap();
    }
    let after = store.stats();
    assert_eq!((after.commits - before.commits, after.rows - before.rows), (2000, 3000));
    assert_eq!((after.full_commits, after.reruns), (before.full_commits, before.reruns));
    assert!(after.writes_per_uplink().unwrap() < 2.1);
    let log = folder.path().join("data/roamgate.db-wal").metadata().unwrap().len();
    assert!(log < 4 << 20, "{log} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_durable_decision_pushes_what_it_rests_on() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    uplink(&store, 1, Commit::Lazy, false).await;
    let before = store.stats().full_commits;
    store.with_dev_addr(ADDR, Box::new(|_| write(Commit::Durable))).await.unwrap();
    assert_eq!(store.stats().full_commits - before, 1);
    store.with_dev_addr(ADDR, Box::new(|_| write(Commit::Durable))).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.stats().full_commits - before, 1, "nothing left to push");
    uplink(&store, 2, Commit::Lazy, false).await;
    store.flush().await.unwrap();
    assert_eq!(store.stats().full_commits - before, 2);
}

#[tokio::test]
async fn strict_waits_for_the_disk_every_time() {
    let folder = TempDir::new().unwrap();
    let store = open_with(&folder, Durability::Strict);
    put(&store, session(u64::MAX)).await;
    uplink(&store, 1, Commit::Lazy, true).await;
    store.forwarded(forward_key(1)).await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.commits, stats.full_commits, stats.reruns), (3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn paused_time_stands_still_while_the_store_works() {
    let (_folder, store) = fresh();
    let start = tokio::time::Instant::now();
    let alarm = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    put(&store, session(u64::MAX)).await;
    for fcnt in 0..300 {
        uplink(&store, fcnt, Commit::Durable, true).await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    alarm.await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(1));
}

#[tokio::test]
async fn a_closed_store_says_so_and_frees_the_file() {
    let (folder, store) = fresh();
    let other = store.clone();
    let queued = put(&store, session(1));
    let ((), closed) = tokio::join!(queued, store.close());
    closed.unwrap();
    assert_eq!(other.flush().await.unwrap_err().to_string(), "store: the store is closed");
    assert!(other.close().await.is_err());
    assert!(!folder.path().join("data/roamgate.db-wal").exists());
    assert_eq!(open(&folder).sessions_of(EUI).await.unwrap(), [session(1)]);
}

#[tokio::test]
async fn the_lock_names_the_file_the_process_and_the_remedy() {
    let (folder, _store) = fresh();
    let error = Store::open(&config(&folder), clock()).unwrap_err().to_string();
    let path = folder.path().join("data/roamgate.db");
    let process = std::process::id();
    assert_eq!(
        error,
        format!(
            "{} is in use by process {process}: stop it, or give the command to it through its control socket",
            path.display()
        )
    );
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn folder_and_files_are_for_their_owner_alone() {
    let (folder, store) = fresh();
    put(&store, session(1)).await;
    let data = folder.path().join("data");
    assert_eq!(mode(&data), 0o700);
    for file in std::fs::read_dir(&data).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// Everything on the disk.
fn bytes(folder: &TempDir) -> Vec<u8> {
    let files = std::fs::read_dir(folder.path().join("data")).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[tokio::test]
async fn no_key_lies_in_the_clear() {
    let (folder, store) = fresh();
    store.add_device(NewDevice { nwk_key: Some(Key::new(KEY)), ..new_device() }).await.unwrap();
    put(&store, session(1)).await;
    let join = |device: &mut Option<hns::Device>| {
        device.as_mut().unwrap().activations.push(Activation {
            dev_addr: ADDR,
            session_key_id: None,
            app_s_key: Some(KeyEnvelope { label: None, key: KEY.to_vec() }),
            fcnt_up: None,
            created: 0,
        });
        Commit::Durable
    };
    Devices::with_device(&store, EUI, Box::new(join)).await.unwrap();
    let secret = store.secret("tokens").await.unwrap();
    for closed in [false, true] {
        if closed {
            store.close().await.unwrap();
        }
        let disk = bytes(&folder);
        let holds = |key: &[u8]| disk.windows(key.len()).any(|window| window == key);
        assert!(!holds(&KEY) && !holds(hex::encode(KEY).as_bytes()) && !holds(&secret));
        assert!(holds(b"attic"), "the test looks where the rows are");
    }
}

#[tokio::test]
async fn a_ciphertext_that_was_moved_does_not_open() {
    let (_folder, store) = fresh();
    store.add_device(NewDevice { nwk_key: Some(Key::new([2; 16])), ..new_device() }).await.unwrap();
    let other = DevEui::from_msb([7; 8]);
    store.add_device(NewDevice { dev_eui: other, ..new_device() }).await.unwrap();
    put(&store, session(1)).await;
    put(&store, session(2)).await;
    let tamper = |sql: &'static str| {
        store.queue.run(false, move |db| Ok((db.run(sql, [])?, Done::new(Commit::Durable))))
    };
    let moves = [
        "UPDATE root_keys SET app_key = (SELECT app_key FROM root_keys ORDER BY dev_eui LIMIT 1)",
        "UPDATE root_keys SET app_key = nwk_key WHERE nwk_key IS NOT NULL",
        "UPDATE sessions SET nwk_s_key = (SELECT nwk_s_key FROM sessions WHERE id = 1)",
        "UPDATE sessions SET dev_eui = '0707070707070707' WHERE id = 1",
    ];
    let expect = [(true, false), (true, false), (true, true), (true, true)];
    for (sql, (keys, sessions)) in moves.into_iter().zip(expect) {
        tamper(sql).await.unwrap();
        let read = RootKeys::with_device(&store, EUI, Box::new(|_| Commit::Nothing)).await;
        assert_eq!(read.is_err(), keys, "{sql}");
        let error = store.sessions_of(EUI).await.map(|_| ());
        assert_eq!(error.is_err(), sessions, "{sql}");
    }
    let error = store.sessions_of(other).await.unwrap_err();
    assert!(error.0.contains("moved from another row"), "{error}");
}

#[tokio::test]
async fn a_secret_is_made_once_and_stays() {
    let (folder, store) = fresh();
    let (tokens, kek) = (store.secret("tokens").await.unwrap(), store.secret("kek").await.unwrap());
    assert_ne!(tokens, kek);
    store.close().await.unwrap();
    let store = open(&folder);
    assert_eq!(store.secret("tokens").await.unwrap(), tokens);
    assert_eq!(store.secret("kek").await.unwrap(), kek);
}

#[tokio::test]
async fn a_wrong_a_missing_and_a_misshapen_sealing_key_are_told_apart() {
    let (folder, store) = fresh();
    store.close().await.unwrap();
    let path = folder.path().join("data/roamgate.db.key");
    let key = std::fs::read(&path).unwrap();
    let error = |config: &Config| Store::open(config, clock()).unwrap_err();
    std::fs::write(&path, hex::encode([1; 32])).unwrap();
    assert!(matches!(error(&config(&folder)), OpenError::WrongKey { .. }));
    std::fs::write(&path, "secret").unwrap();
    assert!(matches!(error(&config(&folder)), OpenError::KeyShape { .. }));
    std::fs::remove_file(&path).unwrap();
    assert!(
        matches!(error(&config(&folder)), OpenError::KeyFile { .. }),
        "never a new key for an old database"
    );
    // elsewhere, and as bytes
    let elsewhere = folder.path().join("sealing.key");
    let mut raw = [0; 32];
    hex::decode_to_slice(key.trim_ascii(), &mut raw).unwrap();
    std::fs::write(&elsewhere, raw).unwrap();
    Store::open(&Config { key: Some(KeySource::File(elsewhere)), ..config(&folder) }, clock()).unwrap();
}

#[tokio::test]
async fn a_newer_a_foreign_and_a_damaged_database_are_refused() {
    let (folder, store) = fresh();
    store.close().await.unwrap();
    let path = folder.path().join("data/roamgate.db");
    let error = || Store::open(&config(&folder), clock()).unwrap_err();
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.pragma_update(None, "user_version", 1000).unwrap();
    drop(sql);
    let newer = error();
    assert!(matches!(newer, OpenError::Newer { found: 1000, known: migrations::NEWEST, .. }), "{newer}");
    std::fs::write(&path, "not a database, but a text that is long enough").unwrap();
    assert!(matches!(error(), OpenError::NotOurs { .. }));
    std::fs::remove_file(&path).unwrap();
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch("CREATE TABLE notes (text)").unwrap();
    drop(sql);
    assert!(matches!(error(), OpenError::NotOurs { .. }));
}

#[tokio::test]
async fn after_a_crash_a_damaged_database_is_found_and_a_whole_one_opens() {
    let (folder, store) = fresh();
    store.close().await.unwrap();
    let store = open(&folder);
    put(&store, session(1)).await;
    // What a crash would leave: the files of a store that was not closed.
    let crash = |damage: bool| {
        let image = TempDir::new().unwrap();
        std::fs::create_dir(image.path().join("data")).unwrap();
        for name in ["roamgate.db", "roamgate.db-wal", "roamgate.db.key"] {
            let mut bytes = std::fs::read(folder.path().join("data").join(name)).unwrap();
            if damage && name == "roamgate.db" {
                let second_half = bytes.len() / 2;
                bytes[second_half..].fill(0xA5);
            }
            std::fs::write(image.path().join("data").join(name), bytes).unwrap();
        }
        image
    };
    let whole = crash(false);
    assert_eq!(open(&whole).sessions_of(EUI).await.unwrap(), [session(1)]);
    let damaged = crash(true);
    let error = Store::open(&config(&damaged), clock()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_database_of_the_first_version_moves_forward_with_all_it_holds() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("roamgate.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch(include_str!("migrations/v1.sql")).unwrap();
    std::fs::write(folder.path().join("roamgate.db.key"), hex::encode([0x5A; 32])).unwrap();
    let config = Config { url: Url::sqlite(&path), ..Config::default() };
    let store = Store::open(&config, clock()).unwrap();
    assert_eq!(take_nonces(&store, 1).await, None, "used in the old database");
    assert_eq!(take_nonces(&store, 2).await, Some(2));
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [Session { fcnt_up: Some(1), ..session(u64::MAX) }]);
    assert_eq!(store.waiting().await.unwrap(), [(forward_key(1), up(1))]);
    let device = store.device(EUI).await.unwrap().unwrap();
    assert_eq!(device.activations[0].app_s_key, Some(KeyEnvelope { label: None, key: KEY.to_vec() }));
    assert_eq!(device.queue.len(), 1);
    assert_eq!(store.net_ids().len(), 1);
    assert_eq!(store.secret("tokens").await.unwrap().len(), 32);
    assert!(store.remove_device(EUI).await.unwrap(), "which writes into the newest table");
}

#[test]
fn the_store_opens_on_a_runtime_only() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(Store::open(&config(&folder), Clock::system()), Err(OpenError::NoRuntime)));
}

#[test]
fn the_configuration_cannot_hold_a_wrong_value() {
    let parse = |text: &str| toml::from_str::<Config>(text);
    assert_eq!(parse("").unwrap().url.to_string(), "sqlite:./roamgate-data/roamgate.db");
    let full =
        parse("url = \"sqlite:///var/lib/r.db\"\ndurability = \"strict\"\nkey = { credential = \"seal\" }");
    let full = full.unwrap();
    assert_eq!(full.url, Url::sqlite("/var/lib/r.db"));
    assert_eq!(full.durability, Durability::Strict);
    assert_eq!(parse(&toml::to_string(&full).unwrap()).unwrap(), full);
    assert_eq!(parse("key = { file = \"/etc/k\" }").unwrap().key, Some(KeySource::File("/etc/k".into())));
    for wrong in [
        "url = \"postgres://db/r\"",
        "url = \"sqlite:\"",
        "url = \"sqlite::memory:\"",
        "url = \"r.db\"",
        "durability = \"fast\"",
        "key = \"abc\"",
        "key = { credential = \"../x\" }",
        "key = { file = \"a\", credential = \"b\" }",
        "path = \"x\"",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let postgres = parse("url = \"postgres://db/r\"").unwrap_err().to_string();
    assert!(postgres.contains("not in this version"), "{postgres}");
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
        let message = XmitAppUp { frm_payload, ul, ack: counters.3 };
        prop_assert_eq!(forward::from_text(&forward::to_text(&message).unwrap()).unwrap(), message);
    }

    #[test]
    fn a_foreign_text_is_an_error(text: String) {
        prop_assert!(forward::from_text(&text).is_err());
    }
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

/// Makes `migrations/v1.sql` anew, should the first version's fixture ever have to hold more:
/// `cargo test --lib store:: -- --ignored`, then `.dump` of the file it names.
#[tokio::test]
#[ignore = "makes a fixture"]
async fn make_the_fixture() {
    let folder = std::env::temp_dir().join("roamgate-fixture");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("roamgate.db");
    std::fs::write(folder.join("roamgate.db.key"), hex::encode([0x5A; 32])).unwrap();
    let store = Store::open(&Config { url: Url::sqlite(&path), ..Config::default() }, clock()).unwrap();
    store.add_device(new_device()).await.unwrap();
    assert_eq!(take_nonces(&store, 1).await, Some(1));
    put(&store, session(u64::MAX)).await;
    uplink(&store, 1, Commit::Durable, true).await;
    let fill = |device: &mut Option<hns::Device>| {
        let device = device.as_mut().unwrap();
        device.activations.push(Activation {
            dev_addr: ADDR,
            session_key_id: None,
            app_s_key: Some(KeyEnvelope { label: None, key: KEY.to_vec() }),
            fcnt_up: None,
            created: 0,
        });
        device.queue.push(QueueItem {
            id: "5a0e6cf4-9bd1-4b4e-a5a7-3d1f65c2c001".into(),
            f_port: 1,
            payload: b"hello".to_vec(),
            confirmed: true,
            sent_as: None,
            attempts: 0,
        });
        Commit::Durable
    };
    Devices::with_device(&store, EUI, Box::new(fill)).await.unwrap();
    store.learn("C00ABC".parse().unwrap()).await.unwrap();
    store.secret("tokens").await.unwrap();
    store.close().await.unwrap();
    println!("{}", path.display());
}
