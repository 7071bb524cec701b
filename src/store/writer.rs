//! The writer: one task that takes what has queued and commits it together.
//!
//! Everything that reads or writes the database is a [`Job`] and runs here, in the order it came; what has queued is a batch.
//! Where a job of it fails, the batch is taken back and run again with a savepoint before each job, so that
//! the failing one takes back only its own writes. (Savepoints before every job cost more than the jobs: SQLite copies every page
//! before its first change behind one, a kilobyte at a time.)
//!
//! # When it is committed
//!
//! A commit writes whole pages into the log and waits until they are on the disk (WAL mode, `synchronous=FULL`). A batch with a
//! durable job is committed at once, in `strict` every batch that wrote. In `balanced` any other is *held*: its callers are
//! answered, its pages stay in memory, and the next batch goes on in the same transaction, behind a savepoint of its own. So a
//! page that a hundred uplinks change is written once: the card lives longer, and most uplinks at home cost no call of the
//! system at all.
//!
//! What is held is committed with the next durable batch, and where none comes before the bounds are reached ([`Ledger`]):
//!
//! | | `kill -9`, panic, power cut, kernel crash |
//! |---|---|
//! | durable job (both modes), `strict` | nothing is lost |
//! | `balanced`, a counter | what was taken in the last 30 s, at most 1,024 frames |
//! | `balanced`, a message for the next room or for an application | what waited less than 1 s |
//!
//! A message that the next room has answered in time is no longer waited for. A disk that refuses a commit (it is full, mostly) takes
//! with it what was held: SQLite ends the transaction, and the store goes on as after a crash.
//!
//! A batch that only works in memory is done where the writer stands: it takes less time than two changes of thread, of which an
//! uplink at home would need a dozen. One that commits does so in one short `spawn_blocking` (a thread that tokio does not
//! know would let paused time leap, a blocking loop would freeze it). A disk that keeps even reads waiting is left to the other
//! thread for a while.
//!
//! A run that ended without closing the store may leave commits whose wait had not ended: they lie in the kernel's cache, and
//! are read, but may be lost yet. The next run waits for them before its first job ([`Machine::inherits`]).

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
/// Pages in the log after which it is copied into the database as soon as nobody has asked for anything for
/// [`IDLE`], so that nobody's receive window waits for it. (SQLite would do it inside somebody's commit.)
const CHECKPOINT: i64 = 2048;
const IDLE: Duration = Duration::from_millis(10);
/// Pages after which that cannot wait any longer.
const CHECKPOINT_NOW: i64 = 4096;
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
    /// Will surely, or most likely, be durable: the batch is for the thread that may wait.
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

/// What may not be on the disk yet.
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

    /// A job was done and not committed.
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
    ledger: Ledger,
    /// Rows that batches before have written in the transaction that is open. (None is open without any.)
    held: u64,
    /// Pages of the log that are not in the database.
    log: i64,
    /// Until then every batch goes to the other thread.
    slow_until: Option<Instant>,
    /// Held as long as the database is open; after the connection, which must be gone first.
    _lock: File,
}

type Outcomes = Vec<Result<Done, Fault>>;

/// A batch that has run.
struct Ran {
    outcomes: Outcomes,
    /// What its jobs that stand have written.
    rows: u64,
    frames: u32,
    /// It is to be committed now.
    commits: bool,
}

/// What came of a batch on the writer's own thread.
enum Here {
    Done(Vec<Result<(), StoreError>>),
    /// The rest is for the other thread.
    Elsewhere(Rest),
}

/// What is left to do of a batch.
enum Rest {
    All,
    /// One of its jobs fails: a savepoint before each.
    Apart,
    /// It has run.
    Commit(Ran),
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
            ledger: Ledger::default(),
            held: 0,
            log: 0,
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

    /// Run all jobs, as far as nothing waits for the disk.
    fn work_here(&mut self, jobs: &mut [Box<dyn Job>]) -> Here {
        let now = self.clock.now();
        let slow = self.slow_until.is_some_and(|until| now < until);
        if self.strict || self.is_due() || slow || jobs.iter().any(|job| job.durable()) {
            return Here::Elsewhere(Rest::All);
        }
        let here = match self.run(jobs, false, false) {
            Ok(Some(ran)) if ran.commits => Here::Elsewhere(Rest::Commit(ran)),
            // tried again over there, where failures are told
            Err(_) => {
                self.back();
                Here::Elsewhere(Rest::All)
            }
            Ok(None) => {
                self.again();
                Here::Elsewhere(Rest::Apart)
            }
            Ok(Some(ran)) => match self.settle(ran, now) {
                Ok(outcomes) => Here::Done(self.told(outcomes)),
                Err(_) => {
                    self.back();
                    Here::Elsewhere(Rest::All)
                }
            },
        };
        let done = self.clock.now();
        self.slow_until = (done - now >= SLOW).then(|| done + SLOW_FOR);
        here
    }

    /// The batch back, to be run once more with savepoints.
    fn again(&mut self) {
        self.counters.reruns.add(1);
        self.back();
    }

    /// Run and commit what is left of a batch; one outcome each.
    fn work(&mut self, jobs: &mut [Box<dyn Job>], mut rest: Rest) -> Vec<Result<(), StoreError>> {
        let now = self.clock.now();
        let due = self.is_due();
        if jobs.is_empty() && due {
            self.counters.pushes.add(1);
        }
        let fault = loop {
            let ran = match rest {
                Rest::Commit(ran) => Ok(Some(ran)),
                Rest::All => self.run(jobs, false, due),
                Rest::Apart => self.run(jobs, true, due),
            };
            match ran.and_then(|ran| ran.map(|ran| self.settle(ran, now)).transpose()) {
                Ok(Some(outcomes)) => return self.told(outcomes),
                // at most once: with savepoints a job fails alone
                Ok(None) => {
                    self.again();
                    rest = Rest::Apart;
                }
                Err(fault) => break fault,
            }
        };
        self.back();
        self.ledger.not_before = Some(now + RETRY);
        let error = StoreError(format!("{}: {fault}", self.path.display()));
        tracing::error!(%error, jobs = jobs.len(), "a batch was not committed");
        self.counters.failed.add(jobs.len() as u64);
        jobs.iter().map(|_| Err(error.clone())).collect()
    }

    /// Run all jobs behind what is held. `None`: one failed, and there are no savepoints to take it back alone.
    fn run(&mut self, jobs: &mut [Box<dyn Job>], apart: bool, due: bool) -> Result<Option<Ran>, Fault> {
        let db = Db {
            sql: &self.sql,
            seal: &self.seal,
            unix: self.clock.unix(),
            arrivals: &self.arrivals,
            counters: &self.counters,
        };
        db.run(if self.held > 0 { "SAVEPOINT batch" } else { "BEGIN" }, [])?;
        let mut outcomes = Outcomes::with_capacity(jobs.len());
        // Rows of the jobs that stand. (SQLite counts those that were taken back too.)
        let mut rows = 0;
        for job in jobs.iter_mut() {
            let before = db.sql.total_changes();
            let outcome = if apart { alone(job.as_mut(), &db)? } else { guarded(job.as_mut(), &db) };
            if outcome.is_err() && !apart {
                return Ok(None);
            }
            if outcome.is_ok() {
                rows += db.sql.total_changes() - before;
            }
            outcomes.push(outcome);
        }
        let standing = || outcomes.iter().flatten();
        let frames: u32 = standing().map(|done| done.frames).sum();
        let durable = standing().any(|done| done.commit == Commit::Durable);
        // A durable decision that changed nothing rests on what it read, and that may be held.
        let commits = (rows > 0 && (self.strict || durable || self.ledger.frames + frames >= FRAMES))
            || (self.ledger.dirty && (durable || due));
        Ok(Some(Ran { outcomes, rows, frames, commits }))
    }

    /// Commit a batch, or hold it.
    fn settle(&mut self, ran: Ran, now: Instant) -> Result<Outcomes, Fault> {
        let Ran { outcomes, mut rows, frames, commits } = ran;
        let run = |sql: &str| -> Result<usize, Fault> { Ok(self.sql.prepare_cached(sql)?.execute([])?) };
        if commits && self.held + rows == 0 {
            // A commit without a page does not wait for the disk: give it one.
            rows += run("UPDATE meta SET value = value + 1 WHERE name = 'flushes'")? as u64;
        }
        if commits || self.held + rows == 0 {
            run("COMMIT")?;
        } else if self.held > 0 {
            run("RELEASE batch")?;
        }
        self.counters.rows.add(rows);
        self.counters.uplinks.add(frames.into());
        if commits {
            self.counters.commits.add(1);
            self.held = 0;
            self.ledger = Ledger::default();
            self.measure();
        } else {
            self.held += rows;
            outcomes.iter().flatten().for_each(|done| self.ledger.note(done, rows > 0, now));
        }
        Ok(outcomes)
    }

    /// Take the batch back, and leave what is held as it was before.
    fn back(&mut self) {
        let back = match (self.sql.is_autocommit(), self.held > 0) {
            (false, true) => self.sql.execute_batch("ROLLBACK TO batch; RELEASE batch"),
            (false, false) => self.sql.execute_batch("ROLLBACK"),
            // After some failures (a full disk, I/O) SQLite has rolled everything back already.
            (true, true) => {
                let Ledger { frames, .. } = std::mem::take(&mut self.ledger);
                self.held = 0;
                tracing::error!(
                    frames,
                    "the disk has refused what was not on it yet: it is lost, as in a power cut"
                );
                Ok(())
            }
            (true, false) => Ok(()),
        };
        if let Err(error) = back {
            tracing::error!(%error, "ROLLBACK");
        }
    }

    /// Commit what is held, between batches.
    fn push(&mut self) -> rusqlite::Result<()> {
        if self.held > 0 {
            let done = self.sql.execute_batch("COMMIT");
            if done.is_err() {
                self.back();
                return done;
            }
            self.held = 0;
            self.ledger = Ledger::default();
            self.counters.commits.add(1);
        }
        Ok(())
    }

    fn told(&self, outcomes: Outcomes) -> Vec<Result<(), StoreError>> {
        self.counters.jobs.add(outcomes.len() as u64);
        self.counters.failed.add(outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64);
        outcomes.into_iter().map(|outcome| outcome.map(drop).map_err(StoreError::from)).collect()
    }

    /// The pragma's answer: pages in the log, and of these those that are in the database.
    fn log(&self, mode: &str) -> rusqlite::Result<(i64, i64, i64)> {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        self.sql.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?.query_row([], row)
    }

    /// How long the log is.
    fn measure(&mut self) {
        if let Ok((_, log, copied)) = self.log("NOOP") {
            self.log = log - copied;
        }
    }

    /// Copy the log into the database and begin it anew: the log stays short.
    fn checkpoint(&mut self, mode: &str) {
        self.log = 0;
        match self.push().and_then(|()| self.log(mode)) {
            // It waits for the disk, log first: nothing is at stake any more.
            Ok((0, log, copied)) if log == copied => self.ledger = Ledger::default(),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, path = %self.path.display(), "checkpoint"),
        }
        self.counters.checkpoints.add(1);
    }

    /// The last run did not close the store. Its last commit may still be nowhere but in the kernel's cache: before anybody reads it,
    /// it is on the disk.
    pub fn inherits(&mut self) {
        let now = self.clock.now();
        self.ledger = Ledger { dirty: true, counters: Some(now), outbox: Some(now), ..Ledger::default() };
        self.checkpoint("TRUNCATE");
    }

    /// The last push; the connection copies its log and deletes it.
    fn close(mut self) -> Result<(), StoreError> {
        let pushed = self.push();
        self.checkpoint("TRUNCATE");
        pushed.map_err(|error| StoreError(format!("{}: {error}", self.path.display())))
    }
}

/// The runtime may end before anybody has closed the store.
impl Drop for Machine {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Err(error) = self.push()
        {
            tracing::error!(%error, path = %self.path.display(), "COMMIT");
        }
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
        let tidy = (machine.log >= CHECKPOINT).then(|| clock.now() + IDLE);
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
        let here = if idle { Here::Done(Vec::new()) } else { machine.work_here(&mut jobs) };
        let outcomes = match here {
            Here::Done(outcomes) => outcomes,
            Here::Elsewhere(rest) => {
                let batch = move || {
                    let outcomes = machine.work(&mut jobs, rest);
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
        if machine.log >= CHECKPOINT_NOW || (idle && machine.log >= CHECKPOINT) {
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
