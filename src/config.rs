//! The configuration: one TOML file, environment overrides, defaults; loaded, checked, explained.
//!
//! Each room owns its section; this file puts them together and holds what concerns more than one room.
//! A wrong value stops the start and names key, line, reason and remedy. No file at all is a working
//! standalone hotspot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use crate::lorawan::{JoinEuiRange, NetId, Region};
use crate::{js, partners, radio};

pub use standin::{backend, discovery, store};

/// Where the file is when none is named.
pub const DEFAULT_PATH: &str = "/etc/roamgate/roamgate.toml";

/// Variables that override a key begin so: `ROAMGATE__STORE__DURABILITY`.
const PREFIX: &str = "ROAMGATE__";

/// The sections in the order in which a person reads them.
const SECTIONS: [&str; 8] =
    ["network", "store", "radio", "backend", "discovery", "roaming", "join_server", "control"];

/// Everything that can be configured. The default is the standalone hotspot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who we are.
    pub network: Network,
    /// State at rest.
    pub store: store::Config,
    /// Radio heads and packet forwarders.
    pub radio: Vec<radio::Config>,
    /// The two ends of TS002. Absent: no partner can be asked or answered.
    pub backend: Option<backend::Config>,
    /// How partners are found. Absent: only by `server` of their entries.
    pub discovery: Option<discovery::Config>,
    /// Who may roam how.
    pub roaming: partners::Config,
    /// Our join server.
    pub join_server: js::config::Config,
    /// The command line's door to a running daemon.
    pub control: control::Config,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            network: Network::default(),
            store: store::Config::default(),
            radio: vec![radio::Config::default()],
            backend: None,
            discovery: None,
            roaming: partners::Config::default(),
            join_server: js::config::Config::default(),
            control: control::Config::default(),
        }
    }
}

/// Section `[network]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Networks whose devices are ours; the first is the one we allocate addresses from.
    pub net_ids: NetIds,
    /// Channel plan.
    pub region: Region,
    /// What this node is.
    pub roles: Roles,
    /// Allow NetIDs 000000 and 000001 to roam: they belong to nobody.
    pub experimental: bool,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            net_ids: NetIds(vec![NetId::from_msb([0, 0, 0])]),
            region: Region::eu868(),
            roles: Roles::default(),
            experimental: false,
        }
    }
}

/// At least one NetID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<NetId>")]
pub struct NetIds(Vec<NetId>);

impl NetIds {
    /// The network that addresses are allocated from.
    pub fn first(&self) -> NetId {
        // never empty: `try_from` is the only way to make one
        self.0.first().copied().unwrap_or(NetId::from_msb([0, 0, 0]))
    }
    /// All, the first first.
    pub fn all(&self) -> &[NetId] {
        &self.0
    }
    /// Whether a network is ours.
    pub fn contains(&self, net_id: NetId) -> bool {
        self.0.contains(&net_id)
    }
}

impl TryFrom<Vec<NetId>> for NetIds {
    type Error = &'static str;
    fn try_from(net_ids: Vec<NetId>) -> Result<NetIds, &'static str> {
        if net_ids.is_empty() { Err("net_ids must name at least one NetID") } else { Ok(NetIds(net_ids)) }
    }
}

impl From<NetId> for NetIds {
    fn from(net_id: NetId) -> NetIds {
        NetIds(vec![net_id])
    }
}

/// A role of TS002.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Forwarding network server.
    Fns,
    /// Serving network server.
    Sns,
    /// Home network server.
    Hns,
    /// Join server.
    Js,
    /// Application server.
    As,
}

impl fmt::Display for Role {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Role::Fns => "fns",
            Role::Sns => "sns",
            Role::Hns => "hns",
            Role::Js => "js",
            Role::As => "as",
        })
    }
}

/// At least one role; by default all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeSet<Role>")]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// Whether this node is that.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
    /// All, in the order of an uplink.
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }
}

impl Default for Roles {
    fn default() -> Roles {
        Roles([Role::Fns, Role::Sns, Role::Hns, Role::Js, Role::As].into())
    }
}

impl TryFrom<BTreeSet<Role>> for Roles {
    type Error = &'static str;
    fn try_from(roles: BTreeSet<Role>) -> Result<Roles, &'static str> {
        if roles.is_empty() { Err("roles must name at least one role") } else { Ok(Roles(roles)) }
    }
}

/// Section `[control]`.
pub mod control {
    use std::path::PathBuf;

    use serde::{Deserialize, Serialize};

    /// Section `[control]`.
    #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub struct Config {
        /// The Unix socket; `control.sock` in the data folder where none is named.
        pub socket: Option<PathBuf>,
    }
}

impl Config {
    /// Where the control socket is.
    pub fn control_socket(&self) -> PathBuf {
        self.control.socket.clone().unwrap_or_else(|| self.store.folder().join("control.sock"))
    }

    /// Everything with its defaults, as a file that would be read the same.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut whole = self.clone();
        whole.control.socket = Some(whole.control_socket());
        let mut all = toml::Table::try_from(whole)?;
        let mut text = String::new();
        for name in SECTIONS {
            if let Some(section) = all.remove(name) {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(&toml::to_string(&toml::Table::from_iter([(name.to_string(), section)]))?);
            }
        }
        Ok(text)
    }

    /// What cannot be, although every value by itself can.
    pub fn check(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let mut refuse = |key: String, reason: String, remedy: &str| {
            refusals.push(Refusal { key, reason, remedy: remedy.into() });
        };
        let roams = self.roaming.roams();
        let net_ids = self.network.net_ids.all();
        for (i, net_id) in net_ids.iter().enumerate() {
            let key = format!("network.net_ids[{i}]");
            if net_ids.iter().take(i).any(|earlier| earlier == net_id) {
                refuse(key.clone(), format!("NetID {net_id} is listed twice"), "list it once");
            }
            if roams && !self.network.experimental && is_nobodys(*net_id) {
                refuse(
                    key,
                    format!("NetID {net_id} belongs to nobody, and roaming is on"),
                    "use the NetID that the LoRa Alliance or your federation gave you; for an experiment set network.experimental = true",
                );
            }
        }
        for (i, partner) in self.roaming.partner.iter().enumerate() {
            let at = |field: &str| format!("roaming.partner[{i}].{field}");
            let name = partner.net_id;
            if self.roaming.partner.iter().take(i).any(|earlier| earlier.net_id == name) {
                refuse(at("net_id"), format!("NetID {name} has two entries"), "make them one");
            }
            if self.network.net_ids.contains(name) {
                refuse(
                    at("net_id"),
                    format!("NetID {name} is our own, and nobody roams at home"),
                    "remove the entry, or the NetID from network.net_ids",
                );
            }
            if !self.network.experimental && is_nobodys(name) {
                refuse(
                    at("net_id"),
                    format!("NetID {name} belongs to nobody"),
                    "use the partner's own NetID; for an experiment set network.experimental = true",
                );
            }
            if let Some(server) = &partner.server
                && !server.starts_with("https://")
            {
                refuse(
                    at("server"),
                    format!("{server:?} is no https:// address: partners are reached over mutual TLS only"),
                    "write https://HOST:PORT",
                );
            }
            if let Some(pin) = &partner.pin
                && !is_pin(pin)
            {
                refuse(
                    at("pin"),
                    "a pin is sha256/ and the base64 form of 32 bytes".into(),
                    "`roamgate pki inspect CERTIFICATE` prints it",
                );
            }
            let on = partner.passive.start || partner.passive.activation;
            if on && partner.server.is_none() && self.discovery.is_none() {
                refuse(
                    at("net_id"),
                    format!("there is no way to find NetID {name}: no server, and no [discovery]"),
                    "add server = \"https://...\" to the entry, or a section [discovery]",
                );
            }
        }
        let default = self.roaming.default.as_ref().map(|rules| &rules.passive);
        if default.is_some_and(|passive| passive.start || passive.activation) && self.discovery.is_none() {
            refuse(
                "roaming.default".into(),
                "strangers may roam, but there is no [discovery] to find their homes with".into(),
                "add a section [discovery] with the suffixes of your federation, or remove [roaming.default]",
            );
        }
        if roams && self.backend.is_none() {
            refuse(
                "roaming".into(),
                "roaming is on, but there is no [backend] with an identity to show to partners".into(),
                "add a section [backend] with identity = { chain, key } and roots, or remove [roaming]; `roamgate pki` makes certificates",
            );
        }
        if let Some(backend) = &self.backend
            && backend.roots.is_empty()
        {
            refuse(
                "backend.roots".into(),
                "no roots: no partner's certificate could ever be trusted, and the system's roots are never used".into(),
                "list the root certificate of your federation: roots = [\"/etc/roamgate/pki/root.pem\"]",
            );
        }
        let ranges = &self.join_server.join_euis;
        for (i, range) in ranges.iter().enumerate() {
            if let Some(earlier) = ranges.iter().take(i).find(|earlier| overlap(**earlier, *range)) {
                refuse(
                    format!("join_server.join_euis[{i}]"),
                    format!("{range} and {earlier} have JoinEUIs in common"),
                    "keep the wider one",
                );
            }
        }
        if roams && self.network.roles.has(Role::Js) && ranges.is_empty() {
            refuse(
                "join_server.join_euis".into(),
                "roaming is on, and no JoinEUI is listed: our join server would take every visitor for its own".into(),
                "list the JoinEUIs of your devices, or remove \"js\" from network.roles",
            );
        }
        if !roams && !self.network.roles.has(Role::Sns) {
            refuse(
                "network.roles".into(),
                "without \"sns\" and without roaming nobody would serve a single frame".into(),
                "add \"sns\", or turn roaming on",
            );
        }
        self.check_radios(&mut refuse);
        refusals
    }

    fn check_radios(&self, refuse: &mut impl FnMut(String, String, &str)) {
        let listens: Vec<_> =
            self.radio.iter().map(|radio::Config::SemtechUdp(radio)| radio.listen).collect();
        for (i, listen) in listens.iter().enumerate() {
            if listens.iter().take(i).any(|earlier| earlier == listen) {
                refuse(
                    format!("radio[{i}].listen"),
                    "two radios listen on the same address and port".into(),
                    "one entry serves any number of packet forwarders: remove the other",
                );
            }
        }
    }

    /// Files that the configuration names and that cannot be read, by key.
    pub fn check_files(&self) -> Vec<Refusal> {
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        if let Some(backend) = &self.backend {
            files.push(("backend.identity.chain".into(), backend.identity.chain.clone()));
            files.push(("backend.identity.key".into(), backend.identity.key.clone()));
            let roots = backend.roots.iter().enumerate();
            files.extend(roots.map(|(i, root)| (format!("backend.roots[{i}]"), root.clone())));
        }
        if let Some(path) = self.discovery.as_ref().and_then(|discovery| discovery.trust_anchor.clone()) {
            files.push(("discovery.trust_anchor".into(), path));
        }
        let unreadable = |(key, path): (String, PathBuf)| {
            let error = std::fs::File::open(&path).err()?;
            let remedy = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "let the user that runs roamgate read it",
                _ => "correct the path, or put the file there",
            };
            let reason = format!("cannot read {}: {error}", path.display());
            Some(Refusal { key, reason, remedy: remedy.into() })
        };
        files.into_iter().filter_map(unreadable).collect()
    }
}

/// 000000 and 000001 are for experiments and private networks (TS002 table 2).
fn is_nobodys(net_id: NetId) -> bool {
    matches!(net_id.to_msb(), [0, 0, 0 | 1])
}

fn overlap(a: JoinEuiRange, b: JoinEuiRange) -> bool {
    a.contains(b.prefix()) || b.contains(a.prefix())
}

fn is_pin(pin: &str) -> bool {
    use base64::Engine;
    let digest =
        pin.strip_prefix("sha256/").map(|text| base64::engine::general_purpose::STANDARD.decode(text));
    matches!(digest, Some(Ok(bytes)) if bytes.len() == 32)
}

/// A combination of values that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the key: `network.net_ids[1]`.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

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

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, line, column } => write!(to, "{}:{line}:{column}: ", path.display())?,
            Place::Variable(name) => write!(to, "environment variable {name}: ")?,
            Place::Default => {}
        }
        if !self.key.is_empty() {
            write!(to, "{}: ", self.key)?;
        }
        write!(to, "{}\n  remedy: {}", self.reason, self.remedy)
    }
}

/// Why there is no configuration. The operator's move; exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}\n  remedy: {}", read_remedy(source))]
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

fn read_remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "correct the path; `roamgate config init -c FILE` writes a file to start from"
        }
        std::io::ErrorKind::PermissionDenied => "run as the user that owns it (often `sudo -u roamgate`)",
        _ => "the configuration is one text file in UTF-8",
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

fn in_file(file: Option<&Path>, text: &str, path: &[String]) -> Place {
    match (file, span_of(text, path)) {
        (Some(file), Some(span)) => {
            let (line, column) = line_and_column(text, span.start);
            Place::File { path: file.into(), line, column }
        }
        _ => Place::Default,
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
        return Ok(Loaded { config, path, variables: BTreeMap::new(), text });
    }
    let mut variables = BTreeMap::new();
    for (name, value) in &overrides {
        let keys: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
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
    let mut stringly = BTreeSet::new();
    loop {
        // Written and read again, so that an error tells where it is.
        let merged = toml::to_string(&table).map_err(|error| {
            let reason = error.to_string();
            ConfigError::Wrong(vec![Problem {
                place: Place::Default,
                key: String::new(),
                reason,
                remedy: "correct the environment variables".into(),
            }])
        })?;
        let error = match toml::from_str(&merged) {
            Ok(config) => return Ok(Loaded { config, path, variables, text }),
            Err(error) => error,
        };
        // 000001 or 1700 may have been meant as text: where a value does not fit, its text is tried once.
        let culprit = error.span().map(|span| path_at(&merged, &span)).unwrap_or_default();
        let retry = variable_for(&variables, &culprit).filter(|name| stringly.insert(name.clone()));
        let Some((name, value)) = retry.and_then(|name| overrides.iter().find(|(n, _)| *n == name)) else {
            return Err(wrong(file, &text, &variables, &merged, &error));
        };
        let keys: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        let text_form = toml::Value::String(value.clone());
        if typed(value) == text_form || put(&mut table, &keys, text_form).is_err() {
            return Err(wrong(file, &text, &variables, &merged, &error));
        }
    }
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
    let path = span.as_ref().map(|span| path_at(read, span)).unwrap_or_default();
    let place = match (variable_for(variables, &path), file, &span) {
        (Some(name), ..) => Place::Variable(name),
        (None, Some(file), Some(span)) if variables.is_empty() => {
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

fn remedy_for(reason: &str, path: &[String]) -> &'static str {
    let identity = path.iter().any(|key| key == "identity");
    if identity && reason.starts_with("missing field") {
        "a certificate chain and its key come together: identity = { chain = \"...\", key = \"...\" }"
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

fn join(keys: &[String]) -> String {
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

fn segments(key: &str) -> Vec<String> {
    key.split(['.', '[']).map(|part| part.trim_end_matches(']').to_string()).collect()
}

/// The variable that set the value at `path`, something around it or something inside it.
fn variable_for(variables: &BTreeMap<String, String>, path: &[String]) -> Option<String> {
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
fn variable_inside(variables: &BTreeMap<String, String>, path: &[String]) -> Option<String> {
    let found = variables.iter().find(|(key, _)| segments(key).starts_with(path));
    found.filter(|_| !path.is_empty()).map(|(_, name)| name.clone())
}

/// Whether the file itself has something at `path`.
fn is_said(text: &str, path: &[String]) -> bool {
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
fn path_at(text: &str, span: &Range<usize>) -> Vec<String> {
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

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

/// Sections of rooms that are not built yet.
mod standin {
    pub mod store {
        use std::path::PathBuf;

        use serde::{Deserialize, Serialize};

        /// Section `[store]`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Config {
            /// `sqlite:PATH`.
            pub url: String,
        }

        impl Default for Config {
            fn default() -> Config {
                Config { url: "sqlite:roamgate-data/roamgate.db".into() }
            }
        }

        impl Config {
            /// The data folder.
            pub fn folder(&self) -> PathBuf {
                let path = PathBuf::from(self.url.trim_start_matches("sqlite:"));
                path.parent().map(PathBuf::from).unwrap_or_default()
            }
        }
    }

    pub mod backend {
        use std::net::SocketAddr;
        use std::path::PathBuf;

        use serde::{Deserialize, Serialize};

        /// Section `[backend]`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Config {
            /// Where partners reach us.
            pub listen: SocketAddr,
            /// What we show them.
            pub identity: Identity,
            /// Whom we believe.
            #[serde(default)]
            pub roots: Vec<PathBuf>,
        }

        /// A certificate and its key: both or neither.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Identity {
            /// Leaf and intermediates, PEM.
            pub chain: PathBuf,
            /// PEM.
            pub key: PathBuf,
        }
    }

    pub mod discovery {
        use std::path::PathBuf;

        use serde::{Deserialize, Serialize};

        /// Section `[discovery]`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Config {
            /// Zone of the JoinEUIs.
            pub join_eui_suffix: String,
            /// Zone of the NetIDs.
            pub net_id_suffix: String,
            /// DNSKEYs.
            pub trust_anchor: Option<PathBuf>,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        parse(Some("r.toml".into()), text.into(), variables)
    }

    fn error(text: &str, variables: &[(&str, &str)]) -> String {
        let refused = |loaded: Loaded| match loaded.problems(loaded.config.check()) {
            none if none.is_empty() => panic!("{text} was taken"),
            some => ConfigError::Wrong(some),
        };
        read(text, variables).map_or_else(|error| error, refused).to_string()
    }

    #[test]
    fn a_wrong_file_is_refused_with_line_column_key_and_reason() {
        let table = [
            ("[network\n", "r.toml:1:9: ", "unclosed table"),
            ("[network]\nregion = \"EU86\"\n", "r.toml:2:10: network.region: ", "no region of RP002"),
            (
                "[network]\n\nnet_id = [\"C00ABC\"]\n",
                "r.toml:3:1: network.net_id: ",
                "unknown field `net_id`",
            ),
            (
                "[network]\nnet_ids = [\"C00ABC\", \"C00AB\"]\n",
                "r.toml:2:11: network.net_ids: ",
                "6 hexadecimal digits",
            ),
            ("[network]\nnet_ids = []\n", "r.toml:2:11: network.net_ids: ", "at least one NetID"),
            ("[network]\nroles = [\"gns\"]\n", "r.toml:2:10: network.roles[0]: ", "unknown variant `gns`"),
            ("[netwrok]\n", "r.toml:1:2: netwrok: ", "unknown field `netwrok`"),
            (
                "\n[roaming.default]\npassive = { start = 1 }\n",
                "r.toml:3:21: roaming.default.passive.start: ",
                "invalid type",
            ),
            ("[join_server]\nauthorise = \"all\"\n", "r.toml:2:13: join_server.authorise: ", "not \"all\""),
            (
                "[join_server]\njoin_euis = [\"70B3D57ED0000001/40\"]\n",
                "r.toml:2:13: join_server.join_euis: ",
                "digits behind its first 40 bits",
            ),
            (
                "[backend]\nlisten = \"[::]:443\"\nidentity = { chain = \"c.pem\" }\n",
                "r.toml:3:12: backend.identity: ",
                "missing field `key`",
            ),
        ];
        for (text, place, reason) in table {
            let error = error(text, &[]);
            assert!(error.starts_with(place) && error.contains(reason), "{text}: {error}");
            assert!(error.contains("\n  remedy: "), "{error}");
        }
    }

    const BACKEND: &str = "[backend]\nlisten = \"[::]:443\"\nidentity = { chain = \"c.pem\", key = \"k.pem\" }\nroots = [\"r.pem\"]\n";
    const DISCOVERY: &str = "[discovery]\njoin_eui_suffix = \"j.example\"\nnet_id_suffix = \"n.example\"\n";
    const ROAMING: &str = "[roaming.default]\npassive = { start = true, activation = true }\n";

    #[test]
    fn what_cannot_be_together_is_refused_at_its_line() {
        let ours = "[network]\nnet_ids = [\"C00ABC\"]\n[join_server]\njoin_euis = [\"0000000000000001\"]\n";
        let whole = [ours, BACKEND, DISCOVERY, ROAMING].concat();
        assert_eq!(read(&whole, &[]).unwrap().config.check(), []);
        let partner = "[[roaming.partner]]\nnet_id = \"60050A\"\npassive = { start = true }\n";
        let table = [
            (whole.replace("C00ABC", "000001"), "r.toml:2:12: network.net_ids[0]: ", "belongs to nobody"),
            (
                whole.replace("\"C00ABC\"", "\"C00ABC\", \"C00ABC\""),
                "r.toml:2:22: network.net_ids[1]: ",
                "twice",
            ),
            ([ours, DISCOVERY, ROAMING].concat(), "r.toml:8:2: roaming: ", "no [backend]"),
            ([ours, BACKEND, ROAMING].concat(), "r.toml:9:1: roaming.default: ", "no [discovery]"),
            (
                [ours, BACKEND, partner].concat(),
                "r.toml:10:10: roaming.partner[0].net_id: ",
                "no way to find",
            ),
            (whole.clone() + partner + partner, "r.toml:18:10: roaming.partner[1].net_id: ", "two entries"),
            (whole.clone() + &partner.replace("60050A", "C00ABC"), "r.toml:15:10: ", "is our own"),
            (whole.clone() + partner + "server = \"http://x\"\n", "r.toml:17:10: ", "no https:// address"),
            (whole.clone() + partner + "pin = \"sha256/AAAA\"\n", "r.toml:17:7: ", "32 bytes"),
            (whole.replace("roots = [\"r.pem\"]", "roots = []"), "r.toml:8:9: backend.roots: ", "no roots"),
            (
                whole.replace("[\"0000000000000001\"]", "[]"),
                "r.toml:4:13: join_server.join_euis: ",
                "visitor",
            ),
            (
                whole.replace("\"0000000000000001\"", "\"0000000000000001\", \"0000000000000000/8\""),
                "r.toml:4:34: join_server.join_euis[1]: ",
                "in common",
            ),
            ("[network]\nroles = [\"fns\"]\n".into(), "r.toml:2:9: network.roles: ", "single frame"),
            (
                "[[radio]]\nkind = \"semtech-udp\"\nlisten = \"0.0.0.0:1700\"\n".repeat(2),
                "r.toml:6:10: radio[1].listen: ",
                "same address",
            ),
        ];
        for (text, place, reason) in table {
            let error = error(&text, &[]);
            assert!(error.contains(place) && error.contains(reason), "{text}: {error}");
        }
        let experiment = whole.replace("[\"C00ABC\"]", "[\"000001\"]\nexperimental = true");
        assert_eq!(read(&experiment, &[]).unwrap().config.check(), []);
    }

    #[test]
    fn no_file_is_a_standalone_hotspot() {
        let config = parse(None, String::new(), std::iter::empty()).unwrap().config;
        assert_eq!(config.check(), []);
        assert!(!config.roaming.roams() && config.backend.is_none());
        assert_eq!(config.network.net_ids.first().to_string(), "000000");
        assert_eq!(config.control_socket(), PathBuf::from("roamgate-data/control.sock"));
        assert_eq!(config.radio.len(), 1);
        assert_eq!(config.to_toml().unwrap(), Config::default().to_toml().unwrap());
    }

    #[test]
    fn a_variable_overrides_a_key_and_takes_its_type() {
        let text = "[network]\nnet_ids = [\"C00ABC\"]\n[[roaming.partner]]\nnet_id = \"60050A\"\n";
        let loaded = read(
            text,
            &[
                ("ROAMGATE__NETWORK__NET_IDS", "[\"000013\", \"C00ABC\"]"),
                ("ROAMGATE__NETWORK__EXPERIMENTAL", "true"),
                ("ROAMGATE__CONTROL__SOCKET", "/run/x.sock"),
                // an integer to TOML, text to us
                ("ROAMGATE__ROAMING__PARTNER__0__NET_ID", "600511"),
                ("ROAMGATE__BACKEND__LISTEN", "127.0.0.1:443"),
                ("ROAMGATE__BACKEND__IDENTITY__CHAIN", "c.pem"),
                ("ROAMGATE__BACKEND__IDENTITY__KEY", "k.pem"),
                ("ROAMGATE_OTHER", "no"),
                ("PATH", "no"),
            ],
        );
        let config = loaded.unwrap().config;
        assert_eq!(config.network.net_ids.first().to_string(), "000013");
        assert!(config.network.experimental);
        assert_eq!(config.control_socket(), PathBuf::from("/run/x.sock"));
        assert_eq!(config.roaming.partner[0].net_id.to_string(), "600511");
        assert_eq!(config.backend.unwrap().identity.key, PathBuf::from("k.pem"));
    }

    #[test]
    fn a_wrong_variable_is_named_and_the_file_keeps_its_lines() {
        let text = "[network]\nregion = \"EU868\"\n";
        let table = [
            (
                "ROAMGATE__NETWORK__REGION",
                "XX",
                "environment variable ROAMGATE__NETWORK__REGION: network.region: ",
            ),
            ("ROAMGATE__NETWRK__REGION", "XX", "environment variable ROAMGATE__NETWRK__REGION: netwrk: "),
            ("ROAMGATE__NETWORK__REGION__X", "1", "environment variable ROAMGATE__NETWORK__REGION__X: "),
            ("ROAMGATE__", "1", "environment variable ROAMGATE__: "),
        ];
        for (name, value, begin) in table {
            let error = error(text, &[(name, value)]);
            assert!(error.starts_with(begin), "{error}");
        }
        let error = error("[network]\n\nregion = \"XX\"\n", &[("ROAMGATE__NETWORK__EXPERIMENTAL", "true")]);
        assert!(error.starts_with("r.toml:3:10: network.region: "), "{error}");
    }

    #[test]
    fn a_refusal_names_the_variable_that_caused_it() {
        let text =
            ["[join_server]\njoin_euis = [\"0000000000000001\"]\n", BACKEND, DISCOVERY, ROAMING].concat();
        let error = error(&text, &[("ROAMGATE__NETWORK__NET_IDS", "[\"000001\"]")]);
        assert!(
            error.starts_with("environment variable ROAMGATE__NETWORK__NET_IDS: network.net_ids[0]: "),
            "{error}"
        );
    }

    #[test]
    fn files_that_are_not_there_are_named_with_their_line() {
        let loaded = read(BACKEND, &[]).unwrap();
        let error = loaded.checked().unwrap_err().to_string();
        assert!(error.contains("r.toml:3:22: backend.identity.chain: cannot read c.pem"), "{error}");
        assert!(error.contains("r.toml:4:10: backend.roots[0]: cannot read r.pem"), "{error}");
    }

    proptest! {
        #[test]
        fn what_show_prints_is_read_the_same(
            net_ids in prop::collection::vec(0_u32..0x100_0000, 1..4),
            partner in 0_u32..0x100_0000,
            flags in any::<[bool; 5]>(),
            join_eui: u64,
            socket in "[a-z\"\\\\ #]{1,12}",
        ) {
            let [experimental, start, activation, backend, default] = flags;
            let passive = partners::Passive { start, activation };
            let mut config = Config::default();
            config.network.net_ids = NetIds(net_ids.into_iter().filter_map(NetId::new).collect());
            config.network.experimental = experimental;
            config.roaming.default = default.then(|| partners::Rules { passive: passive.clone() });
            let entry = format!("net_id = \"{partner:06X}\"\npin = \"x\"");
            let mut entry: partners::Partner = toml::from_str(&entry).unwrap();
            entry.passive = passive;
            config.roaming.partner.push(entry);
            config.backend = backend.then(|| toml::from_str::<Config>(BACKEND).unwrap().backend.unwrap());
            let range = JoinEuiRange::from(crate::lorawan::JoinEui::from_msb(join_eui.to_be_bytes()));
            config.join_server.join_euis.push(range);
            config.control.socket = Some(socket.into());
            let text = config.to_toml().unwrap();
            let again = read(&text, &[]).unwrap().config;
            prop_assert_eq!(again.to_toml().unwrap(), text);
            prop_assert_eq!(format!("{again:?}"), format!("{config:?}"));
        }

        #[test]
        fn any_text_is_a_configuration_or_an_error(text in "[\\[\\]a-z=\"{}., \n0-9_#]{0,80}", value: String) {
            let _ = read(&text, &[]);
            let _ = read(&text, &[("ROAMGATE__NETWORK__REGION", &value)]);
        }
    }
}
