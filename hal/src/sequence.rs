//! Sequences as data, and the one executor that runs them.
//!
//! A sequence is a list of steps. Nothing in it waits without a limit. Several sequences that do not need each other can
//! run side by side: while one waits, the other goes on.

use crate::bus::Bus;
use crate::chip::{COMMAND_GAP_US, Chip};
use crate::config::Chain;
use crate::error::Cause;
use crate::registers::Field;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sets a field of the concentrator.
    Set(Field, i32),
    /// Writes consecutive registers in one burst.
    Burst(u16, Vec<u8>),
    /// Sleeps, in microseconds.
    Wait(u32),
    /// A command to a radio of the SX126x family behind the concentrator, opcode first.
    Radio(Chain, Vec<u8>),
    /// The same, and one byte of the reply must be right.
    RadioIs(Chain, Vec<u8>, Reply),
    /// A command to the SX1261.
    Sx1261(Vec<u8>),
    /// The same, and one byte of the reply must be right.
    Sx1261Is(Vec<u8>, Reply),
    /// Reads a field once; it must have this value.
    Is(Field, u8, &'static str),
    /// Reads a field until it has this value.
    Until(Field, u8, Limit),
}

/// What must stand in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Index into the bytes of the command, the opcode being 0.
    pub at: usize,
    /// Bits that count.
    pub mask: u8,
    /// Their value.
    pub value: u8,
    /// What it means, for the error.
    pub what: &'static str,
}

/// How long a wait may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Between two looks.
    pub every_us: u32,
    /// Altogether.
    pub limit_us: u32,
    /// What did not happen, for the error.
    pub what: &'static str,
}

impl Limit {
    /// 100 ms, looked at every millisecond: ample for both processors.
    pub const fn processor(what: &'static str) -> Limit {
        Limit { every_us: 1000, limit_us: 100_000, what }
    }
}

/// Runs one sequence.
pub fn run<B: Bus>(chip: &mut Chip<B>, steps: &[Step]) -> Result<(), Cause> {
    run_side_by_side(chip, &[steps])
}

/// Runs sequences that do not need each other. Each keeps its own order and its own waits; the bus carries one
/// transaction at a time, and who has waited longest goes first.
pub fn run_side_by_side<B: Bus>(chip: &mut Chip<B>, lanes: &[&[Step]]) -> Result<(), Cause> {
    let mut now = 0u64;
    let mut state: Vec<(u64, usize)> = lanes.iter().map(|_| (0, 0)).collect();
    loop {
        let next = (0..lanes.len())
            .filter(|lane| state[*lane].1 < lanes[*lane].len())
            .min_by_key(|lane| state[*lane]);
        let Some(lane) = next else { break };
        let (due, at) = state[lane];
        if due > now {
            chip.wait_us((due - now) as u32);
            now = due;
        }
        let wait = match &lanes[lane][at] {
            Step::Wait(us) => *us,
            step => {
                let before = chip.slept_us();
                perform(chip, step)?;
                now += chip.slept_us() - before;
                0
            }
        };
        state[lane] = (now + u64::from(wait), at + 1);
    }
    // What stands last in a lane may be a wait.
    let end = state.iter().map(|(due, _)| *due).max().unwrap_or(0);
    chip.wait_us(end.saturating_sub(now) as u32);
    Ok(())
}

fn perform<B: Bus>(chip: &mut Chip<B>, step: &Step) -> Result<(), Cause> {
    let check = |bytes: &[u8], reply: &Reply| match bytes.get(reply.at).map(|byte| byte & reply.mask) {
        Some(found) if found == reply.value => Ok(()),
        found => {
            Err(Cause::Unexpected { what: reply.what, expected: reply.value, found: found.unwrap_or(0) })
        }
    };
    match step {
        Step::Set(field, value) => chip.set(*field, *value)?,
        Step::Burst(address, bytes) => chip.write_block(*address, bytes)?,
        Step::Wait(us) => chip.wait_us(*us),
        Step::Radio(chain, bytes) => chip.radio(*chain, &mut bytes.clone())?,
        Step::RadioIs(chain, bytes, reply) => {
            let mut bytes = bytes.clone();
            chip.radio(*chain, &mut bytes)?;
            check(&bytes, reply)?;
        }
        Step::Sx1261(bytes) => chip.sx1261(&mut bytes.clone())?,
        Step::Sx1261Is(bytes, reply) => {
            let mut bytes = bytes.clone();
            chip.sx1261(&mut bytes)?;
            check(&bytes, reply)?;
        }
        Step::Is(field, value, what) => {
            let found = chip.get(*field)? as u8;
            if found != *value {
                return Err(Cause::Unexpected { what, expected: *value, found });
            }
        }
        Step::Until(field, value, limit) => {
            until(chip, *field, *limit, |found| found == *value)?;
        }
    }
    Ok(())
}

/// Reads a field until it is as wanted; gives what was read.
pub fn until<B: Bus>(
    chip: &mut Chip<B>,
    field: Field,
    limit: Limit,
    wanted: impl Fn(u8) -> bool,
) -> Result<u8, Cause> {
    let mut waited = 0;
    loop {
        let found = chip.get(field)? as u8;
        if wanted(found) {
            return Ok(found);
        }
        if waited >= limit.limit_us {
            return Err(Cause::TimeOut { what: limit.what, limit_us: limit.limit_us, last: found });
        }
        chip.wait_us(limit.every_us);
        waited += limit.every_us.max(1);
    }
}

/// Commands for an SX1250 or SX1261, each after the gap that stands for BUSY.
#[derive(Debug, Default)]
pub struct Commands(Vec<Step>);

impl Commands {
    /// None yet.
    pub fn new() -> Commands {
        Commands::default()
    }

    /// A command to a radio behind the concentrator.
    pub fn radio(mut self, chain: Chain, bytes: &[u8]) -> Commands {
        self.0.extend([Step::Wait(COMMAND_GAP_US), Step::Radio(chain, bytes.to_vec())]);
        self
    }

    /// A command to a radio behind the concentrator whose reply is looked at.
    pub fn radio_is(mut self, chain: Chain, bytes: &[u8], reply: Reply) -> Commands {
        self.0.extend([Step::Wait(COMMAND_GAP_US), Step::RadioIs(chain, bytes.to_vec(), reply)]);
        self
    }

    /// A command to the SX1261.
    pub fn sx1261(mut self, bytes: &[u8]) -> Commands {
        self.0.extend([Step::Wait(COMMAND_GAP_US), Step::Sx1261(bytes.to_vec())]);
        self
    }

    /// A command to the SX1261 whose reply is looked at.
    pub fn sx1261_is(mut self, bytes: &[u8], reply: Reply) -> Commands {
        self.0.extend([Step::Wait(COMMAND_GAP_US), Step::Sx1261Is(bytes.to_vec(), reply)]);
        self
    }

    /// Sleeps.
    pub fn wait(mut self, us: u32) -> Commands {
        self.0.push(Step::Wait(us));
        self
    }

    /// The steps.
    pub fn steps(self) -> Vec<Step> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Event, Recorder};
    use crate::model::Model;
    use crate::registers::*;

    fn chip() -> Chip<Recorder<Model>> {
        Chip::new(Recorder::new(Model::new()))
    }

    #[test]
    fn two_lanes_wait_together() {
        let mut chip = chip();
        let lane =
            |field| vec![Step::Set(field, 1), Step::Wait(500_000), Step::Set(field, 0), Step::Wait(10_000)];
        let a = lane(AGC_MCU_RF_EN_A_RADIO_RST);
        let b = lane(AGC_MCU_RF_EN_B_RADIO_RST);
        run_side_by_side(&mut chip, &[&a, &b]).unwrap();
        assert_eq!(chip.slept_us(), 510_000);
        let waits: Vec<&Event> =
            chip.bus_mut().events().iter().filter(|event| !event.is_transaction()).collect();
        assert_eq!(waits, [&Event::Wait(500_000), &Event::Wait(10_000)]);
    }

    #[test]
    fn a_wait_that_does_not_end_says_what_was_awaited_and_how_long() {
        let mut chip = chip();
        let limit = Limit { every_us: 1000, limit_us: 5000, what: "the AGC did not start" };
        let error =
            run(&mut chip, &[Step::Until(AGC_MCU_MCU_AGC_STATUS_MCU_AGC_STATUS, 1, limit)]).unwrap_err();
        assert_eq!(error, Cause::TimeOut { what: "the AGC did not start", limit_us: 5000, last: 0 });
        assert_eq!(chip.slept_us(), 5000);
    }
}
