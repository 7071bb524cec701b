//! Where a value was said: paths of keys, spans of TOML, lines and columns, variables.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::load::Place;

/// The place of the value at `path` in a file with this text.
pub(super) fn in_file(file: Option<&Path>, text: &str, path: &[String]) -> Place {
    match (file, span_of(text, path)) {
        (Some(file), Some(span)) => {
            let (line, column) = line_and_column(text, span.start);
            Place::File { path: file.into(), line, column }
        }
        _ => Place::Default,
    }
}

pub(super) fn join(keys: &[String]) -> String {
    let mut text = String::new();
    for key in keys {
        match key.bytes().all(|byte| byte.is_ascii_digit()) && !key.is_empty() {
            true => text.push_str(&format!("[{key}]")),
            false if text.is_empty() => text.push_str(key),
            false => text.push_str(&format!(".{key}")),
        }
    }
    text
}

pub(super) fn segments(key: &str) -> Vec<String> {
    key.split(['.', '[']).map(|part| part.trim_end_matches(']').to_string()).collect()
}

/// The variable that set the value at `path`, something around it or something inside it.
pub(super) fn variable_for(variables: &BTreeMap<String, String>, path: &[String]) -> Option<String> {
    if path.is_empty() {
        return None;
    }
    let found = variables.iter().find(|(key, _)| {
        let key = segments(key);
        key.iter().zip(path).all(|(a, b)| a == b) && key.len() <= path.len()
    });
    found.map(|(_, name)| name.clone())
}

/// A variable that set something inside `path`.
pub(super) fn variable_inside(variables: &BTreeMap<String, String>, path: &[String]) -> Option<String> {
    let found = variables.iter().find(|(key, _)| segments(key).starts_with(path));
    found.filter(|_| !path.is_empty()).map(|(_, name)| name.clone())
}

/// Whether the file itself has something at `path`.
pub(super) fn is_said(text: &str, path: &[String]) -> bool {
    let table: Result<toml::Table, _> = toml::from_str(text);
    let Ok(table) = table else { return false };
    let mut here = Some(toml::Value::Table(table));
    for key in path {
        here = match (here, key.parse::<usize>()) {
            (Some(toml::Value::Array(items)), Ok(index)) => items.get(index).cloned(),
            (Some(toml::Value::Table(table)), _) => table.get(key).cloned(),
            _ => None,
        };
    }
    here.is_some()
}

/// The key whose value (or name) is at `span`.
pub(super) fn path_at(text: &str, span: &Range<usize>) -> Vec<String> {
    fn in_table(table: &DeTable<'_>, at: usize, path: &mut Vec<String>) -> bool {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            if key.span().contains(&at) || in_value(value.get_ref(), value.span(), at, path) {
                return true;
            }
            path.pop();
        }
        false
    }
    fn in_value(value: &DeValue<'_>, span: Range<usize>, at: usize, path: &mut Vec<String>) -> bool {
        let deeper = match value {
            DeValue::Table(table) => in_table(table, at, path),
            DeValue::Array(items) => items.iter().enumerate().any(|(i, item)| {
                path.push(i.to_string());
                let found = in_value(item.get_ref(), item.span(), at, path);
                if !found {
                    path.pop();
                }
                found
            }),
            _ => false,
        };
        deeper || span.contains(&at)
    }
    let mut path = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        in_table(table.get_ref(), span.start, &mut path);
    }
    path
}

/// Where the value at `path` stands, or the nearest thing around it that does.
fn span_of(text: &str, path: &[String]) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let (first, rest) = path.split_first()?;
    let (key, mut value) = table.get_ref().iter().find(|(key, _)| key.get_ref() == first)?;
    // A table's own place is its header; a key's place is more use than that of a table inside.
    let mut span = if rest.is_empty() { key.span() } else { value.span() };
    for name in rest {
        let next = match value.get_ref() {
            DeValue::Table(table) => {
                table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
            }
            DeValue::Array(items) => name.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        value = next;
        span = value.span();
    }
    Some(span)
}

pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}
