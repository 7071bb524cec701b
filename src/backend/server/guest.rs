//! Who is at the other end of a connection, and whether that still counts: by a root's word, by a TLSA record's, or by both.
//!
//! A handshake proves that a client has a key. Whose key that is, a root says, which is judged in the handshake, or the DNS, which
//! is asked here: before the first request of a connection is read, and again when its answer has ended. Called by
//! `server` only.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use rustls_pki_types::CertificateDer;

use super::Reception;
use crate::backend::door::Deadline;
use crate::backend::message::{Refusal, ResultCode};
use crate::clock::Instant;
use crate::partners;
use crate::pki::check::PeerIdentity;
use crate::pki::dane::{Denied, Evidence};

/// Names of one certificate for which the DNS is asked.
const MOST_NAMES: usize = 8;
/// The DNS may take so long before a connection's first request is read.
const PATIENCE: Duration = Duration::from_secs(1);
/// It is not asked more often than so.
const LEAST: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection.
pub(super) struct Guest {
    pub peer: PeerIdentity,
    /// For logs and buckets: the names that its certificate may speak for, or its key.
    pub name: String,
    /// Whether a partner entry names it.
    pub listed: bool,
    chain: Vec<CertificateDer<'static>>,
    /// What a root has vouched for.
    by_root: PeerIdentity,
    standing: Mutex<Standing>,
}

#[derive(Clone, Default)]
struct Standing {
    /// What its certificate was judged by.
    edition: u64,
    /// Then the DNS is to be asked again; `None`: it has no say.
    until: Option<Instant>,
    /// What has ended it.
    fault: Option<String>,
}

/// Names that a certificate may speak for, and until when.
struct Vouched {
    names: Vec<String>,
    until: Option<Instant>,
}

impl Reception {
    /// Whoever has just finished a handshake; in words why it is nobody.
    pub(super) async fn guest(
        &self,
        by_root: PeerIdentity,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Guest, String> {
        let edition = self.trust.edition();
        let Vouched { names, until } = self.vouched(&by_root, &chain).await?;
        let peer = PeerIdentity { names, ..by_root.clone() };
        let name = if peer.names.is_empty() { peer.pin.to_string() } else { peer.names.join(" ") };
        let listed = self.partners.partner.iter().any(|partner| self.is_partner(&peer, partner));
        let standing = Mutex::new(Standing { edition, until, fault: None });
        Ok(Guest { peer, name, listed, chain, by_root, standing })
    }

    /// Judge it again where there is something else to judge by, and ask the DNS again where its answer has ended.
    pub(super) async fn renew(&self, guest: &Guest) {
        let Standing { edition, until, fault } = guest.standing();
        let now = self.trust.edition();
        let has_ended = until.is_some_and(|until| until <= self.clock.now());
        if fault.is_some() || (edition == now && !has_ended) {
            return;
        }
        let by_root = match edition == now {
            true => Ok(guest.by_root.clone()),
            false => self.trust.peer_identity(Some(&guest.chain)).map_err(|error| error.to_string()),
        };
        let vouched = match by_root {
            Ok(by_root) => self.vouched(&by_root, &guest.chain).await,
            Err(why) => Err(why),
        };
        let standing = match vouched {
            Ok(vouched) if vouched.names == guest.peer.names => {
                Standing { edition: now, until: vouched.until, fault: None }
            }
            Ok(_) => {
                let fault = "what it may be called has changed: connect again".into();
                Standing { edition: now, until: None, fault: Some(fault) }
            }
            Err(why) => Standing { edition: now, until: None, fault: Some(why) },
        };
        *guest.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    async fn vouched(&self, peer: &PeerIdentity, chain: &[CertificateDer<'_>]) -> Result<Vouched, String> {
        let claimed: BTreeSet<&String> = peer.claims().chain(&peer.names).collect();
        let by = Deadline(self.clock.now() + PATIENCE);
        let asked = claimed.iter().take(MOST_NAMES).map(async |name| {
            let evidence = self.evidence(name);
            let resolver = self.resolver.as_ref().filter(|_| evidence.asks());
            let keys = match resolver {
                Some(resolver) => Some(resolver.tlsa(&format!("_ns-client.{name}"), evidence, by).await),
                None => None,
            };
            let fits = keys.as_ref().and_then(|keys| keys.records.as_ref());
            let fits = fits.map(|records| self.trust.is_client_of(records, chain));
            let by_root = peer.names.contains(*name).then_some(()).ok_or(());
            ((*name).clone(), evidence.judge(by_root, fits), keys.map(|keys| keys.until))
        });
        let (mut names, mut until, mut why) = (Vec::new(), None, None);
        for (name, judged, ends) in join_all(asked).await {
            match judged {
                Ok(()) => names.push(name),
                Err(Denied::Pkix(())) => why = why.or(Some("no root of ours vouches for it")),
                Err(Denied::OtherKey) => {
                    why = Some("none of the TLSA records at _ns-client. is of its certificate")
                }
                Err(Denied::NoRecord) => {
                    why = Some("it has no TLSA record at _ns-client. that DNSSEC proves")
                }
            }
            until = until.into_iter().chain(ends).min();
        }
        // one below a root of ours that names nobody gets its refusals; one below none gets no connection
        if names.is_empty() && !peer.constrained {
            why = why.or(Some("no root of ours vouches for it"));
        }
        match why.filter(|_| names.is_empty()) {
            Some(why) => Err(format!("{why} ({})", peer.dns_names.join(" "))),
            None => Ok(Vouched { names, until: until.map(|until| until.max(self.clock.now() + LEAST)) }),
        }
    }

    /// Whose word counts for a name.
    fn evidence(&self, name: &str) -> Evidence {
        let named = |partner: &&partners::Partner| partner.certificate_name(&self.net_id_suffix) == name;
        self.partners.partner.iter().find(named).and_then(|partner| partner.trust).unwrap_or(self.evidence)
    }

    /// Whether a certificate is that of a listed partner.
    pub(super) fn is_partner(&self, peer: &PeerIdentity, partner: &partners::Partner) -> bool {
        peer.speaks_for(&partner.certificate_name(&self.net_id_suffix))
    }

    /// Whether what was proven in the beginning still counts. Asked for every request, because
    /// connections live long.
    pub(super) fn authority(&self, guest: &Guest) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::new(ResultCode::UnknownSender, why));
        if !self.clock.is_trusted() {
            return refuse("our clock is not set, so no certificate counts at the moment".into());
        }
        if !guest.peer.is_valid_at(self.clock.wall()) {
            return refuse(format!("your certificate ended on {}: renew it", guest.peer.valid_until));
        }
        match guest.standing().fault {
            Some(why) => refuse(format!("your certificate counts no more: {why}")),
            None => Ok(()),
        }
    }
}

impl Guest {
    fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
