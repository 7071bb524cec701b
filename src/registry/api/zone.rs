//! The zone as its parent, its secondaries and its readers need to know it, and the keys that sign it. Called by `api` only.
//!
//! A key is rolled in three steps: a second one is made, which is not in the zone yet, so that its parent and the trust anchors of readers
//! get to know it; both sign; and when whatever readers keep of before has ended, the first one goes. Everybody finds the
//! zone valid all the time.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use hickory_proto::dnssec::DigestType;
use hickory_proto::dnssec::rdata::DNSKEY;
use hickory_proto::rr::Name;
use serde::Serialize;

use super::{Asking, Desk, Halt, Problem, Shared, Told, note, operates, parse};
use crate::registry::access::Scope;
use crate::registry::rules::Refused;
use crate::registry::zone::APEX_TTL;
use crate::registry::{self, MADE, SIGNING};
use crate::store::registry::{Book, ZoneKey};

/// What a parent zone, a secondary or a reader needs to know.
#[derive(Serialize)]
pub(super) struct ZoneView {
    zone: String,
    serial: u32,
    records: u64,
    /// For the parent zone, in the form of a zone file.
    ds: Vec<String>,
    /// For `[discovery] trust_anchor`, in the same form.
    dnskey: Vec<String>,
}

fn failed(error: impl std::fmt::Display) -> Problem {
    Problem::Failed(error.to_string())
}

fn ds(key: &DNSKEY, origin: &Name) -> Result<(u16, String), Problem> {
    let digest = key.to_digest(origin, DigestType::SHA256).map_err(failed)?;
    let tag = key.calculate_key_tag().map_err(failed)?;
    Ok((tag, format!("{origin} IN DS {tag} 13 2 {}", hex::encode_upper(digest.as_ref()))))
}

pub(super) async fn state(State(desk): Shared, asking: Asking) -> Told<ZoneView> {
    let told =
        desk.within(asking, Scope::Read, |book, _| Ok((book.serial()?, book.count()?, book.zone_keys()?)));
    let (serial, records, keys) = told.await?;
    let origin = desk.served.apex().origin.clone();
    let (mut all, mut dnskey) = (Vec::new(), Vec::new());
    // those that do not sign yet too: whoever trusts them before is ready when they do
    for key in &keys {
        let (key, _) = registry::signer(key, &origin).map_err(failed)?;
        all.push(ds(&key, &origin)?.1);
        dnskey.push(format!("{origin} IN DNSKEY {key}"));
    }
    let zone = origin.to_ascii().trim_end_matches('.').to_owned();
    Ok(axum::Json(ZoneView { zone, serial, records, ds: all, dnskey }))
}

/// A key of the zone.
#[derive(Serialize)]
pub(super) struct KeyView {
    id: i64,
    /// `made` or `signing`.
    state: String,
    /// As signatures name it.
    tag: u16,
    /// For the parent zone.
    ds: String,
    /// Seconds since 1970.
    since: u64,
}

pub(super) async fn keys(State(desk): Shared, asking: Asking) -> Told<Vec<KeyView>> {
    let told = desk.within(asking, Scope::Read, |book, caller| {
        operates(caller)?;
        Ok(book.zone_keys()?)
    });
    let origin = desk.served.apex().origin.clone();
    let view = |key: ZoneKey| {
        let (dnskey, _) = registry::signer(&key, &origin).map_err(failed)?;
        let (tag, ds) = ds(&dnskey, &origin)?;
        Ok(KeyView { id: key.id, state: key.state, tag, ds, since: key.since })
    };
    told.await?.into_iter().map(view).collect::<Result<_, Problem>>().map(axum::Json)
}

/// What the store says from now on.
fn signs(desk: &Desk, keys: Vec<ZoneKey>) -> Result<(), Problem> {
    let apex = (*desk.served.apex()).clone().with_keys(&keys).map_err(failed)?;
    desk.served.replace(apex);
    Ok(())
}

/// The zone has changed: its keys.
fn changed(book: &Book<'_>) -> Result<Vec<ZoneKey>, Halt> {
    book.next_serial()?;
    Ok(book.zone_keys()?)
}

pub(super) async fn add_key(State(desk): Shared, asking: Asking) -> Result<StatusCode, Problem> {
    let made = registry::new_zone_key().map_err(failed)?;
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        let id = book.add_zone_key(&made, MADE)?;
        note(book, caller, "zone key made", &id.to_string())?;
        changed(book)
    });
    signs(&desk, told.await?)?;
    Ok(StatusCode::CREATED)
}

/// Whether the zone stays valid for whoever knows its keys from before when this one signs no more.
fn is_spare(book: &Book<'_>, id: i64) -> Result<(), Halt> {
    let now = book.now();
    let others = book.zone_keys()?.into_iter().filter(|key| key.id != id && key.state == SIGNING);
    let known = others.map(|key| key.since + 2 * u64::from(APEX_TTL)).min();
    match known {
        None => Err(Refused::InTheWay("no other key signs the zone".into()).into()),
        Some(known) if known > now => {
            let wait = (known - now).div_ceil(60);
            let why = format!("readers may not know the other key yet: wait another {wait} minutes");
            Err(Refused::InTheWay(why).into())
        }
        Some(_) => Ok(()),
    }
}

/// Do something with one key; the zone is signed accordingly from then on.
async fn change(
    desk: &Desk,
    asking: Asking,
    id: &str,
    what: &'static str,
    work: fn(&Book<'_>, &ZoneKey) -> Result<(), Halt>,
) -> Result<StatusCode, Problem> {
    let id: i64 = parse(id, "number of a key")?;
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        let known = book.zone_keys()?.into_iter().find(|key| key.id == id);
        let key = known.ok_or_else(|| Refused::Missing(format!("zone key {id}")))?;
        work(book, &key)?;
        note(book, caller, what, &id.to_string())?;
        changed(book)
    });
    signs(desk, told.await?)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn sign(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let work = |book: &Book<'_>, key: &ZoneKey| {
        if key.state == SIGNING {
            return Err(Refused::InTheWay(format!("key {} signs already", key.id)).into());
        }
        book.set_zone_key(key.id, Some(SIGNING))?;
        Ok(())
    };
    change(&desk, asking, &id, "zone key signs", work).await
}

pub(super) async fn remove_key(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let work = |book: &Book<'_>, key: &ZoneKey| {
        if key.state == SIGNING {
            is_spare(book, key.id)?;
        }
        book.set_zone_key(key.id, None)?;
        Ok(())
    };
    change(&desk, asking, &id, "zone key removed", work).await
}
