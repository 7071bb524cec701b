//! What was answered a moment ago (TS002 4.4): who repeats a request because our answer was lost gets the same answer, for a
//! repeated JoinReq would be a replay.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::backend::message::Party;
use crate::clock::Instant;

/// So long an answer is kept.
const KEPT: Duration = Duration::from_secs(10);
/// Answers kept: those of ten busy seconds.
const MOST: usize = 4096;

/// SenderID, TransactionID and SHA-256 of the body: a TransactionID alone is no name, for there are peers that always send 0.
pub(super) type Key = (Party, u32, [u8; 32]);

/// One answer.
#[derive(Debug)]
struct Answered {
    at: Instant,
    key: Key,
    answer: Vec<u8>,
}

/// Answers, the latest last.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<VecDeque<Answered>>);

impl Said {
    /// The name of a request.
    pub(super) fn key(sender: &Party, transaction: u32, body: &[u8]) -> Key {
        (sender.clone(), transaction, Sha256::digest(body).into())
    }

    /// What was said to it.
    pub(super) fn to(&self, key: &Key, now: Instant) -> Option<Vec<u8>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lately = all.iter().rev().take_while(|one| now.duration_since(one.at) < KEPT);
        lately.find(|one| one.key == *key).map(|one| one.answer.clone())
    }

    /// It was answered.
    pub(super) fn note(&self, key: Key, answer: &[u8], now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while all.len() >= MOST || all.front().is_some_and(|one| now.duration_since(one.at) >= KEPT) {
            all.pop_front();
        }
        all.push_back(Answered { at: now, key, answer: answer.to_vec() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_gets_the_same_answer_for_ten_seconds_and_another_does_not() {
        let (said, now) = (Said::default(), Instant::now());
        let (a, b) = (Party::As("a".into()), Party::As("b".into()));
        said.note(Said::key(&a, 0, b"one"), b"yes", now);
        assert_eq!(said.to(&Said::key(&a, 0, b"one"), now + KEPT / 2), Some(b"yes".to_vec()));
        for other in [Said::key(&b, 0, b"one"), Said::key(&a, 1, b"one"), Said::key(&a, 0, b"two")] {
            assert_eq!(said.to(&other, now), None);
        }
        assert_eq!(said.to(&Said::key(&a, 0, b"one"), now + KEPT), None);
        for n in 0..MOST as u32 + 10 {
            said.note(Said::key(&a, n, b""), b"", now);
        }
        assert_eq!(said.0.lock().unwrap().len(), MOST);
    }
}
