//! Tables of pure functions: the input columns are read, the result columns are computed anew.

use serde_json::Value;
use sx1302::airtime::{LoraShape, fsk_time_on_air_ms};
use sx1302::bus::event::unhex;
use sx1302::config::{Bandwidth, CodingRate, SpreadingFactor, TemperatureCurve};
use sx1302::counter::Count;
use sx1302::drift;
use sx1302::gps::{self, GpsTime, Reference, Sentence, Time, Ubx, Utc};
use sx1302::rx::payload_crc;
use sx1302::stamp::{dc_notch_ticks, legacy_correction_us, precision_correction_us};

/// The names of the tables.
pub const NAMES: [&str; 8] = [
    "dc_notch_delay",
    "freq_to_time_drift",
    "fsk_time_on_air",
    "gps",
    "payload_crc",
    "rssi_temperature_offset",
    "time_on_air",
    "timestamp_correction",
];

/// From the input columns of a row to its result columns.
type Row = fn(&[&str]) -> Option<String>;

/// Computes the results of a table anew.
pub fn recompute(name: &str, table: &str) -> Result<String, String> {
    let (row, inputs): (Row, usize) = match name {
        "dc_notch_delay" => (dc_notch_delay, 1),
        "freq_to_time_drift" => (freq_to_time_drift, 2),
        "fsk_time_on_air" => (fsk_time_on_air, 4),
        "payload_crc" => (|row| Some(format!("0x{:04x}", payload_crc(&unhex(row[0])?))), 1),
        "rssi_temperature_offset" => (rssi_temperature_offset, 6),
        "time_on_air" => (time_on_air, 7),
        "timestamp_correction" => (timestamp_correction, 5),
        "gps" => return gps_table(table),
        other => return Err(format!("no table {other:?}; there are {}", NAMES.join(", "))),
    };
    let mut out = String::new();
    for (number, line) in table.lines().enumerate() {
        if number == 0 {
            out.push_str(line);
        } else {
            let columns: Vec<&str> = line.split(',').collect();
            let wrong = || format!("line {}: {line}", number + 1);
            let input = columns.get(..inputs).ok_or_else(wrong)?;
            out.push_str(&input.join(","));
            out.push(',');
            out.push_str(&row(input).ok_or_else(wrong)?);
        }
        out.push('\n');
    }
    Ok(out)
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn dc_notch_delay(row: &[&str]) -> Option<String> {
    Some(format!("{:.9}", dc_notch_ticks(number(row[0])?)))
}

fn freq_to_time_drift(row: &[&str]) -> Option<String> {
    let (mantissa, exponent) = drift(number(row[1])?, number(row[0])?);
    Some(format!("{mantissa},{exponent}"))
}

fn fsk_time_on_air(row: &[&str]) -> Option<String> {
    // The tables were made with a sync word of three bytes.
    let ms = fsk_time_on_air_ms(number(row[0])?, number(row[1])?, 3, row[2] == "1", number(row[3])?);
    Some(ms.to_string())
}

fn rssi_temperature_offset(row: &[&str]) -> Option<String> {
    let curve = TemperatureCurve {
        a: number(row[0])?,
        b: number(row[1])?,
        c: number(row[2])?,
        d: number(row[3])?,
        e: number(row[4])?,
    };
    Some(format!("{:.6}", curve.offset_db(number(row[5])?)))
}

fn lora(row: &[&str]) -> Option<(SpreadingFactor, Bandwidth, CodingRate)> {
    Some((
        SpreadingFactor::new(number(row[0])?).ok()?,
        Bandwidth::from_hz(number(row[1])?).ok()?,
        CodingRate::new(number(row[2])?).ok()?,
    ))
}

fn time_on_air(row: &[&str]) -> Option<String> {
    let (sf, bandwidth, coding_rate) = lora(row)?;
    let shape = LoraShape {
        sf,
        bandwidth,
        coding_rate,
        preamble: number(row[3])?,
        header: row[4] == "0",
        crc: row[5] == "1",
        size: number(row[6])?,
    };
    let (us, symbols) = (shape.time_on_air_us(), shape.payload_symbols());
    Some(format!("{us},{symbols},{},{}", shape.symbol_us(), shape.time_on_air_ms()))
}

fn timestamp_correction(row: &[&str]) -> Option<String> {
    let (sf, bandwidth, coding_rate) = lora(row)?;
    let (crc, size) = (row[3] == "1", number(row[4])?);
    let legacy = legacy_correction_us(sf, bandwidth, coding_rate, crc, size);
    let precision = precision_correction_us(sf, bandwidth, coding_rate, crc, size);
    Some(format!("{legacy},{precision}"))
}

/// What a receiver and its reader know so far.
#[derive(Default)]
struct Known {
    utc: Option<Utc>,
    gps: Option<GpsTime>,
    position: Option<gps::Position>,
    reference: Reference,
}

fn gps_table(table: &str) -> Result<String, String> {
    let mut known = Known::default();
    let mut out = String::new();
    for (line, text) in table.lines().enumerate() {
        let wrong = || format!("line {}: {text}", line + 1);
        let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
        out.push_str(&gps_row(&value, &mut known).ok_or_else(wrong)?);
        out.push('\n');
    }
    Ok(out)
}

fn gps_row(row: &Value, known: &mut Known) -> Option<String> {
    match row["kind"].as_str()? {
        "nmea" => {
            let sentence = row["sentence"].as_str()?;
            let result = match gps::nmea(sentence) {
                Sentence::Rmc(utc) => {
                    known.utc = utc;
                    "rmc"
                }
                Sentence::Gga(position) => {
                    known.position = position;
                    "gga"
                }
                Sentence::Other => "ignored",
                Sentence::Invalid => "invalid",
            };
            let position = known.position.filter(|_| result == "gga").map_or("null".to_owned(), |at| {
                format!("[{:.9},{:.9},{}]", at.latitude, at.longitude, at.altitude)
            });
            let utc = known.utc.filter(|_| result == "rmc");
            Some(format!(
                "{{\"kind\":\"nmea\",\"sentence\":{},\"result\":\"{result}\",\"utc\":{},\"position\":{position}}}",
                row["sentence"],
                time(utc.map(|utc| utc.0))
            ))
        }
        "ubx" => {
            let (said, size) = gps::ubx(&unhex(row["frame"].as_str()?)?);
            let result = match said {
                Ubx::NavTimeGps(gps) => {
                    known.gps = gps;
                    "nav_timegps"
                }
                Ubx::Other => "ignored",
                Ubx::Incomplete => "incomplete",
                Ubx::Invalid | Ubx::NotUbx => "invalid",
            };
            // What a damaged frame would have said is not known: what was known stays.
            let gps = time(known.gps.map(|gps| gps.0));
            Some(format!(
                "{{\"kind\":\"ubx\",\"frame\":{},\"result\":\"{result}\",\"size\":{size},\"gps\":{gps}}}",
                row["frame"]
            ))
        }
        "sync" => {
            let read = |name: &str| {
                let pair = row[name].as_array()?;
                Some(Time {
                    seconds: pair.first()?.as_i64()?,
                    nanos: u32::try_from(pair.get(1)?.as_u64()?).ok()?,
                })
            };
            let count = Count(u32::try_from(row["count_us"].as_u64()?).ok()?);
            let (utc, gps) = (read("utc")?, read("gps")?);
            let ok = known.reference.sync(count, Utc(utc), GpsTime(gps));
            let reference = &known.reference;
            let later = count.plus_us(1_234_567);
            let ahead = Time { seconds: gps.seconds + 3, nanos: 250_000_000 };
            let counted =
                reference.count_of_gps(GpsTime(ahead)).map_or("null".to_owned(), |count| count.0.to_string());
            Some(format!(
                "{{\"kind\":\"sync\",\"count_us\":{},\"utc\":{},\"gps\":{},\"ok\":{ok},\"xtal_err\":{:.15},\
                 \"ref_count_us\":{},\"cnt2gps_plus_1234567\":{},\"cnt2utc_plus_1234567\":{},\
                 \"gps2cnt_plus_3250ms\":{counted}}}",
                count.0,
                time(Some(utc)),
                time(Some(gps)),
                reference.crystal(),
                reference.count().0,
                time(reference.gps_of(later).map(|gps| gps.0)),
                time(reference.utc_of(later).map(|utc| utc.0)),
            ))
        }
        _ => None,
    }
}

fn time(time: Option<Time>) -> String {
    time.map_or("null".to_owned(), |time| format!("[{},{}]", time.seconds, time.nanos))
}
