//! JSON objects as TS002 writes them: absent members, hex, megahertz, ISO 8601 (section 5).
//!
//! A tree of our own, because a duplicate member must be seen: serde_json's map keeps the last one.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::super::{Refusal, ResultCode};
use super::Dialect;

/// Any JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// A JSON object that remembers whether a member came twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Object {
    members: BTreeMap<String, Json>,
    twice: Option<String>,
}

impl Object {
    /// A member that occurs twice, in this object or below it. What a vendor extension holds is
    /// nobody's business.
    pub(super) fn duplicate(&self) -> Option<&str> {
        let below = self.members.iter().filter(|(name, _)| *name != "VSExtension");
        self.twice.as_deref().or_else(|| below.filter_map(|(_, value)| value.duplicate()).next())
    }
}

impl Json {
    fn duplicate(&self) -> Option<&str> {
        match self {
            Json::Object(object) => object.duplicate(),
            Json::List(list) => list.iter().filter_map(Json::duplicate).next(),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Json, D::Error> {
        from.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        // No object of TS002 needs more than 32 bits: what does not fit is out of every range.
        Ok(i64::try_from(value).map_or(Json::Number(value as f64), Json::Integer))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = from.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut object = Object::default();
        while let Some((name, value)) = from.next_entry::<String, Json>()? {
            if object.members.insert(name.clone(), value).is_some() {
                object.twice = Some(name);
            }
        }
        Ok(Json::Object(object))
    }
}

/// Reads the members of one object; every failure names the member.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    object: &'a Object,
    /// `ULMetaData.`, or nothing at the top.
    path: String,
}

type Found<T> = Result<Option<T>, Refusal>;

pub(super) fn malformed(description: impl Into<String>) -> Refusal {
    Refusal::new(ResultCode::MalformedRequest, description)
}

impl<'a> Fields<'a> {
    pub(super) fn top(object: &'a Object) -> Fields<'a> {
        Fields { object, path: String::new() }
    }

    /// The member under its own name or an alias (section 18), `None` where null, "" or {}.
    fn value(&self, name: &str) -> Option<&'a Json> {
        let alias = match name {
            "ULMetaData" => Some("ULMetadata"),
            "DLMetaData" => Some("DLMetadata"),
            _ => None,
        };
        [Some(name), alias]
            .into_iter()
            .flatten()
            .filter_map(|name| self.object.members.get(name))
            .find(|value| !matches!(value, Json::Null) && !is_empty(value))
    }

    pub(super) fn is_empty_text(&self, name: &str) -> bool {
        matches!(self.object.members.get(name), Some(Json::Text(text)) if text.is_empty())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(super) fn wrong(&self, name: &str, what: impl fmt::Display) -> Refusal {
        malformed(format!("{}{name} {what}", self.path))
    }

    /// What a mandatory member gave.
    pub(super) fn need<T>(&self, name: &str, found: Option<T>) -> Result<T, Refusal> {
        found.ok_or_else(|| self.wrong(name, "is missing"))
    }

    pub(super) fn text(&self, name: &str) -> Found<&'a str> {
        match self.value(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "is not a string")),
        }
    }

    pub(super) fn bytes(&self, name: &str) -> Found<Vec<u8>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let bytes = from_hex(text).ok_or_else(|| self.wrong(name, "is not hexadecimal"))?;
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    pub(super) fn array<const N: usize>(&self, name: &str) -> Found<[u8; N]> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        let array = bytes.try_into();
        array.map(Some).map_err(|_| self.wrong(name, format_args!("is not {} hexadecimal digits", 2 * N)))
    }

    pub(super) fn number(&self, name: &str) -> Found<f64> {
        match self.value(name) {
            None => Ok(None),
            Some(Json::Integer(number)) => Ok(Some(*number as f64)),
            Some(Json::Number(number)) => Ok(Some(*number)),
            Some(_) => Err(self.wrong(name, "is not a number")),
        }
    }

    /// A whole number; `5.0` is one.
    pub(super) fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Found<i64> {
        let number = match self.value(name) {
            Some(Json::Integer(number)) => Some(*number),
            _ => match self.number(name)? {
                None => return Ok(None),
                Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i64),
                Some(_) => None,
            },
        };
        let inside = number.filter(|number| range.contains(number));
        let (from, to) = range.into_inner();
        match inside {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, format_args!("is not an integer from {from} to {to}"))),
        }
    }

    pub(super) fn u32(&self, name: &str) -> Found<u32> {
        // in range by `integer`
        Ok(self.integer(name, 0..=i64::from(u32::MAX))?.and_then(|number| number.try_into().ok()))
    }

    pub(super) fn u8(&self, name: &str, range: RangeInclusive<u8>) -> Found<u8> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        Ok(self.integer(name, range)?.and_then(|number| number.try_into().ok()))
    }

    /// Megahertz on the wire, hertz here, rounded: 868.3 * 1e6 is not exact in binary.
    pub(super) fn hertz(&self, name: &str) -> Found<u32> {
        let Some(mhz) = self.number(name)? else { return Ok(None) };
        let hertz = (mhz * 1e6).round();
        if (1.0..=f64::from(u32::MAX)).contains(&hertz) {
            Ok(Some(hertz as u32))
        } else {
            Err(self.wrong(name, "is not a frequency in MHz"))
        }
    }

    pub(super) fn flag(&self, name: &str) -> Found<bool> {
        match self.value(name) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(name, "is not a boolean")),
        }
    }

    pub(super) fn time(&self, name: &str) -> Found<Timestamp> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.wrong(name, "is not an ISO 8601 time with its offset"))
    }

    pub(super) fn object(&self, name: &str) -> Found<Fields<'a>> {
        match self.value(name) {
            None => Ok(None),
            Some(Json::Object(object)) => Ok(Some(Fields { object, path: format!("{}{name}.", self.path) })),
            Some(_) => Err(self.wrong(name, "is not an object")),
        }
    }

    /// The objects of an array; none where it is absent.
    pub(super) fn objects(&self, name: &str) -> Result<Vec<Fields<'a>>, Refusal> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Json::List(list)) => list
                .iter()
                .filter(|entry| !matches!(entry, Json::Null))
                .map(|entry| match entry {
                    Json::Object(object) => Ok(Fields { object, path: format!("{}{name}[].", self.path) }),
                    _ => Err(self.wrong(name, "holds something that is not an object")),
                })
                .collect(),
            Some(_) => Err(self.wrong(name, "is not an array")),
        }
    }
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Text(text) => text.is_empty(),
        Json::Object(object) => object.members.is_empty(),
        _ => false,
    }
}

/// Hex in any case, with or without `0x`.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    hex::decode(digits).ok()
}

/// Writes the members of one object.
#[derive(Debug, Default)]
pub(super) struct Members(Map<String, Value>);

impl Members {
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
    pub(super) fn some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
    pub(super) fn shown(&mut self, name: &str, value: Option<impl fmt::Display>) {
        self.some(name, value.map(|value| value.to_string()));
    }
    pub(super) fn hex(&mut self, name: &str, bytes: &[u8]) {
        self.put(name, hex::encode_upper(bytes));
    }
    pub(super) fn some_hex(&mut self, name: &str, bytes: Option<&[u8]>) {
        if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
            self.hex(name, bytes);
        }
    }
    pub(super) fn hertz(&mut self, name: &str, hertz: Option<u32>) {
        self.some(name, hertz.map(|hertz| f64::from(hertz) / 1e6));
    }
    pub(super) fn time(&mut self, name: &str, time: Timestamp) {
        self.put(name, time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    pub(super) fn append(&mut self, mut other: Members) {
        self.0.append(&mut other.0);
    }
    pub(super) fn object(self) -> Value {
        Value::Object(self.0)
    }
    /// As a peer wants to read it.
    pub(super) fn spoken(mut self, dialect: Dialect) -> Vec<u8> {
        dialect.speak(&mut self.0);
        self.bytes()
    }
    pub(super) fn bytes(self) -> Vec<u8> {
        self.object().to_string().into_bytes()
    }
}
