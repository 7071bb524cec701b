//! What an operator does with the concentrator by hand: look at it, listen, send, scan, record. Blocking; the daemon
//! must not run.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sx1302::Concentrator;
use sx1302::bus::Recorder;
use sx1302::concentrator::Identity;
use sx1302::config::Chain;
use sx1302::gps::{GpsTime, Said, Utc};
use sx1302::packet::{CrcStatus, Packet};
use sx1302::sx1261::Scan;
use sx1302::tx::{Status, Transmission, When};

use super::card::{AnyBus, Card, CardError};
use super::firmware::{self, Held, ImportError};
use super::model::{Frame, Modelled};
use super::owner::driver_modulation;
use super::{Config, Surroundings, gps};
use crate::clock::Clock;
use crate::lorawan::Modulation;

/// A concentrator that runs and belongs to nobody else.
pub struct Bench {
    card: Card,
    concentrator: Concentrator<Recorder<AnyBus>>,
    identity: Identity,
    model: Option<Modelled>,
    clock: Clock,
}

/// What a chip says of itself.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Info {
    /// SX1302 or SX1303.
    pub chip: &'static str,
    /// The board, where one is named.
    pub board: Option<&'static str>,
    /// The chip's unique number.
    pub eui: String,
    /// Model identifier of its one-time memory.
    pub model_id: u8,
    /// °C at the board's sensor, where there is one.
    pub celsius: Option<f32>,
    /// Counter, µs.
    pub count: u32,
    /// Counter at the last PPS, µs.
    pub pps: u32,
    /// Whether the program memories of gain control and arbiter are whole.
    pub parity_good: bool,
    /// Centres of the radios, Hz.
    pub radios: Vec<u32>,
    /// Channels: frequency in Hz and what hears there.
    pub channels: Vec<(u32, String)>,
    /// The GPS receiver, where one is configured.
    pub gps: Option<GpsInfo>,
}

/// What a GPS receiver says.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct GpsInfo {
    /// Why its port gives nothing.
    pub error: Option<String>,
    /// UTC.
    pub utc: Option<String>,
    /// Seconds of GPS time.
    pub gps: Option<i64>,
    /// Degrees latitude and longitude.
    pub position: Option<(f64, f64)>,
    /// Whether its pulse reaches the concentrator.
    pub pulse: bool,
}

impl GpsInfo {
    /// Listen to a receiver until it said everything, for some seconds at most.
    async fn of(port: &Path, baud: u32) -> GpsInfo {
        let mut info = GpsInfo::default();
        let all = gps::read(port, baud, |said| {
            match said {
                Said::Utc(utc) => {
                    info.utc = utc
                        .and_then(|Utc(time)| Timestamp::from_second(time.seconds).ok())
                        .map(|utc| utc.to_string())
                }
                Said::Gps(gps) => info.gps = gps.map(|GpsTime(time)| time.seconds),
                Said::Position(position) => info.position = position.map(|at| (at.latitude, at.longitude)),
            }
            info.utc.is_none() || info.gps.is_none() || info.position.is_none()
        });
        let said = tokio::time::timeout(Duration::from_secs(5), all).await;
        if let Ok(Err(error)) = said {
            info.error = Some(error.to_string());
        }
        info
    }
}

/// When a frame goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At once.
    Now,
    /// At the counter's value so long after now.
    After(Duration),
    /// With the next pulse of the GPS receiver.
    Pulse,
}

/// A packet as the concentrator heard it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Caught {
    /// Wall time.
    pub time: String,
    /// End of the packet, µs of the chip's counter.
    pub count: u32,
    /// Hz.
    pub frequency: u32,
    /// SF7BW125, 50000.
    pub data_rate: String,
    /// dBm.
    pub rssi: f32,
    /// dB; FSK has none.
    pub snr: Option<f32>,
    /// good, bad, absent.
    pub crc: &'static str,
    /// Bytes.
    pub size: usize,
    /// Hexadecimal.
    pub phy: String,
}

/// One frequency of a spectral scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Centre, Hz.
    pub frequency: u32,
    /// The level that was exceeded in a tenth of the measurements, dBm.
    pub dbm: i16,
}

impl Bench {
    /// Reset, load, start; a second or so.
    pub fn open(config: &Config, around: &Surroundings, clock: &Clock) -> Result<Bench, CardError> {
        let model = config.model.then(|| Modelled::new(clock.clone()));
        let own = config.firmware(&around.state);
        let mut card = Card::new(config, &around.region, &own, model.clone())?;
        card.reset(false)?;
        let (concentrator, identity) = card.start_on(Recorder::new(card.bus()?))?;
        Ok(Bench { card, concentrator, identity, model, clock: clock.clone() })
    }

    /// What the chip says of itself.
    pub fn info(&mut self, config: &Config) -> Result<Info, CardError> {
        let (count, pps) = self.concentrator.counters()?;
        let (agc, arbiter) = self.concentrator.parity_errors()?;
        let eui = self.concentrator.eui()?;
        let model_id = self.concentrator.model()?;
        let celsius = if self.identity.has_sensor { self.concentrator.celsius()? } else { None };
        let plan = self.card.plan();
        let channel = |number: u8| {
            let (chain, if_hz) = plan.if_chain(number)?;
            let freq_hz = i64::from(plan.radio(chain).freq_hz) + i64::from(if_hz);
            let by = match number {
                0..=7 => "125 kHz, SF5 to SF12".to_string(),
                8 => plan.service().map_or(String::new(), |service| {
                    format!("{} kHz, SF{}", service.bandwidth.hz() / 1000, service.sf.get())
                }),
                _ => plan.fsk().map_or(String::new(), |fsk| format!("FSK, {} bit/s", fsk.bitrate)),
            };
            Some((u32::try_from(freq_hz).ok()?, by))
        };
        Ok(Info {
            chip: if self.identity.version == 0x12 { "SX1303" } else { "SX1302" },
            board: config.board.map(|board| board.0),
            eui: hex::encode_upper(eui),
            model_id,
            celsius,
            count: count.0,
            pps: pps.0,
            parity_good: !agc && !arbiter,
            radios: plan.enabled().map(|chain| plan.radio(chain).freq_hz).collect(),
            channels: (0..10).filter_map(channel).collect(),
            gps: None,
        })
    }

    /// What the GPS receiver says; takes some seconds.
    pub async fn gps(&mut self, config: &Config) -> Result<Option<GpsInfo>, CardError> {
        let Some(port) = &config.gps else { return Ok(None) };
        let mut info = GpsInfo::of(port, config.gps_baud.0).await;
        let pulse = self.concentrator.pulse()?;
        let count = self.concentrator.last_count().unwrap_or(pulse);
        info.pulse = gps::is_of_this_second(pulse, count);
        Ok(Some(info))
    }

    /// Listen for a while, or for ever; `told` gets each packet and says whether to go on.
    pub fn listen(
        &mut self,
        time: Option<Duration>,
        mut told: impl FnMut(Caught) -> bool,
    ) -> Result<(), CardError> {
        let begin = self.clock.now();
        let mut made_up = 0;
        loop {
            let gone = self.clock.now() - begin;
            if time.is_some_and(|time| gone >= time) {
                return Ok(());
            }
            if let Some(model) = &self.model
                && gone >= made_up * Duration::from_secs(1)
            {
                model.hear(made_up_frame(made_up, &self.clock));
                made_up += 1;
            }
            let received = self.concentrator.receive(16)?;
            for packet in received.packets {
                if !told(packet_told(&packet, self.clock.wall())) {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Send a frame, and wait until it has left. Answers the power in dBm at the antenna connector.
    pub fn send(
        &mut self,
        moment: Moment,
        frequency: u32,
        modulation: Modulation,
        power: i8,
        phy: &[u8],
    ) -> Result<i8, CardError> {
        let gains = &self.card.plan().radio(Chain::A).gains;
        let power_dbm = gains.iter().map(|gain| gain.rf_power).filter(|dbm| *dbm <= power).max();
        let power_dbm = power_dbm.ok_or(sx1302::config::ConfigError::Transmission(
            "no entry of the gain table is as quiet as that",
        ))?;
        let unknown = sx1302::config::ConfigError::Transmission("no such modulation");
        let when = match moment {
            Moment::Now => When::Now,
            Moment::Pulse => When::OnPps,
            Moment::After(time) => {
                let (count, _) = self.concentrator.counters()?;
                When::At(count.plus_us(i64::try_from(time.as_micros()).unwrap_or(0)))
            }
        };
        self.concentrator.send(&Transmission {
            chain: Chain::A,
            freq_hz: frequency,
            power_dbm,
            when,
            modulation: driver_modulation(modulation).ok_or(unknown)?,
            payload: phy.to_vec(),
        })?;
        // no frame waits or lasts longer
        for _ in 0..1500 {
            if self.concentrator.tx_status(Chain::A)? == Status::Free {
                return Ok(power_dbm);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.concentrator.abort(Chain::A)?;
        let stuck = "it did not leave within 15 s: without a pulse nothing goes out with one";
        Err(sx1302::config::ConfigError::Transmission(stuck).into())
    }

    /// Measure each frequency once.
    pub fn sweep(&mut self, frequencies: &[u32]) -> Result<Vec<Level>, CardError> {
        if let Some(model) = &self.model {
            model.make_up_air(frequencies);
        }
        let mut levels = Vec::with_capacity(frequencies.len());
        for frequency in frequencies {
            self.concentrator.start_scan(*frequency, 1000)?;
            // 8.2 ms of measuring; a scan that does not end is given up
            for _ in 0..100 {
                if self.concentrator.scan_status()? == Scan::Done {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let results = self.concentrator.scan_results()?;
            levels.push(Level { frequency: *frequency, dbm: tenth(&results) });
        }
        Ok(levels)
    }

    /// Everything that went over the bus so far, a line each; the driver's transcript player reads it.
    pub fn trace(&mut self) -> Vec<String> {
        self.concentrator.bus_mut().lines().collect()
    }

    /// Stop the transmitters.
    pub fn close(mut self) -> Result<(), CardError> {
        Ok(self.concentrator.stop()?)
    }
}

/// The level that a tenth of the measurements exceeded; levels come from the loudest down.
fn tenth(results: &[(i16, u16)]) -> i16 {
    let all: u32 = results.iter().map(|(_, count)| u32::from(*count)).sum();
    let mut seen = 0;
    for (dbm, count) in results {
        seen += u32::from(*count);
        if all > 0 && seen * 10 >= all {
            return *dbm;
        }
    }
    results.last().map_or(-128, |(dbm, _)| *dbm)
}

fn packet_told(packet: &Packet, time: Timestamp) -> Caught {
    let data_rate = match packet.modulation {
        sx1302::packet::Modulation::Lora { sf, bandwidth, .. } => {
            Modulation::Lora { sf: sf.get(), bandwidth: bandwidth.hz() }.to_string()
        }
        sx1302::packet::Modulation::Fsk { bitrate } => Modulation::Fsk { bitrate }.to_string(),
    };
    Caught {
        time: time.strftime("%FT%T%.3fZ").to_string(),
        count: packet.count.0,
        frequency: packet.freq_hz,
        data_rate,
        rssi: packet.rssi_channel.round(),
        snr: packet.snr,
        crc: match packet.crc {
            CrcStatus::Good => "good",
            CrcStatus::Bad => "bad",
            CrcStatus::Absent => "absent",
        },
        size: packet.payload.len(),
        phy: hex::encode(&packet.payload),
    }
}

/// What the model's air carries when somebody listens by hand: a data uplink of a DevAddr for experiments.
fn made_up_frame(number: u32, clock: &Clock) -> Frame {
    let mut phy = vec![0x40, 0x2a, 0x1b, 0x00, 0x00, 0x00];
    phy.extend((number as u16).to_le_bytes());
    phy.extend([0x02, 0x9d, 0x31, 0x5f, 0x77, 0x10, 0xa4, 0x3c, 0x88]);
    Frame {
        phy,
        frequency: 868_100_000,
        modulation: Modulation::Lora { sf: 7 + (number % 6) as u8, bandwidth: 125_000 },
        rssi: -70 - (number % 5) as i32 * 9,
        snr: 9.5 - f64::from(number % 5) * 3.0,
        end: clock.now(),
        broken: number % 7 == 6,
    }
}

/// Import images into the folder of a radio.
pub fn import(
    config: &Config,
    around: &Surroundings,
    paths: &[std::path::PathBuf],
) -> Result<Vec<Held>, ImportError> {
    firmware::import(paths, &config.firmware(&around.state))
}

/// The images that a radio would find.
pub fn images(config: &Config, state: &Path) -> Result<Vec<Held>, ImportError> {
    firmware::list(&firmware::folders(&config.firmware(state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lorawan::Region;

    fn bench(sx1261: bool) -> (Bench, Config) {
        let config = Config {
            model: true,
            sx1261: sx1261.then(|| "model".into()),
            board: Some(super::super::BoardName("wm1302")),
            ..Config::default()
        };
        let around = Surroundings { region: Region::eu868(), state: "/nowhere".into() };
        (Bench::open(&config, &around, &Clock::system()).unwrap(), config)
    }

    #[test]
    fn the_chip_says_what_it_is_and_what_it_hears() {
        let (mut bench, config) = bench(false);
        let info = bench.info(&config).unwrap();
        assert_eq!(
            (info.chip, info.board, info.eui.as_str()),
            ("SX1302", Some("wm1302"), "0016C001F0A1B2C3")
        );
        assert!(info.parity_good && info.celsius == Some(31.5) && info.channels.len() == 10);
        let mut heard = Vec::new();
        bench
            .listen(None, |packet| {
                heard.push(packet);
                heard.len() < 2
            })
            .unwrap();
        assert_eq!((heard[0].size, heard[0].crc, heard[0].data_rate.as_str()), (17, "good", "SF7BW125"));
        assert_eq!(heard[1].data_rate, "SF8BW125");
        let sf9 = Modulation::Lora { sf: 9, bandwidth: 125_000 };
        assert_eq!(bench.send(Moment::Now, 868_100_000, sf9, 15, &[1, 2, 3]).unwrap(), 15);
        assert!(bench.send(Moment::Now, 868_100_000, sf9, 3, &[1]).is_err());
        let (soon, now) = (Duration::from_millis(300), bench.clock.now());
        bench.send(Moment::After(soon), 868_100_000, sf9, 15, &[4]).unwrap();
        let pulse = bench.model.as_ref().unwrap().next_pulse();
        bench.send(Moment::Pulse, 868_100_000, sf9, 15, &[5]).unwrap();
        let radiated = bench.model.as_ref().unwrap().radiated();
        assert_eq!(
            (radiated.len(), radiated[0].phy.as_slice(), radiated[0].count),
            (3, &[1, 2, 3][..], None)
        );
        assert!(radiated[1].start - now >= soon && radiated[1].count.is_some());
        let off = (radiated[2].start - pulse).abs_diff(Duration::from_micros(1500));
        assert!(off < Duration::from_micros(20), "{off:?}");
        assert!(bench.trace().len() > 300);
        bench.close().unwrap();
    }

    #[test]
    fn a_sweep_finds_the_carriers() {
        let (mut bench, _) = bench(true);
        let frequencies: Vec<u32> = (0..20).map(|n| 863_100_000 + n * 200_000).collect();
        let levels = bench.sweep(&frequencies).unwrap();
        assert_eq!(levels.len(), 20);
        assert!(levels.iter().any(|level| level.dbm > -90), "{levels:?}");
        assert!(levels.iter().filter(|level| level.dbm < -100).count() > 10, "{levels:?}");
        assert_eq!(tenth(&[(0, 0), (-4, 9), (-8, 91)]), -8);
        assert_eq!(tenth(&[(0, 0), (-4, 10), (-8, 90)]), -4);
        assert_eq!(tenth(&[(0, 0), (-4, 0)]), -4);
    }
}
