//! Backups of partners that are kept here: each partner has a folder, a bound, and nothing but files that it alone can open.
//!
//! A partner may leave a file and take one away with it; it can remove none. The oldest go when a new one needs their room, so a
//! partner whose key was stolen loses what it had here only slowly, and whoever keeps them is never asked for more room than agreed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::shelf;
use crate::lorawan::NetId;

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Not how backups of this partner are called.
    #[error("a backup of {0} is called roamgate-{0}-TIME.age, with the time as in 20261130T031200Z")]
    Name(NetId),
    /// It is longer than all that is kept for this partner.
    #[error("it is longer than {0} MB, which is all that is kept for you")]
    TooLong(u32),
    /// The disk.
    #[error("it cannot be kept: {0}")]
    File(#[from] io::Error),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Bytes.
    #[serde(rename = "bytes")]
    pub length: u64,
}

/// The files of all partners.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
}

/// A file that is on its way in. Dropped before [`Incoming::finish`], it leaves nothing.
pub struct Incoming {
    file: File,
    fresh: PathBuf,
    path: PathBuf,
    length: u64,
    limit_mb: u32,
    is_whole: bool,
}

impl Kept {
    /// Those in this folder, which is made with the first file.
    pub fn at(folder: PathBuf) -> Kept {
        Kept { folder }
    }

    /// Where a partner's are.
    pub fn of(&self, owner: NetId) -> PathBuf {
        self.folder.join(owner.to_string())
    }

    /// Partners of whom there is something.
    pub fn owners(&self) -> io::Result<Vec<NetId>> {
        let names = names(&self.folder)?;
        let mut owners: Vec<NetId> = names.iter().filter_map(|(name, _)| name.parse().ok()).collect();
        owners.sort_unstable();
        Ok(owners)
    }

    /// A partner's files, the oldest first.
    pub fn list(&self, owner: NetId) -> io::Result<Vec<Entry>> {
        let id = owner.to_string();
        let all = names(&self.of(owner))?.into_iter();
        let mut all: Vec<Entry> = all
            .filter(|(name, _)| shelf::is_of(name, &id))
            .map(|(name, length)| Entry { name, length })
            .collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// One of them; `None`: there is none of that name.
    pub fn open(&self, owner: NetId, name: &str) -> Result<Option<File>, KeptError> {
        if !shelf::is_of(name, &owner.to_string()) {
            return Err(KeptError::Name(owner));
        }
        match File::open(self.of(owner).join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Begin to take one.
    pub fn take(&self, owner: NetId, name: &str, limit_mb: u32) -> Result<Incoming, KeptError> {
        if !shelf::is_of(name, &owner.to_string()) {
            return Err(KeptError::Name(owner));
        }
        let folder = self.of(owner);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // one that a power cut has left is begun again
        let fresh = folder.join(".new");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        Ok(Incoming { file, fresh, path: folder.join(name), length: 0, limit_mb, is_whole: false })
    }

    /// Remove the oldest of a partner until no more than so much is left.
    pub fn tidy(&self, owner: NetId, limit_mb: u32) -> io::Result<()> {
        let mut all = self.list(owner)?;
        let mut total: u64 = all.iter().map(|entry| entry.length).sum();
        all.pop();
        for entry in all {
            if total <= u64::from(limit_mb) << 20 {
                break;
            }
            fs::remove_file(self.of(owner).join(&entry.name))?;
            total -= entry.length;
        }
        Ok(())
    }
}

impl Incoming {
    /// The next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), KeptError> {
        self.length += bytes.len() as u64;
        if self.length > u64::from(self.limit_mb) << 20 {
            return Err(KeptError::TooLong(self.limit_mb));
        }
        Ok(self.file.write_all(bytes)?)
    }

    /// All of it has come: from now on it is there, also after a power cut. Its length.
    pub fn finish(mut self) -> Result<u64, KeptError> {
        self.file.sync_all()?;
        fs::rename(&self.fresh, &self.path)?;
        self.is_whole = true;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(self.length)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_whole {
            // it is begun anew with the next one, whether this works or not
            let _ = fs::remove_file(&self.fresh);
        }
    }
}

fn names(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.metadata()?.len()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: NetId = NetId::from_msb([0xC0, 0x0A, 0xBC]);

    fn name(day: u32) -> String {
        format!("roamgate-C00ABC-202611{day:02}T031200Z.age")
    }

    fn keep(kept: &Kept, day: u32, length: usize, limit_mb: u32) -> Result<u64, KeptError> {
        let mut incoming = kept.take(OWNER, &name(day), limit_mb)?;
        for piece in vec![7; length].chunks(100_000) {
            incoming.write(piece)?;
        }
        let length = incoming.finish()?;
        kept.tidy(OWNER, limit_mb)?;
        Ok(length)
    }

    #[test]
    fn the_newest_stay_within_the_bound_and_half_a_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::at(folder.path().join("kept"));
        assert_eq!((kept.owners().unwrap(), kept.list(OWNER).unwrap()), (vec![], vec![]));
        for day in [1, 2, 3] {
            assert_eq!(keep(&kept, day, 900_000, 2).unwrap(), 900_000);
        }
        let days = || kept.list(OWNER).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!((days(), kept.owners().unwrap()), (vec![name(2), name(3)], vec![OWNER]));
        let error = keep(&kept, 4, 2_200_000, 2).unwrap_err().to_string();
        assert_eq!(error, "it is longer than 2 MB, which is all that is kept for you");
        assert_eq!(fs::read_dir(kept.of(OWNER)).unwrap().count(), 2, "nothing of it is left");
        assert!(
            kept.open(OWNER, &name(2)).unwrap().is_some() && kept.open(OWNER, &name(1)).unwrap().is_none()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_name_leads_out_of_the_partners_folder(name in ".*", day in "[0-9TZ./-]{0,20}") {
            let folder = tempfile::tempdir().unwrap();
            let kept = Kept::at(folder.path().join("kept"));
            for name in [name, format!("roamgate-C00ABC-{day}.age")] {
                let taken = kept.take(OWNER, &name, 1);
                let is_inside = taken.as_ref().is_ok_and(|taken| taken.path.parent() == Some(&kept.of(OWNER)));
                proptest::prop_assert!(is_inside || taken.is_err(), "{name}");
            }
        }
    }
}
