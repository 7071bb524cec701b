//! What stands at the names of members: read, replaced, removed, one by one or many at once. Called by `api` only.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use hickory_proto::rr::RecordType;
use serde::{Deserialize, Serialize};

use super::claims::owns;
use super::{Asking, Desk, Halt, PAGE, Problem, Shared, Told, note, parse, read};
use crate::lorawan::{DevEui, JoinEui, JoinEuiRange};
use crate::registry::access::Scope;
use crate::registry::rules::{self, Refused, Thing, Wish};
use crate::registry::zone;
use crate::store::registry::{Book, Entry, MemberId};

/// Devices of one batch.
const BATCH: usize = 10_000;

#[derive(Deserialize)]
struct Under {
    #[serde(default)]
    under: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Records {
    records: Vec<Wish>,
}

/// What stands at a name.
#[derive(Serialize)]
pub(super) struct NameView {
    name: String,
    records: Vec<Wish>,
}

/// What a request's address names, and which service below it.
pub(super) struct At {
    thing: Thing,
    under: String,
}

impl At {
    /// What the address names.
    pub(super) fn thing(&self) -> Thing {
        self.thing
    }
}

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<At, Problem> {
        let form = |error: String| Problem::Form(error);
        let ids = Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        let Path(ids) = ids.map_err(|error| form(error.to_string()))?;
        let query = Query::<Under>::from_request_parts(parts, state).await;
        let Query(Under { under }) = query.map_err(|error| form(error.to_string()))?;
        let id = |name: &str| ids.get(name).map(String::as_str);
        let thing = match (id("net_id"), id("join_eui"), id("dev_eui")) {
            (Some(net_id), ..) => Thing::Net(parse(net_id, "NetID")?),
            (_, Some(join_eui), Some(dev_eui)) => {
                Thing::Device(parse(join_eui, "JoinEUI")?, parse(dev_eui, "DevEUI")?)
            }
            // `70B3D57ED0000001`, or a block as `70B3D57ED0000000-40`
            (_, Some(range), None) => {
                let range: JoinEuiRange = parse(&range.replace('-', "/"), "JoinEUI")?;
                Thing::Join(rules::block(range)?)
            }
            _ => return Err(form("an address that names nothing".into())),
        };
        Ok(At { thing, under })
    }
}

impl Desk {
    /// Name and place of a thing, or of a service below it.
    pub(super) fn place(&self, thing: Thing, under: &str) -> Result<(String, Vec<u8>), Problem> {
        let under = rules::under(under)?;
        let mut name = self.suffixes.name(thing);
        if !under.is_empty() {
            name = format!("{under}.{}", name.trim_start_matches("*."));
        }
        self.placed(name)
    }

    /// Where records of a thing can stand: at its own name, and where it is handed over, which for a block is another.
    fn places(&self, thing: Thing, under: &str) -> Result<[(String, Vec<u8>); 2], Problem> {
        let own = self.place(thing, under)?;
        let cut = if under.is_empty() { self.placed(self.suffixes.cut(thing))? } else { own.clone() };
        Ok([own, cut])
    }

    fn placed(&self, name: String) -> Result<(String, Vec<u8>), Problem> {
        let absolute =
            crate::registry::absolute(&name).map_err(|error| Problem::Failed(error.to_string()))?;
        let place = zone::place(&absolute, &self.served.apex().origin);
        Ok((name, place.ok_or_else(|| Problem::Failed("a name outside the zone".into()))?))
    }
}

fn wish(entry: &Entry) -> Wish {
    let kind = RecordType::from(entry.kind).to_string();
    Wish { kind, data: entry.data.clone(), ttl: Some(entry.ttl) }
}

pub(super) async fn look(State(desk): Shared, asking: Asking, at: At) -> Told<NameView> {
    let (thing, [own, cut]) = (at.thing, desk.places(at.thing, &at.under)?);
    let told = desk.within(asking, Scope::Read, move |book, caller| {
        owns(book, caller.member.id, thing)?;
        let handed_over = book.at(&cut.1)?;
        let (name, found) =
            if handed_over.is_empty() { (&own.0, book.at(&own.1)?) } else { (&cut.0, handed_over) };
        Ok(NameView { name: name.clone(), records: found.iter().map(wish).collect() })
    });
    told.await.map(axum::Json)
}

/// Whether these may stand at a place, as the zone is.
fn fits(book: &Book<'_>, place: &[u8], granted: &[rules::Granted]) -> Result<(), Halt> {
    let view = book.view(place)?;
    let in_the_way = |what: &str| Err(Refused::InTheWay(what.into()).into());
    if view.cut.first().is_some_and(|cut| cut.place != place) {
        return in_the_way("a name above it is delegated (NS): what stands below is said there");
    }
    if rules::delegates(granted) && view.below {
        return in_the_way("there are records below it: remove them before the name is delegated");
    }
    Ok(())
}

fn entries(place: &[u8], granted: &[rules::Granted], member: MemberId) -> Vec<Entry> {
    let entry = |record: &rules::Granted| Entry {
        place: place.to_vec(),
        kind: record.kind,
        data: record.data.clone(),
        ttl: record.ttl,
        member,
    };
    granted.iter().map(entry).collect()
}

pub(super) async fn put(State(desk): Shared, asking: Asking, at: At, body: Bytes) -> Told<NameView> {
    let (thing, [own, cut]) = (at.thing, desk.places(at.thing, &at.under)?);
    let granted = rules::records(&read::<Records>(&body)?.records)?;
    let (name, place) = if rules::delegates(&granted) { cut } else { own };
    rules::suit(&name, &granted)?;
    let told = desk.within(asking, Scope::Write, move |book, caller| {
        owns(book, caller.member.id, thing)?;
        fits(book, &place, &granted)?;
        let entries = entries(&place, &granted, caller.member.id);
        book.put(&place, &entries)?;
        book.next_serial()?;
        let records: Vec<Wish> = entries.iter().map(wish).collect();
        let said: Vec<String> = records.iter().map(|one| format!("{} {}", one.kind, one.data)).collect();
        note(book, caller, "records put", &format!("{name}: {}", said.join(", ")))?;
        Ok(NameView { name: name.clone(), records })
    });
    told.await.map(axum::Json)
}

pub(super) async fn clear(State(desk): Shared, asking: Asking, at: At) -> Result<StatusCode, Problem> {
    let (thing, places) = (at.thing, desk.places(at.thing, &at.under)?);
    let done = desk.within(asking, Scope::Write, move |book, caller| {
        owns(book, caller.member.id, thing)?;
        let mut found = None;
        for (name, place) in &places {
            if !book.at(place)?.is_empty() {
                book.put(place, &[])?;
                found = Some(name);
            }
        }
        let name = found.ok_or_else(|| Refused::Missing(format!("record at {}", places[0].0)))?;
        book.next_serial()?;
        note(book, caller, "records removed", name)?;
        Ok(())
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

/// The same records for many devices of one JoinEUI.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    dev_euis: Vec<DevEui>,
    records: Vec<Wish>,
}

#[derive(Serialize)]
pub(super) struct Done {
    devices: usize,
}

pub(super) async fn batch(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
    body: Bytes,
) -> Told<Done> {
    let join_eui: JoinEui = parse(&id, "JoinEUI")?;
    let Batch { mut dev_euis, records } = read(&body)?;
    if dev_euis.is_empty() || dev_euis.len() > BATCH {
        return Err(Problem::Form(format!("a batch has 1 to {BATCH} devices, not {}", dev_euis.len())));
    }
    dev_euis.sort();
    dev_euis.dedup();
    let granted = rules::records(&records)?;
    let mut places = Vec::new();
    for dev_eui in &dev_euis {
        places.push(desk.place(Thing::Device(join_eui, *dev_eui), "")?.1);
    }
    let whole = Thing::Device(join_eui, DevEui::from_msb([0; 8]));
    let told = desk.within(asking, Scope::Write, move |book, caller| {
        owns(book, caller.member.id, whole)?;
        for place in &places {
            fits(book, place, &granted)?;
        }
        for place in &places {
            book.put(place, &entries(place, &granted, caller.member.id))?;
        }
        book.next_serial()?;
        note(book, caller, "batch put", &format!("{} devices of JoinEUI {join_eui}", places.len()))?;
        Ok(Done { devices: places.len() })
    });
    told.await.map(axum::Json)
}

#[derive(Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: String,
}

/// A page of records, and where the next begins.
#[derive(Serialize)]
pub(super) struct Page {
    names: Vec<NameView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

pub(super) async fn records(State(desk): Shared, asking: Asking, Query(after): Query<After>) -> Told<Page> {
    let origin = desk.served.apex().origin.clone();
    let place =
        hex::decode(&after.after).map_err(|_| Problem::Form("after: as the page before says".into()))?;
    let told = desk.within(asking, Scope::Read, move |book, caller| {
        let found = book.records(caller.member.id, &place, PAGE)?;
        let full = found.len() >= PAGE as usize;
        let mut names: Vec<NameView> = Vec::new();
        for of_name in found.chunk_by(|one, other| one.place == other.place) {
            let Some(first) = of_name.first() else { continue };
            let name = zone::name(&first.place, &origin)
                .map_err(|error| Halt::Problem(Problem::Failed(error.to_string())))?;
            let name = name.to_ascii().trim_end_matches('.').to_owned();
            names.push(NameView { name, records: of_name.iter().map(wish).collect() });
        }
        // the last name may be torn: it comes again whole
        let mut last = found.last().map(|entry| entry.place.clone());
        if full && names.len() > 1 {
            names.pop();
            last =
                found.iter().rev().map(|entry| &entry.place).find(|at| Some(*at) != last.as_ref()).cloned();
        }
        let after = if full { last.map(hex::encode) } else { None };
        Ok(Page { names, after })
    });
    told.await.map(axum::Json)
}
