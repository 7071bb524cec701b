//! Regional parameters (RP002), thin over crate `lrwn`, which is named nowhere else.
//!
//! Speaks of data rate indexes and hertz; converts to modulations at the edge of the radio.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use lrwn::region::{self, CommonName, DataRateModulation, FskDataRate, LoraDataRate, MacVersion, Revision};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// JOIN_ACCEPT_DELAY1: RX1 after the end of a Join-request (RP002, all regions).
pub const JOIN_ACCEPT_DELAY1: u8 = 5;

/// How a frame is modulated on the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Modulation {
    /// LoRa.
    Lora {
        /// Spreading factor, 5 to 12.
        sf: u8,
        /// Hertz.
        bandwidth: u32,
    },
    /// FSK.
    Fsk {
        /// Bits per second.
        bitrate: u32,
    },
}

impl fmt::Display for Modulation {
    /// As Semtech's `datr` writes it: `SF7BW125`, `50000`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Modulation::Lora { sf, bandwidth } => write!(to, "SF{sf}BW{}", bandwidth / 1000),
            Modulation::Fsk { bitrate } => write!(to, "{bitrate}"),
        }
    }
}

/// A channel plan with its rules. Cheap to clone.
#[derive(Clone)]
pub struct Region {
    name: CommonName,
    plan: Arc<dyn region::Region + Send + Sync>,
}

/// A region that is not one of RP002.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0:?} is no region of RP002 (EU868, US915, AU915, AS923, ...)")]
pub struct UnknownRegion(String);

impl FromStr for Region {
    type Err = UnknownRegion;
    /// Modern and TS002 1.0 names, any case, `-` or `_` (TS002 8.3).
    fn from_str(text: &str) -> Result<Region, UnknownRegion> {
        let upper = text.to_ascii_uppercase().replace('_', "-");
        let modern = match upper.as_str() {
            "US902" => "US915",
            "CHINA779" => "CN779",
            "AUSTRALIA915" => "AU915",
            "CHINA470" => "CN470",
            "AS923-1" => "AS923",
            other => other,
        };
        let name = modern.parse().map_err(|_| UnknownRegion(text.chars().take(40).collect()))?;
        Ok(Region { name, plan: Arc::from(plan(name)) })
    }
}

fn plan(name: CommonName) -> Box<dyn region::Region + Send + Sync> {
    let mut plan = region::get(name, false, false);
    if name == CommonName::EU868 {
        // The five further channels that most EU868 gateways listen on (865-868 MHz band at 1 %)
        for frequency in [867_100_000, 867_300_000, 867_500_000, 867_700_000, 867_900_000] {
            // cannot fail: EU868 takes user channels
            let _ = plan.add_channel(frequency, 0, 5);
        }
    }
    plan
}

impl Region {
    /// EU863-870.
    pub fn eu868() -> Region {
        Region { name: CommonName::EU868, plan: Arc::from(plan(CommonName::EU868)) }
    }
    /// The frequencies a device may use, in hertz, in channel order.
    pub fn uplink_frequencies(&self) -> Vec<u32> {
        let channels = self.plan.get_uplink_channel_indices();
        channels
            .into_iter()
            .filter_map(|index| self.plan.get_uplink_channel(index).ok())
            .map(|channel| channel.frequency)
            .collect()
    }
    /// The index of an uplink's data rate.
    pub fn uplink_data_rate(&self, modulation: Modulation) -> Option<u8> {
        self.plan.get_data_rate_index(true, &to_lrwn(modulation)).ok()
    }
    /// The index of the channel that an uplink was sent on, in hertz with a data rate index. A device has its channels
    /// from the plan and from the Join-accept's CFList, in this order.
    pub fn uplink_channel(&self, frequency: u32, data_rate: u8) -> Option<u8> {
        self.plan.get_uplink_channel_index_for_freq_dr(frequency, data_rate).ok()?.try_into().ok()
    }
    /// The modulation of a data rate index.
    pub fn modulation(&self, data_rate: u8) -> Option<Modulation> {
        match self.plan.get_data_rate(data_rate).ok()? {
            DataRateModulation::Lora(l) => {
                Some(Modulation::Lora { sf: l.spreading_factor, bandwidth: l.bandwidth })
            }
            DataRateModulation::Fsk(f) => Some(Modulation::Fsk { bitrate: f.bitrate }),
            DataRateModulation::LrFhss(_) => None,
        }
    }
    /// RX1 for an uplink: frequency in hertz and data rate index.
    pub fn rx1(&self, frequency: u32, data_rate: u8, rx1_dr_offset: u8) -> Option<(u32, u8)> {
        let plan = &self.plan;
        let rx1 = plan.get_rx1_frequency_for_uplink_frequency(frequency).ok()?;
        Some((rx1, plan.get_rx1_data_rate_index(data_rate, rx1_dr_offset.into()).ok()?))
    }
    /// RX2 before any command changes it: frequency in hertz and data rate index.
    pub fn rx2(&self) -> (u32, u8) {
        let defaults = self.plan.get_defaults();
        (defaults.rx2_frequency, defaults.rx2_dr)
    }
    /// The CFList of a Join-accept, as on the air: frequencies or channel masks, as the region has it.
    pub fn cf_list(&self) -> Option<[u8; 16]> {
        self.plan.get_cf_list(MacVersion::LORAWAN_1_0_4)?.to_bytes().ok()
    }
    /// The modulation of a data rate index, where the region has it downwards.
    pub fn downlink_modulation(&self, data_rate: u8) -> Option<Modulation> {
        let downwards = match self.name {
            CommonName::US915 | CommonName::AU915 => (8..=13).contains(&data_rate),
            _ => true,
        };
        if downwards { self.modulation(data_rate) } else { None }
    }
    /// Hertz from the lowest to the highest frequency of any downlink.
    pub fn downlink_band(&self) -> RangeInclusive<u32> {
        match self.name {
            CommonName::EU868 => 863_000_000..=870_000_000,
            CommonName::US915 | CommonName::AU915 => 923_300_000..=927_500_000,
            CommonName::CN779 => 779_000_000..=787_000_000,
            CommonName::EU433 => 433_050_000..=434_790_000,
            CommonName::CN470 => 470_000_000..=510_000_000,
            CommonName::AS923 | CommonName::AS923_2 | CommonName::AS923_3 | CommonName::AS923_4 => {
                915_000_000..=928_000_000
            }
            CommonName::KR920 => 920_900_000..=923_300_000,
            CommonName::IN865 => 865_000_000..=867_000_000,
            CommonName::RU864 => 864_000_000..=870_000_000,
            CommonName::ISM2400 => 2_400_000_000..=2_483_500_000,
        }
    }
    /// The longest PHYPayload at a data rate, in bytes: MHDR, FHDR, FPort, FRMPayload, MIC.
    pub fn max_phy(&self, data_rate: u8) -> Option<usize> {
        self.max_payload(data_rate).map(|payload| 1 + 7 + 1 + payload + 4)
    }
    /// The longest FRMPayload without FOpts at a data rate, in bytes.
    pub fn max_payload(&self, data_rate: u8) -> Option<usize> {
        let (version, revision) = (MacVersion::LORAWAN_1_0_4, Revision::Latest);
        let size = self.plan.get_max_payload_size(version, revision, data_rate).ok()?;
        Some(size.n)
    }
    /// Strongest downlink at a frequency, EIRP in dBm.
    pub fn max_downlink_eirp(&self, frequency: u32) -> i8 {
        i8::try_from(self.plan.get_downlink_tx_power_eirp(frequency)).unwrap_or(i8::MAX)
    }
    /// RECEIVE_DELAY1.
    pub fn rx1_delay(&self) -> Duration {
        self.plan.get_defaults().rx1_delay
    }
}

fn to_lrwn(modulation: Modulation) -> DataRateModulation {
    match modulation {
        Modulation::Lora { sf, bandwidth } => DataRateModulation::Lora(LoraDataRate {
            spreading_factor: sf,
            bandwidth,
            coding_rate: "4/5".to_string(),
        }),
        Modulation::Fsk { bitrate } => DataRateModulation::Fsk(FskDataRate { bitrate }),
    }
}

impl PartialEq for Region {
    fn eq(&self, other: &Region) -> bool {
        self.name == other.name
    }
}
impl Eq for Region {}

impl fmt::Display for Region {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.name.to_string().replace('_', "-"))
    }
}
impl fmt::Debug for Region {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Region({self})")
    }
}
impl Serialize for Region {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
