//! Tests of the store through its public side, on real files.

mod contexts;
mod names;
mod opening;
mod outbox;
mod records;
mod writing;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::testing::Twice;
use super::*;
use crate::backend::door::{decided, outcome};
use crate::backend::message::{
    Account, ClassMode, GwInfo, KeyEnvelope, MacVersion, NwkKeys, Terms, UlMeta, XmitAppUp,
};
use crate::fns::Learned;
use crate::hns::{self, Activation, Devices, QueueItem};
use crate::js::{self, RootKeys};
use crate::limits::{RateLimit, RatePolicy};
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

/// A limit that a home may set.
const LIMIT: RateLimit = RateLimit { rate: 6, bucket: 2, policy: RatePolicy::Mark };

fn session(id: u64) -> Session {
    Session {
        id,
        dev_eui: EUI,
        dev_addr: ADDR,
        net_id: "000013".parse().unwrap(),
        keys: NwkKeys::V10 { nwk_s_key: Key::new(KEY) },
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
        path: Some(sns::Path {
            via: Some(NetId::from_msb([0x60, 5, 10])),
            fns_ul_token: Some(vec![1, 2]),
            ul_tokens: vec![vec![3], vec![4, 5]],
        }),
        plan: Default::default(),
        created: 1_700_000_000 + (id & 0xFF),
        roaming: true,
        home: Some("C0002F".parse().unwrap()),
        terms: Terms::ours(None, Some(LIMIT)),
        rj_count0: Some(7),
        expires: Some(1_700_003_600),
    }
}

fn new_device() -> NewDevice {
    NewDevice {
        dev_eui: EUI,
        join_eui: "0000000000000001".parse().unwrap(),
        name: "attic".into(),
        mac_version: MacVersion::V1_0_3,
        app_key: Some(Key::new(KEY)),
        nwk_key: None,
        home: None,
        roaming: true,
    }
}

fn up(fcnt_up: u32) -> XmitAppUp {
    let mut ul = UlMeta::at("2026-11-20T10:00:00.123456Z".parse().unwrap());
    ul.dev_eui = Some(EUI);
    ul.fcnt_up = Some(fcnt_up);
    XmitAppUp { frm_payload: vec![1, 2, 3], ul, ack: false, via: None, home: None }
}

fn forward_key(fcnt_up: u32) -> ForwardKey {
    ForwardKey { session: u64::MAX, fcnt_up }
}

fn write(commit: Commit) -> sns::Write {
    sns::Write::sessions(commit)
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
        let forward = forward.then(|| (forward_key(fcnt_up), up(fcnt_up)));
        sns::Write { forward, ..sns::Write::sessions(commit) }
    };
    store.with_dev_addr(ADDR, Box::new(decide)).await.unwrap();
}

async fn root_keys_of(store: &impl RootKeys) -> Option<js::Device> {
    let (decide, slot) = decided(|device: &mut Option<js::Device>| (device.clone(), Commit::Nothing));
    store.with_device(EUI, Box::new(decide)).await.unwrap();
    outcome(&slot).unwrap()
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
