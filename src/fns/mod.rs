//! Forwarding network server: every frame of every radio enters here, every transmission leaves here.
//!
//! Owns dedup, routing to homes, sealed tokens and the windows' truth. Knows no HTTP, DNS or
//! database; the radio is behind [`Air`].

mod activate;
mod budget;
mod class_c;
pub mod contexts;
pub mod dedup;
mod downlink;
mod heads;
pub mod hold_off;
mod homes;
pub mod parked;
mod passive_data;
mod passive_start;
mod passive_stop;
mod profiles;
mod route;
mod token;
pub mod usage;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::backend::door::{Boxed, Deadline, Peers, StoreError};
use crate::clock::{Clock, Instant};
use crate::discovery::bucket::Strangers;
use crate::jit::Jit;
use crate::limits::{Buckets, Rate, Seldom};
use crate::lorawan::frame::Uplink;
use crate::lorawan::{GatewayEui, Modulation, NetId, Region};
use crate::partners;
use activate::Unanswered;

use activate::Joining;
use budget::Budgets;
use class_c::Ways;
use contexts::{Book, Contexts};
use dedup::{Dedup, Seen};
use heads::Heads;
use hold_off::{HoldOffs, Limits};
use homes::Homes;
use parked::{Lot, Parking};
use profiles::Rates;
pub use token::{Hearing, Seal};
use usage::{Counted, Usage};

/// A concentrator's 32-bit microsecond counter; wraps after 71.6 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u32);

impl Count {
    /// The counter some time later, modulo 2^32.
    pub fn plus(self, time: Duration) -> Count {
        Count(self.0.wrapping_add(time.as_micros() as u32))
    }

    /// Time from an earlier count to this one, less than one wrap.
    pub fn since(self, earlier: Count) -> Duration {
        Duration::from_micros(self.0.wrapping_sub(earlier.0).into())
    }
}

/// One hearing of one frame by one radio head.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// The frame, CRC good.
    pub phy: Vec<u8>,
    /// The radio head.
    pub gateway: GatewayEui,
    /// The head's radio session: its `tmst` means something only within it (a restart of the head
    /// or of this program begins another).
    pub session: u64,
    /// Hertz.
    pub frequency: u32,
    /// How it was modulated.
    pub modulation: Modulation,
    /// dBm.
    pub rssi: i32,
    /// dB.
    pub snr: f64,
    /// The head's counter at the end of the frame.
    pub tmst: Count,
    /// The host's instant nearest to the end of the frame.
    pub at: Instant,
    /// Wall time of arrival.
    pub time: Timestamp,
    /// Degrees latitude, longitude of the head, where known.
    pub location: Option<(f64, f64)>,
    /// Nanoseconds since the last pulse of GPS, where the head measures them: within the second of `time`.
    pub fine_time: Option<u32>,
}

/// A transmission by one radio head, at an exact count or as soon as the head can.
#[derive(Debug, Clone, PartialEq)]
pub struct Tx {
    /// The radio head.
    pub gateway: GatewayEui,
    /// The radio session whose counter `at` belongs to.
    pub session: u64,
    /// The frame.
    pub phy: Vec<u8>,
    /// Hertz.
    pub frequency: u32,
    /// How to modulate it.
    pub modulation: Modulation,
    /// EIRP, dBm.
    pub power: i8,
    /// When it starts, on the head's counter; `None`: at once (class C), in any radio session.
    pub at: Option<Count>,
    /// The same moment on the host's clock.
    pub start: Instant,
}

/// The radio took the frame (it is queued there, not radiated yet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// EIRP that will be used, dBm, where the head said so.
    pub power: Option<i8>,
}

/// Why a radio head did not take a frame. Names of the packet forwarder's TX_ACK where it has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AirError {
    /// Too late for the slot: another window may do.
    #[error("TOO_LATE")]
    TooLate,
    /// Too far ahead.
    #[error("TOO_EARLY")]
    TooEarly,
    /// The slot is taken by another frame: another window may do.
    #[error("COLLISION_PACKET")]
    CollisionPacket,
    /// The slot is taken by a beacon.
    #[error("COLLISION_BEACON")]
    CollisionBeacon,
    /// The head cannot transmit at this frequency.
    #[error("TX_FREQ")]
    Frequency,
    /// The head cannot transmit with this power.
    #[error("TX_POWER")]
    Power,
    /// The head has no GPS time.
    #[error("GPS_UNLOCKED")]
    GpsUnlocked,
    /// The head is not connected, or was restarted since it heard the uplink.
    #[error("the radio head {0} is gone or was restarted")]
    Gone(GatewayEui),
    /// The head did not say in time whether it took the frame.
    #[error("no TX_ACK in time")]
    Silent,
}

/// The radio, as the fNS needs it.
pub trait Air: Send + Sync {
    /// Hand a frame to its radio head; answers when the head has taken or refused it.
    fn transmit(&self, tx: Tx, before: Deadline) -> Boxed<'_, Result<Sent, AirError>>;
    /// Radio heads online now.
    fn heads(&self) -> usize;
    /// Whether a head can transmit now, as far as the radio knows.
    fn online(&self, gateway: GatewayEui) -> bool;
    /// Whether a head sends the beacons of class B by itself.
    fn sends_beacons(&self) -> bool {
        false
    }
}

/// What the fNS keeps in the store: homes that it learnt from HomeNSAns.
pub trait Learned: Send + Sync {
    /// Every NetID learnt, for routing of data frames (TS002 3.2).
    fn net_ids(&self) -> Vec<NetId>;
    /// Remember one.
    fn learn(&self, net_id: NetId) -> Boxed<'_, Result<(), StoreError>>;
}

/// Answered hearings are remembered while any of their windows may still be open.
const SPENT: Duration = Duration::from_secs(20);

/// Data frames of addresses that no network called its own yet, from one radio head to one network: anybody can make
/// such frames, and each costs a message. Enough for the first frames of many visitors after a restart.
const UNSERVED: Rate = Rate { burst: 200, every: Duration::from_millis(50) };
/// Buckets of them.
const NETWORKS: usize = 1024;

/// What the fNS counts instead of answering.
#[derive(Debug, Default)]
pub struct Counters {
    /// Hearings of all radios.
    pub heard: Counter,
    /// Copies of frames heard already.
    pub copies: Counter,
    /// Copies that came when the frame had been dealt with for two seconds.
    pub late: Counter,
    /// Bytes that are no LoRaWAN uplink.
    pub malformed: Counter,
    /// Visitors' frames dropped because the clock is not set.
    pub clock: Counter,
    /// Visitors' frames dropped because the disk is nearly full.
    pub disk: Counter,
    /// Unknown devices dropped before any lookup or message.
    pub throttled: Counter,
    /// Visitors' frames that `[roaming.filter]` keeps out.
    pub filtered: Counter,
    /// Data frames of nobody we know.
    pub unknown: Counter,
    /// Data frames that the key of a roaming context calls forged.
    pub forged: Counter,
    /// Frames of visitors that their home wants dropped, because they are above a rate of their Service Profile.
    pub above_rate: Counter,
    /// Data frames that had to wait because their home could not be reached.
    pub parked: Counter,
    /// Those of them that went there later.
    pub parked_sent: Counter,
    /// Those that were given up, or not wanted any more.
    pub parked_dropped: Counter,
}

impl Counters {
    /// Every one by its name.
    pub fn named(&self) -> [(&'static str, u64); 14] {
        [
            ("heard", self.heard.get()),
            ("copies", self.copies.get()),
            ("late", self.late.get()),
            ("malformed", self.malformed.get()),
            ("clock", self.clock.get()),
            ("disk", self.disk.get()),
            ("throttled", self.throttled.get()),
            ("filtered", self.filtered.get()),
            ("unknown", self.unknown.get()),
            ("forged", self.forged.get()),
            ("above_rate", self.above_rate.get()),
            ("parked", self.parked.get()),
            ("parked_sent", self.parked_sent.get()),
            ("parked_dropped", self.parked_dropped.get()),
        ]
    }
}

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    fn add(&self) {
        self.add_all(1);
    }
    fn add_all(&self, so_many: usize) {
        self.0.fetch_add(so_many as u64, Ordering::Relaxed);
    }
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The first hearing of a transmission; the number leads to the other heads that heard it.
#[derive(Clone, Copy)]
struct Numbered<'a> {
    heard: &'a Heard,
    number: u64,
}

impl std::ops::Deref for Numbered<'_> {
    type Target = Heard;
    fn deref(&self) -> &Heard {
        self.heard
    }
}

/// What the fNS is made of.
pub struct Parts {
    /// The NetID we speak as.
    pub me: NetId,
    /// All that are ours.
    pub ours: Vec<NetId>,
    /// The channel plan of our radios.
    pub region: Region,
    /// Who may roam how.
    pub partners: Arc<partners::Config>,
    /// Tell partners that a class A downlink may ride in their answer.
    pub downlink_in_answer: bool,
    /// Seals the tokens.
    pub seal: Seal,
    /// The doors.
    pub peers: Arc<dyn Peers>,
    /// All radios.
    pub air: Arc<dyn Air>,
    /// Homes learnt.
    pub learned: Arc<dyn Learned>,
    /// What partners want, and what they have used.
    pub limits: Arc<dyn Limits>,
    /// Roaming contexts of visitors.
    pub contexts: Arc<dyn Contexts>,
    /// Frames that wait for their home.
    pub parking: Arc<dyn Parking>,
    /// Usage records.
    pub usage: Arc<dyn Usage>,
    /// Time.
    pub clock: Clock,
}

/// The forwarding network server.
pub struct Fns {
    me: NetId,
    ours: Vec<NetId>,
    region: Region,
    partners: Arc<partners::Config>,
    downlink_in_answer: bool,
    seal: Seal,
    peers: Arc<dyn Peers>,
    air: Arc<dyn Air>,
    learned: Arc<dyn Learned>,
    limits: Arc<dyn Limits>,
    contexts: Arc<dyn Contexts>,
    parking: Arc<dyn Parking>,
    usage: Arc<dyn Usage>,
    counted: Mutex<Counted>,
    rates: Mutex<Rates>,
    budgets: Mutex<Budgets>,
    clock: Clock,
    count: Counters,
    dedup: Mutex<Dedup>,
    heads: Mutex<Heads>,
    /// Told of every copy that is credited.
    copy: Notify,
    jit: Mutex<Jit>,
    homes: Mutex<Homes>,
    lot: Mutex<Lot>,
    /// A frame was parked.
    parked_news: Notify,
    book: Mutex<Book>,
    hold_offs: Mutex<HoldOffs>,
    strangers: Mutex<Strangers>,
    unserved: Mutex<Buckets<(GatewayEui, NetId)>>,
    seldom: Mutex<Seldom>,
    spent: Mutex<BTreeMap<(GatewayEui, u64, u64), Instant>>,
    /// Which heads heard devices of class C.
    ways: Mutex<Ways>,
}

impl Fns {
    /// Visitors are carried only while there is room for what is written of them.
    fn has_room(&self) -> Result<(), Unanswered> {
        if self.parking.is_full() {
            self.count.disk.add();
            return Err(Unanswered::Rule(
                "the disk is nearly full: what room there is is for the devices at home".into(),
            ));
        }
        Ok(())
    }

    /// Visitors wait for a clock that is set.
    fn has_time(&self) -> Result<(), Unanswered> {
        if !self.clock.is_trusted() {
            self.count.clock.add();
            return Err(Unanswered::Rule(
                "the clock is not set: visitors wait until GPS or NTP sets it".into(),
            ));
        }
        Ok(())
    }

    /// From its parts, with nothing heard yet.
    pub fn new(parts: Parts) -> Fns {
        Fns {
            me: parts.me,
            ours: parts.ours,
            jit: Mutex::new(Jit::new(parts.region.clone()).beaconing(parts.air.sends_beacons())),
            region: parts.region,
            partners: parts.partners,
            downlink_in_answer: parts.downlink_in_answer,
            seal: parts.seal,
            peers: parts.peers,
            air: parts.air,
            learned: parts.learned,
            limits: parts.limits,
            contexts: parts.contexts,
            parking: parts.parking,
            usage: parts.usage,
            counted: Mutex::default(),
            rates: Mutex::default(),
            budgets: Mutex::default(),
            clock: parts.clock,
            count: Counters::default(),
            dedup: Mutex::default(),
            heads: Mutex::default(),
            copy: Notify::new(),
            homes: Mutex::default(),
            lot: Mutex::default(),
            parked_news: Notify::new(),
            book: Mutex::default(),
            hold_offs: Mutex::default(),
            strangers: Mutex::default(),
            unserved: Mutex::new(Buckets::new(UNSERVED, NETWORKS)),
            seldom: Mutex::default(),
            spent: Mutex::default(),
            ways: Mutex::default(),
        }
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.count
    }

    /// Every frame of every radio. Answers when the frame is dealt with; run it in a task of its own.
    pub async fn uplink(&self, heard: Heard) {
        self.count.heard.add();
        let frame = match Uplink::parse(&heard.phy) {
            Ok(frame) => frame,
            Err(error) => {
                self.count.malformed.add();
                tracing::debug!(gateway = %heard.gateway, "dropped: {error}");
                return;
            }
        };
        let number = match self.dedup().first(&heard, self.clock.now()) {
            Seen::First(number) | Seen::Repetition(number) => number,
            Seen::Copy => {
                self.count.copies.add();
                return self.copy.notify_waiters();
            }
            Seen::Late => return self.count.late.add(),
        };
        self.tell(&heard, &frame);
        let gateway = heard.gateway;
        let numbered = Numbered { heard: &heard, number };
        let done = match frame {
            Uplink::Join(join) => self.activate(numbered, Joining::from(join)).await,
            Uplink::Data(data) => self.passive_start(numbered, data).await,
            Uplink::Rejoin(rejoin) => self.activate(numbered, Joining::from(rejoin)).await,
        };
        if let Err(why) = done {
            // who follows frames gets every one; the log gets each cause once a minute
            let why = why.to_string();
            match self.complain(gateway, &why) {
                Some(left_out) => {
                    tracing::info!(target: "roamgate::frame", milestone = "no answer to the device", %gateway, why, left_out);
                }
                None => {
                    tracing::debug!(target: "roamgate::frame", milestone = "no answer to the device", %gateway, why);
                }
            }
        }
    }

    fn tell(&self, heard: &Heard, frame: &Uplink<'_>) {
        let data_rate = self.region.uplink_data_rate(heard.modulation);
        match frame {
            Uplink::Join(join) => tracing::info!(target: "roamgate::frame", milestone = "frames collected",
                type = "JoinRequest", DevEUI = %join.dev_eui(), JoinEUI = %join.join_eui(), gateway = %heard.gateway,
                frequency = heard.frequency, data_rate, rssi = heard.rssi, snr = heard.snr),
            Uplink::Data(data) => tracing::info!(target: "roamgate::frame", milestone = "frames collected",
                type = if data.is_confirmed() { "ConfirmedDataUp" } else { "UnconfirmedDataUp" },
                DevAddr = %data.dev_addr(), FCnt = data.fcnt(), size = heard.phy.len(), gateway = %heard.gateway,
                frequency = heard.frequency, data_rate, rssi = heard.rssi, snr = heard.snr),
            Uplink::Rejoin(rejoin) => {
                tracing::info!(target: "roamgate::frame", milestone = "frames collected",
                type = "RejoinRequest", DevEUI = %rejoin.dev_eui(), kind = rejoin.kind().number(),
                gateway = %heard.gateway, frequency = heard.frequency, data_rate, rssi = heard.rssi, snr = heard.snr)
            }
        }
    }

    /// Take the one transmission that a hearing allows; `false`: it was taken.
    fn spend(&self, hearing: &Hearing) -> bool {
        let now = self.clock.now();
        let mut spent = lock(&self.spent);
        spent.retain(|_, at| now.saturating_duration_since(*at) < SPENT);
        spent.insert((hearing.gateway, hearing.session, hearing.number), hearing.at).is_none()
    }

    /// Nothing went out after all.
    fn give_back(&self, hearing: &Hearing) {
        lock(&self.spent).remove(&(hearing.gateway, hearing.session, hearing.number));
    }

    /// Whether the log hears of this now, and how often it was left out.
    fn complain(&self, gateway: GatewayEui, cause: &str) -> Option<u64> {
        lock(&self.seldom).tell(&gateway.to_string(), cause, self.clock.now())
    }

    /// What is remembered of strangers and visitors at the moment: devices with a home or a refusal, addresses held off
    /// or served, buckets of unknown JoinEUIs and of unknown addresses. All are bounded.
    pub fn remembered(&self) -> [usize; 4] {
        let unserved = lock(&self.unserved).len();
        [self.homes().len(), self.hold_offs().len(), self.strangers().remembered(), unserved]
    }

    fn dedup(&self) -> MutexGuard<'_, Dedup> {
        lock(&self.dedup)
    }
    fn heads(&self) -> MutexGuard<'_, Heads> {
        lock(&self.heads)
    }
    fn jit(&self) -> MutexGuard<'_, Jit> {
        lock(&self.jit)
    }
    fn homes(&self) -> MutexGuard<'_, Homes> {
        lock(&self.homes)
    }
    fn lot(&self) -> MutexGuard<'_, Lot> {
        lock(&self.lot)
    }
    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
    fn hold_offs(&self) -> MutexGuard<'_, HoldOffs> {
        lock(&self.hold_offs)
    }
    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        lock(&self.strangers)
    }
}

/// What a room keeps in memory may be lost, so a panicked holder is no reason to stop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn heard(gateway: GatewayEui, tmst: u32, phy: &[u8]) -> Heard {
        Heard {
            phy: phy.to_vec(),
            gateway,
            session: 1,
            frequency: 868_100_000,
            modulation: Modulation::Lora { sf: 7, bandwidth: 125_000 },
            rssi: -80,
            snr: 9.0,
            tmst: Count(tmst),
            at: Instant::now(),
            time: Timestamp::UNIX_EPOCH,
            location: None,
            fine_time: None,
        }
    }
}
