//! What the server bears from one peer or one address, and how often it says so. Called by `server` only.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;

use crate::backend::Limits;
use crate::backend::message::{Refusal, ResultCode};
use crate::clock::Clock;
use crate::limits::{Buckets, Rate, Seldom, Wait, household};

/// New connections of one address: whoever has no certificate gets no further than here.
/// At once as many as there is room for, because two hundred joins of one partner may want them.
const HANDSHAKES_OF_ONE: Rate = Rate { burst: 512, every: std::time::Duration::from_millis(30) };
/// Addresses and peers remembered.
const REMEMBERED: usize = 4096;
/// Connections of one peer at the same time; the rest of the house stays open for others.
const CONNECTIONS_OF_ONE: u32 = 448;

/// Buckets and counts of everybody who came lately.
pub(super) struct Patience {
    clock: Clock,
    limits: Limits,
    handshakes: Mutex<Buckets<IpAddr>>,
    partners: Mutex<Buckets<String>>,
    strangers: Mutex<Buckets<String>>,
    connected: Arc<Mutex<BTreeMap<String, u32>>>,
    seldom: Mutex<Seldom>,
}

impl Patience {
    pub(super) fn new(limits: Limits, clock: Clock) -> Patience {
        let buckets = |number| Mutex::new(Buckets::new(Rate::per_second(number), REMEMBERED));
        Patience {
            handshakes: Mutex::new(Buckets::new(HANDSHAKES_OF_ONE, REMEMBERED)),
            partners: buckets(limits.partner.get()),
            strangers: buckets(limits.stranger.get()),
            connected: Arc::default(),
            seldom: Mutex::default(),
            limits,
            clock,
        }
    }

    /// May this address begin a handshake?
    pub(super) fn handshake(&self, from: IpAddr) -> Result<(), Wait> {
        lock(&self.handshakes).take(household(from), self.clock.now())
    }

    /// One more connection of a peer; `None`: it has as many as it may.
    pub(super) fn connection(&self, peer: &str) -> Option<Connection> {
        let mut connected = lock(&self.connected);
        let count = connected.entry(peer.to_owned()).or_default();
        if *count >= CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        drop(connected);
        Some(Connection { connected: self.connected.clone(), peer: peer.to_owned() })
    }

    /// May this peer ask once more now? A refusal says when it may.
    pub(super) fn request(&self, peer: &str, listed: bool) -> Result<(), (Refusal, Wait)> {
        let now = self.clock.now();
        let (taken, most, whom) = if listed {
            (lock(&self.partners).take(peer.to_owned(), now), self.limits.partner, "a listed partner")
        } else {
            let whom = "a network that no [[roaming.partner]] lists";
            (lock(&self.strangers).take(peer.to_owned(), now), self.limits.stranger, whom)
        };
        taken.map_err(|wait| {
            let time = SignedDuration::try_from(wait.0).unwrap_or(SignedDuration::MAX);
            let until = self.clock.wall().saturating_add(time).unwrap_or(self.clock.wall());
            let why = format!("more than {most} requests a second of {whom}: {wait}, at {until:.3}");
            (Refusal::new(ResultCode::Other, why), wait)
        })
    }

    /// Whether to log this now, and how often it was left out.
    pub(super) fn tell(&self, who: &str, cause: &str) -> Option<u64> {
        lock(&self.seldom).tell(who, cause, self.clock.now())
    }
}

/// A peer's connection; not counted any more when it is dropped.
pub(super) struct Connection {
    connected: Arc<Mutex<BTreeMap<String, u32>>>,
    peer: String,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut connected = lock(&self.connected);
        if let Some(count) = connected.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                connected.remove(&self.peer);
            }
        }
    }
}

/// What the operator can do about a refusal.
pub(super) fn remedy(code: ResultCode) -> &'static str {
    match code {
        ResultCode::UnknownSender => {
            "its operator renews or corrects the certificate; a hub or another name is listed in [[roaming.partner]]"
        }
        ResultCode::UnknownReceiver => {
            "if it should be here, see [network] net_ids and [join_server] join_euis; else its DNS or configuration is wrong"
        }
        ResultCode::InvalidProtocolVersion => "its operator configures TS002 1.0 or 1.1 for us",
        ResultCode::MalformedRequest | ResultCode::FrameSizeError => {
            "tell its operator, with the TransactionID: the message is at fault"
        }
        ResultCode::NoRoamingAgreement
        | ResultCode::DevRoamingDisallowed
        | ResultCode::RoamingActDisallowed
        | ResultCode::ActivationDisallowed => {
            "admit it in [[roaming.partner]] or [roaming.default], if you want it"
        }
        ResultCode::XmitFailed | ResultCode::InvalidFPort => {
            "its network keeps to the region, the windows and the token of the uplink that it answers"
        }
        ResultCode::UnknownDevEui | ResultCode::UnknownDevAddr => {
            "`roamgate device add`, if the device is yours"
        }
        ResultCode::JoinReqFailed => {
            "`roamgate device set DEVEUI --forget-nonces`, if the device lost its state; else look for somebody who replays frames"
        }
        ResultCode::MicFailed | ResultCode::FrameReplayed => {
            "nothing, if it is rare; else compare the device's keys or look for somebody who replays frames"
        }
        ResultCode::Other => "it tries again later; raise [backend] limits if it is right to ask so often",
        _ => "none is needed",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_its_own_rate_a_stranger_another_and_an_address_a_third() {
        let clock = Clock::following("2026-11-20T10:00:00Z".parse().unwrap());
        let number = |number| std::num::NonZeroU32::new(number).unwrap();
        let patience = Patience::new(Limits { partner: number(10), stranger: number(1) }, clock.clone());
        let ask = |who: &str, listed| (0..100).filter(|_| patience.request(who, listed).is_ok()).count();
        assert_eq!((ask("a", true), ask("b", true), ask("c", false)), (30, 30, 3));
        let (refusal, wait) = patience.request("c", false).unwrap_err();
        assert_eq!(wait.0.as_secs(), 1);
        assert_eq!(
            refusal.to_string(),
            "Other (more than 1 requests a second of a network that no [[roaming.partner]] lists: \
             too often, try again in 1.00 s, at 2026-11-20T10:00:01.000Z)"
        );
        clock.sleep(wait.0).await;
        assert_eq!((ask("c", false), ask("a", true)), (1, 10));
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.7".parse().unwrap(), "192.0.2.8".parse().unwrap());
        assert_eq!((0..1000).filter(|_| patience.handshake(one).is_ok()).count(), 512);
        assert!(patience.handshake(other).is_ok());
    }

    #[test]
    fn one_peer_does_not_take_every_place() {
        let number = std::num::NonZeroU32::MIN;
        let patience = Patience::new(Limits { partner: number, stranger: number }, Clock::system());
        let held: Vec<_> = (0..500).filter_map(|_| patience.connection("a")).collect();
        assert_eq!(held.len(), CONNECTIONS_OF_ONE as usize);
        assert!(patience.connection("b").is_some());
        drop(held);
        assert!(patience.connection("a").is_some());
        assert!(lock(&patience.connected).is_empty());
    }
}
