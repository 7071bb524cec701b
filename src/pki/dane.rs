//! What TLSA records say of a certificate (RFC 6698, RFC 7671), and what it counts.
//!
//! Pure. Usages 2 (an authority) and 3 (this very key) are understood; 0 and 1 strengthen the public PKI, which has no part in
//! a federation. Whoever gives records here has them by DNSSEC.

use std::fmt;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

use super::check;

/// Records looked at; a set of more is nobody's roll-over.
pub const MOST: usize = 16;

/// Whose word counts for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// A root's.
    Pkix,
    /// A TLSA record's.
    Dane,
    /// Both's.
    PkixAndDane,
    /// Either's.
    PkixOrDane,
    /// A root's, and a TLSA record's where there is one: what `[discovery] dane = "prefer"` means.
    PkixAndDaneIfAny,
}

impl Evidence {
    /// Whether records are to be asked for.
    pub fn asks(self) -> bool {
        self != Evidence::Pkix
    }

    /// Whether a certificate may do for which no root vouches.
    pub fn is_rootless(self) -> bool {
        matches!(self, Evidence::Dane | Evidence::PkixOrDane)
    }

    /// What comes of a root's word and the records' (`None`: there are none, or none that DNSSEC proves).
    pub fn judge<E>(self, pkix: Result<(), E>, dane: Option<bool>) -> Result<(), Denied<E>> {
        let by_record = match dane {
            Some(true) => Ok(()),
            Some(false) => Err(Denied::OtherKey),
            None => Err(Denied::NoRecord),
        };
        match self {
            Evidence::Pkix => pkix.map_err(Denied::Pkix),
            Evidence::Dane => by_record,
            Evidence::PkixAndDane => pkix.map_err(Denied::Pkix).and(by_record),
            Evidence::PkixOrDane => match (pkix, by_record) {
                (Ok(()), _) | (_, Ok(())) => Ok(()),
                (Err(error), Err(_)) => Err(Denied::Pkix(error)),
            },
            Evidence::PkixAndDaneIfAny => match dane {
                Some(false) => pkix.map_err(Denied::Pkix).and(by_record),
                Some(true) | None => pkix.map_err(Denied::Pkix),
            },
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Evidence::Pkix => "a root",
            Evidence::Dane => "a TLSA record",
            Evidence::PkixAndDane => "a root and a TLSA record",
            Evidence::PkixOrDane => "a root or a TLSA record",
            Evidence::PkixAndDaneIfAny => "a root, and a TLSA record where there is one",
        })
    }
}

/// Why a certificate does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied<E> {
    /// What the chain to a root lacks.
    Pkix(E),
    /// There are records, and none of them is of this certificate.
    OtherKey,
    /// There are no records that DNSSEC proves.
    NoRecord,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tlsa {
    usage: Usage,
    selector: Selector,
    matching: Matching,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Usage {
    Authority,
    Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Selector {
    Certificate,
    PublicKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Matching {
    Full,
    Sha256,
    Sha512,
}

impl Tlsa {
    /// From the numbers of a record; `None`: it is of a kind that we do not use, or its hash has the wrong length.
    pub fn read(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Option<Tlsa> {
        let usage = match usage {
            2 => Usage::Authority,
            3 => Usage::Key,
            _ => return None,
        };
        let selector = match selector {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return None,
        };
        let (matching, fits) = match matching {
            0 => (Matching::Full, !data.is_empty()),
            1 => (Matching::Sha256, data.len() == 32),
            2 => (Matching::Sha512, data.len() == 64),
            _ => return None,
        };
        fits.then(|| Tlsa { usage, selector, matching, data: data.to_vec() })
    }

    /// Whether this very key is meant, whoever has signed its certificate.
    pub fn is_of_key(&self, leaf: &CertificateDer<'_>) -> bool {
        self.usage == Usage::Key && self.matches(leaf)
    }

    /// Whether this authority is meant, below which a certificate may stand.
    pub fn is_of_authority(&self, certificate: &CertificateDer<'_>) -> bool {
        self.usage == Usage::Authority && self.matches(certificate)
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let selected: Vec<u8> = match self.selector {
            Selector::Certificate => certificate.to_vec(),
            Selector::PublicKey => match check::spki(certificate) {
                Ok(spki) => spki,
                Err(_) => return false,
            },
        };
        match self.matching {
            Matching::Full => selected == self.data,
            Matching::Sha256 => Sha256::digest(&selected).as_slice() == self.data,
            Matching::Sha512 => Sha512::digest(&selected).as_slice() == self.data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_word_counts_is_a_table() {
        use Denied::{NoRecord, OtherKey, Pkix};
        let (good, bad) = (Ok(()), Err("no root"));
        let table = [
            //                     root    record fits    another         none
            (Evidence::Pkix, good, Ok(()), Ok(()), Ok(())),
            (Evidence::Pkix, bad, Err(Pkix("no root")), Err(Pkix("no root")), Err(Pkix("no root"))),
            (Evidence::Dane, good, Ok(()), Err(OtherKey), Err(NoRecord)),
            (Evidence::Dane, bad, Ok(()), Err(OtherKey), Err(NoRecord)),
            (Evidence::PkixAndDane, good, Ok(()), Err(OtherKey), Err(NoRecord)),
            (Evidence::PkixAndDane, bad, Err(Pkix("no root")), Err(Pkix("no root")), Err(Pkix("no root"))),
            (Evidence::PkixOrDane, good, Ok(()), Ok(()), Ok(())),
            (Evidence::PkixOrDane, bad, Ok(()), Err(Pkix("no root")), Err(Pkix("no root"))),
            (Evidence::PkixAndDaneIfAny, good, Ok(()), Err(OtherKey), Ok(())),
            (
                Evidence::PkixAndDaneIfAny,
                bad,
                Err(Pkix("no root")),
                Err(Pkix("no root")),
                Err(Pkix("no root")),
            ),
        ];
        for (evidence, pkix, fits, other, none) in table {
            assert_eq!(evidence.judge(pkix, Some(true)), fits, "{evidence:?} {pkix:?}");
            assert_eq!(evidence.judge(pkix, Some(false)), other, "{evidence:?} {pkix:?}");
            assert_eq!(evidence.judge(pkix, None), none, "{evidence:?} {pkix:?}");
        }
    }

    #[test]
    fn a_record_of_another_kind_or_length_is_none() {
        for (usage, selector, matching, length) in [
            (0, 1, 1, 32),
            (1, 1, 1, 32),
            (4, 1, 1, 32),
            (3, 2, 1, 32),
            (3, 1, 3, 32),
            (3, 1, 1, 31),
            (3, 1, 2, 32),
            (2, 0, 0, 0),
        ] {
            assert_eq!(Tlsa::read(usage, selector, matching, &vec![7; length]), None);
        }
        assert!(Tlsa::read(3, 1, 1, &[7; 32]).is_some() && Tlsa::read(2, 0, 2, &[7; 64]).is_some());
    }
}
