//! GPS sentences, and the chip's counter against GPS time. Pure: bytes and numbers in, facts out.
//!
//! Knows two NMEA sentences (RMC for the time, GGA for the place) and one UBX message (NAV-TIMEGPS). The pulse that the
//! chip's counter latched belongs to the second that was reported last.

use crate::counter::Count;

/// Turns a u-blox receiver's NAV-TIMEGPS on, once a second, on its serial and USB ports.
pub const ENABLE_NAV_TIMEGPS: [u8; 16] =
    [0xb5, 0x62, 0x06, 0x01, 0x08, 0x00, 0x01, 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x32, 0x94];

/// Seconds and nanoseconds since an epoch: that of [`Utc`] or of [`GpsTime`].
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

/// UTC: a [`Time`] since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Utc(pub Time);

/// GPS time: a [`Time`] since 6 January 1980, which knows no leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GpsTime(pub Time);

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
    Rmc(Option<Utc>),
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

fn utc(time: &str, date: &str) -> Option<Utc> {
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
    Some(Utc(Time { seconds, nanos: (f64::from(fraction) * 1e9) as u32 }))
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
    NavTimeGps(Option<GpsTime>),
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

fn nav_timegps(payload: &[u8; 16]) -> Option<GpsTime> {
    let [i0, i1, i2, i3, f0, f1, f2, f3, w0, w1, _, valid, ..] = *payload;
    // Time of week or week: one of them is enough for a receiver that has just started.
    if valid & 3 == 0 {
        return None;
    }
    let of_week = f64::from(u32::from_le_bytes([i0, i1, i2, i3])) / 1e3;
    let week = i64::from(i16::from_le_bytes([w0, w1]));
    let nanos = (of_week.fract() * 1e9 + f64::from(i32::from_le_bytes([f0, f1, f2, f3]))) as i64;
    Some(GpsTime(Time {
        seconds: week * 604_800 + of_week.trunc() as i64 + nanos.div_euclid(1_000_000_000),
        nanos: nanos.rem_euclid(1_000_000_000) as u32,
    }))
}

/// What a receiver said that is of use here; `None` inside: it is not sure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Said {
    /// UTC, from RMC.
    Utc(Option<Utc>),
    /// GPS time of the second whose pulse was last, from NAV-TIMEGPS.
    Gps(Option<GpsTime>),
    /// Where it is, from GGA.
    Position(Option<Position>),
}

/// The longest sentence: NMEA has 82 bytes, newer ones some more.
const LONGEST_SENTENCE: usize = 128;
/// The longest frame that is waited for; a longer one is noise that looks like a head.
const LONGEST_FRAME: usize = 1024;

/// Cuts the bytes of a receiver into sentences and frames, whatever else is between them.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    /// Begins with the start of something, or is empty.
    bytes: Vec<u8>,
    invalid: u64,
}

impl Reader {
    /// Nothing was read yet.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// What could not be read so far: sentences and frames whose checksum or shape is wrong.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Takes bytes as they come, and gives what they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Said> {
        self.bytes.extend_from_slice(bytes);
        let (mut said, mut at) = (Vec::new(), 0);
        while let Some(left) = self.bytes.get(at..).filter(|left| !left.is_empty()) {
            let taken = match left[0] {
                b'$' => self.sentence(at, &mut said),
                0xb5 => self.frame(at, &mut said),
                _ => Some(1),
            };
            match taken {
                Some(taken) => at += taken,
                None => break,
            }
        }
        self.bytes.drain(..at);
        said
    }

    /// How many bytes a sentence took; one where it is none, so that what is hidden in it is found. `None`: it goes on.
    fn sentence(&mut self, at: usize, said: &mut Vec<Said>) -> Option<usize> {
        let left = &self.bytes[at..];
        let Some(end) = left.iter().take(LONGEST_SENTENCE).position(|byte| *byte == b'\n') else {
            return (left.len() >= LONGEST_SENTENCE).then_some(1);
        };
        match std::str::from_utf8(&left[..end]).map(nmea) {
            Ok(Sentence::Rmc(utc)) => said.push(Said::Utc(utc)),
            Ok(Sentence::Gga(position)) => said.push(Said::Position(position)),
            Ok(Sentence::Other) => {}
            Ok(Sentence::Invalid) | Err(_) => {
                self.invalid += 1;
                return Some(1);
            }
        }
        Some(end + 1)
    }

    /// The same for a frame.
    fn frame(&mut self, at: usize, said: &mut Vec<Said>) -> Option<usize> {
        match ubx(&self.bytes[at..]) {
            (Ubx::Incomplete, length) => (length > LONGEST_FRAME).then_some(1),
            (Ubx::NavTimeGps(gps), length) => {
                said.push(Said::Gps(gps));
                Some(length)
            }
            (Ubx::Other, length) => Some(length),
            (Ubx::Invalid, _) => {
                self.invalid += 1;
                Some(1)
            }
            (Ubx::NotUbx, _) => Some(1),
        }
    }
}

/// The crystal's error over a long time: what frequencies and delays of the board are off by. The first figure is a mean
/// of 16, then each new one counts for a 256th.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Crystal {
    taken: u32,
    factor: f64,
}

impl Crystal {
    /// Nothing is known yet.
    pub fn new() -> Crystal {
        Crystal::default()
    }

    /// Takes counted seconds per true second, as [`Reference::crystal`] has them.
    pub fn add(&mut self, counted_per_true: f64) {
        let weight = if self.taken < 16 { f64::from(self.taken) + 1.0 } else { 256.0 };
        self.factor += (1.0 / counted_per_true - self.factor) / weight;
        self.taken = self.taken.saturating_add(1);
    }

    /// What a frequency must be multiplied by so that it is right on the air; 1 until 16 figures were taken.
    pub fn correction(&self) -> f64 {
        if self.taken < 16 { 1.0 } else { self.factor }
    }
}

/// The crystal may be off by so much.
const TOLERANCE: f64 = 10e-6;

/// Ties the counter to UTC and GPS time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    count: Count,
    utc: Utc,
    gps: GpsTime,
    crystal: f64,
    aberrant: u8,
    set: bool,
}

impl Default for Reference {
    fn default() -> Self {
        Reference {
            count: Count(0),
            utc: Utc::default(),
            gps: GpsTime::default(),
            crystal: 1.0,
            aberrant: 0,
            set: false,
        }
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
    pub fn sync(&mut self, count: Count, utc: Utc, gps: GpsTime) -> bool {
        let counted = f64::from(count.0.wrapping_sub(self.count.0)) / 1e6;
        let slope = counted / utc.0.since(self.utc.0);
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
    pub fn gps_of(&self, count: Count) -> Option<GpsTime> {
        self.is_valid().then(|| GpsTime(self.gps.0.plus(self.delta(count))))
    }

    /// UTC of a count.
    pub fn utc_of(&self, count: Count) -> Option<Utc> {
        self.is_valid().then(|| Utc(self.utc.0.plus(self.delta(count))))
    }

    /// The count of a GPS time.
    pub fn count_of_gps(&self, gps: GpsTime) -> Option<Count> {
        self.count_after(gps.0.since(self.gps.0))
    }

    /// The count of a UTC time.
    pub fn count_of_utc(&self, utc: Utc) -> Option<Count> {
        self.count_after(utc.0.since(self.utc.0))
    }

    fn count_after(&self, seconds: f64) -> Option<Count> {
        self.is_valid().then(|| self.count.plus_us((seconds * 1e6 * self.crystal) as i64))
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
        let expected = Sentence::Rmc(Some(Utc(Time { seconds: 1_769_860_800, nanos: 0 })));
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

    /// A receiver's stream, with noise, a torn sentence and a damaged frame in it.
    fn stream() -> (Vec<u8>, Vec<Said>) {
        let rmc = b"$GNRMC,120000.00,A,5213.5,N,02100.1,W,0.0,0.0,310126,,,D*51\r\n";
        let gga = b"$GPGGA,092725.00,4717.11399,N,00833.91590,E,1,08,1.01,499.6,M,48.0,M,,*5B\r\n";
        let timegps = [
            0xb5, 0x62, 0x01, 0x20, 0x10, 0x00, 0x80, 0x93, 0x95, 0x0b, 0, 0, 0, 0, 0xfd, 0x08, 0x12, 0x07,
            0x14, 0, 0, 0, 0x16, 0xe5,
        ];
        let mut damaged = timegps;
        damaged[7] ^= 1;
        let bytes = [
            &b"C,A*11\r\n"[..],
            rmc,
            &timegps,
            b"$GPGSV,1,1",
            gga,
            &[0xb5, 0x62, 0xff, 0xff, 0xff, 0xff],
            &damaged,
            b"\xb5$",
            rmc,
            &timegps,
        ]
        .concat();
        let utc = Said::Utc(Some(Utc(Time { seconds: 1_769_860_800, nanos: 0 })));
        let gps = Said::Gps(Some(GpsTime(Time { seconds: 1_391_839_152, nanos: 0 })));
        let position =
            Position { latitude: 47.0 + 17.11399 / 60.0, longitude: 8.0 + 33.9159 / 60.0, altitude: 499 };
        (bytes, vec![utc, gps, Said::Position(Some(position)), utc, gps])
    }

    #[test]
    fn a_stream_is_cut_into_what_it_says_wherever_reads_end() {
        let (bytes, expected) = stream();
        for size in [1, 2, 3, 7, 64, bytes.len()] {
            let mut reader = Reader::new();
            let said: Vec<Said> = bytes.chunks(size).flat_map(|chunk| reader.feed(chunk)).collect();
            assert_eq!(said, expected, "{size} bytes a time");
            assert!(reader.invalid() >= 2 && reader.bytes.is_empty());
        }
    }

    #[test]
    fn the_crystal_is_believed_after_sixteen_figures_and_follows_slowly() {
        let mut crystal = Crystal::new();
        for _ in 0..15 {
            crystal.add(1.0 + 4e-6);
        }
        assert_eq!(crystal.correction(), 1.0);
        crystal.add(1.0 + 4e-6);
        assert!((crystal.correction() - (1.0 - 4e-6)).abs() < 1e-10);
        crystal.add(1.0 + 9e-6);
        assert!((crystal.correction() - (1.0 - 4e-6 - 5e-6 / 256.0)).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn a_foreign_stream_is_no_trouble_and_does_not_pile_up(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..40),
            head in proptest::sample::select(vec![&b"$"[..], b"\xb5\x62", b"$GPRMC,", b""]),
        ) {
            let mut reader = Reader::new();
            for chunk in chunks {
                reader.feed(&[head, &chunk].concat());
                prop_assert!(reader.bytes.len() <= LONGEST_FRAME);
            }
            // whatever was left over, a sound sentence gets through behind it
            let rmc = b"\n$GNRMC,120000.00,A,5213.5,N,02100.1,W,0.0,0.0,310126,,,D*51\r\n";
            let tail = [&[0u8; LONGEST_FRAME][..], rmc].concat();
            prop_assert!(reader.feed(&tail).iter().any(|said| matches!(said, Said::Utc(Some(_)))));
        }

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
                reference.sync(Count(count).plus_us(us), Utc(at(second)), GpsTime(at(second)));
            }
            prop_assert!(reference.is_valid());
            let later = reference.count().plus_us(ahead.into());
            let back = reference.count_of_gps(reference.gps_of(later).unwrap()).unwrap();
            prop_assert!(back.since(later).abs() <= 1);
        }
    }
}
