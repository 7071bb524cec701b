//! Networks that refused a device a moment ago are not asked again at once (TS002 12.5 step 8, 13).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::door::PeerError;
use crate::backend::message::ResultCode;
use crate::clock::Instant;
use crate::lorawan::{DevAddr, NetId};

/// A refusal without a Lifetime holds for so long.
const DEFAULT: Duration = Duration::from_secs(30);
/// The longest hold-off that anybody may impose on us.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Entries at most.
const ENTRIES: usize = 10_000;

/// Hold-offs by network and device.
#[derive(Debug, Default)]
pub(super) struct HoldOffs(BTreeMap<(NetId, DevAddr), Instant>);

impl HoldOffs {
    /// Whether this network is not to be asked about this device now.
    pub(super) fn contains(&self, net_id: NetId, addr: DevAddr, now: Instant) -> bool {
        self.0.get(&(net_id, addr)).is_some_and(|until| now < *until)
    }

    /// A network said no. A lost message is no refusal.
    pub(super) fn note(&mut self, net_id: NetId, addr: DevAddr, error: &PeerError, now: Instant) {
        let PeerError::Refused { refusal, .. } = error else { return };
        let time = match (refusal.code, refusal.lifetime) {
            (ResultCode::Deferred, Some(0)) => return,
            (_, Some(lifetime)) => Duration::from_secs(lifetime.into()).min(LONGEST),
            (_, None) => DEFAULT,
        };
        if self.0.len() >= ENTRIES {
            self.0.retain(|_, until| now < *until);
        }
        if self.0.len() < ENTRIES {
            self.0.insert((net_id, addr), now + time);
        }
    }
}
