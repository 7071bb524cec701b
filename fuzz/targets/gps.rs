//! Whatever a GPS receiver sends, as a sentence, as a frame, and as a stream that is cut where it happens to be.

use sx1302::gps::{Reader, Sentence, Ubx, nmea, ubx};

pub fn fuzz(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        match nmea(text) {
            Sentence::Rmc(Some(time)) => assert!(time.0.nanos < 1_000_000_000),
            Sentence::Gga(Some(position)) => {
                assert!(position.latitude.is_finite() && position.longitude.is_finite())
            }
            _ => {}
        }
    }
    match ubx(bytes) {
        (Ubx::NavTimeGps(Some(time)), length) => assert!(time.0.nanos < 1_000_000_000 && length == 24),
        (Ubx::Incomplete, length) => assert!(length == 0 || length > bytes.len()),
        (_, length) => assert!(length <= bytes.len()),
    }
    let (mut whole, mut parts) = (Reader::new(), Reader::new());
    let at_once = whole.feed(bytes);
    let cut: Vec<_> = bytes.chunks(7).flat_map(|chunk| parts.feed(chunk)).collect();
    assert_eq!(at_once, cut);
}
