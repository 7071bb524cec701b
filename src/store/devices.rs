//! Devices whose home we are, and what the operator does with them.

use std::collections::BTreeSet;

use rusqlite::Row;

use super::rows::{Seconds, Text, changes};
use super::secrets::Place;
use super::writer::{Db, Done, Fault};
use super::{Store, root_keys, sessions};
use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::{ClassMode, KeyEnvelope, MacVersion};
use crate::hns::{Activation, Decide, Device, Devices, Handover, Notice, QueueItem, Telling};
use crate::js;
use crate::lorawan::{DevAddr, DevEui, JoinEui, Key, NetId};
use crate::sns::Session;

/// A device that the operator adds: to the home network and to the join server.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server, which is ours.
    pub join_eui: JoinEui,
    /// The operator's word for it.
    pub name: String,
    /// LoRaWAN version of the device.
    pub mac_version: MacVersion,
    /// AppKey (1.0.x: for everything). `None`: our join server has nothing to do with it.
    pub app_key: Option<Key>,
    /// NwkKey (1.1 only).
    pub nwk_key: Option<Key>,
    /// Its home network (HNetID), where that is not ours.
    pub home: Option<NetId>,
    /// May activate and talk through other networks.
    pub roaming: bool,
}

/// A device that is added, whichever way it comes to its session.
#[derive(Debug, Clone)]
pub enum Addition {
    /// It joins.
    Joins {
        /// What it is.
        device: NewDevice,
        /// May activate and talk at all.
        enabled: bool,
        /// What it is declared to be.
        class: ClassMode,
    },
    /// It was given its session (ABP).
    Personalised {
        /// With its one activation. When both were made is written down here.
        device: Box<Device>,
        /// Its id is chosen here, and its counters go on from an earlier time here, if that came further.
        session: Box<Session>,
    },
}

impl Addition {
    fn dev_eui(&self) -> DevEui {
        match self {
            Addition::Joins { device, .. } => device.dev_eui,
            Addition::Personalised { device, .. } => device.dev_eui,
        }
    }
}

/// Why a device of a list cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Its DevEUI is here, or stands in the list before.
    DevEui,
    /// This device has the same DevAddr and the same network session keys.
    Session(DevEui),
}

/// A line in the list of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSummary {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server.
    pub join_eui: JoinEui,
    /// The operator's word for it.
    pub name: String,
    /// LoRaWAN version of the device.
    pub mac_version: MacVersion,
    /// May activate and talk at all.
    pub enabled: bool,
    /// May activate and talk through other networks.
    pub roaming: bool,
    /// It was given its session (ABP).
    pub personalised: bool,
    /// Its home network, where that is not ours.
    pub home: Option<NetId>,
    /// What it is declared to be.
    pub class: ClassMode,
    /// Address of the newest activation.
    pub dev_addr: Option<DevAddr>,
    /// Seconds since 1970 of the last accepted uplink.
    pub last_seen: Option<u64>,
    /// NetID through which the last uplink came, where that was not ours.
    pub last_via: Option<NetId>,
    /// Downlinks that wait.
    pub queued: u32,
}

/// What an operator changes about a device; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The operator's word for it.
    pub name: Option<String>,
    /// May activate and talk through other networks.
    pub roaming: Option<bool>,
    /// May activate and talk at all.
    pub enabled: Option<bool>,
    /// What it is declared to be.
    pub class: Option<ClassMode>,
}

/// Why a device was not added.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AddError {
    /// The operator's move: show it, or remove it first.
    #[error("there is already a device {0}")]
    Duplicate(DevEui),
    /// Not written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Devices for Store {
    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>> {
        // Most are uplinks; a join is found out when it has been decided.
        Box::pin(self.queue.run(false, move |db| over(db, dev_eui, &decide)))
    }

    fn ended_handovers(&self) -> Boxed<'_, Result<Vec<Handover>, StoreError>> {
        Box::pin(self.queue.look(ended_handovers))
    }

    fn end_handover(&self, of: Handover) -> Boxed<'_, Result<bool, StoreError>> {
        Box::pin(self.queue.run(true, move |db| {
            let delete = "DELETE FROM handovers WHERE dev_eui = ?1 AND dev_addr = ?2 AND net_id = ?3";
            let found = db.run(delete, (Text(of.dev_eui), Text(of.dev_addr), Text(of.net_id)))?;
            Ok((found > 0, Done::new(if found > 0 { Commit::Durable } else { Commit::Nothing })))
        }))
    }
}

impl Store {
    /// Add a device to the home network and to the join server, both or neither. One that was
    /// removed before goes on with its JoinNonce.
    pub async fn add_device(&self, new: NewDevice) -> Result<(), AddError> {
        let dev_eui = new.dev_eui;
        let work = move |db: &Db<'_>| {
            let free = !is_here(db, dev_eui)?;
            if free {
                insert(db, &new, true, ClassMode::A)?;
            }
            Ok((free, Done::new(if free { Commit::Durable } else { Commit::Nothing })))
        };
        if self.queue.run(true, work).await? { Ok(()) } else { Err(AddError::Duplicate(dev_eui)) }
    }

    /// Add many devices in one commit: all of them, or none. Answers the places of those that cannot be added;
    /// where there is one, none was. `dry_run`: only look.
    pub async fn add_devices(
        &self,
        new: Vec<Addition>,
        dry_run: bool,
    ) -> Result<Vec<(usize, Taken)>, StoreError> {
        let work = move |db: &Db<'_>| {
            let (mut taken, mut seen) = (Vec::new(), BTreeSet::new());
            for (place, device) in new.iter().enumerate() {
                if !seen.insert(device.dev_eui()) || is_here(db, device.dev_eui())? {
                    taken.push((place, Taken::DevEui));
                } else if let Addition::Personalised { session, .. } = device {
                    let before = new.get(..place).unwrap_or_default();
                    let twin = sessions::twin(db, session)?.or_else(|| twin(before, session));
                    taken.extend(twin.map(|twin| (place, Taken::Session(twin))));
                }
            }
            if dry_run || !taken.is_empty() {
                return Ok((taken, Done::new(Commit::Nothing)));
            }
            for device in &new {
                match device {
                    Addition::Joins { device, enabled, class } => insert(db, device, *enabled, *class)?,
                    Addition::Personalised { device, session } => {
                        let mut device = (**device).clone();
                        let created = db.seal.clock().unix();
                        device.profile_since = created;
                        device.activations.iter_mut().for_each(|activation| activation.created = created);
                        store(db, device.dev_eui, None, Some(&device))?;
                        sessions::personalise(db, session, created)?;
                    }
                }
            }
            Ok((taken, Done::new(Commit::Durable)))
        };
        self.queue.run(!dry_run, work).await
    }

    /// Every personalised device with its session, by DevEUI: for a copy elsewhere.
    pub async fn personalised(&self) -> Result<Vec<(Device, Session)>, StoreError> {
        let read = |db: &Db<'_>| {
            let mut all = Vec::new();
            for session in sessions::personalised(db)? {
                let found = load(db, session.dev_eui)?;
                all.extend(found.map(|found| (found.device, session)));
            }
            Ok(all)
        };
        self.queue.look(read).await
    }

    /// Take the next uplink counter of a personalised device whatever it is: it forgot its own, or was changed for
    /// another. Its downlink counters go on. `false`: there is no such device, or a join gave it its session.
    pub async fn reset_counter(&self, dev_eui: DevEui) -> Result<bool, StoreError> {
        let reset = move |db: &Db<'_>| {
            let found = sessions::reset_counter(db, dev_eui)?;
            if found {
                // or the hNS would take the uplinks to come for repetitions
                db.run("UPDATE activations SET fcnt_up = NULL WHERE dev_eui = ?1", [Text(dev_eui)])?;
            }
            Ok((found, Done::new(Commit::Durable)))
        };
        self.queue.run(true, reset).await
    }

    /// All devices, by DevEUI, each with AppKey and NwkKey where the join server holds them: for a copy elsewhere.
    pub async fn devices_with_keys(
        &self,
    ) -> Result<Vec<(DeviceSummary, Option<Key>, Option<Key>)>, StoreError> {
        let read = |db: &Db<'_>| {
            let with_key = |summary: DeviceSummary| {
                let keys = root_keys::load(db, summary.dev_eui)?;
                let (app_key, nwk_key) = keys.map(|keys| (keys.app_key, keys.nwk_key)).unzip();
                Ok((summary, app_key, nwk_key.flatten()))
            };
            summaries(db)?.into_iter().map(with_key).collect()
        };
        self.queue.look(read).await
    }

    /// Change what an operator decides about a device, in one commit for the home network, the join server and the
    /// sessions that run: these follow the roaming switch, and a device that is switched off loses them. `false`: no such device.
    pub async fn change_device(&self, dev_eui: DevEui, change: Change) -> Result<bool, StoreError> {
        self.queue.run(true, move |db| alter(db, dev_eui, &change)).await
    }

    /// The sessions that run follow what the configuration says of their devices too.
    pub async fn align_roaming(
        &self,
        may: impl Fn(DevEui, JoinEui) -> bool + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        self.queue.run(true, move |db| align_roaming(db, &may)).await
    }

    /// Remove a device, its root keys, sessions and everything that waits for or from it. `false`: there was none.
    pub async fn remove_device(&self, dev_eui: DevEui) -> Result<bool, StoreError> {
        self.queue.run(true, move |db| remove(db, dev_eui)).await
    }

    /// All devices, by DevEUI.
    pub async fn devices(&self) -> Result<Vec<DeviceSummary>, StoreError> {
        self.queue.look(summaries).await
    }

    /// One device, with activations and queue.
    pub async fn device(&self, dev_eui: DevEui) -> Result<Option<Device>, StoreError> {
        self.queue.look(move |db| Ok(load(db, dev_eui)?.map(|found| found.device))).await
    }
}

/// For the home network: what it is the home of.
fn at_home(db: &Db<'_>, dev_eui: DevEui) -> Result<Option<Found>, Fault> {
    Ok(load(db, dev_eui)?.filter(|found| found.device.home.is_none()))
}

fn over(db: &Db<'_>, dev_eui: DevEui, decide: &Decide) -> Result<((), Done), Fault> {
    let before = at_home(db, dev_eui)?;
    let mut after = before.as_ref().map(|found| found.device.clone());
    let commit = decide(&mut after);
    if commit != Commit::Nothing {
        store(db, dev_eui, before.as_ref(), after.as_ref())?;
    }
    Ok(((), Done::new(commit)))
}

/// Notices, and the device that they are about.
type News = (Device, Vec<Notice>);

/// The same, with what is to be told.
pub(super) fn telling(db: &Db<'_>, dev_eui: DevEui, decide: &Telling) -> Result<(Option<News>, Done), Fault> {
    let before = at_home(db, dev_eui)?;
    let mut after = before.as_ref().map(|found| found.device.clone());
    let (commit, notices) = decide(&mut after);
    if commit != Commit::Nothing {
        store(db, dev_eui, before.as_ref(), after.as_ref())?;
    }
    let device = after.or(before.map(|found| found.device)).filter(|_| !notices.is_empty());
    Ok((device.map(|device| (device, notices)), Done::new(commit)))
}

fn align_roaming(db: &Db<'_>, may: &dyn Fn(DevEui, JoinEui) -> bool) -> Result<((), Done), Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT dev_eui, join_eui, roaming FROM devices WHERE dev_eui IN (SELECT dev_eui FROM sessions WHERE home IS NULL)",
    )?;
    let rows = select.query_map([], |row| {
        Ok((row.get::<_, Text<DevEui>>(0)?.0, row.get::<_, Text<JoinEui>>(1)?.0, row.get::<_, bool>(2)?))
    })?;
    let devices: Vec<_> = rows.collect::<Result<_, _>>()?;
    let mut changed = 0;
    for (dev_eui, join_eui, roaming) in devices {
        changed += sessions::set_roaming(db, dev_eui, roaming && may(dev_eui, join_eui))?;
    }
    Ok(((), Done::new(if changed > 0 { Commit::Durable } else { Commit::Nothing })))
}

fn is_here(db: &Db<'_>, dev_eui: DevEui) -> Result<bool, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM devices WHERE dev_eui = ?1) OR EXISTS (SELECT 1 FROM root_keys WHERE dev_eui = ?1)",
    )?;
    Ok(select.query_row([Text(dev_eui)], |row| row.get(0))?)
}

fn alter(db: &Db<'_>, dev_eui: DevEui, change: &Change) -> Result<(bool, Done), Fault> {
    let Some(found) = load(db, dev_eui)? else { return Ok((false, Done::new(Commit::Nothing))) };
    let mut device = found.device.clone();
    device.name = change.name.clone().unwrap_or(device.name);
    device.roaming = change.roaming.unwrap_or(device.roaming);
    device.enabled = change.enabled.unwrap_or(device.enabled);
    device.class = change.class.unwrap_or(device.class);
    if device.class != found.device.class {
        device.profile_since = db.seal.clock().unix();
    }
    store(db, dev_eui, Some(&found), Some(&device))?;
    if let Some(keys) = root_keys::load(db, dev_eui)? {
        let changed = js::Device { enabled: device.enabled, ..keys.clone() };
        root_keys::store(db, dev_eui, Some(&keys), Some(&changed))?;
    }
    sessions::set_roaming(db, dev_eui, device.roaming)?;
    sessions::set_class(db, dev_eui, device.class)?;
    if device.personalised {
        sessions::set_in_force(db, dev_eui, device.enabled)?;
    } else if !device.enabled {
        sessions::remove_device(db, dev_eui)?;
    }
    Ok((true, Done::new(Commit::Durable)))
}

/// The device of a list that has the same session.
fn twin(list: &[Addition], session: &Session) -> Option<DevEui> {
    list.iter().find_map(|other| match other {
        Addition::Personalised { session: other, .. } => {
            (other.dev_addr == session.dev_addr && other.keys == session.keys).then_some(other.dev_eui)
        }
        Addition::Joins { .. } => None,
    })
}

fn insert(db: &Db<'_>, new: &NewDevice, enabled: bool, class: ClassMode) -> Result<(), Fault> {
    let device = Device {
        dev_eui: new.dev_eui,
        join_eui: new.join_eui,
        name: new.name.clone(),
        mac_version: new.mac_version,
        enabled,
        roaming: new.roaming,
        personalised: false,
        class,
        activations: Vec::new(),
        queue: Vec::new(),
        last_seen: None,
        last_via: None,
        profile_since: db.seal.clock().unix(),
        home: new.home,
    };
    store(db, new.dev_eui, None, Some(&device))?;
    let Some(app_key) = new.app_key.clone() else { return Ok(()) };
    let keys = js::Device {
        dev_eui: new.dev_eui,
        join_eui: new.join_eui,
        mac_version: new.mac_version,
        app_key,
        nwk_key: new.nwk_key.clone(),
        home: new.home,
        enabled,
        dev_nonces: Default::default(),
        join_nonce: 0,
        rj_count1: None,
        derivations: Vec::new(),
    };
    root_keys::store(db, new.dev_eui, None, Some(&keys))
}

fn remove(db: &Db<'_>, dev_eui: DevEui) -> Result<(bool, Done), Fault> {
    let (device, keys) = (load(db, dev_eui)?, root_keys::load(db, dev_eui)?);
    store(db, dev_eui, device.as_ref(), None)?;
    root_keys::store(db, dev_eui, keys.as_ref(), None)?;
    let sessions = sessions::remove_device(db, dev_eui)?;
    let found = device.is_some() || keys.is_some() || sessions > 0;
    Ok((found, Done::new(Commit::Durable)))
}

fn summaries(db: &Db<'_>) -> Result<Vec<DeviceSummary>, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT devices.*, root_keys.home, last_seen, last_via,
            (SELECT dev_addr FROM activations WHERE activations.dev_eui = devices.dev_eui ORDER BY id DESC LIMIT 1) AS dev_addr,
            (SELECT count(*) FROM queue WHERE queue.dev_eui = devices.dev_eui) AS queued
         FROM devices LEFT JOIN root_keys USING (dev_eui) LEFT JOIN seen USING (dev_eui) ORDER BY dev_eui",
    )?;
    let rows = select.query_map([], |row| {
        Ok(DeviceSummary {
            dev_eui: row.get::<_, Text<_>>("dev_eui")?.0,
            join_eui: row.get::<_, Text<_>>("join_eui")?.0,
            name: row.get("name")?,
            mac_version: row.get::<_, Text<_>>("mac_version")?.0,
            enabled: row.get("enabled")?,
            roaming: row.get("roaming")?,
            personalised: row.get("personalised")?,
            home: row.get::<_, Option<Text<_>>>("home")?.map(|text| text.0),
            class: class(row)?,
            dev_addr: row.get::<_, Option<Text<_>>>("dev_addr")?.map(|text| text.0),
            last_seen: row.get::<_, Option<Seconds>>("last_seen")?.map(|seconds| seconds.0),
            last_via: row.get::<_, Option<Text<_>>>("last_via")?.map(|text| text.0),
            queued: row.get("queued")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A device with the ids of its rows.
struct Found {
    device: Device,
    activations: Vec<(i64, Activation)>,
    queue: Vec<(i64, QueueItem)>,
}

fn place(id: i64, dev_eui: DevEui) -> Place {
    Place::new("activations", "app_s_key", format_args!("{id}/{dev_eui}"))
}

fn load(db: &Db<'_>, dev_eui: DevEui) -> Result<Option<Found>, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT devices.*, root_keys.home, last_seen, last_via
         FROM devices LEFT JOIN root_keys USING (dev_eui) LEFT JOIN seen USING (dev_eui) WHERE dev_eui = ?1",
    )?;
    let mut rows = select.query([Text(dev_eui)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut device = device(dev_eui, row)?;
    let (activations, queue) = (activations(db, dev_eui)?, queue(db, dev_eui)?);
    device.activations = activations.iter().map(|(_, activation)| activation.clone()).collect();
    device.queue = queue.iter().map(|(_, item)| item.clone()).collect();
    Ok(Some(Found { device, activations, queue }))
}

fn device(dev_eui: DevEui, row: &Row<'_>) -> Result<Device, Fault> {
    Ok(Device {
        dev_eui,
        join_eui: row.get::<_, Text<_>>("join_eui")?.0,
        name: row.get("name")?,
        mac_version: row.get::<_, Text<_>>("mac_version")?.0,
        enabled: row.get("enabled")?,
        roaming: row.get("roaming")?,
        personalised: row.get("personalised")?,
        class: class(row)?,
        activations: Vec::new(),
        queue: Vec::new(),
        last_seen: row.get::<_, Option<Seconds>>("last_seen")?.map(|seconds| seconds.0),
        last_via: row.get::<_, Option<Text<_>>>("last_via")?.map(|text| text.0),
        profile_since: row.get::<_, Seconds>("profile_since")?.0,
        home: row.get::<_, Option<Text<_>>>("home")?.map(|text| text.0),
    })
}

fn class(row: &Row<'_>) -> rusqlite::Result<ClassMode> {
    Ok(if row.get("class_c")? { ClassMode::C } else { ClassMode::A })
}

fn activations(db: &Db<'_>, dev_eui: DevEui) -> Result<Vec<(i64, Activation)>, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT activations.*, handovers.net_id AS sns FROM activations LEFT JOIN handovers USING (dev_eui, dev_addr)
         WHERE dev_eui = ?1 ORDER BY id",
    )?;
    let mut rows = select.query([Text(dev_eui)])?;
    let mut activations = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get("id")?;
        let app_s_key = match row.get::<_, Option<Vec<u8>>>("app_s_key")? {
            Some(sealed) => Some(KeyEnvelope {
                label: row.get("app_s_key_label")?,
                // The envelope wipes its key itself.
                key: db.seal.open(&place(id, dev_eui), &sealed)?.to_vec(),
            }),
            None => None,
        };
        let activation = Activation {
            dev_addr: row.get::<_, Text<_>>("dev_addr")?.0,
            session_key_id: row.get("session_key_id")?,
            app_s_key,
            fcnt_up: row.get("fcnt_up")?,
            sns: row.get::<_, Option<Text<_>>>("sns")?.map(|text| text.0),
            fcnt_down: row.get("fcnt_down")?,
            created: row.get::<_, Seconds>("created")?.0,
        };
        activations.push((id, activation));
    }
    Ok(activations)
}

fn queue(db: &Db<'_>, dev_eui: DevEui) -> Result<Vec<(i64, QueueItem)>, Fault> {
    let mut select = db.sql.prepare_cached("SELECT * FROM queue WHERE dev_eui = ?1 ORDER BY id")?;
    let rows = select.query_map([Text(dev_eui)], |row| {
        let item = QueueItem {
            id: row.get("item")?,
            f_port: row.get("f_port")?,
            payload: row.get("payload")?,
            confirmed: row.get("confirmed")?,
            sent_as: row.get("sent_as")?,
            attempts: row.get("attempts")?,
            expires: row.get::<_, Option<Seconds>>("expires")?.map(|seconds| seconds.0),
        };
        Ok((row.get("id")?, item))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Write what differs.
fn store(db: &Db<'_>, dev_eui: DevEui, before: Option<&Found>, after: Option<&Device>) -> Result<(), Fault> {
    let Some(new) = after else {
        // The lists go with it.
        db.run("DELETE FROM devices WHERE dev_eui = ?1", [Text(dev_eui)])?;
        return Ok(());
    };
    if new.dev_eui != dev_eui {
        return Err(Fault::Wrong(format!("a decision over {dev_eui} left {}", new.dev_eui)));
    }
    let alone = |device: &Device| Device {
        activations: Vec::new(),
        queue: Vec::new(),
        last_seen: None,
        last_via: None,
        ..device.clone()
    };
    if before.is_none_or(|found| alone(&found.device) != alone(new)) {
        store_device(db, new)?;
    }
    let seen = |device: &Device| device.last_seen.map(|at| (at, device.last_via));
    if before.and_then(|found| seen(&found.device)) != seen(new) {
        store_seen(db, dev_eui, seen(new))?;
    }
    let (activations, queue) =
        before.map_or((&[][..], &[][..]), |found| (&found.activations[..], &found.queue[..]));
    store_activations(db, dev_eui, activations, &new.activations)?;
    store_queue(db, dev_eui, queue, &new.queue)
}

fn store_device(db: &Db<'_>, new: &Device) -> Result<(), Fault> {
    db.run(
        "INSERT INTO devices
            (dev_eui, join_eui, name, mac_version, enabled, roaming, personalised, class_c, profile_since)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (dev_eui) DO UPDATE SET join_eui = excluded.join_eui, name = excluded.name,
            mac_version = excluded.mac_version, enabled = excluded.enabled, roaming = excluded.roaming,
            personalised = excluded.personalised, class_c = excluded.class_c, profile_since = excluded.profile_since",
        (
            Text(new.dev_eui),
            Text(new.join_eui),
            &new.name,
            Text(new.mac_version),
            new.enabled,
            new.roaming,
            new.personalised,
            new.class == ClassMode::C,
            Seconds(new.profile_since),
        ),
    )?;
    Ok(())
}

fn store_seen(db: &Db<'_>, dev_eui: DevEui, seen: Option<(u64, Option<NetId>)>) -> Result<(), Fault> {
    let Some((at, via)) = seen else {
        db.run("DELETE FROM seen WHERE dev_eui = ?1", [Text(dev_eui)])?;
        return Ok(());
    };
    db.run(
        "INSERT INTO seen (dev_eui, last_seen, last_via) VALUES (?1, ?2, ?3)
         ON CONFLICT (dev_eui) DO UPDATE SET last_seen = excluded.last_seen, last_via = excluded.last_via",
        (Text(dev_eui), Seconds(at), via.map(Text)),
    )?;
    Ok(())
}

fn store_activations(
    db: &Db<'_>,
    dev_eui: DevEui,
    rows: &[(i64, Activation)],
    items: &[Activation],
) -> Result<(), Fault> {
    // All but the counters makes an activation what it is.
    let same = |row: &Activation, item: &Activation| {
        Activation { fcnt_up: item.fcnt_up, fcnt_down: item.fcnt_down, ..row.clone() } == *item
    };
    let changes = changes(rows, items, same);
    for id in changes.gone {
        db.run("DELETE FROM activations WHERE id = ?1", [id])?;
    }
    for (id, item) in changes.changed {
        let set = "UPDATE activations SET fcnt_up = ?2, fcnt_down = ?3 WHERE id = ?1";
        db.run(set, (id, item.fcnt_up, item.fcnt_down))?;
    }
    for item in changes.new {
        // Known before the row is written, because the key is sealed for it.
        let id: i64 = db
            .sql
            .prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM activations")?
            .query_row([], |row| row.get(0))?;
        let key = item.app_s_key.as_ref();
        db.run(
            "INSERT INTO activations
                (id, dev_eui, dev_addr, session_key_id, app_s_key, app_s_key_label, fcnt_up, created, fcnt_down)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            (
                id,
                Text(dev_eui),
                Text(item.dev_addr),
                &item.session_key_id,
                key.map(|key| db.seal.seal(&place(id, dev_eui), &key.key)).transpose()?,
                key.and_then(|key| key.label.as_ref()),
                item.fcnt_up,
                Seconds(item.created),
                item.fcnt_down,
            ),
        )?;
        if let Some(net_id) = item.sns {
            let insert = "INSERT OR REPLACE INTO handovers (dev_eui, dev_addr, net_id) VALUES (?1, ?2, ?3)";
            db.run(insert, (Text(dev_eui), Text(item.dev_addr), Text(net_id)))?;
            // that network knows by itself which of its sessions have been left
            let left = "DELETE FROM handovers WHERE dev_eui = ?1 AND net_id = ?2
                AND dev_addr NOT IN (SELECT dev_addr FROM activations WHERE dev_eui = ?1)";
            db.run(left, (Text(dev_eui), Text(net_id)))?;
        }
    }
    Ok(())
}

/// One that goes on at the same network has not ended: that network knows which of its sessions is in use.
fn ended_handovers(db: &Db<'_>) -> Result<Vec<Handover>, Fault> {
    let mut select = db.sql.prepare_cached(
        "SELECT handovers.* FROM handovers
         LEFT JOIN devices USING (dev_eui)
         LEFT JOIN activations USING (dev_eui, dev_addr)
         WHERE devices.dev_eui IS NULL OR NOT devices.enabled OR NOT devices.roaming
            OR NOT EXISTS (
                SELECT 1 FROM activations AS newer JOIN handovers AS there USING (dev_eui, dev_addr)
                WHERE newer.dev_eui = handovers.dev_eui AND there.net_id = handovers.net_id
                    AND newer.id >= coalesce((SELECT max(id) FROM activations AS used
                        WHERE used.dev_eui = handovers.dev_eui AND used.fcnt_up IS NOT NULL), 0))",
    )?;
    let rows = select.query_map([], |row| {
        Ok(Handover {
            dev_eui: row.get::<_, Text<_>>("dev_eui")?.0,
            dev_addr: row.get::<_, Text<_>>("dev_addr")?.0,
            net_id: row.get::<_, Text<_>>("net_id")?.0,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn store_queue(
    db: &Db<'_>,
    dev_eui: DevEui,
    rows: &[(i64, QueueItem)],
    items: &[QueueItem],
) -> Result<(), Fault> {
    let changes = changes(rows, items, |row, item| row.id == item.id);
    for id in changes.gone {
        db.run("DELETE FROM queue WHERE id = ?1", [id])?;
    }
    for (id, item) in changes.changed {
        let set = "UPDATE queue SET f_port = ?2, payload = ?3, confirmed = ?4, sent_as = ?5, attempts = ?6, expires = ?7 WHERE id = ?1";
        db.run(
            set,
            (
                id,
                item.f_port,
                &item.payload,
                item.confirmed,
                item.sent_as,
                item.attempts,
                item.expires.map(Seconds),
            ),
        )?;
    }
    for item in changes.new {
        db.run(
            "INSERT INTO queue (dev_eui, item, f_port, payload, confirmed, sent_as, attempts, expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                Text(dev_eui),
                &item.id,
                item.f_port,
                &item.payload,
                item.confirmed,
                item.sent_as,
                item.attempts,
                item.expires.map(Seconds),
            ),
        )?;
    }
    Ok(())
}
