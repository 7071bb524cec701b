//! KeyEnvelope: wrap and unwrap by RFC 3394 (TS002 section 10).

use super::message::KeyEnvelope;
use crate::lorawan::Key;
use aes_kw::{KeyInit, KwAes128};

/// stand-in
#[derive(Clone)]
pub struct Kek(String, [u8; 16]);
impl Kek {
    /// stand-in
    pub fn new(label: &str, key: Vec<u8>) -> Option<Kek> {
        Some(Kek(label.into(), key.try_into().ok()?))
    }
    /// stand-in
    pub fn wrap(&self, key: &Key) -> KeyEnvelope {
        let mut out = [0; 24];
        let _ = KwAes128::new(&self.1.into()).wrap_key(key.expose(), &mut out);
        KeyEnvelope { label: Some(self.0.clone()), key: out.to_vec() }
    }
    /// stand-in
    pub fn unwrap(&self, envelope: &KeyEnvelope) -> Option<Key> {
        let mut out = [0; 16];
        KwAes128::new(&self.1.into()).unwrap_key(&envelope.key, &mut out).ok()?;
        Some(Key::new(out))
    }
}
