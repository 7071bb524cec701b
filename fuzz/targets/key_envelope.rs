//! Whatever comes as a KeyEnvelope: it opens with the key that wrapped it and with no other, and bytes that nobody
//! wrapped do not open at all. The first byte chooses the label and the length of the key-encryption key.

use roamgate::backend::keywrap::{Kek, KekError, Keks, KeyEnvelope};
use roamgate::lorawan::Key;

pub fn fuzz(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let kek = |length: usize, filler: u8| Kek::new("ours", vec![filler; length]);
    let length = [16, 24, 32, usize::from(*choice)][usize::from(choice & 3)];
    let Ok(ours) = kek(length, 5) else {
        assert!(![16, 24, 32].contains(&length));
        return;
    };
    let keks = Keks { send: Some(ours.clone()), open: vec![ours.clone()], allow_clear: choice & 4 != 0 };
    let label = match choice >> 3 & 3 {
        0 => None,
        1 => Some("ours".to_string()),
        _ => Some(String::from_utf8_lossy(bytes).into_owned()),
    };
    let clear = label.is_none();
    match keks.open(&KeyEnvelope { label, key: bytes.to_vec() }) {
        // a wrapped key has 64 bits of check in it: only the clear one can be anything
        Ok(key) => assert!(clear && choice & 4 != 0 && key.expose() == bytes),
        Err(KekError::Clear) => assert!(clear && choice & 4 == 0),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = ours.unwrap_bytes(bytes);
    let Ok(key) = <[u8; 16]>::try_from(bytes) else { return };
    let key = Key::new(key);
    let mut wrapped = ours.wrap(&key);
    assert_eq!(ours.unwrap(&wrapped), Ok(key));
    assert!(kek(length, 6).is_ok_and(|other| other.unwrap(&wrapped).is_err()));
    wrapped.key[usize::from(*choice) % 24] ^= 1;
    assert!(ours.unwrap(&wrapped).is_err());
}
