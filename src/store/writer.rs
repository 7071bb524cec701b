//! The writer: one task that takes what has queued and commits it together.
//!
//! Everything that reads or writes the database is a [`Job`] and runs here, in the order it came.
//! A batch is one transaction. Where a job of it fails, it is taken back and run again with a savepoint before each job, so that
//! the failing one takes back only its own writes. (Savepoints in every batch cost more than the jobs: SQLite copies every page
//! before its first change behind one, a kilobyte at a time.) A batch that waits for the disk runs in one short `spawn_blocking` (a thread that tokio does not
//! know would let paused time leap, a blocking loop would freeze it). One that does not is done where the
//! writer stands: it takes less time than two changes of thread, of which an uplink at home would need a dozen.
//! A disk that keeps even such a batch waiting is left to the other thread for a while.
//!
//! # What a crash costs
//!
//! The database is in WAL mode: a commit appends to the log. With `synchronous=FULL` it then waits
//! until the log is on the disk, with `NORMAL` it leaves the log to the kernel's cache.
//!
//! | | `kill -9`, panic | power cut, kernel crash |
//! |---|---|---|
//! | durable job (both modes), `strict` | nothing | nothing |
//! | `balanced`, a counter | nothing: the cache is the kernel's | what was taken in the last 30 s, at most 1,024 frames |
//! | `balanced`, a message for the next room or for an application | nothing | what waited less than 1 s |
//!
//! A batch with one durable job commits with FULL, and FULL pushes the whole log: it makes every lazy
//! commit before it durable too. Where no such batch comes, the writer pushes by itself before the
//! bounds are reached ([`Ledger`]). A message that the next room has answered in time is no longer
//! waited for, so at home most uplinks cost no wait for the disk at all.
//!
//! A run that ended without closing the store leaves debts: its lazy commits may be nowhere but in the kernel's cache, since
//! nobody knows when. The next run pays them before its first job ([`Machine::inherits`]).
//!
//! Whether a job is durable is known only when its decision has run, and SQLite takes the level only
//! outside a transaction. So a batch that began with NORMAL and turns out to be durable is taken back
//! and run again with FULL: the reason why a decision may run twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::secrets::{Seal, SealError};
use super::stats::Counters;
use crate::backend::door::{Commit, StoreError};
use crate::clock::{Clock, Instant};
use crate::sns::ForwardKey;

/// Jobs in one transaction.
pub(super) const BATCH: usize = 256;
/// Jobs that may wait for the writer; whoever comes then waits to hand his over.
pub(super) const QUEUE: usize = 1024;
/// A lazily written counter is pushed to the disk after this: the 30 s of the promise, less the time that a slow
/// card may take.
const COUNTERS_WAIT: Duration = Duration::from_secs(29);
/// The same for a message that waits for the next room or for an application: 1 s.
const FORWARD_WAIT: Duration = Duration::from_millis(900);
/// After a push that failed (a full disk, mostly).
const RETRY: Duration = Duration::from_secs(1);
/// So many lazily accepted frames are never exceeded.
const FRAMES: u32 = 1024;
/// Commits after which the log is copied into the database as soon as nobody has asked for anything for
/// [`IDLE`], so that nobody's receive window waits for it. (SQLite would do it inside somebody's commit.)
const CHECKPOINT: u32 = 256;
const IDLE: Duration = Duration::from_millis(10);
/// Commits after which that cannot wait any longer.
const CHECKPOINT_NOW: u32 = 512;
/// A batch on the writer's own thread that took so long has waited for the disk; then all go to the other thread
/// for a while.
const SLOW: Duration = Duration::from_millis(60);
const SLOW_FOR: Duration = Duration::from_secs(10);

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Seal(#[from] SealError),
    #[error("{0}")]
    Wrong(String),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        StoreError(fault.to_string())
    }
}

/// What a job may touch.
pub(super) struct Db<'a> {
    pub sql: &'a Connection,
    pub seal: &'a Seal,
    /// Wall time of the batch, seconds since 1970.
    pub unix: u64,
    pub arrivals: &'a Arrivals,
    pub counters: &'a Counters,
}

/// Numbers the forward rows: their order must not depend on the wall clock.
pub(super) struct Arrivals(AtomicU64);

impl Arrivals {
    /// After those that wait already.
    fn after(sql: &Connection) -> rusqlite::Result<Arrivals> {
        let last: i64 =
            sql.query_row("SELECT coalesce(max(arrival), 0) FROM forward", [], |row| row.get(0))?;
        Ok(Arrivals(AtomicU64::new(last.max(0).cast_unsigned())))
    }

    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Db<'_> {
    /// Run one statement, prepared once.
    pub fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, Fault> {
        Ok(self.sql.prepare_cached(sql)?.execute(values)?)
    }
}

/// What a job has written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub commit: Commit,
    /// Accepted uplinks: counted, and bounded where they are lazy.
    pub frames: u32,
    /// A row that now waits for the next room.
    pub waits: Option<ForwardKey>,
    /// A row that waits no longer.
    pub answered: Option<ForwardKey>,
    /// What became of the events that wait for applications.
    pub outbox: Mark,
    /// A lazy write that may be lost without harm: nobody need push it.
    pub harmless: bool,
}

/// What a job did to the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing that matters here.
    None,
    /// An event waits.
    Waits,
    /// No event waits any longer.
    Empty,
}

impl Done {
    pub fn new(commit: Commit) -> Done {
        Done { commit, frames: 0, waits: None, answered: None, outbox: Mark::None, harmless: false }
    }
}

/// One read-decide-write.
pub(super) trait Job: Send {
    /// Will surely, or most likely, be durable: lets the batch begin with FULL.
    fn durable(&self) -> bool;
    /// May be called twice; only the writes of the last call are committed.
    fn run(&mut self, db: &Db<'_>) -> Result<Done, Fault>;
    /// Tell the caller what came of it.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Typed<T, F> {
    durable: bool,
    work: F,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Typed<T, F>
where
    T: Send,
    F: FnMut(&Db<'_>) -> Result<(T, Done), Fault> + Send,
{
    fn durable(&self) -> bool {
        self.durable
    }

    fn run(&mut self, db: &Db<'_>) -> Result<Done, Fault> {
        let (value, done) = (self.work)(db)?;
        self.value = Some(value);
        Ok(done)
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let Typed { value, reply, .. } = *self;
        let missing = || StoreError("the job did not run".into());
        // A caller who has gone needs no answer; the work stands.
        let _ = reply.send(committed.and_then(|()| value.ok_or_else(missing)));
    }
}

pub(super) enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// The near end of the writer's queue.
#[derive(Clone)]
pub(super) struct Queue(mpsc::Sender<Message>);

fn closed() -> StoreError {
    StoreError("the store is closed".into())
}

impl Queue {
    /// Have a job done: returns when it is committed as it wished.
    pub async fn run<T, F>(&self, durable: bool, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Db<'_>) -> Result<(T, Done), Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Typed { durable, work, value: None, reply });
        self.0.send(Message::Job(job)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Have something read, and nothing written.
    pub async fn look<T, F>(&self, mut work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Db<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.run(false, move |db| Ok((work(db)?, Done::new(Commit::Nothing)))).await
    }

    /// Make everything durable, close the file, give up the lock.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Close(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// What lies in the log and may not be on the disk yet.
#[derive(Debug, Default)]
struct Ledger {
    /// Anything at all.
    dirty: bool,
    /// Since when the oldest lazy counter waits.
    counters: Option<Instant>,
    /// Lazily accepted uplinks.
    frames: u32,
    /// Messages that nobody has answered, since when.
    forward: BTreeMap<ForwardKey, Instant>,
    /// Since when the oldest event waits for an application.
    outbox: Option<Instant>,
    /// A push has failed: not again before this.
    not_before: Option<Instant>,
}

impl Ledger {
    /// When the writer must push.
    fn due(&self) -> Option<Instant> {
        let counters = self.counters.map(|since| since + COUNTERS_WAIT);
        let forward = self.forward.values().min().map(|since| *since + FORWARD_WAIT);
        let outbox = self.outbox.map(|since| since + FORWARD_WAIT);
        let due = counters.into_iter().chain(forward).chain(outbox).min();
        due.map(|due| self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// A job was committed with NORMAL.
    fn note(&mut self, done: &Done, wrote: bool, now: Instant) {
        if let Some(key) = done.answered {
            self.forward.remove(&key);
        }
        if done.commit == Commit::Nothing || !wrote {
            return;
        }
        self.dirty = true;
        self.frames += done.frames;
        if let Some(key) = done.waits {
            self.forward.entry(key).or_insert(now);
        }
        match done.outbox {
            Mark::None => {}
            Mark::Waits => _ = self.outbox.get_or_insert(now),
            Mark::Empty => self.outbox = None,
        }
        if !done.harmless {
            self.counters.get_or_insert(now);
        }
    }
}

/// The open database: goes to the blocking thread with each batch and comes back.
pub(super) struct Machine {
    sql: Connection,
    seal: Seal,
    clock: Clock,
    counters: Arc<Counters>,
    arrivals: Arrivals,
    path: PathBuf,
    strict: bool,
    /// The level that SQLite has now.
    full: bool,
    ledger: Ledger,
    /// Commits that wrote since the last checkpoint.
    since_checkpoint: u32,
    /// Until then every batch goes to the other thread.
    slow_until: Option<Instant>,
    /// Held as long as the database is open; after the connection, which must be gone first.
    _lock: File,
}

type Outcomes = Vec<Result<Done, Fault>>;

/// What came of a batch on the writer's own thread.
enum Here {
    Done(Vec<Result<(), StoreError>>),
    /// Nothing was done: this is for the other thread, in this way.
    Elsewhere(Way),
}

/// How a batch is run.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// It will have to wait for the disk.
    full: bool,
    /// A savepoint before each job: one of them fails.
    apart: bool,
}

enum Attempt {
    Committed(Outcomes),
    NeedsFull,
    /// A job failed, and there are no savepoints to take it back alone.
    NeedsApart,
}

impl Machine {
    pub fn new(
        sql: Connection,
        seal: Seal,
        clock: Clock,
        path: PathBuf,
        strict: bool,
        lock: File,
    ) -> rusqlite::Result<Machine> {
        sql.set_prepared_statement_cache_capacity(64);
        sql.pragma_update(None, "synchronous", "FULL")?;
        Ok(Machine {
            arrivals: Arrivals::after(&sql)?,
            sql,
            seal,
            clock,
            counters: Arc::default(),
            path,
            strict,
            full: true,
            ledger: Ledger::default(),
            since_checkpoint: 0,
            slow_until: None,
            _lock: lock,
        })
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Whether something must be pushed now.
    fn is_due(&self) -> bool {
        self.ledger.due().is_some_and(|due| due <= self.clock.now())
    }

    /// Run all jobs and commit without waiting for the disk.
    fn commit_here(&mut self, jobs: &mut [Box<dyn Job>]) -> Here {
        let now = self.clock.now();
        let slow = self.slow_until.is_some_and(|until| now < until);
        if self.strict || self.is_due() || slow || jobs.iter().any(|job| job.durable()) {
            return Here::Elsewhere(Way::default());
        }
        let mut way = Way::default();
        let here = match self.attempt(jobs, way, false, now) {
            Ok(Attempt::Committed(outcomes)) => Here::Done(self.told(outcomes)),
            Ok(again) => {
                self.again(&again, &mut way);
                Here::Elsewhere(way)
            }
            // tried again over there, where failures are told
            Err(_) => {
                self.back();
                Here::Elsewhere(way)
            }
        };
        let done = self.clock.now();
        self.slow_until = (done - now >= SLOW).then(|| done + SLOW_FOR);
        here
    }

    /// Everything back, to be run once more in the way that has proved to be needed.
    fn again(&mut self, needs: &Attempt, way: &mut Way) {
        match needs {
            Attempt::Committed(_) => {}
            Attempt::NeedsFull => way.full = true,
            Attempt::NeedsApart => way.apart = true,
        }
        self.counters.reruns.add(1);
        self.back();
    }

    /// Run all jobs and commit; one outcome each.
    fn commit(&mut self, jobs: &mut [Box<dyn Job>], mut way: Way) -> Vec<Result<(), StoreError>> {
        let now = self.clock.now();
        let due = self.is_due();
        way.full = way.full || self.strict || due || jobs.iter().any(|job| job.durable());
        if jobs.is_empty() && due {
            self.counters.pushes.add(1);
        }
        loop {
            match self.attempt(jobs, way, due, now) {
                Ok(Attempt::Committed(outcomes)) => return self.told(outcomes),
                // at most once for each of the two: nothing needs what it has
                Ok(again) => self.again(&again, &mut way),
                Err(fault) => {
                    self.back();
                    self.ledger.not_before = Some(now + RETRY);
                    let error = StoreError(format!("{}: {fault}", self.path.display()));
                    tracing::error!(%error, jobs = jobs.len(), "a batch was not committed");
                    self.counters.failed.add(jobs.len() as u64);
                    return jobs.iter().map(|_| Err(error.clone())).collect();
                }
            }
        }
    }

    fn attempt(
        &mut self,
        jobs: &mut [Box<dyn Job>],
        Way { full, apart }: Way,
        due: bool,
        now: Instant,
    ) -> Result<Attempt, Fault> {
        if self.full != full {
            self.sql.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
            self.full = full;
        }
        let db = Db {
            sql: &self.sql,
            seal: &self.seal,
            unix: self.clock.unix(),
            arrivals: &self.arrivals,
            counters: &self.counters,
        };
        db.run("BEGIN", [])?;
        let mut outcomes = Outcomes::with_capacity(jobs.len());
        // Rows of the jobs that stand. (SQLite counts those that were taken back too.)
        let mut rows = 0;
        for job in jobs.iter_mut() {
            let before = db.sql.total_changes();
            let outcome = if apart { alone(job.as_mut(), &db)? } else { guarded(job.as_mut(), &db) };
            if outcome.is_err() && !apart {
                return Ok(Attempt::NeedsApart);
            }
            if outcome.is_ok() {
                rows += db.sql.total_changes() - before;
            }
            outcomes.push(outcome);
        }
        let standing = || outcomes.iter().flatten();
        let frames: u32 = standing().map(|done| done.frames).sum();
        let durable = standing().any(|done| done.commit == Commit::Durable);
        // A durable decision that changed nothing rests on what it read, and that may be lazy.
        let must_push = durable && (rows > 0 || self.ledger.dirty);
        if !full && (must_push || (rows > 0 && self.ledger.frames + frames >= FRAMES)) {
            return Ok(Attempt::NeedsFull);
        }
        if full && rows == 0 && self.ledger.dirty && (durable || due) {
            // A commit without a page does not wait for the disk: give it one.
            rows += db.run("UPDATE meta SET value = value + 1 WHERE name = 'flushes'", [])? as u64;
        }
        db.run("COMMIT", [])?;
        if rows > 0 {
            self.counters.commits.add(1);
            self.counters.full_commits.add(full.into());
            self.counters.rows.add(rows);
            self.since_checkpoint += 1;
        }
        self.counters.uplinks.add(frames.into());
        if full && rows > 0 {
            self.ledger = Ledger::default();
        } else {
            outcomes.iter().flatten().for_each(|done| self.ledger.note(done, rows > 0, now));
        }
        Ok(Attempt::Committed(outcomes))
    }

    /// Leave whatever transaction is open.
    fn back(&mut self) {
        if !self.sql.is_autocommit()
            && let Err(error) = self.sql.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "ROLLBACK");
        }
    }

    fn told(&self, outcomes: Outcomes) -> Vec<Result<(), StoreError>> {
        self.counters.jobs.add(outcomes.len() as u64);
        self.counters.failed.add(outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64);
        outcomes.into_iter().map(|outcome| outcome.map(drop).map_err(StoreError::from)).collect()
    }

    /// Copy the log into the database and begin it anew: the log stays short.
    fn checkpoint(&mut self, mode: &str) {
        self.since_checkpoint = 0;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        };
        match self.sql.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], row) {
            // It waits for the disk, log first: nothing is lazy any more.
            Ok((0, log, copied)) if log == copied => self.ledger = Ledger::default(),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, path = %self.path.display(), "checkpoint"),
        }
        self.counters.checkpoints.add(1);
    }

    /// The last run did not close the store. What it wrote lazily may still be nowhere but in the kernel's cache, and
    /// nobody knows since when: the bounds hold over a crash too.
    pub fn inherits(&mut self) {
        let now = self.clock.now();
        self.ledger = Ledger { dirty: true, counters: Some(now), outbox: Some(now), ..Ledger::default() };
        self.checkpoint("TRUNCATE");
    }

    /// The last push; the connection copies its log and deletes it.
    fn close(mut self) -> Result<(), StoreError> {
        self.checkpoint("TRUNCATE");
        let Machine { sql, path, _lock, .. } = self;
        sql.close().map_err(|(_, error)| StoreError(format!("{}: {error}", path.display())))
    }
}

/// One job. A decision that panics is one room's fault; the writer works for all of them.
fn guarded(job: &mut dyn Job, db: &Db<'_>) -> Result<Done, Fault> {
    catch_unwind(AssertUnwindSafe(|| job.run(db)))
        .unwrap_or_else(|_| Err(Fault::Wrong("the decision panicked".into())))
}

/// One job between savepoints. `Err`: the whole transaction is gone.
fn alone(job: &mut dyn Job, db: &Db<'_>) -> Result<Result<Done, Fault>, Fault> {
    db.run("SAVEPOINT job", [])?;
    let outcome = guarded(job, db);
    if let Err(fault) = &outcome {
        // After some failures (disk full, I/O) SQLite has rolled everything back already.
        if db.sql.is_autocommit() {
            return Err(Fault::Wrong(format!("the transaction was rolled back: {fault}")));
        }
        tracing::warn!(%fault, "a job of the store failed");
        db.run("ROLLBACK TO job", [])?;
    }
    db.run("RELEASE job", [])?;
    Ok(outcome)
}

/// Start the writer on the runtime that the caller is in.
pub(super) fn start(machine: Machine) -> Queue {
    let (queue, jobs) = mpsc::channel(QUEUE);
    tokio::spawn(write(machine, jobs));
    Queue(queue)
}

/// To the end of the runtime's queue. (`yield_now` keeps the task on its thread until that thread has nothing else to do,
/// and nobody else could take it.)
async fn step_back() {
    let mut back = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut back, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn write(mut machine: Machine, mut queue: mpsc::Receiver<Message>) {
    let clock = machine.clock.clone();
    let mut taken = Vec::with_capacity(BATCH);
    loop {
        let tidy = (machine.since_checkpoint >= CHECKPOINT).then(|| clock.now() + IDLE);
        let due = machine.ledger.due().into_iter().chain(tidy).min();
        match due {
            Some(due) => tokio::select! {
                biased;
                count = queue.recv_many(&mut taken, BATCH) => if count == 0 { break },
                () = clock.sleep_until(due) => {}
            },
            None => {
                if queue.recv_many(&mut taken, BATCH).await == 0 {
                    break;
                }
            }
        }
        // whoever can run now may have something for the same commit
        step_back().await;
        while taken.len() < BATCH
            && let Ok(message) = queue.try_recv()
        {
            taken.push(message);
        }
        let idle = taken.is_empty() && !machine.is_due();
        let (mut jobs, mut close) = (Vec::with_capacity(taken.len()), None);
        for message in taken.drain(..) {
            match message {
                Message::Job(job) if close.is_none() => jobs.push(job),
                Message::Job(job) => job.finish(Err(closed())),
                Message::Close(reply) => close = Some(reply),
            }
        }
        let here = if idle { Here::Done(Vec::new()) } else { machine.commit_here(&mut jobs) };
        let outcomes = match here {
            Here::Done(outcomes) => outcomes,
            Here::Elsewhere(way) => {
                let batch = move || {
                    let outcomes = machine.commit(&mut jobs, way);
                    (machine, jobs, outcomes)
                };
                // Fails only when the runtime ends: then nobody waits any more.
                let Ok(back) = tokio::task::spawn_blocking(batch).await else { return };
                let outcomes;
                (machine, jobs, outcomes) = back;
                outcomes
            }
        };
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            job.finish(outcome);
        }
        if let Some(reply) = close {
            queue.close();
            let closing = tokio::task::spawn_blocking(move || machine.close()).await;
            let _ = reply.send(closing.unwrap_or_else(|_| Err(closed())));
            return;
        }
        let tidy =
            machine.since_checkpoint >= CHECKPOINT_NOW || (idle && machine.since_checkpoint >= CHECKPOINT);
        if tidy {
            let tidy = move || {
                machine.checkpoint("PASSIVE");
                machine
            };
            let Ok(back) = tokio::task::spawn_blocking(tidy).await else { return };
            machine = back;
        }
    }
    // Every handle was dropped without `close`: the same, for nobody in particular.
    let _ = tokio::task::spawn_blocking(move || machine.close()).await;
}
