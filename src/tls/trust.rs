//! The judge of peers, for both directions: whose signatures lead to a root of ours, who may be called what, and who has
//! been struck off. Called by `tls` only.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Root, Roots, TlsError, Wall, provider};
use crate::clock::Clock;
use crate::pki::check::{self, CheckError, Facts, PeerIdentity, PeerRules, Pin};
use crate::pki::dane::{self, Tlsa};
use crate::pki::revoke::Revoked;

/// The judge of peers, for both directions. What it judges by can be replaced: the next handshake and the next request are
/// judged anew.
pub struct Trust {
    judge: RwLock<Arc<Judge>>,
    pub(super) clock: Clock,
    pub(super) provider: Arc<CryptoProvider>,
}

/// What is judged by.
struct Judge {
    roots: Vec<TrustedRoot>,
    rules: PeerRules,
    revoked: Revoked,
    /// Counts replacements.
    edition: u64,
}

/// Each root stands alone, so that one that has expired can be left out.
struct TrustedRoot {
    der: CertificateDer<'static>,
    facts: Facts,
    scope: Option<Vec<String>>,
    store: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Trust({} roots)", self.judge().roots.len())
    }
}

/// Why a peer was refused although its signatures are right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Their federation's move.
    #[error(
        "its intermediate ({issuer}) carries no critical name constraints and could name anybody; a partner entry \
         with pin = \"{pin}\" would accept it"
    )]
    Unconstrained {
        /// Who signed the leaf.
        issuer: String,
        /// What to pin.
        pin: Pin,
    },
    /// Our move.
    #[error("none of our roots is valid today; get the federation's new root")]
    RootsEnded,
    /// Theirs, or ours: the partner's entry says what it is called.
    #[error("the root above it vouches for {scope} only, and its certificate names {names}")]
    OutOfScope {
        /// What the partner's entry says.
        scope: String,
        /// What the certificate says.
        names: String,
    },
    /// Their move: they have another key than they say in the DNS.
    #[error(
        "none of its TLSA records is of its certificate; its operator corrects one or the other (`roamgate dns check`)"
    )]
    OtherKey,
    /// Their move, or ours: the partner's entry, or [discovery] dane, wants one.
    #[error(
        "it has no TLSA record that DNSSEC proves, and one is wanted (trust in its entry, or [discovery] dane)"
    )]
    NoRecord,
    /// Nobody's: somebody said that it counts no more.
    #[error("it has been revoked: {0}")]
    Revoked(String),
    /// Their move.
    #[error("its certificate: {0}")]
    Certificate(#[from] CheckError),
}

impl From<Refused> for rustls::Error {
    fn from(refused: Refused) -> rustls::Error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

impl Trust {
    /// Trust these roots, with these exceptions, by this clock.
    pub fn new(roots: &Roots, rules: PeerRules, clock: Clock) -> Result<Arc<Trust>, TlsError> {
        let provider = provider();
        let judge = Judge::new(roots, rules, Revoked::default(), &provider)?;
        Ok(Arc::new(Trust { judge: RwLock::new(Arc::new(judge)), clock, provider }))
    }

    /// Judge by these from now on. Nothing changes where they cannot be used.
    pub fn renew(&self, roots: &Roots, rules: PeerRules, revoked: Revoked) -> Result<(), TlsError> {
        let fresh = Judge::new(roots, rules, revoked, &self.provider)?;
        let mut judge = self.judge.write().unwrap_or_else(PoisonError::into_inner);
        *judge = Arc::new(Judge { edition: judge.edition + 1, ..fresh });
        Ok(())
    }

    /// Another number whenever there is something else to judge by.
    pub fn edition(&self) -> u64 {
        self.judge().edition
    }

    /// What the roots say.
    pub fn roots(&self) -> Vec<Facts> {
        self.judge().roots.iter().map(|root| root.facts.clone()).collect()
    }

    /// The roots themselves.
    pub fn root_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.judge().roots.iter().map(|root| root.der.clone()).collect()
    }

    fn judge(&self) -> Arc<Judge> {
        self.judge.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who a client is, by the chain of a finished handshake
    /// ([`CommonState::peer_certificates`]). Dates are judged anew. Where the rules let somebody in for whom no root vouches, it may speak
    /// for nobody.
    pub fn peer_identity(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<PeerIdentity, TlsError> {
        let (leaf, above) = chain
            .and_then(<[_]>::split_first)
            .ok_or_else(|| TlsError::Peer("no client certificate was sent".into()))?;
        let now = self.now()?;
        self.judge().client(leaf, above, now).map_err(TlsError::Library)
    }

    /// Whether one of these records is of a client's key, or of an authority above it.
    pub fn is_client_of(&self, records: &[Tlsa], chain: &[CertificateDer<'_>]) -> bool {
        let (Some((leaf, above)), Ok(now)) = (chain.split_first(), self.now()) else { return false };
        self.by_record(records, leaf, above, now, |store| {
            let verifier = WebPkiClientVerifier::builder_with_provider(store, self.provider.clone()).build();
            verifier.is_ok_and(|verifier| verifier.verify_client_cert(leaf, above, now).is_ok())
        })
    }

    /// Whether one of these records is of this key, or of an authority in the chain from which there is a path. Dates count
    /// here too, although RFC 7671 section 5.1 would let those of a usage 3 pass.
    pub(super) fn by_record(
        &self,
        records: &[Tlsa],
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
        path: impl Fn(Arc<RootCertStore>) -> bool,
    ) -> bool {
        let records = &records[..records.len().min(dane::MOST)];
        let Ok(facts) = check::facts(leaf) else { return false };
        let wall = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let in_time = facts.not_before.as_second() <= wall && wall <= facts.not_after.as_second();
        if check::acceptable(&facts).is_err() || !in_time {
            return false;
        }
        if records.iter().any(|record| record.is_of_key(leaf)) {
            return true;
        }
        let is_meant = |one: &&CertificateDer<'_>| records.iter().any(|record| record.is_of_authority(one));
        above.iter().filter(is_meant).any(|authority| {
            let mut store = RootCertStore::empty();
            store.add(authority.clone().into_owned()).is_ok() && path(Arc::new(store))
        })
    }

    /// Whose server this is by a root's word; `path` asks rustls for a path.
    pub(super) fn server(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
        path: impl Fn(&RootCertStore, &[CertificateDer<'_>]) -> Result<(), rustls::Error>,
    ) -> Result<PeerIdentity, rustls::Error> {
        self.judge().path(leaf, above, now, |root, above| path(&root.store, above))
    }

    /// Whether nobody has struck it off; a root's word and a record's count no more then.
    pub(super) fn counts(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
    ) -> Result<(), Refused> {
        self.judge().counts(leaf, above)
    }

    fn now(&self) -> Result<UnixTime, rustls::Error> {
        Wall(self.clock.clone()).current_time().ok_or(rustls::Error::FailedToGetCurrentTime)
    }

    pub(super) fn signature(
        &self,
        version: ProtocolVersion,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match version {
            ProtocolVersion::TLSv1_2 => verify_tls12_signature(message, certificate, signed, algorithms),
            _ => verify_tls13_signature(message, certificate, signed, algorithms),
        }
    }

    pub(super) fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Judge {
    fn new(
        roots: &Roots,
        rules: PeerRules,
        revoked: Revoked,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Judge, TlsError> {
        let mut trusted = Vec::new();
        for Root { der, facts, scope } in &roots.0 {
            let mut store = RootCertStore::empty();
            store.add(der.clone())?;
            let store = Arc::new(store);
            let clients = WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone());
            let clients = clients.build().map_err(|error| rustls::Error::General(error.to_string()))?;
            let (der, facts, scope) = (der.clone(), facts.clone(), scope.clone());
            trusted.push(TrustedRoot { der, facts, scope, store, clients });
        }
        if trusted.is_empty() && !rules.rootless {
            return Err(TlsError::NoRoots);
        }
        Ok(Judge { roots: trusted, rules, revoked, edition: 0 })
    }

    fn client(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, rustls::Error> {
        self.counts(leaf, above)?;
        let judged = self.path(leaf, above, now, |root, above| root.is_client(leaf, above, now));
        judged.or_else(|error| self.stranger(leaf, error))
    }

    /// Somebody for whom no root vouches, where such may come.
    fn stranger(
        &self,
        leaf: &CertificateDer<'_>,
        error: rustls::Error,
    ) -> Result<PeerIdentity, rustls::Error> {
        if !self.rules.rootless {
            return Err(error);
        }
        let facts = check::facts(leaf).map_err(Refused::from)?;
        check::acceptable(&facts).map_err(Refused::from)?;
        Ok(check::identity(std::slice::from_ref(leaf)).map_err(Refused::from)?)
    }

    /// Whether neither the leaf nor what stands above it has been struck off.
    fn counts(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Refused> {
        let roots = self.roots.iter().map(|root| &root.der);
        match self.revoked.why(std::iter::once(leaf).chain(above), roots) {
            Some(why) => Err(Refused::Revoked(why)),
            None => Ok(()),
        }
    }

    /// Is there a path from one of our roots, and does it limit which names the leaf may carry?
    ///
    /// `path` asks rustls for a path through the intermediates that it is given. To know which path
    /// rustls took, only those with constraints are offered at first: nothing that an unconstrained
    /// one vouches for can pass then, whatever else was sent along.
    pub fn path(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
        path: impl Fn(&TrustedRoot, &[CertificateDer<'_>]) -> Result<(), rustls::Error>,
    ) -> Result<PeerIdentity, rustls::Error> {
        let facts = check::facts(leaf).map_err(Refused::from)?;
        check::acceptable(&facts).map_err(Refused::from)?;
        let chain: Vec<_> = std::iter::once(leaf.clone()).chain(above.iter().cloned()).collect();
        let peer = check::identity(&chain).map_err(Refused::from)?;
        let wall = Timestamp::from_second(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
            .map_err(|_| rustls::Error::FailedToGetCurrentTime)?;
        let valid = |root: &&TrustedRoot| root.facts.not_before <= wall && wall <= root.facts.not_after;
        let (of_one, roots): (Vec<_>, Vec<_>) =
            self.roots.iter().filter(valid).partition(|root| root.scope.is_some());
        if roots.is_empty() && of_one.is_empty() {
            return Err(Refused::RootsEnded.into());
        }

        let read = above.iter().filter_map(|der| Some((der, check::facts(der).ok()?)));
        let usable: Vec<_> = read.filter(|(_, facts)| check::acceptable(facts).is_ok()).collect();
        let all: Vec<_> = usable.iter().map(|(der, _)| (*der).clone()).collect();
        let limiting: Vec<_> =
            usable.iter().filter(|(_, facts)| facts.constrained).map(|(der, _)| (*der).clone()).collect();
        // the root of a single partner says itself for whom it is good
        let mut out_of_scope = None;
        for root in of_one {
            let scope = root.scope.as_deref().unwrap_or_default();
            if path(root, &all).is_ok() {
                let within = peer.clone().within(scope, &self.rules);
                if !within.names.is_empty() {
                    return Ok(within);
                }
                let (scope, names) = (scope.join(", "), peer.dns_names.join(", "));
                out_of_scope = Some(Refused::OutOfScope { scope, names });
            }
        }
        let signs = |facts_above: &Facts| facts_above.raw_subject == facts.raw_issuer;
        // A root that signs leaves itself limits nothing, unless it has constraints of its own.
        let unlimited_root = roots.iter().any(|root| signs(&root.facts) && !root.facts.constrained);
        let limited = !unlimited_root
            && (usable.iter().any(|(_, above)| above.constrained && signs(above))
                || roots.iter().any(|root| signs(&root.facts)));

        let through = |offered: &[CertificateDer<'_>]| {
            let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
            let mut refusal = out_of_scope.clone().map_or(unknown, rustls::Error::from);
            for root in &roots {
                match path(root, offered) {
                    Ok(()) => return Ok(()),
                    // of several roots, the one that knows the chain has the better reason
                    Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
                    // and the one that vouches for others the best
                    Err(error) if out_of_scope.is_none() => refusal = error,
                    Err(_) => {}
                }
            }
            Err(refusal)
        };
        let refusal = match limited.then(|| through(&limiting)) {
            Some(Ok(())) => return Ok(peer.proven(true, &self.rules)),
            Some(Err(error)) => Some(error),
            None => None,
        };
        if self.rules.pinned(&peer.pin).is_some() {
            through(&all)?;
            return Ok(peer.proven(false, &self.rules));
        }
        match refusal {
            Some(error) => Err(error),
            // a chain that is wrong anyway is refused for that
            None => through(&all)
                .and_then(|()| Err(Refused::Unconstrained { issuer: peer.issuer, pin: peer.pin }.into())),
        }
    }
}

impl TrustedRoot {
    fn is_client(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.clients.verify_client_cert(leaf, above, now).map(|_| ())
    }
}

/// Judges clients.
#[derive(Debug)]
pub(super) struct Clients(pub Arc<Trust>);

impl ClientCertVerifier for Clients {
    /// None: a client has one certificate for us, and our roots may change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.judge().client(leaf, above, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.signature(ProtocolVersion::TLSv1_2, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.signature(ProtocolVersion::TLSv1_3, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}
