//! What a certificate says, and what is wrong with it.
//!
//! Pure: certificates and a wall time in, facts and findings out. Whether a path of signatures leads
//! to one of our roots is decided by `tls`, with the rules that stand here. `roamgate pki inspect`
//! prints what [`inspect`] finds.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_HASH_SHA1, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SHA1_WITH_RSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// From when on `inspect` speaks of an end that comes near, in days.
const ALARM_DAYS: i64 = 30;

/// A certificate that cannot be judged at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The peer's move: what it sent is no certificate.
    #[error("not an X.509 certificate: {0}")]
    Unreadable(String),
    /// The peer's move: it sent nothing.
    #[error("no certificate at all")]
    Empty,
    /// The peer's move: a key that the profile does not allow.
    #[error("key of kind {0}; allowed are P-256, P-384 and RSA with 2048 to 4096 bits")]
    Key(String),
    /// The peer's move: a signature that the profile does not allow.
    #[error("signed with {0}; allowed are SHA-256, SHA-384 and SHA-512")]
    Signature(String),
    /// Text that is not a pin.
    #[error("a pin is sha256/ and 44 characters of base64 (a hash of the public key info), not {0:?}")]
    Pin(String),
}

/// SHA-256 over a certificate's SubjectPublicKeyInfo, written `sha256/BASE64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// The pin of a DER-encoded SubjectPublicKeyInfo.
    pub fn of(spki: &[u8]) -> Pin {
        Pin(Sha256::digest(spki).into())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "sha256/{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Pin({self})")
    }
}

impl FromStr for Pin {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Pin, CheckError> {
        let wrong = || CheckError::Pin(text.chars().take(80).collect());
        let hash = BASE64.decode(text.strip_prefix("sha256/").ok_or_else(wrong)?).map_err(|_| wrong())?;
        Ok(Pin(hash.try_into().map_err(|_| wrong())?))
    }
}

/// Which peers are exempt from the rule that the intermediate above them has name constraints.
///
/// A pin exempts one key, and names whom that key may speak for: what an unconstrained intermediate
/// writes into the SAN is worth nothing, because it could write anybody's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerRules {
    allowed_pins: BTreeMap<Pin, Vec<String>>,
    /// Clients may come for whom no root vouches: whoever lets them in asks for a TLSA record.
    pub rootless: bool,
}

impl PeerRules {
    /// Accept this key even without name constraints above it, as the owner of `names` (DNS names,
    /// dots in front and behind do not matter).
    pub fn allow<S: AsRef<str>>(&mut self, pin: Pin, names: impl IntoIterator<Item = S>) {
        let names = names.into_iter().map(|name| plain(name.as_ref()));
        self.allowed_pins.entry(pin).or_default().extend(names.filter(|name| !name.is_empty()));
    }

    /// The names that a pinned key may speak for; `None` for a key that is not pinned.
    pub fn pinned(&self, pin: &Pin) -> Option<&[String]> {
        self.allowed_pins.get(pin).map(Vec::as_slice)
    }
}

/// Who is at the other end, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// DNS names of the SAN in lower case, as written: what it claims.
    pub dns_names: Vec<String>,
    /// Subject CN.
    pub common_name: Option<String>,
    /// Hash of its public key info.
    pub pin: Pin,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Subject of whoever signed it.
    pub issuer: String,
    /// First moment of the leaf.
    pub not_before: Timestamp,
    /// Last moment of the leaf.
    pub not_after: Timestamp,
    /// Last moment at which the leaf and everything sent with it is valid.
    pub valid_until: Timestamp,
    /// Whether a path through an intermediate with critical name constraints was proven. Only
    /// `tls` proves; [`identity`] says `false`.
    pub constrained: bool,
    /// Whom it may speak for: the names of its SAN where `constrained`, and those of its pin.
    /// SenderIDs are bound to these, never to `dns_names`.
    pub names: Vec<String>,
}

impl PeerIdentity {
    /// Whether it may speak for this DNS name (a final dot does not matter; no wildcards).
    pub fn speaks_for(&self, name: &str) -> bool {
        let name = plain(name);
        self.names.contains(&name)
    }

    /// Whether the dates of everything it sent fit: for the check that each request makes.
    pub fn is_valid_at(&self, wall: Timestamp) -> bool {
        self.not_before <= wall && wall <= self.valid_until
    }

    /// The names that it claims and that can be somebody's.
    pub fn claims(&self) -> impl Iterator<Item = &String> {
        self.dns_names.iter().filter(|name| san_fault(name).is_none())
    }

    /// Record what `tls` has proven about the path above the leaf.
    pub fn proven(mut self, constrained: bool, rules: &PeerRules) -> PeerIdentity {
        self.constrained = constrained;
        self.names = rules.pinned(&self.pin).map(<[String]>::to_vec).unwrap_or_default();
        if constrained {
            let usable: Vec<String> = self.claims().cloned().collect();
            self.names.extend(usable);
        }
        self.names.sort();
        self.names.dedup();
        self
    }
}

impl PeerIdentity {
    /// The same below a root that is good for some names only.
    pub fn within(self, scope: &[String], rules: &PeerRules) -> PeerIdentity {
        let mut peer = self.proven(false, rules);
        let in_scope = |name: &&String| scope.iter().any(|one| plain(one) == **name);
        let usable = peer.dns_names.iter().filter(|name| san_fault(name).is_none()).filter(in_scope);
        peer.names.extend(usable.cloned());
        peer.names.sort();
        peer.names.dedup();
        peer
    }
}

/// What the leaf of a chain says about itself. The chain is as sent: leaf first.
pub fn identity(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, CheckError> {
    let (first, above) = chain.split_first().ok_or(CheckError::Empty)?;
    let leaf = facts(first)?;
    let mut valid_until = leaf.not_after;
    for certificate in above {
        let facts = facts(certificate)?;
        // a root that came along is not what the leaf rests on
        if !facts.self_signed {
            valid_until = valid_until.min(facts.not_after);
        }
    }
    Ok(PeerIdentity {
        dns_names: leaf.dns_names,
        common_name: leaf.common_name,
        pin: leaf.pin,
        serial: leaf.serial,
        issuer: leaf.issuer,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        valid_until,
        constrained: false,
        names: Vec::new(),
    })
}

/// The DER-encoded SubjectPublicKeyInfo of a certificate.
pub fn spki(der: &[u8]) -> Result<Vec<u8>, CheckError> {
    Ok(parse(der)?.public_key().raw.to_vec())
}

/// What one certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Subject, as text.
    pub subject: String,
    /// Issuer, as text.
    pub issuer: String,
    /// Subject CN.
    pub common_name: Option<String>,
    /// DNS names of the SAN, lower case.
    pub dns_names: Vec<String>,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Kind of key: `P-256`, `RSA 2048`.
    pub key: String,
    /// Kind of signature above it: `ECDSA SHA-256`.
    pub signature: String,
    /// Hash of the public key info.
    #[serde(serialize_with = "as_text")]
    pub pin: Pin,
    /// First moment.
    #[serde(serialize_with = "as_text")]
    pub not_before: Timestamp,
    /// Last moment.
    #[serde(serialize_with = "as_text")]
    pub not_after: Timestamp,
    /// May sign certificates.
    pub authority: bool,
    /// Subject and issuer are the same.
    pub self_signed: bool,
    /// How many authorities may stand below it.
    pub path_length: Option<u32>,
    /// DNS subtrees that certificates below it may use.
    pub permitted: Vec<String>,
    /// Whether `permitted` binds: critical, and not the empty name (which permits everything).
    pub constrained: bool,
    /// Extended usages: `server`, `client`. Empty: unrestricted.
    pub usages: Vec<String>,
    /// Subject and issuer as encoded: what path building compares.
    #[serde(skip)]
    pub raw_subject: Vec<u8>,
    /// See `raw_subject`.
    #[serde(skip)]
    pub raw_issuer: Vec<u8>,
    #[serde(skip)]
    weak_key: bool,
    #[serde(skip)]
    weak_signature: bool,
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CheckError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| CheckError::Unreadable(error.to_string()))?;
    if rest.is_empty() { Ok(certificate) } else { Err(CheckError::Unreadable("bytes after its end".into())) }
}

/// Read one certificate.
pub fn facts(der: &[u8]) -> Result<Facts, CheckError> {
    let unreadable = |error: x509_parser::error::X509Error| CheckError::Unreadable(error.to_string());
    let certificate = parse(der)?;
    let moment = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|error| CheckError::Unreadable(error.to_string()))
    };
    let mut dns_names = Vec::new();
    if let Some(san) = certificate.subject_alternative_name().map_err(unreadable)? {
        dns_names.extend(san.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }));
    }
    let (mut permitted, mut constrained) = (Vec::new(), false);
    if let Some(constraints) = certificate.name_constraints().map_err(unreadable)? {
        let subtrees = constraints.value.permitted_subtrees.iter().flatten();
        permitted.extend(subtrees.filter_map(|subtree| match subtree.base {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }));
        let binds = permitted.iter().all(|subtree| !plain(subtree).is_empty());
        constrained = constraints.critical && !permitted.is_empty() && binds;
    }
    let mut usages = Vec::new();
    if let Some(usage) = certificate.extended_key_usage().map_err(unreadable)? {
        let usage = usage.value;
        let known = [(usage.server_auth, "server"), (usage.client_auth, "client"), (usage.any, "any")];
        usages.extend(known.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
        if usages.is_empty() {
            usages.push("other".to_owned());
        }
    }
    let basic = certificate.basic_constraints().map_err(unreadable)?.map(|extension| extension.value);
    let common_name = certificate.subject().iter_common_name().next();
    let (key, weak_key) = key_kind(&certificate);
    let (signature, weak_signature) = signature_kind(&certificate);
    Ok(Facts {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
        dns_names,
        serial: hex::encode(certificate.raw_serial()),
        key,
        signature,
        pin: Pin::of(certificate.public_key().raw),
        not_before: moment(certificate.validity().not_before)?,
        not_after: moment(certificate.validity().not_after)?,
        authority: basic.is_some_and(|basic| basic.ca),
        self_signed: certificate.subject().as_raw() == certificate.issuer().as_raw(),
        path_length: basic.and_then(|basic| basic.path_len_constraint),
        permitted,
        constrained,
        usages,
        raw_subject: certificate.subject().as_raw().to_vec(),
        raw_issuer: certificate.issuer().as_raw().to_vec(),
        weak_key,
        weak_signature,
    })
}

/// Refuse keys and signatures that the profile does not allow. A root's own signature proves
/// nothing and is not looked at.
pub fn acceptable(facts: &Facts) -> Result<(), CheckError> {
    if facts.weak_key {
        return Err(CheckError::Key(facts.key.clone()));
    }
    if facts.weak_signature && !facts.self_signed {
        return Err(CheckError::Signature(facts.signature.clone()));
    }
    Ok(())
}

/// Name of the key's kind, and whether the profile refuses it.
fn key_kind(certificate: &X509Certificate<'_>) -> (String, bool) {
    let info = certificate.public_key();
    if info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 => ("P-256".into(), false),
            Some(curve) if curve == OID_NIST_EC_P384 => ("P-384".into(), false),
            Some(curve) => (format!("elliptic curve {curve}"), true),
            None => ("elliptic curve without a name".into(), true),
        };
    }
    if info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        let bits = match info.parsed() {
            Ok(PublicKey::RSA(key)) => key.key_size(),
            _ => 0,
        };
        return (format!("RSA {bits}"), !(2048..=4096).contains(&bits));
    }
    (format!("OID {}", info.algorithm.algorithm), true)
}

/// Name of the signature's kind, and whether the profile refuses it.
fn signature_kind(certificate: &X509Certificate<'_>) -> (String, bool) {
    let oid = &certificate.signature_algorithm.algorithm;
    let known = [
        (OID_SIG_ECDSA_WITH_SHA256, "ECDSA SHA-256", false),
        (OID_SIG_ECDSA_WITH_SHA384, "ECDSA SHA-384", false),
        (OID_SIG_ECDSA_WITH_SHA512, "ECDSA SHA-512", false),
        (OID_PKCS1_SHA256WITHRSA, "RSA SHA-256", false),
        (OID_PKCS1_SHA384WITHRSA, "RSA SHA-384", false),
        (OID_PKCS1_SHA512WITHRSA, "RSA SHA-512", false),
        // which hash it is stands in the parameters; the TLS library takes SHA-2 only
        (OID_PKCS1_RSASSAPSS, "RSA-PSS", false),
        (OID_PKCS1_SHA1WITHRSA, "RSA SHA-1", true),
        (OID_SHA1_WITH_RSA, "RSA SHA-1", true),
        (OID_HASH_SHA1, "SHA-1", true),
    ];
    let found = known.iter().find(|(known, ..)| known == oid);
    found.map_or_else(|| (format!("OID {oid}"), true), |(_, name, weak)| ((*name).to_owned(), *weak))
}

/// A name as names are compared: lower case, without dots around it.
fn plain(name: &str) -> String {
    name.trim_matches('.').to_ascii_lowercase()
}

/// Whether a DNS name lies in one of the subtrees (the subtree's own name included).
pub fn is_within(name: &str, subtrees: &[String]) -> bool {
    let name = plain(name);
    subtrees
        .iter()
        .map(|subtree| plain(subtree))
        .any(|subtree| name == subtree || name.strip_suffix(&subtree).is_some_and(|left| left.ends_with('.')))
}

/// Why a SAN entry can never be anybody's name here.
fn san_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("an empty SAN entry names nobody"),
        name if name.ends_with('.') => Some("a SAN entry that ends with a dot never matches"),
        name if name.starts_with("*.") => Some(
            "a wildcard stands for exactly one label, and a JoinEUI name has 16 of them: it never matches one",
        ),
        name if name.contains('*') => Some("a wildcard inside a name never matches"),
        _ => None,
    }
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Works, and could be better.
    Hint,
    /// Partners will refuse it.
    Fault,
}

/// One thing to know about a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// What is the case.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// What [`inspect`] has to say about one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The certificates in the order of the file.
    pub certificates: Vec<Facts>,
    /// Faults first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether partners would accept it.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.weight < Weight::Fault)
    }

    fn fault(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding { weight: Weight::Fault, what: what.into(), remedy: remedy.into() });
    }

    fn hint(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding { weight: Weight::Hint, what: what.into(), remedy: remedy.into() });
    }
}

/// Look at a file of certificates as its owner wants to use it: a chain to send (leaf, then
/// intermediate), or an authority's own certificate.
///
/// `key` is the SubjectPublicKeyInfo (DER) of the private key that belongs to it, where known.
pub fn inspect(
    chain: &[CertificateDer<'_>],
    key: Option<&[u8]>,
    roots: &[CertificateDer<'_>],
    wall: Timestamp,
) -> Report {
    let mut report = Report { certificates: Vec::new(), findings: Vec::new() };
    for (place, der) in chain.iter().enumerate() {
        match facts(der) {
            Ok(facts) => report.certificates.push(facts),
            Err(error) => report.fault(
                format!("certificate {} of the file: {error}", place + 1),
                "make the file again; each part is a PEM block named CERTIFICATE",
            ),
        }
    }
    let all = report.certificates.clone();
    if all.len() == chain.len() {
        match all.first() {
            None => report.fault("the file holds no certificate", "name a PEM file with CERTIFICATE blocks"),
            Some(first) => {
                dates(&mut report, &all, wall);
                kinds(&mut report, &all);
                order(&mut report, chain, &all, roots);
                anchor(&mut report, chain, &all, roots, wall);
                if let Some(leaf) = all.iter().find(|facts| !facts.authority) {
                    names(&mut report, leaf);
                    constraints(&mut report, leaf, &all, roots);
                    usages(&mut report, leaf);
                }
                if key.is_some_and(|spki| Pin::of(spki) != first.pin) {
                    report.fault(
                        format!("the private key does not belong to {}", first.subject),
                        "use the key that was made with this certificate, or issue a new pair",
                    );
                }
            }
        }
    }
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    report
}

/// Days from `from` to `to`, rounded down.
fn days(from: Timestamp, to: Timestamp) -> i64 {
    (to.as_second() - from.as_second()).div_euclid(86_400)
}

fn dates(report: &mut Report, all: &[Facts], wall: Timestamp) {
    for facts in all {
        let who = &facts.subject;
        if wall < facts.not_before {
            report.fault(
                format!("{who} is not valid before {}", facts.not_before),
                "wait, or set this machine's clock (GPS or NTP) if it is behind",
            );
        } else if wall > facts.not_after {
            report.fault(
                format!("{who} expired {} days ago, on {}", days(facts.not_after, wall), facts.not_after),
                if facts.self_signed {
                    "ask the federation for its new root; an expired root vouches for nobody"
                } else {
                    "issue a new one"
                },
            );
        } else if days(wall, facts.not_after) < ALARM_DAYS {
            report.hint(
                format!("{who} ends in {} days, on {}", days(wall, facts.not_after), facts.not_after),
                "renew it now",
            );
        }
    }
}

fn kinds(report: &mut Report, all: &[Facts]) {
    for facts in all {
        if let Err(error) = acceptable(facts) {
            report.fault(
                format!("{}: {error}", facts.subject),
                "make it again with `roamgate pki` (ECDSA P-256)",
            );
        }
        if facts.common_name.as_ref().is_some_and(|name| name.chars().count() > 64) {
            report.fault(
                format!("the CN of {} has more than 64 characters", facts.subject),
                "put names into the SAN and a short text, such as the NetID, into the CN",
            );
        }
    }
}

/// Leaf first, then whoever signed it, and so on; no root.
fn order(report: &mut Report, chain: &[CertificateDer<'_>], all: &[Facts], roots: &[CertificateDer<'_>]) {
    let leaves = all.iter().filter(|facts| !facts.authority).count();
    if leaves == 0 {
        return;
    }
    if leaves > 1 {
        report.fault(
            format!("{leaves} certificates of the file are no authorities"),
            "keep one leaf and the intermediate that signed it",
        );
    }
    if all.first().is_some_and(|first| first.authority) {
        report.fault(
            "wrong order: the file does not begin with the leaf",
            "put the leaf first, then the intermediate: cat leaf.pem intermediate.pem > chain.pem",
        );
        return;
    }
    if let ([leaf], [der]) = (all, chain)
        && !roots.iter().any(|root| is_signed_by(der, root))
    {
        report.fault(
            format!("the intermediate is missing: nothing here is {}, which signed the leaf", leaf.issuer),
            "append it to the leaf (cat leaf.pem intermediate.pem > chain.pem); without it a partner sees an unknown authority",
        );
    }
    for (place, pair) in all.windows(2).enumerate() {
        let [below, above] = pair else { continue };
        let signed = match (chain.get(place), chain.get(place + 1)) {
            (Some(below), Some(above)) => is_signed_by(below, above),
            _ => false,
        };
        if below.raw_issuer != above.raw_subject || !signed {
            report.fault(
                format!("{} was not signed by {}, which follows it", below.subject, above.subject),
                format!("let {} follow it", below.issuer),
            );
        }
    }
    if all.len() > 1 && all.last().is_some_and(|last| last.self_signed) {
        report.hint(
            "the file ends with a root, which is sent for nothing: partners trust only the roots they store",
            "leave the root out of the chain",
        );
    }
}

/// The public key of a certificate, as its SubjectPublicKeyInfo holds it.
pub fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    Some(parse(der).ok()?.public_key().subject_public_key.data.to_vec())
}

/// Whether `above` has made the signature on `below`.
pub fn is_signed_by(below: &[u8], above: &[u8]) -> bool {
    match (parse(below), parse(above)) {
        (Ok(below), Ok(above)) => below.verify_signature(Some(above.public_key())).is_ok(),
        _ => false,
    }
}

/// Does it end at one of the roots?
fn anchor(
    report: &mut Report,
    chain: &[CertificateDer<'_>],
    all: &[Facts],
    roots: &[CertificateDer<'_>],
    wall: Timestamp,
) {
    // The topmost that is no root itself; an authority's own file may hold just a root.
    let top = all.iter().zip(chain).rev().find(|(facts, _)| !facts.self_signed);
    let Some((top, der)) = top else { return };
    if roots.is_empty() {
        report.hint(
            "no root was given, so whether the chain ends at a trusted one was not checked",
            "name the federation's root with --root",
        );
        return;
    }
    let known: Vec<_> = roots.iter().filter_map(|root| Some((facts(root).ok()?, root))).collect();
    let vouching = known
        .iter()
        .find(|(root, root_der)| root.raw_subject == top.raw_issuer && is_signed_by(der, root_der));
    match vouching {
        Some((root, _)) if wall > root.not_after => report.fault(
            format!("the root {} expired on {}", root.subject, root.not_after),
            "ask the federation for its new root; an expired root vouches for nobody",
        ),
        Some(_) => {}
        // a leaf on top is a missing intermediate, which `order` reports
        None if !top.authority => {}
        None => report.fault(
            format!("{} was signed by {}, which is none of the roots", top.subject, top.issuer),
            "it belongs to another federation, or the wrong root was given",
        ),
    }
}

fn names(report: &mut Report, leaf: &Facts) {
    for name in &leaf.dns_names {
        if let Some(fault) = san_fault(name) {
            report.fault(
                format!("SAN {name:?}: {fault}"),
                "issue it again with the full names: `pki issue --net-id ... --join-eui ...`",
            );
        }
    }
    if leaf.dns_names.is_empty() {
        report.fault(
            "the SAN holds no DNS name; a name in the CN alone is nobody's",
            "issue it again with `pki issue`; a partner with such a certificate needs an entry with a pin",
        );
    }
}

fn constraints(report: &mut Report, leaf: &Facts, all: &[Facts], roots: &[CertificateDer<'_>]) {
    let above = all.iter().find(|facts| facts.authority && facts.raw_subject == leaf.raw_issuer);
    let Some(above) = above.filter(|above| !above.self_signed) else {
        let direct = roots
            .iter()
            .filter_map(|root| facts(root).ok())
            .any(|root| root.self_signed && !root.constrained && root.raw_subject == leaf.raw_issuer);
        if direct || above.is_some() {
            report.fault(
                "signed by the root itself, with no intermediate that limits its names",
                format!("issue it under an intermediate; partners need a pin until then: {}", leaf.pin),
            );
        }
        return;
    };
    if !above.constrained {
        report.fault(
            format!("{} carries no critical name constraints: it could name anybody", above.subject),
            format!(
                "ask the federation for an intermediate made by `pki intermediate`; until then partners need pin = \"{}\"",
                leaf.pin
            ),
        );
        return;
    }
    let foreign = leaf.dns_names.iter().filter(|name| !is_within(name, &above.permitted));
    for name in foreign.filter(|name| san_fault(name).is_none()) {
        report.fault(
            format!("{name} is not within the names that {} may give", above.subject),
            "leave the name out, or ask the federation for an intermediate that covers it",
        );
    }
}

fn usages(report: &mut Report, leaf: &Facts) {
    let has = |usage: &str| leaf.usages.iter().any(|has| has == usage || has == "any");
    let missing = match (has("server"), has("client")) {
        _ if leaf.usages.is_empty() => return,
        (true, true) => return,
        (true, false) => "good for a server only; as a client partners will refuse it",
        (false, true) => "good for a client only; as a server partners will refuse it",
        (false, false) => "good for neither server nor client",
    };
    report.hint(missing, "issue it with both usages, or keep a second pair for the other direction");
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use rustls_pki_types::pem::PemObject;

    use super::super::make::{Authority, IntermediateSpec, LeafSpec, RootSpec};
    use super::*;
    use crate::clock::Clock;

    const OURS: &str = "c0002f.netids.iot.example";

    fn certs(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    /// Root, member, and a leaf of the member as `spec` says.
    fn federation(
        spec: &LeafSpec,
    ) -> (Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>, Authority) {
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new("root"), &clock).unwrap();
        let member = root.intermediate(&IntermediateSpec::new("member", [OURS]), &clock).unwrap();
        let chain = certs(&member.issue(spec, &clock).unwrap().chain_pem);
        (chain, certs(&root.cert_pem), root)
    }

    fn good() -> LeafSpec {
        LeafSpec::new("c0002f", [OURS])
    }

    fn odd(names: &[&str]) -> LeafSpec {
        LeafSpec { unchecked: true, ..LeafSpec::new("c0002f", names.iter().copied()) }
    }

    fn now() -> Timestamp {
        Clock::system().wall()
    }

    fn says(report: &Report, weight: Weight, words: &str) {
        let found =
            report.findings.iter().any(|finding| finding.weight == weight && finding.what.contains(words));
        assert!(found, "{words}: {:#?}", report.findings);
        assert_eq!(report.is_good(), report.findings.iter().all(|finding| finding.weight == Weight::Hint));
    }

    #[test]
    fn a_good_chain_has_no_findings() {
        let (chain, roots, _) = federation(&good());
        assert_eq!(inspect(&chain, None, &roots, now()).findings, []);
        assert_eq!(inspect(&roots, None, &roots, now()).findings, []);
        assert_eq!(inspect(&chain[1..], None, &roots, now()).findings, []);
    }

    #[test]
    fn each_known_defect_is_called_by_its_name() {
        let (chain, roots, root) = federation(&good());
        let look = |chain: &[CertificateDer<'_>]| inspect(chain, None, &roots, now());
        says(&look(&chain[..1]), Weight::Fault, "the intermediate is missing");
        says(&inspect(&chain[..1], None, &[], now()), Weight::Fault, "the intermediate is missing");
        let reversed: Vec<_> = chain.iter().rev().cloned().collect();
        says(&look(&reversed), Weight::Fault, "wrong order");
        let with_root: Vec<_> = chain.iter().chain(&roots).cloned().collect();
        says(&look(&with_root), Weight::Hint, "ends with a root");
        says(&look(&[]), Weight::Fault, "no certificate");
        says(&look(&[CertificateDer::from(vec![0x30, 0])]), Weight::Fault, "not an X.509 certificate");

        says(&look(&federation(&odd(&["*.joineui.iot.example"])).0), Weight::Fault, "matches one");
        says(&look(&federation(&odd(&[""])).0), Weight::Fault, "empty SAN");
        says(&look(&federation(&odd(&["c0002f.netids.iot.example."])).0), Weight::Fault, "ends with a dot");
        says(&look(&federation(&odd(&[])).0), Weight::Fault, "holds no DNS name");
        says(
            &look(&federation(&odd(&["000001.netids.iot.example"])).0),
            Weight::Fault,
            "not within the names",
        );
        let client = LeafSpec { server: false, ..good() };
        says(&look(&federation(&client).0), Weight::Hint, "for a client only");

        let (_, others, _) = federation(&good());
        says(&inspect(&chain, None, &others, now()), Weight::Fault, "none of the roots");
        let other_key = parse(&chain[1]).unwrap().public_key().raw.to_vec();
        says(&inspect(&chain, Some(&other_key), &roots, now()), Weight::Fault, "private key does not belong");
        let own_key = parse(&chain[0]).unwrap().public_key().raw.to_vec();
        assert!(inspect(&chain, Some(&own_key), &roots, now()).is_good());

        let clock = Clock::system();
        let anybody = IntermediateSpec { unconstrained: true, ..IntermediateSpec::new("anybody", [OURS]) };
        let anybody = root.intermediate(&anybody, &clock).unwrap();
        let chain = certs(&anybody.issue(&good(), &clock).unwrap().chain_pem);
        says(&look(&chain), Weight::Fault, "no critical name constraints");
        let direct = certs(&root.issue(&good(), &clock).unwrap().chain_pem);
        says(&look(&direct), Weight::Fault, "signed by the root itself");
    }

    #[test]
    fn dates_are_told_in_time() {
        let (chain, roots, _) = federation(&good());
        let at = |days: i64| inspect(&chain, None, &roots, now() + SignedDuration::from_hours(24 * days + 1));
        assert!(at(360).findings.is_empty());
        says(&at(380), Weight::Hint, "ends in 17 days");
        says(&at(400), Weight::Fault, "expired 2 days ago");
        says(&at(-1), Weight::Fault, "not valid before");
        says(&at(365 * 21), Weight::Fault, "the root CN=root expired");
    }

    #[test]
    fn a_name_lies_in_a_subtree_by_whole_labels() {
        let trees = [".C0002F.netids.iot.example.".to_owned()];
        assert!(is_within(OURS, &trees) && is_within("ns.c0002f.netids.iot.example.", &trees));
        assert!(!is_within("ac0002f.netids.iot.example", &trees) && !is_within("netids.iot.example", &trees));
    }

    #[test]
    fn only_whole_names_of_a_proven_leaf_are_spoken_for() {
        let (chain, ..) = federation(&odd(&[OURS, "*.c0002f.netids.iot.example", "", "a.iot.example."]));
        let peer = identity(&chain).unwrap();
        assert!(!peer.speaks_for(OURS));
        let peer = peer.proven(true, &PeerRules::default());
        assert_eq!(peer.names, [OURS]);
        assert!(peer.speaks_for("C0002F.netids.iot.example."));
        assert!(!peer.speaks_for(""));
    }

    #[test]
    fn a_pin_is_read_as_it_is_written() {
        let pin = Pin::of(b"key");
        assert_eq!(pin.to_string().parse::<Pin>(), Ok(pin));
        for wrong in ["", "sha256/", "sha256/AAAA", "sha1/AAAA", &pin.to_string()[7..]] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_old_rsa_certificate_with_sha_1_is_refused() {
        let bytes =
            CertificateDer::from_pem_slice(include_bytes!("../../tests/fixtures/pki/rsa-1024-sha1.pem"));
        let facts = facts(&bytes.unwrap()).unwrap();
        assert_eq!((facts.key.as_str(), facts.signature.as_str()), ("RSA 1024", "RSA SHA-1"));
        assert!(matches!(acceptable(&facts), Err(CheckError::Key(_))));
        for (file, key) in [
            (&include_bytes!("../../tests/fixtures/pki/rsa-2048.pem")[..], "RSA 2048"),
            (&include_bytes!("../../tests/fixtures/pki/p-384.pem")[..], "P-384"),
        ] {
            let facts = super::facts(&CertificateDer::from_pem_slice(file).unwrap()).unwrap();
            assert_eq!(facts.key, key);
            acceptable(&facts).unwrap();
        }
        let curve = include_bytes!("../../tests/fixtures/pki/ed25519.pem");
        let facts = super::facts(&CertificateDer::from_pem_slice(curve).unwrap()).unwrap();
        assert!(matches!(acceptable(&facts), Err(CheckError::Key(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let chain = [CertificateDer::from(bytes)];
            prop_assert!(!inspect(&chain, None, &chain, Timestamp::UNIX_EPOCH).is_good());
            prop_assert!(identity(&chain).is_err());
        }

        #[test]
        fn a_damaged_certificate_is_judged_without_a_panic(at in 0_usize..400, value in any::<u8>()) {
            static CHAIN: std::sync::LazyLock<Vec<CertificateDer<'static>>> =
                std::sync::LazyLock::new(|| federation(&good()).0);
            let mut leaf = CHAIN[0].to_vec();
            let at = at % leaf.len();
            leaf[at] = value;
            let chain = [CertificateDer::from(leaf), CHAIN[1].clone()];
            let _ = inspect(&chain, None, &chain, now());
            let _ = identity(&chain);
        }
    }
}
