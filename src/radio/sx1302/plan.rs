//! From a region to the channels of a concentrator. Pure.
//!
//! An SX1302 hears eight channels of 125 kHz, one of any width at one spreading factor, and FSK, all within 1.6 MHz
//! around each of two radios. Channels come from the region ([`Region::uplink_frequencies`] and its sub-band), centres
//! are found so that everything lies as near to one as it can.

use sx1302::config::{
    Bandwidth, Chain, Channel, Config, ConfigError, Fsk, Gain, Lbt, LbtChannel, Radio, RadioKind, Service,
    SpreadingFactor, Sx1261, SyncWord, TemperatureCurve,
};

use crate::lorawan::Region;

/// What differs from board to board.
#[derive(Debug, Clone, PartialEq)]
pub struct Wiring {
    /// What the radios are.
    pub radios: RadioKind,
    /// Whether the board sends while it listens.
    pub full_duplex: bool,
    /// Whether the antenna is wired to one input of radio A, and of radio B.
    pub single_input: [bool; 2],
    /// Added to every RSSI, dB.
    pub rssi_offset: f32,
    /// How powers are made.
    pub gains: Vec<Gain>,
    /// Whether an SX1261 is used.
    pub sx1261: bool,
}

/// Why a region does not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// More than eight.
    #[error(
        "{region} has {count} channels here, and an SX1302 hears eight: name one sub-band (network.sub_bands = [2])"
    )]
    TooMany {
        /// Which region.
        region: String,
        /// Its channels.
        count: usize,
    },
    /// Too far apart for two radios.
    #[error("the channels of {0} lie too far apart for two radios of 1.6 MHz")]
    TooWide(String),
    /// What the driver says.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A channel to be heard: centre and width in hertz, and by what.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    freq_hz: u32,
    width_hz: u32,
    by: By,
}

#[derive(Debug, Clone, Copy)]
enum By {
    MultiSf,
    Service(u8, Bandwidth),
    Fsk(u32),
}

/// The configuration of a concentrator for the devices of a region.
pub fn plan(region: &Region, wiring: &Wiring) -> Result<Config, PlanError> {
    let wanted = wanted(region)?;
    let (low, high) = split(&wanted).ok_or_else(|| PlanError::TooWide(region.to_string()))?;
    let mut config = Config::new();
    config.full_duplex = wiring.full_duplex;
    for (chain, group) in [(Chain::A, low), (Chain::B, high)] {
        let radio = Radio {
            enable: !group.is_empty(),
            freq_hz: centre(group).unwrap_or(0),
            rssi_offset: wiring.rssi_offset,
            rssi_tcomp: match wiring.radios {
                RadioKind::Sx1250 => TemperatureCurve::SX1250,
                RadioKind::Sx1255 | RadioKind::Sx1257 => TemperatureCurve::default(),
            },
            // one antenna, one amplifier: radio A sends for both
            tx_enable: chain == Chain::A,
            single_input: wiring.single_input[chain.index()],
            gains: wiring.gains.clone(),
            ..Radio::off(wiring.radios)
        };
        config.set_radio(chain, radio)?;
    }
    let mut number = 0;
    for (chain, channel) in
        low.iter().map(|channel| (Chain::A, channel)).chain(high.iter().map(|channel| (Chain::B, channel)))
    {
        let if_hz = (i64::from(channel.freq_hz) - i64::from(config.radio(chain).freq_hz)) as i32;
        match channel.by {
            By::MultiSf => {
                config.set_multi_sf(number, Some(Channel { chain, if_hz }))?;
                number += 1;
            }
            By::Service(sf, bandwidth) => config.set_service(Some(Service {
                chain,
                if_hz,
                bandwidth,
                sf: SpreadingFactor::new(sf)?,
                implicit_header: false,
                payload_length: 0,
                crc: false,
                coding_rate: 1,
            }))?,
            By::Fsk(bitrate) => config.set_fsk(Some(Fsk {
                chain,
                if_hz,
                bandwidth: Bandwidth::Khz125,
                bitrate,
                sync: SyncWord::default(),
            }))?,
        }
    }
    if wiring.sx1261 {
        config.set_sx1261(Some(Sx1261 { rssi_offset: 0, lbt: listen_before_talk(region, &wanted) }))?;
    }
    config.check()?;
    Ok(config)
}

/// What the region's devices may use, sorted by frequency.
fn wanted(region: &Region) -> Result<Vec<Wanted>, PlanError> {
    let ours =
        |freq_hz: &u32| region.sub_band(*freq_hz).is_none_or(|number| region.sub_bands().contains(number));
    let channels: Vec<u32> = region.uplink_frequencies().into_iter().filter(ours).collect();
    let (service, narrow): (Vec<u32>, Vec<u32>) =
        channels.into_iter().partition(|freq_hz| region.is_wide(*freq_hz));
    if narrow.len() > 8 || service.len() > 1 {
        return Err(PlanError::TooMany { region: region.to_string(), count: narrow.len() + service.len() });
    }
    let multi = narrow.iter().map(|freq_hz| Wanted { freq_hz: *freq_hz, width_hz: 125_000, by: By::MultiSf });
    let mut all: Vec<Wanted> = multi.collect();
    all.extend(service.iter().map(|freq_hz| Wanted {
        freq_hz: *freq_hz,
        width_hz: 500_000,
        by: By::Service(8, Bandwidth::Khz500),
    }));
    if region.to_string() == "EU868" {
        // RP002: DR6 on 868.3 MHz, DR7 on 868.8 MHz
        let by = By::Service(7, Bandwidth::Khz250);
        all.push(Wanted { freq_hz: 868_300_000, width_hz: 250_000, by });
        all.push(Wanted { freq_hz: 868_800_000, width_hz: 125_000, by: By::Fsk(50_000) });
    }
    all.sort_by_key(|channel| channel.freq_hz);
    Ok(all)
}

/// The lower channels for one radio and the upper ones for the other, each group as narrow as it can be. `None`: no radio
/// is wide enough.
fn split(wanted: &[Wanted]) -> Option<(&[Wanted], &[Wanted])> {
    let fits = |group: &[Wanted]| span(group) <= 2 * RADIO_HALF_HZ;
    (1..=wanted.len())
        .map(|at| wanted.split_at(at))
        .filter(|(low, high)| fits(low) && fits(high))
        .min_by_key(|(low, high)| span(low).max(span(high)))
}

/// What a radio hears on each side of its centre.
const RADIO_HALF_HZ: u32 = 800_000;

fn edges(group: &[Wanted]) -> Option<(u32, u32)> {
    let low = group.iter().map(|channel| channel.freq_hz - channel.width_hz / 2).min()?;
    let high = group.iter().map(|channel| channel.freq_hz + channel.width_hz / 2).max()?;
    Some((low, high))
}

fn span(group: &[Wanted]) -> u32 {
    edges(group).map_or(0, |(low, high)| high - low)
}

/// The middle, on a whole kilohertz.
fn centre(group: &[Wanted]) -> Option<u32> {
    edges(group).map(|(low, high)| low.midpoint(high) / 1000 * 1000)
}

/// Below which level in dBm a channel is free, where a gateway must listen before it talks: RP002 on KR920, ARIB STD-T108
/// for AS923-1 in Japan.
pub fn free_below(region: &Region) -> Option<i8> {
    match region.to_string().as_str() {
        "KR920" => Some(-65),
        "AS923" => Some(-80),
        _ => None,
    }
}

/// Both want 5 ms of listening, and then allow 4 s.
fn listen_before_talk(region: &Region, wanted: &[Wanted]) -> Option<Lbt> {
    let rssi_target = free_below(region)?;
    let mut frequencies: Vec<u32> = wanted.iter().map(|channel| channel.freq_hz).collect();
    frequencies.push(region.rx2().0);
    frequencies.sort();
    frequencies.dedup();
    let bandwidth = Bandwidth::Khz125;
    let channel = |freq_hz| LbtChannel { freq_hz, bandwidth, scan_us: 5000, transmit_ms: 4000 };
    Some(Lbt { rssi_target, channels: frequencies.into_iter().take(16).map(channel).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lorawan::region::SubBands;

    fn wiring() -> Wiring {
        Wiring {
            radios: RadioKind::Sx1250,
            full_duplex: false,
            single_input: [true, false],
            rssi_offset: -215.4,
            gains: sx1302::board::BOARDS[0].gains(sx1302::board::Band::Mhz868).to_vec(),
            sx1261: false,
        }
    }

    /// Frequencies of the multi-SF channels.
    fn heard(config: &Config) -> Vec<u32> {
        let at = |number| {
            let (chain, if_hz) = config.if_chain(number)?;
            Some((i64::from(config.radio(chain).freq_hz) + i64::from(if_hz)) as u32)
        };
        (0..8).filter_map(at).collect()
    }

    #[test]
    fn eu868_has_its_eight_channels_a_wide_one_and_fsk() {
        let config = plan(&Region::eu868(), &wiring()).unwrap();
        let expected = [867_100, 867_300, 867_500, 867_700, 867_900, 868_100, 868_300, 868_500];
        assert_eq!(heard(&config), expected.map(|khz| khz * 1000));
        assert_eq!(config.radio(Chain::A).freq_hz, 867_500_000);
        assert_eq!(config.radio(Chain::B).freq_hz, 868_450_000);
        assert_eq!(config.service().unwrap().bandwidth, Bandwidth::Khz250);
        assert_eq!(config.fsk().unwrap().if_hz, 350_000);
        assert!(config.radio(Chain::A).tx_enable && !config.radio(Chain::B).tx_enable);
    }

    #[test]
    fn a_sub_band_is_eight_channels_and_its_wide_one() {
        let region = |name: &str| name.parse::<Region>().unwrap().with_sub_bands(SubBands::only(2));
        let us = plan(&region("US915"), &wiring()).unwrap();
        assert_eq!(heard(&us), (0..8).map(|n| 903_900_000 + n * 200_000).collect::<Vec<_>>());
        let service = us.service().unwrap();
        assert_eq!((service.bandwidth, service.sf.get()), (Bandwidth::Khz500, 8));
        let centre = us.radio(service.chain).freq_hz;
        assert_eq!(i64::from(centre) + i64::from(service.if_hz), 904_600_000);
        assert_eq!(heard(&plan(&region("AU915"), &wiring()).unwrap()).len(), 8);
        assert_eq!(heard(&plan(&region("CN470"), &wiring()).unwrap()).len(), 8);
    }

    #[test]
    fn every_region_has_a_plan_or_a_reason() {
        for region in Region::all().into_iter().filter(|region| region.to_string() != "ISM2400") {
            match plan(&region, &wiring()) {
                Ok(config) => {
                    assert_eq!(heard(&config).len(), region.uplink_frequencies().len(), "{region}");
                }
                Err(error) => {
                    assert!(region.sub_band_count() > 0, "{region}: {error}");
                    assert!(error.to_string().contains("name one sub-band"), "{error}");
                }
            }
        }
    }

    #[test]
    fn where_the_law_wants_it_one_listens() {
        let with = Wiring { sx1261: true, ..wiring() };
        let lbt = |name: &str| {
            let config = plan(&name.parse().unwrap(), &with).unwrap();
            config.sx1261().unwrap().lbt.clone()
        };
        let kr = lbt("KR920").unwrap();
        assert_eq!(kr.rssi_target, -65);
        assert!(kr.channels.iter().any(|channel| channel.freq_hz == 921_900_000), "RX2");
        assert_eq!(lbt("EU868"), None);
    }
}
