//! Requests of ours whose answers come as requests of their own (TS002 4.3, 4.4). `backend::client` waits, `backend::server`
//! brings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::message::Party;

/// Who was asked, TransactionID, and the MessageType of the answer.
type Key = (Party, u32, &'static str);

/// Answers that are awaited.
#[derive(Debug, Default)]
pub struct Pending(Mutex<BTreeMap<Key, oneshot::Sender<Vec<u8>>>>);

impl Pending {
    /// Wait for an answer. To be called before the question leaves: the answer may overtake the HTTP response.
    pub fn expect(self: &Arc<Self>, from: Party, transaction: u32, answer: &'static str) -> Awaited {
        let (bring, brought) = oneshot::channel();
        let key = (from, transaction, answer);
        self.all().insert(key.clone(), bring);
        Awaited { pending: self.clone(), key, brought }
    }

    /// Bring an answer to whoever waits for it. `from`: who sends it, as the transport proved it. `false`: nobody waits, and it
    /// is to be discarded.
    pub fn bring(&self, from: &Party, transaction: u32, answer: &'static str, body: Vec<u8>) -> bool {
        let waiting = self.all().remove(&(from.clone(), transaction, answer));
        waiting.is_some_and(|waiting| waiting.send(body).is_ok())
    }

    /// Bring an error instead of the answer, whichever is awaited. `false`: none is.
    pub fn fail(&self, from: &Party, transaction: u32, body: Vec<u8>) -> bool {
        let of = |(party, id, _): &Key| party == from && *id == transaction;
        let mut all = self.all();
        let Some(key) = all.keys().find(|key| of(key)).cloned() else { return false };
        all.remove(&key).is_some_and(|waiting| waiting.send(body).is_ok())
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, oneshot::Sender<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is awaited; dropped, it is awaited no longer.
#[derive(Debug)]
pub struct Awaited {
    pending: Arc<Pending>,
    key: Key,
    brought: oneshot::Receiver<Vec<u8>>,
}

impl Awaited {
    /// The answer, when it has come.
    pub async fn body(&mut self) -> Option<Vec<u8>> {
        (&mut self.brought).await.ok()
    }

    /// The answer, if it has come already.
    pub fn overtook(&mut self) -> Option<Vec<u8>> {
        self.brought.try_recv().ok()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.pending.all().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_reaches_the_one_who_asked_exactly_him_and_once() {
        let pending = Arc::new(Pending::default());
        let (a, b) = (Party::As("a".into()), Party::As("b".into()));
        let mut awaited = pending.expect(a.clone(), 7, "PRStartAns");
        for (from, transaction, answer) in
            [(&b, 7, "PRStartAns"), (&a, 8, "PRStartAns"), (&a, 7, "PRStopAns")]
        {
            assert!(!pending.bring(from, transaction, answer, vec![1]), "{from} {transaction} {answer}");
        }
        assert_eq!(awaited.overtook(), None);
        assert!(pending.bring(&a, 7, "PRStartAns", vec![2]));
        assert!(!pending.bring(&a, 7, "PRStartAns", vec![3]), "a second answer is discarded");
        assert_eq!(awaited.body().await, Some(vec![2]));
        let mut awaited = pending.expect(a.clone(), 8, "PRStartAns");
        assert!(!pending.fail(&b, 8, vec![4]) && !pending.fail(&a, 9, vec![4]));
        assert!(pending.fail(&a, 8, vec![4]) && !pending.fail(&a, 8, vec![4]));
        assert_eq!(awaited.body().await, Some(vec![4]));
        drop(pending.expect(a.clone(), 9, "PRStartAns"));
        assert!(!pending.bring(&a, 9, "PRStartAns", vec![]), "nobody waits any more");
        assert!(pending.all().is_empty());
    }
}
