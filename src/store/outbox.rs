//! Outbox rows: events that a sink has not taken yet.

use super::Store;
use super::rows::{Seconds, Text};
use super::writer::{Db, Done, Fault, Mark};
use crate::application::outbox::{Event, Outbox, Sink, Waiting};
use crate::backend::door::{Boxed, Commit, StoreError};

impl Outbox for Store {
    fn put(&self, sinks: Vec<Sink>, event: Event, most: u32) -> Boxed<'_, Result<u64, StoreError>> {
        Box::pin(self.queue.run(false, move |db| put(db, &sinks, &event, most)))
    }

    fn first(&self, sink: Sink, count: u32) -> Boxed<'_, Result<Vec<Waiting>, StoreError>> {
        let read = move |db: &Db<'_>| Ok((first(db, sink, count)?, Done::new(Commit::Nothing)));
        Box::pin(self.queue.run(false, read))
    }

    fn taken(&self, sink: Sink, up_to: u64) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| taken(db, sink, up_to)))
    }
}

/// First and last id of a sink's line.
fn ends(db: &Db<'_>, sink: Sink) -> Result<Option<(u64, u64)>, Fault> {
    // two subqueries: each is one step at one end of the tree
    let mut select = db.sql.prepare_cached(
        "SELECT (SELECT min(id) FROM outbox WHERE sink = ?1), (SELECT max(id) FROM outbox WHERE sink = ?1)",
    )?;
    let ends = select.query_row([sink.to_string()], |row| {
        Ok((row.get::<_, Option<Seconds>>(0)?, row.get::<_, Option<Seconds>>(1)?))
    })?;
    Ok(match ends {
        (Some(first), Some(last)) => Some((first.0, last.0)),
        _ => None,
    })
}

fn put(db: &Db<'_>, sinks: &[Sink], event: &Event, most: u32) -> Result<(u64, Done), Fault> {
    let mut dropped = 0;
    for sink in sinks {
        let (first, last) = ends(db, *sink)?.map_or((1, 0), |ends| ends);
        let id = last + 1;
        db.run(
            "INSERT INTO outbox (sink, id, dev_eui, kind, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            (sink.to_string(), Seconds(id), Text(event.dev_eui), Text(event.kind), &event.body),
        )?;
        // the ids have no gaps: lines lose rows at their ends only
        let keep_from = (id + 1).saturating_sub(most.max(1).into());
        if keep_from > first {
            let delete = "DELETE FROM outbox WHERE sink = ?1 AND id < ?2";
            dropped += db.run(delete, (sink.to_string(), Seconds(keep_from)))? as u64;
        }
    }
    db.counters.outbox_dropped.add(dropped);
    // The row of the uplink in `forward` goes after this one came: a power cut that takes this, takes that first.
    Ok((dropped, Done { outbox: Mark::Waits, harmless: true, ..Done::new(Commit::Lazy) }))
}

fn first(db: &Db<'_>, sink: Sink, count: u32) -> Result<Vec<Waiting>, Fault> {
    let mut select = db
        .sql
        .prepare_cached("SELECT id, dev_eui, kind, body FROM outbox WHERE sink = ?1 ORDER BY id LIMIT ?2")?;
    let rows = select.query_map((sink.to_string(), count), |row| {
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
    db.run("DELETE FROM outbox WHERE sink = ?1 AND id <= ?2", (sink.to_string(), Seconds(up_to)))?;
    let empty =
        db.sql.prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM outbox)")?.query_row([], |row| row.get(0))?;
    let outbox = if empty { Mark::Empty } else { Mark::None };
    // Lost in a power cut, the rows are sent again.
    Ok(((), Done { outbox, harmless: true, ..Done::new(Commit::Lazy) }))
}
