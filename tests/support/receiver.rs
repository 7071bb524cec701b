//! What a GPS receiver says after a pulse.

/// From 1970 to 6 January 1980, less the 18 leap seconds since, seconds.
pub const EPOCH: i64 = 315_964_800 - 18;

/// NMEA RMC and GGA, and UBX NAV-TIMEGPS, of a second of GPS time, from the middle of Vienna.
pub fn says(gps: u64) -> Vec<u8> {
    let sentence = |body: String| {
        let checksum = body.bytes().fold(0, |sum, byte| sum ^ byte);
        format!("${body}*{checksum:02X}\r\n").into_bytes()
    };
    let utc = jiff::Timestamp::from_second(gps as i64 + EPOCH).unwrap();
    let (time, date) = (utc.strftime("%H%M%S.00"), utc.strftime("%d%m%y"));
    let rmc = format!("GNRMC,{time},A,4812.5,N,01624.0,E,0.0,0.0,{date},,,A");
    let gga = format!("GNGGA,{time},4812.50000,N,01624.00000,E,1,08,1.0,171.0,M,48.0,M,,");
    let (week, of_week) = (gps / 604_800, gps % 604_800);
    let mut frame = vec![0xb5, 0x62, 0x01, 0x20, 0x10, 0x00];
    frame.extend((of_week as u32 * 1000).to_le_bytes());
    frame.extend(120_i32.to_le_bytes());
    frame.extend((week as i16).to_le_bytes());
    frame.extend([18, 0x07, 0x14, 0, 0, 0]);
    let (a, b) = frame[2..].iter().fold((0_u8, 0_u8), |(a, b), byte| {
        let a = a.wrapping_add(*byte);
        (a, b.wrapping_add(a))
    });
    frame.extend([a, b]);
    [sentence(rmc), sentence(gga), frame].concat()
}
