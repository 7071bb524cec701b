//! The outbox: events that a sink has not taken yet, in order, bounded, at rest.
//!
//! Owns what a waiting event is, and the storage trait that keeps it; `store` fulfils the trait. Knows no MQTT and
//! no HTTP.

use std::fmt;
use std::str::FromStr;

use crate::backend::door::{Boxed, StoreError};
use crate::hns::{Device, Notice};
use crate::lorawan::DevEui;

/// Where events go. Each sink has a line of its own: one that is away holds up no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sink {
    /// `[application.mqtt]`
    Mqtt,
    /// `[application.http]`
    Http,
}

impl fmt::Display for Sink {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Sink::Mqtt => "mqtt",
            Sink::Http => "http",
        })
    }
}

/// What an event tells, by the last level of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Up,
    Join,
    Ack,
    TxAck,
    Log,
}

const KINDS: [(Kind, &str); 5] =
    [(Kind::Up, "up"), (Kind::Join, "join"), (Kind::Ack, "ack"), (Kind::TxAck, "txack"), (Kind::Log, "log")];

impl fmt::Display for Kind {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(KINDS.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name))
    }
}

/// Text that is no kind of event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of event")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Kind, UnknownKind> {
        let found = KINDS.iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| UnknownKind(text.chars().take(20).collect()))
    }
}

/// An event, as every sink sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Of which device.
    pub dev_eui: DevEui,
    /// What it tells.
    pub kind: Kind,
    /// JSON.
    pub body: String,
}

/// An event that waits for a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the sink's line: grows.
    pub id: u64,
    /// The event.
    pub event: Event,
}

/// An event with its way, ready for the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Appended to the line of each.
    pub sinks: Vec<Sink>,
    /// The event.
    pub event: Event,
    /// No line grows beyond.
    pub most: u32,
}

/// Writes letters for a storage that posts them in the commit that makes them true.
pub trait Postman: Send + Sync {
    /// What the application is told. Pure but for the time of day: it may be asked twice.
    fn letter(&self, device: &Device, notice: &Notice) -> Letter;
    /// Letters are in the outbox, and so many older ones had to go.
    fn posted(&self, dropped: u64);
}

/// Waiting events at rest.
pub trait Outbox: Send + Sync {
    /// Append an event to the line of each sink, and return when it is as safe there as `durability` says. No line
    /// grows beyond `most`: its oldest go first. Answers how many had to go.
    fn put(&self, sinks: Vec<Sink>, event: Event, most: u32) -> Boxed<'_, Result<u64, StoreError>>;
    /// The first `count` of a sink's line, oldest first.
    fn first(&self, sink: Sink, count: u32) -> Boxed<'_, Result<Vec<Waiting>, StoreError>>;
    /// The sink has taken all up to this one. A crash may bring the last ones back.
    fn taken(&self, sink: Sink, up_to: u64) -> Boxed<'_, Result<(), StoreError>>;
}
