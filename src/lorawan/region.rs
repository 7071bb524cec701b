//! Regional parameters (RP002), thin over crate `lrwn`, which is named nowhere else.
//!
//! Speaks of data rate indexes and hertz; converts to modulations at the edge of the radio.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
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

impl FromStr for Modulation {
    type Err = String;
    /// As it is written.
    fn from_str(text: &str) -> Result<Modulation, String> {
        let lora = || {
            let (sf, kilohertz) = text.strip_prefix("SF")?.split_once("BW")?;
            let (sf, kilohertz): (u8, u32) = (sf.parse().ok()?, kilohertz.parse().ok()?);
            let plausible = (5..=12).contains(&sf) && (1..=2000).contains(&kilohertz);
            plausible.then_some(Modulation::Lora { sf, bandwidth: kilohertz * 1000 })
        };
        let fsk =
            || text.parse().ok().filter(|bitrate| *bitrate > 0).map(|bitrate| Modulation::Fsk { bitrate });
        lora().or_else(fsk).ok_or_else(|| format!("{text:?} is no data rate like SF7BW125 or 50000"))
    }
}

/// Groups of eight uplink channels that gateways listen to together, counted from 1: in US915 and AU915
/// channels 8n-8 to 8n-1 and the 500 kHz channel 63+n, in CN470 channels 8n-8 to 8n-1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SubBands(u16);

impl SubBands {
    /// Every channel of the region.
    pub const ALL: SubBands = SubBands(u16::MAX);

    /// One of them; 1 is the first.
    pub fn only(number: u8) -> SubBands {
        SubBands::of(&[number])
    }
    /// These; none at all means all.
    pub fn of(numbers: &[u8]) -> SubBands {
        let bits = numbers.iter().filter(|number| (1..=16).contains(*number));
        match bits.fold(0, |set, number| set | 1 << (number - 1)) {
            0 => SubBands::ALL,
            set => SubBands(set),
        }
    }
    /// Whether one of them is here.
    pub fn contains(self, number: u8) -> bool {
        number.checked_sub(1).is_some_and(|shift| self.0.checked_shr(shift.into()).unwrap_or(0) & 1 == 1)
    }
    /// For storage: bit n-1 is sub-band n.
    pub fn to_bits(self) -> u16 {
        self.0
    }
    /// From storage; 0 means all.
    pub fn from_bits(bits: u16) -> SubBands {
        if bits == 0 { SubBands::ALL } else { SubBands(bits) }
    }
}

impl Default for SubBands {
    fn default() -> SubBands {
        SubBands::ALL
    }
}

impl fmt::Display for SubBands {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == SubBands::ALL {
            return to.write_str("all");
        }
        let numbers: Vec<String> =
            (1..=16).filter(|n| self.contains(*n)).map(|number| number.to_string()).collect();
        to.write_str(&numbers.join(", "))
    }
}
impl fmt::Debug for SubBands {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "SubBands({self})")
    }
}

/// A channel plan with its rules. Cheap to clone.
#[derive(Clone)]
pub struct Region {
    name: CommonName,
    plan: Arc<dyn region::Region + Send + Sync>,
    sub_bands: SubBands,
    dwell: bool,
}

/// A region that is not one of RP002.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0:?} is no region of RP002 (EU868, US915, AU915, AS923, ...)")]
pub struct UnknownRegion(String);

/// A frame that is on the air for longer than this breaks the law where there is a dwell time.
pub const DWELL_TIME: Duration = Duration::from_millis(400);

const NAMES: [CommonName; 14] = [
    CommonName::EU868,
    CommonName::US915,
    CommonName::CN779,
    CommonName::EU433,
    CommonName::AU915,
    CommonName::CN470,
    CommonName::AS923,
    CommonName::AS923_2,
    CommonName::AS923_3,
    CommonName::AS923_4,
    CommonName::KR920,
    CommonName::IN865,
    CommonName::RU864,
    CommonName::ISM2400,
];

/// Every region once: the tables are large, and a name comes with every frame.
static ALL: LazyLock<Vec<Region>> = LazyLock::new(|| NAMES.map(Region::new).into());

impl FromStr for Region {
    type Err = UnknownRegion;
    /// Modern and TS002 1.0 names, any case, `-` or `_` (TS002 8.3). All sub-bands; the dwell time that
    /// devices of the region begin with.
    fn from_str(text: &str) -> Result<Region, UnknownRegion> {
        let upper = text.to_ascii_uppercase().replace('_', "-");
        let modern = match upper.as_str() {
            "US902" | "US902-928" => "US915",
            "CHINA779" | "CN779-787" => "CN779",
            "AUSTRALIA915" | "AU915-928" => "AU915",
            "CHINA470" | "CN470-510" => "CN470",
            "AS923-1" => "AS923",
            other => other,
        };
        let name: Option<CommonName> = modern.parse().ok();
        let known = name.and_then(|name| ALL.iter().find(|region| region.name == name));
        known.cloned().ok_or_else(|| UnknownRegion(text.chars().take(40).collect()))
    }
}

fn plan(name: CommonName, dwell: bool) -> Arc<dyn region::Region + Send + Sync> {
    let mut plan = region::get(name, false, dwell);
    if name == CommonName::EU868 {
        // The five further channels that most EU868 gateways listen on (865-868 MHz band at 1 %)
        for frequency in [867_100_000, 867_300_000, 867_500_000, 867_700_000, 867_900_000] {
            // cannot fail: EU868 takes user channels
            let _ = plan.add_channel(frequency, 0, 5);
        }
    }
    Arc::from(plan)
}

impl Region {
    fn new(name: CommonName) -> Region {
        let negotiable = negotiable(name);
        Region { name, plan: plan(name, negotiable), sub_bands: SubBands::ALL, dwell: negotiable }
    }
    /// EU863-870.
    pub fn eu868() -> Region {
        ALL.first().cloned().unwrap_or_else(|| Region::new(CommonName::EU868))
    }
    /// Every region there is.
    pub fn all() -> Vec<Region> {
        ALL.clone()
    }

    /// The same region where gateways listen to these sub-bands only.
    pub fn with_sub_bands(mut self, sub_bands: SubBands) -> Region {
        self.sub_bands = sub_bands;
        self
    }
    /// The sub-bands that gateways listen to.
    pub fn sub_bands(&self) -> SubBands {
        self.sub_bands
    }
    /// How many sub-bands the region has; 0 where channels are single.
    pub fn sub_band_count(&self) -> u8 {
        match self.name {
            CommonName::US915 | CommonName::AU915 => 8,
            CommonName::CN470 => 12,
            _ => 0,
        }
    }
    /// The sub-band that a channel belongs to.
    pub fn sub_band(&self, frequency: u32) -> Option<u8> {
        let count = Some(self.sub_band_count()).filter(|count| *count > 0)?;
        let index = self.plan.get_uplink_channel_index(frequency, false).ok()?;
        let groups = 8 * usize::from(count);
        // past the groups come the 500 kHz channels, one for each
        let group = if index < groups { index / 8 } else { index - groups };
        u8::try_from(group + 1).ok()
    }

    /// Whether an uplink channel is one of the 500 kHz channels of US915 and AU915.
    pub fn is_wide(&self, frequency: u32) -> bool {
        let narrow = 8 * usize::from(self.sub_band_count());
        let index = self.plan.get_uplink_channel_index(frequency, false);
        narrow > 0 && index.is_ok_and(|index| index >= narrow)
    }

    /// The same region with a dwell time of 400 ms or with none, where that is negotiable.
    pub fn with_dwell(mut self, dwell: bool) -> Region {
        if negotiable(self.name) && dwell != self.dwell {
            (self.plan, self.dwell) = (plan(self.name, dwell), dwell);
        }
        self
    }
    /// Whether the network may set the dwell time (TxParamSetupReq): then devices begin with 400 ms.
    pub fn negotiates_dwell(&self) -> bool {
        negotiable(self.name)
    }
    /// How long an uplink may be on the air, where that is limited.
    pub fn uplink_dwell(&self) -> Option<Duration> {
        (self.dwell || self.name == CommonName::US915).then_some(DWELL_TIME)
    }
    /// How long a downlink may be on the air, where that is limited. AU915 and US915 limit their 500 kHz
    /// downlinks by nothing.
    pub fn downlink_dwell(&self) -> Option<Duration> {
        (self.dwell && self.name != CommonName::AU915).then_some(DWELL_TIME)
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
        let rate = plan.get_rx1_data_rate_index(data_rate, rx1_dr_offset.into()).ok()?;
        // the table of KR920 leads to a data rate that KR920 has not
        self.downlink_modulation(rate).map(|_| (rx1, rate))
    }
    /// RX2 before any command changes it: frequency in hertz and data rate index.
    pub fn rx2(&self) -> (u32, u8) {
        let defaults = self.plan.get_defaults();
        (defaults.rx2_frequency, defaults.rx2_dr)
    }
    /// The CFList of a Join-accept, as on the air: further channels, or the masks of the sub-bands where
    /// they are not all of them. Masks are for devices of 1.0.3 and later; older ones ignore them.
    pub fn cf_list(&self) -> Option<[u8; 16]> {
        if self.sub_band_count() == 0 {
            return self.plan.get_cf_list(MacVersion::LORAWAN_1_0_4)?.to_bytes().ok();
        }
        if self.is_whole() {
            return None;
        }
        let mut list = [0; 16];
        for (mask, to) in self.masks().iter().zip(list.as_chunks_mut::<2>().0) {
            *to = mask.to_le_bytes();
        }
        list[15] = CF_LIST_MASKS;
        Some(list)
    }
    /// Whether gateways listen to every channel, as a device expects at first.
    pub fn is_whole(&self) -> bool {
        (1..=self.sub_band_count()).all(|number| self.sub_bands.contains(number))
    }
    /// Masks of the sub-bands' channels, 16 each.
    fn masks(&self) -> Vec<u16> {
        let channels = self.plan.get_default_uplink_channel_indices().len();
        let mut masks = vec![0_u16; channels.div_ceil(16)];
        for index in 0..channels {
            let frequency = self.plan.get_uplink_channel(index).map_or(0, |channel| channel.frequency);
            if self.sub_band(frequency).is_some_and(|number| self.sub_bands.contains(number)) {
                masks[index / 16] |= 1 << (index % 16);
            }
        }
        masks
    }
    /// LinkADRReq commands, to go out together, after which a device uses our sub-bands only, whatever it used
    /// before; empty where the region has none. `data_rate`: what the device uses, and goes on to use.
    pub fn link_adr_block(&self, data_rate: u8) -> Vec<u8> {
        let masks = self.masks();
        let command = |control: usize, mask: u16| {
            let [low, high] = mask.to_le_bytes();
            // the strongest TXPower, NbTrans as it is
            [LINK_ADR_REQ, data_rate << 4, low, high, (control as u8) << 4]
        };
        let mut block = Vec::new();
        let rest = match self.name {
            // ChMaskCntl 7: all 125 kHz channels off, the 500 kHz channels as the mask says
            CommonName::US915 | CommonName::AU915 => {
                block.extend(command(7, masks.get(4).copied().unwrap_or(0)));
                masks.get(..4).unwrap_or_default()
            }
            CommonName::CN470 => masks.as_slice(),
            _ => &[],
        };
        let all_off = !block.is_empty();
        for (control, mask) in rest.iter().enumerate() {
            if *mask != 0 || !all_off {
                block.extend(command(control, *mask));
            }
        }
        block
    }
    /// TxParamSetupReq with this region's dwell time and its strongest EIRP, where there is that command.
    pub fn tx_param_setup(&self) -> Option<[u8; 2]> {
        /// RP002: MaxEIRP as its command counts it, dBm.
        const EIRP: [isize; 16] = [8, 10, 12, 13, 14, 16, 18, 20, 21, 24, 26, 27, 29, 30, 33, 36];
        let most = self.plan.get_downlink_tx_power_eirp(self.rx2().0);
        let eirp = EIRP.iter().rposition(|eirp| *eirp <= most).unwrap_or(0) as u8;
        let down = if self.downlink_dwell().is_some() { 0x20 } else { 0 };
        let up = if self.uplink_dwell().is_some() { 0x10 } else { 0 };
        negotiable(self.name).then_some([TX_PARAM_SETUP_REQ, down | up | eirp])
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
            CommonName::CN470 => 500_300_000..=509_700_000,
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
        let version = match self.name {
            // the plan of 96 channels is the older one, whose RX2 is at DR0; the newer sizes forbid DR0
            CommonName::CN470 => MacVersion::LORAWAN_1_0_3,
            _ => MacVersion::LORAWAN_1_0_4,
        };
        let revision = Revision::Latest;
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

/// CFListType of channel masks.
const CF_LIST_MASKS: u8 = 1;
const LINK_ADR_REQ: u8 = 0x03;
const TX_PARAM_SETUP_REQ: u8 = 0x09;

/// Whether a CFList holds channel masks, which a device of 1.0.2 or older does not read.
pub fn is_channel_masks(cf_list: &[u8; 16]) -> bool {
    cf_list[15] == CF_LIST_MASKS
}

/// Devices of these regions begin with a dwell time of 400 ms, and TxParamSetupReq can lift it.
fn negotiable(name: CommonName) -> bool {
    matches!(
        name,
        CommonName::AU915
            | CommonName::AS923
            | CommonName::AS923_2
            | CommonName::AS923_3
            | CommonName::AS923_4
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        name.parse().unwrap()
    }

    /// LinkADRReq commands as (DataRate, ChMaskCntl, ChMask).
    fn commands(block: &[u8]) -> Vec<(u8, u8, u16)> {
        let (commands, rest) = block.as_chunks::<5>();
        assert!(rest.is_empty() && commands.iter().all(|command| command[0] == 3));
        let read = |c: &[u8; 5]| (c[1] >> 4, c[4] >> 4, u16::from_le_bytes([c[2], c[3]]));
        commands.iter().map(read).collect()
    }

    #[test]
    fn a_modulation_is_read_as_it_is_written() {
        for text in ["SF7BW125", "SF12BW500", "SF5BW812", "50000"] {
            assert_eq!(text.parse::<Modulation>().unwrap().to_string(), text);
        }
        for wrong in ["SF4BW125", "SF13BW125", "SF7BW0", "SF7BW", "SFBW", "SF7", "", "-1", "0", "SF7BW5000"] {
            assert!(wrong.parse::<Modulation>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_name_of_ts002_leads_to_one_region() {
        for (old, modern) in [
            ("US902", "US915"),
            ("us902_928", "US915"),
            ("China470", "CN470"),
            ("China779", "CN779"),
            ("Australia915", "AU915"),
            ("AS923-1", "AS923"),
            ("as923_3", "AS923-3"),
            ("eu868", "EU868"),
        ] {
            assert_eq!(region(old).to_string(), modern);
        }
        assert_eq!(Region::all().len(), 14);
        for known in Region::all() {
            assert_eq!(known.to_string().parse::<Region>().unwrap(), known, "what we write we read");
        }
        assert!("US916".parse::<Region>().is_err());
    }

    #[test]
    fn us915_is_mapped_as_rp002_has_it() {
        let us = region("US915");
        assert_eq!(us.uplink_frequencies().len(), 72);
        assert_eq!(us.rx2(), (923_300_000, 8));
        // 125 kHz channel 8 at DR0 to DR3, and the 500 kHz channel 65 at DR4
        for (data_rate, down) in [(0, 10), (1, 11), (2, 12), (3, 13)] {
            assert_eq!(us.rx1(903_900_000, data_rate, 0), Some((923_300_000, down)));
        }
        assert_eq!(us.rx1(904_600_000, 4, 0), Some((923_900_000, 13)));
        assert_eq!(us.rx1(914_900_000, 0, 3), Some((927_500_000, 8)));
        assert_eq!(us.rx1(868_100_000, 0, 0), None);
        assert_eq!(us.uplink_data_rate(Modulation::Lora { sf: 8, bandwidth: 500_000 }), Some(4));
        assert_eq!(us.downlink_modulation(4), None, "an uplink's data rate");
        assert_eq!((us.max_payload(0), us.max_payload(3)), (Some(11), Some(242)));
        assert_eq!((us.uplink_dwell(), us.downlink_dwell()), (Some(DWELL_TIME), None));
        assert_eq!(us.tx_param_setup(), None);
    }

    #[test]
    fn a_channel_is_known_by_its_frequency_and_data_rate() {
        let eu = region("EU868");
        for (frequency, channel) in
            [(868_100_000, Some(0)), (868_500_000, Some(2)), (867_100_000, Some(3)), (867_900_000, Some(7))]
        {
            assert_eq!(eu.uplink_channel(frequency, 5), channel, "{frequency}");
        }
        assert_eq!((eu.uplink_channel(868_200_000, 5), eu.uplink_channel(868_100_000, 9)), (None, None));
        let us = region("US915");
        assert_eq!(
            (us.uplink_channel(902_300_000, 3), us.uplink_channel(914_900_000, 0)),
            (Some(0), Some(63))
        );
        assert_eq!((us.uplink_channel(903_000_000, 4), us.uplink_channel(903_000_000, 3)), (Some(64), None));
    }

    #[test]
    fn every_channel_belongs_to_a_sub_band() {
        let us = region("US915");
        for (frequency, number) in [
            (902_300_000, 1),
            (903_700_000, 1),
            (903_900_000, 2),
            (914_900_000, 8),
            (903_000_000, 1),
            (904_600_000, 2),
        ] {
            assert_eq!(us.sub_band(frequency), Some(number), "{frequency}");
        }
        assert_eq!(us.sub_band(868_100_000), None);
        assert_eq!(region("EU868").sub_band(868_100_000), None);
        assert_eq!(region("CN470").sub_band(489_300_000), Some(12));
        for region in Region::all() {
            let mut of = [0; 17];
            for frequency in region.uplink_frequencies() {
                of[usize::from(region.sub_band(frequency).unwrap_or(0))] += 1;
            }
            let each = if region.to_string() == "CN470" { 8 } else { 9 };
            let count = usize::from(region.sub_band_count());
            assert!(of[1..=count].iter().all(|channels| *channels == each), "{region}: {of:?}");
            assert!(count == 0 || of[0] == 0);
        }
    }

    #[test]
    fn a_cf_list_names_further_channels_or_masks_of_sub_bands() {
        let two = region("US915").with_sub_bands(SubBands::only(2));
        let list = two.cf_list().unwrap();
        assert_eq!(hex::encode(list), "00ff0000000000000200000000000001");
        assert!(is_channel_masks(&list));
        let some = region("AU915").with_sub_bands(SubBands::of(&[1, 8]));
        assert_eq!(hex::encode(some.cf_list().unwrap()), "ff000000000000ff8100000000000001");
        let twelve = region("CN470").with_sub_bands(SubBands::only(12));
        assert_eq!(
            hex::encode(twelve.cf_list().unwrap()),
            "00000000000000000000 00ff00000001".replace(' ', "")
        );
        let eu = region("EU868").cf_list().unwrap();
        assert!(!is_channel_masks(&eu) && eu[..3] == [0x18, 0x4F, 0x84]);
        for region in Region::all().into_iter().filter(|region| region.sub_band_count() > 0) {
            assert_eq!(region.cf_list(), None, "{region}: all channels are what a device begins with");
            assert!(region.is_whole() && !region.with_sub_bands(SubBands::only(3)).is_whole());
        }
    }

    #[test]
    fn a_block_of_commands_leaves_the_sub_bands_and_nothing_else() {
        let us = |numbers: &[u8]| region("US915").with_sub_bands(SubBands::of(numbers));
        assert_eq!(commands(&us(&[2]).link_adr_block(3)), [(3, 7, 0x0002), (3, 0, 0xFF00)]);
        assert_eq!(
            commands(&us(&[1, 2, 8]).link_adr_block(0)),
            [(0, 7, 0x0083), (0, 0, 0xFFFF), (0, 3, 0xFF00)]
        );
        assert_eq!(us(&[1, 3, 5, 7]).link_adr_block(0).len(), 25);
        let cn = region("CN470").with_sub_bands(SubBands::of(&[3]));
        let masks: Vec<u16> = commands(&cn.link_adr_block(5)).into_iter().map(|(_, _, mask)| mask).collect();
        assert_eq!(masks, [0, 0x00FF, 0, 0, 0, 0]);
        assert!(region("EU868").link_adr_block(0).is_empty());
    }

    #[test]
    fn dwell_time_is_negotiated_where_the_command_exists() {
        let au = region("AU915");
        assert_eq!((au.uplink_dwell(), au.downlink_dwell()), (Some(DWELL_TIME), None));
        assert_eq!(au.tx_param_setup(), Some([0x09, 0x10 | 13]));
        assert_eq!(au.with_dwell(false).tx_param_setup(), Some([0x09, 13]));
        let asia = region("AS923-2");
        assert_eq!((asia.max_payload(0), asia.max_payload(2)), (Some(0), Some(11)));
        assert_eq!(asia.tx_param_setup(), Some([0x09, 0x30 | 5]));
        let free = asia.with_dwell(false);
        assert_eq!((free.downlink_dwell(), free.tx_param_setup()), (None, Some([0x09, 5])));
        assert_eq!((free.max_payload(0), free.max_payload(2)), (Some(51), Some(115)));
        for region in Region::all().into_iter().filter(|region| !region.negotiates_dwell()) {
            assert_eq!(region.clone().with_dwell(true).downlink_dwell(), None, "{region}");
        }
    }

    #[test]
    fn a_join_accept_fits_into_rx2_everywhere() {
        for region in Region::all() {
            let accept = if region.cf_list().is_some() || region.sub_band_count() > 0 { 33 } else { 17 };
            let most = region.max_phy(region.rx2().1).unwrap();
            assert!(most >= accept, "{region}: {most} bytes");
        }
    }

    #[test]
    fn sub_bands_are_kept_as_bits() {
        for numbers in [&[1][..], &[2], &[1, 8], &[12], &[]] {
            let set = SubBands::of(numbers);
            assert_eq!(SubBands::from_bits(set.to_bits()), set);
            assert!(numbers.iter().all(|number| set.contains(*number)));
        }
        assert!(
            SubBands::ALL.contains(1) && !SubBands::only(2).contains(1) && !SubBands::only(2).contains(0)
        );
        assert_eq!(
            (SubBands::of(&[8, 2]).to_string(), SubBands::ALL.to_string()),
            ("2, 8".into(), "all".into())
        );
    }
}
