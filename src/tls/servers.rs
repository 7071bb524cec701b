//! What a server's certificate has to be, and the judge of it. Called by `tls` only.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Refused, Trust, version_words};
use crate::pki::check::{self, PeerIdentity};
use crate::pki::dane::{Denied, Evidence, Tlsa};

/// Judges servers.
#[derive(Debug)]
pub(super) struct Servers {
    pub trust: Arc<Trust>,
    pub expected: Expected,
}

/// What a server's certificate has to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// Names that will do instead of the one asked: the target of a CNAME, NAPTR or SRV, if every step there was DNSSEC-secure, and the
    /// `identity` of a listed partner.
    pub also: Vec<String>,
    /// Whose word counts.
    pub evidence: Evidence,
    /// TLSA records that DNSSEC proves; `None`: there are none.
    pub records: Option<Vec<Tlsa>>,
}

impl Default for Expected {
    fn default() -> Self {
        Expected { also: Vec::new(), evidence: Evidence::Pkix, records: None }
    }
}

impl Servers {
    /// Does the certificate carry the name that was asked? An address is nobody's name.
    fn is_named(
        &self,
        certificate: &ParsedCertificate<'_>,
        peer: &PeerIdentity,
        asked: &ServerName<'_>,
    ) -> Result<(), rustls::Error> {
        let text = asked.to_str();
        let text = text.strip_suffix('.').unwrap_or(&text);
        if peer.speaks_for(text) {
            return Ok(());
        }
        for alias in &self.expected.also {
            let Ok(name) = ServerName::try_from(alias.trim_end_matches('.').to_owned()) else { continue };
            let wild = peer.constrained
                && matches!(name, ServerName::DnsName(_))
                && verify_server_name(certificate, &name).is_ok();
            if wild || peer.speaks_for(alias) {
                return Ok(());
            }
        }
        match asked {
            ServerName::DnsName(_) if peer.constrained => verify_server_name(certificate, asked),
            _ => Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected: asked.to_owned(),
                presented: peer.names.clone(),
            })),
        }
    }

    /// Below an authority that the server's own records name, it says itself what it is called.
    fn is_called(&self, certificate: &ParsedCertificate<'_>, asked: &ServerName<'_>) -> bool {
        let also = self.expected.also.iter().filter_map(|name| ServerName::try_from(name.as_str()).ok());
        std::iter::once(asked.to_owned())
            .chain(also)
            .any(|name| verify_server_name(certificate, &name).is_ok())
    }

    /// reqwest shows nothing of its connections, so the milestone is told here, when the server has
    /// proven that it holds its key.
    fn told(&self, version: ProtocolVersion, certificate: &CertificateDer<'_>) {
        if let Ok(peer) = check::facts(certificate) {
            let names = peer.dns_names.join(" ");
            tracing::info!(
                target: "roamgate::net",
                milestone = "TLS handshake",
                side = "client",
                version = version_words(Some(version)),
                peer = %names,
                cn = peer.common_name.as_deref().unwrap_or(""),
            );
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.trust.provider.signature_verification_algorithms.all;
        let path = |store: &RootCertStore, above: &[CertificateDer<'_>]| {
            verify_server_cert_signed_by_trust_anchor(&parsed, store, above, now, algorithms)
        };
        self.trust.counts(leaf, above)?;
        let by_root =
            self.trust.server(leaf, above, now, path).and_then(|peer| self.is_named(&parsed, &peer, asked));
        let by_record = self.expected.records.as_ref().map(|records| {
            self.trust.by_record(records, leaf, above, now, |store| {
                path(&store, above).is_ok() && self.is_called(&parsed, asked)
            })
        });
        match self.expected.evidence.judge(by_root, by_record) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(Denied::Pkix(error)) => Err(error),
            Err(Denied::OtherKey) => Err(Refused::OtherKey.into()),
            Err(Denied::NoRecord) => Err(Refused::NoRecord.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let valid = self.trust.signature(ProtocolVersion::TLSv1_2, message, certificate, signed)?;
        self.told(ProtocolVersion::TLSv1_2, certificate);
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let valid = self.trust.signature(ProtocolVersion::TLSv1_3, message, certificate, signed)?;
        self.told(ProtocolVersion::TLSv1_3, certificate);
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
}
