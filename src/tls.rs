//! rustls configurations from identity and roots; peer certificate to who it is.
//!
//! Mutual TLS 1.2 and 1.3, only configured roots, no resumption, fail closed: half a configuration is
//! an error that names the file. What is shown ([`Shown`]) and what is judged by ([`Trust`]) can be replaced while
//! connections are open. [`Trust`] is the one judge of both directions; to what rustls
//! verifies it adds the rule that the intermediate above a leaf carries critical name
//! constraints, unless the leaf's key is pinned. Dates are judged by [`Clock`]; while its wall time is not
//! trusted, no handshake succeeds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SigningKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, CommonState, OtherError, ProtocolVersion, RootCertStore, ServerConfig,
};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::clock::Clock;
use crate::pki::check::{self, CheckError, Facts, PeerIdentity, Pin};

pub use servers::Expected;
use servers::Servers;
pub use shown::Shown;
use trust::Clients;
pub use trust::{Refused, Trust};

/// What both sides speak inside. Named, so that a peer that can do more does not choose it.
const ALPN: &[u8] = b"http/1.1";
/// What a hotspot and its front speak ([`crate::backend::tunnel`]): by it a front knows a hotspot from a partner.
pub const TUNNEL: &[u8] = b"roamgate-tunnel/1";

/// Why there is no TLS. All are the operator's move.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that does not hold what it should.
    #[error("{}: {what}; {remedy}", path.display())]
    Content {
        /// Which, or what the text was called.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Chain and key are not a pair.
    #[error(
        "{} does not belong to the first certificate of {}; name the key that was made with it",
        key.display(),
        chain.display()
    )]
    OtherKey {
        /// The chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// No root at all.
    #[error("no root certificate is configured; name the federation's root.pem under roots")]
    NoRoots,
    /// A connection without a certificate, or with one that is not accepted.
    #[error("peer: {0}")]
    Peer(String),
    /// The TLS library.
    #[error(transparent)]
    Library(#[from] rustls::Error),
}

/// Make ring the process's cryptography, for libraries that ask for the default. To be called first
/// in `main` and in tests; calling it again does nothing.
pub fn install_provider() {
    // an error says that one is installed already, which is what was wanted
    let _ = ring::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Our own certificate with its intermediate, and its key.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    signer: Arc<dyn SigningKey>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Identity({} certificates)", self.chain.len())
    }
}

impl Identity {
    /// Read chain (leaf, then intermediate) and key from their files. Dates are not judged: a board
    /// may read its files before it knows the time.
    pub fn load(chain: &Path, key: &Path) -> Result<Identity, TlsError> {
        let chain_pem = read(chain)?;
        let key_pem = zeroize::Zeroizing::new(read(key)?);
        warn_of_open_key(key);
        Identity::parse(&chain_pem, chain, &key_pem, key)
    }

    /// The same for a service that is no partner and has its own rules: any chain, as long as the key belongs to its
    /// first certificate.
    pub fn load_any(chain: &Path, key: &Path) -> Result<Identity, TlsError> {
        let certificates = certificates(&read(chain)?, chain)?;
        let key_pem = zeroize::Zeroizing::new(read(key)?);
        warn_of_open_key(key);
        Identity::paired(certificates, chain, &key_pem, key)
    }

    /// The same from text, for identities that were made in this process.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Identity, TlsError> {
        Identity::parse(chain_pem.as_bytes(), Path::new("chain"), key_pem.as_bytes(), Path::new("key"))
    }

    /// Whatever chain one wants to send, as long as the key belongs to its first certificate.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Identity, TlsError> {
        let files = (PathBuf::from("chain"), PathBuf::from("key"));
        let leaf = chain.first().ok_or_else(|| TlsError::Peer(CheckError::Empty.to_string()))?;
        let leaf = check::facts(leaf).map_err(|error| TlsError::Peer(error.to_string()))?;
        let signer = ring::sign::any_supported_type(&key).ok();
        let is_its =
            |signer: &Arc<dyn SigningKey>| signer.public_key().is_some_and(|spki| Pin::of(&spki) == leaf.pin);
        match signer.filter(is_its) {
            Some(signer) => Ok(Identity { chain, signer }),
            None => Err(TlsError::OtherKey { chain: files.0, key: files.1 }),
        }
    }

    fn parse(chain_pem: &[u8], chain: &Path, key_pem: &[u8], key: &Path) -> Result<Identity, TlsError> {
        let content = |what: String, remedy| TlsError::Content { path: chain.to_owned(), what, remedy };
        let certificates = certificates(chain_pem, chain)?;
        let facts = certificates
            .iter()
            .map(|der| check::facts(der))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| content(error.to_string(), "make it again with `roamgate pki issue`"))?;
        if facts.first().is_some_and(|first| first.authority) {
            return Err(content(
                "wrong order, it does not begin with the leaf".into(),
                "put the leaf first, then the intermediate",
            ));
        }
        if facts.len() < 2 {
            return Err(content(
                "the intermediate is missing, partners would see an unknown authority".into(),
                "append the intermediate that signed the leaf",
            ));
        }
        for pair in certificates.windows(2) {
            if let [below, above] = pair
                && !check::is_signed_by(below, above)
            {
                return Err(content(
                    "each certificate has to be signed by the one after it, and this is not so".into(),
                    "put the leaf first, then the intermediate that signed it, and nothing else",
                ));
            }
        }
        Identity::paired(certificates, chain, key_pem, key)
    }

    fn paired(
        certificates: Vec<CertificateDer<'static>>,
        chain: &Path,
        key_pem: &[u8],
        key: &Path,
    ) -> Result<Identity, TlsError> {
        let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| TlsError::Content {
            path: key.to_owned(),
            what: pem_words(&error, "private key"),
            remedy: "name the PEM file with the key that was made with the certificate",
        })?;
        Identity::from_der(certificates, private)
            .map_err(|_| TlsError::OtherKey { chain: chain.to_owned(), key: key.to_owned() })
    }

    /// What our own leaf says.
    pub fn certificate(&self) -> Result<PeerIdentity, CheckError> {
        check::identity(&self.chain)
    }

    /// The chain as it is sent.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn warn_of_open_key(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if path.metadata().is_ok_and(|file| file.permissions().mode() & 0o007 != 0) {
        tracing::warn!(file = %path.display(), "everybody on this machine may read the private key: chmod 600");
    }
}

/// The DER-encoded SubjectPublicKeyInfo of a private key.
pub fn spki(key: &PrivateKeyDer<'_>) -> Result<Vec<u8>, TlsError> {
    let key = ring::sign::any_supported_type(key)?;
    let spki = key.public_key().ok_or_else(|| rustls::Error::General("key without a public part".into()))?;
    Ok(spki.to_vec())
}

/// The certificates of a PEM file; an error if there is none.
pub fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |what| TlsError::Content {
        path: path.to_owned(),
        what,
        remedy: "name a PEM file with CERTIFICATE blocks",
    };
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(content("holds no certificate".into())),
        Ok(found) => Ok(found),
        Err(error) => Err(content(pem_words(&error, "certificate"))),
    }
}

fn pem_words(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("holds no {wanted}"),
        _ => format!("holds no readable {wanted}"),
    }
}

/// The roots we trust, and no others.
#[derive(Debug, Clone, Default)]
pub struct Roots(Vec<Root>);

#[derive(Debug, Clone)]
struct Root {
    der: CertificateDer<'static>,
    facts: Facts,
    /// The only names that it vouches for; `None`: it is a federation's.
    scope: Option<Vec<String>>,
}

impl Roots {
    /// Read files of root certificates. Each must hold at least one. Dates are not judged here.
    pub fn load<P: AsRef<Path>>(files: &[P]) -> Result<Roots, TlsError> {
        let mut roots = Roots::default();
        for file in files {
            let path = file.as_ref();
            roots.add(&read(path)?, path)?;
        }
        if roots.0.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
    }

    /// The same from text, for roots that were made in this process.
    pub fn from_pem(text: &str) -> Result<Roots, TlsError> {
        let mut roots = Roots::default();
        roots.add(text.as_bytes(), Path::new("root"))?;
        Ok(roots)
    }

    /// Roots of one partner: they vouch for these names and for nobody else, and so need no name constraints below them.
    pub fn only_for<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Roots {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        Roots(self.0.into_iter().map(|root| Root { scope: Some(names.clone()), ..root }).collect())
    }

    /// These and others.
    pub fn and(mut self, others: Roots) -> Roots {
        self.0.extend(others.0);
        self
    }

    /// What the roots say.
    pub fn facts(&self) -> impl Iterator<Item = &Facts> {
        self.0.iter().map(|root| &root.facts)
    }

    fn add(&mut self, pem: &[u8], path: &Path) -> Result<(), TlsError> {
        let content = |what| TlsError::Content {
            path: path.to_owned(),
            what,
            remedy: "name the root certificate as the federation published it",
        };
        for der in certificates(pem, path)? {
            let facts = check::facts(&der).map_err(|error| content(error.to_string()))?;
            if !facts.authority {
                return Err(content(format!("{} is no authority", facts.subject)));
            }
            check::acceptable(&facts).map_err(|error| content(error.to_string()))?;
            self.0.push(Root { der, facts, scope: None });
        }
        Ok(())
    }
}

/// rustls' view of our wall clock: none while it is not trusted, which ends the handshake.
#[derive(Debug)]
struct Wall(Clock);

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.is_trusted().then(|| UnixTime::since_unix_epoch(Duration::from_secs(self.0.unix())))
    }
}

/// TLS as a server: a client without an accepted certificate does not get in.
pub fn server_config(identity: impl Into<Shown>, trust: &Arc<Trust>) -> Result<Arc<ServerConfig>, TlsError> {
    let clock = Arc::new(Wall(trust.clock.clone()));
    let mut config = ServerConfig::builder_with_details(trust.provider.clone(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(Arc::new(Clients(trust.clone())))
        .with_cert_resolver(Arc::new(identity.into()));
    // A resumed session is not judged again: authority must not outlive its check.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// TLS as a client: shows leaf and intermediate, and accepts a server as it is expected.
///
/// Resumption is off: rustls does not judge a server's certificate again when it resumes, so a
/// withdrawn pin or a new root would not be noticed. Connections to active partners stay open, which
/// saves more than resuming would.
pub fn client_config(
    identity: impl Into<Shown>,
    trust: &Arc<Trust>,
    expected: Expected,
) -> Result<ClientConfig, TlsError> {
    client_config_for(&[&rustls::version::TLS13, &rustls::version::TLS12], identity, trust, expected)
}

fn client_config_for(
    versions: &[&'static rustls::SupportedProtocolVersion],
    identity: impl Into<Shown>,
    trust: &Arc<Trust>,
    expected: Expected,
) -> Result<ClientConfig, TlsError> {
    let clock = Arc::new(Wall(trust.clock.clone()));
    let mut config = ClientConfig::builder_with_details(trust.provider.clone(), clock)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers { trust: trust.clone(), expected }))
        .with_client_cert_resolver(Arc::new(identity.into()));
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// [`server_config`] for what hotspots say to their front.
pub fn tunnel_server_config(
    identity: impl Into<Shown>,
    trust: &Arc<Trust>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::clone(&*server_config(identity, trust)?);
    config.alpn_protocols = vec![TUNNEL.to_vec()];
    Ok(Arc::new(config))
}

/// [`client_config`] for what hotspots say to their front.
pub fn tunnel_client_config(
    identity: impl Into<Shown>,
    trust: &Arc<Trust>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = client_config(identity, trust, Expected::default())?;
    config.alpn_protocols = vec![TUNNEL.to_vec()];
    Ok(Arc::new(config))
}

/// TLS as a client of a service that is no partner, such as a broker: these roots and no others, the name that was
/// asked, dates by our clock; with a certificate of ours where the service wants one.
pub fn service_config(
    roots: &Roots,
    identity: Option<&Identity>,
    clock: &Clock,
) -> Result<ClientConfig, TlsError> {
    let mut store = RootCertStore::empty();
    for root in &roots.0 {
        store.add(root.der.clone())?;
    }
    if store.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let config = ClientConfig::builder_with_details(provider(), Arc::new(Wall(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(store);
    let mut config = match identity {
        Some(identity) => config.with_client_cert_resolver(Arc::new(Shown::from(identity))),
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Tell that a handshake has finished, as a server. (As a client it is told by itself.)
pub fn handshake_done(connection: &CommonState, peer: &PeerIdentity) {
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    let cipher = suite.and_then(|suite| suite.as_str()).unwrap_or("unknown");
    let names = if peer.names.is_empty() { &peer.dns_names } else { &peer.names }.join(" ");
    tracing::info!(
        target: "roamgate::net",
        milestone = "TLS handshake",
        side = "server",
        version = version_words(connection.protocol_version()),
        cipher,
        peer = %names,
        cn = peer.common_name.as_deref().unwrap_or(""),
    );
}

fn version_words(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "unknown",
    }
}

/// A TLS failure among the causes of an error, in words that say whose move it is.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(words(error));
        }
        // an I/O error's source() is the source of what it wraps, which would skip the very one
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        };
    }
    None
}

fn words(error: &rustls::Error) -> String {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::FailedToGetCurrentTime => {
            "this machine's clock is not set, so no certificate can be judged; GPS or NTP has to set it".into()
        }
        rustls::Error::NoCertificatesPresented => "the client showed no certificate".into(),
        rustls::Error::AlertReceived(alert) => match alert {
            Alert::UnknownCA => "the peer does not know who signed our certificate: is our intermediate in the \
                                 chain, and does it trust our federation's root?"
                .into(),
            Alert::CertificateExpired => "the peer says that our certificate has expired: renew it".into(),
            Alert::CertificateRequired => "the peer wants a client certificate and got none".into(),
            Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate | Alert::AccessDenied => {
                format!("the peer refused our certificate ({alert:?}): see `roamgate pki inspect`, then ask its operator")
            }
            other => format!("the peer ended the handshake ({other:?})"),
        },
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer => "none of our roots vouches for the peer's certificate: it belongs to \
                                                another federation, or the peer does not send its intermediate"
                .into(),
            CertificateError::Expired => "the peer's certificate has expired".into(),
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("the peer's certificate expired on {}", moment(*not_after))
            }
            CertificateError::NotValidYet => "the peer's certificate is not valid yet".into(),
            CertificateError::NotValidYetContext { not_before, .. } => {
                format!("the peer's certificate is not valid before {}; is this machine's clock right?", moment(*not_before))
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the peer's certificate, or one above it, is not made for this direction (extended key usage)".into()
            }
            // the library's own error type, which it does not show
            CertificateError::Other(OtherError(other)) if other.to_string() == "NameConstraintViolation" => {
                "the peer's certificate carries a name that its intermediate may not give".into()
            }
            CertificateError::Other(OtherError(other)) => format!("the peer's certificate: {other}"),
            other => format!("the peer's certificate: {other}"),
        },
        other => other.to_string(),
    }
}

fn moment(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "a day without a date".into(), |time| time.to_string())
}

mod servers;
mod shown;
pub mod signed;
#[cfg(test)]
mod tests;
mod trust;
