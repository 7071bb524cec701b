//! A GPS receiver beside the concentrator: its port, and what its pulse tells of the chip's counter.
//!
//! Three clocks meet here, each with a type of its own: the chip's counter ([`Count`]), the host's ([`Instant`]) and
//! GPS time ([`GpsTime`]). The receiver says which second it is, its pulse latches the counter: together they place any
//! count in time to the microsecond, as long as the pulse goes on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use jiff::Timestamp;
use sx1302::counter::Count;
use sx1302::gps::{Crystal, ENABLE_NAV_TIMEGPS, GpsTime, Position, Reader, Reference, Said, Time, Utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_serial::SerialStream;

use super::owner::Command;
use crate::clock::{Clock, Instant};

/// From 1970 to 6 January 1980, seconds.
const EPOCH: i64 = 315_964_800;
/// What was not confirmed for so long is not used.
const FRESH: Duration = Duration::from_secs(30);
/// A pulse comes each second; an older one is no pulse of this second, µs.
const PULSE: u32 = 1_050_000;
/// What is told within so much is told of one second.
const TOGETHER: Duration = Duration::from_millis(500);
/// A port that failed is opened again after so long.
const AGAIN: Duration = Duration::from_secs(10);

/// What is known of the time.
#[derive(Debug, Default)]
pub(super) struct Fix {
    reference: Reference,
    crystal: Crystal,
    /// With when it was told.
    utc: Option<(Utc, Instant)>,
    gps: Option<(GpsTime, Instant)>,
    /// Seconds that UTC lags behind GPS time.
    leap: Option<i64>,
    position: Option<Position>,
    believed: Option<Instant>,
}

impl Fix {
    /// Takes what the receiver said. Answers whether the last pulse is wanted now.
    pub fn says(&mut self, said: Said, now: Instant) -> bool {
        match said {
            Said::Utc(utc) => self.utc = utc.map(|utc| (utc, now)),
            Said::Gps(gps) => self.gps = gps.map(|gps| (nearest_second(gps), now)),
            Said::Position(position) => self.position = position.or(self.position),
        }
        // one of the two is told first; those of one second come closer together than those of two
        if let (Some((utc, then)), Some((gps, also))) = (self.utc, self.gps)
            && then.max(also).saturating_duration_since(then.min(also)) < TOGETHER
        {
            self.leap = Some(gps.0.seconds + EPOCH - utc.0.seconds);
        }
        matches!(said, Said::Gps(Some(_))) && self.leap.is_some()
    }

    /// Takes the count of the last pulse, where the counter stands at `count`. Answers whether it was believed.
    pub fn pulse(&mut self, pulse: Count, count: Count, now: Instant) -> bool {
        let (Some((gps, _)), Some(leap)) = (self.gps, self.leap) else { return false };
        if !is_of_this_second(pulse, count) {
            return false;
        }
        let utc = Utc(Time { seconds: gps.0.seconds + EPOCH - leap, nanos: 0 });
        let believed = self.reference.sync(pulse, utc, gps);
        if believed {
            self.believed = Some(now);
            self.crystal.add(self.reference.crystal());
        }
        believed
    }

    /// The counter begins anew: no count of before means anything.
    pub fn forget_counter(&mut self) {
        (self.reference, self.believed) = (Reference::new(), None);
    }

    /// Whether counts can be placed in time.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.believed.is_some_and(|believed| now.saturating_duration_since(believed) < FRESH)
            && self.reference.is_valid()
    }

    fn fresh(&self, now: Instant) -> Option<&Reference> {
        self.is_fresh(now).then_some(&self.reference)
    }

    /// UTC of a count that was not long ago.
    pub fn utc_of(&self, count: Count, now: Instant) -> Option<Timestamp> {
        let reference = self.fresh(now)?;
        // the reference looks ahead from its pulse; what came before it is placed a second later and taken back
        let second = (1e6 * reference.crystal()).round() as i64;
        let Utc(time) = reference.utc_of(count.plus_us(second))?;
        Timestamp::new(time.seconds - 1, i32::try_from(time.nanos).ok()?).ok()
    }

    /// GPS time of a count, in whole seconds.
    pub fn second_of(&self, count: Count, now: Instant) -> Option<u64> {
        let GpsTime(time) = self.fresh(now)?.gps_of(count)?;
        u64::try_from(time.seconds).ok()
    }

    /// The count of a second of GPS time.
    pub fn count_of(&self, second: u64, now: Instant) -> Option<Count> {
        let seconds = i64::try_from(second).ok()?;
        self.fresh(now)?.count_of_gps(GpsTime(Time { seconds, nanos: 0 }))
    }

    /// A frequency in hertz, as it must be asked for so that it is right on the air.
    pub fn corrected(&self, hertz: u32) -> u32 {
        (f64::from(hertz) * self.crystal.correction()).round() as u32
    }

    /// Where the antenna is, as the receiver last knew it.
    pub fn position(&self) -> Option<(f64, f64)> {
        self.position.map(|position| (position.latitude, position.longitude))
    }
}

/// Whether a pulse is of the second in which the counter stands at `count`.
pub(super) fn is_of_this_second(pulse: Count, count: Count) -> bool {
    count.0.wrapping_sub(pulse.0) <= PULSE
}

/// A receiver tells its own moment, some microseconds beside the second that the pulse stands for.
fn nearest_second(time: GpsTime) -> GpsTime {
    let up = i64::from(time.0.nanos >= 500_000_000);
    GpsTime(Time { seconds: time.0.seconds + up, nanos: 0 })
}

/// Read a receiver for as long as somebody listens, and open its port again when it fails.
pub(super) async fn follow(path: PathBuf, baud: u32, name: String, clock: Clock, tell: Sender<Command>) {
    let mut silent = false;
    loop {
        let done = read(&path, baud, |said| {
            silent = false;
            tell.send(Command::Gps(said)).is_ok()
        });
        let Err(error) = done.await else { return };
        if !silent {
            tracing::warn!(radio = %name, port = %path.display(), "GPS: {error}");
            silent = true;
        }
        clock.sleep(AGAIN).await;
    }
}

/// Read a receiver until `told` has heard enough.
pub(super) async fn read(path: &Path, baud: u32, mut told: impl FnMut(Said) -> bool) -> io::Result<()> {
    // 8 bits, no parity, one stop bit, no flow control
    let mut port = SerialStream::open(&tokio_serial::new(path.to_string_lossy(), baud))?;
    port.write_all(&ENABLE_NAV_TIMEGPS).await?;
    let (mut reader, mut bytes) = (Reader::new(), [0; 256]);
    loop {
        let length = port.read(&mut bytes).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for said in reader.feed(&bytes[..length]) {
            if !told(said) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gps(seconds: i64, nanos: u32) -> Said {
        Said::Gps(Some(GpsTime(Time { seconds, nanos })))
    }
    fn utc(seconds: i64) -> Said {
        Said::Utc(Some(Utc(Time { seconds, nanos: 0 })))
    }
    const T: i64 = 1_448_000_000;
    const S: Duration = Duration::from_secs(1);

    #[test]
    fn seconds_and_pulses_place_every_count() {
        for utc_first in [true, false] {
            let (mut fix, begin) = (Fix::default(), Instant::now());
            for n in 0..6_u32 {
                let second = T + i64::from(n);
                // beside the second by what a receiver is
                let told = if n % 2 == 0 { gps(second, 300) } else { gps(second - 1, 999_999_700) };
                let (first, then) = (utc(second + EPOCH - 18), told);
                let order = if utc_first { [first, then] } else { [then, first] };
                let pulse = Count(0xffff_0000).plus_us(i64::from(n) * 1_000_004);
                for (place, said) in (1..).zip(order) {
                    let now = begin + n * S + place * S / 5;
                    if fix.says(said, now) {
                        fix.pulse(pulse, pulse.plus_us(200_000 * i64::from(place)), now);
                    }
                }
            }
            let now = begin + 6 * S;
            assert!(fix.is_fresh(now) && !fix.is_fresh(now + 30 * S));
            let pulse = Count(0xffff_0000).plus_us(5 * 1_000_004);
            let at = |count| fix.utc_of(count, now).unwrap().as_microsecond();
            let second = (T + 5 + EPOCH - 18) * 1_000_000;
            let near = |at: i64, then: i64| assert!((at - then).abs() <= 1, "{at} is not {then}");
            near(at(pulse.plus_us(500_002)), second + 500_000);
            // a packet from before the pulse
            near(at(pulse.plus_us(-300_001)), second - 300_000);
            let count = fix.count_of((T + 128) as u64, now).unwrap();
            assert!(count.since(pulse.plus_us(123 * 1_000_004)).abs() <= 1);
            assert_eq!(fix.second_of(count.plus_us(10), now), Some((T + 128) as u64));
            // the counter begins anew with the chip
            fix.forget_counter();
            assert_eq!(fix.utc_of(pulse, now), None);
        }
    }

    #[test]
    fn without_a_pulse_nothing_is_believed() {
        let (mut fix, begin) = (Fix::default(), Instant::now());
        for n in 0..20 {
            fix.says(utc(T + n + EPOCH - 18), begin);
            assert!(fix.says(gps(T + n, 0), begin));
            // the latched counter stands still
            let count = Count(5_000_000).plus_us(n * 1_000_000);
            let believed = fix.pulse(Count(5_000_000), count, begin);
            assert!(!believed, "second {n}");
        }
        assert!(!fix.is_fresh(begin));
        assert!(!fix.says(Said::Gps(None), begin));
    }
}
