//! Whatever comes to the port of the packet forwarders: a datagram is understood or refused, never a panic, and no
//! sequence of them makes the server's side of the protocol lose its head. The input is a sequence of datagrams, each
//! with a byte in front for the pause before it (seconds) and two for its length.

use std::time::Duration;

use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use roamgate::clock::Clock;
use roamgate::fns::{Count, Tx};
use roamgate::lorawan::region::Modulation;
use roamgate::radio::semtech_udp::allow::Allow;
use roamgate::radio::semtech_udp::codec::{self, Datagram};
use roamgate::radio::semtech_udp::protocol::Protocol;

const ONLINE: Duration = Duration::from_secs(30);

pub fn fuzz(bytes: &[u8]) {
    if let Ok(datagram) = Datagram::parse(bytes) {
        let _ = datagram.ack();
    }
    let _ = codec::Push::parse(bytes);
    let _ = codec::tx_ack(bytes);

    let from = "192.168.1.7:4000".parse().unwrap();
    let (mut now, wall) = (Clock::system().now(), Timestamp::UNIX_EPOCH);
    let mut protocol = Protocol::new(Allow::new(&[], &[]), ONLINE, StdRng::seed_from_u64(7));
    let mut waiting = Vec::new();
    let mut rest = bytes;
    while let [pause, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (datagram, next) = tail.split_at(length);
        rest = next;
        now += Duration::from_secs((*pause).into());
        if let Some(datagram) = protocol.admit(datagram, from, now, wall) {
            for heard in protocol.handle(&datagram, now, wall) {
                assert!(heard.at <= now);
                let tx = Tx {
                    gateway: heard.gateway,
                    session: heard.session,
                    phy: heard.phy,
                    frequency: heard.frequency,
                    modulation: Modulation::Lora { sf: 9, bandwidth: 125_000 },
                    power: 14,
                    at: Some(Count(heard.tmst.0.wrapping_add(1_000_000))),
                    start: now,
                };
                waiting.extend(protocol.send(&tx, now).ok().map(|outgoing| (tx.gateway, outgoing)));
            }
        }
        protocol.poll(now);
    }
    for (gateway, outgoing) in waiting {
        protocol.give_up(gateway, outgoing.token);
    }
    assert!(protocol.status("fuzzed", now).len() <= 256);
}
