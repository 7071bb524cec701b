//! Our backups at a partner's hotspot: `/backups/NETID/NAME` at its server.

use std::time::Duration;

use reqwest::{Method, StatusCode};

use super::Client;
use crate::backend::door::{Boxed, Deadline, PeerError};
use crate::backend::message::Party;
use crate::backup::kept::Entry;
use crate::backup::shelf::Bring;
use crate::lorawan::NetId;

/// A long file over a slow line.
const PATIENCE: Duration = Duration::from_secs(1800);
/// A list of names is no longer.
const LIST: usize = 1 << 20;
/// A backup is no longer.
const FILE: usize = 1 << 30;

impl Client {
    /// Leave one there.
    pub async fn leave(&self, at: NetId, name: &str, file: Vec<u8>) -> Result<(), PeerError> {
        self.backups(at, Method::PUT, &format!("/{name}"), file, LIST).await.map(drop)
    }

    /// What is there of ours, the oldest first.
    pub async fn left(&self, at: NetId) -> Result<Vec<Entry>, PeerError> {
        let listed = self.backups(at, Method::GET, "", Vec::new(), LIST).await?;
        let confused =
            |error: serde_json::Error| PeerError::Confused { to: Party::Ns(at), why: error.to_string() };
        serde_json::from_slice(&listed).map_err(confused)
    }

    /// One of them back.
    pub async fn fetch(&self, at: NetId, name: &str) -> Result<Vec<u8>, PeerError> {
        self.backups(at, Method::GET, &format!("/{name}"), Vec::new(), FILE).await
    }

    async fn backups(
        &self,
        at: NetId,
        method: Method,
        name: &str,
        file: Vec<u8>,
        most: usize,
    ) -> Result<Vec<u8>, PeerError> {
        let (parts, to) = (&self.0.parts, Party::Ns(at));
        let by = Deadline(parts.clock.now() + PATIENCE);
        let target = self.find(&to, None, by).await?;
        let path = format!("/backups/{}{name}", parts.net_id);
        let asked = self.0.servers.ask(&target, method, &path, file, PATIENCE, most).await;
        let (status, body) = asked.map_err(|why| why.because(&to))?;
        if status.is_success() {
            return Ok(body);
        }
        let said: String =
            String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(300).collect();
        let why = match status {
            // what a server says that knows nothing of backups
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND if said.is_empty() => {
                format!(
                    "HTTP {status}: it keeps no backups; it has to be a Roamgate with `keep_backups_mb` in its entry for us"
                )
            }
            _ => format!("HTTP {status} {said}"),
        };
        Err(PeerError::Transport { to, why })
    }
}

impl Bring for Client {
    fn bring<'a>(&'a self, to: NetId, name: &'a str, file: Vec<u8>) -> Boxed<'a, Result<(), String>> {
        Box::pin(async move { self.leave(to, name, file).await.map_err(|error| error.to_string()) })
    }
}
