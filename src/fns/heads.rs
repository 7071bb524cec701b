//! Which head carries a downlink? Pure; what it remembers may be lost.
//!
//! The best of those that heard the uplink: online, answering, then by SNR and RSSI. Tells each trouble
//! with a head once.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::lorawan::GatewayEui;

use super::dedup::Ear;

/// So long a head that did not acknowledge a frame comes after the others.
const DOUBT: Duration = Duration::from_secs(60);
/// Heads in trouble on record.
const HEADS: usize = 256;

/// Heads in trouble.
#[derive(Debug, Default)]
pub struct Heads(BTreeMap<GatewayEui, Trouble>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It heard a frame and was gone before the answer.
    Offline,
    /// It did not acknowledge a frame.
    Silent(Instant),
}

impl Heads {
    /// Those that can transmit, best first. `own`: the head that the token names, first among equals.
    pub fn best_first(
        &mut self,
        mut ears: Vec<Ear>,
        own: GatewayEui,
        online: impl Fn(GatewayEui) -> bool,
        now: Instant,
    ) -> Vec<Ear> {
        ears.retain(|ear| {
            let online = online(ear.gateway);
            if !online {
                self.note_offline(ear.gateway);
            } else if self.0.get(&ear.gateway) == Some(&Trouble::Offline) {
                self.0.remove(&ear.gateway);
            }
            online
        });
        ears.sort_by(|a, b| {
            let rank = |ear: &Ear| (self.is_silent(ear.gateway, now), ear.gateway != own);
            let ((a_silent, a_other), (b_silent, b_other)) = (rank(a), rank(b));
            let louder = b.snr.partial_cmp(&a.snr).unwrap_or(Ordering::Equal).then(b.rssi.cmp(&a.rssi));
            a_silent.cmp(&b_silent).then(louder).then(a_other.cmp(&b_other))
        });
        ears
    }

    /// It is gone.
    pub fn note_offline(&mut self, gateway: GatewayEui) {
        if self.note(gateway, Trouble::Offline) != Some(Trouble::Offline) {
            tracing::warn!(%gateway, "radio head went offline after it heard a frame: others carry its downlinks");
        }
    }

    /// It gave no acknowledgement.
    pub fn note_silent(&mut self, gateway: GatewayEui, now: Instant) {
        if !matches!(self.note(gateway, Trouble::Silent(now)), Some(Trouble::Silent(_))) {
            tracing::warn!(%gateway, "radio head gave no TX_ACK: others carry its downlinks while they can");
        }
    }

    /// It took a frame.
    pub fn note_sent(&mut self, gateway: GatewayEui) {
        if self.0.remove(&gateway).is_some() {
            tracing::info!(%gateway, "radio head carries downlinks again");
        }
    }

    fn note(&mut self, gateway: GatewayEui, trouble: Trouble) -> Option<Trouble> {
        if self.0.len() >= HEADS && !self.0.contains_key(&gateway) {
            self.0.pop_first();
        }
        self.0.insert(gateway, trouble)
    }

    fn is_silent(&self, gateway: GatewayEui, now: Instant) -> bool {
        let since = match self.0.get(&gateway) {
            Some(Trouble::Silent(since)) => *since,
            _ => return false,
        };
        now.saturating_duration_since(since) < DOUBT
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::heard;
    use super::*;

    fn ear(n: u8, snr: f64, rssi: i32) -> Ear {
        let mut heard = heard(GatewayEui::from_msb([n; 8]), 0, b"");
        (heard.snr, heard.rssi) = (snr, rssi);
        Ear::from(&heard)
    }

    fn order(heads: &mut Heads, ears: &[Ear], offline: u8, now: Instant) -> Vec<u8> {
        let online = |gateway: GatewayEui| gateway.to_msb()[0] != offline;
        let best = heads.best_first(ears.to_vec(), GatewayEui::from_msb([2; 8]), online, now);
        best.iter().map(|ear| ear.gateway.to_msb()[0]).collect()
    }

    #[test]
    fn the_best_snr_then_rssi_then_the_one_that_heard_first_carries() {
        let (mut heads, now) = (Heads::default(), Instant::now());
        let ears =
            [ear(1, 7.0, -80), ear(2, 7.0, -80), ear(3, 7.0, -70), ear(4, 9.5, -99), ear(5, f64::NAN, 0)];
        assert_eq!(order(&mut heads, &ears[..4], 0, now), [4, 3, 2, 1]);
        assert_eq!(order(&mut heads, &ears[..4], 4, now), [3, 2, 1]);
        assert_eq!(order(&mut heads, &ears, 0, now).len(), 5, "an SNR that is no number is no panic");
        assert_eq!(order(&mut heads, &ears[..1], 1, now), [0_u8; 0]);
    }

    #[test]
    fn a_head_that_kept_silent_comes_last_until_it_takes_a_frame_or_a_minute_has_passed() {
        let (mut heads, now) = (Heads::default(), Instant::now());
        let ears = [ear(1, 9.0, -80), ear(2, 1.0, -80)];
        let best = GatewayEui::from_msb([1; 8]);
        heads.note_silent(best, now);
        assert_eq!(order(&mut heads, &ears, 0, now), [2, 1]);
        assert_eq!(order(&mut heads, &ears[..1], 0, now), [1], "alone it is asked all the same");
        assert_eq!(order(&mut heads, &ears, 0, now + DOUBT), [1, 2]);
        heads.note_silent(best, now + DOUBT);
        heads.note_sent(best);
        assert_eq!(order(&mut heads, &ears, 0, now + DOUBT), [1, 2]);
    }

    #[test]
    fn troubles_on_record_are_bounded() {
        let (mut heads, now) = (Heads::default(), Instant::now());
        for n in 0..1000_u64 {
            heads.note_silent(GatewayEui::from_msb(n.to_be_bytes()), now);
        }
        assert_eq!(heads.0.len(), HEADS);
    }
}
