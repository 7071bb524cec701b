//! Who has signed in: a cookie that says nothing by itself, and a proof for each form that it was ours.
//!
//! Sessions are kept in memory: after a restart people sign in again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::page::Visitor;
use crate::clock::Clock;

/// Whoever does nothing for so long is signed out.
const IDLE: Duration = Duration::from_secs(3600);
/// Sessions at once; the one that was idle longest makes room.
const MOST: usize = 1000;
const COOKIE: &str = "session";

/// Sessions, each of somebody `W`.
pub struct Sessions<W>(Mutex<BTreeMap<String, Session<W>>>, Clock);

struct Session<W> {
    who: W,
    visitor: Visitor,
    used: Instant,
}

impl<W: Clone> Sessions<W> {
    /// Nobody has signed in yet.
    pub fn new(clock: Clock) -> Sessions<W> {
        Sessions(Mutex::default(), clock)
    }

    /// Somebody has signed in: what to set as a cookie. `headers` are those of his request.
    pub fn begin(&self, who: W, name: &str, headers: &HeaderMap) -> String {
        let (id, proof): ([u8; 32], [u8; 32]) = (self.1.random(), self.1.random());
        let (id, proof) = (hex::encode(id), hex::encode(proof));
        let now = self.1.now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| now.duration_since(session.used) < IDLE);
        if all.len() >= MOST {
            let oldest = all.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone());
            oldest.map(|id| all.remove(&id));
        }
        let visitor = Visitor { name: name.to_owned(), proof };
        all.insert(id.clone(), Session { who, visitor, used: now });
        // behind a proxy that brings TLS, the cookie never goes without it
        let is_tls = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        let secure = if is_tls { "; Secure" } else { "" };
        format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict{secure}")
    }

    /// Who asks.
    pub fn of(&self, headers: &HeaderMap) -> Option<(W, Visitor)> {
        let id = cookie(headers)?;
        let now = self.1.now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.get_mut(&id).filter(|session| now.duration_since(session.used) < IDLE)?;
        session.used = now;
        Some((session.who.clone(), session.visitor.clone()))
    }

    /// He signs out.
    pub fn end(&self, headers: &HeaderMap) {
        if let Some(id) = cookie(headers) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }
}

impl Visitor {
    /// Whether a form was sent from one of his own pages.
    pub fn sent(&self, proof: &str) -> bool {
        self.proof.as_bytes().ct_eq(proof.as_bytes()).into()
    }
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, id)| id.to_owned()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, format!("a=b; {cookie}").parse().unwrap());
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_lasts_as_long_as_it_is_used() {
        let clock = Clock::system();
        let sessions = Sessions::new(clock.clone());
        let cookie = sessions.begin(7, "Ann", &HeaderMap::new());
        let headers = with(cookie.split(';').next().unwrap());
        for _ in 0..3 {
            tokio::time::advance(IDLE - Duration::from_secs(1)).await;
            let (who, visitor) = sessions.of(&headers).unwrap();
            assert_eq!((who, &*visitor.name), (7, "Ann"));
            assert!(visitor.sent(&visitor.proof) && !visitor.sent("") && !visitor.sent("x"));
        }
        tokio::time::advance(IDLE).await;
        assert!(sessions.of(&headers).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_signs_out_is_out_and_a_guess_is_nobody() {
        let sessions = Sessions::new(Clock::system());
        let cookie = sessions.begin((), "Ann", &HeaderMap::new());
        let headers = with(cookie.split(';').next().unwrap());
        assert!(sessions.of(&with("session=0123")).is_none() && sessions.of(&HeaderMap::new()).is_none());
        sessions.end(&headers);
        assert!(sessions.of(&headers).is_none());
    }
}
