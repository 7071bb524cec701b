//! Compares two bus traces by effect: the registers at the end of each step, and ordered lists of what has an order.
//! Reads, sizes of bursts, redundant writes and longer waits do not count.

use std::collections::{BTreeMap, BTreeSet};

use sx1302::bus::{Device, Event};
use sx1302::registers;

/// Registers whose values are no state: OTP address, memory page.
const NO_STATE: [u16; 2] = [0x6180, 0x5600];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum List {
    Core,
    A,
    B,
    Sx1261,
    I2c,
}
use List::*;

/// Fields whose changes are ordered: address, mask, lists, name.
const ORDERED: &[(u16, u8, &[List], &str)] = &[
    (0x5601, 0x10, &[Core], "clk32_rif"),
    (0x5601, 0x08, &[A, B], "host_radio_ctrl"),
    (0x5601, 0x01, &[A], "mode_sx1250"),
    (0x5601, 0x02, &[B], "mode_sx1250"),
    (0x5783, 0x08, &[A], "radio_rst"),
    (0x5783, 0x04, &[A], "radio_en"),
    (0x5784, 0x08, &[B], "radio_rst"),
    (0x5784, 0x04, &[B], "radio_en"),
    (0x57c0, 0x07, &[Core], "clk_sel"),
    (0x5605, 0x0f, &[Core], "modem_enable"),
    (0x5780, 0x04, &[Core], "agc_mcu_clear"),
    (0x5780, 0x02, &[Core], "agc_host_prog"),
    (0x5780, 0x08, &[Core], "agc_force_host_fe"),
    (0x6080, 0x04, &[Core], "arb_mcu_clear"),
    (0x6080, 0x02, &[Core], "arb_host_prog"),
    (0x608a, 0xff, &[Core], "arb_debug_cfg1"),
    (0x5643, 0xff, &[Core], "gpio_out"),
];

/// An entry of a list, and how long was waited before it.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    what: String,
    /// Name and value, or opcode, for the least waits.
    kind: (String, u8),
    waited: u64,
}

#[derive(Debug, Clone, Default)]
struct Step {
    memory: BTreeMap<u16, u8>,
    written: BTreeSet<u16>,
    lists: BTreeMap<List, Vec<Entry>>,
    old_radios: [BTreeMap<u8, u8>; 2],
}

#[derive(Default)]
struct Side {
    memory: BTreeMap<u16, u8>,
    written: BTreeSet<u16>,
    programs: BTreeMap<u16, u8>,
    old_radios: [BTreeMap<u8, u8>; 2],
    payload: [BTreeMap<u16, u8>; 2],
    booted: bool,
    lists: BTreeMap<List, Vec<Entry>>,
    waited: BTreeMap<List, u64>,
    set: BTreeMap<List, BTreeMap<u16, u8>>,
    steps: Vec<(String, Step)>,
    label: String,
}

impl Side {
    fn new() -> Side {
        let mut side = Side::default();
        for (_, field) in registers::ALL {
            let byte = side.memory.entry(field.address).or_default();
            *byte = field.insert(*byte, field.default.into());
        }
        side
    }

    fn end(&mut self) {
        for list in [Core, A, B, Sx1261, I2c] {
            self.flush(list);
        }
        let step = Step {
            memory: self.memory.clone(),
            written: self.written.clone(),
            lists: std::mem::take(&mut self.lists),
            old_radios: self.old_radios.clone(),
        };
        self.waited.clear();
        self.steps.push((self.label.clone(), step));
    }

    fn entry(&mut self, list: List, kind: &str, value: u8, what: String) {
        self.flush(list);
        let waited = self.waited.insert(list, 0).unwrap_or(0);
        self.lists.entry(list).or_default().push(Entry { what, kind: (kind.to_owned(), value), waited });
    }

    fn flush(&mut self, list: List) {
        if let Some(set) = self.set.remove(&list).filter(|set| !set.is_empty()) {
            let entry =
                Entry { what: format!("registers {set:02x?}"), kind: ("registers".into(), 0), waited: 0 };
            self.lists.entry(list).or_default().push(entry);
        }
    }

    fn write(&mut self, address: u16, value: u8) {
        if address < 0x4000 {
            self.programs.insert(address, value);
            return;
        }
        let old = self.memory.insert(address, value).unwrap_or(0);
        self.written.insert(address);
        for (chain, base) in [(0u8, 0x5200u16), (1, 0x5400)] {
            let at = usize::from(chain);
            if (base + 0x100..base + 0x200).contains(&address) {
                self.payload[at].insert(address - base, value);
                return;
            }
            if address == base + 7 && old & 1 != 0 && value & 1 == 0 {
                let bytes: Vec<u8> = std::mem::take(&mut self.payload[at]).into_values().collect();
                self.entry(Core, "tx_payload", chain, format!("tx_payload {chain} {bytes:02x?}"));
            }
            if address == base {
                for bit in [1, 2, 4].into_iter().filter(|bit| value & !old & bit != 0) {
                    let block: Vec<u8> = (base + 1..base + 0x80)
                        .filter(|address| *address != base + 0x11)
                        .map(|address| self.memory.get(&address).copied().unwrap_or(0))
                        .collect();
                    self.entry(Core, "tx_trigger", bit, format!("tx_trigger {chain} {bit} {block:02x?}"));
                }
                if old & 7 != 0 && value & 7 == 0 {
                    self.entry(Core, "tx_trigger_clear", chain, format!("tx_trigger_clear {chain}"));
                }
            }
        }
        for (_, mask, lists, name) in ORDERED.iter().filter(|(at, ..)| *at == address) {
            if (old ^ value) & mask == 0 {
                continue;
            }
            if name.ends_with("host_prog") && value & mask == 0 {
                let base = if name.starts_with("agc") { 0 } else { 0x2000 };
                let image: Vec<u8> =
                    self.programs.range(base..base + 0x2000).map(|(_, byte)| *byte).collect();
                let sum = image.iter().fold(image.len() as u64, |sum, byte| {
                    sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(*byte))
                });
                self.entry(Core, "firmware", 0, format!("firmware {base:04x} {sum:016x}"));
            }
            for list in *lists {
                self.entry(*list, name, value & mask, format!("{name} {}", value & mask));
            }
        }
        let at = |address: u16, memory: &BTreeMap<u16, u8>| memory.get(&address).copied().unwrap_or(0);
        if address == 0x5789 {
            let rest = [0x578a, 0x578b, 0x578c].map(|address| at(address, &self.memory));
            self.entry(Core, "mailbox", value, format!("mailbox {value:02x} {rest:02x?}"));
            self.booted |= value == 0x0f;
        }
        if address == 0x578c && self.booted && old != value {
            self.entry(Core, "mailbox0", value, format!("mailbox0 {value:02x}"));
        }
    }

    fn command(&mut self, list: List, bytes: &[u8]) {
        match bytes[0] {
            0xc0 | 0x17 | 0x1d | 0x12..=0x15 | 0x1e => {}
            0x0d => {
                let first = u16::from_be_bytes([bytes[1], bytes[2]]);
                self.set.entry(list).or_default().extend((first..).zip(bytes[3..].iter().copied()));
            }
            opcode => {
                let length = match opcode {
                    0xc1 | 0xd9 => 1,
                    0x80 | 0x89 | 0x8a => 2,
                    0x98 | 0x8f => 3,
                    0x82 | 0x9b => 4,
                    0x86 => 5,
                    0x9a => 6,
                    0x8b => 9,
                    0x8c => 10,
                    _ => bytes.len(),
                };
                self.entry(list, "cmd", opcode, format!("cmd {:02x?}", &bytes[..length.min(bytes.len())]));
            }
        }
    }

    fn spi(&mut self, device: Device, tx: &[u8]) {
        if device == Device::Sx1261 {
            return self.command(Sx1261, tx);
        }
        match tx[0] {
            target @ (1 | 2) => {
                let list = if target == 1 { A } else { B };
                if self.memory.get(&0x5601).copied().unwrap_or(3) & target != 0 {
                    self.command(list, &tx[1..]);
                } else if tx[1] & 0x80 != 0 {
                    let (register, value) = (tx[1] & 0x7f, tx[2]);
                    let old = self.old_radios[usize::from(target - 1)].insert(register, value);
                    if matches!(register, 0 | 16) && old != Some(value) {
                        self.entry(list, "sx125x", register, format!("sx125x {register} {value}"));
                    }
                }
            }
            0 if tx.len() >= 4 && tx[1] & 0x80 != 0 => {
                let first = u16::from_be_bytes([tx[1] & 0x7f, tx[2]]);
                for (address, value) in (first..).zip(&tx[3..]) {
                    self.write(address, *value);
                }
            }
            _ => {}
        }
    }

    fn run<'a>(mut self, lines: impl Iterator<Item = &'a str>) -> Vec<(String, Step)> {
        for event in lines.filter_map(Event::parse) {
            match event {
                Event::Step(name) => {
                    self.end();
                    self.label = name;
                }
                Event::Wait(us) => {
                    for list in [Core, A, B, Sx1261, I2c] {
                        *self.waited.entry(list).or_default() += u64::from(us);
                    }
                }
                Event::Spi { device, tx, .. } => self.spi(device, &tx),
                Event::I2cWrite { address, bytes, .. } if bytes.len() > 1 => {
                    self.entry(I2c, "i2c", address, format!("i2c {address:02x} {bytes:02x?}"));
                }
                Event::I2cWrite { .. } | Event::I2cRead { .. } => {}
            }
        }
        self.end();
        self.steps
    }
}

/// Least time between two entries of a radio's list.
fn least_wait(before: &Entry, entry: &Entry) -> u64 {
    match (before.kind.0.as_str(), before.kind.1) {
        ("radio_rst", level) if level != 0 && entry.kind.0 == "radio_rst" => 500_000,
        ("radio_rst", _) | ("cmd", 0x80 | 0x89 | 0x98) => 10_000,
        _ => 0,
    }
}

/// What is different, a sentence each.
pub fn differences(reference: &str, candidate: &str) -> Vec<String> {
    let (reference, candidate) = (Side::new().run(reference.lines()), Side::new().run(candidate.lines()));
    let candidate: BTreeMap<String, Step> = candidate.into_iter().collect();
    let mut found = Vec::new();
    for (label, wanted) in reference {
        let Some(step) = candidate.get(&label) else {
            found.push(format!("step {label:?} is missing"));
            continue;
        };
        let payload =
            |address: &u16| (0x5300..0x5400).contains(address) || (0x5500..0x5600).contains(address);
        for address in wanted.written.union(&step.written).filter(|at| !NO_STATE.contains(at) && !payload(at))
        {
            let (a, b) = (wanted.memory.get(address), step.memory.get(address));
            if a.unwrap_or(&0) != b.unwrap_or(&0) {
                found.push(format!("{label}: register {address:#06x} is {b:02x?}, wanted {a:02x?}"));
            }
        }
        if wanted.old_radios != step.old_radios {
            found
                .push(format!("{label}: SX125x {:02x?}, wanted {:02x?}", step.old_radios, wanted.old_radios));
        }
        for list in [Core, A, B, Sx1261, I2c] {
            let empty = Vec::new();
            let x = wanted.lists.get(&list).unwrap_or(&empty);
            let y = step.lists.get(&list).unwrap_or(&empty);
            for i in 0..x.len().max(y.len()) {
                match (x.get(i), y.get(i)) {
                    (Some(p), Some(q)) if p.what == q.what => {
                        let before = y[..i].iter().rev().find(|entry| entry.kind.0 != "registers");
                        let need =
                            before.filter(|_| matches!(list, A | B | Sx1261)).map_or(0, |e| least_wait(e, q));
                        if q.kind.0 != "registers" && p.waited >= need && q.waited < need {
                            found.push(format!(
                                "{label}: {list:?} {}: waited {} of {need} us",
                                q.what, q.waited
                            ));
                        }
                    }
                    (p, q) => {
                        let what = |entry: Option<&Entry>| entry.map(|entry| entry.what.clone());
                        found.push(format!(
                            "{label}: {list:?} event {i}: {:?}, wanted {:?}",
                            what(q),
                            what(p)
                        ));
                        break;
                    }
                }
            }
        }
    }
    found
}
