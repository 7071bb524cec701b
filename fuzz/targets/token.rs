//! Whatever a partner hands back as its token: it opens only as what was sealed for that partner.

use std::sync::LazyLock;
use std::time::Duration;

use roamgate::backend::message::Party;
use roamgate::clock::{Clock, Instant};
use roamgate::fns::{Count, Hearing, Seal};
use roamgate::lorawan::{DevAddr, GatewayEui, NetId};

static EPOCH: LazyLock<Instant> = LazyLock::new(|| Clock::system().now());

pub fn fuzz(bytes: &[u8]) {
    let seal = Seal::new(&[1; 32], *EPOCH);
    let (one, other) = (Party::Ns(NetId::from_msb([0, 0, 1])), Party::Ns(NetId::from_msb([0, 0, 2])));
    assert!(seal.open(&one, bytes).is_err());

    // the same bytes as a hearing, and as damage to its token
    let mut field = [0; 32];
    field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let eight = |at: usize| <[u8; 8]>::try_from(&field[at..at + 8]).unwrap();
    let hearing = Hearing {
        gateway: GatewayEui::from_msb(eight(0)),
        session: u64::from_be_bytes(eight(8)),
        tmst: Count(u32::from_be_bytes([field[16], field[17], field[18], field[19]])),
        at: *EPOCH + Duration::from_micros(u64::from_be_bytes(eight(16)) >> 16),
        time: 0,
        dev_addr: (field[24] & 1 == 1)
            .then(|| DevAddr::new(u32::from_be_bytes([field[25], field[26], field[27], 0]))),
        number: u64::from_be_bytes(eight(24)),
    };
    let mut token = seal.make(&one, &hearing, [3; 12]);
    assert_eq!(seal.open(&one, &token), Ok(hearing));
    assert!(seal.open(&other, &token).is_err());
    let damage = usize::from(field[30]) % token.len();
    token[damage] ^= field[31].max(1);
    assert!(seal.open(&one, &token).is_err());
}
