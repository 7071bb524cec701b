//! `kill -9` at random moments: nothing durable that was answered is lost, and in `strict` nothing at all; nothing is given out twice.
//!
//! The test starts itself again as a child that takes nonces and counters from the store and prints
//! each when the store has answered. The parent kills it, opens the store, and compares. What to take
//! next the child learns from the store alone, so a lost commit shows as a repetition too.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::RngExt;

use roamgate::backend::door::{Commit, decided, outcome};
use roamgate::backend::message::{ClassMode, MacVersion, NwkKeys, UlMeta, XmitAppUp};
use roamgate::clock::Clock;
use roamgate::js::{self, RootKeys};
use roamgate::lorawan::{DevAddr, DevEui, Key, NetId};
use roamgate::sns::{ForwardKey, Session, Sessions, Write};
use roamgate::store::{Config, Durability, NewDevice, Store, Url};

const DATABASE: &str = "ROAMGATE_TEST_STORE_KILL_DATABASE";
const STRICT: &str = "ROAMGATE_TEST_STORE_KILL_STRICT";
const ROUNDS: u32 = 60;
const DEVICES: u8 = 4;

fn eui(n: u8) -> DevEui {
    DevEui::from_msb([n; 8])
}

fn addr(n: u8) -> DevAddr {
    DevAddr::new(0x2600_0000 + u32::from(n))
}

fn config(database: &Path, strict: bool) -> Config {
    let durability = if strict { Durability::Strict } else { Durability::Balanced };
    Config { url: Url::sqlite(database), durability, ..Config::default() }
}

fn say(line: String) {
    // Past the test harness, in one write.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

/// Does nothing unless the other test started it.
#[tokio::test(flavor = "multi_thread")]
async fn child_takes_until_it_is_killed() {
    let Some(database) = std::env::var_os(DATABASE) else { return };
    let strict = std::env::var_os(STRICT).is_some();
    let store = Store::open(&config(Path::new(&database), strict), Clock::system()).unwrap();
    for n in 0..DEVICES {
        prepare(&store, n).await;
    }
    let tasks = (0..DEVICES).flat_map(|n| {
        let (a, b, c) = (store.clone(), store.clone(), store.clone());
        [
            tokio::spawn(async move { joins(&a, n).await }),
            tokio::spawn(async move { downlinks(&b, n).await }),
            tokio::spawn(async move { uplinks(&c, n).await }),
        ]
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn prepare(store: &Store, n: u8) {
    let device = NewDevice {
        dev_eui: eui(n),
        join_eui: "0000000000000001".parse().unwrap(),
        name: format!("device {n}"),
        mac_version: MacVersion::V1_0_3,
        app_key: Some(Key::new([n; 16])),
        nwk_key: None,
        home: None,
        roaming: false,
    };
    // There already, from the second round on.
    let _ = store.add_device(device).await;
    let session = move |sessions: &mut Vec<Session>| {
        if !sessions.is_empty() {
            return Write::sessions(Commit::Nothing);
        }
        sessions.push(Session {
            id: n.into(),
            dev_eui: eui(n),
            dev_addr: addr(n),
            net_id: NetId::from_msb([0, 0, 0x13]),
            keys: NwkKeys::V10 { nwk_s_key: Key::new([n; 16]) },
            fcnt_up: None,
            fcnt_down: 0,
            a_fcnt_down: 0,
            confirmed_down: None,
            class: ClassMode::A,
            personalised: false,
            pending: true,
            rx_delay: 1,
            rx1_dr_offset: 0,
            rx2_frequency: 869_525_000,
            rx2_data_rate: 0,
            plan: Default::default(),
            created: 0,
            roaming: true,
            home: None,
            terms: Default::default(),
            rj_count0: None,
            path: None,
            expires: None,
        });
        Write::sessions(Commit::Durable)
    };
    Sessions::with_device(store, eui(n), Box::new(session)).await.unwrap();
}

/// DevNonce and JoinNonce.
async fn joins(store: &Store, n: u8) {
    loop {
        let (decide, slot) = decided(|device: &mut Option<js::Device>| {
            let device = device.as_mut().unwrap();
            let dev_nonce = device.dev_nonces.last().map_or(0, |last| last + 1);
            device.dev_nonces.insert(dev_nonce);
            device.join_nonce += 1;
            ((dev_nonce, device.join_nonce), Commit::Durable)
        });
        RootKeys::with_device(store, eui(n), Box::new(decide)).await.unwrap();
        let (dev_nonce, join_nonce) = outcome(&slot).unwrap();
        say(format!("join {n} {dev_nonce} {join_nonce}"));
    }
}

/// FCntDown.
async fn downlinks(store: &Store, n: u8) {
    loop {
        let (decide, slot) = decided(|sessions: &mut Vec<Session>| {
            let taken = sessions[0].fcnt_down;
            sessions[0].fcnt_down += 1;
            (taken, Write::sessions(Commit::Durable))
        });
        Sessions::with_device(store, eui(n), Box::new(decide)).await.unwrap();
        say(format!("down {n} {} 0", outcome(&slot).unwrap()));
    }
}

/// FCntUp, lazily, each with a message for the next room; that answers the even ones.
async fn uplinks(store: &Store, n: u8) {
    loop {
        let (decide, slot) = decided(move |sessions: &mut Vec<Session>| {
            let fcnt_up = sessions[0].fcnt_up.map_or(0, |last| last + 1);
            sessions[0].fcnt_up = Some(fcnt_up);
            let ul = UlMeta { fcnt_up: Some(fcnt_up), ..UlMeta::at(jiff::Timestamp::UNIX_EPOCH) };
            let message = XmitAppUp { frm_payload: vec![n; 20], ul, ack: false, via: None, home: None };
            let key = ForwardKey { session: n.into(), fcnt_up };
            (fcnt_up, Write { forward: Some((key, message)), ..Write::sessions(Commit::Lazy) })
        });
        store.with_dev_addr(addr(n), Box::new(decide)).await.unwrap();
        let fcnt_up = outcome(&slot).unwrap();
        say(format!("up {n} {fcnt_up} 0"));
        if fcnt_up % 2 == 0 {
            store.forwarded(ForwardKey { session: n.into(), fcnt_up }).await.unwrap();
            say(format!("answered {n} {fcnt_up} 0"));
        }
    }
}

/// Lines as the child printed them: what, device, first number, second number.
type Lines = BTreeSet<(String, u8, u32, u32)>;

fn run_and_kill(database: &Path, strict: bool, after: Duration) -> Vec<(String, u8, u32, u32)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_takes_until_it_is_killed", "--nocapture", "--test-threads=1"]);
    command.env(DATABASE, database).stdout(Stdio::piped());
    if strict {
        command.env(STRICT, "yes");
    }
    let mut child = command.spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut out = BufReader::new(out);
        let mut line = String::new();
        // A line that the kill cut off has no end, and was not said.
        while out.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            lines.extend(parse(&line));
            line.clear();
        }
        lines
    });
    std::thread::sleep(after);
    // SIGKILL
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "the child ended by itself: {status}");
    reader.join().unwrap()
}

fn parse(line: &str) -> Option<(String, u8, u32, u32)> {
    let mut words = line.split_whitespace();
    let mut next = || words.next();
    let (what, n) = (next()?, next()?.parse().ok()?);
    Some((what.into(), n, next()?.parse().ok()?, next()?.parse().ok()?))
}

#[test]
fn nothing_answered_is_lost_and_nothing_is_given_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("roamgate.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rng = Clock::system().rng();
    let (mut seen, mut answers) = (Lines::new(), 0);
    for round in 0..ROUNDS {
        // Short ones hit the opening, the first of all the making.
        let most = if round % 4 == 0 { 30 } else { 160 };
        let after = Duration::from_micros(rng.random_range(1_000..most * 1_000));
        let strict = round % 3 == 0;
        for line in run_and_kill(&database, strict, after) {
            answers += 1;
            // `balanced` may forget them with the process
            if !strict && matches!(line.0.as_str(), "up" | "answered") {
                continue;
            }
            assert!(seen.insert(line.clone()), "round {round}: twice: {line:?}");
        }
        runtime.block_on(check(&database, &seen, round));
        // The line of messages is bounded: the next round begins with an empty one.
        seen.retain(|line| line.0 != "up");
    }
    assert!(answers > 500, "the children did {answers} things in all: too few to prove anything");
    println!("{answers} answers in {ROUNDS} rounds");
}

async fn check(database: &Path, seen: &Lines, round: u32) {
    let store = Store::open(&config(database, false), Clock::system()).unwrap();
    let waiting: BTreeSet<ForwardKey> =
        store.waiting().await.unwrap().into_iter().map(|(key, _)| key).collect();
    for n in 0..DEVICES {
        let of = |what: &'static str| seen.iter().filter(move |line| line.0 == what && line.1 == n);
        let (read, slot) = decided(|device: &mut Option<js::Device>| (device.clone(), Commit::Nothing));
        RootKeys::with_device(&store, eui(n), Box::new(read)).await.unwrap();
        let device = outcome(&slot).unwrap();
        let session = store.sessions_of(eui(n)).await.unwrap().pop();
        let joins: Vec<_> = of("join").collect();
        let nonces: BTreeSet<u32> = joins.iter().map(|line| line.3).collect();
        assert_eq!(nonces.len(), joins.len(), "round {round}, device {n}: a JoinNonce twice");
        for (_, _, dev_nonce, join_nonce) in joins {
            let device = device.as_ref().expect("a device that joined");
            assert!(
                device.dev_nonces.contains(&(*dev_nonce as u16)),
                "round {round}: DevNonce {dev_nonce} lost"
            );
            assert!(device.join_nonce >= *join_nonce, "round {round}: JoinNonce {join_nonce} lost");
        }
        for (_, _, fcnt_down, _) in of("down") {
            let next = session.as_ref().expect("a session that spoke").fcnt_down;
            assert!(next > *fcnt_down, "round {round}: FCntDown {fcnt_down} lost");
        }
        for (_, _, fcnt_up, _) in of("up") {
            let last = session.as_ref().expect("a session that spoke").fcnt_up;
            assert!(last >= Some(*fcnt_up), "round {round}: FCntUp {fcnt_up} lost");
            let waits = waiting.contains(&ForwardKey { session: n.into(), fcnt_up: *fcnt_up });
            assert!(fcnt_up % 2 == 0 || waits, "round {round}: the message of FCntUp {fcnt_up} lost");
        }
        for (_, _, fcnt_up, _) in of("answered") {
            let waits = waiting.contains(&ForwardKey { session: n.into(), fcnt_up: *fcnt_up });
            assert!(!waits, "round {round}: the message of FCntUp {fcnt_up} waits again");
        }
    }
    for key in waiting {
        store.forwarded(key).await.unwrap();
    }
    store.close().await.unwrap();
}
