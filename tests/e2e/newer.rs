//! A LoRaWAN 1.1 device with a radio on the air of a federation, in EU868 or US915.

use std::time::Duration;

use roamgate::backend::message::MacVersion;
use roamgate::clock::Clock;
use roamgate::control::{NewDevice, Operator};
use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::{HOME, Site};
use roamgate::lorawan::{DevEui, Key, Modulation};
use roamgate::radio::simulated::{DeviceRadio, Link, Window};

use crate::federation::{Known, Street};
use crate::lorawan11::{Answer, Device, Frame};

/// How far from its middle a window opens, and a preamble may begin.
const TOLERANCE: Duration = Duration::from_millis(11);
/// Symbols that a receiver needs to see a preamble.
const LOCK_SYMBOLS: u64 = 5;

/// Where the device believes to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Plan {
    Eu868,
    Us915,
}

impl Plan {
    fn up(self, data_rate: u8) -> Modulation {
        match (self, data_rate) {
            (Plan::Eu868, _) => Modulation::Lora { sf: 12 - data_rate, bandwidth: 125_000 },
            (Plan::Us915, 4) => Modulation::Lora { sf: 8, bandwidth: 500_000 },
            (Plan::Us915, _) => Modulation::Lora { sf: 10 - data_rate, bandwidth: 125_000 },
        }
    }

    fn down(self, data_rate: u8) -> Modulation {
        match (self, data_rate) {
            (Plan::Us915, 8..=13) => Modulation::Lora { sf: 20 - data_rate, bandwidth: 500_000 },
            _ => Modulation::Lora { sf: 12 - data_rate, bandwidth: 125_000 },
        }
    }

    /// Hertz and data rate of RX1 after an uplink.
    fn rx1(self, frame: &Frame, channel: usize, offset: u8) -> (u32, u8) {
        match self {
            Plan::Eu868 => (frame.frequency, frame.data_rate.saturating_sub(offset)),
            Plan::Us915 => {
                let frequency = 923_300_000 + 600_000 * (channel as u32 % 8);
                (frequency, (10 + frame.data_rate - offset).min(13))
            }
        }
    }

    /// Hertz of RX2.
    fn rx2(self) -> u32 {
        if self == Plan::Eu868 { 869_525_000 } else { 923_300_000 }
    }
}

/// The device, its radio, and what its home knows of it.
pub struct Newcomer {
    pub device: Device,
    pub dev_eui: DevEui,
    pub plan: Plan,
    radio: DeviceRadio,
}

/// What an uplink brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// What was sent.
    pub frame: Frame,
    /// What came back, and in which window.
    pub answer: Option<(Answer, RxWindow)>,
}

impl Exchange {
    /// What came back; there must be something.
    pub fn answer(&self) -> &Answer {
        &self.answer.as_ref().expect("an answer").0
    }

    pub fn acked(&self) -> bool {
        self.answer.as_ref().is_some_and(|(answer, _)| answer.ack)
    }
}

impl Street {
    /// A new LoRaWAN 1.1 device whose home is our home, standing at a hotspot.
    pub async fn newcomer(&self, at: Site) -> Newcomer {
        let (dev_eui, nwk_key, app_key) = (self.clock.random(), self.clock.random(), self.clock.random());
        let new = NewDevice {
            dev_eui: DevEui::from_msb(dev_eui),
            join_eui: HOME.join_eui,
            app_key: Some(Key::new(app_key)),
            nwk_key: Some(Key::new(nwk_key)),
            name: "a 1.1 device".into(),
            mac_version: MacVersion::V1_1,
            roaming: true,
            home: None,
        };
        self.home().node().unwrap().operator().add_device(new).await.expect("the device is new");
        let device = Device::otaa(dev_eui, HOME.join_eui.to_msb(), nwk_key, app_key);
        self.newcomer_with(device, at)
    }

    /// The same, where the device is made already and known at home, or not.
    pub fn newcomer_with(&self, device: Device, at: Site) -> Newcomer {
        let dev_eui = DevEui::from_msb(device.dev_eui);
        let newcomer = Newcomer { device, dev_eui, plan: Plan::Eu868, radio: self.federation.air.device() };
        newcomer.carry(at);
        newcomer
    }

    /// A join that must succeed.
    pub async fn newcomer_joins(&self, newcomer: &mut Newcomer) {
        let request = newcomer.device.join_request();
        let received = newcomer.exchange(&request, 5).await;
        let (phy, _) = received.expect("a Join-accept");
        newcomer.device.take_accept(&phy).expect("the Join-accept is right");
        self.settle().await;
    }
}

impl Known for Newcomer {
    fn dev_eui(&self) -> DevEui {
        self.dev_eui
    }
}

/// As many as a receiver needs: a symbol is 2^SF chips.
fn symbols(modulation: Modulation) -> Duration {
    let Modulation::Lora { sf, bandwidth } = modulation else { panic!("LoRa") };
    Duration::from_micros(LOCK_SYMBOLS * (1_000_000 << sf) / u64::from(bandwidth))
}

impl Newcomer {
    /// Stand where only this hotspot hears the device.
    pub fn carry(&self, to: Site) {
        self.radio.move_to(&[(to.gateway, Link::NEAR)]);
    }

    /// Send a frame and listen in both windows, the first of which opens after so many seconds.
    pub async fn exchange(&self, frame: &Frame, delay: u8) -> Option<(Vec<u8>, RxWindow)> {
        let (_, end) = self.radio.transmit(&frame.phy, frame.frequency, self.plan.up(frame.data_rate)).await;
        let (offset, rx2_data_rate) = (self.device.dl_settings >> 4 & 0x07, self.device.dl_settings & 0x0F);
        let (rx1, data_rate) = self.plan.rx1(frame, self.device.channel, offset);
        let first = (RxWindow::Rx1, delay, rx1, data_rate);
        let second = (RxWindow::Rx2, delay + 1, self.plan.rx2(), rx2_data_rate);
        for (which, after, frequency, data_rate) in [first, second] {
            let modulation = self.plan.down(data_rate);
            let open = end + Duration::from_secs(after.into()) - TOLERANCE;
            let length = 2 * TOLERANCE + symbols(modulation);
            if let Some(received) = self.radio.listen(Window { frequency, modulation, open, length }).await {
                return Some((received.phy, which));
            }
        }
        None
    }

    /// Listen as a device of class C until something comes, which must be right.
    pub async fn listen(&mut self, clock: &Clock, time: Duration) -> Option<Answer> {
        let (modulation, frequency) = (self.plan.down(self.device.dl_settings & 0x0F), self.plan.rx2());
        // longer than half a preamble, so no frame begins unseen between two of them
        let length = Duration::from_millis(300);
        let begin = clock.now();
        let mut open = begin;
        while open < begin + time {
            if let Some(received) = self.radio.listen(Window { frequency, modulation, open, length }).await {
                return Some(self.device.take(&received.phy).expect("a right downlink"));
            }
            open += length;
        }
        None
    }

    /// Send a frame; what comes back must be right.
    pub async fn send(&mut self, frame: Frame) -> Exchange {
        let received = self.exchange(&frame, self.device.rx_delay).await;
        let answer =
            received.map(|(phy, window)| (self.device.take(&phy).expect("a right downlink"), window));
        Exchange { frame, answer }
    }

    /// Send on FPort 2.
    pub async fn say(&mut self, payload: &[u8], confirmed: bool) -> Exchange {
        let frame = self.device.uplink(2, payload, confirmed);
        self.send(frame).await
    }
}
