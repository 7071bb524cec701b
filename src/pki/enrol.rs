//! A node's account at its federation's registry: certificates that renew themselves, and addresses that stay current.
//!
//! Asks over HTTPS, with a key of the member's; believes the roots that it is given and no others.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::lorawan::NetId;
use crate::tls::{self, Roots, TlsError};

/// The registry answers within so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// TTL of addresses that may change, seconds.
const ADDRESS_TTL: u32 = 60;

/// Section `[enrol]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where its API is: `https://HOST[:PORT]`; plain HTTP on this machine only.
    pub registry: String,
    /// File with the key, as the registry has shown it.
    pub key_file: PathBuf,
    /// Who vouches for its certificate; `[backend] roots` where none are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<PathBuf>,
    /// Renew the certificate at two thirds of its life. Wants `[backend] identity = { folder = ... }`.
    #[serde(default = "yes")]
    pub renew: bool,
    /// Addresses at which partners reach us: kept published at the names of our NetIDs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
}

/// An address at which partners reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// The one from which the registry hears us: it may change.
    Seen,
    /// This one.
    Is(IpAddr),
}

impl TryFrom<String> for Address {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Address, &'static str> {
        match text.parse() {
            Ok(address) => Ok(Address::Is(address)),
            Err(_) if text == "seen" => Ok(Address::Seen),
            Err(_) => {
                Err("addresses: IP addresses, or \"seen\" for the one from which the registry hears us")
            }
        }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        match address {
            Address::Seen => "seen".into(),
            Address::Is(address) => address.to_string(),
        }
    }
}

fn yes() -> bool {
    true
}

impl Config {
    /// The API's address, if it is one that may be asked.
    pub fn url(&self) -> Result<Url, &'static str> {
        let url = Url::parse(&self.registry).map_err(|_| "not an address: https://HOST")?;
        let host = url.host_str().unwrap_or_default();
        let here = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match (url.scheme(), here) {
            ("https", _) | ("http", true) => Ok(url),
            ("http", false) => Err("a key is not sent in the clear: write https://"),
            _ => Err("not an address: https://HOST"),
        }
    }
}

/// Why the registry did not do it.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The operator's move.
    #[error("[enrol] registry: {0}")]
    Address(&'static str),
    /// The operator's move.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The operator's move.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody's, if it passes.
    #[error("the registry cannot be asked: {0}")]
    Unreached(String),
    /// It said no, and why.
    #[error("the registry refuses ({status}): {why}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// Its words.
        why: String,
    },
    /// Theirs: another version, or no registry.
    #[error("what stands at [enrol] registry does not answer as one: {0}")]
    Answer(String),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Leaf and intermediate (PEM).
    Signed(String),
    /// For the word of the registry's operator.
    Waiting,
}

/// The registry, as a member's node sees it.
pub struct Registry {
    url: Url,
    key: Zeroizing<String>,
    http: reqwest::Client,
}

impl Registry {
    /// `roots`: of `[backend]`.
    pub fn new(config: &Config, roots: &[PathBuf], clock: &Clock) -> Result<Registry, EnrolError> {
        let url = config.url().map_err(EnrolError::Address)?;
        let key = std::fs::read_to_string(&config.key_file)
            .map_err(|source| EnrolError::Key { path: config.key_file.clone(), source })?;
        let mut http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none());
        if url.scheme() == "https" {
            let roots = Roots::load(if config.roots.is_empty() { roots } else { &config.roots })?;
            http = http.https_only(true).tls_backend_preconfigured(tls::service_config(&roots, None, clock)?);
        }
        let http = http.build().map_err(|error| EnrolError::Unreached(error.to_string()))?;
        Ok(Registry { url, key: Zeroizing::new(key.trim().to_owned()), http })
    }

    /// Have a request (PEM) signed. Asked again with the same one, it says what has become of it.
    pub async fn certificate(&self, request: &str) -> Result<Asked, EnrolError> {
        let told = self.ask(Method::POST, "v1/certificates", json!({ "request": request })).await?;
        match (told["state"].as_str(), told["chain"].as_str()) {
            (Some("signed"), Some(chain)) => Ok(Asked::Signed(chain.to_owned())),
            (Some("waiting"), _) => Ok(Asked::Waiting),
            (state, _) => Err(EnrolError::Answer(format!("a certificate that is {state:?}"))),
        }
    }

    /// Have these addresses published for a NetID, if they are not already. Whether they were not. What else stands at the name stays.
    pub async fn publish(&self, net_id: NetId, addresses: &[Address]) -> Result<bool, EnrolError> {
        let addresses = self.known(addresses).await?;
        let path = format!("v1/net-ids/{net_id}");
        let there = self.ask(Method::GET, &path, Value::Null).await?;
        let there = there["records"].as_array().cloned().unwrap_or_default();
        let is_address = |record: &Value| matches!(record["type"].as_str(), Some("A" | "AAAA" | "CNAME"));
        let (old, mut records): (Vec<Value>, Vec<Value>) = there.into_iter().partition(is_address);
        let mut old: Vec<String> =
            old.iter().filter_map(|record| record["data"].as_str().map(ToOwned::to_owned)).collect();
        let mut new: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        old.sort();
        new.sort();
        if old == new {
            return Ok(false);
        }
        records.extend(addresses.iter().map(|address| {
            let kind = if address.is_ipv4() { "A" } else { "AAAA" };
            json!({ "type": kind, "data": address.to_string(), "ttl": ADDRESS_TTL })
        }));
        self.ask(Method::PUT, &path, json!({ "records": records })).await?;
        Ok(true)
    }

    /// What these addresses are now.
    async fn known(&self, addresses: &[Address]) -> Result<Vec<IpAddr>, EnrolError> {
        let mut known = Vec::new();
        for address in addresses {
            let address = match address {
                Address::Is(address) => *address,
                Address::Seen => {
                    let me = self.ask(Method::GET, "v1/me", Value::Null).await?;
                    let seen = me["from"].as_str().and_then(|from| from.parse().ok());
                    seen.ok_or_else(|| EnrolError::Answer("it does not say from where it hears us".into()))?
                }
            };
            if !known.contains(&address) {
                known.push(address);
            }
        }
        Ok(known)
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, EnrolError> {
        let url = self.url.join(path).map_err(|error| EnrolError::Unreached(error.to_string()))?;
        let mut request = self.http.request(method, url).bearer_auth(self.key.as_str());
        if !body.is_null() {
            request = request.json(&body);
        }
        let unreached = |error: reqwest::Error| {
            let why = tls::explain(&error).unwrap_or_else(|| error.without_url().to_string());
            EnrolError::Unreached(why)
        };
        let response = request.send().await.map_err(unreached)?;
        let status = response.status();
        let text =
            response.text().await.map_err(|error| EnrolError::Unreached(error.without_url().to_string()))?;
        let told: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        match status.is_success() {
            true if told.is_null() && !text.is_empty() => Err(EnrolError::Answer("no JSON".into())),
            true => Ok(told),
            false => {
                let why = told["error"].as_str().unwrap_or("without a word").chars().take(300).collect();
                Err(EnrolError::Refused { status: status.as_u16(), why })
            }
        }
    }
}

/// Whether a leaf is due for renewal: two thirds of its life are over. All in seconds since 1970.
pub fn is_due(not_before: i64, not_after: i64, now: i64) -> bool {
    now - not_before >= (not_after - not_before) / 3 * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leaves_this_machine_only_inside_tls() {
        let url = |registry: &str| {
            let text = format!("registry = \"{registry}\"\nkey_file = \"k\"\n");
            toml::from_str::<Config>(&text).unwrap().url().map(|url| url.to_string())
        };
        assert_eq!(url("https://registry.example").unwrap(), "https://registry.example/");
        for good in ["http://127.0.0.1:8090", "http://[::1]:8090/", "http://localhost"] {
            url(good).unwrap();
        }
        for bad in ["http://registry.example", "ftp://127.0.0.1", "registry.example", ""] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_are_over() {
        assert!(!is_due(0, 90, 59) && is_due(0, 90, 60) && is_due(0, 90, 1000));
    }
}
