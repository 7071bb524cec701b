//! Keys and certificates: root, intermediate, leaf (`roamgate pki root|intermediate|issue`).
//!
//! ECDSA P-256 throughout, keys as PKCS#8 PEM in files of mode 0600. Names arrive as finished DNS
//! names and subtrees; who composes them knows what a NetID is. An intermediate without name
//! constraints is not made, and a leaf that its intermediate's constraints forbid neither.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::clock::Clock;

use super::check::{self, CheckError, Facts};
use super::name::{NameError, dns_name, dns_subtree};
use super::request::Request;
use super::revoke::{List, Revoked};

/// Life of a root: 20 years.
pub const ROOT_DAYS: u32 = 20 * 365 + 5;
/// Life of an intermediate: 5 years.
pub const INTERMEDIATE_DAYS: u32 = 5 * 365 + 1;
/// Life of a leaf, and the most that one may have.
pub const LEAF_DAYS: u32 = 398;
/// A list of what was struck off is to be replaced after so long.
pub const LIST_DAYS: u32 = 30;
/// No certificate lives longer than a century.
const MOST_DAYS: u32 = 36_525;
/// How far before now a certificate begins: partners' clocks may be behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// Why nothing was made. All are the operator's move.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// An intermediate without name constraints.
    #[error(
        "an intermediate without name constraints could name anybody; say which names its owner has \
         (--net-id, --join-eui or --host)"
    )]
    Unconstrained,
    /// Not a DNS name, or one that does not belong into a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The intermediate may not give this name.
    #[error("{name} is not within the names that {issuer} may give ({permitted}); partners would refuse it")]
    Foreign {
        /// The name.
        name: String,
        /// The intermediate.
        issuer: String,
        /// Its subtrees.
        permitted: String,
    },
    /// A leaf that no partner could name.
    #[error("a leaf needs at least one name; say which (--net-id, --join-eui or --host)")]
    Nameless,
    /// The CN does not fit.
    #[error("a common name has 1 to 64 characters, not {0}; names belong into the SAN")]
    CommonName(usize),
    /// Lives too long.
    #[error("a life of {days} days is too long; at most {most}")]
    TooLong {
        /// As given.
        days: u32,
        /// What is allowed.
        most: u32,
    },
    /// A day that no certificate can carry.
    #[error("the clock says {0}, which no certificate can carry")]
    Clock(Timestamp),
    /// The authority's own end has come.
    #[error("{issuer} ended on {not_after}; make a new one first")]
    Ended {
        /// Its subject.
        issuer: String,
        /// Its end.
        not_after: Timestamp,
    },
    /// A certificate that may not do this.
    #[error("{0} may not sign {1}")]
    NotAllowed(String, &'static str),
    /// The authority's certificate cannot be used.
    #[error("authority's certificate: {0}")]
    Authority(#[from] CheckError),
    /// The authority's key is another's.
    #[error("the key does not belong to {0}")]
    OtherKey(String),
    /// What names no certificate.
    #[error("{0}")]
    Serial(String),
    /// The library that encodes.
    #[error("cannot make it: {0}")]
    Encode(#[from] rcgen::Error),
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that is there already.
    #[error("{} exists and is not overwritten; name another folder, or say --force", .0.display())]
    Exists(PathBuf),
}

/// What a root is to be.
#[derive(Debug, Clone)]
pub struct RootSpec {
    /// Subject CN. Two federations should not share one.
    pub name: String,
    /// Life in days.
    pub days: u32,
    /// First moment; an hour ago if `None`.
    pub not_before: Option<Timestamp>,
}

impl RootSpec {
    /// A root with the usual life.
    pub fn new(name: impl Into<String>) -> RootSpec {
        RootSpec { name: name.into(), days: ROOT_DAYS, not_before: None }
    }
}

/// What an intermediate is to be.
#[derive(Debug, Clone)]
pub struct IntermediateSpec {
    /// Subject CN: the institution.
    pub name: String,
    /// DNS names that it may give, each with everything below it.
    pub subtrees: Vec<String>,
    /// Life in days.
    pub days: u32,
    /// First moment; an hour ago if `None`.
    pub not_before: Option<Timestamp>,
    /// The key (PEM) that it has already, where it goes on below another root; a new one if `None`.
    pub key: Option<Zeroizing<String>>,
    /// Leave the name constraints out. Every Roamgate refuses the result unless it pins the leaf:
    /// this exists so that the refusal can be tested.
    pub unconstrained: bool,
}

impl IntermediateSpec {
    /// An intermediate for these subtrees, with the usual life.
    pub fn new<S: Into<String>>(
        name: impl Into<String>,
        subtrees: impl IntoIterator<Item = S>,
    ) -> IntermediateSpec {
        IntermediateSpec {
            name: name.into(),
            subtrees: subtrees.into_iter().map(Into::into).collect(),
            days: INTERMEDIATE_DAYS,
            not_before: None,
            key: None,
            unconstrained: false,
        }
    }
}

/// What a leaf is to be.
#[derive(Debug, Clone)]
pub struct LeafSpec {
    /// Subject CN: the NetID in six lower-case digits, or a short text.
    pub common_name: String,
    /// DNS names of the SAN.
    pub dns_names: Vec<String>,
    /// Life in days. It ends with its intermediate at the latest.
    pub days: u32,
    /// First moment; an hour ago if `None`.
    pub not_before: Option<Timestamp>,
    /// Good for a server.
    pub server: bool,
    /// Good for a client.
    pub client: bool,
    /// Make what is asked for even if partners will refuse it, so that the refusal can be tested.
    pub unchecked: bool,
}

impl LeafSpec {
    /// A leaf for both directions, with the usual life.
    pub fn new<S: Into<String>>(
        common_name: impl Into<String>,
        dns_names: impl IntoIterator<Item = S>,
    ) -> LeafSpec {
        LeafSpec {
            common_name: common_name.into(),
            dns_names: dns_names.into_iter().map(Into::into).collect(),
            days: LEAF_DAYS,
            not_before: None,
            server: true,
            client: true,
            unchecked: false,
        }
    }
}

/// An authority: its certificate and the key that signs.
#[derive(Clone)]
pub struct Authority {
    /// One certificate.
    pub cert_pem: String,
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
    facts: Facts,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Authority({})", self.facts.subject)
    }
}

/// What a node shows to its peers.
#[derive(Clone)]
pub struct Identity {
    /// Leaf, then the intermediate that signed it.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Identity")
    }
}

impl Authority {
    /// Make a federation's root.
    pub fn root(spec: &RootSpec, clock: &Clock) -> Result<Authority, MakeError> {
        let mut params = params(&spec.name, spec.days, spec.not_before, MOST_DAYS, None, clock)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Authority::new(certificate.pem(), Zeroizing::new(key.serialize_pem()))
    }

    /// Make an institution's intermediate, signed by this root.
    pub fn intermediate(&self, spec: &IntermediateSpec, clock: &Clock) -> Result<Authority, MakeError> {
        if self.facts.path_length == Some(0) {
            return Err(MakeError::NotAllowed(self.facts.subject.clone(), "another intermediate"));
        }
        let mut params = params(&spec.name, spec.days, spec.not_before, MOST_DAYS, Some(&self.facts), clock)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if !spec.unconstrained {
            let subtrees = spec.subtrees.iter().map(|subtree| dns_subtree(subtree));
            let permitted = subtrees.collect::<Result<Vec<_>, _>>()?;
            if permitted.is_empty() {
                return Err(MakeError::Unconstrained);
            }
            // rcgen marks the extension critical
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: permitted.into_iter().map(GeneralSubtree::DnsName).collect(),
                excluded_subtrees: Vec::new(),
            });
        }
        let (certificate, key) = self.sign(&params, spec.key.clone())?;
        Authority::new(certificate, key)
    }

    /// Make a node's leaf, signed by this intermediate.
    pub fn issue(&self, spec: &LeafSpec, clock: &Clock) -> Result<Identity, MakeError> {
        let (leaf, key_pem) = self.sign(&self.leaf(spec, clock)?, None)?;
        Ok(Identity { chain_pem: self.chained(leaf), key_pem })
    }

    /// The same for a key that somebody else keeps: leaf, then this intermediate (PEM).
    pub fn issue_for(&self, request: &Request, spec: &LeafSpec, clock: &Clock) -> Result<String, MakeError> {
        let params = self.leaf(spec, clock)?;
        let leaf = params.signed_by(request.key(), &self.issuer()?)?;
        Ok(self.chained(leaf.pem()))
    }

    /// Make the list (PEM) of what this authority has struck off: what the one before named, and these serial numbers (hex
    /// digits).
    pub fn revoke<S: AsRef<str>>(
        &self,
        before: Option<&List>,
        serials: &[S],
        clock: &Clock,
    ) -> Result<String, MakeError> {
        let known = before.iter().flat_map(|before| before.serials.iter().map(String::as_str));
        let all: Vec<&str> = known.chain(serials.iter().map(AsRef::as_ref)).collect();
        let number = before.and_then(|before| before.number).unwrap_or(0).saturating_add(1);
        self.revoke_as(number, &all, clock)
    }

    /// The list of these serial numbers and no others, with this number of its own, which is to go up with every list.
    pub fn revoke_as<S: AsRef<str>>(
        &self,
        number: u64,
        serials: &[S],
        clock: &Clock,
    ) -> Result<String, MakeError> {
        let wall = clock.wall();
        let next = wall.checked_add(SignedDuration::from_hours(24 * i64::from(LIST_DAYS)));
        let next = next.map_err(|_| MakeError::Clock(wall))?;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let mut all: Vec<String> = Vec::new();
        for serial in serials {
            let mut revoked = Revoked::default();
            revoked.deny(serial.as_ref()).map_err(|error| MakeError::Serial(error.to_string()))?;
            all.extend(revoked.serials().map(ToOwned::to_owned));
        }
        all.sort();
        all.dedup();
        let mut revoked_certs = Vec::new();
        for serial in all {
            let even = format!("{:0>width$}", serial, width = serial.len().next_multiple_of(2));
            let bytes = hex::decode(even).map_err(|error| MakeError::Serial(error.to_string()))?;
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes),
                revocation_time: epoch + since_1970(wall)?,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let params = CertificateRevocationListParams {
            this_update: epoch + since_1970(wall)?,
            next_update: epoch + since_1970(next)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer()?)?.pem()?)
    }

    fn leaf(&self, spec: &LeafSpec, clock: &Clock) -> Result<CertificateParams, MakeError> {
        let most = if spec.unchecked { MOST_DAYS } else { LEAF_DAYS };
        let mut params =
            params(&spec.common_name, spec.days, spec.not_before, most, Some(&self.facts), clock)?;
        if spec.dns_names.is_empty() && !spec.unchecked {
            return Err(MakeError::Nameless);
        }
        let mut names = Vec::new();
        for name in &spec.dns_names {
            let name = if spec.unchecked { name.clone() } else { self.allowed(name)? };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        for name in names {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if spec.server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if spec.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        Ok(params)
    }

    /// As it is sent: a root never is.
    fn chained(&self, leaf_pem: String) -> String {
        if self.facts.self_signed { leaf_pem } else { leaf_pem + &self.cert_pem }
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, MakeError> {
        Ok(Issuer::from_ca_cert_pem(&self.cert_pem, KeyPair::from_pem(&self.key_pem)?)?)
    }

    /// An authority from its certificate and key (PEM).
    pub fn from_pem(cert_pem: &str, key_pem: Zeroizing<String>) -> Result<Authority, MakeError> {
        let authority = Authority::new(cert_pem.to_owned(), key_pem)?;
        let key = KeyPair::from_pem(&authority.key_pem)?;
        if check::Pin::of(&rcgen::PublicKeyData::subject_public_key_info(&key)) != authority.facts.pin {
            return Err(MakeError::OtherKey(authority.facts.subject));
        }
        Ok(authority)
    }

    /// An authority from its two files.
    pub fn load(cert: &Path, key: &Path) -> Result<Authority, MakeError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| MakeError::File { path: path.to_owned(), source })
        };
        Authority::from_pem(&read(cert)?, Zeroizing::new(read(key)?))
    }

    /// What its certificate says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    fn new(cert_pem: String, key_pem: Zeroizing<String>) -> Result<Authority, MakeError> {
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|error| CheckError::Unreadable(error.to_string()))?;
        let facts = check::facts(&der)?;
        if !facts.authority {
            return Err(MakeError::NotAllowed(facts.subject, "certificates: it is no authority"));
        }
        Ok(Authority { cert_pem, key_pem, facts })
    }

    /// A key, fresh if none is given, and its certificate as `params` say, under this authority.
    fn sign(
        &self,
        params: &CertificateParams,
        key: Option<Zeroizing<String>>,
    ) -> Result<(String, Zeroizing<String>), MakeError> {
        let issuer = self.issuer()?;
        let key = match key {
            Some(pem) => KeyPair::from_pem(&pem)?,
            // ring takes its randomness from the system itself; it offers no other way
            None => KeyPair::generate()?,
        };
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
    }

    /// The name, if this authority may give it.
    fn allowed(&self, name: &str) -> Result<String, MakeError> {
        let name = dns_name(name)?;
        if self.facts.permitted.is_empty() || check::is_within(&name, &self.facts.permitted) {
            return Ok(name);
        }
        let (issuer, permitted) = (self.facts.subject.clone(), self.facts.permitted.join(", "));
        Err(MakeError::Foreign { name, issuer, permitted })
    }
}

/// What all three kinds share: subject, dates, serial number, key identifiers.
fn params(
    common_name: &str,
    days: u32,
    not_before: Option<Timestamp>,
    most: u32,
    issuer: Option<&Facts>,
    clock: &Clock,
) -> Result<CertificateParams, MakeError> {
    let characters = common_name.chars().count();
    if !(1..=64).contains(&characters) {
        return Err(MakeError::CommonName(characters));
    }
    if days > most {
        return Err(MakeError::TooLong { days, most });
    }
    let wall = clock.wall();
    let outside = |_| MakeError::Clock(wall);
    let begin = match not_before {
        Some(moment) => moment,
        None => wall.checked_sub(BACKDATED).map_err(outside)?,
    };
    let mut end = begin.checked_add(SignedDuration::from_hours(24 * i64::from(days))).map_err(outside)?;
    if let Some(issuer) = issuer {
        if issuer.not_after < wall {
            return Err(MakeError::Ended { issuer: issuer.subject.clone(), not_after: issuer.not_after });
        }
        end = end.min(issuer.not_after);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_1970(begin)?;
    params.not_after = epoch + since_1970(end)?;
    // 126 bits of chance; positive and never zero
    let mut serial: [u8; 16] = clock.random();
    serial[0] = serial[0] & 0x3F | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Since 1970, for the encoder. Certificates carry the years 1970 to 9998 here.
fn since_1970(moment: Timestamp) -> Result<Duration, MakeError> {
    const YEAR_9999: i64 = 253_370_764_800;
    match u64::try_from(moment.as_second()) {
        Ok(seconds) if moment.as_second() < YEAR_9999 => Ok(Duration::from_secs(seconds)),
        _ => Err(MakeError::Clock(moment)),
    }
}

/// A file to be written by [`write_files`].
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    /// Its name inside the folder.
    pub name: &'a str,
    /// PEM text.
    pub text: &'a str,
    /// Readable by its owner only.
    pub secret: bool,
}

/// Write files into a folder, which is made if need be. Unless `force`, nothing is written if one
/// of them exists. Each file appears whole or not at all. Returns their paths.
pub fn write_files(folder: &Path, files: &[NewFile<'_>], force: bool) -> Result<Vec<PathBuf>, MakeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MakeError::File { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let paths: Vec<PathBuf> = files.iter().map(|file| folder.join(file.name)).collect();
    if !force && let Some(path) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(MakeError::Exists(path.clone()));
    }
    for (file, path) in files.iter().zip(&paths) {
        let fresh = folder.join(format!(".{}.new", file.name));
        let mode = if file.secret { 0o600 } else { 0o644 };
        // what an interrupted run left behind
        let _ = std::fs::remove_file(&fresh);
        let mut open = OpenOptions::new();
        let mut to = open.write(true).create_new(true).mode(mode).open(&fresh).map_err(failed(&fresh))?;
        to.write_all(file.text.as_bytes()).and_then(|()| to.sync_all()).map_err(failed(&fresh))?;
        if force {
            std::fs::rename(&fresh, path).map_err(failed(path))?;
        } else {
            // A link refuses to replace even what appeared since we looked. Where the medium knows
            // no links (FAT), the look has to do.
            match std::fs::hard_link(&fresh, path) {
                Ok(()) => std::fs::remove_file(&fresh).map_err(failed(&fresh))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let _ = std::fs::remove_file(&fresh);
                    return Err(MakeError::Exists(path.clone()));
                }
                Err(_) => std::fs::rename(&fresh, path).map_err(failed(path))?,
            }
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::check::{identity, inspect};
    use super::*;

    fn clock() -> Clock {
        Clock::system()
    }

    fn root() -> Authority {
        Authority::root(&RootSpec::new("Test federation root"), &clock()).unwrap()
    }

    fn intermediate(root: &Authority) -> Authority {
        let spec = IntermediateSpec::new(
            "Member c0002f",
            ["c0002f.netids.iot.example", ".0.d.e.7.5.d.3.b.0.7.joineuis.iot.example."],
        );
        root.intermediate(&spec, &clock()).unwrap()
    }

    fn certs(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn the_three_levels_look_as_the_profile_says() {
        let root = root();
        assert!(root.facts().authority && root.facts().self_signed);
        assert_eq!((root.facts().path_length, root.facts().key.as_str()), (None, "P-256"));
        let intermediate = intermediate(&root);
        assert_eq!(intermediate.facts().path_length, Some(0));
        assert!(intermediate.facts().constrained);
        assert_eq!(
            intermediate.facts().permitted,
            ["c0002f.netids.iot.example", "0.d.e.7.5.d.3.b.0.7.joineuis.iot.example"]
        );
        let host = "ns.C0002F.netids.iot.example.";
        let leaf = LeafSpec::new("c0002f", ["c0002f.netids.iot.example", host]);
        let made = intermediate.issue(&leaf, &clock()).unwrap();
        let chain = certs(&made.chain_pem);
        assert_eq!(chain.len(), 2);
        let leaf = check::facts(&chain[0]).unwrap();
        assert_eq!(leaf.dns_names, ["c0002f.netids.iot.example", "ns.c0002f.netids.iot.example"]);
        assert_eq!(leaf.usages, ["server", "client"]);
        assert_eq!(leaf.common_name.as_deref(), Some("c0002f"));
        assert_eq!(leaf.serial.len(), 32);
        assert!(leaf.not_before < clock().wall());
        assert!(check::is_signed_by(&chain[0], &chain[1]));
        let report = inspect(&chain, None, &certs(&root.cert_pem), clock().wall());
        assert_eq!(report.findings, []);
        assert_eq!(identity(&chain).unwrap().valid_until, leaf.not_after);
    }

    #[test]
    fn an_intermediate_without_names_is_refused() {
        let none: [&str; 0] = [];
        let made = root().intermediate(&IntermediateSpec::new("nobody", none), &clock());
        assert!(matches!(made, Err(MakeError::Unconstrained)));
        for subtree in ["", ".", "example", "*.iot.example", "a..b"] {
            let made = root().intermediate(&IntermediateSpec::new("odd", [subtree]), &clock());
            assert!(matches!(made, Err(MakeError::Name(_))), "{subtree}");
        }
    }

    #[test]
    fn a_leaf_is_not_made_for_names_or_lives_that_partners_refuse() {
        let intermediate = intermediate(&root());
        let issue = |spec: LeafSpec| intermediate.issue(&spec, &clock()).map(|_| ());
        let ours = "c0002f.netids.iot.example";
        assert!(matches!(
            issue(LeafSpec::new("x", ["00000a.netids.iot.example"])),
            Err(MakeError::Foreign { .. })
        ));
        assert!(matches!(
            issue(LeafSpec::new("x", ["*.c0002f.netids.iot.example"])),
            Err(MakeError::Name(_))
        ));
        assert!(matches!(
            issue(LeafSpec { days: 399, ..LeafSpec::new("x", [ours]) }),
            Err(MakeError::TooLong { .. })
        ));
        assert!(matches!(issue(LeafSpec::new("x".repeat(65), [ours])), Err(MakeError::CommonName(65))));
        assert!(matches!(issue(LeafSpec::new("x", Vec::<String>::new())), Err(MakeError::Nameless)));
        assert!(matches!(
            intermediate.intermediate(&IntermediateSpec::new("below", [ours]), &clock()),
            Err(MakeError::NotAllowed(..))
        ));
    }

    #[test]
    fn a_leaf_ends_with_its_intermediate_and_an_ended_one_signs_nothing() {
        let clock = clock();
        let root = Authority::root(&RootSpec::new("r"), &clock).unwrap();
        let spec = IntermediateSpec { days: 100, ..IntermediateSpec::new("m", ["a.example"]) };
        let member = root.intermediate(&spec, &clock).unwrap();
        let leaf = |clock: &Clock| member.issue(&LeafSpec::new("x", ["a.example"]), clock);
        let chain = certs(&leaf(&clock).unwrap().chain_pem);
        assert_eq!(check::facts(&chain[0]).unwrap().not_after, member.facts().not_after);
        clock.move_wall(SignedDuration::from_hours(24 * 101));
        assert!(matches!(leaf(&clock), Err(MakeError::Ended { .. })));
    }

    #[test]
    fn key_files_are_for_their_owner_alone_and_nothing_is_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let root = root();
        let files = [
            NewFile { name: "root.pem", text: &root.cert_pem, secret: false },
            NewFile { name: "root-key.pem", text: &root.key_pem, secret: true },
        ];
        let paths = write_files(folder.path(), &files, false).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&paths[1]), 0o600);
        Authority::load(&paths[0], &paths[1]).unwrap();
        assert!(matches!(write_files(folder.path(), &files, false), Err(MakeError::Exists(_))));
        // a key that somebody opened to everybody is closed again
        std::fs::set_permissions(&paths[1], std::fs::Permissions::from_mode(0o644)).unwrap();
        write_files(folder.path(), &files, true).unwrap();
        assert_eq!(mode(&paths[1]), 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_authority_with_another_key_is_refused() {
        let (one, two) = (root(), root());
        assert!(matches!(Authority::from_pem(&one.cert_pem, two.key_pem), Err(MakeError::OtherKey(_))));
    }
}
