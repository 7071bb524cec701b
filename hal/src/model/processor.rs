//! The two processors of the model: what their firmware answers, told by the image that was loaded.

use crate::config::Chain;
use crate::firmware::{Image, Program, is_word};

use super::Faults;

/// Addresses of the AGC's mailbox.
const W3: usize = 0x5789;
const R3: usize = 0x578d;
const AGC_STATUS: usize = 0x5781;
const ARB_STATUS: usize = 0x6081;

/// What runs in the AGC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Agc {
    #[default]
    Nothing,
    Starting,
    Calibrating,
    Operating {
        lbt: bool,
    },
}

/// Both processors.
#[derive(Debug, Default)]
pub struct Processors {
    agc: Agc,
    lbt: bool,
    /// The calibration that was begun: chain, and whether it is that of the DC offset.
    job: Option<(Chain, bool)>,
    /// Runs done: image and DC, for each chain.
    image_runs: [u32; 2],
    dc_runs: [u32; 2],
}

impl Processors {
    /// A write to a control register: whether something starts to run.
    pub fn control(&mut self, memory: &mut [u8], faults: &Faults, address: u16, old: u8) {
        let control = usize::from(address);
        let new = memory[control];
        // MCU_CLEAR falls while the host does not program.
        if old & 4 == 0 || new & 4 != 0 || new & 2 != 0 {
            return;
        }
        let base = if address == 0x5780 { 0x0000 } else { 0x2000 };
        let image = &memory[base..base + 0x2000];
        let sound = image.chunks_exact(2).all(|pair| is_word(u16::from_le_bytes([pair[0], pair[1]])));
        let is = |wanted: Image| image == Program::synthetic(wanted).bytes();
        let (calibration, old_radio) = (is(Image::Calibration), is(Image::AgcSx125x));
        let bad = !sound || (faults.agc_parity && address == 0x5780);
        memory[control] = (memory[control] & !1) | u8::from(bad);
        if bad {
            return;
        }
        if address == 0x5780 {
            self.agc = if calibration { Agc::Calibrating } else { Agc::Starting };
            if calibration {
                (self.image_runs, self.dc_runs) = ([0; 2], [0; 2]);
            }
            let running = match (calibration, old_radio) {
                (true, _) => Image::Calibration,
                (_, true) => Image::AgcSx125x,
                _ => Image::AgcSx1250,
            };
            memory[R3 + 3] = faults.agc_version.unwrap_or(running.version());
            self.agc_status(memory, faults, 1);
        } else if !faults.arb_stuck {
            memory[ARB_STATUS] = 1;
            memory[0x608d] = Image::Arbiter.version();
        }
    }

    fn agc_status(&self, memory: &mut [u8], faults: &Faults, status: u8) {
        memory[AGC_STATUS] = match faults.agc_stuck_at {
            Some(stuck) if status >= stuck => stuck,
            _ => status,
        };
    }

    /// W3 was written.
    pub fn agc_message(&mut self, memory: &mut [u8], faults: &Faults) {
        let [command, w2, w1, w0] = [0, 1, 2, 3].map(|i| memory[W3 + i]);
        match self.agc {
            Agc::Nothing | Agc::Operating { .. } => {}
            Agc::Calibrating => self.calibrate(memory, command, w2),
            Agc::Starting => {
                let answer = match command {
                    0x80 => 0x02,
                    0x20 => 0x03,
                    0x03..=0x0a => command + 1,
                    0x0b => 0x0f,
                    0x0f => {
                        self.agc = Agc::Operating { lbt: self.lbt };
                        memory[AGC_STATUS] = 0;
                        return;
                    }
                    _ => return,
                };
                if command == 0x0b {
                    self.lbt = w0 == 1;
                }
                memory[R3 + 1..R3 + 4].copy_from_slice(&[w2, w1, w0]);
                self.agc_status(memory, faults, answer);
            }
        }
    }

    /// W0 was written: 0xff acknowledges what the status said about a transmission.
    pub fn agc_acknowledged(&mut self, memory: &mut [u8]) {
        if matches!(self.agc, Agc::Operating { .. }) && memory[W3 + 3] == 0xff {
            memory[AGC_STATUS] = 0;
        }
    }

    /// Whether transmissions go on air.
    pub fn is_in_operation(&self) -> bool {
        matches!(self.agc, Agc::Operating { .. })
    }

    /// A trigger was pulled. Gives whether it is refused.
    pub fn sends(&mut self, memory: &mut [u8], chain: Chain, busy: bool) -> bool {
        if self.agc != (Agc::Operating { lbt: true }) {
            return false;
        }
        memory[AGC_STATUS] |= 1 << chain.index();
        if busy {
            memory[AGC_STATUS] |= 0x40 << chain.index();
        }
        busy
    }

    /// The arbiter goes.
    pub fn arb_go(&mut self, memory: &mut [u8], faults: &Faults) {
        if !faults.arb_stuck {
            memory[ARB_STATUS] = 0;
        }
    }

    fn calibrate(&mut self, memory: &mut [u8], command: u8, w2: u8) {
        let mut answer = |status: u8, mailbox: Option<[u8; 4]>| {
            memory[AGC_STATUS] = status;
            if let Some(mailbox) = mailbox {
                memory[R3..R3 + 4].copy_from_slice(&mailbox);
            }
        };
        match command {
            0xff => answer(0, None),
            1 => {
                let chain = if w2 & 1 == 0 { Chain::A } else { Chain::B };
                self.job = Some((chain, w2 & 2 != 0));
                answer(1, None);
            }
            2 | 3 => answer(command, None),
            _ => {
                let Some((chain, dc)) = self.job else { return };
                let at = chain.index();
                let word = |value: u16| value.to_be_bytes();
                let runs = if dc { self.dc_runs[at] } else { self.image_runs[at] };
                let (j, sets) = ((runs % 3) as usize, (runs / 3) as i8);
                let first = chain == Chain::A;
                let jj = j as i8;
                match (command, dc) {
                    (4, _) => {
                        let [high, low] = word(if dc { 20_000 } else { 10_000 });
                        answer(6, Some([0, 0, high, low]));
                    }
                    (6, false) => {
                        let [high, low] = word(200);
                        let amplitude = if first { 5 + jj } else { -4 + jj };
                        let phase = if first { -3 + (jj & 1) } else { 7 + (jj & 1) };
                        answer(7, Some([high, low, amplitude as u8, phase as u8]));
                    }
                    (6, true) => {
                        let [high, low] = word([40, 30, 35][j]);
                        let i = if first { 11 } else { -9 } + jj + sets;
                        let q = if first { -7 } else { 6 } - jj;
                        answer(7, Some([high, low, i as u8, q as u8]));
                    }
                    (7, false) => {
                        let ([ih, il], [nh, nl]) = (word([12, 10, 11][j]), word(12));
                        answer(8, Some([ih, il, nh, nl]));
                    }
                    (8, false) => {
                        self.image_runs[at] += 1;
                        answer(if first { 0x11 } else { 0x22 }, None);
                    }
                    (7..=9, true) => answer(command + 1, None),
                    (0x0a, true) => answer(0x0c, None),
                    (0x0c..=0x1f, true) => answer(command + 1, None),
                    (0x20, true) => {
                        self.dc_runs[at] += 1;
                        answer(if first { 0x33 } else { 0x44 }, None);
                    }
                    _ => {}
                }
            }
        }
    }
}
