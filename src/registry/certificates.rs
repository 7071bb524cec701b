//! Certificates of members: asked for with a request (PKCS#10), signed by the registry's intermediate, revoked by its list.
//!
//! The first certificate with a member's name waits for the operator's word; whoever has one gets the next ones for the same
//! names at once, which is what a hotspot does by itself at two thirds of its certificate's life.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use jiff::SignedDuration;

use super::rules::{Refused, Suffixes};
use crate::clock::Clock;
use crate::pki::check;
use crate::pki::make::{Authority, LeafSpec};
use crate::pki::request::Request;
use crate::pki::revoke::List;
use crate::store::registry::Claim;

/// Days that a certificate lives.
const DAYS: u32 = 90;
/// A list is made anew after so long, also when nothing was struck off.
const LIST_AGE: SignedDuration = SignedDuration::from_hours(24);

/// The intermediate that signs, and its list.
pub struct Office {
    folder: PathBuf,
    authority: Mutex<Arc<Authority>>,
    list: Mutex<Option<Made>>,
    clock: Clock,
}

/// A list as it was made.
struct Made {
    serials: Vec<String>,
    list: List,
    pem: String,
    by: Arc<Authority>,
}

fn load(folder: &Path) -> anyhow::Result<Authority> {
    let (cert, key) = (folder.join("intermediate.pem"), folder.join("intermediate-key.pem"));
    Authority::load(&cert, &key).with_context(|| format!("[registry] authority = \"{}\"", folder.display()))
}

/// A certificate that has been signed.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Leaf, then the intermediate (PEM).
    pub chain: String,
    /// Of the leaf, hex digits.
    pub serial: String,
}

impl Office {
    /// From the folder that `roamgate pki intermediate` has made.
    pub fn open(folder: &Path, clock: Clock) -> anyhow::Result<Office> {
        let (folder, authority) = (folder.to_owned(), Mutex::new(Arc::new(load(folder)?)));
        Ok(Office { folder, authority, list: Mutex::default(), clock })
    }

    /// As its files are now: what is below a new root counts from the moment at which it is put there. What cannot be used
    /// changes nothing.
    fn authority(&self) -> Arc<Authority> {
        let mut kept = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        match load(&self.folder) {
            Ok(found) if found.cert_pem != kept.cert_pem => {
                let subject = &found.facts().subject;
                tracing::info!(subject, until = %found.facts().not_after, "certificates are signed by another intermediate");
                *kept = Arc::new(found);
            }
            Ok(_) => (),
            Err(error) => tracing::warn!("the intermediate before is still used: {error:#}"),
        }
        kept.clone()
    }

    /// Read a request; all its names have to be the member's.
    pub fn read(pem: &str, claims: &[Claim], suffixes: &Suffixes) -> Result<Request, Refused> {
        let request = Request::read(pem).map_err(|error| Refused::Invalid(error.to_string()))?;
        let subtrees = suffixes.subtrees(claims);
        match request.names.iter().find(|name| !check::is_within(name, &subtrees)) {
            Some(foreign) => Err(Refused::NotYours(foreign.clone())),
            None => Ok(request),
        }
    }

    /// Sign it.
    pub fn sign(&self, request: &Request) -> Result<Signed, Refused> {
        let first = request.names.first().and_then(|name| name.split('.').next()).unwrap_or_default();
        let spec = LeafSpec { days: DAYS, ..LeafSpec::new(first, &request.names) };
        let invalid = |error: String| Refused::Invalid(error);
        let chain = self.authority().issue_for(request, &spec, &self.clock);
        let chain = chain.map_err(|error| invalid(error.to_string()))?;
        let leaf = crate::tls::certificates(chain.as_bytes(), Path::new("the certificate"));
        let leaf = leaf.map_err(|error| invalid(error.to_string()))?;
        let leaf = leaf.first().and_then(|leaf| check::facts(leaf).ok());
        let serial = leaf.map(|leaf| leaf.serial).ok_or_else(|| invalid("it cannot be read again".into()))?;
        Ok(Signed { chain, serial })
    }

    /// The list of these serial numbers (PEM): the one before, where nothing has changed.
    pub fn list(&self, revoked: Vec<String>) -> anyhow::Result<String> {
        let authority = self.authority();
        let mut kept = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let wall = self.clock.wall();
        let is_fresh = |made: &List| wall.duration_since(made.made) < LIST_AGE;
        if let Some(made) = kept.as_ref()
            && made.serials == revoked
            && is_fresh(&made.list)
            && Arc::ptr_eq(&made.by, &authority)
        {
            return Ok(made.pem.clone());
        }
        // numbers go up over restarts too: seconds since 1970
        let number = self.clock.unix();
        let pem = authority.revoke_as(number, &revoked, &self.clock)?;
        let list = List::read(pem.as_bytes())?;
        *kept = Some(Made { serials: revoked, list, pem: pem.clone(), by: authority });
        Ok(pem)
    }
}
