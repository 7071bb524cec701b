//! Frames of visitors whose home could not be reached.

use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};

use super::metadata::{Hex, Ul};
use super::rows::{Seconds, Text};
use super::writer::{Db, Done, Fault};
use super::{Room, Store};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::{Account, UlMeta};
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
    #[serde(default, skip_serializing_if = "String::is_empty")]
    profile: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    out_of_profile: bool,
    #[serde(flatten)]
    ul: Ul,
}

impl Parking for Store {
    fn places(&self) -> Boxed<'_, Result<Vec<Place>, StoreError>> {
        Box::pin(self.queue.look(places))
    }

    // A frame that a power cut takes was promised to nobody: no reason to wait for the disk.
    fn park(&self, frame: Parked) -> Boxed<'_, Result<(), StoreError>> {
        if self.room() >= Room::Tight {
            let full = StoreError("its disk is nearly full".into());
            return Box::pin(std::future::ready(Err(full)));
        }
        Box::pin(self.queue.run(false, move |db| park(db, &frame)))
    }

    fn is_full(&self) -> bool {
        self.room() >= Room::Last
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
        let (number, net_id) = (row.get::<_, Seconds>(0)?.0, row.get::<_, Text<NetId>>(1)?.0);
        let kept = from_text(number, net_id, &text).ok();
        places.push(Place {
            number,
            net_id,
            dev_addr: kept.as_ref().and_then(|frame| frame.ul.dev_addr),
            received: row.get::<_, Seconds>(2)?.0,
            size: kept.map_or(0, |frame| frame.phy_payload.len()),
        });
    }
    Ok(places)
}

fn park(db: &Db<'_>, frame: &Parked) -> Result<((), Done), Fault> {
    let place = Place::from(frame);
    db.run(
        "INSERT OR REPLACE INTO parked (number, net_id, received, message) VALUES (?1, ?2, ?3, ?4)",
        (Seconds(frame.number), Text(frame.account.net_id), Seconds(place.received), to_text(frame)?),
    )?;
    Ok(((), Done::new(Commit::Lazy)))
}

fn parked(db: &Db<'_>, number: u64) -> Result<Option<Parked>, Fault> {
    let mut select = db.sql.prepare_cached("SELECT net_id, message FROM parked WHERE number = ?1")?;
    let row = select
        .query_row([Seconds(number)], |row| Ok((row.get::<_, Text<NetId>>(0)?.0, row.get::<_, String>(1)?)));
    let Some((net_id, text)) = row.optional()? else { return Ok(None) };
    match from_text(number, net_id, &text) {
        Ok(frame) => Ok(Some(frame)),
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
        profile: frame.account.profile.clone(),
        out_of_profile: frame.account.out_of_profile,
        ul: Ul::from(&frame.ul),
    });
    serde_json::to_string(&kept).map_err(|error| Fault::Wrong(error.to_string()))
}

pub(super) fn from_text(number: u64, net_id: NetId, text: &str) -> Result<Parked, Fault> {
    let kept = serde_json::from_str(text).map_err(|error| Fault::Wrong(error.to_string()))?;
    let Kept::V1(Frame { phy, by_context, profile, out_of_profile, ul }) = kept;
    let account = Account { net_id, profile, out_of_profile };
    Ok(Parked { number, account, by_context, phy_payload: phy.0, ul: UlMeta::try_from(ul)? })
}
