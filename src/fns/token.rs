//! Sealed tokens: the way down to a device, kept by the partner that serves it.
//!
//! A token says which hearing a downlink may answer, and only the partner it was made for can use
//! it: the partner is associated data of the seal. A token that opens is all a downlink needs.

use std::time::Duration;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};

use crate::backend::message::Party;
use crate::clock::Instant;
use crate::lorawan::{DevAddr, GatewayEui};

use super::Count;

/// Version of the layout, and of the key that sealed it.
const VERSION: u8 = 2;
const NONCE: usize = 12;

/// One hearing, as far as a downlink needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hearing {
    /// The radio head.
    pub gateway: GatewayEui,
    /// Its radio session.
    pub session: u64,
    /// Its counter at the end of the frame.
    pub tmst: Count,
    /// The host's instant then.
    pub at: Instant,
    /// The same on the wall clock, seconds since 1970: the way to a device of class C outlives the process.
    pub time: u64,
    /// The device that sent it; `None`: a Join-request.
    pub dev_addr: Option<DevAddr>,
    /// Hertz and modulation of the uplink are not needed downwards, but the transmission's number is: it
    /// leads to the other heads that heard it, and the same one is answered once.
    pub number: u64,
}

/// Why a token is no way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not sealed by this hotspot for this partner, or damaged.
    #[error("the token was not made here for this partner")]
    Foreign,
    /// Of a layout that this version does not know.
    #[error("the token is of another version")]
    Version,
}

/// Makes and opens tokens.
pub struct Seal {
    cipher: ChaCha20Poly1305,
    /// What [`Hearing::at`] counts from: a token outlives no process, as radio sessions do not.
    epoch: Instant,
}

impl Seal {
    /// With a key from the store; `epoch`: any instant of this process before the first hearing.
    pub fn new(key: &[u8; 32], epoch: Instant) -> Seal {
        Seal { cipher: ChaCha20Poly1305::new(key.into()), epoch }
    }

    /// Seal a hearing for a partner. `nonce` must be fresh.
    pub fn make(&self, to: &Party, hearing: &Hearing, nonce: [u8; NONCE]) -> Vec<u8> {
        let mut clear = Vec::with_capacity(49);
        clear.extend(hearing.gateway.to_msb());
        clear.extend(hearing.session.to_be_bytes());
        clear.extend(hearing.tmst.0.to_be_bytes());
        let at = hearing.at.saturating_duration_since(self.epoch).as_micros();
        clear.extend(u64::try_from(at).unwrap_or(u64::MAX).to_be_bytes());
        clear.extend(hearing.time.to_be_bytes());
        clear.push(hearing.dev_addr.is_some().into());
        clear.extend(hearing.dev_addr.map_or(0, DevAddr::number).to_be_bytes());
        clear.extend(hearing.number.to_be_bytes());
        let payload = Payload { msg: &clear, aad: &associated(to) };
        let mut token = vec![VERSION];
        token.extend(nonce);
        // sealing 49 bytes cannot fail; an empty token would open for nobody
        token.extend(self.cipher.encrypt(&Nonce::from(nonce), payload).unwrap_or_default());
        token
    }

    /// Open a token that `from` handed back.
    pub fn open(&self, from: &Party, token: &[u8]) -> Result<Hearing, TokenError> {
        let (version, rest) = token.split_first().ok_or(TokenError::Foreign)?;
        if *version != VERSION {
            return Err(TokenError::Version);
        }
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(TokenError::Foreign)?;
        let payload = Payload { msg: sealed, aad: &associated(from) };
        let clear = self.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| TokenError::Foreign)?;
        self.read(&clear).ok_or(TokenError::Foreign)
    }

    fn read(&self, clear: &[u8]) -> Option<Hearing> {
        let (gateway, rest) = clear.split_first_chunk::<8>()?;
        let (session, rest) = rest.split_first_chunk::<8>()?;
        let (tmst, rest) = rest.split_first_chunk::<4>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (has_addr, rest) = rest.split_first()?;
        let (addr, rest) = rest.split_first_chunk::<4>()?;
        let number = rest.try_into().ok()?;
        Some(Hearing {
            gateway: GatewayEui::from_msb(*gateway),
            session: u64::from_be_bytes(*session),
            tmst: Count(u32::from_be_bytes(*tmst)),
            at: self.epoch.checked_add(Duration::from_micros(u64::from_be_bytes(*at)))?,
            time: u64::from_be_bytes(*time),
            dev_addr: (*has_addr == 1).then(|| DevAddr::new(u32::from_be_bytes(*addr))),
            number: u64::from_be_bytes(number),
        })
    }
}

fn associated(party: &Party) -> Vec<u8> {
    format!("roamgate FNSULToken {party}").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lorawan::NetId;

    fn hearing(at: Instant) -> Hearing {
        Hearing {
            gateway: GatewayEui::from_msb([9; 8]),
            session: 77,
            tmst: Count(123_456),
            at,
            time: 1_795_000_000,
            dev_addr: Some(DevAddr::new(0x0200_0001)),
            number: 5,
        }
    }

    fn party(number: u32) -> Party {
        Party::Ns(NetId::new(number).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_partner_it_was_made_for_opens_a_token() {
        let epoch = Instant::now();
        let seal = Seal::new(&[1; 32], epoch);
        let hearing = hearing(epoch + Duration::from_micros(1_234_567));
        let token = seal.make(&party(1), &hearing, [3; 12]);
        assert_eq!(seal.open(&party(1), &token), Ok(hearing));
        assert_eq!(seal.open(&party(2), &token), Err(TokenError::Foreign));
        assert_eq!(Seal::new(&[2; 32], epoch).open(&party(1), &token), Err(TokenError::Foreign));
        let mut other = token.clone();
        other[0] = 9;
        assert_eq!(seal.open(&party(1), &other), Err(TokenError::Version));
    }

    proptest! {
        #[test]
        fn no_forged_token_opens(mut token in proptest::collection::vec(any::<u8>(), 0..120)) {
            let seal = Seal::new(&[1; 32], tokio::time::Instant::now());
            if let Some(version) = token.first_mut() {
                *version = VERSION;
            }
            prop_assert_eq!(seal.open(&party(1), &token), Err(TokenError::Foreign));
        }

        #[test]
        fn no_changed_bit_is_overlooked(at in 13usize..78, bit in 0u8..8) {
            let seal = Seal::new(&[1; 32], tokio::time::Instant::now());
            let mut token = seal.make(&party(1), &hearing(tokio::time::Instant::now()), [3; 12]);
            let at = at % token.len();
            prop_assume!(at > 0);
            token[at] ^= 1 << bit;
            prop_assert_eq!(seal.open(&party(1), &token), Err(TokenError::Foreign));
        }
    }
}
