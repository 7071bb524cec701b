//! What the IEEE has assigned: its files of MA-L, MA-M and MA-S assignments, as CSV.

use std::io::Read;

use serde::Deserialize;

use crate::store::registry::Assignment;

/// A line of one of the files. Other columns do not matter here.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "Assignment")]
    assignment: String,
    #[serde(rename = "Organization Name")]
    organisation: String,
}

/// Why a file is not taken. Nothing of it is.
#[derive(Debug, thiserror::Error)]
pub enum OuiError {
    /// Not a CSV file, or not with these columns.
    #[error("not a file of assignments of the IEEE (columns Assignment and Organization Name): {0}")]
    Form(#[from] csv::Error),
    /// A line that is no assignment.
    #[error("line {0}: {1:?} is not 6, 7 or 9 hex digits")]
    Assignment(u64, String),
    /// No line at all, or lines of several kinds.
    #[error("a file has assignments of one width: 24 bits (MA-L), 28 (MA-M) or 36 (MA-S)")]
    Mixed,
}

/// Read one file: how many bits count, and its lines.
pub fn read(file: impl Read) -> Result<(u8, Vec<Assignment>), OuiError> {
    let mut lines = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let (mut width, mut all) = (None, Vec::new());
    for (at, line) in lines.deserialize::<Line>().enumerate() {
        let Line { assignment, organisation } = line?;
        let digits = assignment.trim().to_ascii_uppercase();
        let number = at as u64 + 2;
        let bits = match digits.len() {
            6 => 24,
            7 => 28,
            9 => 36,
            _ => return Err(OuiError::Assignment(number, assignment)),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(OuiError::Assignment(number, assignment));
        }
        if *width.get_or_insert(bits) != bits {
            return Err(OuiError::Mixed);
        }
        let organisation = organisation.chars().filter(|c| !c.is_control()).take(200).collect();
        all.push(Assignment { first: format!("{digits:0<16}"), bits, organisation });
    }
    width.map(|width| (width, all)).ok_or(OuiError::Mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "Registry,Assignment,Organization Name,Organization Address\n\
                        MA-S,70B3D57ED,\"Acme, Inc.\",\"1 Road\nTown\"\nMA-S,70B3D5FFF,Other,\n";

    #[test]
    fn assignments_are_read_as_the_ieee_writes_them() {
        let (bits, all) = read(FILE.as_bytes()).unwrap();
        assert_eq!((bits, all.len()), (36, 2));
        assert_eq!((&*all[0].first, &*all[0].organisation), ("70B3D57ED0000000", "Acme, Inc."));
    }

    #[test]
    fn what_is_no_such_file_is_refused_whole() {
        for (text, words) in [
            ("a,b\n1,2\n", "columns"),
            ("Registry,Assignment,Organization Name\nMA-L,70B3D,X\n", "line 2"),
            ("Registry,Assignment,Organization Name\nMA-L,70B3DG,X\n", "line 2"),
            ("Registry,Assignment,Organization Name\nMA-L,70B3D5,X\nMA-S,70B3D57ED,X\n", "one width"),
            ("Registry,Assignment,Organization Name\n", "one width"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_upsets_it(bytes: Vec<u8>) {
            let _ = read(&bytes[..]);
        }
    }
}
