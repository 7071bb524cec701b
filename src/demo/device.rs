//! An end device that nobody here wrote: crate `lorawan-device` on a simulated radio.
//!
//! Class A, LoRaWAN 1.0.x, EU868 or another region that the stack knows, fixed at SF7, 125 kHz. What the stack does is its own
//! business; this file gives it a radio, a timer and randomness, and reports what came of it.
//!
//! How the stack behaves, where that matters to whoever tests with it:
//! - DevNonce is the low half of the generator's next number, drawn anew for each join and not
//!   remembered: two devices with one seed use the same DevNonces ([`Device::set_dev_nonce`]).
//! - It sends each frame once (NbTrans is 1) and counts up whether or not an answer came.
//! - It accepts a downlink whose counter grew or is 0, so a downlink 0 twice in a row is taken twice.
//! - It does not change the data rate or frequency of RX2, whatever a Join-accept says.
//! - It answers LinkADRReq and RXTimingSetupReq and ignores other MAC commands.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lorawan_device::async_device::{self, JoinResponse, SendResponse, radio as phy, region};
use lorawan_device::default_crypto::DefaultFactory;
use lorawan_device::{AppEui, AppKey, AppSKey, JoinMode, NewSKey, RngCore};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::clock::{Clock, Instant};
use crate::lorawan::{DevAddr, DevEui, GatewayEui, JoinEui, Key, Modulation};
use crate::radio::simulated::{Air, DeviceRadio, Link, Received, Window};

/// How long before a window's middle the receiver opens, and how much later a preamble may begin.
const TOLERANCE_MS: u32 = 11;
/// Symbols that a receiver needs to see a preamble.
const LOCK_SYMBOLS: u32 = 5;

/// Which receive window brought an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RxWindow {
    /// The first.
    Rx1,
    /// The second, a second later.
    Rx2,
}

/// How a join went. All instants are those of the air, exact to the microsecond.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinReport {
    /// The device has a session.
    pub ok: bool,
    /// First symbol of the Join-request.
    pub started: Instant,
    /// Last symbol of the Join-request: time zero of the windows.
    pub uplink_end: Instant,
    /// First symbol of the Join-accept, where one was received.
    pub downlink_start: Option<Instant>,
    /// Last symbol of the Join-accept.
    pub downlink_end: Option<Instant>,
    /// Which window brought it.
    pub window: Option<RxWindow>,
    /// Hertz of the Join-request.
    pub frequency: u32,
    /// DevNonce that was sent.
    pub dev_nonce: u16,
    /// DevAddr of the new session.
    pub dev_addr: Option<DevAddr>,
    /// The device's time: from the first symbol to the last (airtime + 5 s + airtime), or until it
    /// gave up.
    pub took: Duration,
    /// How much later than the air this process noticed: scheduling, no protocol.
    pub lag: Duration,
}

/// How an uplink went.
#[derive(Debug, Clone, PartialEq)]
pub struct SendReport {
    /// An answer came with the ACK bit.
    pub acked: bool,
    /// FPort and clear text of what the network sent.
    pub downlinks: Vec<(u8, Vec<u8>)>,
    /// First symbol of the uplink.
    pub started: Instant,
    /// Last symbol of the uplink.
    pub uplink_end: Instant,
    /// First symbol of the answer, where one was received and accepted.
    pub downlink_start: Option<Instant>,
    /// Which window brought it.
    pub window: Option<RxWindow>,
    /// Hertz of the uplink.
    pub frequency: u32,
    /// FCntUp that was sent.
    pub fcnt_up: u32,
}

/// Why the device could not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// It has no session: join first.
    #[error("the device has not joined")]
    NotJoined,
    /// Its frame counter is used up.
    #[error("the session's frame counter is used up")]
    SessionExpired,
}

/// Where a device was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// EU868.
    Eu868,
    /// US915; its first Join-requests go to channels of this sub-band.
    Us915 {
        /// 1 to 8.
        sub_band: u8,
    },
    /// AU915, likewise.
    Au915 {
        /// 1 to 8.
        sub_band: u8,
    },
    /// IN865.
    In865,
}

impl Stands {
    fn plan(self) -> region::Configuration {
        use region::Subband::{_1, _2, _3, _4, _5, _6, _7, _8};
        let preferred = |number: u8| match number {
            2 => _2,
            3 => _3,
            4 => _4,
            5 => _5,
            6 => _6,
            7 => _7,
            8 => _8,
            _ => _1,
        };
        match self {
            Stands::Us915 { sub_band } => {
                let mut plan = region::US915::new();
                plan.set_join_bias(preferred(sub_band));
                plan.into()
            }
            Stands::Au915 { sub_band } => {
                let mut plan = region::AU915::new();
                plan.set_join_bias(preferred(sub_band));
                plan.into()
            }
            Stands::Eu868 => region::Configuration::new(async_device::Region::EU868),
            Stands::In865 => region::Configuration::new(async_device::Region::IN865),
        }
    }
}

/// With room for what a device of class C hears between two windows.
type Stack = async_device::Device<Phy, DefaultFactory, Timer, Chance, 256, 4>;

/// An end device on a simulated air.
pub struct Device {
    stack: Stack,
    mode: JoinMode,
    dev_eui: DevEui,
    shared: Shared,
    clock: Clock,
    /// Of Join-requests, where the region fixes it, and of everything else.
    rates: (async_device::DR, async_device::DR),
}

impl Device {
    /// A device with its root key, out of everybody's reach until [`Device::move_to`]. `seed`
    /// decides about DevNonces and channels.
    pub fn new(
        air: &Air,
        clock: Clock,
        dev_eui: DevEui,
        join_eui: JoinEui,
        app_key: &Key,
        seed: u64,
    ) -> Device {
        Device::in_region(air, clock, dev_eui, join_eui, app_key, seed, Stands::Eu868)
    }

    /// The same elsewhere.
    pub fn in_region(
        air: &Air,
        clock: Clock,
        dev_eui: DevEui,
        join_eui: JoinEui,
        app_key: &Key,
        seed: u64,
        stands: Stands,
    ) -> Device {
        let shared = Shared(Arc::new(Mutex::new(State {
            base: clock.now(),
            open: clock.now(),
            rx: None,
            listens_from: clock.now(),
            uplink: None,
            received: None,
            windows: 0,
            dev_nonce: None,
            rng: StdRng::seed_from_u64(seed),
        })));
        let radio = Phy { radio: air.device(), shared: shared.clone(), clock: clock.clone() };
        let timer = Timer { clock: clock.clone(), shared: shared.clone() };
        use async_device::DR;
        let region = stands.plan();
        // fixed channel plans fix the data rate of Join-requests
        let rates = match stands {
            Stands::Us915 { .. } => (DR::_0, DR::_3),
            Stands::Au915 { .. } => (DR::_0, DR::_5),
            Stands::Eu868 | Stands::In865 => (DR::_5, DR::_5),
        };
        let mut stack = Stack::new(region, radio, timer, Chance(shared.clone()));
        stack.set_datarate(rates.1);
        let mode = JoinMode::OTAA {
            deveui: dev_eui.to_air().into(),
            appeui: AppEui::from(join_eui.to_air()),
            appkey: AppKey::from(*app_key.expose()),
        };
        Device { stack, mode, dev_eui, shared, clock, rates }
    }

    /// A device that was given its session (ABP) and is switched on. EU868.
    pub async fn personalised(
        air: &Air,
        clock: Clock,
        dev_eui: DevEui,
        dev_addr: DevAddr,
        nwk_s_key: &Key,
        app_s_key: &Key,
        seed: u64,
    ) -> Device {
        let nobody = JoinEui::from_msb([0; 8]);
        let mut device = Device::new(air, clock, dev_eui, nobody, &Key::new([0; 16]), seed);
        device.mode = JoinMode::ABP {
            newskey: NewSKey::from(*nwk_s_key.expose()),
            appskey: AppSKey::from(*app_s_key.expose()),
            devaddr: dev_addr.to_air().into(),
        };
        device.switch_on().await;
        device
    }

    /// Switch a personalised device off and on: it keeps no counter.
    pub async fn switch_on(&mut self) {
        // nothing is sent, so nothing fails
        let _ = self.stack.join(&self.mode).await;
    }

    /// From now on it listens at all times (class C).
    pub fn become_class_c(&mut self) {
        self.stack.enable_class_c();
    }

    /// Listen as a device of class C; what came, as FPort and clear text. What came since it listened last counts too.
    pub async fn listen(&mut self, time: Duration) -> Vec<(u8, Vec<u8>)> {
        let until = self.clock.now() + time;
        let mut downlinks = Vec::new();
        while tokio::time::timeout_at(until, self.stack.rxc_listen()).await.is_ok_and(|heard| heard.is_ok()) {
            while let Some(downlink) = self.stack.take_downlink() {
                downlinks.push((downlink.fport, downlink.data.to_vec()));
            }
        }
        downlinks
    }

    /// DevEUI.
    pub fn dev_eui(&self) -> DevEui {
        self.dev_eui
    }

    /// Carry the device somewhere: from now on these heads hear it, and it hears them.
    pub fn move_to(&mut self, heads: &[(GatewayEui, Link)]) {
        self.stack.get_radio().radio.move_to(heads);
    }

    /// The DevNonce of the next join, instead of a random one (a 1.0.4 device counts).
    pub fn set_dev_nonce(&mut self, dev_nonce: u16) {
        self.shared.lock().dev_nonce = Some(dev_nonce);
    }

    /// The bytes of the last uplink, whatever it was: to be replayed.
    pub fn last_uplink(&self) -> Option<Vec<u8>> {
        self.shared.lock().uplink.as_ref().map(|uplink| uplink.phy.clone())
    }

    /// The last frame that its radio received, whether the stack accepted it or not.
    pub fn last_received(&self) -> Option<Received> {
        self.shared.lock().received.as_ref().map(|(received, _)| received.clone())
    }

    /// Radiate bytes as they are from where the device stands (a replay, a forged frame). Nobody
    /// listens for an answer.
    pub async fn radiate(&mut self, phy: &[u8], frequency: u32, modulation: Modulation) {
        self.stack.get_radio().radio.transmit(phy, frequency, modulation).await;
    }

    /// Join over the air: one Join-request, then both windows. A session that stood is lost.
    pub async fn join(&mut self) -> JoinReport {
        self.shared.lock().begin();
        // the stack computes RX1 from this, whatever it sent with
        self.stack.set_datarate(self.rates.0);
        let joined = matches!(self.stack.join(&self.mode.clone()).await, Ok(JoinResponse::JoinSuccess));
        self.stack.set_datarate(self.rates.1);
        let now = self.clock.now();
        let dev_addr = self.stack.get_session().map(|session| air_address(session.devaddr.as_ref()));
        let state = self.shared.lock();
        let uplink = state.sent(now);
        let answer = state.received.as_ref().filter(|_| joined);
        let end = answer.map_or(state.open, |(received, _)| received.end);
        let nonce = uplink.phy.get(17..19).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        JoinReport {
            ok: joined,
            started: uplink.start,
            uplink_end: uplink.end,
            downlink_start: answer.map(|(received, _)| received.start),
            downlink_end: answer.map(|(received, _)| received.end),
            window: answer.map(|(_, window)| *window),
            frequency: uplink.frequency,
            dev_nonce: nonce,
            dev_addr: dev_addr.filter(|_| joined),
            took: end.saturating_duration_since(uplink.start),
            lag: now.saturating_duration_since(end),
        }
    }

    /// Send one uplink and listen in both windows. `port` 1 to 223.
    pub async fn send(
        &mut self,
        payload: &[u8],
        port: u8,
        confirmed: bool,
    ) -> Result<SendReport, DeviceError> {
        let fcnt_up = self.fcnt_up().ok_or(DeviceError::NotJoined)?;
        self.shared.lock().begin();
        let accepted = match self.stack.send(payload, port, confirmed).await {
            Ok(SendResponse::DownlinkReceived(_)) => true,
            Ok(SendResponse::NoAck | SendResponse::RxComplete) => false,
            Ok(SendResponse::SessionExpired) => return Err(DeviceError::SessionExpired),
            // the radio does not fail, so this is the stack without a session
            Err(_) => return Err(DeviceError::NotJoined),
        };
        let mut downlinks = Vec::new();
        while let Some(downlink) = self.stack.take_downlink() {
            downlinks.push((downlink.fport, downlink.data.to_vec()));
        }
        let state = self.shared.lock();
        let uplink = state.sent(self.clock.now());
        let answer = state.received.as_ref().filter(|_| accepted);
        Ok(SendReport {
            // the stack does not say whether what it accepted carried the ACK bit
            acked: answer
                .is_some_and(|(received, _)| received.phy.get(5).is_some_and(|fctrl| fctrl & 0x20 != 0)),
            downlinks,
            started: uplink.start,
            uplink_end: uplink.end,
            downlink_start: answer.map(|(received, _)| received.start),
            window: answer.map(|(_, window)| *window),
            frequency: uplink.frequency,
            fcnt_up,
        })
    }

    /// FCntUp of the next uplink; `None` without a session.
    pub fn fcnt_up(&mut self) -> Option<u32> {
        self.stack.get_session().map(|session| session.fcnt_up)
    }

    /// Go on with another FCntUp, as after years of talking. The stack's own limit: it takes no downlink whose
    /// FCntDown has more than 16 bits.
    pub fn set_fcnt_up(&mut self, fcnt_up: u32) {
        let Some(mut session) = self.stack.get_session().cloned() else { return };
        session.fcnt_up = fcnt_up;
        let (shared, clock) = (self.shared.clone(), self.clock.clone());
        let radio = Phy {
            radio: self.stack.get_radio().radio.clone(),
            shared: shared.clone(),
            clock: self.clock.clone(),
        };
        let timer = Timer { clock, shared: shared.clone() };
        let region = self.stack.get_region().clone();
        self.stack = Stack::new_with_session(region, radio, timer, Chance(shared), Some(session));
        self.stack.set_datarate(self.rates.1);
    }

    /// DevAddr of the session.
    pub fn dev_addr(&mut self) -> Option<DevAddr> {
        self.stack.get_session().map(|session| air_address(session.devaddr.as_ref()))
    }
}

fn air_address(bytes: &[u8]) -> DevAddr {
    DevAddr::from_air(bytes.try_into().unwrap_or_default())
}

/// What radio, timer, generator and device know together.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    /// Time zero of the stack's timer: the last symbol of the last uplink.
    base: Instant,
    /// The instant that the timer last woke the stack for (and not the one at which it woke).
    open: Instant,
    rx: Option<phy::RxConfig>,
    /// What came before was missed, or heard already (class C).
    listens_from: Instant,
    uplink: Option<Uplink>,
    received: Option<(Received, RxWindow)>,
    /// Windows opened since the last uplink.
    windows: u8,
    dev_nonce: Option<u16>,
    rng: StdRng,
}

#[derive(Clone)]
struct Uplink {
    phy: Vec<u8>,
    frequency: u32,
    start: Instant,
    end: Instant,
}

impl State {
    fn begin(&mut self) {
        self.received = None;
        self.windows = 0;
    }

    fn sent(&self, now: Instant) -> Uplink {
        let nothing = Uplink { phy: Vec::new(), frequency: 0, start: now, end: now };
        self.uplink.clone().unwrap_or(nothing)
    }
}

/// The stack's radio.
struct Phy {
    radio: DeviceRadio,
    shared: Shared,
    clock: Clock,
}

fn modulation(rf: &phy::RfConfig) -> Modulation {
    // spreading factors are 5 to 12
    Modulation::Lora { sf: rf.bb.sf.factor() as u8, bandwidth: rf.bb.bw.hz() }
}

impl phy::PhyRxTx for Phy {
    type PhyError = Infallible;
    const MAX_RADIO_POWER: u8 = 14;

    async fn tx(&mut self, config: phy::TxConfig, phy: &[u8]) -> Result<u32, Infallible> {
        let frequency = config.rf.frequency;
        let (start, end) = self.radio.transmit(phy, frequency, modulation(&config.rf)).await;
        let mut state = self.shared.lock();
        state.uplink = Some(Uplink { phy: phy.to_vec(), frequency, start, end });
        state.base = end;
        // the stack counts its windows from the timer's zero plus this
        Ok(0)
    }

    async fn setup_rx(&mut self, config: phy::RxConfig) -> Result<(), Infallible> {
        let mut state = self.shared.lock();
        state.rx = Some(config);
        state.listens_from = self.clock.now();
        Ok(())
    }

    async fn rx_continuous(&mut self, buffer: &mut [u8]) -> Result<(usize, phy::RxQuality), Infallible> {
        loop {
            let (config, open) = {
                let state = self.shared.lock();
                (state.rx, state.listens_from)
            };
            let Some(config) = config else { return std::future::pending().await };
            // longer than half a preamble at any data rate, so no frame begins unseen between two of them
            let length = Duration::from_millis(300);
            let (frequency, modulation) = (config.rf.frequency, modulation(&config.rf));
            let heard = self.radio.listen(Window { frequency, modulation, open, length }).await;
            self.shared.lock().listens_from = heard.as_ref().map_or(open + length, |received| received.end);
            let Some(received) = heard else { continue };
            let length = received.phy.len().min(buffer.len());
            buffer[..length].copy_from_slice(&received.phy[..length]);
            let rssi = i16::try_from(received.rssi).unwrap_or(i16::MIN);
            return Ok((length, phy::RxQuality::new(rssi, received.snr as i8)));
        }
    }

    async fn rx_single(&mut self, buffer: &mut [u8]) -> Result<phy::RxStatus, Infallible> {
        let (window, which) = {
            let mut state = self.shared.lock();
            let Some(config) = state.rx else { return Ok(phy::RxStatus::RxTimeout) };
            let modulation = modulation(&config.rf);
            let tolerance = match config.mode {
                phy::RxMode::Single { ms } => Duration::from_millis(ms.into()),
                phy::RxMode::Continuous => Duration::ZERO,
            };
            // as long before as after the window's middle, and the symbols to see a preamble
            let symbols = crate::radio::simulated::symbol(modulation) * LOCK_SYMBOLS;
            let length = 2 * tolerance + symbols;
            state.windows += 1;
            let which = if state.windows == 1 { RxWindow::Rx1 } else { RxWindow::Rx2 };
            let window = Window { frequency: config.rf.frequency, modulation, open: state.open, length };
            state.open = window.open + length;
            (window, which)
        };
        let Some(received) = self.radio.listen(window).await else { return Ok(phy::RxStatus::RxTimeout) };
        let length = received.phy.len().min(buffer.len());
        buffer[..length].copy_from_slice(&received.phy[..length]);
        let rssi = i16::try_from(received.rssi).unwrap_or(i16::MIN);
        self.shared.lock().received = Some((received.clone(), which));
        Ok(phy::RxStatus::Rx(length, phy::RxQuality::new(rssi, received.snr as i8)))
    }
}

impl async_device::Timings for Phy {
    fn get_rx_window_lead_time_ms(&self) -> u32 {
        TOLERANCE_MS
    }
}

/// The stack's timer. It counts from the exact end of the uplink, as a radio's interrupt would.
struct Timer {
    clock: Clock,
    shared: Shared,
}

impl phy::Timer for Timer {
    fn reset(&mut self) {
        // zero is the end of the uplink, which the radio has noted; now is later than that
    }

    async fn at(&mut self, millis: u64) {
        let at = {
            let mut state = self.shared.lock();
            state.open = state.base + Duration::from_millis(millis);
            state.open
        };
        self.clock.sleep_until(at).await;
    }

    async fn delay_ms(&mut self, millis: u64) {
        self.clock.sleep(Duration::from_millis(millis)).await;
    }
}

/// The stack's randomness: DevNonces and channels.
struct Chance(Shared);

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        let mut state = self.0.lock();
        // the stack's first draw in a join is the DevNonce; the next ones choose the channel
        match state.dev_nonce.take() {
            // which it then sends most significant byte first
            Some(dev_nonce) => dev_nonce.swap_bytes().into(),
            None => state.rng.next_u32(),
        }
    }
    fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }
    fn fill_bytes(&mut self, to: &mut [u8]) {
        self.0.lock().rng.fill_bytes(to);
    }
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::door::Deadline;
    use crate::fns::{Heard, Tx};
    use crate::lorawan::frame::{Downlink, JoinAccept, Uplink as Frame};
    use crate::lorawan::{NetId, crypto};
    use crate::radio::Radio;

    const GATEWAY: GatewayEui = GatewayEui::from_msb([2, 0, 0, 0, 0, 0, 0, 1]);
    const DEV: DevEui = DevEui::from_msb([0x58, 0x17, 0xb1, 0xc3, 0xeb, 0x89, 0x0b, 0xc4]);
    const JOIN: JoinEui = JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 1]);
    const ROOT: Key = Key::new([7; 16]);
    const ADDRESS: DevAddr = DevAddr::new(0x0200_0017);
    const HOME: NetId = NetId::from_msb([0, 0, 1]);

    fn street(seed: u64) -> (Radio, Device) {
        let clock = Clock::following("2026-11-20T10:00:00Z".parse().unwrap());
        let air = Air::new(clock.clone(), 7);
        let radio = air.head(GATEWAY, "attic");
        let mut device = Device::new(&air, clock, DEV, JOIN, &ROOT, seed);
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        (radio, device)
    }

    fn answer(heard: &Heard, delay: u64, phy: Vec<u8>) -> Tx {
        let delay = Duration::from_millis(delay);
        Tx {
            gateway: heard.gateway,
            session: heard.session,
            phy,
            frequency: heard.frequency,
            modulation: heard.modulation,
            power: 14,
            at: Some(heard.tmst.plus(delay)),
            start: heard.at + delay,
        }
    }

    /// A network with one device: answers its join, then acknowledges with a payload.
    async fn toy_network(mut radio: Radio, rx2: bool) {
        let mut nwk_s_key = ROOT;
        let mut app_s_key = ROOT;
        while let Some(heard) = radio.heard.recv().await {
            let tx = match Frame::parse(&heard.phy).unwrap() {
                Frame::Join(join) => {
                    let join = join.verify(&ROOT).unwrap();
                    assert_eq!((join.dev_eui(), join.join_eui()), (DEV, JOIN));
                    let keys = crypto::session_keys(&ROOT, 9, HOME, join.dev_nonce());
                    (nwk_s_key, app_s_key) = (keys.nwk_s_key.clone(), keys.app_s_key.clone());
                    let accept = JoinAccept {
                        join_nonce: 9,
                        net_id: HOME,
                        dev_addr: ADDRESS,
                        dl_settings: 0,
                        rx_delay: 1,
                        cf_list: crate::lorawan::Region::eu868().cf_list(),
                    };
                    let tx = answer(&heard, if rx2 { 6000 } else { 5000 }, accept.build(&ROOT));
                    let sf12 = Modulation::Lora { sf: 12, bandwidth: 125_000 };
                    if rx2 { Tx { frequency: 869_525_000, modulation: sf12, ..tx } } else { tx }
                }
                Frame::Data(data) => {
                    assert_eq!(heard.modulation, Modulation::Lora { sf: 7, bandwidth: 125_000 });
                    let fcnt = data.fcnt().into();
                    assert!(data.up_mic_matches(&nwk_s_key, fcnt));
                    let mut payload = *b"hello";
                    crypto::crypt_payload(&app_s_key, crypto::Direction::Down, ADDRESS, fcnt, &mut payload);
                    let downlink = Downlink {
                        ack: data.is_confirmed(),
                        payload: Some((5, &payload)),
                        ..Downlink::default()
                    };
                    answer(&heard, 1000, downlink.build(&nwk_s_key, ADDRESS, fcnt))
                }
                Frame::Rejoin(_) => continue,
            };
            let before = Deadline(tx.start);
            radio.heads.transmit(tx, before).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_joins_in_airtime_and_five_seconds_and_airtime_and_talks() {
        let (radio, mut device) = street(1);
        tokio::spawn(toy_network(radio, false));
        let join = device.join().await;
        assert!(join.ok && join.window == Some(RxWindow::Rx1), "{join:?}");
        assert_eq!(join.dev_addr, Some(ADDRESS));
        let five = join.downlink_start.unwrap() - join.uplink_end;
        assert_eq!(five, Duration::from_secs(5));
        // 61.7 ms of Join-request, 71.9 ms of Join-accept with CFList
        assert_eq!(join.took.as_millis(), 5133);
        for fcnt in 0..20 {
            let sent = device.send(b"temperature", 3, fcnt % 2 == 0).await.unwrap();
            assert_eq!((sent.fcnt_up, sent.acked), (fcnt, fcnt % 2 == 0));
            assert_eq!(sent.downlinks, [(5, b"hello".to_vec())]);
        }
        assert_eq!(device.fcnt_up(), Some(20));
    }

    #[tokio::test(start_paused = true)]
    async fn an_accept_in_the_second_window_is_found() {
        let (radio, mut device) = street(1);
        tokio::spawn(toy_network(radio, true));
        let join = device.join().await;
        assert!(join.ok && join.window == Some(RxWindow::Rx2), "{join:?}");
        assert_eq!(join.downlink_start.unwrap() - join.uplink_end, Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_join_that_nobody_answers_fails_after_both_windows() {
        let (_radio, mut device) = street(1);
        let join = device.join().await;
        assert!(!join.ok && join.dev_addr.is_none());
        assert!((6050..6400).contains(&join.took.as_millis()), "{join:?}");
        assert_eq!(device.send(b"x", 1, false).await, Err(DeviceError::NotJoined));
    }

    #[tokio::test(start_paused = true)]
    async fn one_seed_gives_one_sequence_of_dev_nonces_and_a_counting_device_sets_its_own() {
        let mut nonces = Vec::new();
        for _ in 0..2 {
            let (_radio, mut device) = street(5);
            nonces.push((device.join().await.dev_nonce, device.join().await.dev_nonce));
            device.set_dev_nonce(1);
            assert_eq!(device.join().await.dev_nonce, 1);
        }
        assert_eq!(nonces[0], nonces[1]);
        assert_ne!(nonces[0].0, nonces[0].1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_uplink_can_be_replayed_byte_for_byte() {
        let (mut radio, mut device) = street(1);
        let join = device.join().await;
        let bytes = device.last_uplink().unwrap();
        let modulation = Modulation::Lora { sf: 7, bandwidth: 125_000 };
        device.radiate(&bytes, join.frequency, modulation).await;
        let (first, second) = (radio.heard.recv().await.unwrap(), radio.heard.recv().await.unwrap());
        assert_eq!(first.phy, second.phy);
        assert!(second.at > first.at);
    }

    #[tokio::test]
    async fn the_walk_is_as_exact_in_real_time() {
        let (radio, mut device) = street(1);
        tokio::spawn(toy_network(radio, false));
        let join = device.join().await;
        assert_eq!(join.took.as_millis(), 5133);
    }
}
