//! Outbox rows: events that a sink has not taken yet.

use std::sync::Arc;

use super::rows::{Seconds, Text};
use super::writer::{Db, Done, Fault, Mark};
use super::{Store, devices};
use crate::application::outbox::{Event, Letter, Outbox, Postman, Sink, Waiting};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::hns::{Decide, Devices, Handover, Telling};
use crate::lorawan::DevEui;

impl Outbox for Store {
    fn put(&self, sinks: Vec<Sink>, event: Event, most: u32) -> Boxed<'_, Result<u64, StoreError>> {
        let most = self.may_wait(most);
        Box::pin(self.queue.run(false, move |db| {
            let dropped = append(db, &Letter { sinks: sinks.clone(), event: event.clone(), most })?;
            // The row of the uplink in `forward` goes after this one came: a power cut that takes this, takes that first.
            Ok((dropped, Done { outbox: Mark::Waits, harmless: true, ..Done::new(Commit::Lazy) }))
        }))
    }

    fn first(&self, sink: Sink, count: u32) -> Boxed<'_, Result<Vec<Waiting>, StoreError>> {
        Box::pin(self.queue.look(move |db| first(db, sink, count)))
    }

    fn taken(&self, sink: Sink, up_to: u64) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| taken(db, sink, up_to)))
    }
}

/// The devices of a store, whose news go to the application by the commit that makes them.
pub struct Told {
    store: Store,
    postman: Arc<dyn Postman>,
}

impl Store {
    /// The devices, with somebody to tell what becomes of them.
    pub fn telling(&self, postman: Arc<dyn Postman>) -> Told {
        Told { store: self.clone(), postman }
    }
}

impl Devices for Told {
    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>> {
        self.store.with_device(dev_eui, decide)
    }

    fn ended_handovers(&self) -> Boxed<'_, Result<Vec<Handover>, StoreError>> {
        self.store.ended_handovers()
    }

    fn end_handover(&self, handover: Handover) -> Boxed<'_, Result<bool, StoreError>> {
        self.store.end_handover(handover)
    }

    fn telling(&self, dev_eui: DevEui, decide: Telling) -> Boxed<'_, Result<(), StoreError>> {
        let (postman, most) = (self.postman.clone(), self.store.may_wait(u32::MAX));
        let work = move |db: &Db<'_>| {
            let (news, done) = devices::telling(db, dev_eui, &decide)?;
            let Some((device, notices)) = news else { return Ok((None, done)) };
            let mut dropped = 0;
            for notice in &notices {
                let letter = postman.letter(&device, notice);
                dropped += append(db, &Letter { most: letter.most.min(most), ..letter })?;
            }
            Ok((Some(dropped), Done { outbox: Mark::Waits, ..done }))
        };
        Box::pin(async move {
            if let Some(dropped) = self.store.queue.run(false, work).await? {
                self.postman.posted(dropped);
            }
            Ok(())
        })
    }
}

/// The table of a sink.
fn line(sink: Sink) -> &'static str {
    match sink {
        Sink::Mqtt => "outbox_mqtt",
        Sink::Http => "outbox_http",
    }
}

/// First and last id of a sink's line.
fn ends(db: &Db<'_>, sink: Sink) -> Result<Option<(u64, u64)>, Fault> {
    let line = line(sink);
    // two subqueries: each is one step at one end of the tree
    let mut select = db
        .sql
        .prepare_cached(&format!("SELECT (SELECT min(id) FROM {line}), (SELECT max(id) FROM {line})"))?;
    let ends = select
        .query_row([], |row| Ok((row.get::<_, Option<Seconds>>(0)?, row.get::<_, Option<Seconds>>(1)?)))?;
    Ok(match ends {
        (Some(first), Some(last)) => Some((first.0, last.0)),
        _ => None,
    })
}

/// Answers how many events had to go.
fn append(db: &Db<'_>, letter: &Letter) -> Result<u64, Fault> {
    let Letter { sinks, event, most } = letter;
    let mut dropped = 0;
    for sink in sinks {
        let (first, last) = ends(db, *sink)?.map_or((1, 0), |ends| ends);
        let id = last + 1;
        let line = line(*sink);
        db.run(
            &format!("INSERT INTO {line} (id, dev_eui, kind, body) VALUES (?1, ?2, ?3, ?4)"),
            (Seconds(id), Text(event.dev_eui), Text(event.kind), &event.body),
        )?;
        // the ids have no gaps: lines lose rows at their ends only
        let keep_from = (id + 1).saturating_sub((*most).max(1).into());
        if keep_from > first {
            let delete = format!("DELETE FROM {line} WHERE id < ?1");
            dropped += db.run(&delete, [Seconds(keep_from)])? as u64;
        }
    }
    db.counters.outbox_dropped.add(dropped);
    Ok(dropped)
}

fn first(db: &Db<'_>, sink: Sink, count: u32) -> Result<Vec<Waiting>, Fault> {
    let line = line(sink);
    let mut select =
        db.sql.prepare_cached(&format!("SELECT id, dev_eui, kind, body FROM {line} ORDER BY id LIMIT ?1"))?;
    let rows = select.query_map([count], |row| {
        let event = Event {
            dev_eui: row.get::<_, Text<_>>(1)?.0,
            kind: row.get::<_, Text<_>>(2)?.0,
            body: row.get(3)?,
        };
        Ok(Waiting { id: row.get::<_, Seconds>(0)?.0, event })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn taken(db: &Db<'_>, sink: Sink, up_to: u64) -> Result<((), Done), Fault> {
    db.run(&format!("DELETE FROM {} WHERE id <= ?1", line(sink)), [Seconds(up_to)])?;
    let nothing = "SELECT NOT EXISTS (SELECT 1 FROM outbox_mqtt) AND NOT EXISTS (SELECT 1 FROM outbox_http)";
    let empty = db.sql.prepare_cached(nothing)?.query_row([], |row| row.get(0))?;
    let outbox = if empty { Mark::Empty } else { Mark::None };
    // Lost in a power cut, the rows are sent again.
    Ok(((), Done { outbox, harmless: true, ..Done::new(Commit::Lazy) }))
}
