//! Which of a session's last uplinks the application has already.
//!
//! Uplinks do not always come home in the order of their counters: one whose home failed waits in its forward row
//! while the next ones pass. So the last counter alone does not tell whether an uplink is new. This memory is lost with
//! the process; then one that cannot be told is delivered once more, never left out.

use crate::lorawan::{DevAddr, DevEui};

use std::collections::BTreeMap;

/// Counters below the newest that are remembered.
const BELOW: u32 = u64::BITS;

/// Of every device that was heard, the session that was heard last.
#[derive(Debug, Default)]
pub(super) struct Delivered(BTreeMap<DevEui, Recent>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recent {
    dev_addr: DevAddr,
    newest: u32,
    /// Bit n: the counter `newest - 1 - n`.
    below: u64,
}

impl Delivered {
    /// Whether this uplink was delivered. `last`: the highest counter on record at rest.
    pub(super) fn knows(&self, dev_eui: DevEui, dev_addr: DevAddr, last: Option<u32>, fcnt_up: u32) -> bool {
        let recent = self.0.get(&dev_eui).filter(|recent| recent.dev_addr == dev_addr);
        match recent {
            None => last == Some(fcnt_up),
            Some(recent) if fcnt_up == recent.newest => true,
            Some(recent) => {
                let below = recent.newest.checked_sub(fcnt_up).and_then(|far| far.checked_sub(1));
                below.is_some_and(|bit| bit < BELOW && recent.below >> bit & 1 == 1)
            }
        }
    }

    /// The device's counter begins anew.
    pub(super) fn forget(&mut self, dev_eui: DevEui) {
        self.0.remove(&dev_eui);
    }

    /// It was delivered.
    pub(super) fn note(&mut self, dev_eui: DevEui, dev_addr: DevAddr, last: Option<u32>, fcnt_up: u32) {
        let fresh = Recent { dev_addr, newest: last.unwrap_or(fcnt_up), below: 0 };
        let recent = self.0.entry(dev_eui).or_insert(fresh);
        if recent.dev_addr != dev_addr {
            *recent = fresh;
        }
        if let Some(ahead) = fcnt_up.checked_sub(recent.newest) {
            if ahead > 0 {
                let shifted = recent.below.checked_shl(ahead).unwrap_or(0);
                // what was the newest is now below
                recent.below = shifted | 1u64.checked_shl(ahead - 1).unwrap_or(0);
                recent.newest = fcnt_up;
            }
        } else if let Some(bit) = 1u64.checked_shl(recent.newest - fcnt_up - 1) {
            recent.below |= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: DevEui = DevEui::from_msb([1; 8]);
    const ADDR: DevAddr = DevAddr::new(1);

    #[test]
    fn an_uplink_that_was_overtaken_is_new_and_a_repetition_is_not() {
        let mut delivered = Delivered::default();
        for fcnt_up in [3, 5, 6, 80] {
            assert!(!delivered.knows(DEV, ADDR, None, fcnt_up));
            delivered.note(DEV, ADDR, None, fcnt_up);
            assert!(delivered.knows(DEV, ADDR, None, fcnt_up));
        }
        // too long ago to tell: rather twice than never
        assert!([3, 4, 5, 7, 79, 81].iter().all(|fcnt_up| !delivered.knows(DEV, ADDR, None, *fcnt_up)));
        delivered.note(DEV, ADDR, None, 79);
        delivered.note(DEV, ADDR, None, 16);
        assert!([16, 79, 80].iter().all(|fcnt_up| delivered.knows(DEV, ADDR, None, *fcnt_up)));
        delivered.note(DEV, ADDR, None, u32::MAX);
        assert!(!delivered.knows(DEV, ADDR, None, 80) && delivered.knows(DEV, ADDR, None, u32::MAX));
    }

    #[test]
    fn after_a_restart_the_last_one_on_record_is_known() {
        let mut delivered = Delivered::default();
        assert!(delivered.knows(DEV, ADDR, Some(9), 9));
        assert!(!delivered.knows(DEV, ADDR, Some(9), 8) && !delivered.knows(DEV, ADDR, Some(9), 10));
        delivered.note(DEV, ADDR, Some(9), 10);
        assert!(delivered.knows(DEV, ADDR, Some(10), 9) && !delivered.knows(DEV, ADDR, Some(10), 8));
    }

    #[test]
    fn another_session_begins_anew() {
        let (mut delivered, other) = (Delivered::default(), DevAddr::new(2));
        delivered.note(DEV, ADDR, None, 7);
        delivered.note(DEV, other, None, 7);
        assert!(delivered.knows(DEV, other, None, 7) && !delivered.knows(DEV, other, None, 6));
        assert!(delivered.knows(DEV, ADDR, Some(7), 7));
    }
}
