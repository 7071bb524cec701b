//! What is tried when the concentrator is in trouble, from the mildest to the last. Pure.
//!
//! A step that helped is forgotten after a while; trouble before that climbs to the next. At the top the program ends, so
//! that the service manager begins anew: what a fresh process cannot cure is a matter for hands.

use std::fmt;
use std::time::Duration;

use crate::clock::Instant;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Stop, load the firmware and start again.
    Reload,
    /// Pulse the reset line, then start.
    Reset,
    /// Take the power away for a second, then start.
    PowerCycle,
    /// Give up.
    Exit,
}

impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Step::Reload => "loading the firmware again",
            Step::Reset => "resetting the chip",
            Step::PowerCycle => "taking its power away",
            Step::Exit => "giving up, so that the service manager starts anew",
        })
    }
}

const STEPS: [(Step, Duration); 7] = [
    (Step::Reload, Duration::ZERO),
    (Step::Reset, Duration::ZERO),
    (Step::Reset, Duration::from_secs(2)),
    (Step::PowerCycle, Duration::from_secs(2)),
    (Step::PowerCycle, Duration::from_secs(10)),
    (Step::PowerCycle, Duration::from_secs(30)),
    (Step::Exit, Duration::ZERO),
];

/// Trouble after so long is a new one.
const HELD: Duration = Duration::from_secs(600);

/// Where we are.
#[derive(Debug, Default)]
pub struct Ladder {
    next: usize,
    last: Option<Instant>,
}

impl Ladder {
    /// Something is wrong: what to do, and how long to wait before.
    pub fn trouble(&mut self, now: Instant) -> (Step, Duration) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= HELD) {
            self.next = 0;
        }
        self.last = Some(now);
        let step = STEPS.get(self.next).copied().unwrap_or((Step::Exit, Duration::ZERO));
        self.next = (self.next + 1).min(STEPS.len() - 1);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_climbs_to_the_end_and_what_held_is_forgotten() {
        let (mut ladder, t0) = (Ladder::default(), Instant::now());
        let at = |seconds| t0 + Duration::from_secs(seconds);
        let climbed: Vec<Step> = (0..8).map(|n| ladder.trouble(at(n * 20)).0).collect();
        let expected = [
            Step::Reload,
            Step::Reset,
            Step::Reset,
            Step::PowerCycle,
            Step::PowerCycle,
            Step::PowerCycle,
            Step::Exit,
            Step::Exit,
        ];
        assert_eq!(climbed, expected);
        let mut ladder = Ladder::default();
        assert_eq!(ladder.trouble(at(0)).0, Step::Reload);
        assert_eq!(ladder.trouble(at(599)).0, Step::Reset);
        assert_eq!(ladder.trouble(at(1198)).0, Step::Reset);
        assert_eq!(ladder.trouble(at(1800)).0, Step::Reload);
    }
}
