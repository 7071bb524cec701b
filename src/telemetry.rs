//! Logs for people, and the tap: what happens at the doors and on the air, as it happens.
//!
//! Owns the process' tracing subscriber. The [`Tap`] is what `tail` and the demo's timeline read: spans
//! and events of the three targets in [`TARGETS`] become [`Record`]s on a bounded channel. A slow
//! reader loses the oldest and is told how many. Names `clock`, its neighbour, because records and log
//! lines carry time and only `clock` knows it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::{Clock, Instant};
use crate::systemd;

/// What the tap sees: backend messages, frames, facts of DNS and TLS. Prefixes of tracing targets.
pub const TARGETS: [&str; 3] = ["roamgate::door", "roamgate::frame", "roamgate::net"];

/// The span that tells nodes of one process apart, by its field `net_id`.
pub const NODE: &str = "node";

/// Records that a reader may fall behind before it loses some.
const DEPTH: usize = 4096;

/// Something that happened at a door, on the air or on the network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// NetID of the node, from the nearest enclosing span `node`; empty outside of one.
    pub node: String,
    /// When, monotonic: for offsets within this process. Not in the JSON form.
    #[serde(skip)]
    pub at: Instant,
    /// When, wall time.
    #[serde(rename = "time", serialize_with = "text")]
    pub wall: Timestamp,
    /// Beginning or end of a span, or an event.
    pub kind: Kind,
    /// The tracing target.
    pub target: String,
    /// The span's name; of an event its milestone, else its message.
    pub name: String,
    /// Field `milestone`, in the words of a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milestone: Option<String>,
    /// All other fields as text. At [`Kind::Close`] also those recorded later, such as ResultCode.
    pub fields: BTreeMap<String, String>,
    /// Number of the span, never reused in this process. An event has a number of its own.
    pub span: u64,
    /// Number of the nearest enclosing span that the tap sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// How long the span was open, at [`Kind::Close`] only. JSON: microseconds.
    #[serde(rename = "took_us", skip_serializing_if = "Option::is_none", serialize_with = "micros")]
    pub took: Option<Duration>,
}

/// What a [`Record`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A span began.
    Open,
    /// A span ended: all its fields are known.
    Close,
    /// Something happened at one moment.
    Event,
}

impl Record {
    /// The record as one line of JSON, without a line break.
    pub fn to_json(&self) -> String {
        // texts and numbers only: it cannot fail
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn text<S: Serializer>(wall: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(wall)
}

fn micros<S: Serializer>(took: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    took.map(|took| took.as_micros().min(u64::MAX.into()) as u64).serialize(to)
}

/// Where records come out. Clones are the same tap.
#[derive(Debug, Clone)]
pub struct Tap {
    sender: broadcast::Sender<Arc<Record>>,
    clock: Clock,
    next: Arc<AtomicU64>,
}

impl Tap {
    /// A tap that nobody reads yet: until somebody does, it costs nearly nothing.
    pub fn new(clock: Clock) -> Tap {
        let (sender, _) = broadcast::channel(DEPTH);
        Tap { sender, clock, next: Arc::new(AtomicU64::new(1)) }
    }

    /// Everything from now on. `RecvError::Lagged` tells how many records a slow reader lost.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.sender.subscribe()
    }

    /// The layer that fills the tap, for a subscriber of one's own (tests). `init` does this for programs.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        TapLayer(self.clone()).with_filter(filter_fn(|meta| is_tapped(meta) || is_node(meta)))
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The operator's move.
    #[error("the log filter {filter:?} is wrong: {why}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Ours: a program does this once.
    #[error("logging was started twice")]
    Twice,
}

/// Start logging to standard error and, where given, the tap. `filter` is in the form of `RUST_LOG`
/// (`info`, `roamgate=debug,warn`, `off`); it does not narrow the tap.
pub fn init(filter: &str, clock: &Clock, tap: Option<&Tap>) -> Result<(), InitError> {
    let wrong = |e: tracing_subscriber::filter::ParseError| InitError::Filter {
        filter: filter.into(),
        why: e.to_string(),
    };
    let filter = EnvFilter::builder().parse(filter).map_err(wrong)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    // The journal stamps every line itself.
    let lines = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => lines.without_time().boxed(),
        None => lines.with_timer(Stamp(clock.clone())).boxed(),
    };
    let lines = if systemd::is_journal() { JournalLayer.boxed() } else { lines };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(tap.map(Tap::layer))
        .try_init()
        .map_err(|_| InitError::Twice)
}

/// Lines for the journal, with their fields beside them: `journalctl ROAMGATE_DEVEUI=…` finds those of one device.
struct JournalLayer;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (node, _) = TapLayer::place(context.event_span(event));
        let lines = journal_lines(event.metadata(), &node, fields.0);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        if !systemd::journal(&lines) {
            // nothing is lost because the journal is away
            eprintln!("{}", lines.first().and_then(|line| line.strip_prefix("MESSAGE=")).unwrap_or_default());
        }
    }
}

/// An event as the journal takes it. The first is what people read.
fn journal_lines(meta: &Metadata<'_>, node: &str, mut fields: BTreeMap<String, String>) -> Vec<String> {
    let message = fields.remove("message").unwrap_or_default();
    let shown: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let priority = match *meta.level() {
        tracing::Level::ERROR => 3,
        tracing::Level::WARN => 4,
        tracing::Level::INFO => 6,
        _ => 7,
    };
    let mut lines = vec![
        format!("MESSAGE={message}{shown}"),
        format!("PRIORITY={priority}"),
        "SYSLOG_IDENTIFIER=roamgate".into(),
        format!("TARGET={}", meta.target()),
    ];
    if !node.is_empty() {
        lines.push(format!("NET_ID={node}"));
    }
    lines.extend(fields.iter().map(|(name, value)| {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("ROAMGATE_{}={value}", name.chars().map(plain).collect::<String>())
    }));
    lines
}

struct Stamp(Clock);

impl FormatTime for Stamp {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        write!(to, "{:.3}", self.0.wall())
    }
}

fn is_tapped(meta: &Metadata<'_>) -> bool {
    TARGETS.iter().any(|target| meta.target().starts_with(target))
}

fn is_node(meta: &Metadata<'_>) -> bool {
    meta.is_span() && meta.name() == NODE
}

struct TapLayer(Tap);

/// What the layer remembers of a span that it reports.
struct Open {
    number: u64,
    parent: Option<u64>,
    at: Instant,
    fields: Fields,
}

/// What the layer remembers of a span `node`.
struct Node(String);

#[derive(Debug, Clone, Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

impl TapLayer {
    /// Node and nearest reported span around (and, for a span, including) `from`.
    fn place<'a, S>(from: Option<SpanRef<'a, S>>) -> (String, Option<u64>)
    where
        S: Subscriber + for<'b> LookupSpan<'b>,
    {
        let (mut node, mut parent) = (None, None);
        for span in from.iter().flat_map(SpanRef::scope) {
            let extensions = span.extensions();
            if node.is_none() {
                node = extensions.get::<Node>().map(|node| node.0.clone());
            }
            if parent.is_none() {
                parent = extensions.get::<Open>().map(|open| open.number);
            }
        }
        (node.unwrap_or_default(), parent)
    }

    /// Give a record away; nobody listening is no error.
    fn say(&self, record: Record) {
        let _ = self.0.sender.send(Arc::new(record));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TapLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if is_node(attributes.metadata()) {
            span.extensions_mut().insert(Node(fields.0.remove("net_id").unwrap_or_default()));
            return;
        }
        let (node, parent) = TapLayer::place(span.parent());
        let (number, at) = (self.0.number(), self.0.clock.now());
        if self.0.sender.receiver_count() > 0 {
            let mut shown = fields.0.clone();
            let milestone = shown.remove("milestone");
            self.say(Record {
                node,
                at,
                wall: self.0.clock.wall(),
                kind: Kind::Open,
                target: span.metadata().target().into(),
                name: span.name().into(),
                milestone,
                fields: shown,
                span: number,
                parent,
                took: None,
            });
        }
        span.extensions_mut().insert(Open { number, parent, at, fields });
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(open) = extensions.get_mut::<Open>() {
            values.record(&mut open.fields);
        } else if let Some(node) = extensions.get_mut::<Node>() {
            let mut fields = Fields::default();
            values.record(&mut fields);
            if let Some(net_id) = fields.0.remove("net_id") {
                node.0 = net_id;
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if self.0.sender.receiver_count() == 0 {
            return;
        }
        let (node, parent) = TapLayer::place(context.event_span(event));
        let mut fields = Fields::default();
        event.record(&mut fields);
        let milestone = fields.0.remove("milestone");
        let name = milestone.clone().or_else(|| fields.0.get("message").cloned());
        self.say(Record {
            node,
            at: self.0.clock.now(),
            wall: self.0.clock.wall(),
            kind: Kind::Event,
            target: event.metadata().target().into(),
            name: name.unwrap_or_default(),
            milestone,
            fields: fields.0,
            span: self.0.number(),
            parent,
            took: None,
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        // The name of the node is above this span: nothing of ours is borrowed while we look.
        let (node, _) = TapLayer::place(span.parent());
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        if self.0.sender.receiver_count() == 0 {
            return;
        }
        let mut fields = open.fields.0;
        let (milestone, now) = (fields.remove("milestone"), self.0.clock.now());
        self.say(Record {
            node,
            at: now,
            wall: self.0.clock.wall(),
            kind: Kind::Close,
            target: span.metadata().target().into(),
            name: span.name().into(),
            milestone,
            fields,
            span: open.number,
            parent: open.parent,
            took: Some(now.saturating_duration_since(open.at)),
        });
    }
}

#[cfg(test)]
mod tests {
    use tracing::field::Empty;
    use tracing::subscriber::with_default;

    use super::*;

    /// What the tap says while `act` runs, with a log filter that lets nothing pass beside it.
    fn tapped(act: impl FnOnce()) -> Vec<Arc<Record>> {
        let tap = Tap::new(Clock::system());
        let mut heard = tap.subscribe();
        let lines = tracing_subscriber::fmt::layer().with_filter(EnvFilter::new("off"));
        with_default(tracing_subscriber::registry().with(lines).with(tap.layer()), act);
        std::iter::from_fn(|| heard.try_recv().ok()).collect()
    }

    #[test]
    fn a_door_is_told_when_it_opens_and_when_it_closes_with_what_was_recorded_between() {
        let heard = tapped(|| {
            let node = tracing::info_span!("node", net_id = "000001");
            let inside = node.enter();
            let door = tracing::info_span!(target: "roamgate::door", "door", MessageType = "JoinReq", ResultCode = Empty);
            door.in_scope(
                || tracing::info!(target: "roamgate::net", milestone = "DNS answer", name = %"a.b", ttl = 60_u32),
            );
            door.record("ResultCode", "Success");
            drop((door, inside));
        });
        let [open, event, close] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!((open.kind, event.kind, close.kind), (Kind::Open, Kind::Event, Kind::Close));
        assert!(heard.iter().all(|record| record.node == "000001"));
        assert_eq!(open.fields.get("ResultCode"), None);
        assert_eq!(close.fields["ResultCode"], "Success");
        assert_eq!((open.span, event.parent, close.span), (close.span, Some(open.span), open.span));
        assert_eq!(event.milestone.as_deref(), Some("DNS answer"));
        assert_eq!((&*event.fields["name"], &*event.fields["ttl"]), ("a.b", "60"));
        assert!(close.took.is_some() && open.took.is_none());
    }

    #[test]
    fn other_targets_are_not_told_and_the_nearest_node_counts() {
        let heard = tapped(|| {
            let _outer = tracing::info_span!("node", net_id = "000000").entered();
            let _inner = tracing::info_span!("node", net_id = Empty).entered();
            tracing::Span::current().record("net_id", "000001");
            let _other = tracing::info_span!(target: "hyper", "connection").entered();
            tracing::info!(target: "hyper", "noise");
            tracing::debug!(target: "roamgate::frame", milestone = "uplink heard", DevEUI = "0102");
        });
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!((heard[0].node.as_str(), heard[0].parent), ("000001", None));
        assert_eq!(heard[0].name, "uplink heard");
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told() {
        let tap = Tap::new(Clock::system());
        let mut heard = tap.subscribe();
        with_default(tracing_subscriber::registry().with(tap.layer()), || {
            for _ in 0..DEPTH + 10 {
                tracing::info!(target: "roamgate::frame", milestone = "uplink heard");
            }
        });
        assert_eq!(heard.try_recv().err(), Some(broadcast::error::TryRecvError::Lagged(10)));
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn the_json_form_is_one_line_with_time_and_microseconds() {
        let heard = tapped(|| {
            tracing::info_span!(target: "roamgate::door", "door", MessageType = "PRStartReq").in_scope(|| ());
        });
        let json: serde_json::Value = serde_json::from_str(&heard[1].to_json()).unwrap();
        assert_eq!((&json["kind"], &json["fields"]["MessageType"]), (&"close".into(), &"PRStartReq".into()));
        assert!(json["took_us"].is_u64() && json["time"].is_string());
        assert!(!heard[1].to_json().contains('\n'));
    }
}
