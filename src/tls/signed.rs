//! What a node says with its name under it: a text, signed with the key of its certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{Identity, TlsError, Trust, provider};
use crate::pki::check::{self, PeerIdentity};

/// Keys that `roamgate pki` makes, and what others may have.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// A signed text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// What is said, to the byte.
    pub text: String,
    /// Name of the signature scheme (RFC 8446, 4.2.3), such as `ECDSA_NISTP256_SHA256`.
    pub scheme: String,
    /// Base64.
    pub signature: String,
    /// The leaf, then its intermediate: DER in base64.
    pub chain: Vec<String>,
}

/// Why nobody stands behind a text.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// Its file is damaged, or somebody changed the text.
    #[error("the signature is wrong: somebody has changed the text, or it is of another key")]
    Wrong,
    /// Their move.
    #[error("{0:?} is no signature scheme that is known here")]
    Scheme(String),
    /// Its file is damaged.
    #[error("{0} is not base64")]
    Base64(&'static str),
    /// Their move, or ours: the root is missing.
    #[error("whose certificate is not accepted: {0}")]
    Certificate(#[from] TlsError),
}

/// What is signed: a signature for one purpose is worth nothing for another, TLS included.
fn message(purpose: &str, text: &str) -> Vec<u8> {
    [b"roamgate ", purpose.as_bytes(), b"\0", text.as_bytes()].concat()
}

impl Identity {
    /// Sign a text for a purpose.
    pub fn sign(&self, purpose: &str, text: String) -> Result<Signed, TlsError> {
        let key = &self.signer;
        let unsuited = || rustls::Error::General("the key of the certificate cannot sign texts".into());
        let signer = key.choose_scheme(SCHEMES).ok_or_else(unsuited)?;
        let signature = BASE64.encode(signer.sign(&message(purpose, &text))?);
        let chain = self.chain.iter().map(|der| BASE64.encode(der)).collect();
        Ok(Signed { text, scheme: format!("{:?}", signer.scheme()), signature, chain })
    }
}

impl Trust {
    /// Who signed a text, by the roots and dates that count for partners today.
    pub fn signer(&self, purpose: &str, signed: &Signed) -> Result<PeerIdentity, Unproven> {
        let decode = |text: &str, what| BASE64.decode(text).map_err(|_| Unproven::Base64(what));
        let chain = signed.chain.iter().map(|text| decode(text, "chain").map(CertificateDer::from));
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let peer = self.peer_identity(Some(&chain))?;
        let signature = decode(&signed.signature, "signature")?;
        // there is one, or nobody would have been identified
        let key = chain.first().and_then(|leaf| check::public_key(leaf)).ok_or(Unproven::Wrong)?;
        let all = provider().signature_verification_algorithms.mapping;
        let named =
            |scheme: &SignatureScheme| SCHEMES.contains(scheme) && format!("{scheme:?}") == signed.scheme;
        let (_, algorithms) = all
            .iter()
            .find(|(scheme, _)| named(scheme))
            .ok_or_else(|| Unproven::Scheme(signed.scheme.chars().take(40).collect()))?;
        let message = message(purpose, &signed.text);
        let right = algorithms.iter().any(|one| one.verify_signature(&key, &message, &signature).is_ok());
        if right { Ok(peer) } else { Err(Unproven::Wrong) }
    }
}
