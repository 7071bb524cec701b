//! The doors between rooms: one trait to ask, one function to be asked.
//!
//! Nobody here does I/O. `app` decides which [`Party`] is in the house; then [`Rooms::answer`] runs
//! in a task of its own, else `backend::client` sends. `backend::server` calls the same `answer`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Instant;
use crate::lorawan::{DevAddr, NetId};

use super::message::{Answer, Ask, Party, Refusal, Request, ResultCode};

/// A boxed future, for traits that are used as objects.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Until when an answer is of use. Inside the house it goes with the frame; between networks none
/// travels, each hop counts from the arrival there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// Who asks, as the transport proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// SenderID.
    pub party: Party,
    /// ReceiverID: which of our names was asked.
    pub receiver: Party,
    /// A room of this house asks.
    pub ours: bool,
    /// Until when the asker waits.
    pub by: Deadline,
}

/// Why a peer did not do what we asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// Reachable, and said no.
    #[error("{to} refused: {refusal}")]
    Refused {
        /// Who was asked.
        to: Party,
        /// What it said.
        refusal: Refusal,
    },
    /// Neither configuration nor DNS know the way: the operator's or the partner's move.
    #[error("no way to {to}: {why}")]
    NotFound {
        /// Who was asked.
        to: Party,
        /// What was tried and what came of it.
        why: String,
    },
    /// The answer did not come in time.
    #[error("{to} did not answer in time")]
    Late {
        /// Who was asked.
        to: Party,
    },
    /// An answer that does not fit the question.
    #[error("{to} answered something else: {why}")]
    Confused {
        /// Who was asked.
        to: Party,
        /// What is wrong with it.
        why: String,
    },
    /// No connection, no TLS, no HTTP.
    #[error("cannot reach {to}: {why}")]
    Transport {
        /// Who was asked.
        to: Party,
        /// The causes, outermost first.
        why: String,
    },
    /// Our operator's move: configuration or policy forbids to ask.
    #[error("will not ask {to}: {why}")]
    Forbidden {
        /// Who would have been asked.
        to: Party,
        /// The line that forbids it.
        why: String,
    },
}

impl PeerError {
    /// Whether the peer answered with this code.
    pub fn is(&self, code: ResultCode) -> bool {
        matches!(self, PeerError::Refused { refusal, .. } if refusal.code == code)
    }

    /// What to tell somebody for whom we asked: a refusal is passed on, the rest is ours to explain.
    pub fn into_refusal(self) -> Refusal {
        match self {
            PeerError::Refused { refusal, .. } => refusal,
            other => Refusal::new(ResultCode::Other, other.to_string()),
        }
    }
}

/// How a room asks another, wherever that is.
pub trait Peers: Send + Sync {
    /// Send a request and wait for its answer until `by`.
    fn send(&self, to: Party, request: Request, by: Deadline) -> Boxed<'_, Result<Answer, PeerError>>;

    /// Tell a peer what became of the Join-accept that it gave as the answer to a request (PRStartNotif): nobody waits for
    /// it, and nothing comes back. Where there is no such word, nobody is told.
    fn notify(&self, _to: Party, _transaction: u32, _outcome: Result<(), Refusal>) {}

    /// Networks that may have given an address which does not name its network (types 3 to 7, TS002 3.2), as the federation lists
    /// them.
    fn networks(&self, _addr: DevAddr, _by: Deadline) -> Boxed<'_, Vec<NetId>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

impl dyn Peers {
    /// Ask, and get the answer that belongs to the question.
    pub async fn ask<R: Ask>(&self, to: Party, request: R, by: Deadline) -> Result<R::Ans, PeerError> {
        let answer = self.send(to.clone(), request.into(), by).await?;
        R::ans(answer).ok_or(PeerError::Confused { to, why: "answer of another kind".into() })
    }
}

/// How an answer is brought to a partner that does not wait for it in the HTTP response (TS002 4.3).
pub trait Deliver: Send + Sync {
    /// POST it to the partner's server, once.
    fn deliver(&self, to: Party, answer: Vec<u8>, by: Deadline) -> Boxed<'_, Result<(), PeerError>>;
}

/// How the house is asked, by its own rooms and by `backend::server`.
pub trait Rooms: Send + Sync {
    /// Answer a request. Runs in a task of its own: a caller who gives up ends the waiting, never
    /// the work.
    fn answer(self: Arc<Self>, from: Caller, request: Request) -> Boxed<'static, Result<Answer, Refusal>>;
}

/// The store could not do it. Whose move: the operator's (disk full, damaged file).
#[derive(Debug, Clone, thiserror::Error)]
#[error("store: {0}")]
pub struct StoreError(pub String);

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::new(ResultCode::Other, error.to_string())
    }
}

/// What a storage trait must do with the record that a decision changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Nothing changed: write nothing.
    Nothing,
    /// May wait in memory as `durability` allows (an unconfirmed uplink's counter). Commits keep their order: whatever
    /// is durable later makes this durable too.
    Lazy,
    /// On disk before the outcome is returned.
    Durable,
}

impl Commit {
    /// What a decision has to wait for by itself. Where a room of this house asks, that room commits durably after it
    /// and before anything leaves the house, and commits keep their order: one wait for the disk serves both.
    pub fn asked_by(self, from: &Caller) -> Commit {
        match self {
            Commit::Durable if from.ours => Commit::Lazy,
            commit => commit,
        }
    }
}

/// Where a decision that the store runs leaves its outcome. The store may run it twice; the last
/// run is the one that was committed.
pub fn decided<A: ?Sized, T: Send + 'static, W: Send + 'static>(
    decide: impl Fn(&mut A) -> (T, W) + Send + Sync + 'static,
) -> (impl Fn(&mut A) -> W + Send + Sync + 'static, Arc<std::sync::Mutex<Option<T>>>) {
    let slot = Arc::new(std::sync::Mutex::new(None));
    let inside = slot.clone();
    let run = move |records: &mut A| {
        let (outcome, write) = decide(records);
        *inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(outcome);
        write
    };
    (run, slot)
}

/// Take what a decision left.
pub fn outcome<T>(slot: &std::sync::Mutex<Option<T>>) -> Result<T, StoreError> {
    let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    slot.take().ok_or_else(|| StoreError("the decision did not run".into()))
}
