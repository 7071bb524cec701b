//! A partner's key-encryption key, as the configuration names it. Whoever prints it sees where it is, never what it is.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// `kek = { label = "...", key = ... }`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kek {
    /// The agreed name, compared as an exact string.
    #[serde(deserialize_with = "label")]
    pub label: String,
    /// The key, or where it is.
    pub key: KekKey,
}

/// 16, 24 or 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum KekKey {
    /// `"..."`: hexadecimal, in the configuration itself.
    Here(Zeroizing<Vec<u8>>),
    /// `{ file = "PATH" }`: the bytes, or hexadecimal digits.
    File(PathBuf),
    /// `{ credential = "NAME" }`: a systemd credential, with the same content.
    Credential(String),
}

impl fmt::Debug for KekKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KekKey::Here(_) => to.write_str("Here(..)"),
            KekKey::File(path) => write!(to, "File({path:?})"),
            KekKey::Credential(name) => write!(to, "Credential({name:?})"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Place {
    File(PathBuf),
    Credential(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Here(String),
    Place(Place),
}

impl<'de> Deserialize<'de> for KekKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<KekKey, D::Error> {
        // no word of what stands there: it may be most of a key
        let wrong = || {
            serde::de::Error::custom("a key is hexadecimal digits, { file = ... } or { credential = ... }")
        };
        match Written::deserialize(from).map_err(|_| wrong())? {
            Written::Here(text) => {
                bytes(Zeroizing::new(text).as_bytes()).map(KekKey::Here).ok_or_else(|| {
                    serde::de::Error::custom("a key-encryption key is 32, 48 or 64 hexadecimal digits")
                })
            }
            Written::Place(Place::File(path)) => Ok(KekKey::File(path)),
            Written::Place(Place::Credential(name)) => {
                let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
                if plain {
                    Ok(KekKey::Credential(name))
                } else {
                    Err(serde::de::Error::custom("no name of a systemd credential"))
                }
            }
        }
    }
}

impl Serialize for KekKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            KekKey::Here(_) => to.serialize_str("(hidden)"),
            KekKey::File(path) => Place::File(path.clone()).serialize(to),
            KekKey::Credential(name) => Place::Credential(name.clone()).serialize(to),
        }
    }
}

impl KekKey {
    /// The key in what a file or credential holds.
    pub fn read(content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match content.len() {
            16 | 24 => Some(Zeroizing::new(content.to_vec())),
            // 32 bytes may be a key or the digits of one
            32 if !content.iter().all(u8::is_ascii_hexdigit) => Some(Zeroizing::new(content.to_vec())),
            _ => bytes(content.trim_ascii()),
        }
    }
}

fn bytes(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut key = Zeroizing::new(vec![0; digits.len() / 2]);
    let right = matches!(digits.len(), 32 | 48 | 64) && hex::decode_to_slice(digits, &mut key).is_ok();
    right.then_some(key)
}

fn label<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let label = String::deserialize(from)?;
    // an empty label means a clear key on the wire
    if label.is_empty() || label.len() > 255 {
        return Err(serde::de::Error::custom("a label has 1 to 255 characters"));
    }
    Ok(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kek(text: &str) -> Result<Kek, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_key_is_read_from_three_places_and_never_shown() {
        let digits = "000102030405060708090A0B0C0D0E0F";
        let here = kek(&format!("label = \"a\"\nkey = \"{digits}\"")).unwrap();
        assert_eq!(here.key, KekKey::Here(Zeroizing::new((0..16).collect())));
        for shown in [format!("{here:?}"), toml::to_string(&here).unwrap()] {
            assert!(!shown.contains("0405") && !shown.contains("4, 5"), "{shown}");
        }
        let file = kek("label = \"a\"\nkey = { file = \"/k\" }").unwrap();
        assert_eq!(file.key, KekKey::File("/k".into()));
        let credential = kek("label = \"a\"\nkey = { credential = \"kek-a\" }").unwrap();
        assert_eq!(credential.key, KekKey::Credential("kek-a".into()));
        assert_eq!(kek(&toml::to_string(&file).unwrap()).unwrap(), file);
    }

    #[test]
    fn a_wrong_key_is_refused_without_repeating_it() {
        for key in [
            "\"00010203040506070809\"",
            "5",
            "{ file = \"a\", credential = \"b\" }",
            "{ credential = \"../x\" }",
        ] {
            let error = kek(&format!("label = \"a\"\nkey = {key}")).unwrap_err();
            assert!(!error.message().contains("00010203"), "{error}");
        }
        assert!(kek("label = \"\"\nkey = { file = \"/k\" }").is_err());
    }

    #[test]
    fn a_file_holds_bytes_or_digits() {
        assert_eq!(KekKey::read(&[7; 16]).unwrap().len(), 16);
        assert_eq!(KekKey::read(&[0xAB; 32]).unwrap().len(), 32);
        assert_eq!(KekKey::read(b"000102030405060708090A0B0C0D0E0F\n").unwrap().len(), 16);
        assert_eq!(KekKey::read(b"short"), None);
    }
}
