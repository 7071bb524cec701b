//! Whatever an operator imports as a list of devices: rows with their lines, or what is wrong on which, never a panic;
//! and no reason repeats a key.

use std::collections::BTreeSet;

use roamgate::cli::device_file::{self, Format};

pub fn fuzz(bytes: &[u8]) {
    let text = super::text(bytes);
    for format in [Format::Csv, Format::Json] {
        let (rows, bad) = device_file::read(format, text);
        let lines = text.lines().count() as u64;
        for line in rows.iter().map(|row| row.line).chain(bad.iter().map(|bad| bad.line)) {
            assert!(line <= lines + 1, "line {line} of {lines}");
        }
        let names: BTreeSet<_> = rows.iter().map(|row| row.device.dev_eui).collect();
        assert_eq!(names.len(), rows.len(), "each device once");
        assert!(bad.iter().all(|bad| !bad.reason.is_empty()));
    }
}
