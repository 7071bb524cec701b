//! `roamgate radio`: the concentrator by hand, and its firmware.
//!
//! The daemon must not run meanwhile: a concentrator has one owner. `--model` tries everything without hardware.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::spectrum::{self, Sweep};
use super::{ConfigArg, Fail, show, show_json, table};
use crate::clock::Clock;
use crate::jit::{self, Jit};
use crate::lorawan::crypto::Direction;
use crate::lorawan::frame::Uplink;
use crate::lorawan::{GatewayEui, Modulation, Region};
use crate::radio::sx1302::Config as ChipConfig;
use crate::radio::sx1302::card::CardError;
use crate::radio::sx1302::firmware::{Held, ImportError};
use crate::radio::sx1302::tools::{self, Bench, Caught, GpsInfo, Info, Moment};
use crate::radio::{self, Surroundings};

/// The concentrator.
#[derive(Debug, Subcommand)]
pub(super) enum RadioCommand {
    /// Show what the chip says of itself, and what it is set to hear.
    Info {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print packets as they are heard.
    Listen {
        #[command(flatten)]
        which: Which,
        /// Stop after so many seconds
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Send one frame, within the rules of the region.
    Send(Send),
    /// Scan the band: a waterfall on the screen, and as a picture.
    Spectrum(Spectrum),
    /// Record what goes over the bus while the chip starts and listens.
    Trace {
        #[command(flatten)]
        which: Which,
        /// Listen for so many seconds
        #[arg(long, value_name = "N", default_value_t = 2)]
        seconds: u64,
        /// Where the record goes: a line of JSON for each transfer
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },
    /// The vendor's images, without which the chip does nothing.
    #[command(subcommand)]
    Firmware(FirmwareCommand),
}

/// The vendor's images.
#[derive(Debug, Subcommand)]
pub(super) enum FirmwareCommand {
    /// Check published images (array text or raw bytes) and keep them.
    Import {
        #[command(flatten)]
        which: Which,
        /// Files, or folders of them
        #[arg(required = true)]
        path: Vec<PathBuf>,
    },
    /// List the images that are there.
    List {
        #[command(flatten)]
        which: Which,
    },
}

/// Which radio.
#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    config: ConfigArg,
    /// The model of a chip instead of the configured one
    #[arg(long)]
    model: bool,
}

/// `roamgate radio send`
#[derive(Debug, Args)]
pub(super) struct Send {
    #[command(flatten)]
    which: Which,
    /// Centre, in hertz
    #[arg(long, value_name = "HZ")]
    frequency: u32,
    /// SF7BW125 to SF12BW500, or 50000 for FSK
    #[arg(long, value_name = "RATE")]
    data_rate: Modulation,
    /// EIRP, in dBm
    #[arg(long, value_name = "DBM", default_value_t = 14, allow_negative_numbers = true)]
    power: i8,
    /// So many milliseconds from now, at the microsecond of the chip's counter
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(50..=10_000))]
    after: Option<u64>,
    /// With the next pulse of the GPS receiver
    #[arg(long, conflicts_with = "after")]
    on_pps: bool,
    /// The frame
    #[arg(value_name = "HEX", value_parser = bytes)]
    phy: Bytes,
}

/// `roamgate radio spectrum`
#[derive(Debug, Args)]
pub(super) struct Spectrum {
    #[command(flatten)]
    which: Which,
    /// First centre, in hertz [default: where the region's downlinks begin]
    #[arg(long, value_name = "HZ")]
    from: Option<u32>,
    /// Last centre, in hertz [default: where they end]
    #[arg(long, value_name = "HZ")]
    to: Option<u32>,
    /// From one centre to the next, in hertz
    #[arg(long, value_name = "HZ", default_value_t = 200_000)]
    step: u32,
    /// So many times over the band
    #[arg(long, value_name = "N", default_value_t = 16)]
    sweeps: u32,
    /// Keep a picture
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Keep a drawing
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct Bytes(Vec<u8>);

fn bytes(text: &str) -> Result<Bytes, String> {
    match hex::decode(text) {
        Ok(bytes) if (1..=255).contains(&bytes.len()) => Ok(Bytes(bytes)),
        Ok(bytes) => Err(format!("{} bytes: a frame has 1 to 255", bytes.len())),
        Err(error) => Err(error.to_string()),
    }
}

impl From<CardError> for Fail {
    fn from(error: CardError) -> Fail {
        Fail::new(error.to_string(), error.remedy())
    }
}

impl From<ImportError> for Fail {
    fn from(error: ImportError) -> Fail {
        Fail::new(error.to_string(), error.remedy())
    }
}

/// The radio that is meant, and what it must know.
struct Meant {
    radio: ChipConfig,
    around: Surroundings,
    region: Region,
}

impl Which {
    fn meant(&self) -> Result<Meant, Fail> {
        let config = self.config.load()?.config;
        let around = config.surroundings();
        let configured = config.radio.iter().find_map(|radio| match radio {
            radio::Config::Sx1302(radio) => Some((**radio).clone()),
            radio::Config::SemtechUdp(_) => None,
        });
        let radio = match (configured, self.model) {
            (configured, true) => ChipConfig { model: true, ..configured.unwrap_or_default() },
            (Some(radio), false) => radio,
            (None, false) => {
                return Err(Fail::new(
                    "no radio of kind \"sx1302\" is configured",
                    "add a [[radio]] entry with kind = \"sx1302\", or try it with --model",
                ));
            }
        };
        Ok(Meant { radio, region: around.region.clone(), around })
    }
}

pub(super) async fn run(command: RadioCommand, clock: Clock) -> Result<ExitCode, Fail> {
    // everything here sleeps and waits for the bus
    let done = tokio::task::spawn_blocking(move || match command {
        RadioCommand::Info { which, json } => info(&which, json, &clock),
        RadioCommand::Listen { which, seconds, json } => listen(&which, seconds, json, &clock),
        RadioCommand::Send(send) => send_one(&send, &clock),
        RadioCommand::Spectrum(scan) => scan_band(&scan, &clock),
        RadioCommand::Trace { which, seconds, to } => trace(&which, seconds, &to, &clock),
        RadioCommand::Firmware(command) => firmware(&command),
    });
    done.await
        .map_err(|error| Fail::new(error.to_string(), "run it again with RUST_BACKTRACE=1"))?
        .map(|()| ExitCode::SUCCESS)
}

fn info(which: &Which, json: bool, clock: &Clock) -> Result<(), Fail> {
    let Meant { radio, around, .. } = which.meant()?;
    let images = tools::images(&radio, &around.state)?;
    let mut bench = Bench::open(&radio, &around, clock)?;
    let mut info = bench.info(&radio)?;
    info.gps = tokio::runtime::Handle::current().block_on(bench.gps(&radio))?;
    bench.close()?;
    if json {
        let images: Vec<_> = images
            .iter()
            .map(|held| serde_json::json!({ "image": held.kind.title(), "path": held.path, "sha256": held.sha256 }))
            .collect();
        let mut value = serde_json::to_value(&info).unwrap_or_default();
        value["summary"] = radio.summary().into();
        value["firmware"] = images.into();
        show_json(&value);
    } else {
        show(&info_text(&radio, &info, &images));
    }
    Ok(())
}

fn info_text(radio: &ChipConfig, info: &Info, images: &[Held]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.into(), text]);
    row("radio", radio.summary());
    row("chip", format!("{}, model {:#04x}, EUI {}", info.chip, info.model_id, info.eui));
    let memory = if info.parity_good { "whole" } else { "DAMAGED: start it again" };
    row("program memory", memory.into());
    row("temperature", info.celsius.map_or("no sensor".into(), |celsius| format!("{celsius:.1} °C")));
    row("counter", format!("{} µs, last PPS at {} µs", info.count, info.pps));
    row("GPS", info.gps.as_ref().map_or("none is configured".into(), gps_text));
    for held in images {
        row("firmware", format!("{}, SHA-256 {}", held.kind.title(), &held.sha256[..16]));
    }
    if radio.model {
        row("firmware", "synthetic, for the model".into());
    }
    for (radio, hz) in ["A", "B"].iter().zip(&info.radios) {
        row(&format!("radio {radio}"), format!("{} MHz", mhz(*hz)));
    }
    for (frequency, by) in &info.channels {
        row("channel", format!("{} MHz, {by}", mhz(*frequency)));
    }
    table(&rows)
}

fn gps_text(gps: &GpsInfo) -> String {
    if let Some(error) = &gps.error {
        return format!("cannot be read: {error}");
    }
    let time = match (&gps.utc, gps.gps) {
        (Some(utc), Some(_)) => utc.clone(),
        (Some(utc), None) => format!("{utc}, but no GPS time: not a u-blox receiver?"),
        (None, _) => "no time yet".into(),
    };
    let place = gps.position.map_or("no position yet".into(), |(latitude, longitude)| {
        format!("at {latitude:.5}, {longitude:.5}")
    });
    let pulse = if gps.pulse { "pulse comes" } else { "NO PULSE at the concentrator" };
    format!("{time}, {place}, {pulse}")
}

fn mhz(hz: u32) -> String {
    format!("{}.{:03}", hz / 1_000_000, hz / 1000 % 1000)
}

fn listen(which: &Which, seconds: Option<u64>, json: bool, clock: &Clock) -> Result<(), Fail> {
    let Meant { radio, around, .. } = which.meant()?;
    let mut bench = Bench::open(&radio, &around, clock)?;
    if radio.model && !json {
        show("The air of the model is made up: one frame a second.\n");
    }
    bench.listen(seconds.map(Duration::from_secs), |packet| {
        let line = if json {
            serde_json::to_string(&packet).unwrap_or_default() + "\n"
        } else {
            packet_line(&packet)
        };
        let mut out = std::io::stdout().lock();
        // a reader that has gone ends it
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
    })?;
    Ok(bench.close()?)
}

fn packet_line(packet: &Caught) -> String {
    let what = hex::decode(&packet.phy).ok().and_then(|phy| frame_text(&phy));
    let snr = packet.snr.map_or("        ".into(), |snr| format!("{snr:>5.1} dB"));
    format!(
        "{}  {} MHz  {:<9}  {:>4} dBm  {snr}  CRC {:<6}  {:>3} B  {}\n",
        packet.time,
        mhz(packet.frequency),
        packet.data_rate,
        packet.rssi,
        packet.crc,
        packet.size,
        what.filter(|_| packet.crc == "good").unwrap_or_else(|| packet.phy.clone()),
    )
}

/// What a LoRaWAN frame of a device says in the clear.
fn frame_text(phy: &[u8]) -> Option<String> {
    Some(match Uplink::parse(phy).ok()? {
        Uplink::Join(join) => {
            format!(
                "Join-request JoinEUI {} DevEUI {} DevNonce {}",
                join.join_eui(),
                join.dev_eui(),
                join.dev_nonce()
            )
        }
        Uplink::Rejoin(rejoin) => format!("Rejoin-request type {}", rejoin.kind().number()),
        Uplink::Data(data) => {
            let confirmed = if data.is_confirmed() { "confirmed" } else { "unconfirmed" };
            let port = data.payload().map_or(String::new(), |(port, _)| format!(" FPort {port}"));
            format!("{confirmed} uplink DevAddr {} FCnt {}{port}", data.dev_addr(), data.fcnt())
        }
    })
}

fn send_one(send: &Send, clock: &Clock) -> Result<(), Fail> {
    let Meant { radio, around, region } = send.which.meant()?;
    let airtime = jit::airtime(send.data_rate, send.phy.0.len(), Direction::Down);
    let now = clock.now();
    let soon = now + Duration::from_millis(100);
    let here = GatewayEui::from_msb([0; 8]);
    let _allowed = Jit::new(region.clone())
        .reserve(here, soon, airtime, send.frequency, send.power, now)
        .map_err(|refused| Fail::new(refused.to_string(), format!("{region} allows no other: see RP002")))?;
    let mut bench = Bench::open(&radio, &around, clock)?;
    let wanted = send.power.saturating_sub(radio.antenna_gain);
    let moment = match send.after {
        Some(ms) => Moment::After(Duration::from_millis(ms)),
        None if send.on_pps => Moment::Pulse,
        None => Moment::Now,
    };
    let power = bench.send(moment, send.frequency, send.data_rate, wanted, &send.phy.0)?;
    bench.close()?;
    show(&format!(
        "Sent {} bytes at {} MHz, {}, with {} dBm EIRP: {:.1} ms on the air.\n",
        send.phy.0.len(),
        mhz(send.frequency),
        send.data_rate,
        power.saturating_add(radio.antenna_gain),
        airtime.as_secs_f64() * 1000.0
    ));
    Ok(())
}

/// As many columns as a picture can show.
const COLUMNS: u32 = 400;

fn scan_band(scan: &Spectrum, clock: &Clock) -> Result<(), Fail> {
    let Meant { mut radio, around, region } = scan.which.meant()?;
    if radio.model {
        radio.sx1261 = Some("model".into());
    }
    if radio.sx1261.is_none() {
        return Err(Fail::new(
            "a scan needs the SX1261 of the board, and none is configured",
            "name its SPI device: sx1261 = \"/dev/spidev0.1\" in the [[radio]] entry",
        ));
    }
    let band = region.downlink_band();
    let (from, to) = (scan.from.unwrap_or(*band.start()), scan.to.unwrap_or(*band.end()));
    let columns = to.checked_sub(from).and_then(|span| span.checked_div(scan.step)).map(|steps| steps + 1);
    let Some(columns) = columns.filter(|columns| *columns <= COLUMNS) else {
        return Err(Fail::new(
            format!("{} MHz to {} MHz in steps of {} Hz cannot be scanned", mhz(from), mhz(to), scan.step),
            format!("begin below the end, and take at most {COLUMNS} steps"),
        ));
    };
    let frequencies: Vec<u32> = (0..columns).map(|column| from + column * scan.step).collect();
    let mut bench = Bench::open(&radio, &around, clock)?;
    let colours = std::io::stdout().is_terminal();
    show(&spectrum::head(&frequencies));
    let mut sweeps = Vec::new();
    for _ in 0..scan.sweeps.clamp(1, 1000) {
        let sweep = Sweep { time: clock.wall(), levels: bench.sweep(&frequencies)? };
        show(&spectrum::line(&sweep, colours));
        sweeps.push(sweep);
    }
    bench.close()?;
    show(&spectrum::legend(colours));
    if let Some(path) = &scan.png {
        keep(path, &spectrum::png(&frequencies, &sweeps))?;
    }
    if let Some(path) = &scan.svg {
        keep(path, spectrum::svg(&frequencies, &sweeps).as_bytes())?;
    }
    Ok(())
}

fn keep(path: &std::path::Path, bytes: &[u8]) -> Result<(), Fail> {
    std::fs::write(path, bytes).map_err(|error| {
        Fail::new(format!("{}: {error}", path.display()), "name a file that can be written")
    })?;
    show(&format!("{} has it.\n", path.display()));
    Ok(())
}

fn trace(which: &Which, seconds: u64, file: &std::path::Path, clock: &Clock) -> Result<(), Fail> {
    let Meant { radio, around, .. } = which.meant()?;
    let mut bench = Bench::open(&radio, &around, clock)?;
    bench.listen(Some(Duration::from_secs(seconds)), |_| true)?;
    let lines = bench.trace();
    bench.close()?;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    show(&format!("{} events.\n", lines.len()));
    keep(file, text.as_bytes())
}

fn firmware(command: &FirmwareCommand) -> Result<(), Fail> {
    let (which, paths) = match command {
        FirmwareCommand::Import { which, path } => (which, Some(path)),
        FirmwareCommand::List { which } => (which, None),
    };
    let config = which.config.load()?.config;
    // images can be imported before a radio is configured
    let radio = config.radio.iter().find_map(|radio| match radio {
        radio::Config::Sx1302(radio) => Some((**radio).clone()),
        radio::Config::SemtechUdp(_) => None,
    });
    let radio = radio.unwrap_or_default();
    let held = match paths {
        Some(paths) => tools::import(&radio, &config.surroundings(), paths)?,
        None => tools::images(&radio, &config.store.folder())?,
    };
    if held.is_empty() {
        show("No image is there: import one with `roamgate radio firmware import FOLDER`.\n");
        return Ok(());
    }
    let mut rows = vec![["IMAGE", "BYTES", "SHA-256", "FILE"].map(String::from).to_vec()];
    for Held { kind, path, sha256, bytes } in held {
        rows.push(vec![kind.title(), bytes.to_string(), sha256, path.display().to_string()]);
    }
    show(&table(&rows));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_and_told() {
        assert_eq!(bytes("40ff").unwrap().0, [0x40, 0xff]);
        for wrong in ["", "4", "zz", &"00".repeat(256)] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        let frame = hex::decode("402a1b00000005000a9d315f771088").unwrap();
        assert_eq!(frame_text(&frame).unwrap(), "unconfirmed uplink DevAddr 00001B2A FCnt 5 FPort 10");
        assert_eq!(frame_text(&[0x60; 12]), None);
    }
}
