//! What a partner's server wants to see beside the certificate. Whoever prints it sees that there is something, never what.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Longer ones no server takes.
const LONGEST: usize = 4096;

/// Value of the HTTP header Authorization (RFC 9110 section 11.6.2), such as `Bearer …`: visible ASCII and spaces.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(Zeroizing<String>);

impl Authorization {
    /// For the header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Authorization(..)")
    }
}

impl<'de> Deserialize<'de> for Authorization {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Authorization, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let visible = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if text.trim().is_empty() || text.len() > LONGEST || !visible {
            // no word of what stands there
            let why = format!("an Authorization header has 1 to {LONGEST} visible ASCII characters");
            return Err(serde::de::Error::custom(why));
        }
        Ok(Authorization(text))
    }
}

impl Serialize for Authorization {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Partner;

    #[test]
    fn it_is_read_and_never_shown() {
        let read = |value: &str| {
            toml::from_str::<Partner>(&format!("net_id = \"000002\"\nauthorization = \"{value}\""))
        };
        let partner = read("Bearer c2VjcmV0").unwrap();
        assert_eq!(partner.authorization.as_ref().unwrap().expose(), "Bearer c2VjcmV0");
        for shown in [format!("{partner:?}"), toml::to_string(&partner).unwrap()] {
            assert!(!shown.contains("c2VjcmV0"), "{shown}");
        }
        for wrong in ["", "  ", "Bearer \\u00e9", "Bearer c2VjcmV0\\nX-Other: 1"] {
            let error = read(wrong).unwrap_err().message().to_owned();
            assert!(error.contains("visible ASCII") && !error.contains("c2VjcmV0"), "{error}");
        }
    }
}
