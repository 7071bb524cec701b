//! Forward rows: uplinks that were accepted and that the next room has not answered yet.
//!
//! The message is kept in a form of its own with a version, not as it goes over the wire: a new
//! program reads what an old one left.

use serde::{Deserialize, Serialize};

use super::metadata::{Hex, Ul};
use super::rows::{Bits, Seconds};
use super::writer::{Db, Done, Fault};
use crate::backend::door::Commit;
use crate::backend::message::{UlMeta, XmitAppUp};
use crate::lorawan::NetId;
use crate::sns::ForwardKey;

/// Rows that may wait; beyond, the oldest are dropped and counted.
pub(super) const MOST: u64 = 10_000;
/// The bound is looked at once in so many rows.
const LOOK: u64 = 64;

/// Write a row; a repetition of the uplink replaces it in its place in the line.
pub(super) fn insert(db: &Db<'_>, key: ForwardKey, message: &XmitAppUp) -> Result<(), Fault> {
    let text = to_text(message)?;
    let arrival = db.arrivals.next();
    if arrival.is_multiple_of(LOOK) {
        drop_oldest(db, MOST)?;
    }
    db.run(
        "INSERT INTO forward (session, fcnt_up, arrival, message) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (session, fcnt_up) DO UPDATE SET message = excluded.message",
        (Bits(key.session), key.fcnt_up, Seconds(arrival), text),
    )?;
    Ok(())
}

pub(super) fn drop_oldest(db: &Db<'_>, most: u64) -> Result<(), Fault> {
    let waiting: u64 = db
        .sql
        .prepare_cached("SELECT count(*) FROM forward")?
        .query_row([], |row| row.get::<_, Seconds>(0))?
        .0;
    let surplus = waiting.saturating_sub(most);
    if surplus > 0 {
        let delete = "DELETE FROM forward WHERE (session, fcnt_up) IN
            (SELECT session, fcnt_up FROM forward ORDER BY arrival LIMIT ?1)";
        db.run(delete, [Seconds(surplus)])?;
        // Counted once too often if the batch runs twice: the log and the metric want the order of magnitude.
        db.counters.forward_dropped.add(surplus);
        tracing::warn!(surplus, "uplinks that waited for the hNS were dropped, oldest first");
    }
    Ok(())
}

/// The next room has answered.
pub(super) fn remove(db: &Db<'_>, key: ForwardKey) -> Result<((), Done), Fault> {
    let delete = "DELETE FROM forward WHERE session = ?1 AND fcnt_up = ?2";
    db.run(delete, (Bits(key.session), key.fcnt_up))?;
    // Lost in a power cut, the row is sent again and the receiver knows it.
    Ok(((), Done { answered: Some(key), harmless: true, ..Done::new(Commit::Lazy) }))
}

/// All rows, oldest first.
pub(super) fn waiting(db: &Db<'_>) -> Result<Vec<(ForwardKey, XmitAppUp)>, Fault> {
    let mut select =
        db.sql.prepare_cached("SELECT session, fcnt_up, message FROM forward ORDER BY arrival")?;
    let mut rows = select.query([])?;
    let mut waiting = Vec::new();
    while let Some(row) = rows.next()? {
        let key = ForwardKey { session: row.get::<_, Bits>(0)?.0, fcnt_up: row.get(1)? };
        match from_text(&row.get::<_, String>(2)?) {
            Ok(message) => waiting.push((key, message)),
            // One bad row must not stop the others.
            Err(error) => tracing::error!(?key, %error, "a waiting uplink cannot be read"),
        }
    }
    Ok(waiting)
}

/// The row's text, by version.
#[derive(Serialize, Deserialize)]
#[serde(tag = "v")]
enum Kept {
    #[serde(rename = "1")]
    V1(Up),
}

#[derive(Serialize, Deserialize)]
struct Up {
    frm: Hex,
    ack: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    via: Option<NetId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    home: Option<NetId>,
    #[serde(flatten)]
    ul: Ul,
}

pub(super) fn to_text(message: &XmitAppUp) -> Result<String, Fault> {
    let kept = Kept::V1(Up {
        frm: Hex(message.frm_payload.clone()),
        ack: message.ack,
        via: message.via,
        home: message.home,
        ul: Ul::from(&message.ul),
    });
    serde_json::to_string(&kept).map_err(|error| Fault::Wrong(error.to_string()))
}

pub(super) fn from_text(text: &str) -> Result<XmitAppUp, Fault> {
    let kept = serde_json::from_str(text).map_err(|error| Fault::Wrong(error.to_string()))?;
    let Kept::V1(up) = kept;
    let Up { frm, ack, via, home, ul } = up;
    Ok(XmitAppUp { frm_payload: frm.0, ack, via, home, ul: UlMeta::try_from(ul)? })
}
