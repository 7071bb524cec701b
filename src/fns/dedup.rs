//! Is this hearing the first of its frame? Pure; lives in memory, where it may be lost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::lorawan::GatewayEui;

use super::{Count, Heard};

/// Copies and repetitions of one frame arrive within this time.
const WINDOW: Duration = Duration::from_secs(2);
/// Two modems of one head may report one frame; a device cannot repeat a frame this fast.
const SAME_HEARING: Duration = Duration::from_millis(20);
/// Frames remembered at most; the oldest go first, which costs a second look at a copy.
const FRAMES: usize = 4096;

/// What a hearing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The first hearing of these bytes.
    First,
    /// The same transmission, heard by another head or by another modem.
    Copy,
    /// The device sent the same bytes again: it wants an answer of its own.
    Repetition,
}

/// Frames heard lately.
#[derive(Debug, Default)]
pub struct Dedup {
    frames: BTreeMap<Vec<u8>, Entry>,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    heads: BTreeMap<GatewayEui, Count>,
}

impl Dedup {
    /// Take note of a hearing and say what it is.
    pub fn first(&mut self, heard: &Heard, now: Instant) -> Seen {
        self.forget(now);
        let Some(entry) = self.frames.get_mut(&heard.phy) else {
            let heads = BTreeMap::from([(heard.gateway, heard.tmst)]);
            self.frames.insert(heard.phy.clone(), Entry { at: now, heads });
            return Seen::First;
        };
        match entry.heads.insert(heard.gateway, heard.tmst) {
            Some(before) if heard.tmst.since(before) > SAME_HEARING => {
                entry.at = now;
                entry.heads.retain(|head, _| *head == heard.gateway);
                Seen::Repetition
            }
            _ => Seen::Copy,
        }
    }

    fn forget(&mut self, now: Instant) {
        if self.frames.values().any(|entry| now.duration_since(entry.at) >= WINDOW) {
            self.frames.retain(|_, entry| now.duration_since(entry.at) < WINDOW);
        }
        while self.frames.len() >= FRAMES {
            let oldest = self.frames.iter().min_by_key(|(_, entry)| entry.at).map(|(phy, _)| phy.clone());
            let Some(oldest) = oldest else { break };
            self.frames.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::heard;
    use super::*;

    const GW1: GatewayEui = GatewayEui::from_msb([1; 8]);
    const GW2: GatewayEui = GatewayEui::from_msb([2; 8]);

    #[tokio::test(start_paused = true)]
    async fn a_frame_heard_by_two_heads_is_one_frame() {
        let (mut dedup, now) = (Dedup::default(), Instant::now());
        assert_eq!(dedup.first(&heard(GW1, 1000, b"frame"), now), Seen::First);
        assert_eq!(dedup.first(&heard(GW2, 77, b"frame"), now + Duration::from_millis(80)), Seen::Copy);
        assert_eq!(dedup.first(&heard(GW1, 1000, b"other"), now), Seen::First);
    }

    #[tokio::test(start_paused = true)]
    async fn one_head_may_report_a_frame_twice_but_a_later_count_is_a_repetition() {
        let (mut dedup, now) = (Dedup::default(), Instant::now());
        let wrapped = u32::MAX - 10;
        assert_eq!(dedup.first(&heard(GW1, wrapped, b"frame"), now), Seen::First);
        assert_eq!(dedup.first(&heard(GW1, wrapped + 5, b"frame"), now), Seen::Copy);
        let later = wrapped.wrapping_add(1_500_000);
        assert_eq!(
            dedup.first(&heard(GW1, later, b"frame"), now + Duration::from_millis(1500)),
            Seen::Repetition
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_window_the_same_bytes_are_a_new_frame() {
        let (mut dedup, now) = (Dedup::default(), Instant::now());
        assert_eq!(dedup.first(&heard(GW1, 0, b"frame"), now), Seen::First);
        assert_eq!(dedup.first(&heard(GW2, 0, b"frame"), now + WINDOW), Seen::First);
    }
}
