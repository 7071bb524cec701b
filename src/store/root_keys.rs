//! Root keys and nonces of the join server.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Row};

use super::Store;
use super::rows::Text;
use super::secrets::Place;
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::js::{Decide, Derivation, Device, RootKeys};
use crate::lorawan::{DevEui, Key};

impl RootKeys for Store {
    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>> {
        // Joins take nonces; those of our own hNS wait for the disk when the sNS has its session.
        Box::pin(self.queue.run(false, move |db| over(db, dev_eui, &decide)))
    }
}

impl Store {
    /// Forget the DevNonces and RJcount1 of a device whose counters began anew (a battery change on a faulty device, TS002
    /// 11.6 in our reading): the operator's deliberate act. The JoinNonce goes on. `false`: no such device.
    pub async fn clear_dev_nonces(&self, dev_eui: DevEui) -> Result<bool, StoreError> {
        let clear = move |db: &Db<'_>| {
            let known = load(db, dev_eui)?.is_some();
            db.run("DELETE FROM dev_nonces WHERE dev_eui = ?1", [Text(dev_eui)])?;
            db.run("UPDATE root_keys SET rj_count1 = NULL WHERE dev_eui = ?1", [Text(dev_eui)])?;
            Ok((known, Done::new(Commit::Durable)))
        };
        self.queue.run(true, clear).await
    }
}

fn over(db: &Db<'_>, dev_eui: DevEui, decide: &Decide) -> Result<((), Done), Fault> {
    let before = load(db, dev_eui)?;
    let mut after = before.clone();
    let commit = decide(&mut after);
    if commit != Commit::Nothing {
        store(db, dev_eui, before.as_ref(), after.as_ref())?;
    }
    Ok(((), Done::new(commit)))
}

fn place(column: &str, dev_eui: DevEui) -> Place {
    Place::new("root_keys", column, dev_eui)
}

pub(super) fn load(db: &Db<'_>, dev_eui: DevEui) -> Result<Option<Device>, Fault> {
    let mut select = db.sql.prepare_cached("SELECT * FROM root_keys WHERE dev_eui = ?1")?;
    let mut rows = select.query([Text(dev_eui)])?;
    rows.next()?.map(|row| device(db, dev_eui, row)).transpose()
}

fn device(db: &Db<'_>, dev_eui: DevEui, row: &Row<'_>) -> Result<Device, Fault> {
    let key = |column, sealed: Vec<u8>| db.seal.open_key(&place(column, dev_eui), &sealed);
    let mut nonces = db.sql.prepare_cached("SELECT dev_nonce FROM dev_nonces WHERE dev_eui = ?1")?;
    let nonces = nonces.query_map([Text(dev_eui)], |row| row.get(0))?;
    Ok(Device {
        dev_eui,
        join_eui: row.get::<_, Text<_>>("join_eui")?.0,
        mac_version: row.get::<_, Text<_>>("mac_version")?.0,
        app_key: key("app_key", row.get("app_key")?)?,
        nwk_key: row.get::<_, Option<_>>("nwk_key")?.map(|sealed| key("nwk_key", sealed)).transpose()?,
        home: row.get::<_, Option<Text<_>>>("home")?.map(|home| home.0),
        enabled: row.get("enabled")?,
        dev_nonces: nonces.collect::<Result<BTreeSet<u16>, _>>()?,
        join_nonce: row.get("join_nonce")?,
        rj_count1: row.get("rj_count1")?,
        derivations: derivations(db, dev_eui)?,
    })
}

fn derivations(db: &Db<'_>, dev_eui: DevEui) -> Result<Vec<Derivation>, Fault> {
    let select = "SELECT join_nonce, nonce, net_id, v1_1, rj_count0 FROM derivations WHERE dev_eui = ?1 ORDER BY join_nonce";
    let mut select = db.sql.prepare_cached(select)?;
    let rows = select.query_map([Text(dev_eui)], |row| {
        let (join_nonce, nonce, net_id) = (row.get(0)?, row.get(1)?, row.get::<_, Text<_>>(2)?.0);
        Ok(Derivation { join_nonce, nonce, net_id, v1_1: row.get(3)?, rj_count0: row.get(4)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Write what differs.
pub(super) fn store(
    db: &Db<'_>,
    dev_eui: DevEui,
    before: Option<&Device>,
    after: Option<&Device>,
) -> Result<(), Fault> {
    let Some(new) = after else { return before.map_or(Ok(()), |old| retire(db, old)) };
    if new.dev_eui != dev_eui {
        return Err(Fault::Wrong(format!("a decision over {dev_eui} left {}", new.dev_eui)));
    }
    let none = BTreeSet::new();
    let had = before.map_or(&none, |old| &old.dev_nonces);
    match before {
        None => insert(db, new)?,
        Some(old) => update(db, old, new)?,
    }
    for gone in had.difference(&new.dev_nonces) {
        let delete = "DELETE FROM dev_nonces WHERE dev_eui = ?1 AND dev_nonce = ?2";
        db.run(delete, (Text(dev_eui), gone))?;
    }
    for taken in new.dev_nonces.difference(had) {
        let insert = "INSERT INTO dev_nonces (dev_eui, dev_nonce) VALUES (?1, ?2)";
        db.run(insert, (Text(dev_eui), taken))?;
    }
    let had = before.map_or(&[][..], |old| &old.derivations);
    for gone in had.iter().filter(|old| !new.derivations.contains(old)) {
        let delete = "DELETE FROM derivations WHERE dev_eui = ?1 AND join_nonce = ?2";
        db.run(delete, (Text(dev_eui), gone.join_nonce))?;
    }
    for made in new.derivations.iter().filter(|new| !had.contains(new)) {
        let insert = "INSERT INTO derivations (dev_eui, join_nonce, nonce, net_id, v1_1, rj_count0)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Derivation { join_nonce, nonce, net_id, v1_1, rj_count0 } = made;
        db.run(insert, (Text(dev_eui), join_nonce, nonce, Text(*net_id), v1_1, rj_count0))?;
    }
    Ok(())
}

fn sealed(db: &Db<'_>, column: &str, dev_eui: DevEui, key: &Key) -> Result<Vec<u8>, Fault> {
    Ok(db.seal.seal(&place(column, dev_eui), key.expose())?)
}

fn insert(db: &Db<'_>, new: &Device) -> Result<(), Fault> {
    let retired = "SELECT join_nonce FROM retired WHERE dev_eui = ?1";
    let retired: Option<u32> =
        db.sql.prepare_cached(retired)?.query_row([Text(new.dev_eui)], |row| row.get(0)).optional()?;
    db.run("DELETE FROM retired WHERE dev_eui = ?1", [Text(new.dev_eui)])?;
    db.run(
        "INSERT INTO root_keys (dev_eui, join_eui, mac_version, app_key, nwk_key, home, enabled, join_nonce)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            Text(new.dev_eui),
            Text(new.join_eui),
            Text(new.mac_version),
            sealed(db, "app_key", new.dev_eui, &new.app_key)?,
            new.nwk_key.as_ref().map(|key| sealed(db, "nwk_key", new.dev_eui, key)).transpose()?,
            new.home.map(Text),
            new.enabled,
            new.join_nonce.max(retired.unwrap_or(0)),
        ),
    )?;
    Ok(())
}

fn update(db: &Db<'_>, old: &Device, new: &Device) -> Result<(), Fault> {
    let nonces = Device {
        join_nonce: new.join_nonce,
        dev_nonces: new.dev_nonces.clone(),
        rj_count1: new.rj_count1,
        derivations: new.derivations.clone(),
        ..old.clone()
    };
    if nonces == *new {
        // Nearly every join.
        if (old.join_nonce, old.rj_count1) != (new.join_nonce, new.rj_count1) {
            let set = "UPDATE root_keys SET join_nonce = ?2, rj_count1 = ?3 WHERE dev_eui = ?1";
            db.run(set, (Text(new.dev_eui), new.join_nonce, new.rj_count1))?;
        }
        return Ok(());
    }
    db.run(
        "UPDATE root_keys SET join_eui = ?2, mac_version = ?3, home = ?4, enabled = ?5, join_nonce = ?6,
            rj_count1 = ?7 WHERE dev_eui = ?1",
        (
            Text(new.dev_eui),
            Text(new.join_eui),
            Text(new.mac_version),
            new.home.map(Text),
            new.enabled,
            new.join_nonce,
            new.rj_count1,
        ),
    )?;
    if old.app_key != new.app_key {
        let key = sealed(db, "app_key", new.dev_eui, &new.app_key)?;
        db.run("UPDATE root_keys SET app_key = ?2 WHERE dev_eui = ?1", (Text(new.dev_eui), key))?;
    }
    if old.nwk_key != new.nwk_key {
        let key = new.nwk_key.as_ref().map(|key| sealed(db, "nwk_key", new.dev_eui, key)).transpose()?;
        db.run("UPDATE root_keys SET nwk_key = ?2 WHERE dev_eui = ?1", (Text(new.dev_eui), key))?;
    }
    Ok(())
}

/// Delete the keys, and remember how far the JoinNonce had come.
fn retire(db: &Db<'_>, old: &Device) -> Result<(), Fault> {
    db.run("DELETE FROM root_keys WHERE dev_eui = ?1", [Text(old.dev_eui)])?;
    if old.join_nonce > 0 {
        let insert = "INSERT INTO retired (dev_eui, join_nonce) VALUES (?1, ?2)
            ON CONFLICT (dev_eui) DO UPDATE SET join_nonce = max(join_nonce, excluded.join_nonce)";
        db.run(insert, (Text(old.dev_eui), old.join_nonce))?;
    }
    Ok(())
}
