//! The server's side of the protocol, without a socket: which heads there are, where they are
//! reached, what waits for a TX_ACK.
//!
//! A datagram is first admitted, which makes its acknowledgement, and handled when that is out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::oneshot;

use super::allow::Allow;
use super::codec::{self, Datagram, Kind, Push};
use crate::clock::Instant;
use crate::fns::{AirError, Heard, Sent, Tx};
use crate::limits::Seldom;
use crate::lorawan::GatewayEui;
use crate::radio::HeadStatus;
use crate::radio::timeline::Timeline;

/// Heads on record where EUIs are not listed.
const HEADS: usize = 256;
/// Frames of one head that may wait for a TX_ACK: a forwarder's queue has 32 places.
const PENDING: usize = 32;

/// What a head answered to a PULL_RESP.
pub type Answer = Result<Sent, AirError>;

/// Everything that is known of this radio's heads.
pub struct Protocol {
    allow: Allow,
    offline_after: Duration,
    heads: BTreeMap<GatewayEui, Head>,
    rng: StdRng,
    stats: Stats,
    seldom: Seldom,
}

/// Counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Datagrams received.
    pub datagrams: u64,
    /// Dropped: not of this protocol, or JSON that is none.
    pub malformed: u64,
    /// Dropped: gateways that are not allowed, or too many.
    pub strangers: u64,
    /// Frames passed on.
    pub heard: u64,
    /// Frames dropped: bad CRC.
    pub bad_crc: u64,
    /// Frames dropped: not one of LoRaWAN, or a key is missing.
    pub unreadable: u64,
    /// Frames dropped: the house was too slow to take them.
    pub overrun: u64,
    /// TX_ACKs that nobody waits for (any more).
    pub stray_acks: u64,
    /// PULL_RESPs without a TX_ACK in time.
    pub silent: u64,
    /// Counters of heads that were reset.
    pub restarts: u64,
}

impl Stats {
    /// With their names.
    pub fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("datagrams", self.datagrams),
            ("malformed", self.malformed),
            ("strangers", self.strangers),
            ("heard", self.heard),
            ("bad_crc", self.bad_crc),
            ("unreadable", self.unreadable),
            ("overrun", self.overrun),
            ("stray_acks", self.stray_acks),
            ("silent", self.silent),
            ("restarts", self.restarts),
        ]
    }
}

#[derive(Default)]
struct Head {
    /// Protocol version of its last PULL_DATA, and where that came from.
    pulled: Option<(u8, SocketAddr, Instant)>,
    seen: Option<(Instant, Timestamp)>,
    /// Whether people were last told that it is there.
    online: bool,
    /// Its radio session and that session's counter.
    session: Option<(u64, Timeline)>,
    pending: BTreeMap<[u8; 2], (Instant, oneshot::Sender<Answer>)>,
    location: Option<(f64, f64)>,
    rx_ok: u64,
    rx_bad: u64,
    tx_ok: u64,
    tx_failed: u64,
    rtt: Option<Duration>,
}

/// A PULL_RESP on its way.
#[derive(Debug)]
pub struct Outgoing {
    /// The datagram.
    pub bytes: Vec<u8>,
    /// Where to.
    pub to: SocketAddr,
    /// Names it, with the gateway.
    pub token: [u8; 2],
    /// What came of it.
    pub answer: oneshot::Receiver<Answer>,
}

impl Protocol {
    /// Listed heads are known from the start, and offline.
    pub fn new(allow: Allow, offline_after: Duration, rng: StdRng) -> Protocol {
        let heads = allow.listed().map(|gateway| (gateway, Head::default())).collect();
        let stats = Stats::default();
        Protocol { allow, offline_after, heads, rng, stats, seldom: Seldom::default() }
    }

    /// Look at the header of a datagram. `None`: dropped and counted; else it wants
    /// [`Datagram::ack`] sent back to `from` and then to be [handled](Protocol::handle).
    pub fn admit<'a>(
        &mut self,
        bytes: &'a [u8],
        from: SocketAddr,
        now: Instant,
        wall: Timestamp,
    ) -> Option<Datagram<'a>> {
        self.stats.datagrams += 1;
        let datagram = match Datagram::parse(bytes) {
            Ok(datagram) => datagram,
            Err(error) => {
                self.stats.malformed += 1;
                if let Some(left_out) = self.seldom.tell(&from.ip().to_string(), &error.to_string(), now) {
                    let remedy =
                        "a packet forwarder of protocol version 1 or 2 sends to this port, and nobody else";
                    tracing::warn!(%from, %error, remedy, left_out, "datagram dropped");
                }
                return None;
            }
        };
        let gateway = datagram.gateway;
        let allowed = self.allow.admits(gateway, from.ip());
        if let Err(why) = allowed.and_then(|()| self.make_room(gateway, now)) {
            self.stats.strangers += 1;
            if let Some(left_out) = self.seldom.tell(&from.ip().to_string(), why, now) {
                let strangers = self.stats.strangers;
                let remedy = "list it in [[radio]] `gateways` or `allow_from`, if it is yours";
                tracing::warn!(%gateway, %from, strangers, remedy, left_out, "gateway refused: {why}");
            }
            return None;
        }
        let head = self.heads.entry(gateway).or_default();
        head.seen = Some((now, wall));
        if datagram.kind == Kind::PullData {
            let before = head.pulled.replace((datagram.version, from, now));
            if !head.online {
                head.online = true;
                tracing::info!(%gateway, %from, "radio head online");
            } else if before.is_some_and(|(_, before, _)| before != from) {
                tracing::debug!(%gateway, %from, "radio head has another address");
            }
        }
        Some(datagram)
    }

    fn make_room(&mut self, gateway: GatewayEui, now: Instant) -> Result<(), &'static str> {
        if self.heads.contains_key(&gateway) || self.heads.len() < HEADS {
            return Ok(());
        }
        let idle = self.heads.iter().filter(|(_, head)| !head.is_online(self.offline_after, now));
        let oldest = idle.min_by_key(|(_, head)| head.seen.map(|(at, _)| at)).map(|(gateway, _)| *gateway);
        let oldest = oldest.ok_or("too many gateways are online")?;
        self.heads.remove(&oldest);
        Ok(())
    }

    /// Take what an admitted datagram brings: TX_ACKs go to who waits, frames are returned.
    pub fn handle(&mut self, datagram: &Datagram<'_>, now: Instant, wall: Timestamp) -> Vec<Heard> {
        let Some(head) = self.heads.get_mut(&datagram.gateway) else { return Vec::new() };
        let outcome = match datagram.kind {
            Kind::PullData => Ok(Vec::new()),
            Kind::TxAck => codec::tx_ack(datagram.body).map(|answer| {
                if !head.acked(datagram.token, answer, now) {
                    self.stats.stray_acks += 1;
                }
                Vec::new()
            }),
            Kind::PushData => Push::parse(datagram.body).map(|push| {
                self.stats.bad_crc += push.bad_crc;
                self.stats.unreadable += push.unreadable;
                head.rx_bad += push.bad_crc + push.unreadable;
                head.rx_ok += push.frames.len() as u64;
                head.location = push.location.or(head.location);
                let heard = push.frames.into_iter().map(|frame| {
                    let (session, at) =
                        head.place(&frame, datagram.gateway, now, &mut self.rng, &mut self.stats);
                    Heard {
                        phy: frame.phy,
                        gateway: datagram.gateway,
                        session,
                        frequency: frame.frequency,
                        modulation: frame.modulation,
                        rssi: frame.rssi,
                        snr: frame.snr,
                        tmst: frame.tmst,
                        at,
                        time: wall,
                        location: head.location,
                        fine_time: frame.fine_time,
                    }
                });
                heard.collect()
            }),
        };
        outcome.unwrap_or_else(|error| {
            self.stats.malformed += 1;
            // by cause alone: whoever is let in can make up EUIs
            if let Some(left_out) = self.seldom.tell("", &error.to_string(), now) {
                let remedy = "look at the version of its packet forwarder";
                tracing::warn!(gateway = %datagram.gateway, %error, remedy, left_out, "datagram dropped");
            }
            Vec::new()
        })
    }

    /// Make a PULL_RESP, if its head can take it.
    pub fn send(&mut self, tx: &Tx, now: Instant) -> Result<Outgoing, AirError> {
        let gone = AirError::Gone(tx.gateway);
        let head = self.heads.get_mut(&tx.gateway).ok_or(gone.clone())?;
        let (version, to, _) = head.pulled.ok_or(gone.clone())?;
        let another = tx.at.is_some() && head.session.is_none_or(|(id, _)| id != tx.session);
        if !head.is_online(self.offline_after, now) || another {
            return Err(gone);
        }
        if head.pending.len() >= PENDING {
            head.tx_failed += 1;
            return Err(AirError::CollisionPacket);
        }
        let mut token = u16::from_be_bytes(random(&mut self.rng));
        while head.pending.contains_key(&token.to_be_bytes()) {
            token = token.wrapping_add(1);
        }
        let token = token.to_be_bytes();
        let (waiting, answer) = oneshot::channel();
        head.pending.insert(token, (now, waiting));
        Ok(Outgoing { bytes: codec::pull_resp(version, token, tx), to, token, answer })
    }

    /// Nobody waits for this TX_ACK any more.
    pub fn give_up(&mut self, gateway: GatewayEui, token: [u8; 2]) {
        let head = self.heads.get_mut(&gateway);
        if let Some(head) = head.filter(|head| head.pending.contains_key(&token)) {
            head.pending.remove(&token);
            head.tx_failed += 1;
            self.stats.silent += 1;
        }
    }

    /// Whether the house took a frame.
    pub fn passed_on(&mut self, taken: bool) {
        if taken {
            self.stats.heard += 1;
            return;
        }
        self.stats.overrun += 1;
        if self.stats.overrun.is_power_of_two() {
            tracing::warn!(overrun = self.stats.overrun, "frames dropped: the house is too slow");
        }
    }

    /// Tell of heads that have gone. To be called every few seconds.
    pub fn poll(&mut self, now: Instant) {
        for (gateway, head) in &mut self.heads {
            if head.online && !head.is_online(self.offline_after, now) {
                head.online = false;
                tracing::warn!(%gateway, silent_for = ?self.offline_after, "radio head offline");
            }
        }
    }

    /// Whether this head is listed or was seen.
    pub fn has(&self, gateway: GatewayEui) -> bool {
        self.heads.contains_key(&gateway)
    }

    /// Heads online now.
    pub fn online(&self, now: Instant) -> usize {
        self.heads.values().filter(|head| head.is_online(self.offline_after, now)).count()
    }

    /// Whether a head can be reached.
    pub fn is_online(&self, gateway: GatewayEui, now: Instant) -> bool {
        self.heads.get(&gateway).is_some_and(|head| head.is_online(self.offline_after, now))
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Every head.
    pub fn status(&self, name: &str, now: Instant) -> Vec<HeadStatus> {
        let one = |(gateway, head): (&GatewayEui, &Head)| HeadStatus {
            gateway: *gateway,
            name: name.to_string(),
            online: head.is_online(self.offline_after, now),
            last_seen: head.seen.map(|(at, _)| at),
            last_seen_time: head.seen.map(|(_, time)| time),
            address: head.pulled.map(|(_, from, _)| from.to_string()),
            rx_ok: head.rx_ok,
            rx_bad: head.rx_bad,
            tx_ok: head.tx_ok,
            tx_failed: head.tx_failed,
            rtt: head.rtt,
            location: head.location,
        };
        self.heads.iter().map(one).collect()
    }
}

impl Head {
    fn is_online(&self, offline_after: Duration, now: Instant) -> bool {
        self.pulled.is_some_and(|(_, _, at)| now < at + offline_after)
    }

    /// Session and host's instant of a frame. A counter that was reset begins a new session.
    fn place(
        &mut self,
        frame: &codec::Frame,
        gateway: GatewayEui,
        now: Instant,
        rng: &mut StdRng,
        stats: &mut Stats,
    ) -> (u64, Instant) {
        if let Some((id, timeline)) = &mut self.session {
            if let Some(at) = timeline.place(frame.tmst, now) {
                return (*id, at);
            }
            stats.restarts += 1;
            tracing::info!(%gateway, tmst = frame.tmst.0, "radio head was restarted: its counter was reset");
        }
        let id = u64::from_be_bytes(random(rng));
        self.session = Some((id, Timeline::new(frame.tmst, now)));
        (id, now)
    }

    /// Hand an answer to who waits; `false`: nobody.
    fn acked(&mut self, token: [u8; 2], answer: Answer, now: Instant) -> bool {
        let Some((since, waiting)) = self.pending.remove(&token) else { return false };
        self.rtt = Some(now.saturating_duration_since(since));
        match answer {
            Ok(_) => self.tx_ok += 1,
            Err(_) => self.tx_failed += 1,
        }
        waiting.send(answer).is_ok()
    }
}

fn random<const N: usize>(rng: &mut StdRng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    const FROM: &str = "192.168.1.7:4000";
    const PERIODS: Duration = Duration::from_secs(30);

    fn protocol() -> Protocol {
        Protocol::new(Allow::new(&[], &[]), PERIODS, StdRng::seed_from_u64(7))
    }

    fn pull(gateway: u64) -> Vec<u8> {
        [&[2, 0, 0, 2][..], &gateway.to_be_bytes()].concat()
    }

    #[test]
    fn heads_on_record_are_bounded_and_the_online_ones_stay() {
        let (mut protocol, t0, wall) = (protocol(), Instant::now(), Timestamp::UNIX_EPOCH);
        let from = FROM.parse().unwrap();
        let admitted =
            |protocol: &mut Protocol, gateway, now| protocol.admit(&pull(gateway), from, now, wall).is_some();
        for gateway in 0..1000 {
            assert_eq!(admitted(&mut protocol, gateway, t0), gateway < 256, "{gateway}");
        }
        assert_eq!(protocol.stats().strangers, 744);
        // one keeps alive, the others go: their places are free again
        let later = t0 + Duration::from_secs(20);
        assert!(admitted(&mut protocol, 5, later));
        let later = t0 + Duration::from_secs(31);
        assert_eq!(protocol.online(later), 1);
        for gateway in 2000..2255 {
            assert!(admitted(&mut protocol, gateway, later), "{gateway}");
        }
        assert!(protocol.has(GatewayEui::from_msb(5_u64.to_be_bytes())));
        assert_eq!(protocol.status("x", later).len(), 256);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(
            datagrams in proptest::collection::vec(
                (0_u8..7, 0_u64..3, any::<u16>(), prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..40),
                    any::<u32>().prop_map(|tmst| format!(
                        r#"{{"rxpk":[{{"tmst":{tmst},"freq":868.1,"datr":"SF7BW125","rssi":-8,"data":"AQID"}}]}}"#
                    ).into_bytes()),
                    Just(br#"{"txpk_ack":{"error":"TOO_LATE"}}"#.to_vec()),
                ], 0_u64..100_000), 0..40),
        ) {
            let (mut protocol, mut now, wall) = (protocol(), Instant::now(), Timestamp::UNIX_EPOCH);
            for (kind, gateway, token, body, pause) in datagrams {
                now += Duration::from_millis(pause);
                let [t0, t1] = token.to_be_bytes();
                let bytes = [&[2, t0, t1, kind][..], &gateway.to_be_bytes(), &body].concat();
                if let Some(datagram) = protocol.admit(&bytes, FROM.parse().unwrap(), now, wall) {
                    for heard in protocol.handle(&datagram, now, wall) {
                        prop_assert!(heard.at <= now);
                    }
                }
                protocol.poll(now);
            }
        }
    }
}
