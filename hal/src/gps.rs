//! GPS sentences, and the chip's counter against GPS time. Pure: bytes and numbers in, facts out.
//!
//! Knows two NMEA sentences (RMC for the time, GGA for the place) and one UBX message (NAV-TIMEGPS). The pulse that the
//! chip's counter latched belongs to the second that was reported last.

use crate::counter::Count;

/// Turns a u-blox receiver's NAV-TIMEGPS on, once a second, on its serial and USB ports.
pub const ENABLE_NAV_TIMEGPS: [u8; 16] =
    [0xb5, 0x62, 0x06, 0x01, 0x08, 0x00, 0x01, 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x32, 0x94];

/// Seconds and nanoseconds since an epoch: 1970 for UTC, 6 January 1980 for GPS time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Less than 10⁹.
    pub nanos: u32,
}

impl Time {
    /// Seconds from another time to this one.
    pub fn since(self, other: Time) -> f64 {
        (self.seconds - other.seconds) as f64 + 1e-9 * (f64::from(self.nanos) - f64::from(other.nanos))
    }

    /// So many seconds later, earlier where negative; the fraction is truncated to nanoseconds.
    fn plus(self, seconds: f64) -> Time {
        let whole = seconds.trunc();
        let nanos = i64::from(self.nanos) + ((seconds - whole) * 1e9) as i64;
        Time {
            seconds: self
                .seconds
                .saturating_add(whole as i64)
                .saturating_add(nanos.div_euclid(1_000_000_000)),
            nanos: nanos.rem_euclid(1_000_000_000) as u32,
        }
    }
}

/// Where the antenna is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Degrees, north is positive.
    pub latitude: f64,
    /// Degrees, east is positive.
    pub longitude: f64,
    /// Whole metres above the sea.
    pub altitude: i32,
}

/// What a sentence said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sentence {
    /// RMC: UTC, where the receiver is sure.
    Rmc(Option<Time>),
    /// GGA: position, where the receiver is sure.
    Gga(Option<Position>),
    /// A sound sentence of another kind.
    Other,
    /// Checksum or shape is wrong.
    Invalid,
}

/// Reads an NMEA sentence from `$` to the checksum; what follows is ignored.
pub fn nmea(sentence: &str) -> Sentence {
    parse_nmea(sentence).unwrap_or(Sentence::Invalid)
}

fn parse_nmea(sentence: &str) -> Option<Sentence> {
    let (body, checksum) = sentence.trim_start().strip_prefix('$')?.split_once('*')?;
    let checksum = u8::from_str_radix(checksum.get(..2)?, 16).ok()?;
    if body.bytes().fold(0, |sum, byte| sum ^ byte) != checksum {
        return None;
    }
    let fields: Vec<&str> = body.split(',').collect();
    Some(match fields.first()?.get(2..)? {
        // NMEA 2.3 has 13 fields, gpsd leaves the mode out, NMEA 4.1 appends one.
        "RMC" if (12..=14).contains(&fields.len()) => {
            let sure = fields.get(12).map_or(fields[2] == "A", |mode| matches!(*mode, "A" | "D"));
            Sentence::Rmc(sure.then(|| utc(fields[1], fields[9])).flatten())
        }
        "GGA" if fields.len() == 15 => Sentence::Gga(position(&fields)),
        "RMC" | "GGA" => return None,
        _ => Sentence::Other,
    })
}

fn utc(time: &str, date: &str) -> Option<Time> {
    let two = |text: &str, at: usize| text.get(at..at + 2)?.parse::<i64>().ok().filter(|number| *number >= 0);
    let (hours, minutes, seconds) = (two(time, 0)?, two(time, 2)?, two(time, 4)?);
    let (day, month, year) = (two(date, 0)?, two(date, 2)?, 2000 + two(date, 4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let fraction: f32 = match time.get(6..)? {
        "" => 0.0,
        text if text.starts_with('.') => {
            text.parse().ok().filter(|fraction| (0.0..1.0).contains(fraction))?
        }
        _ => return None,
    };
    // Days since 1970 of the proleptic calendar, in years that begin with March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hours * 3600 + minutes * 60 + seconds;
    Some(Time { seconds, nanos: (f64::from(fraction) * 1e9) as u32 })
}

fn position(fields: &[&str]) -> Option<Position> {
    let angle = |text: &str, digits: usize| {
        let degrees: f64 = text.get(..digits)?.parse().ok()?;
        let minutes: f64 = text.get(digits..)?.parse().ok()?;
        (0.0..60.0).contains(&minutes).then_some(degrees + minutes / 60.0)
    };
    if fields[6] == "0" {
        return None;
    }
    let sign = |side: &str| if matches!(side, "S" | "W") { -1.0 } else { 1.0 };
    Some(Position {
        latitude: sign(fields[3]) * angle(fields[2], 2)?,
        longitude: sign(fields[5]) * angle(fields[4], 3)?,
        altitude: fields[9].parse::<f64>().ok()? as i32,
    })
}

/// What a UBX frame said, and how long it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ubx {
    /// NAV-TIMEGPS: GPS time, where the receiver is sure.
    NavTimeGps(Option<Time>),
    /// A sound frame of another kind.
    Other,
    /// The checksum is wrong.
    Invalid,
    /// More bytes are needed.
    Incomplete,
    /// It does not begin as a frame does.
    NotUbx,
}

/// Reads the UBX frame at the start of `bytes`. The length is that of the frame as its head says, 0 where it says none.
pub fn ubx(bytes: &[u8]) -> (Ubx, usize) {
    let sync = [0xb5, 0x62];
    if !bytes.iter().zip(sync).all(|(byte, wanted)| *byte == wanted) {
        return (Ubx::NotUbx, 0);
    }
    let Some([_, _, class, id, low, high]) = bytes.first_chunk() else { return (Ubx::Incomplete, 0) };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let Some(frame) = bytes.get(..length + 8) else { return (Ubx::Incomplete, length + 8) };
    let (a, b) = frame[2..length + 6].iter().fold((0u8, 0u8), |(a, b), byte| {
        let a = a.wrapping_add(*byte);
        (a, b.wrapping_add(a))
    });
    if frame[length + 6..] != [a, b] {
        return (Ubx::Invalid, frame.len());
    }
    let said = match ((class, id), frame[6..].first_chunk::<16>()) {
        ((0x01, 0x20), Some(payload)) if length == 16 => Ubx::NavTimeGps(nav_timegps(payload)),
        ((0x01, 0x20), _) => Ubx::Invalid,
        _ => Ubx::Other,
    };
    (said, frame.len())
}

fn nav_timegps(payload: &[u8; 16]) -> Option<Time> {
    let [i0, i1, i2, i3, f0, f1, f2, f3, w0, w1, _, valid, ..] = *payload;
    // Time of week or week: one of them is enough for a receiver that has just started.
    if valid & 3 == 0 {
        return None;
    }
    let of_week = f64::from(u32::from_le_bytes([i0, i1, i2, i3])) / 1e3;
    let week = i64::from(i16::from_le_bytes([w0, w1]));
    let nanos = (of_week.fract() * 1e9 + f64::from(i32::from_le_bytes([f0, f1, f2, f3]))) as i64;
    Some(Time {
        seconds: week * 604_800 + of_week.trunc() as i64 + nanos.div_euclid(1_000_000_000),
        nanos: nanos.rem_euclid(1_000_000_000) as u32,
    })
}

/// The crystal may be off by so much.
const TOLERANCE: f64 = 10e-6;

/// Ties the counter to UTC and GPS time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    count: Count,
    utc: Time,
    gps: Time,
    crystal: f64,
    aberrant: u8,
    set: bool,
}

impl Default for Reference {
    fn default() -> Self {
        let zero = Time::default();
        Reference { count: Count(0), utc: zero, gps: zero, crystal: 1.0, aberrant: 0, set: false }
    }
}

impl Reference {
    /// Nothing is known yet.
    pub fn new() -> Reference {
        Reference::default()
    }

    /// Takes what the last pulse was: its count, and the times reported for it. Gives whether it was believed: the crystal
    /// must have been within its tolerance since the last believed pulse. After the third disagreement in a row the new
    /// pulse is believed, and the crystal's figure kept.
    pub fn sync(&mut self, count: Count, utc: Time, gps: Time) -> bool {
        let counted = f64::from(count.0.wrapping_sub(self.count.0)) / 1e6;
        let slope = counted / utc.since(self.utc);
        if within(slope) {
            self.crystal = slope;
        } else {
            self.aberrant += 1;
            if self.aberrant < 3 {
                return false;
            }
            if !within(self.crystal) {
                self.crystal = 1.0;
            }
        }
        *self = Reference { count, utc, gps, crystal: self.crystal, aberrant: 0, set: true };
        true
    }

    /// Counted seconds per true second.
    pub fn crystal(&self) -> f64 {
        self.crystal
    }

    /// The count of the last believed pulse.
    pub fn count(&self) -> Count {
        self.count
    }

    /// Whether conversions are possible. How old a reference may be is for its user to say.
    pub fn is_valid(&self) -> bool {
        self.set && within(self.crystal)
    }

    /// Seconds from the reference to a count, which must not be older.
    fn delta(&self, count: Count) -> f64 {
        f64::from(count.0.wrapping_sub(self.count.0)) / (1e6 * self.crystal)
    }

    /// GPS time of a count.
    pub fn gps_of(&self, count: Count) -> Option<Time> {
        self.is_valid().then(|| self.gps.plus(self.delta(count)))
    }

    /// UTC of a count.
    pub fn utc_of(&self, count: Count) -> Option<Time> {
        self.is_valid().then(|| self.utc.plus(self.delta(count)))
    }

    /// The count of a GPS time.
    pub fn count_of_gps(&self, gps: Time) -> Option<Count> {
        self.is_valid().then(|| self.count.plus_us((gps.since(self.gps) * 1e6 * self.crystal) as i64))
    }

    /// The count of a UTC time.
    pub fn count_of_utc(&self, utc: Time) -> Option<Count> {
        self.is_valid().then(|| self.count.plus_us((utc.since(self.utc) * 1e6 * self.crystal) as i64))
    }
}

fn within(crystal: f64) -> bool {
    (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&crystal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn receivers_of_three_ages_give_the_time() {
        let sentence = |body: &str| {
            let checksum = body.bytes().fold(0, |sum, byte| sum ^ byte);
            nmea(&format!("${body}*{checksum:02X}\r\n"))
        };
        let expected = Sentence::Rmc(Some(Time { seconds: 1_769_860_800, nanos: 0 }));
        let rest = "120000.00,A,5213.5,N,02100.1,E,0.0,0.0,310126,,";
        assert_eq!(sentence(&format!("GNRMC,{rest},A")), expected);
        assert_eq!(sentence(&format!("GNRMC,{rest},A,V")), expected);
        assert_eq!(sentence(&format!("GPRMC,{rest}")), expected);
        assert_eq!(sentence("GPGSV,1,1,00"), Sentence::Other);
        assert_eq!(nmea("$GPGSV,1,1,00*00"), Sentence::Invalid);
    }

    #[test]
    fn the_enabling_message_is_a_frame() {
        assert_eq!(ubx(&ENABLE_NAV_TIMEGPS), (Ubx::Other, ENABLE_NAV_TIMEGPS.len()));
    }

    proptest! {
        #[test]
        fn foreign_sentences_are_no_trouble(text in "\\PC{0,90}") {
            let _ = nmea(&text);
        }

        #[test]
        fn sound_sentences_of_nonsense_are_no_trouble(kind in "G[NP](RMC|GGA)", fields in proptest::collection::vec("[0-9.A-Zé]{0,9}", 0..16)) {
            let body = format!("{kind},{}", fields.join(","));
            let checksum = body.bytes().fold(0, |sum, byte| sum ^ byte);
            let said = nmea(&format!("${body}*{checksum:02X}"));
            prop_assert!(said != Sentence::Other);
        }

        #[test]
        fn foreign_frames_are_no_trouble(bytes in proptest::collection::vec(any::<u8>(), 0..60), length in 0..70u16) {
            let _ = ubx(&bytes);
            let [low, high] = length.to_le_bytes();
            let _ = ubx(&[&[0xb5, 0x62, 0x01, 0x20, low, high][..], &bytes].concat());
        }

        #[test]
        fn a_time_goes_to_a_count_and_back(count in any::<u32>(), ahead in 0..600_000_000u32, off in -9i32..9) {
            let mut reference = Reference::new();
            let at = |second: i64| Time { seconds: 1_700_000_000 + second, nanos: 0 };
            for second in 0..4 {
                let us = second * (1_000_000 + i64::from(off));
                reference.sync(Count(count).plus_us(us), at(second), at(second));
            }
            prop_assert!(reference.is_valid());
            let later = reference.count().plus_us(ahead.into());
            let back = reference.count_of_gps(reference.gps_of(later).unwrap()).unwrap();
            prop_assert!(back.since(later).abs() <= 1);
        }
    }
}
