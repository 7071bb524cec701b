//! Devices as a file: CSV with a header line, or a JSON array. Text in, rows out; rows in, text out.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::ValueEnum;
use serde_json::Value;

use super::device::eui;
use crate::control::{AddDevice, DeviceRecord, GivenSession};
use crate::lorawan::DevEui;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A header line, then a line a device
    Csv,
    /// An array of objects
    Json,
}

impl Format {
    /// What a file is, as its name and its first character tell.
    pub fn guess(name: &str, text: &str) -> Format {
        match text.trim_start_matches('\u{FEFF}').trim_start().starts_with('[') || name.ends_with(".json") {
            true => Format::Json,
            false => Format::Csv,
        }
    }
}

/// The columns, in the order in which they are written.
const COLUMNS: [&str; 8] =
    ["dev_eui", "join_eui", "app_key", "nwk_key", "name", "mac_version", "roaming", "enabled"];
/// Those that most files do not need: they are written where a device has something to put there.
const MORE: [&str; 11] = [
    "class",
    "home",
    "dev_addr",
    "nwk_s_key",
    "f_nwk_s_int_key",
    "s_nwk_s_int_key",
    "nwk_s_enc_key",
    "app_s_key",
    "fcnt_up",
    "fcnt_down",
    "a_fcnt_down",
];
/// Without these there is no device that joins.
const NEEDED: [&str; 3] = ["dev_eui", "join_eui", "app_key"];
/// Without these there is no device that was given its session.
const NEEDED_ABP: [&str; 3] = ["dev_eui", "dev_addr", "app_s_key"];

/// A device and where it stands.
pub struct Row {
    /// Line of the file, from 1.
    pub line: u64,
    /// What it says.
    pub device: AddDevice,
}

/// A row that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// Line of the file, from 1.
    pub line: u64,
    /// Why.
    pub reason: String,
    /// What to do, where that does not follow from the reason.
    pub remedy: Option<String>,
}

impl Bad {
    fn new(line: u64, reason: impl Into<String>) -> Bad {
        Bad { line, reason: reason.into(), remedy: None }
    }
}

/// Every row of a file, good and bad; a device that stands there twice is bad the second time.
pub fn read(format: Format, text: &str) -> (Vec<Row>, Vec<Bad>) {
    // what spreadsheets put in front
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let (rows, mut bad) = match format {
        Format::Csv => read_csv(text),
        Format::Json => read_json(text),
    };
    let mut seen: BTreeMap<DevEui, u64> = BTreeMap::new();
    let mut good = Vec::new();
    for row in rows {
        let dev_eui = row.device.dev_eui;
        match seen.get(&dev_eui) {
            Some(before) => {
                bad.push(Bad::new(row.line, format!("DevEUI {dev_eui} is on line {before} already")));
            }
            None => {
                seen.insert(dev_eui, row.line);
                good.push(row);
            }
        }
    }
    (good, bad)
}

fn read_csv(text: &str) -> (Vec<Row>, Vec<Bad>) {
    let header = text.lines().next().unwrap_or_default();
    // a spreadsheet in a country where the comma is in the numbers
    let delimiter = if header.contains(';') && !header.contains(',') { b';' } else { b',' };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text.as_bytes());
    let header: Vec<String> = match reader.headers() {
        Ok(header) => header.iter().map(|name| name.trim().to_ascii_lowercase()).collect(),
        Err(error) => return (Vec::new(), vec![Bad::new(1, error.to_string())]),
    };
    let mut bad = Vec::new();
    for (place, name) in header.iter().enumerate() {
        if !COLUMNS.iter().chain(&MORE).any(|known| known == name) {
            let known = [&COLUMNS[..], &MORE[..]].concat().join(", ");
            bad.push(Bad::new(1, format!("there is no column {name:?}: {known}")));
        } else if header.iter().take(place).any(|other| other == name) {
            bad.push(Bad::new(1, format!("the column {name:?} is there twice")));
        }
    }
    let abp = header.iter().any(|name| name == "dev_addr");
    let needed = if abp { &NEEDED_ABP[..1] } else { &NEEDED[..] };
    for name in needed.iter().filter(|name| !header.iter().any(|other| other == *name)) {
        bad.push(missing(1, name, format!("the column {name:?} is missing")));
    }
    if !bad.is_empty() {
        return (Vec::new(), bad);
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                bad.push(Bad::new(error.position().map_or(1, csv::Position::line), error.to_string()));
                continue;
            }
        };
        let line = begin(text, record.position());
        // an empty line between devices, with or without its commas
        if record.iter().all(|field| field.trim().is_empty()) {
            continue;
        }
        if record.len() != header.len() {
            let reason = format!("{} fields, where the header has {}", record.len(), header.len());
            let remedy = Some("a field with a comma or a quote in it stands in double quotes".into());
            bad.push(Bad { line, reason, remedy });
            continue;
        }
        let field = |name: &str| header.iter().position(|other| other == name).and_then(|at| record.get(at));
        match device(field) {
            Ok(device) => rows.push(Row { line, device }),
            Err(reasons) => bad.extend(reasons.into_iter().map(|(column, reason)| match column {
                Some(column) => missing(line, column, reason),
                None => Bad::new(line, reason),
            })),
        }
    }
    (rows, bad)
}

/// The line on which a record begins: its position may still be on the line breaks before it.
fn begin(text: &str, position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else { return 1 };
    let at = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let bytes = text.as_bytes().get(at..).unwrap_or_default();
    let breaks = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + breaks.filter(|byte| **byte == b'\n').count() as u64
}

/// In the place of a key: the device's join server is elsewhere, and has it.
const ELSEWHERE: &str = "elsewhere";

/// A value that must be there and is not.
fn missing(line: u64, column: &str, reason: String) -> Bad {
    let remedy = (column == "app_key").then(|| "`device export --keys` writes the keys along".to_string());
    Bad { line, reason, remedy }
}

/// What is wrong with a line: the column where a value is missing, and the reason.
type Reasons = Vec<(Option<&'static str>, String)>;

/// A device from its fields, or all that is wrong with them. No reason repeats a key.
fn device<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Result<AddDevice, Reasons> {
    let mut wrong = Reasons::new();
    let text = |name: &str| field(name).map(str::trim).filter(|text| !text.is_empty());
    let abp = text("dev_addr").is_some();
    for name in if abp { NEEDED_ABP } else { NEEDED } {
        if text(name).is_none() {
            wrong.push((Some(name), format!("{name} is empty")));
        }
    }
    let dev_eui = identifier("dev_eui", text("dev_eui"), &mut wrong);
    let join_eui = identifier("join_eui", text("join_eui"), &mut wrong);
    let roaming = switch("roaming", text("roaming"), &mut wrong);
    let enabled = switch("enabled", text("enabled"), &mut wrong);
    let class = parsed("class", "neither A nor C", text("class"), &mut wrong);
    let home = parsed("home", "not 6 hexadecimal digits", text("home"), &mut wrong);
    let session = match abp {
        true => session(text, &mut wrong),
        false => None,
    };
    match dev_eui {
        Some(dev_eui) if wrong.is_empty() => Ok(AddDevice {
            dev_eui,
            join_eui,
            app_key: text("app_key").filter(|key| *key != ELSEWHERE).map(String::from),
            nwk_key: text("nwk_key").map(String::from),
            session,
            class,
            name: field("name").unwrap_or_default().to_string(),
            mac_version: text("mac_version").map(String::from),
            roaming,
            enabled,
            home,
        }),
        _ => Err(wrong),
    }
}

/// The reason leaves the text out: where columns are mixed up, it is a key.
fn identifier<T: FromStr>(name: &str, text: Option<&str>, wrong: &mut Reasons) -> Option<T> {
    let found = eui::<T>(text?).ok();
    if found.is_none() {
        wrong.push((None, format!("{name} is not 16 hexadecimal digits")));
    }
    found
}

/// A value whose text may be told, for it is no key's.
fn parsed<T: FromStr>(name: &str, not: &str, text: Option<&str>, wrong: &mut Reasons) -> Option<T> {
    let found = text?.parse().ok();
    if found.is_none() {
        wrong.push((None, format!("{name} is {not}")));
    }
    found
}

/// The session of a device that was given one.
fn session<'a>(text: impl Fn(&str) -> Option<&'a str>, wrong: &mut Reasons) -> Option<GivenSession> {
    let dev_addr = parsed("dev_addr", "not 8 hexadecimal digits", text("dev_addr"), wrong);
    let mut count = |name| parsed(name, "no counter", text(name), wrong);
    let (fcnt_up, fcnt_down, a_fcnt_down) = (count("fcnt_up"), count("fcnt_down"), count("a_fcnt_down"));
    let key = |name| text(name).map(String::from);
    Some(GivenSession {
        dev_addr: dev_addr?,
        nwk_s_key: key("nwk_s_key"),
        f_nwk_s_int_key: key("f_nwk_s_int_key"),
        s_nwk_s_int_key: key("s_nwk_s_int_key"),
        nwk_s_enc_key: key("nwk_s_enc_key"),
        app_s_key: key("app_s_key"),
        fcnt_up,
        fcnt_down,
        a_fcnt_down,
    })
}

fn switch(name: &str, text: Option<&str>, wrong: &mut Reasons) -> Option<bool> {
    let text = text?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => {
            wrong.push((None, format!("{name} is neither true nor false")));
            None
        }
    }
}

fn read_json(text: &str) -> (Vec<Row>, Vec<Bad>) {
    let values: Vec<Value> = match serde_json::from_str(text) {
        Ok(values) => values,
        Err(error) => return (Vec::new(), vec![Bad::new(error.line() as u64, error.to_string())]),
    };
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for (value, line) in values.into_iter().zip(elements(text)) {
        let without_key = value.get("app_key").is_none() && value.get("session").is_none();
        match serde_json::from_value(value) {
            Ok(device) => rows.push(Row { line, device }),
            Err(error) if without_key => bad.push(missing(line, "app_key", error.to_string())),
            Err(error) => bad.push(Bad::new(line, error.to_string())),
        }
    }
    (rows, bad)
}

/// The line on which each element of a JSON array begins. The text has been parsed: it is an array.
fn elements(text: &str) -> Vec<u64> {
    let (mut lines, mut line, mut depth) = (Vec::new(), 1, 0_u32);
    // `waits`: an element of the array is to begin
    let (mut waits, mut string, mut escaped) = (false, false, false);
    for byte in text.bytes() {
        line += u64::from(byte == b'\n');
        if string {
            string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        if waits && !byte.is_ascii_whitespace() && byte != b']' {
            lines.push(line);
            waits = false;
        }
        match byte {
            b'"' => string = true,
            b'[' | b'{' => {
                depth += 1;
                waits = depth == 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => waits = depth == 1,
            _ => {}
        }
    }
    lines
}

/// As a file. Without keys there is no column for them.
pub fn write(format: Format, devices: &[DeviceRecord], keys: bool) -> Result<String, csv::Error> {
    if format == Format::Json {
        // records have no way to fail
        return Ok(serde_json::to_string_pretty(devices).unwrap_or_default() + "\n");
    }
    let lines: Vec<_> = devices.iter().map(fields).collect();
    let some = |name: &&str| lines.iter().any(|line| line.get(*name).is_some_and(|text| !text.is_empty()));
    let columns = COLUMNS.into_iter().filter(|name| keys || !name.ends_with("_key"));
    let columns: Vec<&str> = columns.chain(MORE.into_iter().filter(some)).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&columns)?;
    for line in &lines {
        writer.write_record(
            columns.iter().map(|name| line.get(name).map(String::as_str).unwrap_or_default()),
        )?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    // made of text
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What stands in each column.
fn fields(device: &DeviceRecord) -> BTreeMap<&'static str, String> {
    let shown = |text: Option<u32>| text.map(|count| count.to_string()).unwrap_or_default();
    let no_key = || if device.session.is_none() { ELSEWHERE.into() } else { String::new() };
    let mut fields = BTreeMap::from([
        ("dev_eui", device.dev_eui.to_string()),
        ("join_eui", device.join_eui.map(|join_eui| join_eui.to_string()).unwrap_or_default()),
        ("app_key", device.app_key.clone().unwrap_or_else(no_key)),
        ("nwk_key", device.nwk_key.clone().unwrap_or_default()),
        ("name", device.name.clone()),
        ("mac_version", device.mac_version.clone()),
        ("roaming", device.roaming.to_string()),
        ("enabled", device.enabled.to_string()),
        ("class", device.class.map(|class| class.to_string()).unwrap_or_default()),
        ("home", device.home.map(|net_id| net_id.to_string()).unwrap_or_default()),
    ]);
    if let Some(session) = &device.session {
        fields.insert("dev_addr", session.dev_addr.to_string());
        fields.extend(session.keys().map(|(name, key)| (name, key.unwrap_or_default().to_string())));
        fields.insert("fcnt_up", shown(session.fcnt_up));
        fields.insert("fcnt_down", shown(session.fcnt_down));
        fields.insert("a_fcnt_down", shown(session.a_fcnt_down));
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lorawan::NetId;

    const KEY: &str = "2B7E151628AED2A6ABF7158809CF4F3C";

    fn bad(format: Format, text: &str) -> Vec<String> {
        let (_, bad) = read(format, text);
        bad.into_iter().map(|bad| format!("{}: {}", bad.line, bad.reason)).collect()
    }

    #[test]
    fn a_spreadsheet_is_read_as_people_write_it() {
        let text = format!(
            "\u{FEFF}DEV_EUI;join_eui; app_key;name;roaming\r\n\r\n01-02-03-04-05-06-07-08;0000000000000001;{KEY};\"cow \"\"7\"\"; brown\";no\r\n;;;;\r\n0102030405060709; 0000000000000001 ;{KEY};;\r\n"
        );
        let (rows, bad) = read(Format::guess("a.csv", &text), &text);
        assert_eq!(bad, []);
        let shown: Vec<_> =
            rows.iter().map(|row| (row.line, &*row.device.name, row.device.roaming)).collect();
        assert_eq!(shown, [(3, "cow \"7\"; brown", Some(false)), (5, "", None)]);
        assert_eq!(rows[0].device.dev_eui, "0102030405060708".parse().unwrap());
        assert!(rows[0].device.mac_version.is_none() && rows[0].device.enabled.is_none());
    }

    #[test]
    fn every_bad_line_is_named_with_its_reason() {
        let text = format!(
            "dev_eui,join_eui,app_key,name,roaming\n\
             01,0000000000000001,{KEY},a,true\n\
             0102030405060708,0000000000000001,{KEY},\"a\nb\",maybe\n\
             0102030405060708,0000000000000001,,c,\n\
             0102030405060708,0000000000000001,{KEY},d\n\
             \n\
             0102030405060708,0000000000000001,{KEY},e,on\n\
             0102030405060708,0000000000000001,{KEY},f,on\n"
        );
        assert_eq!(
            bad(Format::Csv, &text),
            [
                "2: dev_eui is not 16 hexadecimal digits",
                "3: roaming is neither true nor false",
                "5: app_key is empty",
                "6: 4 fields, where the header has 5",
                "9: DevEUI 0102030405060708 is on line 8 already",
            ]
        );
        assert_eq!(
            bad(Format::Csv, "dev_eui,joineui,app_key\n"),
            [
                "1: there is no column \"joineui\": dev_eui, join_eui, app_key, nwk_key, name, mac_version, roaming, \
                 enabled, class, home, dev_addr, nwk_s_key, f_nwk_s_int_key, s_nwk_s_int_key, nwk_s_enc_key, \
                 app_s_key, fcnt_up, fcnt_down, a_fcnt_down",
                "1: the column \"join_eui\" is missing",
            ]
        );
        assert_eq!(bad(Format::Csv, "").len(), 3);
    }

    #[test]
    fn an_element_of_a_json_array_is_named_by_its_line() {
        let text = format!(
            "[\n  {{ \"dev_eui\": \"0102030405060708\", \"join_eui\": \"0000000000000001\", \"app_key\": \"{KEY}\",\n    \"name\": \"a, \\\"b\\\" [\" }},\n\
             {{ \"dev_eui\": \"01\" }}, {{}}\n, 7\n]"
        );
        let (rows, bad) = read(Format::guess("-", &text), &text);
        assert_eq!((rows.len(), rows[0].line, &*rows[0].device.name), (1, 2, "a, \"b\" ["));
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [4, 4, 5]);
        assert!(bad[1].reason.contains("missing field") && bad[1].remedy.is_some(), "{:?}", bad[1]);
        assert_eq!(read(Format::Json, &text[..40]).1[0].line, 2);
    }

    #[test]
    fn without_keys_there_is_no_column_for_them() {
        let device = DeviceRecord {
            dev_eui: "0102030405060708".parse().unwrap(),
            join_eui: Some("0000000000000001".parse().unwrap()),
            app_key: None,
            nwk_key: None,
            name: "a, b".into(),
            mac_version: "1.0.4".into(),
            roaming: true,
            enabled: false,
            class: None,
            home: None,
            session: None,
        };
        assert_eq!(
            write(Format::Csv, &[device], false).unwrap(),
            "dev_eui,join_eui,name,mac_version,roaming,enabled\n0102030405060708,0000000000000001,\"a, b\",1.0.4,true,false\n"
        );
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_the_same(
            devices in prop::collection::btree_map(
                any::<[u8; 8]>(),
                (any::<[u8; 8]>(), any::<[u8; 16]>(), ".{0,20}", any::<(bool, bool, bool)>(), any::<Option<(u32, u32)>>()),
                0..6,
            ),
            json: bool,
        ) {
            let records: Vec<DeviceRecord> = devices
                .into_iter()
                .map(|(dev_eui, (join_eui, key, name, (roaming, enabled, class_c), given))| DeviceRecord {
                    dev_eui: DevEui::from_msb(dev_eui),
                    join_eui: given.is_none().then(|| crate::lorawan::JoinEui::from_msb(join_eui)),
                    // some have theirs elsewhere
                    app_key: (given.is_none() && !class_c).then(|| hex::encode_upper(key)),
                    nwk_key: (given.is_none() && enabled).then(|| hex::encode_upper(join_eui.repeat(2))),
                    name,
                    mac_version: "1.0.3".into(),
                    roaming,
                    enabled,
                    class: class_c.then_some(crate::control::Class::C),
                    home: (given.is_none() && roaming).then(|| NetId::from_msb([0x60, 5, 10])),
                    session: given.map(|(addr, count)| GivenSession {
                        dev_addr: crate::lorawan::DevAddr::new(addr),
                        nwk_s_key: Some(hex::encode_upper(key)),
                        f_nwk_s_int_key: None,
                        s_nwk_s_int_key: None,
                        nwk_s_enc_key: None,
                        app_s_key: Some(hex::encode_upper(key)),
                        fcnt_up: (count % 2 == 0).then_some(count),
                        fcnt_down: Some(count),
                        a_fcnt_down: None,
                    }),
                })
                .collect();
            let format = if json { Format::Json } else { Format::Csv };
            let text = write(format, &records, true).unwrap();
            let (rows, bad) = read(format, &text);
            prop_assert_eq!(bad, vec![]);
            let read: Vec<DeviceRecord> = rows
                .into_iter()
                .map(|row| DeviceRecord {
                    dev_eui: row.device.dev_eui,
                    join_eui: row.device.join_eui,
                    app_key: row.device.app_key,
                    nwk_key: row.device.nwk_key,
                    name: row.device.name,
                    mac_version: row.device.mac_version.unwrap_or_default(),
                    roaming: row.device.roaming.unwrap(),
                    enabled: row.device.enabled.unwrap(),
                    class: row.device.class,
                    home: row.device.home,
                    session: row.device.session,
                })
                .collect();
            prop_assert!(read == records);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,300}", json: bool) {
            let _ = read(if json { Format::Json } else { Format::Csv }, &text);
            let _ = elements(&text);
        }
    }
}
