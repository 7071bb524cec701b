//! Whatever comes to the port of the packet forwarders: a datagram is understood or refused, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roamgate::radio::semtech_udp::codec::{self, Datagram};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(datagram) = Datagram::parse(bytes) {
        let _ = datagram.ack();
    }
    let _ = codec::Push::parse(bytes);
    let _ = codec::tx_ack(bytes);
});
