//! What we show, replaceable: new connections show the new certificate, those that are open go on. Called by `tls` only.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Identity;

/// An identity that every configuration made from it shows, and that can be replaced.
#[derive(Clone)]
pub struct Shown(Arc<RwLock<(Identity, Arc<CertifiedKey>)>>);

impl fmt::Debug for Shown {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Shown({:?})", self.identity())
    }
}

impl From<&Identity> for Shown {
    fn from(identity: &Identity) -> Shown {
        Shown(Arc::new(RwLock::new(both(identity))))
    }
}

impl From<&Shown> for Shown {
    fn from(shown: &Shown) -> Shown {
        shown.clone()
    }
}

fn both(identity: &Identity) -> (Identity, Arc<CertifiedKey>) {
    let key = CertifiedKey::new(identity.chain.clone(), identity.signer.clone());
    (identity.clone(), Arc::new(key))
}

impl Shown {
    /// What is shown at present.
    pub fn identity(&self) -> Identity {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Show this from now on.
    pub fn show(&self, identity: &Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = both(identity);
    }

    fn key(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
