//! Roaming contexts: of visitors that we forward (fNS), and those that we granted for our own devices (sNS).

use rusqlite::{Row, params};

use super::Store;
use super::rows::{Bits, Seconds, Text};
use super::secrets::Place;
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::MicKey;
use crate::fns::contexts::{Context, ContextId, Contexts};
use crate::lorawan::NetId;
use crate::sns::{Visit, Visits};

impl Contexts for Store {
    fn contexts(&self) -> Boxed<'_, Result<Vec<Context>, StoreError>> {
        Box::pin(self.queue.run(false, |db| Ok((contexts(db)?, Done::new(Commit::Nothing)))))
    }

    fn keep(&self, context: Context) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(true, move |db| keep(db, &context)))
    }

    fn forget(&self, ids: Vec<ContextId>) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(true, move |db| {
            for id in &ids {
                let delete = "DELETE FROM contexts WHERE net_id = ?1 AND dev_eui = ?2 AND dev_addr = ?3";
                db.run(delete, (Text(id.net_id), Text(id.dev_eui), Text(id.dev_addr)))?;
            }
            Ok(((), Done::new(Commit::Durable)))
        }))
    }
}

fn place(id: &ContextId) -> Place {
    Place::new("contexts", "mic_key", format_args!("{}/{}/{}", id.net_id, id.dev_eui, id.dev_addr))
}

fn contexts(db: &Db<'_>) -> Result<Vec<Context>, Fault> {
    let mut select = db.sql.prepare_cached("SELECT * FROM contexts")?;
    let mut rows = select.query([])?;
    let mut contexts = Vec::new();
    while let Some(row) = rows.next()? {
        contexts.push(context(db, row)?);
    }
    Ok(contexts)
}

fn context(db: &Db<'_>, row: &Row<'_>) -> Result<Context, Fault> {
    let id = ContextId {
        net_id: row.get::<_, Text<_>>("net_id")?.0,
        dev_eui: row.get::<_, Text<_>>("dev_eui")?.0,
        dev_addr: row.get::<_, Text<_>>("dev_addr")?.0,
    };
    let sealed: Option<Vec<u8>> = row.get("mic_key")?;
    let key = sealed.map(|sealed| db.seal.open_key(&place(&id), &sealed)).transpose()?;
    let v1_1: bool = row.get("v1_1")?;
    Ok(Context {
        until: row.get::<_, Seconds>("until")?.0,
        lifetime: row.get("lifetime")?,
        mic_key: key.map(|key| if v1_1 { MicKey::FNwkSIntKey(key) } else { MicKey::NwkSKey(key) }),
        fcnt_up: row.get("fcnt_up")?,
        id,
    })
}

fn keep(db: &Db<'_>, context: &Context) -> Result<((), Done), Fault> {
    let id = &context.id;
    let (key, v1_1) = match &context.mic_key {
        None => (None, false),
        Some(MicKey::NwkSKey(key)) => (Some(key), false),
        Some(MicKey::FNwkSIntKey(key)) => (Some(key), true),
    };
    db.run(
        "INSERT OR REPLACE INTO contexts (net_id, dev_eui, dev_addr, until, lifetime, mic_key, v1_1, fcnt_up)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            Text(id.net_id),
            Text(id.dev_eui),
            Text(id.dev_addr),
            Seconds(context.until),
            context.lifetime,
            key.map(|key| db.seal.seal(&place(id), key.expose())).transpose()?,
            v1_1,
            context.fcnt_up,
        ],
    )?;
    Ok(((), Done::new(Commit::Durable)))
}

const VISITS: &str = "SELECT visits.* FROM visits";
/// Their sessions are no more, or may not be elsewhere any longer.
const ENDED: &str = "SELECT visits.* FROM visits LEFT JOIN sessions ON sessions.id = visits.session
    WHERE sessions.id IS NULL OR NOT sessions.roaming";

impl Visits for Store {
    fn visits(&self) -> Boxed<'_, Result<Vec<Visit>, StoreError>> {
        Box::pin(self.queue.run(false, |db| Ok((visits(db, VISITS)?, Done::new(Commit::Nothing)))))
    }

    fn ended_visits(&self) -> Boxed<'_, Result<Vec<Visit>, StoreError>> {
        Box::pin(self.queue.run(false, |db| Ok((visits(db, ENDED)?, Done::new(Commit::Nothing)))))
    }

    fn grant(&self, visit: Visit) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(true, move |db| {
            db.run(
                "INSERT OR REPLACE INTO visits (session, net_id, dev_eui, dev_addr, until) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    Bits(visit.session),
                    Text(visit.net_id),
                    Text(visit.dev_eui),
                    Text(visit.dev_addr),
                    Seconds(visit.until)
                ],
            )?;
            Ok(((), Done::new(Commit::Durable)))
        }))
    }

    fn end_visits(&self, of: Vec<(u64, NetId)>) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(true, move |db| {
            for (session, net_id) in &of {
                let delete = "DELETE FROM visits WHERE session = ?1 AND net_id = ?2";
                db.run(delete, (Bits(*session), Text(*net_id)))?;
            }
            Ok(((), Done::new(Commit::Durable)))
        }))
    }
}

fn visits(db: &Db<'_>, select: &str) -> Result<Vec<Visit>, Fault> {
    let mut select = db.sql.prepare_cached(select)?;
    let rows = select.query_map([], |row| {
        Ok(Visit {
            session: row.get::<_, Bits>("session")?.0,
            net_id: row.get::<_, Text<_>>("net_id")?.0,
            dev_eui: row.get::<_, Text<_>>("dev_eui")?.0,
            dev_addr: row.get::<_, Text<_>>("dev_addr")?.0,
            until: row.get::<_, Seconds>("until")?.0,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
