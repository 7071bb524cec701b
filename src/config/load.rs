//! Reading: the file, then the environment; and what to say when something in them is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::check::Refusal;
use super::place::{
    in_file, is_said, join, line_and_column, path_at, segments, variable_for, variable_inside,
};
use super::{Config, DEFAULT_PATH};

/// Variables that override a key begin so: `ROAMGATE__STORE__DURABILITY`.
const PREFIX: &str = "ROAMGATE__";

/// Something wrong, and where it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Path of the key, empty where the text is no TOML.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The file; line and column count from 1.
    File {
        /// Its path.
        path: PathBuf,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// Nowhere: the default, or something missing.
    Default,
}

impl Problem {
    /// Where and what, on one line.
    pub fn what(&self) -> String {
        let place = match &self.place {
            Place::File { path, line, column } => format!("{}:{line}:{column}: ", path.display()),
            Place::Variable(name) => format!("environment variable {name}: "),
            Place::Default => String::new(),
        };
        match self.key.as_str() {
            "" => format!("{place}{}", self.reason),
            key => format!("{place}{key}: {}", self.reason),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}\n  remedy: {}", self.what(), self.remedy)
    }
}

/// Why there is no configuration. The operator's move; exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was read and is wrong.
    #[error("{}", problems(.0))]
    Wrong(Vec<Problem>),
}

impl ConfigError {
    /// What to do; of a wrong file each problem says its own.
    pub fn remedy(&self) -> &'static str {
        use std::io::ErrorKind::{NotFound, PermissionDenied};
        match self {
            ConfigError::Read { source, .. } => match source.kind() {
                NotFound => "correct the path; `roamgate config init -c FILE` writes a file to start from",
                PermissionDenied => "run as the user that may read it (often `sudo -u roamgate`)",
                _ => "the configuration is one text file in UTF-8",
            },
            ConfigError::Wrong(_) => "correct what is named",
        }
    }
}

fn problems(all: &[Problem]) -> String {
    all.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read.
    pub path: Option<PathBuf>,
    /// Variables that override it, by key.
    pub variables: BTreeMap<String, String>,
    text: String,
}

impl Loaded {
    /// Refusals with the place where the value was said.
    pub fn problems(&self, refusals: Vec<Refusal>) -> Vec<Problem> {
        let place = |refusal: Refusal| {
            let path = segments(&refusal.key);
            let place = self.place(&path);
            Problem { place, key: refusal.key, reason: refusal.reason, remedy: refusal.remedy }
        };
        refusals.into_iter().map(place).collect()
    }

    /// Itself, if nothing is wrong that [`Config::check`] or [`Config::check_files`] finds.
    pub fn checked(self) -> Result<Loaded, ConfigError> {
        let mut refusals = self.config.check();
        refusals.extend(self.config.check_files());
        if refusals.is_empty() { Ok(self) } else { Err(ConfigError::Wrong(self.problems(refusals))) }
    }

    fn place(&self, path: &[String]) -> Place {
        if let Some(name) = variable_for(&self.variables, path) {
            return Place::Variable(name);
        }
        in_file(self.path.as_deref(), &self.text, path)
    }
}

/// Read and understand the configuration: the named file, else the one at [`DEFAULT_PATH`] where there
/// is one, else the standalone hotspot; then the overrides in `environment`. Does not check
/// combinations: that is [`Loaded::checked`].
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let path = match file {
        Some(path) => Some(path.to_path_buf()),
        None => Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists()),
    };
    let text = match &path {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?,
        None => String::new(),
    };
    parse(path, text, environment)
}

/// [`load`] without touching a disk: `path` is for messages.
pub fn parse(
    path: Option<PathBuf>,
    text: String,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let file = path.as_deref();
    let mut table: toml::Table =
        toml::from_str(&text).map_err(|error| wrong(file, &text, &BTreeMap::new(), &text, &error))?;
    let overrides: Vec<(String, String)> = environment
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect();
    if overrides.is_empty() {
        let config =
            toml::from_str(&text).map_err(|error| wrong(file, &text, &BTreeMap::new(), &text, &error))?;
        let config = Config { file: path.clone(), ..config };
        return Ok(Loaded { config, path, variables: BTreeMap::new(), text });
    }
    let mut variables = BTreeMap::new();
    for (name, value) in &overrides {
        let keys = keys_of(name);
        put(&mut table, &keys, typed(value)).map_err(|reason| {
            ConfigError::Wrong(vec![Problem {
                place: Place::Variable(name.clone()),
                key: join(&keys),
                reason,
                remedy: "ROAMGATE__SECTION__KEY sets one key of one section".into(),
            }])
        })?;
        variables.insert(join(&keys), name.clone());
    }
    // The first error of a variable: what is said if its text does not fit either.
    let mut tried: BTreeMap<&String, ConfigError> = BTreeMap::new();
    loop {
        // Written and read again, so that an error tells where it is.
        let merged = toml::to_string(&table).map_err(|error| {
            ConfigError::Wrong(vec![Problem {
                place: Place::Default,
                key: String::new(),
                reason: error.to_string(),
                remedy: "correct the environment variables".into(),
            }])
        })?;
        let error = match toml::from_str(&merged) {
            Ok(config) => {
                let config = Config { file: path.clone(), ..config };
                return Ok(Loaded { config, path, variables, text });
            }
            Err(error) => error,
        };
        // 000001 or 1700 may have been meant as text: where a number does not fit, its text is tried.
        let culprit = error.span().map(|span| path_at(&merged, &span)).unwrap_or_default();
        let error = wrong(file, &text, &variables, &merged, &error);
        let name = variable_for(&variables, &culprit);
        let Some((name, value)) = name.and_then(|name| overrides.iter().find(|(n, _)| *n == name)) else {
            return Err(error);
        };
        if let Some(first) = tried.remove(name) {
            return Err(first);
        }
        let is_text =
            matches!(typed(value), toml::Value::String(_) | toml::Value::Array(_) | toml::Value::Table(_));
        if is_text || put(&mut table, &keys_of(name), toml::Value::String(value.clone())).is_err() {
            return Err(error);
        }
        tried.insert(name, error);
    }
}

/// `ROAMGATE__STORE__DURABILITY`: store, durability.
fn keys_of(name: &str) -> Vec<String> {
    let keys = name.strip_prefix(PREFIX).unwrap_or_default();
    keys.split("__").map(str::to_ascii_lowercase).collect()
}

/// The value of a variable: TOML where it is TOML, else text.
fn typed(value: &str) -> toml::Value {
    let line = format!("value = {value}");
    let parsed = toml::from_str::<toml::Table>(&line).ok().filter(|table| table.len() == 1);
    let value_of = |mut table: toml::Table| table.remove("value");
    parsed.and_then(value_of).unwrap_or_else(|| toml::Value::String(value.into()))
}

fn put(table: &mut toml::Table, keys: &[String], value: toml::Value) -> Result<(), String> {
    let [first, rest @ ..] = keys else { return Err("names no key".into()) };
    if first.is_empty() {
        return Err("names no key".into());
    }
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return Ok(());
    }
    let inner = table.entry(first.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    match inner {
        toml::Value::Table(inner) => put(inner, rest, value),
        toml::Value::Array(items) => {
            let index = rest.first().and_then(|index| index.parse::<usize>().ok());
            match (index.and_then(|index| items.get_mut(index)), rest.get(1..)) {
                (Some(toml::Value::Table(inner)), Some(rest)) => put(inner, rest, value),
                (Some(item), Some([])) => {
                    *item = value;
                    Ok(())
                }
                _ => Err(format!("{first} is a list of {}: name one by its number, from 0", items.len())),
            }
        }
        _ => Err(format!("{first} is a value and has no keys inside")),
    }
}

/// What toml says, as a problem with a place and a remedy. `read` is the text that was read: the file
/// itself or the file with its overrides.
fn wrong(
    file: Option<&Path>,
    text: &str,
    variables: &BTreeMap<String, String>,
    read: &str,
    error: &toml::de::Error,
) -> ConfigError {
    let span = error.span();
    let around = span.as_ref().map(|span| path_at(read, span)).unwrap_or_default();
    let inside = culprit(read, &around, error.message());
    let exact = inside.is_none();
    let path = inside.unwrap_or(around);
    let place = match (variable_for(variables, &path), file, &span) {
        (Some(name), ..) => Place::Variable(name),
        (None, Some(file), Some(span)) if variables.is_empty() && exact => {
            let (line, column) = line_and_column(text, span.start);
            Place::File { path: file.into(), line, column }
        }
        _ if is_said(text, &path) => in_file(file, text, &path),
        _ => variable_inside(variables, &path).map_or_else(|| in_file(file, text, &path), Place::Variable),
    };
    let reason = error.message().trim().replace('\n', "; ");
    ConfigError::Wrong(vec![Problem {
        place,
        key: join(&path),
        remedy: remedy_for(&reason, &path).into(),
        reason,
    }])
}

/// The key or item at or below `around` without which the error is gone, as near to it as can be. An entry of
/// a list that is told apart by one of its keys is read twice, and the second reading knows no places.
fn culprit(read: &str, around: &[String], message: &str) -> Option<Vec<String>> {
    let whole = toml::Value::Table(toml::from_str(read).ok()?);
    let is_index = |key: &String| key.parse::<usize>().is_ok();
    let list = around.split_last().filter(|(last, _)| is_index(last)).map_or(around, |(_, list)| list);
    let mut path = list.to_vec();
    loop {
        let children: Vec<String> = match at(&mut whole.clone(), &path) {
            Some(toml::Value::Table(table)) => table.keys().cloned().collect(),
            Some(toml::Value::Array(items)) => (0..items.len()).map(|index| index.to_string()).collect(),
            _ => break,
        };
        let guilty = children.into_iter().find(|key| {
            let mut without = whole.clone();
            match (at(&mut without, &path), key.parse::<usize>()) {
                (Some(toml::Value::Array(items)), Ok(index)) => drop(items.remove(index)),
                (Some(toml::Value::Table(table)), _) => drop(table.remove(key)),
                _ => return false,
            }
            let Ok(text) = toml::to_string(&without) else { return false };
            // taking away what must be there is another error, and not the way out of this one
            let missing = format!("missing field `{key}`");
            toml::from_str::<Config>(&text)
                .err()
                .is_none_or(|other| other.message() != message && !other.message().starts_with(&missing))
        });
        let Some(key) = guilty else { break };
        path.push(key);
    }
    (path.len() > list.len()).then_some(path)
}

fn at<'a>(value: &'a mut toml::Value, path: &[String]) -> Option<&'a mut toml::Value> {
    path.iter().try_fold(value, |value, key| match value {
        toml::Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        toml::Value::Table(table) => table.get_mut(key),
        _ => None,
    })
}

fn remedy_for(reason: &str, path: &[String]) -> &'static str {
    let identity = path.iter().any(|key| key == "identity");
    if identity && reason.starts_with("missing field") {
        "a certificate chain and its key come together: identity = { chain = \"...\", key = \"...\" }, or { folder = \"...\" }"
    } else if reason.starts_with("unknown field") || reason.starts_with("unknown variant") {
        "check the spelling; `roamgate config show` prints every key with its value"
    } else if reason.starts_with("missing field") {
        "add it; `roamgate config init` writes a file that explains every key"
    } else if reason.starts_with("invalid type") {
        "`roamgate config show` prints how such a value is written"
    } else if path.is_empty() {
        "correct the line: the file is TOML (https://toml.io)"
    } else {
        "correct the value"
    }
}
