//! NetIDs that HomeNSAns taught the fNS, for routing of data frames.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use rusqlite::Connection;

use super::Store;
use super::rows::{Seconds, Text};
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::fns::Learned;
use crate::lorawan::NetId;

/// Strangers teach us these, so they are bounded; the longest known go first.
pub(super) const MOST: u32 = 1024;

pub(super) fn load(sql: &Connection) -> rusqlite::Result<BTreeSet<NetId>> {
    let mut select = sql.prepare("SELECT net_id FROM learned")?;
    select.query_map([], |row| Ok(row.get::<_, Text<NetId>>(0)?.0))?.collect()
}

impl Learned for Store {
    fn net_ids(&self) -> Vec<NetId> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        learned.iter().copied().collect()
    }

    fn learn(&self, net_id: NetId) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let known = |store: &Store| {
                store.learned.read().unwrap_or_else(PoisonError::into_inner).contains(&net_id)
            };
            if known(self) {
                return Ok(());
            }
            let forgotten = self.queue.run(false, move |db| learn(db, net_id)).await?;
            let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
            learned.insert(net_id);
            learned.retain(|net_id| !forgotten.contains(net_id));
            Ok(())
        })
    }
}

/// Write one, answer those that had to make room.
fn learn(db: &Db<'_>, net_id: NetId) -> Result<(Vec<NetId>, Done), Fault> {
    let insert = "INSERT INTO learned (net_id, since) VALUES (?1, ?2) ON CONFLICT (net_id) DO NOTHING";
    db.run(insert, (Text(net_id), Seconds(db.unix)))?;
    let mut surplus = db.sql.prepare_cached(
        "DELETE FROM learned WHERE net_id IN
            (SELECT net_id FROM learned WHERE net_id <> ?1 ORDER BY since DESC, net_id LIMIT -1 OFFSET ?2)
         RETURNING net_id",
    )?;
    let forgotten = surplus.query_map((Text(net_id), MOST - 1), |row| Ok(row.get::<_, Text<NetId>>(0)?.0))?;
    // Learnt again by the next join, should a power cut lose it.
    Ok((forgotten.collect::<Result<_, _>>()?, Done::new(Commit::Lazy)))
}
