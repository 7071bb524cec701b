//! The HTTP sink: every event is a POST of its JSON, one at a time, in order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, StatusCode, Url};
use serde::{Deserialize, Serialize};

use super::Delivery;
use super::outbox::{Event, Sink};
use crate::backend::door::StoreError;
use crate::tls;

/// A server that has not answered by then will not.
const EXCHANGE_TIME: Duration = Duration::from_secs(5);
/// Between two tries, first and longest.
const PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Events read from the outbox at once.
const BATCH: u32 = 16;

/// Section `[application.http]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Events are posted here, with `event=...` in the query.
    pub url: Endpoint,
    /// Sent with every event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A file of root certificates to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// An `http://` or `https://` address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(Url);

impl Endpoint {
    /// The server, without what the rest of the address may hold of secrets.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = String;
    fn try_from(text: String) -> Result<Endpoint, String> {
        let url = Url::parse(&text).map_err(|error| format!("{text:?} is no address: {error}"))?;
        match url.scheme() {
            "http" | "https" if url.has_host() => Ok(Endpoint(url)),
            _ => Err(format!("{text:?} is no http:// or https:// address")),
        }
    }
}

impl From<Endpoint> for String {
    fn from(Endpoint(url): Endpoint) -> String {
        url.into()
    }
}

impl Config {
    /// The headers as they are sent.
    pub fn header_map(&self) -> Result<HeaderMap, String> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let header = HeaderName::from_bytes(name.as_bytes());
            let header = header.map_err(|_| format!("{name:?} is no name of an HTTP header"))?;
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("the value of header {name} cannot be sent"))?;
            map.insert(header, value);
        }
        Ok(map)
    }
}

/// Why the HTTP sink cannot be built: the operator's move.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// A header that cannot be.
    #[error("[application.http] headers: {0}")]
    Header(String),
    /// The file of roots.
    #[error("[application.http] ca {path}: {why}")]
    Ca {
        /// Of the file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The library.
    #[error("[application.http]: {0}")]
    Client(#[from] reqwest::Error),
}

/// What came of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Taken,
    /// The server will never take this very event.
    Refused(StatusCode),
    /// Try again: nobody there, or a server in trouble.
    Later(String),
}

/// Posts what waits.
pub(super) struct Poster {
    client: reqwest::Client,
    url: Endpoint,
    headers: HeaderMap,
    delivery: Arc<Delivery>,
}

impl Poster {
    pub fn new(config: &Config, delivery: Arc<Delivery>) -> Result<Poster, HttpError> {
        tls::install_provider();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .timeout(EXCHANGE_TIME);
        if let Some(path) = &config.ca {
            let failed = |why: String| HttpError::Ca { path: path.clone(), why };
            let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            let roots = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
            builder = builder.tls_certs_only(roots);
        } else if config.url.0.scheme() == "http" {
            // no certificate will be looked at, so none need be on this machine
            builder = builder.tls_certs_only([]);
        }
        let headers = config.header_map().map_err(HttpError::Header)?;
        Ok(Poster { client: builder.build()?, url: config.url.clone(), headers, delivery })
    }

    /// Deliver for ever.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.deliver().await {
                tracing::warn!("events for {} wait: {error}", self.name());
                self.delivery.clock.sleep(PATIENCE[0]).await;
            }
        }
    }

    async fn deliver(&self) -> Result<(), StoreError> {
        let waiting = self.delivery.outbox.first(Sink::Http, BATCH).await?;
        if waiting.is_empty() {
            self.delivery.http.notified().await;
        }
        for waiting in waiting {
            self.insist(&waiting.event).await;
            self.delivery.outbox.taken(Sink::Http, waiting.id).await?;
        }
        Ok(())
    }

    /// Post one event until the server has it: those behind it wait, for they are in order.
    async fn insist(&self, event: &Event) {
        let [mut patience, longest] = PATIENCE;
        loop {
            match self.post(event).await {
                Outcome::Taken => return,
                Outcome::Refused(status) => {
                    self.delivery.dropped.add(1);
                    tracing::warn!(DevEUI = %event.dev_eui, event = %event.kind,
                        "{} refused an event for good ({status}): it is dropped", self.name());
                    return;
                }
                Outcome::Later(why) => {
                    let seconds = patience.as_secs();
                    tracing::warn!(
                        "{} takes no events: {why}; they wait, next try in {seconds} s",
                        self.name()
                    );
                    self.delivery.clock.sleep(patience).await;
                    patience = (patience * 2).min(longest);
                }
            }
        }
    }

    async fn post(&self, event: &Event) -> Outcome {
        let mut url = self.url.0.clone();
        url.query_pairs_mut().append_pair("event", &event.kind.to_string());
        let request = self.client.post(url).headers(self.headers.clone());
        let request = request.header(CONTENT_TYPE, "application/json").body(event.body.clone());
        match request.send().await {
            Ok(answer) => judge(answer.status()),
            Err(error) => Outcome::Later(innermost(&error)),
        }
    }

    fn name(&self) -> String {
        self.url.origin()
    }
}

/// A wrong address or a missing permission can be put right by the operator, so the event waits. What is said of the
/// event itself will not change.
fn judge(status: StatusCode) -> Outcome {
    match status {
        status if status.is_success() => Outcome::Taken,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Outcome::Refused(status)
        }
        status => Outcome::Later(format!("it answers {status}")),
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    // the outermost repeats the address, and that may hold a secret
    if error.is_timeout() { "no answer in time".into() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_the_event_itself_drops_it() {
        assert_eq!(judge(StatusCode::NO_CONTENT), Outcome::Taken);
        assert_eq!(judge(StatusCode::BAD_REQUEST), Outcome::Refused(StatusCode::BAD_REQUEST));
        for status in [StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED, StatusCode::BAD_GATEWAY] {
            assert!(matches!(judge(status), Outcome::Later(_)), "{status}");
        }
    }

    #[test]
    fn an_address_is_http_or_https() {
        for good in ["http://127.0.0.1:8080/x?y=1", "https://example.org"] {
            assert!(Endpoint::try_from(good.to_string()).is_ok(), "{good}");
        }
        for bad in ["", "example.org", "ftp://example.org", "http://"] {
            assert!(Endpoint::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }
}
