//! The board: its buses, its lines, and a concentrator that was brought up on them. Or the model of one.

use std::io;
use std::path::PathBuf;

use sx1302::Concentrator;
use sx1302::board::{self, Band, Board, Lines};
use sx1302::bus::Bus;
use sx1302::bus::linux::{self, Line, Sleep};
use sx1302::concentrator::Identity;
use sx1302::config::{ConfigError, Gain};
use sx1302::firmware::Firmware;

use super::firmware::{self, ImportError};
use super::model::Modelled;
use super::plan::{PlanError, Wiring, free_below, plan};
use super::{Config, GpioLine};
use crate::lorawan::Region;

/// The driver's way to whatever there is.
pub type AnyBus = Box<dyn Bus + Send>;

/// Why a concentrator did not come up.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The device is another program's.
    #[error("{path} is in use by another program")]
    Busy {
        /// Which device.
        path: PathBuf,
    },
    /// A bus that does not open.
    #[error("cannot open {path}")]
    Open {
        /// Which device.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line that cannot be had or set.
    #[error("cannot use line {line} of {chip}: {reason}")]
    Line {
        /// The GPIO device.
        chip: PathBuf,
        /// Its line.
        line: u32,
        /// What the system said.
        reason: String,
    },
    /// Beacons without the time.
    #[error("beacons want the time of a GPS receiver")]
    NoTime,
    /// A region that does not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No firmware, or a wrong one.
    #[error(transparent)]
    Firmware(#[from] ImportError),
    /// The driver's.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The chip's; its last transfers are for the log ([`CardError::whole`]).
    #[error("{}", .0.cause)]
    Chip(#[from] sx1302::Error),
}

impl CardError {
    /// With the last transfers on the bus, where it came from there.
    pub fn whole(&self) -> String {
        match self {
            CardError::Chip(error) => error.to_string(),
            other => other.to_string(),
        }
    }

    /// What the operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            CardError::Busy { .. } => {
                "stop the service or program that uses the radio (systemctl stop roamgate)"
            }
            CardError::Open { .. } | CardError::Line { .. } => {
                "check `spi`, `reset` and `power` of the radio, that SPI is enabled, and that this user may use the devices"
            }
            CardError::NoTime => {
                "set `gps` to the serial port of a receiver whose pulse is wired to the concentrator"
            }
            CardError::Plan(_) => "see network.region and network.sub_bands",
            CardError::Firmware(error) => error.remedy(),
            CardError::Config(_) => "see the [[radio]] entry",
            CardError::Chip(_) => {
                "check power, ribbon and reset line; `roamgate radio trace` records what the chip says"
            }
        }
    }
}

/// The channels of a region on this board, as they can be known without it.
pub(super) fn planned(config: &Config, region: &Region) -> Result<sx1302::config::Config, CardError> {
    if config.beacon && config.gps.is_none() {
        return Err(CardError::NoTime);
    }
    Ok(plan(region, &wiring(config, config.known(), region))?)
}

/// A board that can be reset and started again, as often as needed.
pub struct Card {
    hardware: Hardware,
    plan: sx1302::config::Config,
    firmware: Firmware,
}

enum Hardware {
    Board {
        config: Box<Config>,
        lines: Lines<Line>,
        /// Held as long as this lives: spidev itself lets any number of programs in.
        _lock: std::fs::File,
    },
    Model(Modelled),
}

impl Card {
    /// Everything that can be known before the chip is touched; takes device and lines.
    pub fn new(
        config: &Config,
        region: &Region,
        own_firmware: &std::path::Path,
        model: Option<Modelled>,
    ) -> Result<Card, CardError> {
        let plan = planned(config, region)?;
        if free_below(region).is_some() && config.sx1261.is_none() && model.is_none() {
            tracing::warn!(
                "{region}: where the law wants a gateway to listen before it talks, set `sx1261`; nothing listens now"
            );
        }
        let (hardware, firmware) = match model {
            Some(model) => {
                model.tune(&plan);
                (Hardware::Model(model), Firmware::synthetic())
            }
            None => {
                let firmware = firmware::load(
                    &firmware::folders(own_firmware),
                    config.radios.into(),
                    config.sx1261.is_some(),
                )?;
                let lock = lock(config)?;
                let lines = lines(config, config.known())?;
                (Hardware::Board { config: Box::new(config.clone()), lines, _lock: lock }, firmware)
            }
        };
        Ok(Card { hardware, plan, firmware })
    }

    /// Whether there is no board.
    pub fn is_model(&self) -> bool {
        matches!(self.hardware, Hardware::Model(_))
    }

    /// The channels.
    pub fn plan(&self) -> &sx1302::config::Config {
        &self.plan
    }

    /// Pulse the reset lines; with `power`, take the power away for a second before.
    pub fn reset(&mut self, power: bool) -> Result<(), CardError> {
        match &mut self.hardware {
            Hardware::Board { lines, config, .. } => {
                let done = if power { lines.power_cycle(&mut Sleep) } else { lines.reset(&mut Sleep) };
                done.map_err(|error| {
                    let line = config.reset.clone().unwrap_or_default();
                    CardError::Line { chip: line.chip, line: line.line, reason: error.0.to_string() }
                })
            }
            Hardware::Model(model) => {
                model.reset(power);
                Ok(())
            }
        }
    }

    /// The way to the chip.
    pub fn bus(&self) -> Result<AnyBus, CardError> {
        match &self.hardware {
            Hardware::Board { config, .. } => {
                let spi = config.spi();
                let wires =
                    linux::open(&spi, config.sx1261.as_deref(), config.i2c().as_deref(), linux::SPEED_HZ)
                        .map_err(|source| CardError::Open { path: spi, source })?;
                Ok(Box::new(wires))
            }
            Hardware::Model(model) => Ok(Box::new(model.clone())),
        }
    }

    /// A concentrator that runs. The board should have been reset.
    pub fn start(&self) -> Result<(Concentrator<AnyBus>, Identity), CardError> {
        self.start_on(self.bus()?)
    }

    /// The same on a bus that somebody put something before.
    pub fn start_on<B: Bus>(&self, bus: B) -> Result<(Concentrator<B>, Identity), CardError> {
        let mut concentrator = Concentrator::new(bus, self.plan.clone(), self.firmware.clone())?;
        let identity = concentrator.start()?;
        Ok((concentrator, identity))
    }
}

/// What the configuration says of the board, and the board's own where it says nothing.
fn wiring(config: &Config, board: Option<&Board>, region: &Region) -> Wiring {
    let band = band(region);
    let gains = || board.unwrap_or(&board::BOARDS[0]).gains(band).to_vec();
    let own: Vec<Gain> = config.gains.iter().copied().map(Gain::from).collect();
    Wiring {
        radios: config.radios.into(),
        full_duplex: config.full_duplex,
        single_input: config.single_input.or(board.map(|board| board.single_input)).unwrap_or([true, false]),
        rssi_offset: config.rssi_offset.unwrap_or_else(|| Board::rssi_offset(band)),
        gains: if own.is_empty() { gains() } else { own },
        sx1261: config.sx1261.is_some(),
    }
}

/// What a board's front end must be tuned for.
pub(super) fn band(region: &Region) -> Band {
    let freq_hz = region.rx2().0;
    match region.to_string() {
        name if name.starts_with("AS923") => Band::As923,
        _ if freq_hz < 700_000_000 => Band::Mhz470,
        _ if freq_hz < 900_000_000 => Band::Mhz868,
        _ => Band::Mhz915,
    }
}

fn lock(config: &Config) -> Result<std::fs::File, CardError> {
    let path = config.spi();
    let file = std::fs::File::open(&path).map_err(|source| CardError::Open { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(CardError::Busy { path }),
        Err(std::fs::TryLockError::Error(source)) => Err(CardError::Open { path, source }),
    }
}

fn lines(config: &Config, board: Option<&Board>) -> Result<Lines<Line>, CardError> {
    let take = |own: &Option<GpioLine>, usual: Option<u32>, level: bool| {
        let wired = own.clone().or(usual.map(|line| GpioLine { line, ..GpioLine::default() }));
        let taken = wired.map(|GpioLine { chip, line }| {
            Line::take(&chip, line, level).map_err(|error| CardError::Line {
                chip,
                line,
                reason: error.to_string(),
            })
        });
        taken.transpose()
    };
    Ok(Lines {
        power: take(&config.power, board.and_then(|board| board.power), false)?,
        reset: take(&config.reset, board.and_then(|board| board.reset), false)?,
        sx1261_reset: take(&config.sx1261_reset, board.and_then(|board| board.sx1261_reset), true)?,
        dac_reset: None,
    })
}
