//! What can be configured, and what is refused.
//!
//! Owns the rules between the values. Each part is checked when it is set, so a [`Config`] holds nothing impossible;
//! what only the whole can show is checked by [`Config::check`].

use std::fmt;

/// One of the two RF chains, each with its own radio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Chain {
    /// RF chain 0.
    A = 0,
    /// RF chain 1.
    B = 1,
}

impl Chain {
    /// Both.
    pub const BOTH: [Chain; 2] = [Chain::A, Chain::B];

    /// 0 or 1.
    pub fn from_index(index: u8) -> Result<Chain, ConfigError> {
        match index {
            0 => Ok(Chain::A),
            1 => Ok(Chain::B),
            _ => Err(ConfigError::Chain(index)),
        }
    }

    /// 0 or 1.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    pub const fn other(self) -> Chain {
        match self {
            Chain::A => Chain::B,
            Chain::B => Chain::A,
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Chain::A { "A" } else { "B" })
    }
}

/// A LoRa bandwidth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bandwidth {
    /// 125 kHz.
    Khz125,
    /// 250 kHz.
    Khz250,
    /// 500 kHz.
    Khz500,
}

impl Bandwidth {
    /// From hertz.
    pub fn from_hz(hz: u32) -> Result<Bandwidth, ConfigError> {
        match hz {
            125_000 => Ok(Bandwidth::Khz125),
            250_000 => Ok(Bandwidth::Khz250),
            500_000 => Ok(Bandwidth::Khz500),
            _ => Err(ConfigError::Bandwidth(hz)),
        }
    }

    /// In hertz.
    pub const fn hz(self) -> u32 {
        125_000 * self.factor()
    }

    /// 1, 2 or 4.
    pub const fn factor(self) -> u32 {
        match self {
            Bandwidth::Khz125 => 1,
            Bandwidth::Khz250 => 2,
            Bandwidth::Khz500 => 4,
        }
    }

    /// As registers and processors know it.
    pub const fn code(self) -> u8 {
        match self {
            Bandwidth::Khz125 => 4,
            Bandwidth::Khz250 => 5,
            Bandwidth::Khz500 => 6,
        }
    }
}

/// A spreading factor, 5 to 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpreadingFactor(u8);

impl SpreadingFactor {
    /// All eight.
    pub const ALL: [SpreadingFactor; 8] = [
        SpreadingFactor(5),
        SpreadingFactor(6),
        SpreadingFactor(7),
        SpreadingFactor(8),
        SpreadingFactor(9),
        SpreadingFactor(10),
        SpreadingFactor(11),
        SpreadingFactor(12),
    ];

    /// From its number.
    pub fn new(number: u8) -> Result<SpreadingFactor, ConfigError> {
        if (5..=12).contains(&number) {
            Ok(SpreadingFactor(number))
        } else {
            Err(ConfigError::SpreadingFactor(number.into()))
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// SF5 and SF6 use the private sync word always, and synchronise finely.
    pub const fn is_short(self) -> bool {
        self.0 <= 6
    }

    /// Whether symbols are so long that low-data-rate optimisation is on.
    pub const fn is_slow(self, bandwidth: Bandwidth) -> bool {
        match bandwidth {
            Bandwidth::Khz125 => self.0 >= 11,
            Bandwidth::Khz250 => self.0 == 12,
            Bandwidth::Khz500 => false,
        }
    }
}

/// A LoRa coding rate, 4/5 to 4/8, written as 1 to 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodingRate(u8);

impl CodingRate {
    /// From its number.
    pub fn new(number: u8) -> Result<CodingRate, ConfigError> {
        if (1..=4).contains(&number) { Ok(CodingRate(number)) } else { Err(ConfigError::CodingRate(number)) }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for CodingRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "4/{}", self.0 + 4)
    }
}

/// Which radio chip a chain has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RadioKind {
    /// SX1250.
    Sx1250,
    /// SX1255, 400 to 510 MHz.
    Sx1255,
    /// SX1257, 862 to 1020 MHz.
    Sx1257,
}

impl RadioKind {
    /// The older family, which the host must calibrate.
    pub const fn is_sx125x(self) -> bool {
        !matches!(self, RadioKind::Sx1250)
    }
}

/// How much the RSSI drifts with the temperature T in °C: `(a·T⁴ + b·T³ + c·T² + d·T + e) / 65536` dB.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TemperatureCurve {
    /// Fourth power.
    pub a: f32,
    /// Third power.
    pub b: f32,
    /// Second power.
    pub c: f32,
    /// First power.
    pub d: f32,
    /// Constant.
    pub e: f32,
}

impl TemperatureCurve {
    /// Of boards with SX1250.
    pub const SX1250: TemperatureCurve = TemperatureCurve { a: 0.0, b: 0.0, c: 20.41, d: 2162.56, e: 0.0 };

    /// What is added to an RSSI, in dB: computed in double precision, kept in single.
    pub fn offset_db(&self, celsius: f32) -> f32 {
        let t = f64::from(celsius);
        let [a, b, c, e] = [self.a, self.b, self.c, self.e].map(f64::from);
        // the product of the first power is single there
        let first = f64::from(self.d * celsius);
        ((a * t.powi(4) + b * t.powi(3) + c * t.powi(2) + first + e) / 65536.0) as f32
    }
}

/// How a power at the antenna is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gain {
    /// Power at the antenna connector, dBm.
    pub rf_power: i8,
    /// External amplifier, 0 to 3.
    pub pa: u8,
    /// SX1250: power index, 0 to 22.
    pub power_index: u8,
    /// Digital gain, 0 to 3.
    pub digital: u8,
    /// SX125x: DAC gain, 0 to 3.
    pub dac: u8,
    /// SX125x: mixer gain, 5 to 15.
    pub mixer: u8,
}

impl Gain {
    /// An entry for an SX1250.
    pub const fn sx1250(rf_power: i8, pa: u8, power_index: u8) -> Gain {
        Gain { rf_power, pa, power_index, digital: 0, dac: 3, mixer: 5 }
    }

    fn check(&self, kind: RadioKind) -> Result<(), ConfigError> {
        let radio = match kind {
            RadioKind::Sx1250 => self.power_index <= 22,
            RadioKind::Sx1255 | RadioKind::Sx1257 => self.dac <= 3 && (5..=15).contains(&self.mixer),
        };
        if radio && self.pa <= 3 && self.digital <= 3 { Ok(()) } else { Err(ConfigError::Gain(*self)) }
    }
}

/// A radio and its RF chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Radio {
    /// Whether it is used.
    pub enable: bool,
    /// Which chip.
    pub kind: RadioKind,
    /// Centre of the 1.6 MHz it hears.
    pub freq_hz: u32,
    /// Added to every RSSI, dB.
    pub rssi_offset: f32,
    /// Drift of the RSSI.
    pub rssi_tcomp: TemperatureCurve,
    /// Whether it may send.
    pub tx_enable: bool,
    /// SX1250: the antenna is wired to one of its two inputs.
    pub single_input: bool,
    /// How powers are made, sorted by power; 1 to 16 entries where it may send.
    pub gains: Vec<Gain>,
}

impl Radio {
    /// No radio.
    pub fn off(kind: RadioKind) -> Radio {
        Radio {
            enable: false,
            kind,
            freq_hz: 0,
            rssi_offset: 0.0,
            rssi_tcomp: TemperatureCurve::default(),
            tx_enable: false,
            single_input: false,
            gains: Vec::new(),
        }
    }

    /// Checks the parts, sorts the gains.
    fn checked(mut self) -> Result<Radio, ConfigError> {
        if self.enable && !(100_000_000..=1_000_000_000).contains(&self.freq_hz) {
            return Err(ConfigError::RadioFrequency(self.freq_hz));
        }
        if self.gains.len() > 16 {
            return Err(ConfigError::Gains(self.gains.len()));
        }
        self.gains.iter().try_for_each(|gain| gain.check(self.kind))?;
        self.gains.sort_by_key(|gain| gain.rf_power);
        Ok(self)
    }
}

/// A multi-SF channel: 125 kHz, all spreading factors of the mask at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Which radio.
    pub chain: Chain,
    /// Distance from the radio's centre.
    pub if_hz: i32,
}

/// The LoRa service channel: one spreading factor at any bandwidth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Which radio.
    pub chain: Chain,
    /// Distance from the radio's centre.
    pub if_hz: i32,
    /// Bandwidth.
    pub bandwidth: Bandwidth,
    /// Spreading factor.
    pub sf: SpreadingFactor,
    /// Packets without header: what follows holds for all of them.
    pub implicit_header: bool,
    /// Payload length of packets without header.
    pub payload_length: u8,
    /// Whether packets without header carry a CRC.
    pub crc: bool,
    /// Coding rate of packets without header; 0 is tolerated where there is a header.
    pub coding_rate: u8,
}

/// The FSK channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fsk {
    /// Which radio.
    pub chain: Chain,
    /// Distance from the radio's centre.
    pub if_hz: i32,
    /// Its width, for the check against the radio's.
    pub bandwidth: Bandwidth,
    /// Bits per second, 500 to 250000.
    pub bitrate: u32,
    /// Sync word.
    pub sync: SyncWord,
}

/// Sync word of FSK packets, 1 to 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncWord {
    /// The last byte sent is the least significant.
    pub word: u64,
    /// Bytes.
    pub size: u8,
}

impl Default for SyncWord {
    fn default() -> Self {
        SyncWord { word: 0xc1_94c1, size: 3 }
    }
}

impl SyncWord {
    /// Its eight register bytes, most significant first, left-aligned.
    pub fn registers(self) -> [u8; 8] {
        (self.word << (8 * (8 - u32::from(self.size.clamp(1, 8))))).to_be_bytes()
    }
}

/// Which packets are demodulated twice to be timed finely (SX1303).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FineStamps {
    /// All spreading factors.
    AllSf,
    /// SF5 to SF10.
    HighCapacity,
}

/// The additional radio for listen-before-talk and spectral scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sx1261 {
    /// Added to its RSSI, dB.
    pub rssi_offset: i8,
    /// Listen before talk, where the law wants it.
    pub lbt: Option<Lbt>,
}

/// Listen before talk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lbt {
    /// The channel is free below this, dBm.
    pub rssi_target: i8,
    /// At most 16.
    pub channels: Vec<LbtChannel>,
}

/// A channel on which one listens before one talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LbtChannel {
    /// Centre.
    pub freq_hz: u32,
    /// 125 or 250 kHz.
    pub bandwidth: Bandwidth,
    /// 128 or 5000.
    pub scan_us: u32,
    /// How long one may send after having listened.
    pub transmit_ms: u32,
}

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// There are two.
    #[error("RF chain {0}: there are 0 and 1")]
    Chain(u8),
    /// There are ten.
    #[error("IF chain {0}: there are 0 to 9")]
    IfChain(u8),
    /// LoRa knows three here.
    #[error("bandwidth {0} Hz: 125000, 250000 and 500000 are possible")]
    Bandwidth(u32),
    /// 5 to 12.
    #[error("SF{0}: SF5 to SF12 are possible")]
    SpreadingFactor(u32),
    /// 1 to 4.
    #[error("coding rate {0}: 1 (4/5) to 4 (4/8) are possible")]
    CodingRate(u8),
    /// 100 MHz to 1 GHz.
    #[error("radio centre {0} Hz: 100 MHz to 1 GHz are possible")]
    RadioFrequency(u32),
    /// A channel must lie inside what its radio hears.
    #[error("IF {if_hz} Hz with {bandwidth_hz} Hz is outside the radio's ±800 kHz")]
    Outside {
        /// Distance from the centre.
        if_hz: i32,
        /// Width.
        bandwidth_hz: u32,
    },
    /// 500 to 250000.
    #[error("{0} bit/s: FSK has 500 to 250000")]
    Bitrate(u32),
    /// 1 to 200 kHz.
    #[error("FSK deviation {0} Hz: 1 to 200 kHz are possible")]
    Deviation(u32),
    /// 1 to 8 bytes.
    #[error("a sync word of {0} bytes: 1 to 8 are possible")]
    SyncWord(u8),
    /// A gain out of range.
    #[error("no such gain: {0:?}")]
    Gain(Gain),
    /// 1 to 16.
    #[error("{0} gain entries: 1 to 16 are possible")]
    Gains(usize),
    /// The chip has no clock then.
    #[error("radio {0} clocks the chip and is not enabled")]
    NoClock(Chain),
    /// A chain that may not send.
    #[error("RF chain {0} may not send")]
    NoTx(Chain),
    /// At most 255 bytes.
    #[error("a payload of {0} bytes: at most 255 are possible")]
    Payload(usize),
    /// No channel of the configuration.
    #[error("no listen-before-talk channel at {freq_hz} Hz with {bandwidth_hz} Hz")]
    NoLbtChannel {
        /// Where one wanted to send.
        freq_hz: u32,
        /// With which width.
        bandwidth_hz: u32,
    },
    /// Longer than the channel allows.
    #[error("{time_on_air_ms} ms on air: after listening at most {allowed_ms} ms less 1.5 ms are allowed")]
    TooLongAfterListening {
        /// How long it would take.
        time_on_air_ms: u32,
        /// What the channel allows.
        allowed_ms: u32,
    },
    /// Something else about listen before talk.
    #[error("listen before talk: {0}")]
    Lbt(&'static str),
    /// The daemon's configuration has no SX1261.
    #[error("no SX1261 is configured")]
    NoSx1261,
    /// What a packet must not have.
    #[error("{0}")]
    Transmission(&'static str),
}

/// Everything that is fixed while the concentrator runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Sync word 0x34 of public networks; otherwise 0x12.
    pub public: bool,
    /// The radio that clocks the chip. Its kind decides which firmware is loaded.
    pub clock: Chain,
    /// Sending and receiving at once (boards with SX1255/SX1257 made for it).
    pub full_duplex: bool,
    radios: [Radio; 2],
    multi_sf: [Option<Channel>; 8],
    service: Option<Service>,
    fsk: Option<Fsk>,
    /// Spreading factors of the multi-SF channels, bit 0 is SF5.
    pub multi_sf_mask: u8,
    /// Fine time stamps.
    pub fine_stamps: Option<FineStamps>,
    sx1261: Option<Sx1261>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            public: true,
            clock: Chain::A,
            full_duplex: false,
            radios: [Radio::off(RadioKind::Sx1250), Radio::off(RadioKind::Sx1250)],
            multi_sf: [None; 8],
            service: None,
            fsk: None,
            multi_sf_mask: 0xff,
            fine_stamps: None,
            sx1261: None,
        }
    }
}

impl Config {
    /// Nothing is enabled.
    pub fn new() -> Config {
        Config::default()
    }

    /// A radio and its chain.
    pub fn radio(&self, chain: Chain) -> &Radio {
        &self.radios[chain.index()]
    }

    /// Sets a radio.
    pub fn set_radio(&mut self, chain: Chain, radio: Radio) -> Result<(), ConfigError> {
        self.radios[chain.index()] = radio.checked()?;
        Ok(())
    }

    /// The chains that are in use.
    pub fn enabled(&self) -> impl Iterator<Item = Chain> + '_ {
        Chain::BOTH.into_iter().filter(|chain| self.radio(*chain).enable)
    }

    /// The radio that decides firmware and interfaces.
    pub fn clock_kind(&self) -> RadioKind {
        self.radio(self.clock).kind
    }

    /// The multi-SF channels by number.
    pub fn multi_sf(&self) -> &[Option<Channel>; 8] {
        &self.multi_sf
    }

    /// Sets a multi-SF channel.
    pub fn set_multi_sf(&mut self, number: u8, channel: Option<Channel>) -> Result<(), ConfigError> {
        let slot = self.multi_sf.get_mut(usize::from(number)).ok_or(ConfigError::IfChain(number))?;
        if let Some(channel) = channel {
            inside(channel.if_hz, Bandwidth::Khz125.hz())?;
        }
        *slot = channel;
        Ok(())
    }

    /// The service channel.
    pub fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// Sets the service channel.
    pub fn set_service(&mut self, service: Option<Service>) -> Result<(), ConfigError> {
        if let Some(service) = &service {
            inside(service.if_hz, service.bandwidth.hz())?;
            if service.implicit_header {
                CodingRate::new(service.coding_rate)?;
            }
        }
        self.service = service;
        Ok(())
    }

    /// The FSK channel.
    pub fn fsk(&self) -> Option<&Fsk> {
        self.fsk.as_ref()
    }

    /// Sets the FSK channel.
    pub fn set_fsk(&mut self, fsk: Option<Fsk>) -> Result<(), ConfigError> {
        if let Some(fsk) = &fsk {
            inside(fsk.if_hz, fsk.bandwidth.hz())?;
            if !(500..=250_000).contains(&fsk.bitrate) {
                return Err(ConfigError::Bitrate(fsk.bitrate));
            }
            if !(1..=8).contains(&fsk.sync.size) {
                return Err(ConfigError::SyncWord(fsk.sync.size));
            }
        }
        self.fsk = fsk;
        Ok(())
    }

    /// The additional radio.
    pub fn sx1261(&self) -> Option<&Sx1261> {
        self.sx1261.as_ref()
    }

    /// Sets the additional radio.
    pub fn set_sx1261(&mut self, sx1261: Option<Sx1261>) -> Result<(), ConfigError> {
        for lbt in sx1261.iter().filter_map(|sx1261| sx1261.lbt.as_ref()) {
            if lbt.channels.len() > 16 {
                return Err(ConfigError::Lbt("at most 16 channels are possible"));
            }
            for channel in &lbt.channels {
                if channel.bandwidth == Bandwidth::Khz500 {
                    return Err(ConfigError::Lbt("channels have 125 or 250 kHz"));
                }
                if !matches!(channel.scan_us, 128 | 5000) {
                    return Err(ConfigError::Lbt("scan times are 128 or 5000 us"));
                }
            }
        }
        self.sx1261 = sx1261;
        Ok(())
    }

    /// Where an IF chain lies: its radio and the distance from its centre. Chains that are off are A and 0.
    pub fn if_chain(&self, number: u8) -> Option<(Chain, i32)> {
        match number {
            0..=7 => self.multi_sf[usize::from(number)].map(|channel| (channel.chain, channel.if_hz)),
            8 => self.service.map(|service| (service.chain, service.if_hz)),
            9 => self.fsk.map(|fsk| (fsk.chain, fsk.if_hz)),
            _ => None,
        }
    }

    /// What only the whole shows.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.radio(self.clock).enable {
            return Err(ConfigError::NoClock(self.clock));
        }
        Ok(())
    }

    /// Eight channels of EU868, the service channel and FSK, on a board with two SX1250; for examples and tests.
    pub fn example_eu868() -> Config {
        let radio = |freq_hz, tx_enable| Radio {
            enable: true,
            kind: RadioKind::Sx1250,
            freq_hz,
            rssi_offset: -215.4,
            rssi_tcomp: TemperatureCurve::SX1250,
            tx_enable,
            single_input: false,
            gains: vec![Gain::sx1250(12, 0, 15), Gain::sx1250(14, 0, 17), Gain::sx1250(27, 1, 14)],
        };
        let channel = |chain, if_hz| Some(Channel { chain, if_hz });
        Config {
            radios: [radio(867_500_000, true), radio(868_500_000, false)],
            multi_sf: [
                channel(Chain::B, -400_000),
                channel(Chain::B, -200_000),
                channel(Chain::B, 0),
                channel(Chain::A, -400_000),
                channel(Chain::A, -200_000),
                channel(Chain::A, 0),
                channel(Chain::A, 200_000),
                channel(Chain::A, 400_000),
            ],
            service: Some(Service {
                chain: Chain::B,
                if_hz: -200_000,
                bandwidth: Bandwidth::Khz250,
                sf: SpreadingFactor(7),
                implicit_header: false,
                payload_length: 17,
                crc: false,
                coding_rate: 1,
            }),
            fsk: Some(Fsk {
                chain: Chain::B,
                if_hz: 300_000,
                bandwidth: Bandwidth::Khz125,
                bitrate: 50_000,
                sync: SyncWord::default(),
            }),
            ..Config::default()
        }
    }
}

/// A radio hears 1.6 MHz.
fn inside(if_hz: i32, bandwidth_hz: u32) -> Result<(), ConfigError> {
    let half = (bandwidth_hz / 2) as i32;
    if if_hz.saturating_add(half) > 800_000 || if_hz.saturating_sub(half) < -800_000 {
        return Err(ConfigError::Outside { if_hz, bandwidth_hz });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_lies_inside_what_its_radio_hears() {
        let mut config = Config::new();
        let at = |if_hz| Some(Channel { chain: Chain::A, if_hz });
        assert_eq!(config.set_multi_sf(0, at(737_500)), Ok(()));
        assert_eq!(config.set_multi_sf(0, at(-737_500)), Ok(()));
        assert!(matches!(config.set_multi_sf(0, at(737_501)), Err(ConfigError::Outside { .. })));
        assert!(matches!(config.set_multi_sf(0, at(i32::MIN)), Err(ConfigError::Outside { .. })));
        assert_eq!(config.set_multi_sf(8, None), Err(ConfigError::IfChain(8)));
    }

    #[test]
    fn gains_are_sorted_and_bounded() {
        let mut config = Config::new();
        let mut radio = Radio { enable: true, freq_hz: 868_000_000, ..Radio::off(RadioKind::Sx1250) };
        radio.gains = vec![Gain::sx1250(20, 1, 3), Gain::sx1250(12, 0, 15)];
        config.set_radio(Chain::A, radio.clone()).unwrap();
        assert_eq!(config.radio(Chain::A).gains[0].rf_power, 12);
        radio.gains = vec![Gain::sx1250(20, 1, 23)];
        assert!(matches!(config.set_radio(Chain::A, radio.clone()), Err(ConfigError::Gain(_))));
        radio.gains = vec![Gain::sx1250(20, 1, 3); 17];
        assert_eq!(config.set_radio(Chain::A, radio), Err(ConfigError::Gains(17)));
    }

    #[test]
    fn a_sync_word_stands_left() {
        assert_eq!(SyncWord::default().registers(), [0xc1, 0x94, 0xc1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_chip_needs_its_clock() {
        assert_eq!(Config::new().check(), Err(ConfigError::NoClock(Chain::A)));
        assert_eq!(Config::example_eu868().check(), Ok(()));
    }
}
