//! The vendor's images: checked when they are imported, found when the radio starts.
//!
//! None is part of this program. An image is kept as raw bytes under a name of its own, so whoever looks into the folder
//! sees what is there; its checks (length, parity) are done anew each time it is read.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sx1302::config::RadioKind;
use sx1302::firmware::{Firmware, FirmwareError, Image, Patch, Program};

/// Where a distribution's package puts images.
const SHARED: &str = "/usr/lib/firmware/sx1302";
/// No published image is longer as text.
const LONGEST: u64 = 1 << 20;

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For a processor of the concentrator.
    Program(Image),
    /// For the SX1261.
    Patch,
}

/// Each image: what it is, the name of its file here, and what the names of published files have in them.
const KINDS: [(Kind, &str, &[&str]); 5] = [
    (Kind::Program(Image::AgcSx1250), "agc-sx1250.bin", &["agc_fw_sx1250", "agc-sx1250"]),
    (Kind::Program(Image::AgcSx125x), "agc-sx125x.bin", &["agc_fw_sx1257", "agc_fw_sx125x", "agc-sx125x"]),
    (Kind::Program(Image::Calibration), "calibration-sx125x.bin", &["cal_fw", "calibration-sx125x"]),
    (Kind::Program(Image::Arbiter), "arbiter.bin", &["arb_fw", "arbiter"]),
    (Kind::Patch, "sx1261-patch.bin", &["sx1261_pram", "sx1261-patch"]),
];

impl Kind {
    /// The name of its file.
    pub fn file(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, file, _)| file)
    }

    /// What a person calls it.
    pub fn title(self) -> String {
        match self {
            Kind::Program(image) => image.to_string(),
            Kind::Patch => "patch of the SX1261".into(),
        }
    }

    /// By the name of a file, published or ours.
    fn of(path: &Path) -> Option<Kind> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        KINDS
            .iter()
            .find(|(_, _, parts)| parts.iter().any(|part| name.contains(part)))
            .map(|(kind, ..)| *kind)
    }

    /// Checks a file and gives the raw bytes that are kept.
    fn check(self, file: &[u8]) -> Result<Vec<u8>, FirmwareError> {
        match self {
            Kind::Program(_) => Program::of_file(file).map(|program| program.bytes().to_vec()),
            Kind::Patch => Patch::of_file(file)
                .map(|patch| patch.words().iter().flat_map(|word| word.to_be_bytes()).collect()),
        }
    }
}

/// Why images could not be imported or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name says nothing.
    #[error("{0}: the name does not tell which image this is")]
    Name(PathBuf),
    /// A folder without any.
    #[error("{0}: no firmware image is in this folder")]
    Nothing(PathBuf),
    /// Not what it should be.
    #[error("{path}: {source}")]
    Image {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: FirmwareError,
    },
    /// An image that the radio needs is nowhere.
    #[error("the {title} is not in {}", folders.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" nor in "))]
    Missing {
        /// Which.
        title: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
}

impl ImportError {
    /// What the operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            ImportError::File { .. } => "check the path and who may read or write there",
            ImportError::Name(_) => "keep the name under which it was published (arb_fw, agc_fw_sx1250, ...)",
            ImportError::Nothing(_) | ImportError::Missing { .. } => {
                "get the published images (folder libloragw/src or inc of Semtech's repository sx1302_hal: arb_fw.var, \
                 agc_fw_sx1250.var, agc_fw_sx1257.var, cal_fw.var, sx1261_pram.var) and run \
                 `roamgate radio firmware import FOLDER`"
            }
            ImportError::Image { .. } => "get the file again, and its own form: array text or raw bytes",
        }
    }
}

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub kind: Kind,
    /// Where.
    pub path: PathBuf,
    /// SHA-256 of the raw bytes, hexadecimal.
    pub sha256: String,
    /// Raw bytes.
    pub bytes: usize,
}

fn held(kind: Kind, path: PathBuf, bytes: &[u8]) -> Held {
    Held { kind, path, sha256: hex::encode(Sha256::digest(bytes)), bytes: bytes.len() }
}

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let error = |source| ImportError::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(error)?.len() > LONGEST {
        let source = FirmwareError::Text(format!("more than {LONGEST} bytes"));
        return Err(ImportError::Image { path: path.to_owned(), source });
    }
    fs::read(path).map_err(error)
}

/// Import files, and what folders hold; checks all before it keeps one.
pub fn import(paths: &[PathBuf], folder: &Path) -> Result<Vec<Held>, ImportError> {
    let mut found = Vec::new();
    for path in paths {
        let files = if path.is_dir() { images_in(path)? } else { vec![path.clone()] };
        for file in files {
            let kind = Kind::of(&file).ok_or_else(|| ImportError::Name(file.clone()))?;
            let bytes = kind
                .check(&read(&file)?)
                .map_err(|source| ImportError::Image { path: file.clone(), source })?;
            found.push((kind, bytes));
        }
    }
    fs::create_dir_all(folder).map_err(|source| ImportError::File { path: folder.to_owned(), source })?;
    found
        .into_iter()
        .map(|(kind, bytes)| {
            let path = folder.join(kind.file());
            replace(&path, &bytes).map_err(|source| ImportError::File { path: path.clone(), source })?;
            Ok(held(kind, path, &bytes))
        })
        .collect()
}

/// Files of a folder whose names tell an image.
fn images_in(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let error = |source| ImportError::File { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.is_file() && Kind::of(&path).is_some() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(ImportError::Nothing(folder.to_owned())) } else { Ok(files) }
}

/// Either the old file or the new one is there, whenever the power fails.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let half = path.with_extension("half");
    let mut file = fs::File::create(&half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Where images are looked for, in this order.
pub fn folders(own: &Path) -> [PathBuf; 2] {
    [own.to_owned(), SHARED.into()]
}

/// Every image that is there; of two of a kind that of the first folder.
pub fn list(folders: &[PathBuf]) -> Result<Vec<Held>, ImportError> {
    let mut all = Vec::new();
    for (kind, file, _) in KINDS {
        if let Some((path, bytes)) = find(kind, file, folders)? {
            all.push(held(kind, path, &bytes));
        }
    }
    Ok(all)
}

fn find(kind: Kind, file: &str, folders: &[PathBuf]) -> Result<Option<(PathBuf, Vec<u8>)>, ImportError> {
    let found = folders.iter().map(|folder| folder.join(file)).find(|path| path.exists());
    let Some(path) = found else { return Ok(None) };
    match kind.check(&read(&path)?) {
        Ok(bytes) => Ok(Some((path, bytes))),
        Err(source) => Err(ImportError::Image { path, source }),
    }
}

/// What a concentrator needs: the arbiter, the gain control of its radios with their calibration where they have one, and
/// the patch where an SX1261 is used.
pub fn load(folders: &[PathBuf], radios: RadioKind, sx1261: bool) -> Result<Firmware, ImportError> {
    let program = |image| -> Result<Program, ImportError> {
        let kind = Kind::Program(image);
        let missing = || ImportError::Missing { title: kind.title(), folders: folders.to_vec() };
        let (path, bytes) = find(kind, kind.file(), folders)?.ok_or_else(missing)?;
        Program::new(bytes).map_err(|source| ImportError::Image { path, source })
    };
    let patch = || -> Result<Patch, ImportError> {
        let missing = || ImportError::Missing { title: Kind::Patch.title(), folders: folders.to_vec() };
        let (path, bytes) = find(Kind::Patch, Kind::Patch.file(), folders)?.ok_or_else(missing)?;
        Patch::of_file(&bytes).map_err(|source| ImportError::Image { path, source })
    };
    let newer = radios == RadioKind::Sx1250;
    let only = |wanted: bool, image| wanted.then(|| program(image)).transpose();
    Ok(Firmware {
        agc_sx1250: only(newer, Image::AgcSx1250)?,
        agc_sx125x: only(!newer, Image::AgcSx125x)?,
        calibration: only(!newer, Image::Calibration)?,
        arbiter: Some(program(Image::Arbiter)?),
        patch: sx1261.then(patch).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        let literals: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:02x}")).collect();
        format!("static uint8_t image[] = {{\n{}\n}};\n", literals.join(", "))
    }

    #[test]
    fn published_files_are_imported_and_found_again() {
        let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let agc = Program::synthetic(Image::AgcSx1250);
        fs::write(there.path().join("agc_fw_sx1250.var"), text(agc.bytes())).unwrap();
        fs::write(there.path().join("arb_fw.bin"), Program::synthetic(Image::Arbiter).bytes()).unwrap();
        fs::write(there.path().join("readme.txt"), "nothing").unwrap();
        let own = here.path().join("state/firmware");
        let folders = [own.clone()];
        let missing = load(&folders, RadioKind::Sx1250, false).unwrap_err();
        assert!(missing.to_string().starts_with("the AGC firmware for SX1250 is not in "), "{missing}");
        assert!(missing.remedy().contains("roamgate radio firmware import"));

        let imported = import(&[there.path().to_owned()], &own).unwrap();
        assert_eq!(imported, list(&folders).unwrap());
        assert_eq!(imported.len(), 2);
        assert_eq!(imported[0].sha256, hex::encode(Sha256::digest(agc.bytes())));
        assert_eq!(load(&folders, RadioKind::Sx1250, false).unwrap().agc_sx1250, Some(agc));
        assert!(
            matches!(load(&folders, RadioKind::Sx1250, true), Err(ImportError::Missing { .. })),
            "no patch was imported"
        );
        fs::write(there.path().join("sx1261_pram.var"), {
            let words: Vec<String> = Patch::synthetic().words().iter().map(u32::to_string).collect();
            words.join(",")
        })
        .unwrap();
        import(&[there.path().join("sx1261_pram.var")], &own).unwrap();
        assert_eq!(load(&folders, RadioKind::Sx1250, true).unwrap().patch, Some(Patch::synthetic()));
    }

    #[test]
    fn a_wrong_image_is_named_and_nothing_is_kept() {
        let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |name: &str| there.path().join(name);
        fs::write(path("arb_fw.var"), text(Program::synthetic(Image::Arbiter).bytes())).unwrap();
        let mut bytes = Program::synthetic(Image::AgcSx1250).bytes().to_vec();
        bytes[20] ^= 1;
        fs::write(path("agc_fw_sx1250.var"), text(&bytes)).unwrap();
        let own = here.path().join("firmware");
        let refused = import(&[there.path().to_owned()], &own).unwrap_err();
        assert!(refused.to_string().contains("the parity of word 10 is wrong"), "{refused}");
        assert!(!own.exists(), "a good image beside a bad one is not kept either");
        assert!(matches!(import(&[path("x.bin")], &own), Err(ImportError::Name(_))));
        assert!(matches!(import(&[path("arb_fw.gone")], &own), Err(ImportError::File { .. })));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(import(&[empty.path().to_owned()], &own), Err(ImportError::Nothing(_))));
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("arbiter.bin"), b"short").unwrap();
        assert!(matches!(list(std::slice::from_ref(&own)), Err(ImportError::Image { .. })));
    }
}
