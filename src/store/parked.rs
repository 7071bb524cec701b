//! Frames of visitors whose home could not be reached.

use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};

use super::Store;
use super::metadata::{Hex, Ul};
use super::rows::{Seconds, Text};
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::UlMeta;
use crate::fns::parked::{Parked, Parking, Place};
use crate::lorawan::NetId;

/// The row's text, by version.
#[derive(Serialize, Deserialize)]
#[serde(tag = "v")]
enum Kept {
    #[serde(rename = "1")]
    V1(Frame),
}

#[derive(Serialize, Deserialize)]
struct Frame {
    phy: Hex,
    by_context: bool,
    #[serde(flatten)]
    ul: Ul,
}

impl Parking for Store {
    fn places(&self) -> Boxed<'_, Result<Vec<Place>, StoreError>> {
        Box::pin(self.queue.look(places))
    }

    // A frame that a power cut takes was promised to nobody: no reason to wait for the disk.
    fn park(&self, frame: Parked) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| park(db, &frame)))
    }

    fn parked(&self, number: u64) -> Boxed<'_, Result<Option<Parked>, StoreError>> {
        Box::pin(self.queue.look(move |db| parked(db, number)))
    }

    // Read again after a power cut, a frame is sent twice, and its home knows it.
    fn unpark(&self, numbers: Vec<u64>) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| {
            for number in &numbers {
                db.run("DELETE FROM parked WHERE number = ?1", [Seconds(*number)])?;
            }
            let commit = if numbers.is_empty() { Commit::Nothing } else { Commit::Lazy };
            Ok(((), Done::new(commit)))
        }))
    }
}

fn places(db: &Db<'_>) -> Result<Vec<Place>, Fault> {
    let mut select =
        db.sql.prepare_cached("SELECT number, net_id, received, message FROM parked ORDER BY number")?;
    let mut rows = select.query([])?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(3)?;
        let kept = from_text(&text).ok();
        let (size, dev_addr) = kept.map_or((0, None), |(phy, _, ul)| (phy.len(), ul.dev_addr));
        places.push(Place {
            number: row.get::<_, Seconds>(0)?.0,
            net_id: row.get::<_, Text<NetId>>(1)?.0,
            dev_addr,
            received: row.get::<_, Seconds>(2)?.0,
            size,
        });
    }
    Ok(places)
}

fn park(db: &Db<'_>, frame: &Parked) -> Result<((), Done), Fault> {
    let place = Place::from(frame);
    db.run(
        "INSERT OR REPLACE INTO parked (number, net_id, received, message) VALUES (?1, ?2, ?3, ?4)",
        (Seconds(frame.number), Text(frame.net_id), Seconds(place.received), to_text(frame)?),
    )?;
    Ok(((), Done::new(Commit::Lazy)))
}

fn parked(db: &Db<'_>, number: u64) -> Result<Option<Parked>, Fault> {
    let mut select = db.sql.prepare_cached("SELECT net_id, message FROM parked WHERE number = ?1")?;
    let row = select
        .query_row([Seconds(number)], |row| Ok((row.get::<_, Text<NetId>>(0)?.0, row.get::<_, String>(1)?)));
    let Some((net_id, text)) = row.optional()? else { return Ok(None) };
    match from_text(&text) {
        Ok((phy_payload, by_context, ul)) => Ok(Some(Parked { number, net_id, by_context, phy_payload, ul })),
        // one bad row must not stop the others
        Err(error) => {
            tracing::error!(number, %error, "a waiting frame cannot be read");
            Ok(None)
        }
    }
}

pub(super) fn to_text(frame: &Parked) -> Result<String, Fault> {
    let kept = Kept::V1(Frame {
        phy: Hex(frame.phy_payload.clone()),
        by_context: frame.by_context,
        ul: Ul::from(&frame.ul),
    });
    serde_json::to_string(&kept).map_err(|error| Fault::Wrong(error.to_string()))
}

pub(super) fn from_text(text: &str) -> Result<(Vec<u8>, bool, UlMeta), Fault> {
    let kept = serde_json::from_str(text).map_err(|error| Fault::Wrong(error.to_string()))?;
    let Kept::V1(frame) = kept;
    Ok((frame.phy.0, frame.by_context, UlMeta::try_from(frame.ul)?))
}
