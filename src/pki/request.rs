//! Requests for certificates (PKCS#10, RFC 2986): made where the key is, and read where it is signed.
//!
//! A request proves that whoever made it has the key. What else it asks for is a wish: only its names are looked at.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, KeyPair, PublicKey, PublicKeyData, SanType,
};
use zeroize::Zeroizing;

use super::check::Pin;
use super::name::{NameError, dns_name};

/// Names of one request, at most.
pub const MOST_NAMES: usize = 100;

/// Why a request is none.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Its maker's move.
    #[error("not a certificate request (PKCS#10, PEM): {0}")]
    Unreadable(String),
    /// Its maker's move.
    #[error("a request names 1 to {MOST_NAMES} hosts, not {0}")]
    Names(usize),
    /// Its maker's move.
    #[error("{0}")]
    Name(#[from] NameError),
    /// Its maker's move.
    #[error("a request for something else than DNS names: {0}")]
    Other(String),
    /// The library that encodes.
    #[error("cannot make it: {0}")]
    Encode(#[from] rcgen::Error),
    /// Its maker's move.
    #[error("its key is no P-256, P-384 or RSA key")]
    Key,
}

/// A request that its key has signed.
#[derive(Debug, Clone)]
pub struct Request {
    /// DNS names that the certificate is to have.
    pub names: Vec<String>,
    /// Its key.
    pub pin: Pin,
    key: PublicKey,
}

/// A new key, and the request for its certificate: both PEM.
pub fn make(common_name: &str, names: &[String]) -> Result<(String, Zeroizing<String>), RequestError> {
    if names.is_empty() || names.len() > MOST_NAMES {
        return Err(RequestError::Names(names.len()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(dns_name(name)?.try_into()?));
    }
    let key = KeyPair::generate()?;
    let request = params.serialize_request(&key)?;
    Ok((request.pem()?, Zeroizing::new(key.serialize_pem())))
}

impl Request {
    /// Read a request (PEM) and check that its key has signed it.
    pub fn read(pem: &str) -> Result<Request, RequestError> {
        let unreadable = |error: rcgen::Error| RequestError::Unreadable(error.to_string());
        let read = CertificateSigningRequestParams::from_pem(pem).map_err(unreadable)?;
        let mut names = Vec::new();
        for name in &read.params.subject_alt_names {
            match name {
                SanType::DnsName(name) => names.push(dns_name(name.as_str())?),
                other => return Err(RequestError::Other(format!("{other:?}").chars().take(100).collect())),
            }
        }
        names.dedup();
        if names.is_empty() || names.len() > MOST_NAMES {
            return Err(RequestError::Names(names.len()));
        }
        let key = read.public_key;
        let kinds = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_RSA_SHA384,
            &rcgen::PKCS_RSA_SHA512,
        ];
        if !kinds.contains(&key.algorithm()) {
            return Err(RequestError::Key);
        }
        Ok(Request { names, pin: Pin::of(&key.subject_public_key_info()), key })
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::clock::Clock;
    use crate::pki::check;
    use crate::pki::make::{Authority, IntermediateSpec, LeafSpec, MakeError, RootSpec};

    #[test]
    fn a_key_stays_where_it_was_made_and_its_certificate_comes_back() {
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new("r"), &clock).unwrap();
        let member = root.intermediate(&IntermediateSpec::new("m", ["a.example"]), &clock).unwrap();
        let (request, key) = make("x", &["ns.a.example".into(), "js.a.example".into()]).unwrap();
        let read = Request::read(&request).unwrap();
        assert_eq!(read.names, ["ns.a.example", "js.a.example"]);
        let chain = member.issue_for(&read, &LeafSpec::new("x", &read.names), &clock).unwrap();
        crate::tls::Identity::from_pem(&chain, &key).unwrap();
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let facts = check::facts(&leaf).unwrap();
        assert_eq!((facts.pin, facts.dns_names), (read.pin, read.names.clone()));
        let foreign = LeafSpec::new("x", ["b.example"]);
        assert!(matches!(member.issue_for(&read, &foreign, &clock), Err(MakeError::Foreign { .. })));
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_or_that_wants_more_is_none() {
        let (request, _) = make("x", &["ns.a.example".into()]).unwrap();
        // another name under the same signature
        let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).unwrap();
        let mut der = der.to_vec();
        let at = der.windows(12).position(|window| window == b"ns.a.example").unwrap();
        der[at] = b'm';
        let forged = {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
        };
        assert!(matches!(Request::read(&forged), Err(RequestError::Unreadable(_))));
        let made = |names: Vec<SanType>| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = names;
            params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
        };
        assert!(matches!(Request::read(&made(Vec::new())), Err(RequestError::Names(0))));
        let address = made(vec![SanType::IpAddress([192, 0, 2, 1].into())]);
        assert!(matches!(Request::read(&address), Err(RequestError::Other(_))));
        let wild = made(vec![SanType::DnsName("*.a.example".try_into().unwrap())]);
        assert!(matches!(Request::read(&wild), Err(RequestError::Name(_))));
        for text in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
            assert!(matches!(Request::read(text), Err(RequestError::Unreadable(_))));
        }
        assert!(matches!(super::make("x", &[]), Err(RequestError::Names(0))));
    }

    proptest::proptest! {
        #[test]
        fn no_text_upsets_it(text: String) {
            let _ = Request::read(&text);
        }
    }
}
