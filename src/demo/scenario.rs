//! The three scenarios of the IoTRoam demonstration, and what makes each of them right.
//!
//! A scenario carries a fresh device to a hotspot, lets it join, and where it joined lets it send a
//! confirmed uplink that a downlink with payload answers. What came of it is a [`Story`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::device::{JoinReport, RxWindow, SendReport};
use super::federation::{DEVICE, Federation, HOME, VISITED};
use super::timeline::{Bar, Milestone, Mood, Paper, bars, is_proven, milestones, millis, offset, told};
use crate::clock::{Clock, Instant};
use crate::jit;
use crate::lorawan::crypto::Direction;
use crate::lorawan::{GatewayEui, Modulation, NetId};
use crate::radio::simulated::Handover;
use crate::telemetry::{Kind, Record, Tap};

/// How far device time may be from airtime + 5 s + airtime.
const TOLERANCE: Duration = Duration::from_millis(20);
/// How early the Join-accept must be with the radio.
const EARLY: Duration = Duration::from_secs(4);
/// What the device sends, and what its home has for it.
const UPLINK: (u8, &[u8]) = (2, b"21.5 degrees");
const DOWNLINK: (u8, &[u8]) = (3, b"window open");

/// One of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// The device is at home.
    Home,
    /// It is away, and the visited hotspot does not roam.
    AwayOff,
    /// It is away, and the visited hotspot roams.
    AwayOn,
}

impl Scenario {
    /// All, in order.
    pub const ALL: [Scenario; 3] = [Scenario::Home, Scenario::AwayOff, Scenario::AwayOn];

    /// Its number in the demonstration.
    pub fn number(self) -> u8 {
        match self {
            Scenario::Home => 1,
            Scenario::AwayOff => 2,
            Scenario::AwayOn => 3,
        }
    }

    /// Whether the visited hotspot roams in it.
    pub fn roams(self) -> bool {
        self != Scenario::AwayOff
    }

    fn title(self) -> &'static str {
        match self {
            Scenario::Home => "at home",
            Scenario::AwayOff => "away, roaming off",
            Scenario::AwayOn => "away, roaming on",
        }
    }

    fn introduction(self) -> String {
        match self {
            Scenario::Home => format!("The device is at its home hotspot {}.", HOME.net_id),
            Scenario::AwayOff => format!(
                "The device is carried to hotspot {}, which has never heard of it and does not roam.",
                VISITED.net_id
            ),
            Scenario::AwayOn => format!(
                "The device is carried to hotspot {}, which has never heard of it. Now it roams.",
                VISITED.net_id
            ),
        }
    }

    /// What the demonstration of 2022 measured, for comparison.
    fn demonstration(self) -> &'static str {
        match self {
            Scenario::Home => "joined in 5.182 s",
            Scenario::AwayOff => "no join",
            Scenario::AwayOn => "joined in 5.184 s",
        }
    }
}

/// Something that must hold, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// It holds.
    pub right: bool,
    /// What was seen, in words.
    pub seen: String,
}

/// The join from the device's side, in milliseconds of its own time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Join {
    /// It has a session.
    pub ok: bool,
    /// First to last symbol, or until it gave up.
    pub device_time_ms: f64,
    /// Of the Join-request.
    pub airtime_up_ms: f64,
    /// End of the Join-request to begin of the Join-accept.
    pub waited_ms: Option<f64>,
    /// Of the Join-accept.
    pub airtime_down_ms: Option<f64>,
    /// 1 or 2.
    pub window: Option<u8>,
    /// Hertz.
    pub frequency: u32,
    /// DevNonce sent.
    pub dev_nonce: u16,
    /// DevAddr received.
    pub dev_addr: Option<String>,
    /// End of the Join-request to the handover of the Join-accept to the radio.
    pub network_ms: Option<f64>,
    /// Handover to slot.
    pub lead_ms: Option<f64>,
}

/// The confirmed uplink and its answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Data {
    /// The ACK bit came.
    pub acked: bool,
    /// FCntUp sent.
    pub fcnt_up: u32,
    /// 1 or 2.
    pub window: Option<u8>,
    /// FPort and text of the payloads received.
    pub downlinks: Vec<(u8, String)>,
    /// End of the uplink to the handover of the answer to the radio.
    pub network_ms: Option<f64>,
    /// Handover to slot.
    pub lead_ms: Option<f64>,
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// 1, 2 or 3.
    pub scenario: u8,
    /// In words.
    pub title: &'static str,
    /// It went as in the demonstration.
    pub right: bool,
    /// Every thing that must hold.
    pub checks: Vec<Check>,
    /// Why the network gave the device no answer, where it gave none.
    pub why: Option<String>,
    /// The join.
    pub join: Join,
    /// A second join of the same device, with connections and answers still warm; only if asked for.
    pub warm: Option<Join>,
    /// What was said afterwards; none without a session.
    pub data: Option<Data>,
    /// Of the join. Zero is the end of the Join-request.
    pub milestones: Vec<Milestone>,
    /// Of the join.
    pub waterfall: Vec<Bar>,
    /// Of the uplink. Zero is its end.
    pub data_milestones: Vec<Milestone>,
}

/// Collects what the tap says.
pub struct Recorder(Arc<Mutex<Vec<Arc<Record>>>>);

impl Recorder {
    /// Collect from now on, until the tap is gone.
    pub fn start(tap: &Tap) -> Recorder {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (mut records, to) = (tap.subscribe(), heard.clone());
        tokio::spawn(async move {
            loop {
                match records.recv().await {
                    Ok(record) => to.lock().unwrap_or_else(PoisonError::into_inner).push(record),
                    // a demo that shows some moments fewer is still one
                    Err(RecvError::Lagged(_)) => (),
                    Err(RecvError::Closed) => break,
                }
            }
        });
        Recorder(heard)
    }

    fn take(&self) -> Vec<Arc<Record>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Play a scenario.
pub async fn play(
    scenario: Scenario,
    federation: &mut Federation,
    recorder: &Recorder,
    clock: &Clock,
    warm: bool,
) -> anyhow::Result<Story> {
    federation.set_roaming(scenario.roams()).await?;
    let hotspot = if scenario == Scenario::Home { &federation.home } else { &federation.visited };
    let gateway = hotspot.site.gateway;
    let mut device = federation.device();
    device.move_to(&hotspot.reach());
    federation.zone.forget_queries();
    recorder.take();

    let before = federation.air.handovers(gateway).len();
    let join = device.join().await;
    settle(clock).await;
    let handed = handed(federation, gateway, before);
    let records = recorder.take();
    let queries = federation.zone.queries().len();

    let mut data = None;
    let mut data_milestones = Vec::new();
    if join.ok {
        let id = format!("demo-{}", scenario.number());
        federation.home.enqueue(id, DOWNLINK.0, DOWNLINK.1).await?;
        let before = federation.air.handovers(gateway).len();
        recorder.take();
        let sent = device.send(UPLINK.1, UPLINK.0, true).await?;
        settle(clock).await;
        data_milestones = uplink_milestones(&sent, &recorder.take());
        data = Some(data_told(&sent, self::handed(federation, gateway, before).as_ref()));
    }
    let mut story = tell(scenario, &join, handed.as_ref(), &records, queries, data, data_milestones);
    if warm && join.ok {
        let before = federation.air.handovers(gateway).len();
        let again = device.join().await;
        story.warm = Some(join_told(&again, self::handed(federation, gateway, before).as_ref()));
        story.right &= again.ok;
    }
    Ok(story)
}

/// Doors close a moment after their answer has had its effect.
async fn settle(clock: &Clock) {
    clock.sleep(Duration::from_millis(30)).await;
}

/// The transmission that the head took since.
fn handed(federation: &Federation, gateway: GatewayEui, since: usize) -> Option<Handover> {
    let handovers = federation.air.handovers(gateway);
    handovers.into_iter().skip(since).find(|handover| handover.outcome.is_ok())
}

fn number(window: RxWindow) -> u8 {
    match window {
        RxWindow::Rx1 => 1,
        RxWindow::Rx2 => 2,
    }
}

fn join_told(join: &JoinReport, handed: Option<&Handover>) -> Join {
    let since = |from: Instant, to: Instant| millis(to.saturating_duration_since(from));
    let airtime_down = join.downlink_start.zip(join.downlink_end).map(|(start, end)| since(start, end));
    Join {
        ok: join.ok,
        device_time_ms: millis(join.took),
        airtime_up_ms: since(join.started, join.uplink_end),
        waited_ms: join.downlink_start.map(|start| since(join.uplink_end, start)),
        airtime_down_ms: airtime_down,
        window: join.window.map(number),
        frequency: join.frequency,
        dev_nonce: join.dev_nonce,
        dev_addr: join.dev_addr.map(|dev_addr| dev_addr.to_string()),
        network_ms: handed.map(|handed| offset(handed.at, join.uplink_end)),
        lead_ms: handed.map(|handed| millis(handed.lead())),
    }
}

fn data_told(sent: &SendReport, handed: Option<&Handover>) -> Data {
    let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
    Data {
        acked: sent.acked,
        fcnt_up: sent.fcnt_up,
        window: sent.window.map(number),
        downlinks: sent.downlinks.iter().map(|(port, payload)| (*port, text(payload))).collect(),
        network_ms: handed.map(|handed| offset(handed.at, sent.uplink_end)),
        lead_ms: handed.map(|handed| millis(handed.lead())),
    }
}

/// What the device itself saw, as milestones.
fn seen(place: &str, at: Instant, zero: Instant, mood: Mood, text: String) -> Milestone {
    let offset_ms = offset(at, zero);
    Milestone { offset_ms, place: place.into(), text, mood, fields: Default::default() }
}

fn join_milestones(join: &JoinReport, records: &[Arc<Record>]) -> Vec<Milestone> {
    let zero = join.uplink_end;
    let mut all = milestones(records, zero);
    let nonce = format!("Join-request on the air, DevEUI {DEVICE}, DevNonce {}", join.dev_nonce);
    all.push(seen("device", join.started, zero, Mood::Plain, nonce));
    match (join.downlink_start, join.window, join.dev_addr) {
        (Some(start), Some(window), Some(dev_addr)) => {
            let rx = number(window);
            all.push(seen("air", start, zero, Mood::Plain, format!("Join-accept on the air, in RX{rx}")));
            let end = join.downlink_end.unwrap_or(start);
            let joined =
                format!("join succeeded, DevAddr {dev_addr}, {} s after its start", seconds(join.took));
            all.push(seen("device", end, zero, Mood::Good, joined));
        }
        _ => {
            let end = join.started + join.took;
            let failed =
                format!("join failed: both windows were empty, {} s after its start", seconds(join.took));
            all.push(seen("device", end, zero, Mood::Bad, failed));
        }
    }
    all.sort_by(|a, b| a.offset_ms.total_cmp(&b.offset_ms));
    all
}

fn uplink_milestones(sent: &SendReport, records: &[Arc<Record>]) -> Vec<Milestone> {
    let zero = sent.uplink_end;
    let mut all = milestones(records, zero);
    let words =
        format!("confirmed uplink on the air, {:?} on FPort {}", String::from_utf8_lossy(UPLINK.1), UPLINK.0);
    all.push(seen("device", sent.started, zero, Mood::Plain, words));
    if let (Some(start), Some(window)) = (sent.downlink_start, sent.window) {
        let ack = if sent.acked { "acknowledged" } else { "answered, but not acknowledged" };
        let texts: Vec<String> = sent
            .downlinks
            .iter()
            .map(|(port, payload)| format!("{:?} on FPort {port}", String::from_utf8_lossy(payload)))
            .collect();
        let payload = if texts.is_empty() { "no payload".to_string() } else { texts.join(" and ") };
        let words = format!("{ack} in RX{}, with {payload}", number(window));
        all.push(seen("device", start, zero, if sent.acked { Mood::Good } else { Mood::Bad }, words));
    }
    all.sort_by(|a, b| a.offset_ms.total_cmp(&b.offset_ms));
    all
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

fn tell(
    scenario: Scenario,
    join: &JoinReport,
    handed: Option<&Handover>,
    records: &[Arc<Record>],
    queries: usize,
    data: Option<Data>,
    data_milestones: Vec<Milestone>,
) -> Story {
    let mut checks = Checks(Vec::new());
    match scenario {
        Scenario::Home => {
            checks.joined(join, handed, HOME.net_id);
            checks.door(records, HOME.net_id, "JoinReq");
            checks.add(
                queries == 0,
                match queries {
                    0 => "nobody else was asked: no DNS query left the house".into(),
                    n => format!("{n} DNS queries left the house"),
                },
            );
            checks.talked(data.as_ref());
        }
        Scenario::AwayOff => {
            checks.add(
                !join.ok,
                match join.ok {
                    false => "the device did not join".into(),
                    true => "the device joined where it should not".into(),
                },
            );
            let refused = event(records, VISITED.net_id, "device does not exist").is_some();
            checks.add(
                refused,
                match refused {
                    true => "the visited hotspot said that the device does not exist".into(),
                    false => "the visited hotspot did not say that the device does not exist".into(),
                },
            );
            let abroad = records.iter().filter(|record| leaves(record)).count();
            checks.add(
                queries + abroad == 0,
                match queries + abroad {
                    0 => "no DNS query and no Backend Interfaces message left it".into(),
                    _ => format!("{queries} DNS queries and {abroad} messages left it"),
                },
            );
        }
        Scenario::AwayOn => {
            checks.joined(join, handed, HOME.net_id);
            checks.road(records);
            checks.both_proven(records);
            checks.talked(data.as_ref());
        }
    }
    let done = handed.map_or(join.uplink_end, |handed| handed.at);
    let last = records.iter().map(|record| record.at).max().unwrap_or(done);
    let until = if handed.is_some() { done } else { last };
    let why = records
        .iter()
        .rev()
        .find(|record| record.milestone.as_deref() == Some("no answer to the device"))
        .and_then(|record| record.fields.get("why").cloned());
    Story {
        scenario: scenario.number(),
        title: scenario.title(),
        right: checks.0.iter().all(|check| check.right),
        checks: checks.0,
        why,
        join: join_told(join, handed),
        warm: None,
        data,
        milestones: join_milestones(join, records),
        waterfall: bars(records, join.uplink_end, until),
        data_milestones,
    }
}

/// The first event with this milestone at this node.
fn event<'a>(records: &'a [Arc<Record>], node: NetId, milestone: &str) -> Option<&'a Arc<Record>> {
    let node = node.to_string();
    records.iter().find(|record| record.node == node && record.milestone.as_deref() == Some(milestone))
}

/// The end of the first door of this kind at the node that asked it.
fn door<'a>(records: &'a [Arc<Record>], node: NetId, message: &str, to: &str) -> Option<&'a Arc<Record>> {
    let node = node.to_string();
    let is = |record: &Record, name: &str, value: &str| record.fields.get(name).is_some_and(|is| is == value);
    records.iter().find(|record| {
        record.kind == Kind::Close
            && record.node == node
            && is(record, "MessageType", message)
            && is(record, "SenderID", &node)
            && is(record, "ReceiverID", to)
    })
}

/// Whether a record is of something that leaves the visited hotspot.
fn leaves(record: &Record) -> bool {
    let node = VISITED.net_id.to_string();
    let receiver = record.fields.get("ReceiverID");
    let own = [node.clone(), VISITED.join_eui.to_string()];
    record.node == node
        && (record.target == "roamgate::net" || receiver.is_some_and(|receiver| !own.contains(receiver)))
}

fn code(record: &Record) -> &str {
    record.fields.get("ResultCode").map_or("no answer", String::as_str)
}

struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, right: bool, seen: String) {
        self.0.push(Check { right, seen });
    }

    fn joined(&mut self, join: &JoinReport, handed: Option<&Handover>, home: NetId) {
        let (Some(start), Some(end), Some(dev_addr)) =
            (join.downlink_start, join.downlink_end, join.dev_addr)
        else {
            return self.add(false, "the device did not join".into());
        };
        let from_home = home.covers(dev_addr);
        let whose = if from_home { "of its home's" } else { "not of its home's" };
        self.add(from_home, format!("the device joined, with DevAddr {dev_addr} {whose} NetID {home}"));

        let sf7 = Modulation::Lora { sf: 7, bandwidth: 125_000 };
        let parts = jit::airtime(sf7, 23, Direction::Up)
            + Duration::from_secs(5)
            + end.saturating_duration_since(start);
        let off = join.took.abs_diff(parts);
        self.add(
            off <= TOLERANCE,
            format!(
                "device time {} s is airtime + 5 s + airtime, {} ms off",
                seconds(join.took),
                told(millis(off))
            ),
        );
        let lead = handed.map(Handover::lead).unwrap_or_default();
        self.add(
            lead >= EARLY,
            format!("the Join-accept was with the radio {} ms before its slot", told(millis(lead))),
        );
    }

    fn door(&mut self, records: &[Arc<Record>], node: NetId, message: &str) {
        let found = door(records, node, message, &HOME.join_eui.to_string());
        let said = found.map_or("no answer", |record| code(record));
        self.add(said == "Success", format!("{message} of {node} to JS {}: {said}", HOME.join_eui));
    }

    /// The road of a roaming join, in its order.
    fn road(&mut self, records: &[Arc<Record>]) {
        let (js, home) = (HOME.join_eui.to_string(), HOME.net_id.to_string());
        let steps: [(&str, Option<&Arc<Record>>); 7] = [
            ("frames collected", event(records, VISITED.net_id, "frames collected")),
            (
                "unknown device",
                event(records, VISITED.net_id, "unknown device, try passive roaming activation"),
            ),
            ("DNS answer", event(records, VISITED.net_id, "DNS answer")),
            ("HomeNSAns", door(records, VISITED.net_id, "HomeNSReq", &js)),
            ("JoinAns", door(records, HOME.net_id, "JoinReq", &js)),
            ("PRStartAns", door(records, VISITED.net_id, "PRStartReq", &home)),
            ("Join-accept handed over", event(records, VISITED.net_id, "Join-accept handed to the radio")),
        ];
        let mut last = None;
        let mut broken = None;
        for (name, step) in &steps {
            match step {
                None => broken = Some(format!("{name} is missing")),
                Some(step) if step.target == "roamgate::door" && code(step) != "Success" => {
                    broken = Some(format!("{name}: {}", code(step)));
                }
                Some(step) if last.is_some_and(|last| step.at < last) => {
                    broken = Some(format!("{name} came too early"));
                }
                Some(step) => last = Some(step.at),
            }
            if broken.is_some() {
                break;
            }
        }
        let names: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
        self.add(broken.is_none(), broken.unwrap_or_else(|| format!("in order: {}", names.join(", "))));

        let answers: Vec<&Arc<Record>> = records
            .iter()
            .filter(|record| record.milestone.as_deref() == Some("DNS answer"))
            .filter(|record| record.node == VISITED.net_id.to_string())
            .collect();
        let all = !answers.is_empty() && answers.iter().all(|record| is_proven(record));
        self.add(
            all,
            match (answers.len(), all) {
                (0, _) => "no DNS answer".into(),
                (n, true) => format!("all {n} DNS answers were proven by DNSSEC"),
                (n, false) => format!("not all of {n} DNS answers were proven by DNSSEC"),
            },
        );
    }

    /// Both proved who they are before a word was said.
    fn both_proven(&mut self, records: &[Arc<Record>]) {
        let met = |node: NetId, side: &str, peer: NetId| {
            records.iter().find(|record| {
                let field = |name: &str| record.fields.get(name).map_or("", String::as_str);
                record.milestone.as_deref() == Some("TLS handshake")
                    && record.node == node.to_string()
                    && field("side") == side
                    && field("peer").contains(&format!("{peer}.netids"))
            })
        };
        let client = met(VISITED.net_id, "client", HOME.net_id);
        let server = met(HOME.net_id, "server", VISITED.net_id);
        match (client, server) {
            (Some(_), Some(server)) => {
                let version = server.fields.get("version").map_or("TLS", String::as_str);
                self.add(true, format!("{version} both ways: each proved its NetID to the other"));
            }
            _ => self.add(false, "the two did not prove who they are".into()),
        }
    }

    fn talked(&mut self, data: Option<&Data>) {
        let Some(data) = data else { return };
        self.add(
            data.acked,
            match data.acked {
                true => "the confirmed uplink was acknowledged".into(),
                false => "the confirmed uplink was not acknowledged".into(),
            },
        );
        let expected = (DOWNLINK.0, String::from_utf8_lossy(DOWNLINK.1).into_owned());
        let got = data.downlinks == [expected];
        self.add(
            got,
            match got {
                true => "the downlink's payload arrived as it was queued at home".into(),
                false => format!("the downlink's payload did not arrive: {:?}", data.downlinks),
            },
        );
    }
}

impl Story {
    /// The story for a person.
    pub fn page(&self, paper: Paper) -> String {
        let mut page = String::new();
        page.push_str(&paper.milestones(&self.milestones));
        page.push('\n');
        if let Join { waited_ms: Some(waited), airtime_down_ms: Some(down), .. } = self.join {
            let up = self.join.airtime_up_ms;
            let line = format!(
                "  {} {} ms of Join-request + {} ms of waiting + {} ms of Join-accept = {} ms",
                paper.bold("Device time"),
                told(up),
                told(waited),
                told(down),
                told(self.join.device_time_ms)
            );
            page.push_str(&line);
            page.push('\n');
            page.push_str(&paper.window(up, waited, down, self.join.network_ms));
            page.push('\n');
        }
        if !self.waterfall.is_empty() {
            page.push_str(&format!("  {}\n", paper.bold("What the network did meanwhile")));
            page.push_str(&paper.waterfall(&self.waterfall, self.join.network_ms.unwrap_or(0.0)));
            page.push('\n');
        }
        if !self.data_milestones.is_empty() {
            page.push_str(&format!(
                "  {}\n",
                paper.bold("A confirmed uplink, and a downlink that was waiting for it")
            ));
            page.push_str(&paper.milestones(&self.data_milestones));
            page.push('\n');
        }
        if let Some(Join { network_ms: Some(warm), .. }) = self.warm {
            page.push_str(&format!(
                "  Once more, with everything warm: the Join-accept was with the radio after {} ms\n\n",
                told(warm)
            ));
        }
        for check in &self.checks {
            page.push_str(&paper.check(check.right, &check.seen));
        }
        let told = |why: &String| self.checks.iter().any(|check| check.seen.contains(why.as_str()));
        if let Some(why) = self.why.as_ref().filter(|why| !self.right && !told(why)) {
            page.push_str(&paper.why(why));
        }
        page
    }

    /// The verdict in one line.
    pub fn verdict(&self, paper: Paper) -> String {
        let told = match self.right {
            true => paper.green("as the demonstration did"),
            false => paper.red("NOT as the demonstration did"),
        };
        let theirs = Scenario::ALL.iter().find(|scenario| scenario.number() == self.scenario);
        let theirs = theirs.map_or("", |scenario| scenario.demonstration());
        let ours = match self.join.ok {
            true => format!("joined in {:.3} s", self.join.device_time_ms / 1e3),
            false => "no join".to_string(),
        };
        format!("scenario {} {:<18} {:<18} {told} ({theirs})", self.scenario, self.title, ours)
    }
}

/// A scenario's heading.
pub fn heading(scenario: Scenario, paper: Paper) -> String {
    let title = format!("Scenario {}: {}", scenario.number(), scenario.title());
    format!("{}\n{}\n", paper.bold(&title), scenario.introduction())
}
