//! The folder of a node's own certificate: the request that waits for one, the set in use, and the set before it.
//!
//! ```text
//! next/             key.pem request.pem     a request that no certificate has answered yet
//! set-N/            key.pem chain.pem       a key and its certificate
//! current           link to the set in use: replaced in one step, so nobody reads half a switch
//! previous          link to the set before it, to go back to
//! ```
//!
//! A key is made here, is readable by its owner only, and never leaves.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::check::{self, Facts, Pin, Report, Weight};
use super::make::{self, MakeError, NewFile};
use super::name::{NameError, dns_name};
use super::request::{self, Request, RequestError};
use crate::clock::Clock;
use crate::tls::{self, TlsError};

/// File with the certificates, in a set.
const CHAIN: &str = "chain.pem";
/// File with the key, in a set.
const KEY: &str = "key.pem";
const REQUEST: &str = "request.pem";
const NEXT: &str = "next";
const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
const SET: &str = "set-";
/// Sets that are kept: the one in use, the one before it, and those before them.
const KEPT: usize = 4;

/// Why nothing was switched. What was in use still is.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operator's move.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The operator's move: a certificate for a key that is not here.
    #[error("it belongs to none of the keys in {}: was it made for a request of another node?", .0.display())]
    NoKey(PathBuf),
    /// The authority's move, or the operator's.
    #[error("it is not used: {}", .0.join("; "))]
    Faults(Vec<String>),
    /// The operator's move.
    #[error("there is no set before the one in use")]
    NothingBefore,
    /// Files that cannot be written.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A request that cannot be made, or that somebody changed.
    #[error("request: {0}")]
    Request(#[from] RequestError),
    /// Not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Certificates that cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

/// A request that waits for its certificate.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The file to send.
    pub path: PathBuf,
    /// PEM.
    pub pem: String,
    /// What it asks for.
    pub names: Vec<String>,
    /// It was made just now.
    pub new: bool,
}

impl Folder {
    /// At this path; made when something is put into it.
    pub fn new(path: impl Into<PathBuf>) -> Folder {
        Folder(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The certificates in use: leaf, then intermediate.
    pub fn chain(&self) -> PathBuf {
        self.0.join(CURRENT).join(CHAIN)
    }

    /// The key in use.
    pub fn key(&self) -> PathBuf {
        self.0.join(CURRENT).join(KEY)
    }

    /// The request that waits, if one does.
    pub fn waiting(&self) -> Result<Option<Waiting>, FolderError> {
        let path = self.0.join(NEXT).join(REQUEST);
        if !path.exists() {
            return Ok(None);
        }
        let pem = read(&path)?;
        Ok(Some(Waiting { names: Request::read(&pem)?.names, path, pem, new: false }))
    }

    /// A key and a request for these names. One that waits for the same names is kept, so that an answer on its way still fits;
    /// `fresh` makes another in any case.
    pub fn request(&self, common_name: &str, names: &[String], fresh: bool) -> Result<Waiting, FolderError> {
        let names = names.iter().map(|name| dns_name(name)).collect::<Result<Vec<_>, _>>()?;
        if !fresh && let Some(waiting) = self.waiting()?.filter(|waiting| waiting.names == names) {
            return Ok(waiting);
        }
        let (pem, key) = request::make(common_name, &names)?;
        let files = [
            NewFile { name: KEY, text: &key, secret: true },
            NewFile { name: REQUEST, text: &pem, secret: false },
        ];
        let next = self.0.join(NEXT);
        make::write_files(&next, &files, true)?;
        Ok(Waiting { path: next.join(REQUEST), pem, names, new: true })
    }

    /// Use this certificate (leaf, then intermediate; PEM) from now on: for the key that waits, or for one that is here already. It
    /// is checked first; nothing changes where partners would refuse it.
    pub fn install(
        &self,
        chain_pem: &str,
        roots: &[CertificateDer<'_>],
        clock: &Clock,
    ) -> Result<Report, FolderError> {
        let chain = tls::certificates(chain_pem.as_bytes(), Path::new("the certificate"))?;
        let leaf = chain.first().and_then(|leaf| check::facts(leaf).ok());
        let pin = leaf.map(|leaf| leaf.pin);
        let mut keys = vec![self.0.join(NEXT).join(KEY)];
        keys.extend(self.sets()?.into_iter().rev().map(|number| self.set(number).join(KEY)));
        let is_its = |path: &PathBuf| pin.is_some() && pin_of(path) == pin;
        let key = keys.into_iter().find(is_its).ok_or_else(|| FolderError::NoKey(self.0.clone()))?;
        let report = check::inspect(&chain, spki_of(&key).as_deref(), roots, clock.wall());
        let faults = report.findings.iter().filter(|finding| finding.weight == Weight::Fault);
        let faults: Vec<String> = faults.map(|fault| format!("{} ({})", fault.what, fault.remedy)).collect();
        if !faults.is_empty() {
            return Err(FolderError::Faults(faults));
        }
        let set = self.set(self.sets()?.last().map_or(1, |last| last + 1));
        let key_pem = zeroize::Zeroizing::new(read(&key)?);
        let files = [
            NewFile { name: KEY, text: &key_pem, secret: true },
            NewFile { name: CHAIN, text: chain_pem, secret: false },
        ];
        make::write_files(&set, &files, true)?;
        self.switch(&set)?;
        let next = self.0.join(NEXT);
        if key.starts_with(&next) {
            std::fs::remove_dir_all(&next).map_err(failed(&next))?;
        }
        self.tidy()?;
        Ok(report)
    }

    /// Use the set before the one in use again; the one in use becomes the one before.
    pub fn roll_back(&self) -> Result<Facts, FolderError> {
        let previous = self.target(PREVIOUS).ok_or(FolderError::NothingBefore)?;
        self.switch(&previous)?;
        let chain = tls::certificates(read(&self.chain())?.as_bytes(), &self.chain())?;
        let leaf = chain.first().ok_or(FolderError::NothingBefore)?;
        Ok(check::facts(leaf).map_err(|error| TlsError::Peer(error.to_string()))?)
    }

    /// Files came back from elsewhere: use the newest set, if none is in use.
    pub fn take_up(&self) -> Result<(), FolderError> {
        let newest = self.sets()?.last().map(|number| self.set(*number));
        match newest.filter(|_| !self.chain().exists()) {
            Some(set) => self.switch(&set),
            None => Ok(()),
        }
    }

    /// What the leaf in use says; `None`: there is none.
    pub fn leaf(&self) -> Result<Option<Facts>, FolderError> {
        if !self.chain().exists() {
            return Ok(None);
        }
        let chain = tls::certificates(read(&self.chain())?.as_bytes(), &self.chain())?;
        let facts = chain.first().map(|leaf| check::facts(leaf)).transpose();
        Ok(facts.map_err(|error| TlsError::Peer(error.to_string()))?)
    }

    fn set(&self, number: u32) -> PathBuf {
        self.0.join(format!("{SET}{number}"))
    }

    /// Numbers of the sets, the newest last.
    fn sets(&self) -> Result<Vec<u32>, FolderError> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(FolderError::File { path: self.0.clone(), source }),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut sets: Vec<u32> = names.filter_map(|name| name.strip_prefix(SET)?.parse().ok()).collect();
        sets.sort_unstable();
        Ok(sets)
    }

    fn target(&self, link: &str) -> Option<PathBuf> {
        let target = std::fs::read_link(self.0.join(link)).ok()?;
        Some(self.0.join(target))
    }

    fn switch(&self, to: &Path) -> Result<(), FolderError> {
        if let Some(current) = self.target(CURRENT).filter(|current| current != to) {
            self.point(PREVIOUS, &current)?;
        }
        self.point(CURRENT, to)?;
        std::fs::File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(failed(&self.0))
    }

    fn point(&self, link: &str, to: &Path) -> Result<(), FolderError> {
        let (fresh, link) = (self.0.join(format!(".{link}.new")), self.0.join(link));
        // what an interrupted switch left
        let _ = std::fs::remove_file(&fresh);
        let target = to.file_name().map_or(to, Path::new);
        symlink(target, &fresh).map_err(failed(&fresh))?;
        std::fs::rename(&fresh, &link).map_err(failed(&link))
    }

    fn tidy(&self) -> Result<(), FolderError> {
        let used = [self.target(CURRENT), self.target(PREVIOUS)];
        let sets = self.sets()?;
        let old = sets.iter().rev().skip(KEPT).map(|number| self.set(*number));
        for set in old.filter(|set| !used.contains(&Some(set.clone()))) {
            std::fs::remove_dir_all(&set).map_err(failed(&set))?;
        }
        Ok(())
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FolderError + use<> {
    let path = path.to_owned();
    move |source| FolderError::File { path, source }
}

fn read(path: &Path) -> Result<String, FolderError> {
    std::fs::read_to_string(path).map_err(failed(path))
}

fn spki_of(path: &Path) -> Option<Vec<u8>> {
    let pem = zeroize::Zeroizing::new(std::fs::read(path).ok()?);
    tls::spki(&PrivateKeyDer::from_pem_slice(&pem).ok()?).ok()
}

fn pin_of(path: &Path) -> Option<Pin> {
    spki_of(path).map(|spki| Pin::of(&spki))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::SignedDuration;

    use super::*;
    use crate::pki::make::{Authority, IntermediateSpec, LeafSpec, RootSpec};
    use crate::tls::Identity;

    const NAME: &str = "c0002f.netids.iot.example";

    struct Desk {
        folder: Folder,
        root: Authority,
        member: Authority,
        clock: Clock,
        _dir: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Desk {
            let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::system());
            let root = Authority::root(&RootSpec::new("r"), &clock).unwrap();
            let member = root.intermediate(&IntermediateSpec::new("m", [NAME]), &clock).unwrap();
            Desk { folder: Folder::new(dir.path().join("pki")), root, member, clock, _dir: dir }
        }
        fn request(&self) -> Waiting {
            self.folder.request("c0002f", &[NAME.into()], false).unwrap()
        }
        fn answer(&self, waiting: &Waiting) -> String {
            let request = Request::read(&waiting.pem).unwrap();
            self.member.issue_for(&request, &LeafSpec::new("c0002f", &request.names), &self.clock).unwrap()
        }
        fn roots(&self) -> Vec<CertificateDer<'static>> {
            tls::certificates(self.root.cert_pem.as_bytes(), Path::new("root")).unwrap()
        }
        fn install(&self, chain: &str) -> Result<Report, FolderError> {
            self.folder.install(chain, &self.roots(), &self.clock)
        }
        fn used(&self) -> Pin {
            Identity::load(&self.folder.chain(), &self.folder.key()).unwrap();
            self.folder.leaf().unwrap().unwrap().pin
        }
    }

    #[test]
    fn a_certificate_is_asked_for_used_replaced_and_taken_back() {
        let desk = Desk::new();
        assert!(desk.folder.leaf().unwrap().is_none() && desk.folder.waiting().unwrap().is_none());
        let first = desk.request();
        let again = desk.request();
        assert!((first.new, again.new) == (true, false) && first.pem == again.pem);
        let mode = desk.folder.path().join("next/key.pem").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        desk.install(&desk.answer(&first)).unwrap();
        assert!(desk.folder.waiting().unwrap().is_none());
        let one = desk.used();
        assert!(matches!(desk.folder.roll_back(), Err(FolderError::NothingBefore)));
        let second = desk.request();
        assert!(second.new);
        // the one in use stays while another is asked for
        assert_eq!(desk.used(), one);
        desk.install(&desk.answer(&second)).unwrap();
        let two = desk.used();
        assert_ne!(one, two);
        assert_eq!(desk.folder.roll_back().unwrap().pin, one);
        assert_eq!(desk.used(), one);
        assert_eq!(desk.folder.roll_back().unwrap().pin, two);
        assert_eq!(desk.used(), two);
        for _ in 0..6 {
            desk.install(&desk.answer(&desk.request())).unwrap();
        }
        assert_eq!(desk.folder.sets().unwrap().len(), KEPT);
    }

    #[test]
    fn a_certificate_that_partners_would_refuse_changes_nothing() {
        let desk = Desk::new();
        desk.install(&desk.answer(&desk.request())).unwrap();
        let used = desk.used();
        let waiting = desk.request();
        let good = desk.answer(&waiting);
        let end = good.find("-----END CERTIFICATE-----\n").unwrap() + 26;
        let stranger = Desk::new();
        let foreign = stranger.answer(&waiting);
        let refused = |chain: &str, words: &str| {
            let error = desk.install(chain).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert_eq!(desk.used(), used);
        };
        refused("", "no certificate");
        refused(&good[..end], "intermediate");
        refused(&foreign, "root");
        refused(&stranger.answer(&stranger.request()), "none of the keys");
        let late = desk.clock.wall();
        desk.clock.move_wall(SignedDuration::from_hours(24 * 500));
        refused(&good, "expired");
        desk.clock.move_wall(late.duration_since(desk.clock.wall()));
        // and the request still waits for a good one
        desk.install(&good).unwrap();
        assert_ne!(desk.used(), used);
    }
}
