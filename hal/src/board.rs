//! Boards by name: what is wired to them, how they make their powers, and what their levels are off by. And how a board
//! is woken.
//!
//! What a board is said to have comes from public configurations; everything can be configured by hand instead.

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;

use crate::config::Gain;

/// What a front end is tuned for. Frequencies alone do not tell: AS923 lies within 915 MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Band {
    /// 433 to 510 MHz.
    Mhz470,
    /// 779 to 870 MHz.
    Mhz868,
    /// 902 to 928 MHz.
    Mhz915,
    /// 915 to 928 MHz as AS923 uses it.
    As923,
}

/// Sixteen powers, rising.
pub type Gains = [Gain; 16];

/// A board with an SX1302 or SX1303, half duplex, with SX1250 radios and the clock from radio A.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Board {
    /// As a configuration names it.
    pub name: &'static str,
    /// Whether the antenna is wired to one input of radio A, and of radio B.
    pub single_input: [bool; 2],
    /// GPIO line of chip 0 that resets the concentrator (active high).
    pub reset: Option<u32>,
    /// GPIO line that gives it power (active high).
    pub power: Option<u32>,
    /// GPIO line that resets its SX1261 (active low).
    pub sx1261_reset: Option<u32>,
    /// The usual SPI device.
    pub spi: &'static str,
    /// The usual I2C bus of its temperature sensor, where it has one.
    pub i2c: Option<&'static str>,
    /// How it makes its powers, in the order of [`Band`].
    gains: [&'static Gains; 4],
}

impl Board {
    /// How it makes its powers.
    pub fn gains(&self, band: Band) -> &'static Gains {
        self.gains[band as usize]
    }

    /// What is added to every RSSI, dB: the same on every board.
    pub fn rssi_offset(band: Band) -> f32 {
        if band == Band::Mhz470 { -207.0 } else { -215.4 }
    }
}

const fn board(name: &'static str, reset: Option<u32>, power: Option<u32>) -> Board {
    Board {
        name,
        single_input: [true, false],
        reset,
        power,
        sx1261_reset: None,
        spi: "/dev/spidev0.0",
        i2c: Some("/dev/i2c-1"),
        gains: [&REFERENCE_470, &REFERENCE, &REFERENCE, &REFERENCE],
    }
}

/// Boards with SPI. Those without a reset line are reset by other means.
pub const BOARDS: &[Board] = &[
    board("corecell", Some(23), Some(18)),
    board("waveshare-sx1302", Some(23), Some(18)),
    Board { sx1261_reset: Some(5), ..board("wm1302", Some(17), Some(18)) },
    Board { sx1261_reset: Some(5), ..board("lr1302", Some(17), Some(18)) },
    Board {
        i2c: None,
        gains: [&REFERENCE_470, &RAK_868, &RAK_915, &RAK2287_AS923],
        ..board("rak2287", Some(17), None)
    },
    Board {
        single_input: [false; 2],
        i2c: None,
        gains: [&REFERENCE_470, &RAK_868, &RAK_915, &RAK_915],
        ..board("rak5146", Some(17), None)
    },
    Board { i2c: None, gains: [&PG1302; 4], ..board("pg1302", Some(23), None) },
    board("emb-lr1302", Some(4), Some(17)),
    Board { gains: MULTITECH, ..board("mtac-003", None, None) },
    Board { spi: "/dev/spidev1.0", i2c: None, gains: MULTITECH, ..board("mtcap3", None, None) },
];

/// Boards that are known and have no SPI: a bridge on USB stands before the concentrator.
pub const USB_BOARDS: &[&str] = &["corecell-usb", "gwc-02"];

/// A board by its name.
pub fn by_name(name: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| board.name == name)
}

/// From power in dBm, amplifier on or off, and index.
const fn gains(rows: [(i8, u8, u8); 16]) -> Gains {
    let mut all = [Gain::sx1250(0, 0, 0); 16];
    let mut at = 0;
    while at < rows.len() {
        let (rf_power, pa, index) = rows[at];
        all[at] = Gain::sx1250(rf_power, pa, index);
        at += 1;
    }
    all
}

/// The reference board, and those that repeat its front end.
#[rustfmt::skip]
const REFERENCE: Gains = gains([
    (12, 0, 15), (13, 0, 16), (14, 0, 17), (15, 0, 19), (16, 0, 20), (17, 0, 22), (18, 1, 1), (19, 1, 2),
    (20, 1, 3), (21, 1, 4), (22, 1, 5), (23, 1, 6), (24, 1, 7), (25, 1, 9), (26, 1, 11), (27, 1, 14),
]);
#[rustfmt::skip]
const REFERENCE_470: Gains = gains([
    (-6, 0, 0), (-3, 0, 1), (0, 0, 2), (3, 1, 3), (6, 1, 4), (10, 1, 5), (11, 1, 6), (12, 1, 7),
    (13, 1, 8), (14, 1, 9), (16, 1, 10), (20, 1, 11), (23, 1, 12), (25, 1, 13), (26, 1, 14), (27, 1, 15),
]);
#[rustfmt::skip]
const RAK_868: Gains = gains([
    (12, 1, 4), (13, 1, 5), (14, 1, 6), (15, 1, 7), (16, 1, 8), (17, 1, 9), (18, 1, 10), (19, 1, 11),
    (20, 1, 12), (21, 1, 13), (22, 1, 14), (23, 1, 16), (24, 1, 17), (25, 1, 18), (26, 1, 19), (27, 1, 22),
]);
#[rustfmt::skip]
const RAK_915: Gains = gains([
    (12, 1, 6), (13, 1, 7), (14, 1, 8), (15, 1, 9), (16, 1, 10), (17, 1, 11), (18, 1, 12), (19, 1, 13),
    (20, 1, 14), (21, 1, 15), (22, 1, 16), (23, 1, 17), (24, 1, 18), (25, 1, 19), (26, 1, 21), (27, 1, 22),
]);
/// As published: the indexes do not rise with the powers.
#[rustfmt::skip]
const RAK2287_AS923: Gains = gains([
    (12, 1, 1), (13, 1, 2), (14, 1, 3), (15, 1, 4), (16, 1, 5), (17, 1, 6), (18, 1, 8), (19, 1, 13),
    (20, 1, 10), (21, 1, 15), (22, 1, 12), (23, 1, 13), (24, 1, 14), (25, 1, 16), (26, 1, 17), (27, 1, 19),
]);
#[rustfmt::skip]
const PG1302: Gains = gains([
    (12, 0, 16), (13, 0, 17), (14, 0, 18), (15, 0, 19), (16, 0, 21), (17, 0, 22), (18, 1, 3), (19, 1, 4),
    (20, 1, 5), (21, 1, 6), (22, 1, 7), (23, 1, 8), (24, 1, 9), (25, 1, 11), (26, 1, 13), (27, 1, 17),
]);
#[rustfmt::skip]
const MULTITECH_868: Gains = gains([
    (10, 0, 12), (11, 0, 13), (12, 0, 14), (13, 0, 15), (14, 0, 16), (16, 0, 17), (17, 1, 0), (18, 1, 1),
    (19, 1, 2), (21, 1, 4), (22, 1, 5), (23, 1, 6), (24, 1, 7), (25, 1, 8), (26, 1, 11), (27, 1, 14),
]);
#[rustfmt::skip]
const MULTITECH_915: Gains = gains([
    (11, 0, 14), (12, 0, 15), (13, 0, 16), (15, 0, 17), (16, 0, 18), (17, 0, 19), (18, 0, 20), (19, 1, 3),
    (20, 1, 4), (21, 1, 5), (22, 1, 6), (23, 1, 7), (24, 1, 8), (25, 1, 10), (26, 1, 12), (27, 1, 15),
]);

const MULTITECH: [&Gains; 4] = [&MULTITECH_868, &MULTITECH_868, &MULTITECH_915, &MULTITECH_915];

/// The lines that wake a board; those it does not have are `None`.
#[derive(Debug)]
pub struct Lines<P> {
    /// Power, active high.
    pub power: Option<P>,
    /// Reset of the concentrator, active high.
    pub reset: Option<P>,
    /// Reset of the SX1261, active low.
    pub sx1261_reset: Option<P>,
    /// Reset of the DAC of full-duplex boards, active low.
    pub dac_reset: Option<P>,
}

impl<P: OutputPin> Lines<P> {
    /// Power on, and a pulse on each reset line, 100 ms after each step. The same is right before a start and after a
    /// stop.
    pub fn reset(&mut self, delay: &mut impl DelayNs) -> Result<(), P::Error> {
        let mut step = |line: &mut Option<P>, high: bool| -> Result<(), P::Error> {
            if let Some(line) = line {
                if high {
                    line.set_high()?
                } else {
                    line.set_low()?
                }
                delay.delay_ms(100);
            }
            Ok(())
        };
        step(&mut self.power, true)?;
        step(&mut self.reset, true)?;
        step(&mut self.reset, false)?;
        for line in [&mut self.sx1261_reset, &mut self.dac_reset] {
            step(line, false)?;
            step(line, true)?;
        }
        Ok(())
    }

    /// Takes the power away for a second and resets: what is left when a reset alone does not help. Where no power line
    /// is wired it is a reset.
    pub fn power_cycle(&mut self, delay: &mut impl DelayNs) -> Result<(), P::Error> {
        if let Some(power) = &mut self.power {
            power.set_low()?;
            delay.delay_ms(1000);
        }
        self.reset(delay)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;
    use crate::config::{Chain, Config, Radio, RadioKind};

    struct Pin<'a>(&'static str, &'a RefCell<Vec<String>>);

    impl embedded_hal::digital::ErrorType for Pin<'_> {
        type Error = Infallible;
    }

    impl OutputPin for Pin<'_> {
        fn set_low(&mut self) -> Result<(), Infallible> {
            self.1.borrow_mut().push(format!("{} 0", self.0));
            Ok(())
        }
        fn set_high(&mut self) -> Result<(), Infallible> {
            self.1.borrow_mut().push(format!("{} 1", self.0));
            Ok(())
        }
    }

    struct Delay<'a>(&'a RefCell<Vec<String>>);

    impl DelayNs for Delay<'_> {
        fn delay_ns(&mut self, ns: u32) {
            self.0.borrow_mut().push(format!("{} ms", ns / 1_000_000));
        }
        fn delay_ms(&mut self, ms: u32) {
            self.0.borrow_mut().push(format!("{ms} ms"));
        }
    }

    #[test]
    fn a_board_wakes_step_by_step() {
        let log = RefCell::new(Vec::new());
        let mut lines = Lines {
            power: Some(Pin("power", &log)),
            reset: Some(Pin("reset", &log)),
            sx1261_reset: Some(Pin("sx1261", &log)),
            dac_reset: None,
        };
        lines.reset(&mut Delay(&log)).unwrap();
        let steps: Vec<String> = log.borrow().iter().filter(|step| !step.ends_with("ms")).cloned().collect();
        assert_eq!(steps, ["power 1", "reset 1", "reset 0", "sx1261 0", "sx1261 1"]);
        assert_eq!(log.borrow().iter().filter(|step| *step == "100 ms").count(), 5);
    }

    #[test]
    fn names_are_unique_and_gains_rise() {
        for board in BOARDS {
            assert_eq!(by_name(board.name), Some(board));
            assert!(!USB_BOARDS.contains(&board.name));
            for band in [Band::Mhz470, Band::Mhz868, Band::Mhz915, Band::As923] {
                let gains = board.gains(band);
                assert!(gains.windows(2).all(|pair| pair[0].rf_power < pair[1].rf_power), "{}", board.name);
                assert_eq!(gains[15].rf_power, 27, "{} {band:?}", board.name);
                let radio = Radio { enable: true, gains: gains.to_vec(), ..Radio::off(RadioKind::Sx1250) };
                let mut config = Config::new();
                assert_eq!(config.set_radio(Chain::A, Radio { freq_hz: 868_000_000, ..radio }), Ok(()));
            }
        }
    }
}
