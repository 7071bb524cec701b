//! Usage records, month by month: what visitors of other networks were carried here, and what other networks carried of our devices.

use jiff::Timestamp;
use rusqlite::params;

use super::Store;
use super::rows::{Seconds, Text};
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::fns::usage::Usage;
use crate::hns::Carriers;
use crate::lorawan::{DevEui, NetId};
use crate::usage::{ActivationRecord, Carried, Kind, Statement, TrafficRecord, Way};

/// Activations on record; beyond, the oldest go. A join of a visitor makes one, so nobody fills a disk with them.
const ACTIVATIONS: u64 = 100_000;

/// Service Profiles of a network by name in a month.
const PROFILES: u32 = 16;

/// Everything of one month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Month {
    /// Of visitors, by network.
    pub traffic: Vec<TrafficRecord>,
    /// Of visitors, in the order in which it happened; then those that were here all the month.
    pub activations: Vec<ActivationRecord>,
    /// Of our own devices, by the network that carried them.
    pub for_us: Vec<TrafficRecord>,
}

/// YYYY-MM, UTC.
pub fn month(unix: u64) -> String {
    let at = Timestamp::from_second(i64::try_from(unix).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m").to_string()
}

/// Whose devices were carried.
#[derive(Debug, Clone, Copy)]
enum Whose {
    /// Those of other networks, by us.
    Visitors = 0,
    /// Ours, by other networks.
    Ours = 1,
}

impl Usage for Store {
    // A record is promised to nobody before it is told: it goes to the disk with what else goes there.
    fn carried(&self, frame: Carried) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| carried(db, Whose::Visitors, &frame)))
    }

    fn roams(
        &self,
        net_id: NetId,
        dev_eui: DevEui,
        begins: Option<String>,
        unix: u64,
    ) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| roams(db, net_id, dev_eui, begins.as_deref(), unix)))
    }
}

impl Carriers for Store {
    fn carried_for_us(&self, frame: Carried) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(self.queue.run(false, move |db| carried(db, Whose::Ours, &frame)))
    }
}

impl Store {
    /// What is on record of a month, YYYY-MM.
    pub async fn usage(&self, month: String) -> Result<Month, StoreError> {
        self.queue.look(move |db| read(db, &month)).await
    }

    /// The statement of a month that is over for a network. Those of the months before that were never given are made first, so
    /// that none is left out of the chain; what was given once stays as it is.
    pub async fn statement(
        &self,
        issuer: NetId,
        partner: NetId,
        month: String,
    ) -> Result<String, StoreError> {
        self.queue.run(true, move |db| statement(db, issuer, partner, &month)).await
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Passive => "Passive",
        Kind::Handover => "Handover",
    }
}

fn carried(db: &Db<'_>, whose: Whose, frame: &Carried) -> Result<((), Done), Fault> {
    let bytes = frame.bytes as u64;
    let numbers = match frame.way {
        Way::Up => [1, 0, bytes, 0],
        Way::Down => [0, 1, 0, bytes],
    };
    let out = if frame.account.out_of_profile { numbers } else { [0; 4] };
    // a home that names ever new profiles has the rest in one row
    let insert = "INSERT INTO usage_traffic VALUES (?1, ?2, ?3, ?4,
            CASE WHEN (SELECT count(*) FROM usage_traffic
                WHERE (month, for_us, net_id, roaming_type) = (?1, ?2, ?3, ?4) AND profile NOT IN (?5, '')) < ?14
            THEN ?5 ELSE '' END, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT DO UPDATE SET
            ul_packets = ul_packets + excluded.ul_packets, dl_packets = dl_packets + excluded.dl_packets,
            ul_bytes = ul_bytes + excluded.ul_bytes, dl_bytes = dl_bytes + excluded.dl_bytes,
            ul_packets_out = ul_packets_out + excluded.ul_packets_out,
            dl_packets_out = dl_packets_out + excluded.dl_packets_out,
            ul_bytes_out = ul_bytes_out + excluded.ul_bytes_out,
            dl_bytes_out = dl_bytes_out + excluded.dl_bytes_out";
    let ([up, down, up_bytes, down_bytes], [up_out, down_out, up_bytes_out, down_bytes_out]) =
        (numbers.map(Seconds), out.map(Seconds));
    db.run(
        insert,
        params![
            month(frame.unix),
            whose as u8,
            Text(frame.account.net_id),
            name(frame.kind),
            frame.account.profile,
            up,
            down,
            up_bytes,
            down_bytes,
            up_out,
            down_out,
            up_bytes_out,
            down_bytes_out,
            PROFILES,
        ],
    )?;
    Ok(((), Done::new(Commit::Lazy)))
}

/// `begins`: under which Service Profile; `None`: it ends.
fn roams(
    db: &Db<'_>,
    net_id: NetId,
    dev_eui: DevEui,
    begins: Option<&str>,
    unix: u64,
) -> Result<((), Done), Fault> {
    let insert =
        "INSERT INTO usage_roaming (month, net_id, dev_eui, active, at, profile) VALUES (?1, ?2, ?3, ?4, ?5,
        coalesce(?6, (SELECT profile FROM usage_roaming WHERE (net_id, dev_eui) = (?2, ?3) AND active
            ORDER BY number DESC LIMIT 1), ''))";
    db.run(insert, (month(unix), Text(net_id), Text(dev_eui), begins.is_some(), Seconds(unix), begins))?;
    let surplus = "DELETE FROM usage_roaming WHERE number <= (SELECT max(number) FROM usage_roaming) - ?1";
    db.run(surplus, [Seconds(ACTIVATIONS)])?;
    Ok(((), Done::new(Commit::Lazy)))
}

fn read(db: &Db<'_>, month: &str) -> Result<Month, Fault> {
    let mut activations = individual(db, month)?;
    activations.extend(cumulative(db, month)?);
    Ok(Month {
        traffic: traffic(db, Whose::Visitors, month)?,
        activations,
        for_us: traffic(db, Whose::Ours, month)?,
    })
}

fn traffic(db: &Db<'_>, whose: Whose, month: &str) -> Result<Vec<TrafficRecord>, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT net_id, roaming_type = 'Handover', ul_packets, ul_bytes, dl_packets, dl_bytes, ul_packets_out,
            ul_bytes_out, dl_packets_out, dl_bytes_out, profile FROM usage_traffic
         WHERE month = ?1 AND for_us = ?2 ORDER BY net_id, roaming_type DESC, profile",
    )?;
    let rows = select.query_map(params![month, whose as u8], |row| {
        let count = |at: usize| row.get::<_, Seconds>(at).map(|count| count.0);
        let kind = if row.get(1)? { Kind::Handover } else { Kind::Passive };
        let numbers = [count(2)?, count(3)?, count(4)?, count(5)?];
        Ok(TrafficRecord {
            service_profile_id: row.get(10)?,
            total_out_profile_ul_packets: count(6)?,
            total_out_profile_ul_bytes: count(7)?,
            total_out_profile_dl_packets: count(8)?,
            total_out_profile_dl_bytes: count(9)?,
            ..TrafficRecord::new(row.get::<_, Text<_>>(0)?.0, kind, numbers)
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn individual(db: &Db<'_>, month: &str) -> Result<Vec<ActivationRecord>, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT net_id, dev_eui, active, at, profile FROM usage_roaming WHERE month = ?1 ORDER BY number",
    )?;
    let rows = select.query_map([month], |row| {
        let at = i64::try_from(row.get::<_, Seconds>(3)?.0).unwrap_or(0);
        let time = Timestamp::from_second(at).ok().map(|at| at.to_string());
        let (activation_time, deactivation_time) = if row.get(2)? { (time, None) } else { (None, time) };
        Ok(ActivationRecord {
            net_id: row.get::<_, Text<_>>(0)?.0,
            service_profile_id: row.get(4)?,
            individual_record: true,
            total_active_devices: None,
            dev_eui: Some(row.get::<_, Text<_>>(1)?.0),
            activation_time,
            deactivation_time,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One for each network and Service Profile with devices whose last word before the month was a beginning, and that did not end in it.
fn cumulative(db: &Db<'_>, month: &str) -> Result<Vec<ActivationRecord>, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT net_id, count(*), profile FROM usage_roaming AS last
         WHERE active AND month < ?1 AND number = (
                SELECT max(number) FROM usage_roaming AS before
                WHERE before.month < ?1 AND (before.net_id, before.dev_eui) = (last.net_id, last.dev_eui))
            AND NOT EXISTS (
                SELECT 1 FROM usage_roaming AS during
                WHERE during.month = ?1 AND NOT during.active
                    AND (during.net_id, during.dev_eui) = (last.net_id, last.dev_eui))
         GROUP BY net_id, profile ORDER BY net_id, profile",
    )?;
    let rows = select.query_map([month], |row| {
        Ok(ActivationRecord {
            net_id: row.get::<_, Text<_>>(0)?.0,
            service_profile_id: row.get(2)?,
            individual_record: false,
            total_active_devices: Some(row.get::<_, Seconds>(1)?.0),
            dev_eui: None,
            activation_time: None,
            deactivation_time: None,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn statement(db: &Db<'_>, issuer: NetId, partner: NetId, wanted: &str) -> Result<(String, Done), Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT month FROM usage_traffic WHERE net_id = ?1 AND NOT for_us UNION SELECT month FROM usage_roaming WHERE net_id = ?1
         UNION SELECT month FROM usage_statements WHERE net_id = ?1 ORDER BY month",
    )?;
    let months = select.query_map([Text(partner)], |row| row.get::<_, String>(0))?;
    let mut months: Vec<String> = months.collect::<Result<_, _>>()?;
    months.retain(|month| &**month <= wanted);
    if months.last().is_none_or(|last| last != wanted) {
        months.push(wanted.into());
    }
    let (mut before, mut made): (Option<String>, bool) = (None, false);
    for month in months {
        let mut select =
            db.sql.prepare_cached("SELECT text FROM usage_statements WHERE net_id = ?1 AND month = ?2")?;
        let mut given = select.query_map((Text(partner), &month), |row| row.get::<_, String>(0))?;
        let text = match given.next().transpose()? {
            Some(text) => text,
            None => {
                let records = read(db, &month)?;
                let mut statement = Statement::new(issuer, partner, month.clone(), before.as_deref());
                let ours = |net_id: NetId| net_id == partner;
                statement.traffic = records.traffic.into_iter().filter(|one| ours(one.net_id)).collect();
                statement.activations =
                    records.activations.into_iter().filter(|one| ours(one.net_id)).collect();
                let text = statement.text();
                db.run(
                    "INSERT INTO usage_statements (net_id, month, text) VALUES (?1, ?2, ?3)",
                    (Text(partner), &month, &text),
                )?;
                made = true;
                text
            }
        };
        before = Some(text);
    }
    let text = before.ok_or_else(|| Fault::Wrong("a statement of no month".into()))?;
    Ok((text, Done::new(if made { Commit::Durable } else { Commit::Nothing })))
}
