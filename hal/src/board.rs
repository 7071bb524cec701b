//! Boards by name: what is wired to them, and what their levels are off by. And how a board is woken.
//!
//! What a board is said to have comes from public configurations; everything can be configured by hand instead. Gain
//! tables belong to a board and a band together: the one that is published for the reference board at 868 MHz is here.

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;

use crate::config::Gain;

/// A board with an SX1302 or SX1303, half duplex, with SX1250 radios and the clock from radio A.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Board {
    /// As a configuration names it.
    pub name: &'static str,
    /// Whether the antenna is wired to one input of radio A, and of radio B.
    pub single_input: [bool; 2],
    /// Added to every RSSI from 779 MHz on, dB.
    pub rssi_offset: f32,
    /// The same below.
    pub rssi_offset_low: f32,
    /// GPIO line of chip 0 that resets the concentrator (active high).
    pub reset: Option<u32>,
    /// GPIO line that gives it power (active high).
    pub power: Option<u32>,
    /// GPIO line that resets its SX1261 (active low).
    pub sx1261_reset: Option<u32>,
    /// Whether an SX1303 is on it.
    pub sx1303: bool,
    /// The usual SPI device.
    pub spi: &'static str,
}

impl Board {
    /// What is added to every RSSI for radios around this frequency, dB.
    pub fn rssi_offset_at(&self, freq_hz: u32) -> f32 {
        if freq_hz >= 779_000_000 { self.rssi_offset } else { self.rssi_offset_low }
    }
}

const fn board(
    name: &'static str,
    reset: Option<u32>,
    power: Option<u32>,
    sx1261_reset: Option<u32>,
) -> Board {
    Board {
        name,
        single_input: [true, false],
        rssi_offset: -215.4,
        rssi_offset_low: -207.0,
        reset,
        power,
        sx1261_reset,
        sx1303: false,
        spi: "/dev/spidev0.0",
    }
}

/// Boards with SPI. Those whose lines are not listed are reset by other means.
pub const BOARDS: &[Board] = &[
    board("corecell", Some(23), Some(18), None),
    board("waveshare-sx1302", Some(23), Some(18), None),
    board("wm1302", Some(17), Some(18), Some(5)),
    board("lr1302", Some(17), Some(18), Some(5)),
    board("rak2287", Some(17), None, None),
    Board { single_input: [false, false], sx1303: true, ..board("rak5146", Some(17), None, None) },
    board("pg1302", None, None, None),
    board("emb-lr1302", Some(4), Some(17), None),
    board("mtac-003", None, None, None),
    Board { spi: "/dev/spidev1.0", ..board("mtcap3", None, None, None) },
];

/// A board by its name.
pub fn by_name(name: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| board.name == name)
}

/// Gains of the reference board at 868 MHz.
pub const GAINS_868: [Gain; 16] = [
    Gain::sx1250(12, 0, 15),
    Gain::sx1250(13, 0, 16),
    Gain::sx1250(14, 0, 17),
    Gain::sx1250(15, 0, 19),
    Gain::sx1250(16, 0, 20),
    Gain::sx1250(17, 0, 22),
    Gain::sx1250(18, 1, 1),
    Gain::sx1250(19, 1, 2),
    Gain::sx1250(20, 1, 3),
    Gain::sx1250(21, 1, 4),
    Gain::sx1250(22, 1, 5),
    Gain::sx1250(23, 1, 6),
    Gain::sx1250(24, 1, 7),
    Gain::sx1250(25, 1, 9),
    Gain::sx1250(26, 1, 11),
    Gain::sx1250(27, 1, 14),
];

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
        }
        assert!(GAINS_868.windows(2).all(|pair| pair[0].rf_power < pair[1].rf_power));
    }
}
