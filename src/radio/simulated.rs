//! An air in memory: radio heads, device radios and what happens to frames between them.
//!
//! Owns propagation, loss, collisions, half-duplex heads and receive windows. Every frame is on the
//! air for exactly its airtime, on instants that are computed and never measured, so a late wake-up
//! of this process bends no window: the same walk is exact on paused time and in real time.
//! Used by the demo and by tests; the heads refuse frames as a packet forwarder does.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;

use crate::backend::door::{Boxed, Deadline};
use crate::clock::{Clock, Instant};
use crate::fns::{self, AirError, Count, Heard, Sent, Tx};
use crate::jit;
use crate::lorawan::crypto::Direction;
use crate::lorawan::{GatewayEui, Modulation, Region};

use super::{HeadStatus, Heads, Radio};

/// A frame with this much time or less before its slot is refused (the reference packet forwarder).
const TOO_LATE: Duration = Duration::from_micros(42_500);
/// A frame that is further ahead than this is refused.
const TOO_EARLY: Duration = Duration::from_secs(512);
/// Silence that it wants between two of its own transmissions.
const TURNAROUND: Duration = TOO_LATE;
/// The stronger of two frames survives with this advantage, dB.
const CAPTURE: f64 = 6.0;
/// Symbols of preamble that a receiver must see to lock on a frame.
const LOCK: f64 = 5.0;
/// Symbols of preamble and sync word before a frame's header.
const PREAMBLE: f64 = 12.25;
/// How long frames are kept after their end: longer than any frame lasts, so overlaps are seen.
const MEMORY: Duration = Duration::from_secs(15);
/// The strongest EIRP of these heads, dBm.
const MAX_EIRP: i8 = 27;

/// How well a device and a radio head hear each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// dBm at the receiver.
    pub rssi: i32,
    /// dB. Below the floor of a spreading factor nothing is received.
    pub snr: f64,
    /// Chance that a frame is lost for no other reason, 0 to 1.
    pub loss: f64,
}

impl Link {
    /// A device in the same street: nothing is lost.
    pub const NEAR: Link = Link { rssi: -57, snr: 9.5, loss: 0.0 };
}

/// A transmission that was handed to a radio head, and what the head said.
#[derive(Debug, Clone, PartialEq)]
pub struct Handover {
    /// When it was handed over.
    pub at: Instant,
    /// Its slot, as the head's counter puts it.
    pub start: Instant,
    /// Whether the head took it.
    pub outcome: Result<(), AirError>,
    /// The frame and all that was asked for.
    pub tx: Tx,
}

impl Handover {
    /// Time between the handover and the slot; zero when the slot has passed.
    pub fn lead(&self) -> Duration {
        self.start.saturating_duration_since(self.at)
    }
}

/// A frame that a device radio received.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The frame.
    pub phy: Vec<u8>,
    /// The head it came from.
    pub from: GatewayEui,
    /// When its preamble began.
    pub start: Instant,
    /// When its last symbol ended.
    pub end: Instant,
    /// dBm.
    pub rssi: i32,
    /// dB.
    pub snr: f64,
}

/// A receive window of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Hertz.
    pub frequency: u32,
    /// What the receiver is set to.
    pub modulation: Modulation,
    /// When the receiver opens.
    pub open: Instant,
    /// How long it looks for a preamble.
    pub length: Duration,
}

/// An air that frames can be sent through. Clones are the same air.
#[derive(Clone)]
pub struct Air(Arc<Inner>);

struct Inner {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    heads: BTreeMap<GatewayEui, Head>,
    /// What each device radio and each head have between them.
    links: BTreeMap<(u64, GatewayEui), Link>,
    frames: VecDeque<Frame>,
    next_device: u64,
}

struct Head {
    name: String,
    heard: mpsc::Sender<Heard>,
    session: u64,
    epoch: Instant,
    /// The counter at `epoch`.
    offset: u32,
    location: Option<(f64, f64)>,
    online: bool,
    /// What it can transmit on.
    region: Region,
    last_seen: Option<(Instant, jiff::Timestamp)>,
    rx_ok: u64,
    rx_bad: u64,
    handovers: Vec<Handover>,
    /// What it says to the next frames, whatever they are.
    refusals: VecDeque<AirError>,
}

/// Who radiates a frame. Uplinks and downlinks differ in the polarity of their chirps, so a device
/// never hears a device and a head never hears a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    Device(u64),
    Head(GatewayEui),
}

#[derive(Debug, Clone)]
struct Frame {
    voice: Voice,
    start: Instant,
    end: Instant,
    frequency: u32,
    modulation: Modulation,
    phy: Vec<u8>,
}

impl Frame {
    fn overlaps(&self, start: Instant, end: Instant) -> bool {
        self.start < end && start < self.end
    }
    fn disturbs(&self, other: &Frame) -> bool {
        self.frequency == other.frequency
            && self.modulation == other.modulation
            && matches!(
                (self.voice, other.voice),
                (Voice::Device(_), Voice::Device(_)) | (Voice::Head(_), Voice::Head(_))
            )
            && self.overlaps(other.start, other.end)
    }
}

impl Air {
    /// An empty air. `seed` decides about loss, counters and radio sessions, so two runs agree.
    pub fn new(clock: Clock, seed: u64) -> Air {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            heads: BTreeMap::new(),
            links: BTreeMap::new(),
            frames: VecDeque::new(),
            next_device: 0,
        };
        Air(Arc::new(Inner { clock, state: Mutex::new(state) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Put up a radio head. It hears all channels and data rates of its region at once and sends one
    /// frame at a time. A head with an identifier that is up already takes its place.
    pub fn head(&self, gateway: GatewayEui, name: &str) -> Radio {
        self.head_at(gateway, name, None)
    }

    /// A radio head that knows where it stands: degrees latitude and longitude.
    pub fn head_at(&self, gateway: GatewayEui, name: &str, location: Option<(f64, f64)>) -> Radio {
        let (to, heard) = mpsc::channel(1024);
        let epoch = self.0.clock.now();
        let mut state = self.state();
        let (session, offset) = (state.rng.random(), state.rng.random());
        let head = Head {
            name: name.to_string(),
            heard: to,
            session,
            epoch,
            offset,
            location,
            online: true,
            region: Region::eu868(),
            last_seen: None,
            rx_ok: 0,
            rx_bad: 0,
            // what was noted belongs to the place, not to the program that listens there
            handovers: state.heads.remove(&gateway).map(|before| before.handovers).unwrap_or_default(),
            refusals: VecDeque::new(),
        };
        state.heads.insert(gateway, head);
        Radio { name: name.to_string(), heard, heads: Arc::new(OneHead { air: self.clone(), gateway }) }
    }

    /// Give a head the antenna and the channels of a region, instead of EU868's. Where the region has sub-bands it
    /// hears those of the plan and no others.
    pub fn tune(&self, gateway: GatewayEui, region: &Region) {
        if let Some(head) = self.state().heads.get_mut(&gateway) {
            head.region = region.clone();
        }
    }

    /// Restart a head: its counter and radio session begin anew, what it had queued is gone.
    pub fn restart(&self, gateway: GatewayEui) {
        let now = self.0.clock.now();
        let mut state = self.state();
        let (session, offset) = (state.rng.random(), state.rng.random());
        state.frames.retain(|frame| frame.voice != Voice::Head(gateway) || frame.start <= now);
        if let Some(head) = state.heads.get_mut(&gateway) {
            (head.session, head.offset, head.epoch) = (session, offset, now);
        }
    }

    /// Cut a head's power, or give it back.
    pub fn set_online(&self, gateway: GatewayEui, online: bool) {
        if let Some(head) = self.state().heads.get_mut(&gateway) {
            head.online = online;
        }
    }

    /// Let a head refuse the next frame that is handed to it; said twice, the next two.
    pub fn refuse_next(&self, gateway: GatewayEui, why: AirError) {
        if let Some(head) = self.state().heads.get_mut(&gateway) {
            head.refusals.push_back(why);
        }
    }

    /// Everything that was handed to a head so far, refused frames included, oldest first.
    pub fn handovers(&self, gateway: GatewayEui) -> Vec<Handover> {
        self.state().heads.get(&gateway).map(|head| head.handovers.clone()).unwrap_or_default()
    }

    /// A head's transmission that another transmitter makes from `start`, with none of a packet forwarder's rules: the model of
    /// a concentrator, for one.
    pub fn radiate(
        &self,
        gateway: GatewayEui,
        phy: &[u8],
        frequency: u32,
        modulation: Modulation,
        start: Instant,
    ) {
        let end = start + jit::airtime(modulation, phy.len(), Direction::Down);
        let voice = Voice::Head(gateway);
        self.state().frames.push_back(Frame { voice, start, end, frequency, modulation, phy: phy.to_vec() });
    }

    /// A device's radio, out of everybody's reach until [`DeviceRadio::move_to`].
    pub fn device(&self) -> DeviceRadio {
        let mut state = self.state();
        state.next_device += 1;
        DeviceRadio { air: self.clone(), id: state.next_device }
    }
}

impl fmt::Debug for Air {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Air")
    }
}

impl State {
    /// Forget what can no longer overlap with anything.
    fn prune(&mut self, now: Instant) {
        self.frames.retain(|frame| frame.end + MEMORY > now);
    }

    /// The link over which a receiver hears a frame, if it can be understood there.
    fn understood(&mut self, frame: &Frame, device: u64, gateway: GatewayEui) -> Option<Link> {
        let link = *self.links.get(&(device, gateway))?;
        if link.snr < floor(frame.modulation) {
            return None;
        }
        let drowned = self
            .frames
            .iter()
            .filter(|other| other.voice != frame.voice && other.disturbs(frame))
            .filter_map(|other| match other.voice {
                Voice::Device(other) => self.links.get(&(other, gateway)),
                Voice::Head(other) => self.links.get(&(device, other)),
            })
            .any(|other| f64::from(link.rssi - other.rssi) < CAPTURE);
        if drowned {
            return None;
        }
        // chance is asked last, so that a frame which nobody could hear leaves the sequence alone
        let lost = link.loss > 0.0 && self.rng.random::<f64>() < link.loss;
        (!lost).then_some(link)
    }

    /// The device's frame has ended: every head in reach hears it, if nothing was in the way.
    fn deliver(&mut self, frame: &Frame, device: u64, time: jiff::Timestamp) {
        let everywhere: Vec<GatewayEui> = self.heads.keys().copied().collect();
        for gateway in everywhere {
            let sending = self
                .frames
                .iter()
                .any(|own| own.voice == Voice::Head(gateway) && own.overlaps(frame.start, frame.end));
            let tuned = self.heads.get(&gateway).is_some_and(|head| head.hears(frame.frequency));
            let link = if sending || !tuned { None } else { self.understood(frame, device, gateway) };
            let in_reach = self.links.contains_key(&(device, gateway));
            let Some(head) = self.heads.get_mut(&gateway).filter(|head| head.is_online()) else { continue };
            let Some(link) = link else {
                head.rx_bad += u64::from(in_reach);
                continue;
            };
            head.rx_ok += 1;
            head.last_seen = Some((frame.end, time));
            let heard = Heard {
                phy: frame.phy.clone(),
                gateway,
                session: head.session,
                frequency: frame.frequency,
                modulation: frame.modulation,
                rssi: link.rssi,
                snr: link.snr,
                tmst: head.count(frame.end),
                at: frame.end,
                time,
                location: head.location,
                fine_time: None,
            };
            // a program that does not keep up loses frames, as with a real concentrator
            let _ = head.heard.try_send(heard);
        }
    }

    fn hand_over(&mut self, tx: &Tx, now: Instant) -> Result<(), AirError> {
        self.prune(now);
        let gone = AirError::Gone(tx.gateway);
        let Some(head) = self.heads.get_mut(&tx.gateway) else { return Err(gone) };
        let start = match tx.at {
            Some(at) => head.instant(at, now),
            None => Some(self.frames.iter().fold(now + TOO_LATE + TURNAROUND, |start, queued| {
                // as soon as it has sent what it has
                let own = queued.voice == Voice::Head(tx.gateway);
                if own { start.max(queued.end + 2 * TURNAROUND) } else { start }
            })),
        };
        let refusal = head.refusals.pop_front();
        let end = start.unwrap_or(now) + jit::airtime(tx.modulation, tx.phy.len(), Direction::Down);
        let outcome = match (refusal, start) {
            _ if !head.is_online() || tx.at.is_some() && head.session != tx.session => Err(gone),
            (Some(why), _) => Err(why),
            (None, None) => Err(AirError::TooLate),
            (None, Some(start)) if start - now <= TOO_LATE => Err(AirError::TooLate),
            (None, Some(start)) if start - now > TOO_EARLY => Err(AirError::TooEarly),
            _ if !head.sends(tx.frequency) => Err(AirError::Frequency),
            (None, Some(start)) => {
                let busy = self.frames.iter().any(|queued| {
                    queued.voice == Voice::Head(tx.gateway)
                        && queued.overlaps(start - TURNAROUND, end + TURNAROUND)
                });
                if busy { Err(AirError::CollisionPacket) } else { Ok(()) }
            }
        };
        let start = start.unwrap_or(now);
        head.handovers.push(Handover { at: now, start, outcome: outcome.clone(), tx: tx.clone() });
        if outcome.is_ok() {
            self.frames.push_back(Frame {
                voice: Voice::Head(tx.gateway),
                start,
                end,
                frequency: tx.frequency,
                modulation: tx.modulation,
                phy: tx.phy.clone(),
            });
        }
        outcome
    }

    /// The frame that a device's window locks on: of those in reach whose preamble it meets, the
    /// one that comes first. Whether it can be understood shows when it has ended.
    fn caught(&self, device: u64, window: &Window) -> Option<(Frame, GatewayEui)> {
        let close = window.open + window.length;
        self.frames
            .iter()
            .filter(|frame| frame.frequency == window.frequency && frame.modulation == window.modulation)
            .filter(|frame| {
                let symbol = symbol(frame.modulation);
                let preamble_end = frame.start + symbol.mul_f64(PREAMBLE);
                frame.start.max(window.open) + symbol.mul_f64(LOCK) <= preamble_end.min(close)
            })
            .filter_map(|frame| match frame.voice {
                Voice::Head(gateway) => Some((frame, gateway)),
                Voice::Device(_) => None,
            })
            .filter(|(_, gateway)| self.links.contains_key(&(device, *gateway)))
            .min_by_key(|(frame, _)| frame.start)
            .map(|(frame, gateway)| (frame.clone(), gateway))
    }
}

impl Head {
    /// It has power, and somebody listens to it.
    fn is_online(&self) -> bool {
        self.online && !self.heard.is_closed()
    }

    /// Eight channels of a sub-band, or everything that is on the air in regions of single channels.
    fn hears(&self, frequency: u32) -> bool {
        let number = self.region.sub_band(frequency);
        self.region.sub_band_count() == 0
            || number.is_some_and(|number| self.region.sub_bands().contains(number))
    }

    fn sends(&self, frequency: u32) -> bool {
        self.region.downlink_band().contains(&frequency)
    }

    fn count(&self, at: Instant) -> Count {
        Count(self.offset).plus(at.saturating_duration_since(self.epoch))
    }

    /// The instant of a count near now; `None` when it has passed.
    fn instant(&self, at: Count, now: Instant) -> Option<Instant> {
        // half of the counter's range lies ahead, the other half behind
        let ahead = at.0.wrapping_sub(self.count(now).0);
        if ahead > u32::MAX / 2 {
            return None;
        }
        // from the epoch and not from now: `now` may carry a part of a microsecond
        let gone = now.saturating_duration_since(self.epoch).as_micros() as u64;
        Some(self.epoch + Duration::from_micros(gone + u64::from(ahead)))
    }
}

/// Time of one symbol.
pub(crate) fn symbol(modulation: Modulation) -> Duration {
    match modulation {
        Modulation::Lora { sf, bandwidth } => {
            Duration::from_secs_f64(f64::from(1_u32 << sf.min(12)) / f64::from(bandwidth.max(1)))
        }
        Modulation::Fsk { bitrate } => Duration::from_secs_f64(8.0 / f64::from(bitrate.max(1))),
    }
}

/// The weakest signal a receiver understands, dB of SNR: 2.5 dB less for each spreading factor.
fn floor(modulation: Modulation) -> f64 {
    match modulation {
        Modulation::Lora { sf, .. } => -7.5 - 2.5 * (f64::from(sf) - 7.0),
        Modulation::Fsk { .. } => 0.0,
    }
}

/// One simulated radio head, as the radio room sees it.
struct OneHead {
    air: Air,
    gateway: GatewayEui,
}

impl fns::Air for OneHead {
    fn transmit(&self, tx: Tx, _before: Deadline) -> Boxed<'_, Result<Sent, AirError>> {
        Box::pin(async move {
            let now = self.air.0.clock.now();
            // a packet forwarder warns, and sends with the most it has
            let power = Some(tx.power.min(MAX_EIRP));
            self.air.state().hand_over(&tx, now).map(|()| Sent { power })
        })
    }

    fn heads(&self) -> usize {
        usize::from(fns::Air::online(self, self.gateway))
    }

    fn online(&self, gateway: GatewayEui) -> bool {
        let state = self.air.state();
        gateway == self.gateway && state.heads.get(&gateway).is_some_and(Head::is_online)
    }
}

impl Heads for OneHead {
    fn has(&self, gateway: GatewayEui) -> bool {
        gateway == self.gateway
    }

    fn status(&self) -> Vec<HeadStatus> {
        let state = self.air.state();
        let Some(head) = state.heads.get(&self.gateway) else { return Vec::new() };
        let taken = head.handovers.iter().filter(|handover| handover.outcome.is_ok()).count() as u64;
        vec![HeadStatus {
            gateway: self.gateway,
            name: head.name.clone(),
            online: head.is_online(),
            last_seen: head.last_seen.map(|(at, _)| at),
            last_seen_time: head.last_seen.map(|(_, time)| time),
            address: None,
            rx_ok: head.rx_ok,
            rx_bad: head.rx_bad,
            tx_ok: taken,
            tx_failed: head.handovers.len() as u64 - taken,
            rtt: None,
            location: head.location,
        }]
    }
}

/// The radio of a simulated end device. Clones are the same radio.
#[derive(Debug, Clone)]
pub struct DeviceRadio {
    air: Air,
    id: u64,
}

impl DeviceRadio {
    /// Carry the device somewhere else: from now on these heads hear it, and it hears them.
    pub fn move_to(&self, heads: &[(GatewayEui, Link)]) {
        let mut state = self.air.state();
        state.links.retain(|(device, _), _| *device != self.id);
        state.links.extend(heads.iter().map(|(gateway, link)| ((self.id, *gateway), *link)));
    }

    /// Send a frame now. Returns when its last symbol has left, with the exact first and last
    /// instant on the air. Once begun, the frame is radiated even if nobody waits for it.
    pub async fn transmit(&self, phy: &[u8], frequency: u32, modulation: Modulation) -> (Instant, Instant) {
        let clock = self.air.0.clock.clone();
        let start = clock.now();
        let end = start + jit::airtime(modulation, phy.len(), Direction::Up);
        let frame =
            Frame { voice: Voice::Device(self.id), start, end, frequency, modulation, phy: phy.to_vec() };
        {
            let mut state = self.air.state();
            state.prune(start);
            state.frames.push_back(frame.clone());
        }
        let (air, id) = (self.air.clone(), self.id);
        let radiated = tokio::spawn(async move {
            clock.sleep_until(end).await;
            let time = clock.wall();
            air.state().deliver(&frame, id, time);
        });
        // fails only when the runtime is going down
        let _ = radiated.await;
        (start, end)
    }

    /// Listen in one window. Returns when the frame has ended that was caught, or when the window
    /// has closed on silence.
    pub async fn listen(&self, window: Window) -> Option<Received> {
        let clock = &self.air.0.clock;
        clock.sleep_until(window.open + window.length).await;
        let (frame, from) = self.air.state().caught(self.id, &window)?;
        clock.sleep_until(frame.end).await;
        let link = self.air.state().understood(&frame, self.id, from)?;
        let Frame { phy, start, end, .. } = frame;
        Some(Received { phy, from, start, end, rssi: link.rssi, snr: link.snr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radio::answer;

    const GATEWAY: GatewayEui = GatewayEui::from_msb([2, 0, 0, 0, 0, 0, 0, 1]);
    const OTHER: GatewayEui = GatewayEui::from_msb([2, 0, 0, 0, 0, 0, 0, 2]);
    const SF7: Modulation = Modulation::Lora { sf: 7, bandwidth: 125_000 };
    const CHANNEL: u32 = 868_100_000;
    const LEAD: Duration = Duration::from_millis(10);

    fn air() -> Air {
        Air::new(Clock::following("2026-11-20T10:00:00Z".parse().unwrap()), 7)
    }

    fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    fn downlink(heard: &Heard, delay: Duration, phy: &[u8]) -> Tx {
        answer(heard, delay, 16, phy)
    }

    fn window(at: Instant) -> Window {
        Window {
            frequency: CHANNEL,
            modulation: SF7,
            open: at - LEAD,
            length: 2 * LEAD + symbol(SF7).mul_f64(LOCK),
        }
    }

    async fn transmit(radio: &Radio, tx: Tx) -> Result<Sent, AirError> {
        let before = Deadline(tx.start);
        radio.heads.transmit(tx, before).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_uplink_and_its_answer_are_exact_on_paused_time() {
        let air = air();
        let (mut radio, device) = (air.head(GATEWAY, "attic"), air.device());
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        let (start, end) = device.transmit(&[0; 23], CHANNEL, SF7).await;
        assert_eq!(end - start, Duration::from_micros(61_696));
        let heard = radio.heard.recv().await.unwrap();
        assert_eq!((heard.at, heard.phy.len(), heard.rssi), (end, 23, -57));
        let tx = downlink(&heard, ms(5000), &[1; 33]);
        transmit(&radio, tx).await.unwrap();
        let received = device.listen(window(end + ms(5000))).await.unwrap();
        assert_eq!(received.start, end + ms(5000));
        assert_eq!(received.end - received.start, jit::airtime(SF7, 33, Direction::Down));
        let handover = &air.handovers(GATEWAY)[0];
        assert_eq!(handover.start, end + ms(5000));
        assert!(handover.lead() > ms(4990));
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_takes_a_preamble_within_its_tolerance_and_no_other() {
        for (off, hit) in [(-25, false), (-15, true), (0, true), (9, true), (12, false)] {
            let air = air();
            let (mut radio, device) = (air.head(GATEWAY, "attic"), air.device());
            device.move_to(&[(GATEWAY, Link::NEAR)]);
            let (_, end) = device.transmit(&[0; 12], CHANNEL, SF7).await;
            let heard = radio.heard.recv().await.unwrap();
            let delay = ms(1000_u64.saturating_add_signed(off));
            transmit(&radio, downlink(&heard, delay, &[1; 12])).await.unwrap();
            assert_eq!(device.listen(window(end + ms(1000))).await.is_some(), hit, "{off} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_on_another_channel_or_data_rate_hears_nothing() {
        let air = air();
        let (mut radio, device) = (air.head(GATEWAY, "attic"), air.device());
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        let (_, end) = device.transmit(&[0; 12], CHANNEL, SF7).await;
        let heard = radio.heard.recv().await.unwrap();
        transmit(&radio, downlink(&heard, ms(1000), &[1; 12])).await.unwrap();
        let right = window(end + ms(1000));
        let sf8 = Modulation::Lora { sf: 8, bandwidth: 125_000 };
        assert_eq!(device.listen(Window { modulation: sf8, ..right }).await, None);
        assert_eq!(device.listen(Window { frequency: CHANNEL + 200_000, ..right }).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_overlap_are_both_lost_unless_one_is_much_stronger() {
        let weak = Link { rssi: -100, ..Link::NEAR };
        for (first, second, heard) in
            [(Link::NEAR, Link::NEAR, 0), (Link::NEAR, weak, 1), (weak, Link::NEAR, 1)]
        {
            let air = air();
            let (mut radio, a, b) = (air.head(GATEWAY, "attic"), air.device(), air.device());
            a.move_to(&[(GATEWAY, first)]);
            b.move_to(&[(GATEWAY, second)]);
            let late = async {
                tokio::time::sleep(ms(20)).await;
                b.transmit(&[2; 23], CHANNEL, SF7).await
            };
            tokio::join!(a.transmit(&[1; 23], CHANNEL, SF7), late);
            let mut count = 0;
            while radio.heard.try_recv().is_ok() {
                count += 1;
            }
            assert_eq!(count, heard);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_on_two_channels_or_two_spreading_factors_do_not_disturb_each_other() {
        let air = air();
        let (mut radio, a, b, c) = (air.head(GATEWAY, "attic"), air.device(), air.device(), air.device());
        for device in [&a, &b, &c] {
            device.move_to(&[(GATEWAY, Link::NEAR)]);
        }
        let sf9 = Modulation::Lora { sf: 9, bandwidth: 125_000 };
        tokio::join!(
            a.transmit(&[1; 23], CHANNEL, SF7),
            b.transmit(&[2; 23], CHANNEL + 200_000, SF7),
            c.transmit(&[3; 23], CHANNEL, sf9)
        );
        for _ in 0..3 {
            radio.heard.recv().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lossy_link_loses_about_its_share_and_the_same_frames_for_the_same_seed() {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let air = air();
            let (mut radio, device) = (air.head(GATEWAY, "attic"), air.device());
            device.move_to(&[(GATEWAY, Link { loss: 0.3, ..Link::NEAR })]);
            let mut heard = Vec::new();
            for n in 0..100 {
                device.transmit(&[n; 12], CHANNEL, SF7).await;
                heard.extend(radio.heard.try_recv().ok().map(|heard| heard.phy[0]));
            }
            assert!((55..85).contains(&heard.len()), "{}", heard.len());
            runs.push(heard);
        }
        assert_eq!(runs[0], runs[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_out_of_reach_or_below_the_floor_hears_nothing() {
        let air = air();
        let (mut near, mut far) = (air.head(GATEWAY, "attic"), air.head(OTHER, "hill"));
        let device = air.device();
        device.move_to(&[(OTHER, Link { rssi: -139, snr: -9.0, loss: 0.0 })]);
        device.transmit(&[0; 12], CHANNEL, SF7).await;
        assert!(near.heard.try_recv().is_err() && far.heard.try_recv().is_err());
        // 9 dB below the noise is within reach of SF10
        device.transmit(&[0; 12], CHANNEL, Modulation::Lora { sf: 10, bandwidth: 125_000 }).await;
        assert!(near.heard.try_recv().is_err() && far.heard.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_refuses_as_a_packet_forwarder_does() {
        let air = air();
        let (mut radio, device) = (air.head(GATEWAY, "attic"), air.device());
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        device.transmit(&[0; 12], CHANNEL, SF7).await;
        let heard = radio.heard.recv().await.unwrap();
        let tx = |delay| downlink(&heard, delay, &[1; 12]);
        assert_eq!(transmit(&radio, tx(ms(42))).await, Err(AirError::TooLate));
        assert_eq!(transmit(&radio, tx(ms(513_000))).await, Err(AirError::TooEarly));
        assert_eq!(
            transmit(&radio, Tx { at: Some(Count(heard.tmst.0.wrapping_sub(5))), ..tx(ms(0)) }).await,
            Err(AirError::TooLate)
        );
        transmit(&radio, tx(ms(1000))).await.unwrap();
        assert_eq!(transmit(&radio, tx(ms(1020))).await, Err(AirError::CollisionPacket));
        transmit(&radio, tx(ms(2000))).await.unwrap();
        assert_eq!(
            transmit(&radio, Tx { frequency: 915_000_000, ..tx(ms(3000)) }).await,
            Err(AirError::Frequency)
        );
        let loudest = transmit(&radio, Tx { power: 29, ..tx(ms(3000)) }).await;
        assert_eq!(loudest, Ok(Sent { power: Some(MAX_EIRP) }), "taken with the most it has");
        air.refuse_next(GATEWAY, AirError::GpsUnlocked);
        assert_eq!(transmit(&radio, tx(ms(4000))).await, Err(AirError::GpsUnlocked));
        transmit(&radio, tx(ms(4000))).await.unwrap();
        air.restart(GATEWAY);
        assert_eq!(transmit(&radio, tx(ms(3000))).await, Err(AirError::Gone(GATEWAY)));
        assert_eq!(radio.heads.heads(), 1);
        air.set_online(GATEWAY, false);
        assert_eq!(radio.heads.heads(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_starts_again_finds_its_head_in_another_session() {
        let air = air();
        let (mut radio, device) = (air.head(GATEWAY, "attic"), air.device());
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        device.transmit(&[0; 12], CHANNEL, SF7).await;
        let before = radio.heard.recv().await.unwrap();
        let Radio { heard, heads, .. } = radio;
        drop(heard);
        assert_eq!(heads.heads(), 0);
        let mut radio = air.head(GATEWAY, "attic");
        assert_eq!(radio.heads.heads(), 1);
        device.transmit(&[0; 12], CHANNEL, SF7).await;
        let after = radio.heard.recv().await.unwrap();
        assert_ne!(before.session, after.session);
        let late = downlink(&before, ms(1000), &[1; 12]);
        assert_eq!(transmit(&radio, late).await, Err(AirError::Gone(GATEWAY)));
        transmit(&radio, downlink(&after, ms(1000), &[1; 12])).await.unwrap();
        assert_eq!(air.handovers(GATEWAY).len(), 2);
        assert_eq!(radio.heads.status()[0].tx_failed, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_deaf_while_it_sends() {
        let air = air();
        let (mut radio, device) = (air.head(GATEWAY, "attic"), air.device());
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        device.transmit(&[0; 12], CHANNEL, SF7).await;
        let heard = radio.heard.recv().await.unwrap();
        transmit(&radio, downlink(&heard, ms(1000), &[1; 12])).await.unwrap();
        tokio::time::sleep_until(heard.at + ms(990)).await;
        device.transmit(&[2; 12], CHANNEL + 200_000, SF7).await;
        assert!(radio.heard.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_is_radiated_even_if_its_sender_stops_waiting() {
        let air = air();
        let (mut radio, device) = (air.head(GATEWAY, "attic"), air.device());
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        let waited = tokio::time::timeout(ms(5), device.transmit(&[0; 12], CHANNEL, SF7)).await;
        assert!(waited.is_err());
        assert!(radio.heard.recv().await.is_some());
    }
}
