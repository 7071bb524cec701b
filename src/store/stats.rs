//! What the store has written so far: the SD card's budget, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Stats {
    /// Decisions and reads done.
    pub jobs: u64,
    /// Of these, failed (their caller got a `StoreError`).
    pub failed: u64,
    /// Transactions that wrote something, and waited for the disk.
    pub commits: u64,
    /// Rows inserted, changed or deleted.
    pub rows: u64,
    /// Batches run again because one of their jobs failed.
    pub reruns: u64,
    /// Of the commits, those that the writer made by itself to keep the bounds of `balanced`.
    pub pushes: u64,
    /// Times the log was copied into the database.
    pub checkpoints: u64,
    /// Uplinks accepted.
    pub uplinks: u64,
    /// Messages for the next room that were dropped, oldest first, because too many waited.
    pub forward_dropped: u64,
    /// Events for applications that were dropped, oldest first, because too many waited.
    pub outbox_dropped: u64,
}

impl Stats {
    /// Every one by its name.
    pub fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("jobs", self.jobs),
            ("failed", self.failed),
            ("commits", self.commits),
            ("rows", self.rows),
            ("reruns", self.reruns),
            ("pushes", self.pushes),
            ("checkpoints", self.checkpoints),
            ("uplinks", self.uplinks),
            ("forward_dropped", self.forward_dropped),
            ("outbox_dropped", self.outbox_dropped),
        ]
    }

    /// Transactions that wrote, for each accepted uplink.
    pub fn writes_per_uplink(&self) -> Option<f64> {
        (self.uplinks > 0).then(|| self.commits as f64 / self.uplinks as f64)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub jobs: Counter,
    pub failed: Counter,
    pub commits: Counter,
    pub rows: Counter,
    pub reruns: Counter,
    pub pushes: Counter,
    pub checkpoints: Counter,
    pub uplinks: Counter,
    pub forward_dropped: Counter,
    pub outbox_dropped: Counter,
}

impl Counters {
    pub fn read(&self) -> Stats {
        Stats {
            jobs: self.jobs.get(),
            failed: self.failed.get(),
            commits: self.commits.get(),
            rows: self.rows.get(),
            reruns: self.reruns.get(),
            pushes: self.pushes.get(),
            checkpoints: self.checkpoints.get(),
            uplinks: self.uplinks.get(),
            forward_dropped: self.forward_dropped.get(),
            outbox_dropped: self.outbox_dropped.get(),
        }
    }
}
