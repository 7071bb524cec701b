//! Homes of visitors, as their join servers named them. In memory: losing it costs one question.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::message::ProfileAns;
use crate::clock::Instant;
use crate::lorawan::{DevEui, JoinEui, NetId};

/// A home is believed for so long (TS002 12.12).
const HOME: Duration = Duration::from_secs(3600);
/// A refusal is remembered for so long.
const REFUSAL: Duration = Duration::from_secs(60);
/// Devices remembered at most: a flood of strangers costs bounded memory.
const DEVICES: usize = 10_000;

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Its home network.
    Home(NetId),
    /// Somebody said no, and why.
    Refused(String),
}

#[derive(Debug)]
struct Entry {
    join_eui: Option<JoinEui>,
    known: Known,
    until: Instant,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Homes {
    devices: BTreeMap<DevEui, Entry>,
    /// What homes said of devices that we may serve.
    profiles: BTreeMap<(NetId, DevEui), (ProfileAns, Instant)>,
}

impl Homes {
    /// What is known and still good. A home belongs to the join server that named it.
    pub(super) fn known(&self, dev_eui: DevEui, join_eui: JoinEui, now: Instant) -> Option<Known> {
        let entry = self.devices.get(&dev_eui).filter(|entry| now < entry.until)?;
        entry.join_eui.is_none_or(|of| of == join_eui).then(|| entry.known.clone())
    }

    /// A join server named a home.
    pub(super) fn learn(&mut self, dev_eui: DevEui, join_eui: JoinEui, home: NetId, now: Instant) {
        self.insert(
            dev_eui,
            Entry { join_eui: Some(join_eui), known: Known::Home(home), until: now + HOME },
            now,
        );
    }

    /// Somebody refused the device.
    pub(super) fn refuse(&mut self, dev_eui: DevEui, why: String, now: Instant) {
        self.insert(dev_eui, Entry { join_eui: None, known: Known::Refused(why), until: now + REFUSAL }, now);
    }

    /// Devices remembered.
    pub(super) fn len(&self) -> usize {
        self.devices.len() + self.profiles.len()
    }

    /// What a home said how a device may roam here, if that is still good.
    pub(super) fn profile(&self, home: NetId, dev_eui: DevEui, now: Instant) -> Option<ProfileAns> {
        let (profile, until) = self.profiles.get(&(home, dev_eui))?;
        (now < *until).then(|| profile.clone())
    }

    /// A home said it.
    pub(super) fn learn_profile(&mut self, home: NetId, dev_eui: DevEui, profile: ProfileAns, now: Instant) {
        if self.profiles.len() >= DEVICES {
            self.profiles.retain(|_, (_, until)| now < *until);
        }
        if self.profiles.len() >= DEVICES {
            // whichever it is: it costs one question
            self.profiles.pop_first();
        }
        self.profiles.insert((home, dev_eui), (profile, now + HOME));
    }

    /// The home may have changed its mind.
    pub(super) fn forget_profile(&mut self, home: NetId, dev_eui: DevEui) {
        self.profiles.remove(&(home, dev_eui));
    }

    fn insert(&mut self, dev_eui: DevEui, entry: Entry, now: Instant) {
        if self.devices.len() >= DEVICES {
            self.devices.retain(|_, entry| now < entry.until);
        }
        while self.devices.len() >= DEVICES {
            let soonest =
                self.devices.iter().min_by_key(|(_, entry)| entry.until).map(|(dev_eui, _)| *dev_eui);
            let Some(soonest) = soonest else { break };
            self.devices.remove(&soonest);
        }
        self.devices.insert(dev_eui, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn homes_and_refusals_are_forgotten_in_time_and_bound_to_their_join_server() {
        let (mut homes, now) = (Homes::default(), Instant::now());
        let (dev, js, other) =
            (DevEui::from_msb([1; 8]), JoinEui::from_msb([2; 8]), JoinEui::from_msb([3; 8]));
        let home = NetId::from_msb([0, 0, 1]);
        homes.learn(dev, js, home, now);
        assert_eq!(homes.known(dev, js, now), Some(Known::Home(home)));
        assert_eq!(homes.known(dev, other, now), None);
        assert_eq!(homes.known(dev, js, now + HOME), None);
        homes.refuse(dev, "no".into(), now);
        assert_eq!(homes.known(dev, other, now), Some(Known::Refused("no".into())));
        assert_eq!(homes.known(dev, js, now + REFUSAL), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_strangers_takes_bounded_memory() {
        let (mut homes, now) = (Homes::default(), Instant::now());
        for n in 0..DEVICES as u64 + 50 {
            homes.refuse(DevEui::from_msb(n.to_be_bytes()), String::new(), now + Duration::from_millis(n));
        }
        assert_eq!(homes.devices.len(), DEVICES);
    }
}
