//! The doors walked on paused time: two houses, a device of a few lines, no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::application::App;
use crate::backend::door::{Boxed, Caller, Deadline, PeerError, Peers, Rooms, StoreError};
use crate::backend::keywrap::{Kek, Keks};
use crate::backend::message::{Answer, MacVersion, Party, Refusal, Request, ResultCode, XmitAppUp, wire};
use crate::clock::{Clock, Instant};
use crate::fns::{self, Air, AirError, Count, Fns, Heard, Parts, Seal, Sent, Tx};
use crate::hns::{self, Hns};
use crate::js::{self, Authorise, Js};
use crate::lorawan::crypto::{self, Direction};
use crate::lorawan::{DevAddr, DevEui, GatewayEui, JoinEui, Key, Modulation, NetId, Region};
use crate::partners;
use crate::sns::{self, ForwardKey, Sessions, Sns};

use super::house::{Doors, House, Ours};
use memory::Memory;

#[cfg(test)]
mod class_c;
#[cfg(test)]
mod contexts;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod heads;
#[cfg(test)]
mod lasting;
#[cfg(test)]
mod long;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod parked;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod regions;

const DEV: DevEui = DevEui::from_msb([0x58, 0x17, 0xB1, 0xC3, 0xEB, 0x89, 0x0B, 0xC4]);
const HOME: NetId = NetId::from_msb([0, 0, 1]);
const AWAY: NetId = NetId::from_msb([0, 0, 0]);
const ATTIC: GatewayEui = GatewayEui::from_msb([0xAA; 8]);

// ---- radio ----

/// Radio heads that take every frame, or refuse the first so many.
struct Ether {
    sent: mpsc::UnboundedSender<(Tx, Instant)>,
    refuse: Mutex<Vec<AirError>>,
    /// Everything that was handed over, refused frames included.
    asked: Mutex<Vec<GatewayEui>>,
    online: Mutex<BTreeSet<GatewayEui>>,
}

impl Air for Ether {
    fn transmit(&self, tx: Tx, _before: Deadline) -> Boxed<'_, Result<Sent, AirError>> {
        self.asked.lock().unwrap().push(tx.gateway);
        let refusal = self.refuse.lock().unwrap().pop();
        let answer = match refusal {
            Some(error) => Err(error),
            None => {
                let _ = self.sent.send((tx, Instant::now()));
                Ok(Sent { power: None })
            }
        };
        Box::pin(std::future::ready(answer))
    }
    fn heads(&self) -> usize {
        self.online.lock().unwrap().len()
    }
    fn online(&self, gateway: GatewayEui) -> bool {
        self.online.lock().unwrap().contains(&gateway)
    }
}

// ---- houses ----

/// Reaches every other house of the test without a socket, as its server would.
#[derive(Default)]
struct Street {
    houses: Mutex<Vec<(Ours, Arc<House>)>>,
    asked: Mutex<Vec<(Party, Party, &'static str)>>,
    /// This party cannot be reached.
    unplugged: Mutex<Option<Party>>,
    /// What a partner of another make would answer.
    otherwise: Mutex<Option<Otherwise>>,
    /// Loses some of what is said.
    line: Mutex<Option<long::Line>>,
}

impl Street {
    /// What networks asked each other since the last time.
    fn messages(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.asked.lock().unwrap()).into_iter().map(|(.., message)| message).collect()
    }
}

type Otherwise = Box<dyn Fn(Result<Answer, Refusal>) -> Result<Answer, Refusal> + Send>;

struct WayOut {
    me: Party,
    street: Arc<Street>,
}

impl Peers for WayOut {
    fn send(&self, to: Party, request: Request, by: Deadline) -> Boxed<'_, Result<Answer, PeerError>> {
        Box::pin(async move {
            self.street.asked.lock().unwrap().push((self.me.clone(), to.clone(), request.message_type()));
            if self.street.unplugged.lock().unwrap().as_ref() == Some(&to) {
                return Err(PeerError::Transport { to, why: "connection refused".into() });
            }
            let fate =
                self.street.line.lock().unwrap().as_mut().map(|line| line.fate(request.message_type()));
            if fate == Some(long::Fate::Lost) {
                return Err(PeerError::Late { to });
            }
            let found = {
                let houses = self.street.houses.lock().unwrap();
                houses.iter().find(|(ours, _)| ours.contains(&to)).map(|(_, house)| house.clone())
            };
            let Some(house) = found else {
                return Err(PeerError::NotFound { to, why: "no such name".into() });
            };
            // as JSON, so that what has no object in TS002 stays in its house
            let header = wire::Header::new(self.me.clone(), to.clone(), 1);
            let keks = Keks { allow_clear: true, ..Keks::default() };
            let Ok(wire::Incoming::Request(envelope)) = wire::open(&wire::encode_request(&header, &request))
            else {
                panic!("{request:?}")
            };
            let from = Caller { party: self.me.clone(), receiver: to.clone(), ours: false, by };
            let mut answer = house.answer(from, envelope.body().unwrap()).await;
            if fate == Some(long::Fate::Unanswered) {
                return Err(PeerError::Late { to });
            }
            if let Some(otherwise) = &*self.street.otherwise.lock().unwrap() {
                answer = otherwise(answer);
            }
            let answer = wire::decode_answer(&envelope.answer(&answer, &keks), &header, &request, &keks);
            let answer =
                answer.map_err(|why| PeerError::Confused { to: to.clone(), why: why.to_string() })?;
            answer.map_err(|refusal| PeerError::Refused { to, refusal })
        })
    }
}

struct Hotspot {
    epoch: Instant,
    clock: Clock,
    house: Arc<House>,
    memory: Arc<Memory>,
    ether: Arc<Ether>,
    sent: mpsc::UnboundedReceiver<(Tx, Instant)>,
}

const ROAMING: &str = "[default]\npassive = { start = true, activation = true }";

async fn hotspot(street: &Arc<Street>, net_id: NetId, roaming: &str, rides: bool) -> Hotspot {
    hotspot_in(street, net_id, roaming, rides, Region::eu868())
}

fn hotspot_in(street: &Arc<Street>, net_id: NetId, roaming: &str, rides: bool, region: Region) -> Hotspot {
    hotspot_with(street, net_id, roaming, rides, region, Arc::default())
}

/// On what an earlier run has left; that run is over.
async fn hotspot_on(
    street: &Arc<Street>,
    net_id: NetId,
    roaming: &str,
    rides: bool,
    memory: Arc<Memory>,
) -> Hotspot {
    let hotspot = hotspot_with(street, net_id, roaming, rides, Region::eu868(), memory);
    hotspot.house.fns.recall().await.unwrap();
    hotspot
}

fn hotspot_with(
    street: &Arc<Street>,
    net_id: NetId,
    roaming: &str,
    rides: bool,
    region: Region,
    memory: Arc<Memory>,
) -> Hotspot {
    street.houses.lock().unwrap().retain(|(ours, _)| !ours.net_ids.contains(&net_id));
    let clock = Clock::following("2026-11-20T10:00:00Z".parse().unwrap());
    let join_eui = JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, net_id.to_msb()[2]]);
    let ours = Ours { net_ids: vec![net_id], join_euis: vec![join_eui.into()], ..Ours::default() };
    let (sender, sent) = mpsc::unbounded_channel();
    let ether = Arc::new(Ether {
        sent: sender,
        refuse: Mutex::default(),
        asked: Mutex::default(),
        online: Mutex::new(BTreeSet::from([ATTIC])),
    });
    let partners: Arc<partners::Config> = Arc::new(toml::from_str(roaming).unwrap());
    let kek = Kek::new("as", [1; 16]).unwrap();
    let keks = Keks { send: Some(kek.clone()), open: vec![kek], allow_clear: false };
    let way_out = Arc::new(WayOut { me: Party::Ns(net_id), street: street.clone() });
    let abroad = hns::Abroad {
        ours: vec![net_id],
        region: region.to_string(),
        partners: partners.clone(),
        carriers: memory.clone(),
    };
    let house = Arc::new_cyclic(|house| {
        let peers: Arc<dyn Peers> = Arc::new(Doors::new(ours.clone(), house.clone(), way_out));
        let fns = Fns::new(Parts {
            me: net_id,
            ours: vec![net_id],
            region: region.clone(),
            partners: partners.clone(),
            downlink_in_answer: rides,
            seal: Seal::new(&[7; 32], clock.now()),
            peers: peers.clone(),
            air: ether.clone(),
            learned: memory.clone(),
            limits: memory.clone(),
            contexts: memory.clone(),
            parking: memory.clone(),
            usage: memory.clone(),
            clock: clock.clone(),
        });
        let app = Arc::new(App::new(keks.clone()));
        House {
            fns: Arc::new(fns),
            sns: Arc::new(Sns::new(
                net_id,
                region.clone(),
                1,
                partners,
                memory.clone(),
                peers.clone(),
                clock.clone(),
            )),
            hns: Arc::new(Hns::new(memory.clone(), app, peers, clock.clone()).knowing(abroad)),
            js: Arc::new(Js::new(memory.clone(), keks, net_id, Authorise::Default)),
        }
    });
    street.houses.lock().unwrap().push((ours, house.clone()));
    Hotspot { epoch: clock.now(), clock, house, memory, ether, sent }
}

impl Hotspot {
    fn add(&self, device: &Device) {
        self.memory.devices.lock().unwrap().insert(
            DEV,
            hns::Device {
                dev_eui: DEV,
                join_eui: device.join_eui,
                name: "walker".into(),
                mac_version: MacVersion::V1_0_3,
                enabled: true,
                roaming: true,
                activations: Vec::new(),
                queue: Vec::new(),
                last_seen: None,
                personalised: false,
                class: crate::backend::message::ClassMode::A,
                last_via: None,
                profile_since: 0,
                home: None,
            },
        );
        self.memory.root_keys.lock().unwrap().insert(
            DEV,
            js::Device {
                dev_eui: DEV,
                join_eui: device.join_eui,
                mac_version: MacVersion::V1_0_3,
                app_key: device.app_key.clone(),
                nwk_key: None,
                home: None,
                enabled: true,
                dev_nonces: BTreeSet::new(),
                join_nonce: 0,
                rj_count1: None,
                derivations: Vec::new(),
            },
        );
    }

    /// The counter that the application has seen last.
    fn delivered(&self) -> Option<u32> {
        self.memory.devices.lock().unwrap()[&DEV].activations.last().unwrap().fcnt_up
    }

    fn queue(&self, payload: &[u8], confirmed: bool) {
        let mut devices = self.memory.devices.lock().unwrap();
        devices.get_mut(&DEV).unwrap().queue.push(hns::QueueItem {
            id: format!("item {}", payload.len()),
            f_port: 9,
            payload: payload.to_vec(),
            confirmed,
            sent_as: None,
            attempts: 0,
            expires: None,
        });
    }

    async fn hears(&self, phy: &[u8]) {
        self.house.fns.uplink(self.heard(phy, ATTIC, 8.0)).await;
    }

    /// A hearing of a frame that ends now.
    fn heard(&self, phy: &[u8], gateway: GatewayEui, snr: f64) -> Heard {
        Heard {
            phy: phy.to_vec(),
            gateway,
            session: 1,
            frequency: 868_300_000,
            modulation: Modulation::Lora { sf: 7, bandwidth: 125_000 },
            rssi: -60,
            snr,
            // the counter runs with paused time from an arbitrary start, and wraps
            tmst: Count((self.epoch.elapsed().as_micros() as u32).wrapping_add(u32::MAX - 500_000)),
            at: Instant::now(),
            time: "2026-11-20T10:00:00Z".parse::<jiff::Timestamp>().unwrap() + self.epoch.elapsed(),
            location: None,
            fine_time: None,
        }
    }

    fn transmitted(&mut self) -> Option<(Tx, Instant)> {
        self.sent.try_recv().ok()
    }
}

async fn street(roaming_away: &str, rides: bool) -> (Arc<Street>, Hotspot, Hotspot, Device) {
    houses(ROAMING, roaming_away, rides).await
}

async fn seconds(time: u64) {
    tokio::time::sleep(Duration::from_secs(time)).await;
}

/// The home of a device and a hotspot elsewhere, each with rules of its own.
async fn houses(home: &str, away: &str, rides: bool) -> (Arc<Street>, Hotspot, Hotspot, Device) {
    let street = Arc::new(Street::default());
    let away = hotspot(&street, AWAY, away, rides).await;
    let home = hotspot(&street, HOME, home, rides).await;
    let device = Device::new();
    home.add(&device);
    (street, home, away, device)
}

// ---- a device ----

struct Device {
    join_eui: JoinEui,
    app_key: Key,
    dev_nonce: u16,
    fcnt_up: u32,
    session: Option<(DevAddr, crypto::SessionKeys)>,
    /// Of the last Join-accept.
    cf_list: Vec<u8>,
}

impl Device {
    fn new() -> Device {
        Device {
            join_eui: JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 1]),
            app_key: Key::new([0x2B; 16]),
            dev_nonce: 0,
            fcnt_up: 0,
            session: None,
            cf_list: Vec::new(),
        }
    }

    fn join_request(&mut self) -> Vec<u8> {
        self.dev_nonce += 1;
        let mut phy = vec![0];
        phy.extend(self.join_eui.to_air());
        phy.extend(DEV.to_air());
        phy.extend(self.dev_nonce.to_le_bytes());
        phy.extend(crypto::join_mic(&self.app_key, &phy.clone()));
        phy
    }

    fn joined(&mut self, accept: &[u8]) {
        // home, also abroad
        self.joined_at(accept, HOME);
    }

    /// The same where this network gave the address.
    fn joined_at(&mut self, accept: &[u8], serving: NetId) {
        let mut clear = accept.to_vec();
        crypto::decrypt_join_accept(&self.app_key, &mut clear[1..]);
        let (body, mic) = clear.split_at(clear.len() - 4);
        assert_eq!(crypto::join_mic(&self.app_key, body), mic, "the Join-accept is signed with our key");
        let join_nonce = u32::from_le_bytes([body[1], body[2], body[3], 0]);
        let net_id = NetId::from_msb([body[6], body[5], body[4]]);
        let addr = DevAddr::from_air(body[7..11].try_into().unwrap());
        assert!(net_id == HOME && serving.covers(addr), "{addr}");
        self.fcnt_up = 0;
        self.cf_list = body[13..].to_vec();
        self.session = Some((addr, crypto::session_keys(&self.app_key, join_nonce, net_id, self.dev_nonce)));
    }

    /// A data frame: MHDR, FCtrl, FOpts and, encrypted, a payload on port 2.
    fn up(&mut self, confirmed: bool, ack: bool, fopts: &[u8], payload: &[u8]) -> Vec<u8> {
        let (addr, keys) = self.session.as_ref().unwrap();
        let mut phy = vec![if confirmed { 0x80 } else { 0x40 }];
        phy.extend(addr.to_air());
        phy.push(u8::from(ack) << 5 | fopts.len() as u8);
        phy.extend(&self.fcnt_up.to_le_bytes()[..2]);
        phy.extend(fopts);
        let mut frm = payload.to_vec();
        crypto::crypt_payload(&keys.app_s_key, Direction::Up, *addr, self.fcnt_up, &mut frm);
        phy.push(2);
        phy.extend(frm);
        phy.extend(crypto::data_mic(&keys.nwk_s_key, Direction::Up, *addr, self.fcnt_up, &phy.clone()));
        self.fcnt_up += 1;
        phy
    }

    /// Take a downlink apart: FCnt, ACK, FPort and clear payload.
    fn hears(&self, phy: &[u8]) -> (u32, bool, Option<(u8, Vec<u8>)>) {
        self.hears_after(phy, 0)
    }

    /// The same where so many rounds of 16 bits have passed.
    fn hears_after(&self, phy: &[u8], rounds: u32) -> (u32, bool, Option<(u8, Vec<u8>)>) {
        let (addr, keys) = self.session.as_ref().unwrap();
        let fcnt = rounds << 16 | u32::from(u16::from_le_bytes([phy[6], phy[7]]));
        assert!(crypto::data_mic_matches(&keys.nwk_s_key, Direction::Down, *addr, fcnt, phy), "MIC");
        let rest = &phy[8 + usize::from(phy[5] & 15)..phy.len() - 4];
        let payload = rest.split_first().map(|(port, frm)| {
            let key = if *port == 0 { &keys.nwk_s_key } else { &keys.app_s_key };
            let mut clear = frm.to_vec();
            crypto::crypt_payload(key, Direction::Down, *addr, fcnt, &mut clear);
            (*port, clear)
        });
        (fcnt, phy[5] & 0x20 != 0, payload)
    }
}

/// Join through a hotspot and check the slot: RX1 at exactly 5 s, handed over at once.
async fn join(hotspot: &mut Hotspot, device: &mut Device) {
    let from = Instant::now();
    hotspot.hears(&device.join_request()).await;
    let (tx, handed) = hotspot.transmitted().expect("a Join-accept");
    assert_eq!(tx.start - from, Duration::from_secs(5));
    assert_eq!(handed, from, "nothing on the way waits");
    assert_eq!((tx.frequency, tx.modulation), (868_300_000, Modulation::Lora { sf: 7, bandwidth: 125_000 }));
    device.joined(&tx.phy);
    tokio::time::sleep(Duration::from_secs(7)).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_joins_and_talks_at_home() {
    let (street, mut home, _away, mut device) = street("", true).await;
    join(&mut home, &mut device).await;
    home.queue(b"open", false);
    let from = Instant::now();
    home.hears(&device.up(true, false, &[], b"21.5")).await;
    let (tx, _) = home.transmitted().expect("an acknowledgement with the queued payload");
    assert_eq!(tx.start - from, Duration::from_secs(1));
    assert_eq!(device.hears(&tx.phy), (0, true, Some((9, b"open".to_vec()))));
    assert!(home.transmitted().is_none(), "one uplink, one downlink");
    assert!(home.memory.forward.lock().unwrap().is_empty(), "the forward row went with the hNS's answer");
    assert!(home.memory.devices.lock().unwrap()[&DEV].queue.is_empty());
    assert!(street.asked.lock().unwrap().is_empty(), "nothing left the house");
}

#[tokio::test(start_paused = true)]
async fn an_unconfirmed_uplink_with_nothing_waiting_stays_unanswered() {
    let (_street, mut home, _away, mut device) = street("", true).await;
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[], b"1")).await;
    assert!(home.transmitted().is_none());
}

#[tokio::test(start_paused = true)]
async fn away_with_roaming_off_nothing_leaves_the_house_and_nothing_is_sent() {
    let (street, _home, mut away, mut device) = street("", true).await;
    away.hears(&device.join_request()).await;
    assert!(away.transmitted().is_none());
    assert!(street.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn away_a_device_is_found_joins_and_talks_with_its_downlinks_in_the_answers() {
    let (street, home, mut away, mut device) = street(ROAMING, true).await;
    join(&mut away, &mut device).await;
    home.queue(b"open", true);
    away.hears(&device.up(true, false, &[], b"21.5")).await;
    let (tx, _) = away.transmitted().expect("the downlink rides home's answer");
    assert_eq!(device.hears(&tx.phy), (0, true, Some((9, b"open".to_vec()))));
    tokio::time::sleep(Duration::from_secs(3)).await;
    away.hears(&device.up(false, true, &[], b"ok")).await;
    assert!(home.memory.devices.lock().unwrap()[&DEV].queue.is_empty(), "acknowledged");
    let (v, h) = (Party::Ns(AWAY), Party::Ns(HOME));
    let js = Party::Js(device.join_eui);
    let expected = [
        (v.clone(), js, "HomeNSReq"),
        (v.clone(), h.clone(), "PRStartReq"),
        (v.clone(), h.clone(), "PRStartReq"),
        (v, h, "PRStartReq"),
    ];
    assert_eq!(*street.asked.lock().unwrap(), expected);
    assert_eq!(fns::Learned::net_ids(&*away.memory), [HOME]);
}

#[tokio::test(start_paused = true)]
async fn a_roaming_downlink_leaves_while_the_prstartreq_is_still_pending() {
    let (street, home, mut away, mut device) = street(ROAMING, false).await;
    join(&mut away, &mut device).await;
    home.queue(b"open", false);
    away.hears(&device.up(false, false, &[], b"21.5")).await;
    let (tx, _) = away.transmitted().expect("a downlink");
    assert_eq!(device.hears(&tx.phy), (0, false, Some((9, b"open".to_vec()))));
    let asked = street.asked.lock().unwrap();
    let last = asked.last().unwrap();
    assert_eq!((&last.0, &last.1, last.2), (&Party::Ns(HOME), &Party::Ns(AWAY), "XmitDataReq"));
}

#[tokio::test(start_paused = true)]
async fn a_replayed_join_request_and_a_replayed_frame_get_nothing() {
    let (_street, mut home, mut away, mut device) = street(ROAMING, true).await;
    let request = device.join_request();
    home.hears(&request).await;
    let (tx, _) = home.transmitted().expect("a Join-accept");
    device.joined(&tx.phy);
    tokio::time::sleep(Duration::from_secs(10)).await;
    home.hears(&request).await;
    away.hears(&request).await;
    assert!(home.transmitted().is_none() && away.transmitted().is_none());
    let first = device.up(true, false, &[], b"1");
    home.hears(&first).await;
    assert!(home.transmitted().is_some());
    tokio::time::sleep(Duration::from_secs(3)).await;
    home.hears(&device.up(true, false, &[], b"2")).await;
    assert!(home.transmitted().is_some());
    tokio::time::sleep(Duration::from_secs(10)).await;
    home.hears(&first).await;
    away.hears(&first).await;
    assert!(home.transmitted().is_none() && away.transmitted().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_mic_gets_nothing_and_costs_no_nonce() {
    let (_street, mut home, _away, mut device) = street(ROAMING, true).await;
    let mut request = device.join_request();
    request[22] ^= 0x80;
    home.hears(&request).await;
    assert!(home.transmitted().is_none());
    assert!(home.memory.root_keys.lock().unwrap()[&DEV].dev_nonces.is_empty());
}

#[tokio::test(start_paused = true)]
async fn rx2_carries_what_rx1_could_not() {
    for refusal in [AirError::TooLate, AirError::CollisionPacket] {
        let (_street, mut home, _away, mut device) = street("", true).await;
        home.ether.refuse.lock().unwrap().push(refusal);
        let from = Instant::now();
        home.hears(&device.join_request()).await;
        let (tx, _) = home.transmitted().expect("a Join-accept in RX2");
        assert_eq!((tx.start - from, tx.frequency), (Duration::from_secs(6), 869_525_000));
        assert_eq!(tx.modulation, Modulation::Lora { sf: 12, bandwidth: 125_000 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_without_the_power_sends_with_less_and_a_silent_one_is_not_asked_twice() {
    let (_street, mut home, _away, mut device) = street("", true).await;
    home.ether.refuse.lock().unwrap().push(AirError::Power);
    home.hears(&device.join_request()).await;
    let (tx, _) = home.transmitted().expect("a Join-accept in RX1");
    assert_eq!((tx.frequency, tx.power), (868_300_000, 14), "16 dBm were refused");
    device.joined(&tx.phy);
    tokio::time::sleep(Duration::from_secs(7)).await;
    home.ether.refuse.lock().unwrap().push(AirError::Silent);
    home.hears(&device.up(true, false, &[], b"1")).await;
    assert!(home.transmitted().is_none(), "it may have been sent: RX2 stays empty");
}

#[tokio::test(start_paused = true)]
async fn a_repetition_of_a_confirmed_uplink_gets_its_own_acknowledgement() {
    let (_street, mut home, _away, mut device) = street("", true).await;
    join(&mut home, &mut device).await;
    let frame = device.up(true, false, &[], b"1");
    home.hears(&frame).await;
    let first = device.hears(&home.transmitted().expect("an ACK").0.phy);
    tokio::time::sleep(Duration::from_millis(1900)).await;
    home.hears(&frame).await;
    let second = device.hears(&home.transmitted().expect("another ACK").0.phy);
    assert_eq!((first.0, second.0), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn link_check_and_device_time_are_answered() {
    let (_street, mut home, _away, mut device) = street("", true).await;
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[0x02, 0x0D], b"1")).await;
    let (tx, _) = home.transmitted().expect("the answers");
    let (_, ack, payload) = device.hears(&tx.phy);
    let (port, commands) = payload.unwrap();
    assert_eq!((ack, port, commands.len()), (false, 0, 9));
    // margin: 8 dB over the -7.5 dB that SF7 needs
    assert_eq!(commands[..3], [0x02, 16, 1]);
    // the time of the uplink: a join takes it seven seconds
    let (gps, _) = crate::lorawan::mac::gps_time("2026-11-20T10:00:07Z".parse().unwrap());
    assert_eq!(commands[3..8], [&[0x0D][..], &gps.to_le_bytes()].concat());
}

#[tokio::test(start_paused = true)]
async fn a_homes_join_server_that_is_unplugged_ends_the_join_and_the_next_try_asks_again() {
    let (street, _home, mut away, mut device) = street(ROAMING, true).await;
    *street.unplugged.lock().unwrap() = Some(Party::Js(device.join_eui));
    away.hears(&device.join_request()).await;
    assert!(away.transmitted().is_none());
    *street.unplugged.lock().unwrap() = None;
    join(&mut away, &mut device).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_answers_one_hearing_of_one_device_for_one_partner() {
    let (_street, mut home, mut away, mut device) = street(ROAMING, true).await;
    join(&mut away, &mut device).await;
    let other_device = {
        let (addr, keys) = device.session.as_ref().unwrap();
        let stranger = DevAddr::new(addr.number() ^ 1);
        crate::lorawan::frame::Downlink::default().build(&keys.nwk_s_key, stranger, 0)
    };
    // catch a token as home would get it
    let catch = {
        let (addr, keys) = device.session.as_ref().unwrap();
        let down = crate::lorawan::frame::Downlink::default().build(&keys.nwk_s_key, *addr, 5);
        let hearing = fns::Hearing {
            gateway: GatewayEui::from_msb([0xAA; 8]),
            session: 1,
            tmst: Count(5),
            at: Instant::now(),
            time: 0,
            dev_addr: Some(*addr),
            number: 5,
        };
        (down, hearing)
    };
    let (down, hearing) = catch;
    // the walk's seals start with their houses: the same key, and the epoch of this test's start
    let seal = Seal::new(&[7; 32], Instant::now() - Duration::from_secs(7));
    let token = seal.make(&Party::Ns(HOME), &hearing, [1; 12]);
    let by = Deadline(Instant::now() + Duration::from_secs(2));
    let ask = |from: NetId, phy: &[u8], token: &[u8]| {
        let from = Caller { party: Party::Ns(from), receiver: Party::Ns(AWAY), ours: false, by };
        let dl = crate::backend::message::DlMeta {
            dl_freq1: Some(868_300_000),
            data_rate1: Some(5),
            rx_delay1: Some(1),
            fns_ul_token: Some(token.to_vec()),
            ..Default::default()
        };
        let req = crate::backend::message::XmitDown { phy_payload: phy.to_vec(), dl, account: None };
        away.house.fns.downlink(from, req)
    };
    let stranger = NetId::from_msb([0, 0, 2]);
    assert_eq!(ask(stranger, &down, &token).await.unwrap_err().code, ResultCode::XmitFailed);
    assert_eq!(ask(HOME, &other_device, &token).await.unwrap_err().code, ResultCode::XmitFailed);
    let mut forged = token.clone();
    forged[20] ^= 1;
    assert_eq!(ask(HOME, &down, &forged).await.unwrap_err().code, ResultCode::XmitFailed);
    assert_eq!(ask(HOME, &down, &token).await.unwrap().dl_freq1, Some(868_300_000));
    assert_eq!(ask(HOME, &down, &token).await.unwrap_err().code, ResultCode::XmitFailed, "used twice");
    assert!(away.transmitted().is_some() && away.transmitted().is_none() && home.transmitted().is_none());
}
