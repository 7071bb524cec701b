//! KeyEnvelope: wrap and unwrap by RFC 3394 (TS002 section 10).
//!
//! Which key-encryption key goes with which partner is agreed offline, per pair of servers and
//! direction. What cannot be opened is never read as a clear key.

use std::fmt;

use aes_kw::cipher::Array;
use aes_kw::cipher::consts::U16;
use aes_kw::{KeyInit, KwAes128, KwAes192, KwAes256};
use zeroize::Zeroizing;

use crate::lorawan::Key;

/// A key in an envelope (TS002 table 11). To an NS the AppSKey is always one of these, unopened.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyEnvelope {
    /// Name of the key-encryption key; `None`: `key` is the key itself.
    pub label: Option<String>,
    /// 16 bytes clear or 24 wrapped (RFC 3394).
    pub key: Vec<u8>,
}

impl fmt::Debug for KeyEnvelope {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "KeyEnvelope({:?})", self.label)
    }
}

impl Drop for KeyEnvelope {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

/// Why a key was not put into an envelope or taken out of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KekError {
    /// Operator's move: agree on a key-encryption key, or allow clear keys.
    #[error("no key-encryption key is configured for this partner, and clear keys are not allowed")]
    NoKek,
    /// Operator's or partner's move: labels are compared as exact strings.
    #[error("no key-encryption key with the label {0:?} is configured for this partner")]
    UnknownLabel(String),
    /// Partner's move.
    #[error("the partner sent a clear key, which is not allowed")]
    Clear,
    /// The key-encryption keys differ, or the bytes were damaged.
    #[error("the wrapped key fails its integrity check: the key-encryption keys differ")]
    Integrity,
    /// Neither 16 bytes clear nor 24 wrapped.
    #[error("a key envelope of {0} bytes")]
    Length(usize),
    /// Operator's move.
    #[error("a key-encryption key has 16, 24 or 32 bytes, not {0}")]
    KekLength(usize),
}

/// A key-encryption key. `Debug` shows its label only.
#[derive(Clone)]
pub struct Kek {
    label: String,
    cipher: Cipher,
}

#[derive(Clone)]
enum Cipher {
    Aes128(Zeroizing<[u8; 16]>),
    Aes192(Zeroizing<[u8; 24]>),
    Aes256(Zeroizing<[u8; 32]>),
}

impl Kek {
    /// A key of 16, 24 or 32 bytes under its agreed label.
    pub fn new(label: impl Into<String>, key: impl AsRef<[u8]>) -> Result<Kek, KekError> {
        let key = key.as_ref();
        let cipher = match key.len() {
            16 => key.try_into().ok().map(|key| Cipher::Aes128(Zeroizing::new(key))),
            24 => key.try_into().ok().map(|key| Cipher::Aes192(Zeroizing::new(key))),
            32 => key.try_into().ok().map(|key| Cipher::Aes256(Zeroizing::new(key))),
            _ => None,
        };
        Ok(Kek { label: label.into(), cipher: cipher.ok_or(KekError::KekLength(key.len()))? })
    }

    /// The agreed name.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Put a key into an envelope.
    pub fn wrap(&self, key: &Key) -> KeyEnvelope {
        let key = Array::<u8, U16>(*key.expose());
        let wrapped = match &self.cipher {
            Cipher::Aes128(kek) => KwAes128::new((&**kek).into()).wrap_fixed_key(&key),
            Cipher::Aes192(kek) => KwAes192::new((&**kek).into()).wrap_fixed_key(&key),
            Cipher::Aes256(kek) => KwAes256::new((&**kek).into()).wrap_fixed_key(&key),
        };
        KeyEnvelope { label: Some(self.label.clone()), key: wrapped.to_vec() }
    }

    /// Take a key out of an envelope that carries this key's label.
    pub fn unwrap(&self, envelope: &KeyEnvelope) -> Result<Key, KekError> {
        if envelope.label.as_ref() != Some(&self.label) {
            let label = envelope.label.iter().flat_map(|label| label.chars()).take(40);
            return Err(KekError::UnknownLabel(label.collect()));
        }
        let length = KekError::Length(envelope.key.len());
        Key::from_slice(&self.unwrap_bytes(&envelope.key)?).ok_or(length)
    }

    /// Wrap key data: a multiple of 8 bytes, at least 16. The result is 8 bytes longer.
    pub fn wrap_bytes(&self, key: &[u8]) -> Result<Vec<u8>, KekError> {
        if key.len() < 16 {
            return Err(KekError::Length(key.len()));
        }
        let mut wrapped = vec![0; key.len() + 8];
        match &self.cipher {
            Cipher::Aes128(kek) => KwAes128::new((&**kek).into()).wrap_key(key, &mut wrapped).map(drop),
            Cipher::Aes192(kek) => KwAes192::new((&**kek).into()).wrap_key(key, &mut wrapped).map(drop),
            Cipher::Aes256(kek) => KwAes256::new((&**kek).into()).wrap_key(key, &mut wrapped).map(drop),
        }
        .map_err(|_| KekError::Length(key.len()))?;
        Ok(wrapped)
    }

    /// Undo [`Kek::wrap_bytes`].
    pub fn unwrap_bytes(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KekError> {
        if wrapped.len() < 24 || !wrapped.len().is_multiple_of(8) {
            return Err(KekError::Length(wrapped.len()));
        }
        let mut key = Zeroizing::new(vec![0; wrapped.len() - 8]);
        match &self.cipher {
            Cipher::Aes128(kek) => KwAes128::new((&**kek).into()).unwrap_key(wrapped, &mut key).map(drop),
            Cipher::Aes192(kek) => KwAes192::new((&**kek).into()).unwrap_key(wrapped, &mut key).map(drop),
            Cipher::Aes256(kek) => KwAes256::new((&**kek).into()).unwrap_key(wrapped, &mut key).map(drop),
        }
        .map_err(|_| KekError::Integrity)?;
        Ok(key)
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Kek({:?})", self.label)
    }
}

/// What is agreed with one partner. The default neither sends nor takes a key.
#[derive(Debug, Clone, Default)]
pub struct Keks {
    /// Wraps what we send.
    pub send: Option<Kek>,
    /// Open what we receive, by label.
    pub open: Vec<Kek>,
    /// Keys may go and come without any wrapping.
    pub allow_clear: bool,
}

impl Keks {
    /// Put a key into an envelope for the partner.
    pub fn seal(&self, key: &Key) -> Result<KeyEnvelope, KekError> {
        match &self.send {
            Some(kek) => Ok(kek.wrap(key)),
            None if self.allow_clear => Ok(KeyEnvelope { label: None, key: key.expose().to_vec() }),
            None => Err(KekError::NoKek),
        }
    }

    /// Take a key out of the partner's envelope.
    pub fn open(&self, envelope: &KeyEnvelope) -> Result<Key, KekError> {
        let Some(label) = &envelope.label else {
            if !self.allow_clear {
                return Err(KekError::Clear);
            }
            return Key::from_slice(&envelope.key).ok_or(KekError::Length(envelope.key.len()));
        };
        let kek = self.open.iter().find(|kek| kek.label == *label);
        let kek = kek.ok_or_else(|| KekError::UnknownLabel(label.chars().take(40).collect()))?;
        kek.unwrap(envelope)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kek(label: &str, byte: u8) -> Kek {
        Kek::new(label, [byte; 32]).unwrap()
    }

    #[test]
    fn a_sealed_key_opens_with_the_same_kek_only() {
        let key = Key::new([7; 16]);
        let ours = Keks { send: Some(kek("pair", 1)), ..Keks::default() };
        let theirs = Keks { open: vec![kek("other", 9), kek("pair", 1)], ..Keks::default() };
        let envelope = ours.seal(&key).unwrap();
        assert_eq!(envelope.key.len(), 24);
        assert_eq!(theirs.open(&envelope), Ok(key));

        let wrong = Keks { open: vec![kek("pair", 2)], allow_clear: true, ..Keks::default() };
        assert_eq!(wrong.open(&envelope), Err(KekError::Integrity));
        let none = Keks { allow_clear: true, ..Keks::default() };
        assert_eq!(none.open(&envelope), Err(KekError::UnknownLabel("pair".into())));
    }

    #[test]
    fn clear_keys_need_permission_both_ways() {
        let (key, shut, free) =
            (Key::new([7; 16]), Keks::default(), Keks { allow_clear: true, ..Keks::default() });
        assert_eq!(shut.seal(&key), Err(KekError::NoKek));
        let clear = free.seal(&key).unwrap();
        assert_eq!(free.open(&clear), Ok(key));
        assert_eq!(shut.open(&clear), Err(KekError::Clear));
    }

    #[test]
    fn a_kek_shows_its_label_only() {
        assert_eq!(format!("{:?}", kek("pair", 1)), "Kek(\"pair\")");
        assert_eq!(Kek::new("short", [0; 15]).unwrap_err(), KekError::KekLength(15));
    }

    proptest! {
        #[test]
        fn no_forged_envelope_opens(
            label in proptest::option::of(prop_oneof![Just("partner".to_string()), ".{0,40}"]),
            key in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let kek = Kek::new("partner", [1; 16]).unwrap();
            let bytes = kek.unwrap_bytes(&key).is_err();
            let envelope = kek.unwrap(&KeyEnvelope { label, key }).is_err();
            prop_assert!(bytes && envelope);
        }
    }
}
