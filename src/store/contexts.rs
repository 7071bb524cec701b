//! Roaming contexts: of visitors that we forward (fNS), and those that we granted for our own devices (sNS).

use rusqlite::{Row, ToSql, params};

use super::rows::{Bits, Seconds, Text};
use super::secrets::Place;
use super::writer::{Db, Done, Fault};
use super::{Store, terms};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::MicKey;
use crate::fns::contexts::{Context, ContextId, Contexts};
use crate::lorawan::{DevAddr, DevEui, NetId};
use crate::sns::{Visit, Visits};

const BY_ADDR: &str = "SELECT * FROM contexts WHERE dev_addr = ?1 ORDER BY net_id, dev_eui";
const BY_DEVICE: &str = "SELECT * FROM contexts WHERE net_id = ?1 AND dev_eui = ?2 ORDER BY dev_addr";
const ENDED: &str = "SELECT * FROM contexts WHERE until <= ?1 LIMIT ?2";
const FIRST: &str = "SELECT * FROM contexts ORDER BY net_id, dev_eui, dev_addr LIMIT ?1";
const NEXT: &str = "SELECT * FROM contexts WHERE (net_id, dev_eui, dev_addr) > (?2, ?3, ?4)
    ORDER BY net_id, dev_eui, dev_addr LIMIT ?1";

impl Contexts for Store {
    fn page(&self, after: Option<ContextId>, most: usize) -> Boxed<'_, Result<Vec<ContextId>, StoreError>> {
        let most = Seconds(most as u64);
        Box::pin(self.queue.look(move |db| match after {
            None => read(db, FIRST, params![most], |_, row| id(row)),
            Some(ContextId { net_id, dev_eui, dev_addr }) => {
                let after = params![most, Text(net_id), Text(dev_eui), Text(dev_addr)];
                read(db, NEXT, after, |_, row| id(row))
            }
        }))
    }

    fn with_addr(&self, addr: DevAddr) -> Boxed<'_, Result<Vec<Context>, StoreError>> {
        Box::pin(self.queue.look(move |db| read(db, BY_ADDR, params![Text(addr)], context)))
    }

    fn of_device(&self, net_id: NetId, dev_eui: DevEui) -> Boxed<'_, Result<Vec<Context>, StoreError>> {
        Box::pin(
            self.queue.look(move |db| read(db, BY_DEVICE, params![Text(net_id), Text(dev_eui)], context)),
        )
    }

    fn over(&self, now: u64, most: usize) -> Boxed<'_, Result<Vec<ContextId>, StoreError>> {
        Box::pin(
            self.queue.look(move |db| {
                read(db, ENDED, params![Seconds(now), Seconds(most as u64)], |_, row| id(row))
            }),
        )
    }

    fn keep(&self, context: Context) -> Boxed<'_, Result<bool, StoreError>> {
        Box::pin(self.queue.run(true, move |db| keep(db, &context)))
    }

    fn forget(&self, ids: Vec<ContextId>) -> Boxed<'_, Result<Vec<(ContextId, bool)>, StoreError>> {
        Box::pin(self.queue.run(true, move |db| {
            let mut gone = Vec::new();
            for id in &ids {
                let delete = "DELETE FROM contexts WHERE net_id = ?1 AND dev_eui = ?2 AND dev_addr = ?3";
                if db.run(delete, (Text(id.net_id), Text(id.dev_eui), Text(id.dev_addr)))? > 0 {
                    gone.push(*id);
                }
            }
            let others = "SELECT * FROM contexts WHERE net_id = ?1 AND dev_eui = ?2 LIMIT 1";
            let roams_on = |of: ContextId| {
                let left = read(db, others, params![Text(of.net_id), Text(of.dev_eui)], |_, row| id(row))?;
                Ok((of, !left.is_empty()))
            };
            let gone = gone.into_iter().map(roams_on).collect::<Result<_, Fault>>()?;
            Ok((gone, Done::new(Commit::Durable)))
        }))
    }
}

fn read<T>(
    db: &Db<'_>,
    select: &str,
    of: &[&dyn ToSql],
    as_what: impl Fn(&Db<'_>, &Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut select = db.sql.prepare_cached(select)?;
    let mut rows = select.query(of)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(as_what(db, row)?);
    }
    Ok(found)
}

fn place(id: &ContextId) -> Place {
    Place::new("contexts", "mic_key", format_args!("{}/{}/{}", id.net_id, id.dev_eui, id.dev_addr))
}

fn id(row: &Row<'_>) -> Result<ContextId, Fault> {
    Ok(ContextId {
        net_id: row.get::<_, Text<_>>("net_id")?.0,
        dev_eui: row.get::<_, Text<_>>("dev_eui")?.0,
        dev_addr: row.get::<_, Text<_>>("dev_addr")?.0,
    })
}

fn context(db: &Db<'_>, row: &Row<'_>) -> Result<Context, Fault> {
    let id = id(row)?;
    let sealed: Option<Vec<u8>> = row.get("mic_key")?;
    let key = sealed.map(|sealed| db.seal.open_key(&place(&id), &sealed)).transpose()?;
    let v1_1: bool = row.get("v1_1")?;
    Ok(Context {
        until: row.get::<_, Seconds>("until")?.0,
        lifetime: row.get("lifetime")?,
        mic_key: key.map(|key| if v1_1 { MicKey::FNwkSIntKey(key) } else { MicKey::NwkSKey(key) }),
        fcnt_up: row.get("fcnt_up")?,
        terms: terms::from_text(row.get::<_, Option<String>>("terms")?.as_deref())?,
        id,
    })
}

fn keep(db: &Db<'_>, context: &Context) -> Result<(bool, Done), Fault> {
    let id = &context.id;
    let known = "SELECT * FROM contexts WHERE net_id = ?1 AND dev_eui = ?2 AND dev_addr = ?3";
    let same = params![Text(id.net_id), Text(id.dev_eui), Text(id.dev_addr)];
    let is_new = read(db, known, same, |_, row| self::id(row))?.is_empty();
    let (key, v1_1) = match &context.mic_key {
        None => (None, false),
        Some(MicKey::NwkSKey(key)) => (Some(key), false),
        Some(MicKey::FNwkSIntKey(key)) => (Some(key), true),
    };
    db.run(
        "INSERT OR REPLACE INTO contexts (net_id, dev_eui, dev_addr, until, lifetime, mic_key, v1_1, fcnt_up, terms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            Text(id.net_id),
            Text(id.dev_eui),
            Text(id.dev_addr),
            Seconds(context.until),
            context.lifetime,
            key.map(|key| db.seal.seal(&place(id), key.expose())).transpose()?,
            v1_1,
            context.fcnt_up,
            terms::to_text(&context.terms)?,
        ],
    )?;
    Ok((is_new, Done::new(Commit::Durable)))
}

const VISITS_BY_ADDR: &str = "SELECT * FROM visits WHERE net_id = ?1 AND dev_addr = ?2 ORDER BY session";
const VISITS_BY_DEVICE: &str = "SELECT * FROM visits WHERE dev_eui = ?1 ORDER BY session, net_id";
const VISITS_UNTIL: &str = "SELECT * FROM visits WHERE until <= ?1 LIMIT ?2";
const VISITORS_TO: &str = "SELECT * FROM visits WHERE net_id = ?1 LIMIT ?2";
/// Their sessions are no more, or may not be elsewhere any longer.
const LEFT: &str = "SELECT visits.* FROM visits LEFT JOIN sessions ON sessions.id = visits.session
    WHERE sessions.id IS NULL OR NOT sessions.roaming";

impl Visits for Store {
    fn hosts(&self) -> Boxed<'_, Result<Vec<NetId>, StoreError>> {
        let select = "SELECT DISTINCT net_id FROM visits ORDER BY net_id";
        Box::pin(self.queue.look(|db| read(db, select, &[], |_, row| Ok(row.get::<_, Text<_>>("net_id")?.0))))
    }

    fn visits_at(&self, net_id: NetId, addr: DevAddr) -> Boxed<'_, Result<Vec<Visit>, StoreError>> {
        Box::pin(
            self.queue.look(move |db| read(db, VISITS_BY_ADDR, params![Text(net_id), Text(addr)], visit)),
        )
    }

    fn visits_of(&self, dev_eui: DevEui) -> Boxed<'_, Result<Vec<Visit>, StoreError>> {
        Box::pin(self.queue.look(move |db| read(db, VISITS_BY_DEVICE, params![Text(dev_eui)], visit)))
    }

    fn visits_to(&self, net_id: NetId, most: usize) -> Boxed<'_, Result<Vec<Visit>, StoreError>> {
        Box::pin(
            self.queue
                .look(move |db| read(db, VISITORS_TO, params![Text(net_id), Seconds(most as u64)], visit)),
        )
    }

    fn visits_until(&self, unix: u64, most: usize) -> Boxed<'_, Result<Vec<Visit>, StoreError>> {
        Box::pin(
            self.queue
                .look(move |db| read(db, VISITS_UNTIL, params![Seconds(unix), Seconds(most as u64)], visit)),
        )
    }

    fn ended_visits(&self) -> Boxed<'_, Result<Vec<Visit>, StoreError>> {
        Box::pin(self.queue.look(|db| read(db, LEFT, &[], visit)))
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

fn visit(_: &Db<'_>, row: &Row<'_>) -> Result<Visit, Fault> {
    Ok(Visit {
        session: row.get::<_, Bits>("session")?.0,
        net_id: row.get::<_, Text<_>>("net_id")?.0,
        dev_eui: row.get::<_, Text<_>>("dev_eui")?.0,
        dev_addr: row.get::<_, Text<_>>("dev_addr")?.0,
        until: row.get::<_, Seconds>("until")?.0,
    })
}
