//! How each peer wants to be spoken to (TS002 17, 18): the version of requests of ours, NSIDs, and what it writes differently.
//!
//! What an operator sets stands. Else our requests are of 1.1 where this node has an NSID, and of 1.0 for a day where a peer
//! did not understand that. In memory: after a restart a peer that speaks 1.0 only says so once more.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::wire::{Dialect, Header, Version};
use super::message::{Party, Refusal, ResultCode};
use crate::clock::Instant;
use crate::lorawan::{JoinEuiRange, NetId, NsId};

/// So long a peer that does not understand 1.1 is asked in 1.0.
const FALLBACK: Duration = Duration::from_secs(24 * 3600);
/// Peers remembered.
const MOST: usize = 4096;

/// What is set for one network.
#[derive(Debug, Clone, Copy, Default)]
pub struct Set {
    /// The version of our requests; `None`: what turns out.
    pub version: Option<Version>,
    /// How they are written.
    pub dialect: Dialect,
}

/// Manners towards everybody.
#[derive(Debug, Default)]
pub struct Manners {
    own: Option<NsId>,
    set: BTreeMap<NetId, Set>,
    join_servers: Vec<(Vec<JoinEuiRange>, Set)>,
    known: Mutex<BTreeMap<Party, Known>>,
}

/// What turned out about a peer.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    nsid: Option<NsId>,
    /// It has answered a request of 1.1.
    understood: bool,
    fallback: Option<Instant>,
}

impl Manners {
    /// `own`: our NSID, without which nothing of ours is of 1.1. `join_servers`: by the JoinEUIs that each answers for.
    pub fn new(
        own: Option<NsId>,
        set: BTreeMap<NetId, Set>,
        join_servers: Vec<(Vec<JoinEuiRange>, Set)>,
    ) -> Manners {
        Manners { own, set, join_servers, known: Mutex::default() }
    }

    /// The header of a request.
    pub fn header(&self, sender: Party, receiver: Party, transaction: u32, now: Instant) -> Header {
        let set = self.set_for(&receiver);
        let known = self.known().get(&receiver).copied().unwrap_or_default();
        let fallen = known.fallback.is_some_and(|until| now < until);
        let version = match (self.own, set.version) {
            (None, _) => Version::V1_0,
            (Some(_), Some(version)) => version,
            (Some(_), None) if fallen => Version::V1_0,
            (Some(_), None) => Version::V1_1,
        };
        let header = Header { dialect: set.dialect, ..Header::new(sender, receiver, transaction) };
        match version {
            Version::V1_0 => header,
            Version::V1_1 => Header { version, sender_nsid: self.own, receiver_nsid: known.nsid, ..header },
        }
    }

    /// How answers to a peer are written.
    pub fn dialect(&self, peer: &Party) -> Dialect {
        self.set_for(peer).dialect
    }

    /// Whether a request is to be put once more, in 1.0: the peer did not understand 1.1. `None`: what it said was no answer.
    pub fn falls_back(&self, asked: &Header, said: Option<&Refusal>, now: Instant) -> bool {
        if asked.version == Version::V1_0 || self.set_for(&asked.receiver).version.is_some() {
            return false;
        }
        let first = !self.known().get(&asked.receiver).is_some_and(|known| known.understood);
        let not_understood = match said {
            Some(refusal) => match refusal.code {
                ResultCode::InvalidProtocolVersion => true,
                ResultCode::MalformedRequest => first,
                _ => false,
            },
            None => first,
        };
        if not_understood {
            self.change(&asked.receiver, |known| known.fallback = Some(now + FALLBACK));
        } else if said.is_some() {
            self.understood(asked);
        }
        not_understood
    }

    /// A request was answered.
    pub fn understood(&self, asked: &Header) {
        if asked.version == Version::V1_1 {
            self.change(&asked.receiver, |known| known.understood = true);
        }
    }

    /// A peer said its NSID, or a join server that of a home.
    pub fn learn(&self, peer: &Party, nsid: Option<NsId>) {
        if nsid.is_some() && self.own.is_some() {
            self.change(peer, |known| known.nsid = nsid);
        }
    }

    fn set_for(&self, peer: &Party) -> Set {
        let set = match peer {
            Party::Ns(net_id) => self.set.get(net_id),
            Party::Js(join_eui) => {
                let answers =
                    |of: &&(Vec<JoinEuiRange>, Set)| of.0.iter().any(|range| range.contains(*join_eui));
                self.join_servers.iter().find(answers).map(|(_, set)| set)
            }
            Party::As(_) => None,
        };
        set.copied().unwrap_or_default()
    }

    fn change(&self, peer: &Party, how: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        if known.len() >= MOST && !known.contains_key(peer) {
            // whoever it is: it turns out again
            known.pop_first();
        }
        how(known.entry(peer.clone()).or_default());
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Party, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: NsId = NsId::from_msb([1; 8]);

    fn ns(number: u32) -> Party {
        Party::Ns(NetId::new(number).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_understand_1_1_is_asked_in_1_0_for_a_day() {
        let (manners, now) = (Manners::new(Some(OWN), BTreeMap::new(), Vec::new()), Instant::now());
        let header = |to, now| manners.header(ns(1), ns(to), 7, now);
        let asked = header(2, now);
        assert_eq!((asked.version, asked.sender_nsid), (Version::V1_1, Some(OWN)));
        let refusal = |code| Refusal::new(code, "no");
        assert!(!manners.falls_back(&asked, Some(&refusal(ResultCode::UnknownDevEui)), now));
        assert!(
            !manners.falls_back(&asked, Some(&refusal(ResultCode::MalformedRequest)), now),
            "not its first"
        );
        assert!(!manners.falls_back(&asked, None, now));
        assert!(manners.falls_back(&asked, Some(&refusal(ResultCode::InvalidProtocolVersion)), now));
        assert_eq!(header(2, now).version, Version::V1_0);
        assert_eq!(header(2, now + FALLBACK).version, Version::V1_1);
        for (to, said) in [(3, Some(refusal(ResultCode::MalformedRequest))), (4, None)] {
            assert!(manners.falls_back(&header(to, now), said.as_ref(), now), "the very first request");
            let again = header(to, now);
            assert_eq!((again.version, again.sender_nsid), (Version::V1_0, None));
            assert!(!manners.falls_back(&again, said.as_ref(), now), "it was of 1.0");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_set_stands_and_without_an_nsid_everything_is_of_1_0() {
        let now = Instant::now();
        let set = |version| Set { version: Some(version), ..Set::default() };
        let all = BTreeMap::from([
            (NetId::new(2).unwrap(), set(Version::V1_0)),
            (NetId::new(3).unwrap(), set(Version::V1_1)),
        ]);
        let reversed = Dialect { reversed_cf_list: true, ..Dialect::default() };
        let range: JoinEuiRange = "70B3D57ED0000000/40".parse().unwrap();
        let join_server = (vec![range], Set { version: Some(Version::V1_0), dialect: reversed });
        let manners = Manners::new(Some(OWN), all.clone(), vec![join_server]);
        for (join_eui, asked) in [
            ("70B3D57ED0000007", (Version::V1_0, reversed)),
            ("70B3D57EE0000007", (Version::V1_1, Dialect::default())),
        ] {
            let header = manners.header(ns(1), Party::Js(join_eui.parse().unwrap()), 7, now);
            assert_eq!((header.version, header.dialect), asked, "{join_eui}");
        }
        assert_eq!(manners.header(ns(1), ns(2), 7, now).version, Version::V1_0);
        let asked = manners.header(ns(1), ns(3), 7, now);
        let refusal = Refusal::new(ResultCode::InvalidProtocolVersion, "no");
        assert!(asked.version == Version::V1_1 && !manners.falls_back(&asked, Some(&refusal), now));
        manners.learn(&ns(3), Some(NsId::from_msb([9; 8])));
        assert_eq!(manners.header(ns(1), ns(3), 7, now).receiver_nsid, Some(NsId::from_msb([9; 8])));
        assert_eq!(Manners::new(None, all, Vec::new()).header(ns(1), ns(3), 7, now).version, Version::V1_0);
    }

    #[test]
    fn a_flood_of_peers_takes_bounded_memory() {
        let manners = Manners::new(Some(OWN), BTreeMap::new(), Vec::new());
        (0..MOST as u32 + 10).for_each(|number| manners.learn(&ns(number), Some(NsId::from_msb([2; 8]))));
        assert_eq!(manners.known().len(), MOST);
    }
}
