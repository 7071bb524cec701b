//! How much of the air a partner may have in a day (TS002 section 14): its downlinks for its visitors are paid from it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::door::StoreError;
use crate::backend::message::{Refusal, ResultCode, XmitAns};
use crate::jit;
use crate::lorawan::NetId;
use crate::lorawan::crypto::Direction;

use super::{Fns, lock};

/// Seconds of a day, UTC.
const DAY: u64 = 24 * 3600;

/// What was used today.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    day: u64,
    used: BTreeMap<NetId, Duration>,
}

impl Budgets {
    fn used(&mut self, net_id: NetId, unix: u64) -> &mut Duration {
        if self.day != unix / DAY {
            (self.day, self.used) = (unix / DAY, BTreeMap::new());
        }
        self.used.entry(net_id).or_default()
    }
}

impl Fns {
    /// Whether a network may still send today. The last frame may exceed what is agreed: nobody knows its window before.
    pub(super) fn may_send(&self, net_id: NetId) -> Result<(), Refusal> {
        let agreement = self.partners.agreement(net_id);
        let Some(agreed) = agreement.airtime.filter(|_| net_id != self.me) else { return Ok(()) };
        let unix = self.clock.unix();
        let agreed = Duration::from_secs(agreed.seconds().into());
        if *lock(&self.budgets).used(net_id, unix) < agreed {
            return Ok(());
        }
        let wait = Duration::from_secs(DAY - unix % DAY);
        let why = format!(
            "the airtime that NetID {net_id} may have in a day ({agreed:?}) is used: {}; possible in {} s",
            agreement.line,
            wait.as_secs()
        );
        Err(Refusal { retry_in: Some(wait), ..Refusal::new(ResultCode::XmitFailed, why) })
    }

    /// A frame of a network went out.
    pub(super) async fn note_airtime(&self, net_id: NetId, size: usize, sent: &XmitAns) {
        let agreed = self.partners.agreement(net_id).airtime.is_some();
        let Some(radiated) = sent.radiated.as_ref().filter(|_| agreed && net_id != self.me) else { return };
        let unix = self.clock.unix();
        let used = {
            let mut budgets = lock(&self.budgets);
            let used = budgets.used(net_id, unix);
            *used += jit::airtime(radiated.modulation, size, Direction::Down);
            *used
        };
        if let Err(error) = self.limits.use_airtime(unix / DAY, net_id, used).await {
            tracing::warn!(NetID = %net_id, "what it has used of the air is known until the next start only: {error}");
        }
    }

    /// Read what was used today before the start.
    pub(super) async fn recall_airtime(&self) -> Result<(), StoreError> {
        let unix = self.clock.unix();
        for (net_id, time) in self.limits.airtime(unix / DAY).await? {
            *lock(&self.budgets).used(net_id, unix) = time;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_own_day() {
        let (one, two) = (NetId::from_msb([0, 0, 1]), NetId::from_msb([0, 0, 2]));
        let mut budgets = Budgets::default();
        *budgets.used(one, 10 * DAY) += Duration::from_secs(3);
        *budgets.used(one, 11 * DAY - 1) += Duration::from_secs(1);
        assert_eq!(*budgets.used(one, 11 * DAY - 1), Duration::from_secs(4));
        assert_eq!(*budgets.used(two, 11 * DAY - 1), Duration::ZERO);
        assert_eq!(*budgets.used(one, 11 * DAY), Duration::ZERO);
    }
}
