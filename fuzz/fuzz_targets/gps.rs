//! Whatever a GPS receiver sends, as a sentence and as a frame.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sx1302::gps::{Sentence, Ubx, nmea, ubx};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        match nmea(text) {
            Sentence::Rmc(Some(time)) => assert!(time.nanos < 1_000_000_000),
            Sentence::Gga(Some(position)) => {
                assert!(position.latitude.is_finite() && position.longitude.is_finite())
            }
            _ => {}
        }
    }
    match ubx(bytes) {
        (Ubx::NavTimeGps(Some(time)), length) => assert!(time.nanos < 1_000_000_000 && length == 24),
        (Ubx::Incomplete, length) => assert!(length == 0 || length > bytes.len()),
        (_, length) => assert!(length <= bytes.len()),
    }
});
