//! Certificates that count no more: struck off by the operator, or by a list of the authority that signed them
//! (RFC 5280 section 5).
//!
//! Pure: bytes in, reasons out. Who fetches lists and who asks for reasons is decided elsewhere.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::check::{self, Pin};

/// Why something cannot strike a certificate off.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// Not what it should be.
    #[error("not a certificate revocation list: {0}")]
    Unreadable(String),
    /// A word of the operator.
    #[error("{0:?} names no certificate; write its serial number in hex digits, or its pin (sha256/...)")]
    Word(String),
}

/// One authority's list.
#[derive(Debug, Clone)]
pub struct List {
    der: CertificateRevocationListDer<'static>,
    raw_issuer: Vec<u8>,
    /// Who made it.
    pub issuer: String,
    /// Serial numbers in hex digits, without leading zeros.
    pub serials: BTreeSet<String>,
    /// Goes up with every list of the authority; hex digits.
    pub number: Option<u64>,
    /// When it was made.
    pub made: Timestamp,
    /// When the next is to be there.
    pub next: Option<Timestamp>,
}

/// Everything that has been struck off.
#[derive(Debug, Clone, Default)]
pub struct Revoked {
    pins: BTreeSet<Pin>,
    serials: BTreeSet<String>,
    lists: Vec<List>,
}

/// A serial number as it is compared.
fn plain(serial: &str) -> String {
    let digits = serial.replace(':', "").to_ascii_lowercase();
    digits.trim_start_matches('0').to_owned()
}

impl List {
    /// Read a list, PEM or DER.
    pub fn read(bytes: &[u8]) -> Result<List, RevokeError> {
        let der = match CertificateRevocationListDer::from_pem_slice(bytes) {
            Ok(der) => der,
            Err(_) => CertificateRevocationListDer::from(bytes.to_vec()),
        };
        let (rest, list) = CertificateRevocationList::from_der(&der)
            .map_err(|error| RevokeError::Unreadable(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RevokeError::Unreadable(format!("{} bytes after its end", rest.len())));
        }
        let moment = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp())
                .map_err(|error| RevokeError::Unreadable(error.to_string()))
        };
        let serials = list.iter_revoked_certificates().map(|one| plain(&hex::encode(one.raw_serial())));
        Ok(List {
            raw_issuer: list.issuer().as_raw().to_vec(),
            issuer: list.issuer().to_string(),
            serials: serials.collect(),
            number: list.crl_number().and_then(|number| number.try_into().ok()),
            made: moment(list.last_update())?,
            next: list.next_update().map(moment).transpose()?,
            der,
        })
    }

    /// Whether this authority made it.
    pub fn is_signed_by(&self, authority: &[u8]) -> bool {
        let Ok((_, list)) = CertificateRevocationList::from_der(&self.der) else { return false };
        check::parse(authority).is_ok_and(|above| list.verify_signature(above.public_key()).is_ok())
    }
}

impl Revoked {
    /// Strike one off by its serial number or its pin.
    pub fn deny(&mut self, word: &str) -> Result<(), RevokeError> {
        let word = word.trim();
        if let Ok(pin) = word.parse() {
            self.pins.insert(pin);
            return Ok(());
        }
        let serial = plain(word);
        if serial.is_empty() || serial.len() > 64 || !serial.chars().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(RevokeError::Word(word.chars().take(80).collect()));
        }
        self.serials.insert(serial);
        Ok(())
    }

    /// Serial numbers that the operator has struck off.
    pub fn serials(&self) -> impl Iterator<Item = &str> {
        self.serials.iter().map(String::as_str)
    }

    /// Believe a list, as far as the authority in the chain of whoever is judged has signed it.
    pub fn add(&mut self, list: List) {
        self.lists.push(list);
    }

    /// Why one of these counts no more. `roots`: authorities that are not sent along.
    pub fn why<'c>(
        &self,
        chain: impl IntoIterator<Item = &'c CertificateDer<'c>>,
        roots: impl IntoIterator<Item = &'c CertificateDer<'c>>,
    ) -> Option<String> {
        if self.pins.is_empty() && self.serials.is_empty() && self.lists.is_empty() {
            return None;
        }
        let read = |der: &'c CertificateDer<'c>| Some((der, check::facts(der).ok()?));
        let chain: Vec<_> = chain.into_iter().filter_map(read).collect();
        let above: Vec<&CertificateDer<'_>> = chain.iter().map(|(der, _)| *der).chain(roots).collect();
        chain.iter().find_map(|(_, facts)| {
            let named = facts.common_name.as_deref().unwrap_or(&facts.subject);
            let serial = plain(&facts.serial);
            if self.pins.contains(&facts.pin) || self.serials.contains(&serial) {
                return Some(format!("{named} (serial {}) is on our deny list", facts.serial));
            }
            let mut lists = self.lists.iter().filter(|list| list.raw_issuer == facts.raw_issuer);
            let list = lists.find(|list| list.serials.contains(&serial))?;
            // another authority of the same name cannot strike it off
            let made = list.made;
            above.iter().any(|der| list.is_signed_by(der)).then(|| {
                format!("{named} (serial {}) is on the list of {} of {made}", facts.serial, list.issuer)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::pki::make::{Authority, IntermediateSpec, LeafSpec, RootSpec};

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn whoever_is_struck_off_counts_no_more() {
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new("r"), &clock).unwrap();
        let member =
            |name: &str| root.intermediate(&IntermediateSpec::new(name, ["a.example"]), &clock).unwrap();
        let (one, other) = (member("m"), member("m"));
        let leaf = chain(&one.issue(&LeafSpec::new("x", ["a.example"]), &clock).unwrap().chain_pem);
        let roots = chain(&root.cert_pem);
        let facts = check::facts(&leaf[0]).unwrap();
        let why = |revoked: &Revoked| revoked.why(&leaf, &roots);
        assert_eq!(why(&Revoked::default()), None);
        let pin = facts.pin.to_string();
        let colons: Vec<String> = facts
            .serial
            .as_bytes()
            .chunks(2)
            .map(|two| String::from_utf8_lossy(two).to_uppercase())
            .collect();
        for word in [&pin, &facts.serial, &colons.join(":")] {
            let mut revoked = Revoked::default();
            revoked.deny(word).unwrap();
            assert!(why(&revoked).unwrap().contains("x (serial"), "{word}");
        }
        for word in ["", "0", "xyz", "sha256/short", &"1".repeat(65)] {
            assert!(Revoked::default().deny(word).is_err(), "{word}");
        }
        let listed = |authority: &Authority, serials: &[&str]| {
            let mut revoked = Revoked::default();
            revoked.add(List::read(authority.revoke(None, serials, &clock).unwrap().as_bytes()).unwrap());
            why(&revoked)
        };
        assert_eq!(listed(&one, &["01"]), None);
        assert!(listed(&one, &[&facts.serial]).unwrap().contains("on the list of CN=m"));
        // of the same name, with another key
        assert_eq!(listed(&other, &[&facts.serial]), None);
        assert!(listed(&root, &[&one.facts().serial]).unwrap().contains("on the list of CN=r"));
    }

    #[test]
    fn a_list_grows_and_is_numbered() {
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new("r"), &clock).unwrap();
        let read = |pem: &str| List::read(pem.as_bytes()).unwrap();
        let first = read(&root.revoke(None, &["0a1b"], &clock).unwrap());
        let second = read(&root.revoke(Some(&first), &["00ff", "A1B"], &clock).unwrap());
        assert_eq!((first.number, second.number), (Some(1), Some(2)));
        assert_eq!(second.serials, BTreeSet::from(["a1b".to_owned(), "ff".to_owned()]));
        assert!(second.next.unwrap() > second.made);
        let again = List::read(&second.der).unwrap();
        assert_eq!(again.serials, second.serials);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bytes in [&b""[..], b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", &[0x30; 40]] {
            assert!(List::read(bytes).is_err());
        }
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new("r"), &clock).unwrap();
        let made = List::read(root.revoke(None, &["01"], &clock).unwrap().as_bytes()).unwrap();
        let mut longer = made.der.to_vec();
        longer.push(0);
        assert!(List::read(&longer).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_it(bytes: Vec<u8>) {
            let _ = List::read(&bytes);
        }
    }
}
