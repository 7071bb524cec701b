//! What happened, as a person enjoys reading it: milestones with their offsets, and a waterfall.
//!
//! Pure: records of the tap in, milestones, bars and text out. Time zero is the end of the frame that
//! began it all, as the radio head heard it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Instant;
use crate::telemetry::{Kind, Record};

/// Columns that everything fits in.
pub const WIDTH: usize = 100;

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mood {
    /// On the way.
    Plain,
    /// What was hoped for.
    Good,
    /// A refusal or a failure.
    Bad,
}

/// A moment that a person wants to know of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Milestone {
    /// Milliseconds since time zero.
    pub offset_ms: f64,
    /// NetID of the hotspot, `device` or `air`.
    pub place: String,
    /// In words.
    pub text: String,
    /// How it is meant.
    pub mood: Mood,
    /// What was recorded, by the names of the specification.
    pub fields: BTreeMap<String, String>,
}

/// Something that took time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// NetID of the hotspot that waited for it.
    pub node: String,
    /// Message or protocol.
    pub what: String,
    /// From whom to whom, or which name.
    pub who: String,
    /// Milliseconds since time zero.
    pub from_ms: f64,
    /// How long, in milliseconds.
    pub took_ms: f64,
    /// How many other bars it is part of.
    pub depth: usize,
    /// What came of it: a Result code, or nothing.
    pub result: String,
}

impl Bar {
    fn to_ms(&self) -> f64 {
        self.from_ms + self.took_ms
    }
}

/// Milliseconds from `zero` to `at`, negative before it.
pub fn offset(at: Instant, zero: Instant) -> f64 {
    match at >= zero {
        true => millis(at.saturating_duration_since(zero)),
        false => -millis(zero.saturating_duration_since(at)),
    }
}

/// A duration in milliseconds, to the microsecond.
pub fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Milliseconds for a person: `0.4`, `27.9`, `4,972.1`.
pub fn told(ms: f64) -> String {
    let text = format!("{:.1}", ms.abs());
    let (whole, part) = text.split_once('.').unwrap_or((&text, "0"));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if ms < 0.0 && text != "0.0" { "-" } else { "" };
    format!("{sign}{grouped}.{part}")
}

/// A field of a record by the first of these names that it has.
fn field<'a>(record: &'a Record, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| record.fields.get(*name)).map(String::as_str)
}

fn text<'a>(record: &'a Record, name: &str) -> &'a str {
    field(record, &[name]).unwrap_or("?")
}

/// Whether this is the door of the one who asks, not of the one who answers.
fn is_asking(record: &Record) -> bool {
    record.target == "roamgate::door" && field(record, &["SenderID"]) == Some(record.node.as_str())
}

/// Whether a message stays with one network server: it asks itself.
fn is_inside(record: &Record) -> bool {
    field(record, &["ReceiverID"]) == Some(record.node.as_str())
}

/// 868300000 as `868.3 MHz`.
fn mhz(hertz: &str) -> String {
    match hertz.parse::<f64>() {
        Ok(hertz) => format!("{} MHz", hertz / 1e6),
        Err(_) => hertz.to_string(),
    }
}

/// A JoinEUI is a join server, a NetID is a network.
fn party(id: &str) -> String {
    match id.len() {
        16 => format!("JS {id}"),
        _ => id.to_string(),
    }
}

/// The moments that matter, in order. Doors inside one network server and the answering side of a
/// door say nothing that the others do not.
pub fn milestones(records: &[Arc<Record>], zero: Instant) -> Vec<Milestone> {
    let mut milestones: Vec<Milestone> =
        records.iter().filter_map(|record| milestone(record, zero)).collect();
    milestones.sort_by(|a, b| a.offset_ms.total_cmp(&b.offset_ms));
    // a reason that a door has told already is not told twice
    for i in 0..milestones.len() {
        let (before, rest) = milestones.split_at_mut(i);
        let Some(milestone) = rest.first_mut() else { break };
        if let Some((words, why)) = milestone.text.split_once(": ")
            && words == NO_ANSWER
            && before.iter().any(|earlier| earlier.text.contains(why))
        {
            milestone.text = words.to_string();
        }
    }
    milestones
}

/// The milestone of a device that got nothing.
const NO_ANSWER: &str = "no answer to the device";

fn milestone(record: &Record, zero: Instant) -> Option<Milestone> {
    let (words, mood) = match (record.kind, record.target.as_str()) {
        (Kind::Event, _) => event(record)?,
        (Kind::Open, "roamgate::door") => asked(record)?,
        (Kind::Close, "roamgate::door") => answered(record)?,
        _ => return None,
    };
    Some(Milestone {
        offset_ms: offset(record.at, zero),
        place: record.node.clone(),
        text: words,
        mood,
        fields: record.fields.clone(),
    })
}

/// What a frame or network event means to a person; `None` for those that say nothing new.
fn event(record: &Record) -> Option<(String, Mood)> {
    let get = |name| text(record, name);
    let milestone = record.milestone.as_deref()?;
    let mut mood = Mood::Plain;
    let words = match milestone {
        "frames collected" => {
            let frame = match get("type") {
                "JoinRequest" => format!("Join-request, JoinEUI {}", get("JoinEUI")),
                kind => format!("{kind} of {}, FCnt {}", get("DevAddr"), get("FCnt")),
            };
            let (frequency, rssi) = (mhz(get("frequency")), get("rssi"));
            format!("frames collected: {frame} ({frequency}, {rssi} dBm)")
        }
        "device does not exist" => {
            mood = Mood::Bad;
            format!("device {} does not exist, and roaming is off: nobody is asked", get("DevEUI"))
        }
        "unknown device, try passive roaming activation" => {
            format!("unknown device {}: {}", get("DevEUI"), "try passive roaming activation")
        }
        "JoinEUI resolved to NetID" => {
            format!("JoinEUI {} resolved to NetID {}", get("JoinEUI"), field(record, &["HNetID", "NetID"])?)
        }
        "roaming agreement" => {
            format!("roaming agreement with {}: {}", get("NetID"), field(record, &["rule", "line"])?)
        }
        "Join-accept handed to the radio" | "downlink handed to the radio" => {
            mood = Mood::Good;
            let lead = get("lead_ms").parse().map_or_else(|_| "?".into(), told);
            format!("{milestone} for {}, {lead} ms before its slot", get("window"))
        }
        "uplink accepted" => {
            let confirmed = if get("confirmed") == "true" { ", wants an acknowledgement" } else { "" };
            format!("uplink accepted: MIC right, FCntUp {}{confirmed}", get("FCntUp"))
        }
        "payload delivered" => {
            mood = Mood::Good;
            let bytes = hex::decode(get("payload")).unwrap_or_default();
            let payload = String::from_utf8_lossy(&bytes).into_owned();
            format!("payload delivered to the application: {payload:?} on FPort {}", get("FPort"))
        }
        // told by the milestone before it
        NO_ANSWER if get("why").contains("roaming is off") => return None,
        "downlink not sent" | NO_ANSWER => {
            mood = Mood::Bad;
            let why = field(record, &["why", "message"]);
            format!("{milestone}: {}", why.unwrap_or("nobody said why"))
        }
        "DNS answer" => dns(record, &mut mood),
        "TLS handshake" => tls(record, &mut mood),
        // the DNS answer before it says the same
        "server found" => return None,
        other => {
            let told: Vec<String> =
                record.fields.iter().map(|(name, value)| format!("{name} {value}")).collect();
            format!("{other}: {}", told.join(", "))
        }
    };
    Some((words, mood))
}

fn dns(record: &Record, mood: &mut Mood) -> String {
    let name = field(record, &["name", "query"]).unwrap_or("?");
    let mut words = match field(record, &["error"]) {
        Some(error) => {
            // a device's own name is there only for devices that were moved
            if !is_proven(record) {
                *mood = Mood::Bad;
            }
            format!("DNS {}", error.replace(name, &shorten(name, 40)))
        }
        None => format!("DNS {name} is {}", text(record, "addresses").trim_matches(['[', ']'])),
    };
    if let Some(proof) = field(record, &["security"]) {
        let _ = write!(words, ", DNSSEC {}", proof.to_lowercase());
        if proof.eq_ignore_ascii_case("bogus") {
            *mood = Mood::Bad;
        }
    }
    match took(record) {
        _ if text(record, "cached") == "true" => words.push_str(" (known)"),
        Some(ms) => words.push_str(&format!(" ({} ms)", told(ms))),
        None => (),
    }
    words
}

/// Whether DNSSEC has proven what a DNS answer says, be it an address or that there is none.
pub fn is_proven(record: &Record) -> bool {
    field(record, &["security"]).is_some_and(|security| security.eq_ignore_ascii_case("secure"))
        || field(record, &["error"]).is_some_and(|error| error.contains("proven by DNSSEC"))
}

/// A handshake, as each of the two sees the other.
fn tls(record: &Record, mood: &mut Mood) -> String {
    if let Some(error) = field(record, &["error", "why"]) {
        *mood = Mood::Bad;
        return format!("TLS failed: {error}");
    }
    let names: Vec<String> = text(record, "peer").split(' ').map(|name| shorten(name, 34)).collect();
    let (version, names) = (text(record, "version"), names.join(" and "));
    match (field(record, &["cipher"]), is_calling(record)) {
        (_, true) => format!("{version}: the server proves to be {names}"),
        (Some(cipher), false) => format!("{version}, {cipher}: the client proves to be {names}"),
        (None, false) => format!("{version}: the client proves to be {names}"),
    }
}

/// Whether a handshake is told by the one who called.
fn is_calling(record: &Record) -> bool {
    field(record, &["side"]) != Some("server")
}

/// How long an event's work took, in milliseconds, where it says so.
fn took(record: &Record) -> Option<f64> {
    if let Some(took) = record.took {
        return Some(millis(took));
    }
    let number = |name| field(record, &[name]).and_then(|text| text.parse::<f64>().ok());
    number("took_ms").or_else(|| number("ms")).or_else(|| number("took_us").map(|us| us / 1e3))
}

fn asked(record: &Record) -> Option<(String, Mood)> {
    if !is_asking(record) || is_inside(record) {
        return None;
    }
    Some((format!("{} to {}", text(record, "MessageType"), party(text(record, "ReceiverID"))), Mood::Plain))
}

fn answered(record: &Record) -> Option<(String, Mood)> {
    let code = field(record, &["ResultCode"]).unwrap_or("no answer");
    let message = text(record, "MessageType");
    // our own network is asked first for every frame, and its refusal is told in other words
    if !is_asking(record) || is_inside(record) {
        return None;
    }
    let to = party(text(record, "ReceiverID"));
    let time = took(record).map(|ms| format!(" ({} ms)", told(ms))).unwrap_or_default();
    // a Result code is one word and begins with a capital; what else went wrong is a sentence
    let is_code = code.split(' ').next().is_some_and(|word| word.starts_with(char::is_uppercase));
    Some(match message.strip_suffix("Req") {
        Some(name) if code == "Success" => (format!("{name}Ans Success from {to}{time}"), Mood::Plain),
        Some(name) if is_code => (format!("{name}Ans {code} from {to}{time}"), Mood::Bad),
        _ => (format!("{message} to {to} failed{time}: {code}"), Mood::Bad),
    })
}

/// What took time between `zero` and `until`: doors as their askers saw them, DNS and TLS.
pub fn bars(records: &[Arc<Record>], zero: Instant, until: Instant) -> Vec<Bar> {
    let opened: BTreeMap<u64, f64> = records
        .iter()
        .filter(|record| record.kind == Kind::Open)
        .map(|record| (record.span, offset(record.at, zero)))
        .collect();
    let mut bars = Vec::new();
    let mut found = BTreeMap::new();
    for record in records {
        let end = offset(record.at, zero);
        let handshake = match record.milestone.as_deref() {
            Some("server found") => {
                found.insert(record.node.clone(), end);
                None
            }
            Some("TLS handshake") if is_calling(record) => found.remove(&record.node),
            _ => None,
        };
        let Some(took_ms) = took(record).or(handshake.map(|from| end - from)) else { continue };
        let (what, who, result) = match (record.kind, record.milestone.as_deref()) {
            (Kind::Close, _) if is_asking(record) => {
                let who = format!("{} to {}", record.node, party(text(record, "ReceiverID")));
                (text(record, "MessageType").to_string(), who, text(record, "ResultCode").to_string())
            }
            (Kind::Event, Some("DNS answer")) => {
                let name = field(record, &["name", "query"]).unwrap_or("?");
                ("DNS".to_string(), name.to_string(), String::new())
            }
            (Kind::Event, Some("TLS handshake")) if is_calling(record) => {
                let peer = text(record, "peer").split(' ').next().unwrap_or("?");
                ("TCP, TLS".to_string(), peer.to_string(), String::new())
            }
            _ => continue,
        };
        let began = match record.kind {
            Kind::Event => record.parent.and_then(|parent| opened.get(&parent)).copied(),
            Kind::Open | Kind::Close => None,
        };
        // an event's own measure is rounded: it does not begin before the door that it is part of
        let from_ms = (end - took_ms).max(began.unwrap_or(f64::NEG_INFINITY));
        if from_ms <= offset(until, zero) {
            let node = record.node.clone();
            bars.push(Bar { node, what, who, from_ms, took_ms: end - from_ms, depth: 0, result });
        }
    }
    // outer bars before inner ones; a bar is part of every earlier one that outlasts it
    bars.sort_by(|a, b| a.from_ms.total_cmp(&b.from_ms).then(b.took_ms.total_cmp(&a.took_ms)));
    for i in 0..bars.len() {
        let (before, rest) = bars.split_at_mut(i);
        if let Some(bar) = rest.first_mut() {
            bar.depth = before.iter().filter(|outer| outer.to_ms() >= bar.to_ms()).count();
        }
    }
    bars
}

/// Where text goes: how wide, and whether it may be coloured.
#[derive(Debug, Clone, Copy)]
pub struct Paper {
    /// Escape sequences for colour are welcome.
    pub colour: bool,
}

impl Paper {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
    /// Something that may be skipped.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
    /// As hoped.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }
    /// Not as hoped.
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }
    fn blue(self, text: &str) -> String {
        self.paint("36", text)
    }
    fn mood(self, mood: Mood, text: &str) -> String {
        match mood {
            Mood::Plain => text.to_string(),
            Mood::Good => self.green(text),
            Mood::Bad => self.red(text),
        }
    }

    /// The milestones, one a line, long ones with a hanging indent.
    pub fn milestones(self, milestones: &[Milestone]) -> String {
        let mut page = String::new();
        for milestone in milestones {
            let place = format!("{:<6}", milestone.place);
            let offset = format!("{:>9} ms", told(milestone.offset_ms));
            for (i, line) in wrap(&milestone.text, WIDTH - 22).iter().enumerate() {
                let line = self.mood(milestone.mood, line);
                let _ = match i {
                    0 => writeln!(page, "{}  {}  {line}", self.dim(&offset), self.blue(&place)),
                    _ => writeln!(page, "{:22}{line}", ""),
                };
            }
        }
        page
    }

    /// What was checked, and what was seen.
    pub fn check(self, right: bool, seen: &str) -> String {
        let mark = if right { self.green("✓") } else { self.red("✗") };
        format!("  {mark} {}\n", wrap(seen, WIDTH - 4).join("\n    "))
    }

    /// Why something went wrong.
    pub fn why(self, why: &str) -> String {
        format!("  {}\n", self.red(&wrap(&format!("because {why}"), WIDTH - 4).join("\n  ")))
    }

    /// The bars from `zero` to the last one's end.
    pub fn waterfall(self, bars: &[Bar], done_ms: f64) -> String {
        const LABEL: usize = 44;
        const SPACE: usize = WIDTH - 2 - LABEL - 10;
        let whole = bars.iter().map(Bar::to_ms).fold(done_ms, f64::max).max(1.0);
        let column = |ms: f64| ((ms.max(0.0) / whole) * SPACE as f64) as usize;
        let end = format!("{} ms", told(whole));
        let mut page = String::new();
        let _ = writeln!(page, "  {:LABEL$}{:>8}  0{end:>rest$}", "", "ms", rest = SPACE - 1);
        for bar in bars {
            let name = format!("{:1$}{2}", "", 2 * bar.depth, bar.what);
            let label = shorten(&format!("{name:<14} {}", bar.who), LABEL);
            let from = column(bar.from_ms).min(SPACE - 1);
            let cells = column(bar.to_ms()).saturating_sub(from).clamp(1, SPACE - from);
            let paint = if matches!(bar.result.as_str(), "" | "Success") { "36" } else { "33" };
            let _ = writeln!(
                page,
                "  {label:<LABEL$}{:>8}  {:from$}{}",
                told(bar.took_ms),
                "",
                self.paint(paint, &"█".repeat(cells))
            );
        }
        page
    }

    /// The window from the device's side: airtime, waiting and airtime, and when the network was done.
    pub fn window(self, up_ms: f64, wait_ms: f64, down_ms: f64, done_ms: Option<f64>) -> String {
        const SPACE: usize = WIDTH - 4;
        let whole = up_ms + wait_ms + down_ms;
        let cells = |ms: f64| ((ms / whole * SPACE as f64).round() as usize).max(1);
        let (up, down) = (cells(up_ms), cells(down_ms));
        let wait = SPACE.saturating_sub(up + down);
        let busy = done_ms.map_or(0, |done| cells(done.max(0.0)).min(wait));
        let strip = format!(
            "{}{}{}{}",
            self.paint("36", &"█".repeat(up)),
            self.paint("33", &"▓".repeat(busy)),
            self.dim(&"·".repeat(wait - busy)),
            self.paint("36", &"█".repeat(down)),
        );
        let mut page = format!("  {strip}\n");
        let under = match done_ms {
            Some(done) => {
                let share = 100.0 * (1.0 - done / wait_ms);
                format!("the network was done {} ms into the window, {share:.1} % of it to spare", told(done))
            }
            None => "nobody answered".to_string(),
        };
        let _ = writeln!(page, "  {:up$}{}", "", self.dim(&format!("└ {under}")));
        page
    }
}

/// Text in lines of at most `width` characters, broken at spaces where there are some.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let room = width.saturating_sub(line.chars().count() + 1);
        if !line.is_empty() && word.chars().count() > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for letter in word.chars() {
            // a word that is longer than a line by itself is cut
            if line.chars().count() == width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(letter);
        }
    }
    lines.push(line);
    lines
}

/// At most `width` characters: the middle goes.
fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_string();
    }
    let keep = width.saturating_sub(1);
    let tail = keep / 2;
    let head: String = text.chars().take(keep - tail).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{head}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    /// What a roaming join says, with offsets in microseconds.
    fn roaming_join(zero: Instant) -> Vec<Arc<Record>> {
        let clock = Clock::system();
        let mut records = Vec::new();
        let mut say = |node: &str,
                       at_us: u64,
                       kind,
                       target: &str,
                       milestone: Option<&str>,
                       fields: &str,
                       took: Option<u64>| {
            let fields = fields.split(';').filter_map(|field| field.trim().split_once('='));
            records.push(Arc::new(Record {
                node: node.into(),
                at: zero + Duration::from_micros(at_us),
                wall: clock.wall(),
                kind,
                target: target.into(),
                name: milestone.unwrap_or("door").into(),
                milestone: milestone.map(str::to_string),
                fields: fields.map(|(name, value)| (name.into(), value.into())).collect(),
                span: at_us,
                parent: None,
                took: took.map(Duration::from_micros),
            }));
        };
        let (frame, net, door) = ("roamgate::frame", "roamgate::net", "roamgate::door");
        let (v, h) = ("000000", "000001");
        say(
            v,
            200,
            Kind::Event,
            frame,
            Some("frames collected"),
            "type=JoinRequest;DevEUI=5817B1C3EB890BC4;JoinEUI=0000000000000001;frequency=868300000;data_rate=5;rssi=-57;snr=9.5",
            None,
        );
        let own = "MessageType=PRStartReq;SenderID=000000;ReceiverID=000000;local=true";
        say(v, 250, Kind::Open, door, None, own, None);
        say(
            v,
            650,
            Kind::Close,
            door,
            None,
            &format!("{own};ResultCode=UnknownDevEui (no such device here)"),
            Some(400),
        );
        say(
            v,
            700,
            Kind::Event,
            frame,
            Some("unknown device, try passive roaming activation"),
            "DevEUI=5817B1C3EB890BC4;JoinEUI=0000000000000001",
            None,
        );
        let ask = "MessageType=HomeNSReq;SenderID=000000;ReceiverID=0000000000000001;TransactionID=7";
        say(v, 800, Kind::Open, door, None, ask, None);
        let dns = "security=secure;addresses=[127.0.0.3];ttl=60;cached=false";
        say(
            v,
            9_800,
            Kind::Event,
            net,
            Some("DNS answer"),
            &format!("name=1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.iotroam.example;{dns};took_ms=8.4"),
            None,
        );
        say(v, 9_900, Kind::Event, net, Some("server found"), "host=x", None);
        say(
            v,
            15_800,
            Kind::Event,
            net,
            Some("TLS handshake"),
            "side=client;version=TLS 1.3;peer=000001.netids.iotroam.example 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.iotroam.example",
            None,
        );
        say(h, 15_900, Kind::Open, door, None, ask, None);
        say(h, 16_500, Kind::Close, door, None, &format!("{ask};ResultCode=Success"), Some(600));
        say(v, 17_000, Kind::Close, door, None, &format!("{ask};ResultCode=Success"), Some(16_200));
        say(
            v,
            17_100,
            Kind::Event,
            frame,
            Some("JoinEUI resolved to NetID"),
            "JoinEUI=0000000000000001;HNetID=000001",
            None,
        );
        say(
            v,
            17_200,
            Kind::Event,
            frame,
            Some("roaming agreement"),
            "NetID=000001;rule=[roaming.default]",
            None,
        );
        let start = "MessageType=PRStartReq;SenderID=000000;ReceiverID=000001;TransactionID=8";
        say(v, 17_300, Kind::Open, door, None, start, None);
        say(
            v,
            20_300,
            Kind::Event,
            net,
            Some("DNS answer"),
            &format!("name=000001.netids.iotroam.example;{dns};took_ms=3"),
            None,
        );
        let join = "MessageType=JoinReq;SenderID=000001;ReceiverID=0000000000000001;local=true";
        say(h, 25_000, Kind::Open, door, None, join, None);
        say(h, 27_000, Kind::Close, door, None, &format!("{join};ResultCode=Success"), Some(2_000));
        say(v, 29_000, Kind::Close, door, None, &format!("{start};ResultCode=Success"), Some(11_700));
        say(
            v,
            29_200,
            Kind::Event,
            frame,
            Some("Join-accept handed to the radio"),
            "window=RX1;lead_ms=4970.8",
            None,
        );
        records
    }

    #[test]
    fn a_roaming_join_is_told_in_order_without_inner_doors_and_answering_sides() {
        let zero = Clock::system().now();
        let told = milestones(&roaming_join(zero), zero);
        let first_words: Vec<String> = told
            .iter()
            .map(|m| m.text.split([' ', ':', ',']).take(2).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            first_words,
            [
                "frames collected",
                "unknown device",
                "HomeNSReq to",
                "DNS 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.iotroam.example",
                "TLS 1.3",
                "HomeNSAns Success",
                "JoinEUI 0000000000000001",
                "roaming agreement",
                "PRStartReq to",
                "DNS 000001.netids.iotroam.example",
                "JoinReq to",
                "JoinAns Success",
                "PRStartAns Success",
                "Join-accept handed",
            ]
        );
        let page = Paper { colour: false }.milestones(&told);
        assert!(page.lines().all(|line| line.chars().count() <= WIDTH), "{page}");
        println!("{page}");
    }

    #[test]
    fn a_waterfall_nests_what_is_part_of_something_and_fits_the_page() {
        let zero = Clock::system().now();
        let bars = bars(&roaming_join(zero), zero, zero + Duration::from_millis(30));
        let shape: Vec<(&str, usize)> = bars.iter().map(|bar| (bar.what.as_str(), bar.depth)).collect();
        assert_eq!(
            shape,
            [
                ("PRStartReq", 0),
                ("HomeNSReq", 0),
                ("DNS", 1),
                ("TCP, TLS", 1),
                ("PRStartReq", 0),
                ("DNS", 1),
                ("JoinReq", 1)
            ]
        );
        let paper = Paper { colour: false };
        let page = paper.waterfall(&bars, 29.2) + &paper.window(61.7, 5000.0, 71.9, Some(29.2));
        assert!(page.lines().all(|line| line.chars().count() <= WIDTH), "{page}");
        println!("{page}");
    }

    #[test]
    fn numbers_are_told_with_commas_and_one_digit() {
        assert_eq!(
            [told(0.04), told(27.94), told(4972.13), told(1_234_567.0), told(-61.7), told(-0.01)],
            ["0.0", "27.9", "4,972.1", "1,234,567.0", "-61.7", "0.0"]
        );
    }

    #[test]
    fn long_text_is_wrapped_and_long_words_are_cut() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(shorten("abcdefghij", 5), "ab…ij");
    }
}
