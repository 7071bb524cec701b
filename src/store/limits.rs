//! What partners want and what they have used: hold-offs, and their share of the air today (fNS).

use std::time::Duration;

use rusqlite::params;

use super::Store;
use super::rows::{Seconds, Text};
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::fns::hold_off::{HoldOff, Limits, Whom};
use crate::lorawan::NetId;

/// Rows at most; those that end first go.
const MOST: u64 = 10_000;

impl Limits for Store {
    fn hold_offs(&self) -> Boxed<'_, Result<Vec<HoldOff>, StoreError>> {
        Box::pin(self.queue.look(hold_offs))
    }

    fn hold_off(&self, of: HoldOff) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| hold_off(db, &of)))
    }

    fn airtime(&self, day: u64) -> Boxed<'_, Result<Vec<(NetId, Duration)>, StoreError>> {
        Box::pin(self.queue.look(move |db| airtime(db, day)))
    }

    fn use_airtime(&self, day: u64, net_id: NetId, time: Duration) -> Boxed<'_, Result<(), StoreError>> {
        let micros = Seconds(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        Box::pin(self.queue.run(false, move |db| {
            let write = "INSERT OR REPLACE INTO airtime (net_id, day, micros) VALUES (?1, ?2, ?3)";
            db.run(write, params![Text(net_id), Seconds(day), micros])?;
            // as exact as the usage records beside it
            Ok(((), Done::new(Commit::Lazy)))
        }))
    }
}

fn hold_offs(db: &Db<'_>) -> Result<Vec<HoldOff>, Fault> {
    let mut select = db.sql.prepare_cached("SELECT net_id, device, until FROM hold_offs")?;
    let rows = select.query_map([], |row| {
        let device: String = row.get("device")?;
        Ok((row.get::<_, Text<NetId>>("net_id")?.0, device, row.get::<_, Seconds>("until")?.0))
    })?;
    let mut all = Vec::new();
    for row in rows {
        let (net_id, device, until) = row?;
        // an address has eight digits and an identity sixteen
        let whom = match device.parse() {
            Ok(dev_addr) => Some(Whom::Addr(dev_addr)),
            Err(_) => device.parse().ok().map(Whom::Device),
        };
        let whom = whom.ok_or_else(|| Fault::Wrong(format!("hold_offs: {device}")))?;
        all.push(HoldOff { net_id, whom, until });
    }
    Ok(all)
}

fn hold_off(db: &Db<'_>, of: &HoldOff) -> Result<((), Done), Fault> {
    let device = match of.whom {
        Whom::Addr(dev_addr) => dev_addr.to_string(),
        Whom::Device(dev_eui) => dev_eui.to_string(),
    };
    if of.until == 0 {
        db.run("DELETE FROM hold_offs WHERE net_id = ?1 AND device = ?2", (Text(of.net_id), device))?;
    } else {
        let write = "INSERT OR REPLACE INTO hold_offs (net_id, device, until) VALUES (?1, ?2, ?3)";
        db.run(write, (Text(of.net_id), device, Seconds(of.until)))?;
        db.run("DELETE FROM hold_offs WHERE until <= ?1", [Seconds(db.unix)])?;
        let surplus = "DELETE FROM hold_offs WHERE (net_id, device) IN
            (SELECT net_id, device FROM hold_offs ORDER BY until DESC LIMIT -1 OFFSET ?1)";
        db.run(surplus, [Seconds(MOST)])?;
    }
    // lost, a home is asked once more than it wanted
    Ok(((), Done::new(Commit::Lazy)))
}

fn airtime(db: &Db<'_>, day: u64) -> Result<Vec<(NetId, Duration)>, Fault> {
    let mut select = db.sql.prepare_cached("SELECT net_id, micros FROM airtime WHERE day = ?1")?;
    let rows = select.query_map([Seconds(day)], |row| {
        Ok((row.get::<_, Text<_>>(0)?.0, Duration::from_micros(row.get::<_, Seconds>(1)?.0)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
