//! What another primary server has to be told: places whose records have changed.

use rusqlite::params;

use super::{Book, Entry, Looked, behind};

/// The number of another change.
const NEXT: &str = "(SELECT coalesce(max(change), 0) + 1 FROM registry_outbox)";

impl Book<'_> {
    /// Whether changes are remembered for another primary from now on. At the first time it has to be told everything.
    pub fn drives(&self, drives: bool) -> Looked<()> {
        let did = self.one("SELECT drives FROM registry_zone", [], |row| row.get::<_, bool>(0))?;
        if did == Some(drives) {
            return Ok(());
        }
        self.0.run("UPDATE registry_zone SET drives = ?1", [drives])?;
        match drives {
            true => self.remember("1", [])?,
            false => _ = self.0.run("DELETE FROM registry_outbox", [])?,
        }
        Ok(())
    }

    /// Records of these places change.
    pub(super) fn remember(&self, which: &str, values: impl rusqlite::Params) -> Looked<()> {
        let write = format!(
            "INSERT OR REPLACE INTO registry_outbox SELECT DISTINCT place, {NEXT} FROM registry_record \
             WHERE ({which}) AND (SELECT drives FROM registry_zone)"
        );
        self.0.run(&write, values)?;
        Ok(())
    }

    /// Records of this place change. A block's change what is said of every name below it that has records of its own.
    pub(super) fn remember_place(&self, place: &[u8]) -> Looked<()> {
        let write = format!(
            "INSERT OR REPLACE INTO registry_outbox SELECT ?1, {NEXT} WHERE (SELECT drives FROM registry_zone)"
        );
        self.0.run(&write, [place])?;
        match place.strip_suffix(b"*\0") {
            Some(block) => self.remember("place >= ?1 AND place < ?2", params![block, behind(block)]),
            None => Ok(()),
        }
    }

    /// Places that have to be told, in order, each with the number of its change.
    pub fn to_tell(&self, most: u32) -> Looked<Vec<(Vec<u8>, i64)>> {
        let select = "SELECT place, change FROM registry_outbox ORDER BY place LIMIT ?1";
        self.all(select, [most], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// How many there are.
    pub fn untold(&self) -> Looked<u64> {
        let count = self.one("SELECT count(*) FROM registry_outbox", [], |row| row.get::<_, i64>(0))?;
        Ok(count.unwrap_or(0).max(0).cast_unsigned())
    }

    /// They have been told, as they were at those changes.
    pub fn told(&self, places: &[(Vec<u8>, i64)]) -> Looked<()> {
        for (place, change) in places {
            self.0.run(
                "DELETE FROM registry_outbox WHERE place = ?1 AND change = ?2",
                params![place, change],
            )?;
        }
        Ok(())
    }

    /// What a server that knows the DNS's wildcards only (RFC 4592) has to hold because of a place: it, and the names between it and
    /// the block around it, each with its wildcard. An empty list: nothing stands there.
    pub fn as_wildcards(&self, place: &[u8]) -> Looked<Vec<(Vec<u8>, Vec<Entry>)>> {
        let mut all = vec![(place.to_vec(), self.at(place)?)];
        let ends = place.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
        for end in ends.filter(|end| *end < place.len()) {
            let between = place.get(..end).unwrap_or_default();
            let wild = [between, b"*\0"].concat();
            let inside =
                "SELECT 1 FROM registry_record WHERE place >= ?1 AND place < ?2 AND place <> ?3 LIMIT 1";
            let is_there = self.one(inside, params![between, behind(between), wild], |_| Ok(()))?.is_some();
            for at in [between.to_vec(), wild].into_iter().filter(|at| at != place) {
                let mut entries = self.at(&at)?;
                if entries.is_empty() && is_there {
                    entries = self.block(&at)?;
                    entries.iter_mut().for_each(|entry| entry.place.clone_from(&at));
                }
                all.push((at, entries));
            }
        }
        Ok(all)
    }
}
