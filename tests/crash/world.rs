//! The world around the node: devices that remember what they sent and heard, whatever becomes of the node, and the
//! judge who holds the node to its promises.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use roamgate::lorawan::crypto::{self, Direction};
use roamgate::lorawan::{DevAddr, DevEui, JoinEui, Key, NetId};
use serde_json::Value;
use tokio::sync::oneshot;

/// 25 bits of its DevAddrs are free: no two sessions share one.
pub const NET_ID: NetId = NetId::from_msb([0, 0, 0x13]);
pub const JOIN_EUI: JoinEui = JoinEui::from_msb([0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1]);
/// `balanced` may lose so much, in frames and nanoseconds.
const FRAMES: usize = 1024;
const COUNTERS: u64 = 30_000_000_000;
const UNDELIVERED: u64 = 1_000_000_000;

/// A device and all it knows.
pub struct Device {
    pub dev_eui: DevEui,
    pub app_key: Key,
    /// LoRaWAN 1.0.4: its DevNonces count. Older ones throw dice.
    pub counts: bool,
    joins: Vec<Join>,
    join_nonces: BTreeSet<u32>,
    /// The session that it uses.
    session: Option<usize>,
    /// It has asked for another one since.
    asked: bool,
    /// Confirmed uplinks in a row that nobody acknowledged.
    unheard: u32,
    /// A confirmed downlink waits for its acknowledgement.
    owes: bool,
    /// Downlinks that an application wanted sent, by id.
    items: BTreeMap<String, (Vec<u8>, Item)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Asked,
    /// The node has said that it has it.
    Queued,
    /// It was on the air.
    Seen,
}

struct Join {
    dev_nonce: u16,
    phy: Vec<u8>,
    answered: bool,
    round: usize,
}

struct Session {
    device: usize,
    dev_addr: DevAddr,
    nwk_s_key: Key,
    app_s_key: Key,
    next: u32,
    ups: BTreeMap<u32, Up>,
    downs: BTreeSet<u32>,
    /// An uplink of it was accepted.
    used: bool,
}

/// An uplink that was sent.
struct Up {
    phy: Vec<u8>,
    confirmed: bool,
    /// It has a payload for the application.
    payload: Option<Vec<u8>>,
    round: usize,
    tmst: u32,
    head: u64,
    /// When it was said to be accepted.
    accepted: Option<u64>,
    acked: bool,
    delivered: u32,
    /// Its counter was lost as `balanced` allows: it may be accepted as new again.
    may_return: bool,
    /// Its payload was lost so.
    may_miss: bool,
    /// What was seen of it, for whoever looks for the reason.
    trail: String,
}

/// What a frame in this round was.
#[derive(Clone, Copy)]
enum Frame {
    Join(usize, usize),
    Up(usize, u32),
}

/// What was seen, in numbers.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub join_accepts: usize,
    pub accepted: usize,
    pub accepted_again: usize,
    pub acks: usize,
    pub downlinks: usize,
    pub delivered: usize,
    pub delivered_again: usize,
    pub replays: usize,
    pub queued: usize,
}

impl Counts {
    /// Effects that the promises speak of.
    pub fn effects(&self) -> usize {
        self.join_accepts + self.accepted + self.downlinks + self.delivered + self.queued
    }
}

/// What one crash took, as `balanced` allows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lost {
    /// Counters of accepted uplinks, and the age of the oldest of them in nanoseconds.
    pub counters: usize,
    pub counters_age: u64,
    /// Accepted uplinks that no application will see, likewise.
    pub undelivered: usize,
    pub undelivered_age: u64,
}

/// What the store holds after a crash.
#[derive(Debug, Default)]
pub struct Found {
    pub devices: BTreeMap<DevEui, FoundDevice>,
    /// Uplinks that wait for the hNS or for an application, and where.
    pub waiting: BTreeMap<(DevAddr, u32), &'static str>,
}

#[derive(Debug, Default)]
pub struct FoundDevice {
    pub dev_nonces: BTreeSet<u16>,
    pub join_nonce: u32,
    /// By address: the last FCntUp, the next FCntDown.
    pub sessions: BTreeMap<DevAddr, (Option<u32>, u32)>,
    /// Ids of queued downlinks.
    pub queue: BTreeSet<String>,
}

/// What a device does next.
pub enum Action {
    /// Send this line to the node, and wait for its effect.
    Wait(String, oneshot::Receiver<()>),
    /// Send this line.
    Send(String),
}

/// Everything outside the node.
#[derive(Default)]
pub struct World {
    pub devices: Vec<Device>,
    sessions: Vec<Session>,
    by_addr: BTreeMap<DevAddr, usize>,
    frames: BTreeMap<u32, Frame>,
    waiters: BTreeMap<u32, oneshot::Sender<()>>,
    tmst: u32,
    pub round: usize,
    /// Promises that were broken.
    pub faults: Vec<String>,
    pub counts: Counts,
}

impl World {
    pub fn new(devices: usize, rng: &mut StdRng) -> World {
        let device = |n: usize| Device {
            dev_eui: DevEui::from_msb([0x58, 0x17, 0xB1, 0xC3, 0xEB, 0x89, 0xF0, n as u8]),
            app_key: Key::new(rng.random()),
            counts: n % 2 == 1,
            joins: Vec::new(),
            join_nonces: BTreeSet::new(),
            session: None,
            asked: false,
            unheard: 0,
            owes: false,
            items: BTreeMap::new(),
        };
        World { devices: (0..devices).map(device).collect(), ..World::default() }
    }

    /// A process begins or has ended: nobody waits for the old one's answers.
    pub fn next_round(&mut self) {
        self.round += 1;
        self.frames.clear();
        self.waiters.clear();
        self.tmst = 1000;
    }

    fn fault(&mut self, fault: String) {
        let round = self.round;
        self.faults.push(format!("round {round}: {fault}"));
    }

    fn heard(&mut self, head: u64, phy: &[u8], frame: Frame) -> (u32, String) {
        self.tmst += 1;
        self.frames.insert(self.tmst, frame);
        (self.tmst, format!("heard {head} {} {}", self.tmst, hex::encode(phy)))
    }

    fn waits(&mut self, tmst: u32) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.waiters.insert(tmst, done);
        wait
    }

    /// What device `n` does next.
    pub fn acts(&mut self, n: usize, rng: &mut StdRng) -> Action {
        let device = &self.devices[n];
        let Some(session) = device.session.filter(|_| device.unheard < 4) else { return self.joins(n, rng) };
        if let Some((fcnt, _)) = self.sessions[session]
            .ups
            .last_key_value()
            .filter(|(_, up)| up.confirmed && !up.acked && up.round < self.round)
        {
            // A device repeats what nobody acknowledged.
            let fcnt = *fcnt;
            return self.repeats(session, fcnt);
        }
        match rng.random_range(0..100) {
            0..14 => self.joins(n, rng),
            14..24 => self.replays(n, rng),
            24..30 => self.queues(n, rng),
            30..60 => self.sends(session, true, rng),
            _ => self.sends(session, false, rng),
        }
    }

    /// Device `n` asks for a session.
    pub fn joins(&mut self, n: usize, rng: &mut StdRng) -> Action {
        let round = self.round;
        let device = &mut self.devices[n];
        let dev_nonce = match device.counts {
            true => device.joins.len() as u16,
            false => loop {
                let nonce = rng.random();
                if device.joins.iter().all(|join| join.dev_nonce != nonce) {
                    break nonce;
                }
            },
        };
        let mut phy = vec![0];
        phy.extend(JOIN_EUI.to_air());
        phy.extend(device.dev_eui.to_air());
        phy.extend(dev_nonce.to_le_bytes());
        phy.extend(crypto::join_mic(&device.app_key, &phy));
        let at = device.joins.len();
        device.joins.push(Join { dev_nonce, phy: phy.clone(), answered: false, round });
        device.asked = true;
        let (tmst, line) = self.heard(head(n, at), &phy, Frame::Join(n, at));
        Action::Wait(line, self.waits(tmst))
    }

    /// An uplink; some want a MAC answer, some have no payload.
    pub fn sends(&mut self, session: usize, confirmed: bool, rng: &mut StdRng) -> Action {
        let carries = rng.random_range(0..10) > 0;
        let asks = rng.random_range(0..5) == 0;
        let payload = carries.then(|| {
            let mut payload = vec![0; rng.random_range(1..40)];
            rng.fill_bytes(&mut payload);
            payload
        });
        self.sends_this(session, confirmed, asks, payload)
    }

    /// The device's next uplink: `asks` puts a LinkCheckReq in.
    pub fn sends_this(
        &mut self,
        session: usize,
        confirmed: bool,
        asks: bool,
        payload: Option<Vec<u8>>,
    ) -> Action {
        let n = self.sessions[session].device;
        let owes = std::mem::take(&mut self.devices[n].owes);
        if confirmed {
            self.devices[n].unheard += 1;
        }
        let round = self.round;
        let of = &mut self.sessions[session];
        let fcnt = of.next;
        of.next += 1;
        let mut phy = vec![if confirmed { 0x80 } else { 0x40 }];
        phy.extend(of.dev_addr.to_air());
        phy.push(u8::from(asks) | if owes { 0x20 } else { 0 });
        phy.extend((fcnt as u16).to_le_bytes());
        if asks {
            phy.push(0x02);
        }
        if let Some(payload) = &payload {
            let mut payload = payload.clone();
            crypto::crypt_payload(&of.app_s_key, Direction::Up, of.dev_addr, fcnt, &mut payload);
            phy.push(10);
            phy.extend(payload);
        }
        phy.extend(crypto::data_mic(&of.nwk_s_key, Direction::Up, of.dev_addr, fcnt, &phy));
        let head = head(n, fcnt as usize);
        let (tmst, line) = self.heard(head, &phy, Frame::Up(session, fcnt));
        let up = Up {
            phy,
            confirmed,
            payload,
            round,
            tmst,
            head,
            accepted: None,
            acked: false,
            delivered: 0,
            may_return: false,
            may_miss: false,
            trail: String::new(),
        };
        self.sessions[session].ups.insert(fcnt, up);
        Action::Wait(line, self.waits(tmst))
    }

    fn repeats(&mut self, session: usize, fcnt: u32) -> Action {
        let round = self.round;
        let Some(up) = self.sessions[session].ups.get_mut(&fcnt) else { unreachable!() };
        up.round = round;
        let (phy, head) = (up.phy.clone(), up.head);
        let (tmst, line) = self.heard(head, &phy, Frame::Up(session, fcnt));
        if let Some(up) = self.sessions[session].ups.get_mut(&fcnt) {
            up.tmst = tmst;
        }
        Action::Wait(line, self.waits(tmst))
    }

    /// Somebody sends again what was heard before the last crash.
    fn replays(&mut self, n: usize, rng: &mut StdRng) -> Action {
        self.counts.replays += 1;
        let round = self.round;
        let old: Vec<usize> = self.devices[n]
            .joins
            .iter()
            .enumerate()
            .filter(|(_, join)| join.round < round)
            .map(|(at, _)| at)
            .collect();
        if !old.is_empty() && rng.random_range(0..3) == 0 {
            // Mostly a fresh one: it was committed last.
            let at = old[old.len() - 1 - rng.random_range(0..old.len().min(4))];
            let device = &mut self.devices[n];
            // The network may never have heard it: then it is as good as the device's own.
            device.asked |= !device.joins[at].answered;
            let phy = device.joins[at].phy.clone();
            let (_, line) = self.heard(head(n, at), &phy, Frame::Join(n, at));
            return Action::Send(line);
        }
        let session = self.devices[n].session.unwrap_or_default();
        let old: Vec<u32> = self.sessions[session]
            .ups
            .iter()
            .filter(|(_, up)| up.round < round)
            .map(|(fcnt, _)| *fcnt)
            .collect();
        if old.is_empty() {
            return self.sends(session, false, rng);
        }
        let fcnt = old[old.len() - 1 - rng.random_range(0..old.len().min(8))];
        let up = &self.sessions[session].ups[&fcnt];
        let (phy, head) = (up.phy.clone(), up.head);
        let (_, line) = self.heard(head, &phy, Frame::Up(session, fcnt));
        Action::Send(line)
    }

    /// An application wants something sent.
    fn queues(&mut self, n: usize, rng: &mut StdRng) -> Action {
        let (id, payload) = (format!("{:016x}", rng.random::<u64>()), rng.random::<[u8; 8]>().to_vec());
        let device = &mut self.devices[n];
        let line = format!("queue {} {id} {}", device.dev_eui, hex::encode(&payload));
        device.items.insert(id, (payload, Item::Asked));
        Action::Send(line)
    }

    /// A line that the node said. `now`: nanoseconds since 1970.
    pub fn effect(&mut self, line: &str, now: u64) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["tx", at, phy] => {
                let (Ok(at), Ok(phy)) = (at.parse::<u32>(), hex::decode(phy)) else { return };
                let base = [1u32, 2, 5, 6].iter().filter_map(|second| at.checked_sub(second * 1_000_000));
                let found = base.filter_map(|tmst| Some((tmst, *self.frames.get(&tmst)?))).next();
                let Some((tmst, frame)) = found else {
                    return self.fault(format!("a transmission that answers nothing: {line}"));
                };
                match phy[0] {
                    0x20 => self.join_accept(frame, &phy),
                    _ => self.downlink(frame, &phy),
                }
                self.waiters.remove(&tmst).map(|waiter| waiter.send(()));
            }
            ["accepted", addr, fcnt, how] => {
                let (Ok(addr), Ok(fcnt)) = (addr.parse::<DevAddr>(), fcnt.parse::<u32>()) else { return };
                self.accepted(addr, fcnt, how == "new", now);
            }
            ["queued", id] => {
                self.counts.queued += 1;
                for device in &mut self.devices {
                    match device.items.get_mut(id) {
                        // it may have gone out in the meantime
                        Some((_, item)) if *item == Item::Asked => *item = Item::Queued,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn join_accept(&mut self, frame: Frame, phy: &[u8]) {
        self.counts.join_accepts += 1;
        let Frame::Join(n, at) = frame else {
            return self.fault("a Join-accept answers a data frame".into());
        };
        let device = &mut self.devices[n];
        let mut clear = phy.to_vec();
        crypto::decrypt_join_accept(&device.app_key, &mut clear[1..]);
        assert!(crypto::join_mic_matches(&device.app_key, &clear), "a Join-accept for somebody else");
        let join_nonce = u32::from_le_bytes([clear[1], clear[2], clear[3], 0]);
        let dev_addr = DevAddr::from_air([clear[7], clear[8], clear[9], clear[10]]);
        let (dev_eui, last) = (device.dev_eui, at + 1 == device.joins.len());
        let join = &mut device.joins[at];
        let (dev_nonce, again) = (join.dev_nonce, std::mem::replace(&mut join.answered, true));
        let given = !device.join_nonces.insert(join_nonce);
        let keys = crypto::session_keys(&device.app_key, join_nonce, NET_ID, dev_nonce);
        if last {
            device.session = Some(self.sessions.len());
            (device.asked, device.unheard, device.owes) = (false, 0, false);
        }
        self.by_addr.insert(dev_addr, self.sessions.len());
        self.sessions.push(Session {
            device: n,
            dev_addr,
            nwk_s_key: keys.nwk_s_key,
            app_s_key: keys.app_s_key,
            next: 0,
            ups: BTreeMap::new(),
            downs: BTreeSet::new(),
            used: false,
        });
        if again {
            self.fault(format!("{dev_eui}: DevNonce {dev_nonce} was accepted twice"));
        }
        if given {
            self.fault(format!("{dev_eui}: JoinNonce {join_nonce} was given twice"));
        }
    }

    fn downlink(&mut self, frame: Frame, phy: &[u8]) {
        self.counts.downlinks += 1;
        let Frame::Up(at, fcnt_up) = frame else { return self.fault("a downlink answers a join".into()) };
        let session = &mut self.sessions[at];
        let addr = DevAddr::from_air([phy[1], phy[2], phy[3], phy[4]]);
        let fcnt = u32::from(u16::from_le_bytes([phy[6], phy[7]]));
        assert_eq!(addr, session.dev_addr, "an answer to somebody else");
        let mic = crypto::data_mic_matches(&session.nwk_s_key, Direction::Down, addr, fcnt, phy);
        assert!(mic, "a downlink with other keys");
        let device = &mut self.devices[session.device];
        let fopts = usize::from(phy[5] & 0x0F);
        if phy.len() > 8 + fopts + 4 && phy[8 + fopts] == 2 {
            let mut payload = phy[9 + fopts..phy.len() - 4].to_vec();
            crypto::crypt_payload(&session.app_s_key, Direction::Down, addr, fcnt, &mut payload);
            device
                .items
                .values_mut()
                .filter(|(of, _)| *of == payload)
                .for_each(|(_, item)| *item = Item::Seen);
        }
        device.owes |= phy[0] == 0xA0;
        if phy[5] & 0x20 != 0 {
            self.counts.acks += 1;
            device.unheard = 0;
            if let Some(up) = session.ups.get_mut(&fcnt_up) {
                up.acked = true;
            }
        }
        if !session.downs.insert(fcnt) {
            self.fault(format!("FCntDown {fcnt} of {addr} was used twice"));
        }
    }

    fn accepted(&mut self, addr: DevAddr, fcnt: u32, new: bool, now: u64) {
        let found = self.by_addr.get(&addr).and_then(|at| self.sessions.get_mut(*at));
        let Some(session) = found else {
            return self.fault(format!("{addr} was accepted and nobody has it"));
        };
        session.used = true;
        let Some(up) = session.ups.get_mut(&fcnt) else {
            return self.fault(format!("FCntUp {fcnt} of {addr} was accepted and not sent"));
        };
        let before = up.accepted.is_some();
        let tmst = up.tmst;
        let wants_answer = up.confirmed;
        let twice = new && before && !up.may_return;
        up.trail += &format!(" {}:{}", self.round, if new { "new" } else { "again" });
        if new || !before {
            up.accepted = Some(now);
            (up.may_return, up.may_miss) = (false, false);
        }
        match new && before {
            true => self.counts.accepted_again += 1,
            false => self.counts.accepted += 1,
        }
        if twice {
            self.fault(format!("FCntUp {fcnt} of {addr} was accepted as new twice"));
        }
        if !wants_answer {
            self.waiters.remove(&tmst).map(|waiter| waiter.send(()));
        }
    }

    /// An event that the application was told.
    pub fn delivered(&mut self, event: &Value) {
        let addr = event["devAddr"].as_str().and_then(|addr| addr.parse::<DevAddr>().ok());
        let (Some(addr), Some(fcnt)) = (addr, event["fCnt"].as_u64()) else { return };
        let payload = BASE64.decode(event["data"].as_str().unwrap_or_default()).ok();
        self.counts.delivered += 1;
        let found = self.by_addr.get(&addr).and_then(|at| self.sessions.get_mut(*at));
        match found.and_then(|session| session.ups.get_mut(&(fcnt as u32))) {
            Some(up) if up.payload == payload => {
                up.delivered += 1;
                up.trail += &format!(" {}:delivered", self.round);
                self.counts.delivered_again += usize::from(up.delivered > 1);
            }
            _ => self.fault(format!("the application was told what nobody sent: {event}")),
        }
    }

    /// Whether the application knows everything that it must.
    pub fn all_delivered(&self) -> bool {
        let ups = self.sessions.iter().flat_map(|session| session.ups.values());
        ups.filter(|up| up.accepted.is_some() && up.payload.is_some())
            .all(|up| up.delivered > 0 || up.may_miss)
    }

    /// Of acknowledged confirmed uplinks, how many the application never saw.
    pub fn check_delivered(&mut self) {
        let mut missing = Vec::new();
        for session in &self.sessions {
            for (fcnt, up) in &session.ups {
                let must = up.accepted.is_some() && !up.may_miss || up.acked;
                if up.payload.is_some() && up.delivered == 0 && must {
                    let addr = session.dev_addr;
                    missing.push(format!(
                        "FCntUp {fcnt} of {addr} (confirmed: {}, acknowledged: {}) never came to the application",
                        up.confirmed, up.acked
                    ));
                }
            }
        }
        missing.into_iter().for_each(|fault| self.fault(fault));
    }

    /// The promises, against what the store holds after a crash at `now`. `lossy`: the mode is `balanced`, so some
    /// of what was accepted lazily may be gone.
    pub fn check(&mut self, found: &Found, lossy: bool, now: u64) -> Lost {
        let mut faults = Vec::new();
        let mut lost = Lost::default();
        let nobody = FoundDevice::default();
        for (n, device) in self.devices.iter().enumerate() {
            let (dev_eui, stored) = (device.dev_eui, found.devices.get(&device.dev_eui).unwrap_or(&nobody));
            let known = |nonce: u16| match device.counts {
                true => stored.dev_nonces.last().is_some_and(|last| *last >= nonce),
                false => stored.dev_nonces.contains(&nonce),
            };
            let answered = device.joins.iter().filter(|join| join.answered);
            faults.extend(
                answered
                    .filter(|join| !known(join.dev_nonce))
                    .map(|join| format!("{dev_eui}: DevNonce {} is forgotten", join.dev_nonce)),
            );
            if device.join_nonces.last().is_some_and(|last| stored.join_nonce < *last) {
                faults.push(format!("{dev_eui}: JoinNonce went back to {}", stored.join_nonce));
            }
            for (id, (_, item)) in &device.items {
                if *item == Item::Queued && !stored.queue.contains(id) {
                    faults.push(format!("{dev_eui}: queued downlink {id} is lost"));
                }
            }
            for session in self.sessions.iter_mut().filter(|session| session.device == n) {
                let addr = session.dev_addr;
                let current = device.session.is_some_and(|at| self.by_addr.get(&addr) == Some(&at));
                let Some((fcnt_up, fcnt_down)) = stored.sessions.get(&addr).copied() else {
                    if current && (session.used || !device.asked) {
                        faults.push(format!("{dev_eui}: the session of {addr} is lost"));
                    }
                    judge_undelivered(session, found, self.round, lossy, now, &mut lost, &mut faults);
                    continue;
                };
                if session.downs.last().is_some_and(|last| fcnt_down <= *last) {
                    faults.push(format!("{addr}: FCntDown went back to {fcnt_down}"));
                }
                for (fcnt, up) in session.ups.iter_mut().rev() {
                    if fcnt_up.is_some_and(|last| *fcnt <= last) {
                        break;
                    }
                    let Some(at) = up.accepted.filter(|_| !up.may_return) else { continue };
                    if up.acked || !lossy {
                        faults.push(format!("{addr}: FCntUp {fcnt} was accepted and is forgotten"));
                    }
                    lost.counters += 1;
                    lost.counters_age = lost.counters_age.max(now.saturating_sub(at));
                    up.may_return = true;
                }
                judge_undelivered(session, found, self.round, lossy, now, &mut lost, &mut faults);
            }
        }
        if lost.counters > FRAMES || lost.counters_age > COUNTERS {
            faults.push(format!("more is lost than `balanced` may lose: {lost:?}"));
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
        lost
    }

    /// The sessions that devices use, for traffic of one kind.
    pub fn session_of(&self, n: usize) -> Option<usize> {
        self.devices[n].session
    }
}

/// Every accepted uplink with a payload is with the application, or waits for it.
fn judge_undelivered(
    session: &mut Session,
    found: &Found,
    round: usize,
    lossy: bool,
    now: u64,
    lost: &mut Lost,
    faults: &mut Vec<String>,
) {
    let addr = session.dev_addr;
    for (fcnt, up) in &mut session.ups {
        let Some(at) = up.accepted.filter(|_| up.payload.is_some() && up.delivered == 0 && !up.may_miss)
        else {
            continue;
        };
        if let Some(place) = found.waiting.get(&(addr, *fcnt)) {
            up.trail += &format!(" {round}:{place}");
            continue;
        }
        let age = now.saturating_sub(at);
        if up.acked || !lossy || age > UNDELIVERED {
            faults.push(format!(
                "{addr}: FCntUp {fcnt} was accepted {} ms ago, is not delivered and waits nowhere:{}",
                age / 1_000_000,
                up.trail
            ));
        }
        lost.undelivered += 1;
        lost.undelivered_age = lost.undelivered_age.max(age);
        up.may_miss = true;
    }
}

/// A head of its own for nearly every frame: no frame's receive window is taken by another's.
fn head(device: usize, frame: usize) -> u64 {
    0xAA55_5A00_0000_0000 + (device as u64) * 4096 + frame as u64 % 512
}
