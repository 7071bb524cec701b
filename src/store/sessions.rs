//! Sessions of the sNS, with the forward rows that their decisions write.

use rusqlite::{OptionalExtension, Row, ToSql, params};

use super::rows::{Bits, Seconds, Text};
use super::secrets::Place;
use super::writer::{Db, Done, Fault};
use super::{Store, forward, terms};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::{ClassMode, NwkKeys, XmitAppUp};
use crate::lorawan::region::SubBands;
use crate::lorawan::{DevAddr, DevEui, Key, NetId};
use crate::sns::plan::{Plan, Told};
use crate::sns::{Decide, ForwardKey, Path, Session, Sessions};

const BY_DEV_ADDR: &str = "SELECT * FROM sessions WHERE dev_addr = ?1 ORDER BY created, id";
const BY_DEVICE: &str = "SELECT * FROM sessions WHERE dev_eui = ?1 ORDER BY created, id";

impl Sessions for Store {
    fn with_dev_addr(&self, addr: DevAddr, decide: Decide) -> Boxed<'_, Result<(), StoreError>> {
        // Most are unconfirmed uplinks.
        let work = move |db: &Db<'_>| over(db, BY_DEV_ADDR, &Text(addr), &decide);
        Box::pin(self.queue.run(false, work))
    }

    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>> {
        // Joins and downlinks: a new session or the next FCntDown.
        let work = move |db: &Db<'_>| over(db, BY_DEVICE, &Text(dev_eui), &decide);
        Box::pin(self.queue.run(true, work))
    }

    fn guests(&self) -> Boxed<'_, Result<Vec<Session>, StoreError>> {
        let guests = "SELECT * FROM sessions WHERE home IS NOT NULL ORDER BY id";
        Box::pin(self.queue.look(|db| all(db, guests)))
    }

    fn forwarded(&self, key: ForwardKey) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| forward::remove(db, key)))
    }

    fn waiting(&self) -> Boxed<'_, Result<Vec<(ForwardKey, XmitAppUp)>, StoreError>> {
        Box::pin(self.queue.look(forward::waiting))
    }
}

impl Store {
    /// The sessions of a device, oldest first.
    pub async fn sessions_of(&self, dev_eui: DevEui) -> Result<Vec<Session>, StoreError> {
        self.queue.look(move |db| load(db, BY_DEVICE, &Text(dev_eui))).await
    }
}

fn over(db: &Db<'_>, select: &str, by: &dyn ToSql, decide: &Decide) -> Result<((), Done), Fault> {
    let before = load(db, select, by)?;
    let mut after = before.clone();
    let write = decide(&mut after);
    let mut done = Done::new(write.commit);
    if write.commit == Commit::Nothing {
        return Ok(((), done));
    }
    done.frames = store(db, &before, &after)?;
    if let Some(heard) = &write.succeeds {
        let all = load(db, BY_DEVICE, &Text(heard.dev_eui))?;
        for over in all.iter().filter(|session| heard.replaces(session)) {
            remove(db, over)?;
        }
    }
    if let Some((key, message)) = &write.forward {
        forward::insert(db, *key, message)?;
        done.waits = Some(*key);
    }
    Ok(((), done))
}

fn place(column: &'static str, id: u64, dev_eui: DevEui) -> Place {
    Place::new("sessions", column, format_args!("{id:016X}/{dev_eui}"))
}

/// A row has FNwkSIntKey in `nwk_s_key` where it is of 1.1, and the other two are NULL where it is of 1.0.x.
fn keys(db: &Db<'_>, row: &Row<'_>, id: u64, dev_eui: DevEui) -> Result<NwkKeys, Fault> {
    let open = |column: &'static str| -> Result<Option<Key>, Fault> {
        let sealed = row.get_ref(column)?.as_blob_or_null().map_err(wrong)?;
        sealed.map(|sealed| Ok(db.seal.open_key(&place(column, id, dev_eui), sealed)?)).transpose()
    };
    let missing = || Fault::Wrong(format!("session {id:016X} has not all its keys"));
    let first = open("nwk_s_key")?.ok_or_else(missing)?;
    Ok(match (open("s_nwk_s_int_key")?, open("nwk_s_enc_key")?) {
        (Some(s_nwk_s_int_key), Some(nwk_s_enc_key)) => {
            NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key: first, nwk_s_enc_key }
        }
        (None, None) => NwkKeys::V10 { nwk_s_key: first },
        _ => return Err(missing()),
    })
}

fn load(db: &Db<'_>, select: &str, by: &dyn ToSql) -> Result<Vec<Session>, Fault> {
    let mut select = db.sql.prepare_cached(select)?;
    let mut rows = select.query([by])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        sessions.push(session(db, row)?);
    }
    Ok(sessions)
}

fn session(db: &Db<'_>, row: &Row<'_>) -> Result<Session, Fault> {
    let id = row.get::<_, Bits>("id")?.0;
    let dev_eui = row.get::<_, Text<DevEui>>("dev_eui")?.0;
    Ok(Session {
        id,
        dev_eui,
        dev_addr: row.get::<_, Text<_>>("dev_addr")?.0,
        net_id: row.get::<_, Text<_>>("net_id")?.0,
        keys: keys(db, row, id, dev_eui)?,
        fcnt_up: row.get("fcnt_up")?,
        fcnt_down: row.get("fcnt_down")?,
        a_fcnt_down: row.get("a_fcnt_down")?,
        confirmed_down: row.get("confirmed_down")?,
        class: if row.get("class_c")? { ClassMode::C } else { ClassMode::A },
        personalised: row.get("personalised")?,
        pending: row.get("pending")?,
        rx_delay: row.get("rx_delay")?,
        rx1_dr_offset: row.get("rx1_dr_offset")?,
        rx2_frequency: row.get("rx2_frequency")?,
        rx2_data_rate: row.get("rx2_data_rate")?,
        plan: plan(row)?,
        roaming: row.get("roaming")?,
        home: row.get::<_, Option<Text<_>>>("home")?.map(|home| home.0),
        rj_count0: row.get("rj_count0")?,
        terms: terms::from_text(row.get::<_, Option<String>>("terms")?.as_deref())?,
        path: path(row)?,
        created: row.get::<_, Seconds>("created")?.0,
        expires: row.get::<_, Option<Seconds>>("expires")?.map(|seconds| seconds.0),
    })
}

fn path(row: &Row<'_>) -> Result<Option<Path>, Fault> {
    let gateways = row.get::<_, Option<String>>("path_gateways")?.unwrap_or_default();
    let ul_tokens = gateways.lines().map(hex::decode).collect::<Result<Vec<_>, _>>();
    let ul_tokens = ul_tokens.map_err(|error| Fault::Wrong(format!("path_gateways: {error}")))?;
    let fns_ul_token: Option<Vec<u8>> = row.get("path")?;
    let via = row.get::<_, Option<Text<_>>>("path_via")?.map(|via| via.0);
    let is_way = fns_ul_token.is_some() || !ul_tokens.is_empty();
    Ok(is_way.then_some(Path { via, fns_ul_token, ul_tokens }))
}

/// A way down as its three columns: FNSULToken, network, ULTokens.
fn path_columns(path: Option<&Path>) -> (Option<&[u8]>, Option<Text<NetId>>, Option<String>) {
    let Some(path) = path else { return (None, None, None) };
    let lines: Vec<String> = path.ul_tokens.iter().map(hex::encode).collect();
    let gateways = (!lines.is_empty()).then(|| lines.join("\n"));
    (path.fns_ul_token.as_deref(), path.via.map(Text), gateways)
}

fn plan(row: &Row<'_>) -> Result<Plan, Fault> {
    Ok(Plan {
        region: row.get::<_, Option<Text<_>>>("region")?.map(|region| region.0),
        sub_bands: SubBands::from_bits(row.get("sub_bands")?),
        told: match row.get::<_, i64>("plan_told")? {
            0 => Told::Agreed,
            // 1: every downlink has gone, the answer is awaited
            left @ 1.. => Told::Left(u8::try_from(left - 1).unwrap_or(u8::MAX)),
            _ => Told::GivenUp,
        },
    })
}

fn told(plan: &Plan) -> i64 {
    match plan.told {
        Told::Agreed => 0,
        Told::Left(left) => i64::from(left) + 1,
        Told::GivenUp => -1,
    }
}

fn wrong(error: rusqlite::types::FromSqlError) -> Fault {
    Fault::Wrong(error.to_string())
}

/// Write what differs; answers how many uplinks were accepted.
fn store(db: &Db<'_>, before: &[Session], after: &[Session]) -> Result<u32, Fault> {
    for gone in before.iter().filter(|old| after.iter().all(|new| new.id != old.id)) {
        remove(db, gone)?;
    }
    let mut uplinks = 0;
    for new in after {
        let old = before.iter().find(|old| old.id == new.id);
        if old.is_some_and(|old| old == new) {
            continue;
        }
        uplinks += u32::from(old.is_some_and(|old| old.fcnt_up != new.fcnt_up));
        match old {
            None => insert(db, new)?,
            Some(old) => update(db, old, new)?,
        }
    }
    Ok(uplinks)
}

fn insert(db: &Db<'_>, new: &Session) -> Result<(), Fault> {
    let seal = |column, key: &Key| db.seal.seal(&place(column, new.id, new.dev_eui), key.expose());
    let (nwk, s_int, enc) = match &new.keys {
        NwkKeys::V10 { nwk_s_key } => (nwk_s_key, None, None),
        NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key } => {
            (f_nwk_s_int_key, Some(s_nwk_s_int_key), Some(nwk_s_enc_key))
        }
    };
    let (path, path_via, path_gateways) = path_columns(new.path.as_ref());
    // An id that is taken fails here: it must never be used for two sessions.
    db.run(
        "INSERT INTO sessions (id, dev_eui, dev_addr, net_id, nwk_s_key, s_nwk_s_int_key, nwk_s_enc_key, fcnt_up,
            fcnt_down, a_fcnt_down, confirmed_down, class_c, personalised, pending, rx_delay, rx1_dr_offset,
            rx2_frequency, rx2_data_rate, created, expires, roaming, region, sub_bands, plan_told, path, path_via,
            path_gateways, home, rj_count0, terms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
            ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)",
        params![
            Bits(new.id),
            Text(new.dev_eui),
            Text(new.dev_addr),
            Text(new.net_id),
            seal("nwk_s_key", nwk)?,
            s_int.map(|key| seal("s_nwk_s_int_key", key)).transpose()?,
            enc.map(|key| seal("nwk_s_enc_key", key)).transpose()?,
            new.fcnt_up,
            new.fcnt_down,
            new.a_fcnt_down,
            new.confirmed_down,
            new.class == ClassMode::C,
            new.personalised,
            new.pending,
            new.rx_delay,
            new.rx1_dr_offset,
            new.rx2_frequency,
            new.rx2_data_rate,
            Seconds(new.created),
            new.expires.map(Seconds),
            new.roaming,
            new.plan.region.as_ref().map(Text),
            new.plan.sub_bands.to_bits(),
            told(&new.plan),
            path,
            path_via,
            path_gateways,
            new.home.map(Text),
            new.rj_count0,
            terms::to_text(&new.terms)?,
        ],
    )?;
    Ok(())
}

fn update(db: &Db<'_>, old: &Session, new: &Session) -> Result<(), Fault> {
    let counters = Session {
        fcnt_up: new.fcnt_up,
        fcnt_down: new.fcnt_down,
        a_fcnt_down: new.a_fcnt_down,
        confirmed_down: new.confirmed_down,
        path: new.path.clone(),
        ..old.clone()
    };
    if counters == *new {
        // Nearly every uplink and downlink.
        let set = "UPDATE sessions SET fcnt_up = ?2, fcnt_down = ?3, a_fcnt_down = ?4, confirmed_down = ?5
            WHERE id = ?1";
        db.run(set, (Bits(new.id), new.fcnt_up, new.fcnt_down, new.a_fcnt_down, new.confirmed_down))?;
        if old.path != new.path {
            // Class C only.
            let (path, via, gateways) = path_columns(new.path.as_ref());
            let set = "UPDATE sessions SET path = ?2, path_via = ?3, path_gateways = ?4 WHERE id = ?1";
            db.run(set, (Bits(new.id), path, via, gateways))?;
        }
        return Ok(());
    }
    remove(db, new)?;
    insert(db, new)
}

fn remove(db: &Db<'_>, session: &Session) -> Result<usize, Fault> {
    db.run("DELETE FROM sessions WHERE id = ?1", [Bits(session.id)])
}

/// The running sessions of a device follow its switch.
pub(super) fn set_roaming(db: &Db<'_>, dev_eui: DevEui, roaming: bool) -> Result<usize, Fault> {
    let set = "UPDATE sessions SET roaming = ?2 WHERE dev_eui = ?1 AND roaming <> ?2";
    db.run(set, (Text(dev_eui), roaming))
}

/// What class a device is declared to be counts for sessions of 1.0.x; one of 1.1 says so itself, and can only be held
/// to class A.
pub(super) fn set_class(db: &Db<'_>, dev_eui: DevEui, class: ClassMode) -> Result<usize, Fault> {
    let set = match class {
        ClassMode::C => {
            "UPDATE sessions SET class_c = 1 WHERE dev_eui = ?1 AND class_c = 0 AND s_nwk_s_int_key IS NULL"
        }
        ClassMode::A => "UPDATE sessions SET class_c = 0, path = NULL WHERE dev_eui = ?1 AND class_c <> 0",
    };
    db.run(set, [Text(dev_eui)])
}

/// A personalised session cannot be made anew, so where its device is switched off it is void and stays.
pub(super) fn set_in_force(db: &Db<'_>, dev_eui: DevEui, enabled: bool) -> Result<usize, Fault> {
    let expires = (!enabled).then_some(0);
    db.run("UPDATE sessions SET expires = ?2 WHERE dev_eui = ?1 AND personalised", (Text(dev_eui), expires))
}

/// The device that has this address with the same network session keys.
pub(super) fn twin(db: &Db<'_>, new: &Session) -> Result<Option<DevEui>, Fault> {
    let there = load(db, BY_DEV_ADDR, &Text(new.dev_addr))?;
    Ok(there.into_iter().find(|other| other.keys == new.keys).map(|other| other.dev_eui))
}

/// Write a personalised session. What was sent under this address to this device before is not sent again.
pub(super) fn personalise(db: &Db<'_>, new: &Session, created: u64) -> Result<(), Fault> {
    let mut retired = db.sql.prepare_cached(
        "SELECT fcnt_down, a_fcnt_down FROM retired_sessions WHERE dev_eui = ?1 AND dev_addr = ?2",
    )?;
    let before: Option<(u32, u32)> = retired
        .query_row((Text(new.dev_eui), Text(new.dev_addr)), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (fcnt_down, a_fcnt_down) = before.unwrap_or_default();
    let session = Session {
        // SQLite's integers are signed
        id: u64::from_be_bytes(db.seal.clock().random()) >> 1,
        created,
        fcnt_down: new.fcnt_down.max(fcnt_down),
        a_fcnt_down: new.a_fcnt_down.max(a_fcnt_down),
        ..new.clone()
    };
    insert(db, &session)
}

/// Every personalised session, by DevEUI.
pub(super) fn personalised(db: &Db<'_>) -> Result<Vec<Session>, Fault> {
    all(db, "SELECT * FROM sessions WHERE personalised ORDER BY dev_eui")
}

fn all(db: &Db<'_>, select: &str) -> Result<Vec<Session>, Fault> {
    let mut select = db.sql.prepare_cached(select)?;
    let mut rows = select.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        sessions.push(session(db, row)?);
    }
    Ok(sessions)
}

/// Any counter may come next. `false`: the device has no personalised session.
pub(super) fn reset_counter(db: &Db<'_>, dev_eui: DevEui) -> Result<bool, Fault> {
    let waits = "SELECT EXISTS (SELECT 1 FROM forward JOIN sessions ON sessions.id = forward.session
        WHERE sessions.dev_eui = ?1 AND sessions.personalised)";
    if db.sql.prepare_cached(waits)?.query_row([Text(dev_eui)], |row| row.get(0))? {
        // its counter names it, and could be that of an uplink to come
        return Err(Fault::Wrong(format!(
            "an uplink of {dev_eui} still waits for its home: try again in a minute"
        )));
    }
    let reset = "UPDATE sessions SET fcnt_up = NULL WHERE dev_eui = ?1 AND personalised";
    Ok(db.run(reset, [Text(dev_eui)])? > 0)
}

/// End all sessions of a device, and what they still had to forward; answers how many there were.
pub(super) fn remove_device(db: &Db<'_>, dev_eui: DevEui) -> Result<usize, Fault> {
    let forward = "DELETE FROM forward WHERE session IN (SELECT id FROM sessions WHERE dev_eui = ?1)";
    db.run(forward, [Text(dev_eui)])?;
    let retire = "INSERT INTO retired_sessions (dev_eui, dev_addr, fcnt_down, a_fcnt_down)
        SELECT dev_eui, dev_addr, fcnt_down, a_fcnt_down FROM sessions WHERE dev_eui = ?1 AND personalised
        ON CONFLICT DO UPDATE SET fcnt_down = max(fcnt_down, excluded.fcnt_down),
            a_fcnt_down = max(a_fcnt_down, excluded.a_fcnt_down)";
    db.run(retire, [Text(dev_eui)])?;
    db.run("DELETE FROM sessions WHERE dev_eui = ?1", [Text(dev_eui)])
}
