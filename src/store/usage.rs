//! Usage records: what visitors of other networks were carried, month by month.

use jiff::Timestamp;

use super::Store;
use super::rows::{Seconds, Text};
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::fns::usage::{Kind, Usage, Way};
use crate::lorawan::{DevEui, NetId};

/// Activations on record; beyond, the oldest go. A join of a visitor makes one, so nobody fills a disk with them.
const ACTIVATIONS: u64 = 100_000;

/// One network's traffic in one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// The home of the visitors.
    pub net_id: NetId,
    /// RoamingType: Passive or Handover.
    pub roaming_type: String,
    /// Frames to it with something of a user.
    pub ul_packets: u64,
    /// Frames from it.
    pub dl_packets: u64,
    /// FRMPayload of those, bytes.
    pub ul_bytes: u64,
    /// The same from it.
    pub dl_bytes: u64,
}

/// A visitor that began or ended to roam here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roaming {
    /// Its home.
    pub net_id: NetId,
    /// Which device.
    pub dev_eui: DevEui,
    /// It began.
    pub active: bool,
    /// Seconds since 1970.
    pub at: u64,
}

/// Everything of one month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Month {
    /// By network.
    pub traffic: Vec<Traffic>,
    /// In the order in which it happened.
    pub roaming: Vec<Roaming>,
}

/// YYYY-MM, UTC.
pub fn month(unix: u64) -> String {
    let at = Timestamp::from_second(i64::try_from(unix).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m").to_string()
}

impl Usage for Store {
    // A record is promised to nobody before it is told: it goes to the disk with what else goes there.
    fn carried(
        &self,
        net_id: NetId,
        kind: Kind,
        way: Way,
        bytes: usize,
        unix: u64,
    ) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| carried(db, net_id, kind, way, bytes as u64, unix)))
    }

    fn roams(
        &self,
        net_id: NetId,
        dev_eui: DevEui,
        active: bool,
        unix: u64,
    ) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| roams(db, net_id, dev_eui, active, unix)))
    }
}

impl Store {
    /// What is on record of a month, YYYY-MM.
    pub async fn usage(&self, month: String) -> Result<Month, StoreError> {
        self.queue.run(false, move |db| Ok((read(db, &month)?, Done::new(Commit::Nothing)))).await
    }
}

fn carried(
    db: &Db<'_>,
    net_id: NetId,
    kind: Kind,
    way: Way,
    bytes: u64,
    unix: u64,
) -> Result<((), Done), Fault> {
    let kind = match kind {
        Kind::Passive => "Passive",
        Kind::Handover => "Handover",
    };
    let [ul_packets, dl_packets, ul_bytes, dl_bytes] = match way {
        Way::Up => [1, 0, bytes, 0],
        Way::Down => [0, 1, 0, bytes],
    };
    db.run(
        "INSERT INTO usage_traffic VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET
            ul_packets = ul_packets + excluded.ul_packets, dl_packets = dl_packets + excluded.dl_packets,
            ul_bytes = ul_bytes + excluded.ul_bytes, dl_bytes = dl_bytes + excluded.dl_bytes",
        (
            month(unix),
            Text(net_id),
            kind,
            Seconds(ul_packets),
            Seconds(dl_packets),
            Seconds(ul_bytes),
            Seconds(dl_bytes),
        ),
    )?;
    Ok(((), Done::new(Commit::Lazy)))
}

fn roams(db: &Db<'_>, net_id: NetId, dev_eui: DevEui, active: bool, unix: u64) -> Result<((), Done), Fault> {
    db.run(
        "INSERT INTO usage_roaming (month, net_id, dev_eui, active, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        (month(unix), Text(net_id), Text(dev_eui), active, Seconds(unix)),
    )?;
    let surplus = "DELETE FROM usage_roaming WHERE number <= (SELECT max(number) FROM usage_roaming) - ?1";
    db.run(surplus, [Seconds(ACTIVATIONS)])?;
    Ok(((), Done::new(Commit::Lazy)))
}

fn read(db: &Db<'_>, month: &str) -> Result<Month, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT net_id, ul_packets, dl_packets, ul_bytes, dl_bytes, roaming_type FROM usage_traffic WHERE month = ?1
         ORDER BY net_id, roaming_type DESC",
    )?;
    let traffic = select.query_map([month], |row| {
        let count = |at: usize| row.get::<_, Seconds>(at).map(|count| count.0);
        Ok(Traffic {
            net_id: row.get::<_, Text<_>>(0)?.0,
            roaming_type: row.get(5)?,
            ul_packets: count(1)?,
            dl_packets: count(2)?,
            ul_bytes: count(3)?,
            dl_bytes: count(4)?,
        })
    })?;
    let traffic = traffic.collect::<Result<_, _>>()?;
    let mut select = db.sql.prepare_cached(
        "SELECT net_id, dev_eui, active, at FROM usage_roaming WHERE month = ?1 ORDER BY number",
    )?;
    let roaming = select.query_map([month], |row| {
        Ok(Roaming {
            net_id: row.get::<_, Text<_>>(0)?.0,
            dev_eui: row.get::<_, Text<_>>(1)?.0,
            active: row.get(2)?,
            at: row.get::<_, Seconds>(3)?.0,
        })
    })?;
    Ok(Month { traffic, roaming: roaming.collect::<Result<_, _>>()? })
}
