//! What is whose: granted by the operator, asked for with a proof, handed out from a range, given back. Called by `api` only.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hickory_proto::rr::{RData, RecordType};
use serde::{Deserialize, Serialize};

use super::{Asking, Caller, Desk, Halt, Problem, Shared, Told, note, operates, parse, read};
use crate::discovery::Security;
use crate::discovery::name::nwk_id_name;
use crate::lorawan::{JoinEuiRange, NetId};
use crate::registry::access::Scope;
use crate::registry::rules::{self, Refused, Thing};
use crate::registry::{absolute, zone};
use crate::store::registry::{Book, Claim, Entry, MemberId, Waiting};

/// Wishes of one member at once.
const MOST_WISHES: usize = 100;
/// TTL of the list of members, seconds.
const LIST_TTL: u32 = 300;

#[derive(Serialize)]
pub(super) struct ClaimView {
    #[serde(skip_serializing_if = "Option::is_none")]
    net_id: Option<NetId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_euis: Option<JoinEuiRange>,
    /// Its name in the zone.
    name: String,
}

fn parts(thing: Thing) -> (Option<NetId>, Option<JoinEuiRange>) {
    match thing {
        Thing::Net(net_id) => (Some(net_id), None),
        Thing::Join(range) => (None, Some(range)),
        Thing::Device(..) => (None, None),
    }
}

fn view(desk: &Desk, thing: Thing) -> ClaimView {
    let (net_id, join_euis) = parts(thing);
    ClaimView { net_id, join_euis, name: desk.suffixes.name(thing) }
}

pub(super) async fn claims(State(desk): Shared, asking: Asking) -> Told<Vec<ClaimView>> {
    let at = desk.clone();
    let told = desk.within(asking, Scope::Read, move |book, caller| {
        let things = book.claims(caller.member.id)?;
        Ok(things.iter().filter_map(rules::thing).map(|thing| view(&at, thing)).collect())
    });
    told.await.map(axum::Json)
}

/// Either a NetID or JoinEUIs.
fn either(net_id: Option<NetId>, join_euis: Option<JoinEuiRange>) -> Result<Thing, Problem> {
    match (net_id, join_euis) {
        (Some(net_id), None) => Ok(Thing::Net(net_id)),
        (None, Some(range)) => Ok(Thing::Join(rules::block(range)?)),
        _ => Err(Problem::Form("either net_id or join_euis".into())),
    }
}

/// Either a NetID or JoinEUIs become a member's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewClaim {
    member: MemberId,
    net_id: Option<NetId>,
    join_euis: Option<JoinEuiRange>,
}

pub(super) async fn add_claim(
    State(desk): Shared,
    asking: Asking,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let NewClaim { member, net_id, join_euis } = read(&body)?;
    let thing = either(net_id, join_euis)?;
    let at = desk.clone();
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        let is_member = book.member(member)?.is_some_and(|member| member.revoked.is_none());
        if !is_member {
            return Err(Refused::Missing(format!("member {member}")).into());
        }
        grant(&at, book, caller, thing, member)
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

/// Whether a thing may become this member's: `false`, it is already.
fn is_free(book: &Book<'_>, thing: Thing, member: MemberId) -> Result<bool, Halt> {
    let mut wanted = rules::claims_to(thing);
    let (kind, first, bits) = wanted.swap_remove(0);
    for other in book.claims_of_kind(kind)? {
        let meets = match (rules::thing(&other), thing) {
            (Some(Thing::Net(other)), Thing::Net(net_id)) => other == net_id,
            (Some(Thing::Join(other)), Thing::Join(range)) => rules::overlap(other, range),
            _ => false,
        };
        if meets && other.member != member {
            return Err(Refused::Taken(thing.to_string()).into());
        }
        if meets && (&*other.first, other.bits) == (&*first, bits) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn claim(thing: Thing, member: MemberId) -> Claim {
    let (kind, first, bits) = rules::claims_to(thing).swap_remove(0);
    Claim { kind: kind.into(), first, bits, member, since: 0 }
}

/// From now on it is this member's, if it is nobody's.
fn grant(desk: &Desk, book: &Book<'_>, caller: &Caller, thing: Thing, member: MemberId) -> Result<(), Halt> {
    if !is_free(book, thing, member)? {
        return Ok(());
    }
    book.add_claim(&claim(thing, member))?;
    note(book, caller, "claim granted", &format!("{thing} to member {member}"))?;
    list(desk, book, thing)
}

/// Networks of types 3 to 7 share addresses, so that none is known by an address alone: the zone says who there is.
/// The records are the operator's.
pub(super) fn list(desk: &Desk, book: &Book<'_>, thing: Thing) -> Result<(), Halt> {
    let Thing::Net(net_id) = thing else { return Ok(()) };
    if net_id.kind() <= 2 {
        return Ok(());
    }
    let Some(operator) = book.members()?.into_iter().find(|member| member.operator) else { return Ok(()) };
    let member = operator.id;
    let name = nwk_id_name(net_id.kind(), net_id.nwk_id(), &desk.suffixes.net_id);
    let failed = |why: String| Halt::Problem(Problem::Failed(why));
    let name = absolute(&name).map_err(|error| failed(error.to_string()))?;
    let place = zone::place(&name, &desk.served.apex().origin);
    let place = place.ok_or_else(|| failed(format!("{name} is not in the zone")))?;
    let mut entries = Vec::new();
    for claim in book.claims_of_kind(rules::NET_ID)? {
        if let Some(Thing::Net(other)) = rules::thing(&claim)
            && (other.kind(), other.nwk_id()) == (net_id.kind(), net_id.nwk_id())
        {
            let data = format!("\"{other}\"");
            entries.push(Entry {
                place: place.clone(),
                kind: RecordType::TXT.into(),
                data,
                ttl: LIST_TTL,
                member,
            });
        }
    }
    book.put(&place, &entries)?;
    book.next_serial()?;
    Ok(())
}

/// Whether a thing is this member's.
pub(super) fn owns(book: &Book<'_>, member: MemberId, thing: Thing) -> Result<(), Halt> {
    for (kind, first, bits) in rules::claims_to(thing) {
        if let Some(claim) = book.claimed(kind, &first, bits)? {
            return match claim.member == member {
                true => Ok(()),
                false => Err(Refused::NotYours(thing.to_string()).into()),
            };
        }
    }
    Err(Refused::NotYours(thing.to_string()).into())
}

/// `C00ABC`, `70B3D57ED0000001` or `70B3D57ED0000000-40`.
fn named(text: &str) -> Result<Thing, Problem> {
    match text.len() {
        6 => Ok(Thing::Net(parse(text, "NetID")?)),
        _ => Ok(Thing::Join(rules::block(parse(&text.replace('-', "/"), "JoinEUI")?)?)),
    }
}

/// A member gives something back; the operator takes it away. What stands at its names goes with it.
pub(super) async fn remove_claim(
    State(desk): Shared,
    asking: Asking,
    Path(what): Path<String>,
) -> Result<StatusCode, Problem> {
    let thing = named(&what)?;
    let (_, place) = desk.place(thing, "")?;
    let at = desk.clone();
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        let (kind, first, bits) = rules::claims_to(thing).swap_remove(0);
        let kept = book.claimed(kind, &first, bits)?;
        let kept = kept.filter(|kept| caller.member.operator || kept.member == caller.member.id);
        let kept = kept.ok_or_else(|| Refused::NotYours(thing.to_string()))?;
        book.remove_claim(&kept)?;
        // of a block: all below it
        book.clear(place.strip_suffix(b"*\0").unwrap_or(&place), kept.member)?;
        list(&at, book, thing)?;
        book.next_serial()?;
        note(book, caller, "claim given back", &format!("{thing} of member {}", kept.member))?;
        Ok(())
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

/// The next NetID of the federation's own range becomes the caller's.
pub(super) async fn hand_out(State(desk): Shared, asking: Asking) -> Result<Response, Problem> {
    let at = desk.clone();
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        let range = at.net_ids.ok_or(Refused::Forbidden(
            "this federation hands out no NetIDs: ask for the one that the LoRa Alliance has given you",
        ))?;
        let member = caller.member.id;
        let taken: Vec<Claim> = book.claims_of_kind(rules::NET_ID)?;
        let in_range = |claim: &&Claim| match rules::thing(claim) {
            Some(Thing::Net(net_id)) => range.contains(net_id),
            _ => false,
        };
        if taken.iter().filter(in_range).any(|claim| claim.member == member) {
            let why = "you have a NetID of this federation already: GET /v1/claims shows it";
            return Err(Refused::InTheWay(why.into()).into());
        }
        let free = range.all().find(|net_id| {
            let is_it = |claim: &Claim| rules::thing(claim) == Some(Thing::Net(*net_id));
            !taken.iter().any(is_it)
        });
        let free = free.ok_or_else(|| Refused::InTheWay(format!("every NetID of {range} is taken")))?;
        grant(&at, book, caller, Thing::Net(free), member)?;
        Ok(view(&at, Thing::Net(free)))
    });
    Ok((StatusCode::CREATED, axum::Json(told.await?)).into_response())
}

// ---- wishes

/// A member would like to have something, and is known by a domain.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewWish {
    net_id: Option<NetId>,
    join_euis: Option<JoinEuiRange>,
    domain: String,
}

#[derive(Serialize)]
pub(super) struct WishView {
    id: i64,
    member: MemberId,
    #[serde(skip_serializing_if = "Option::is_none")]
    net_id: Option<NetId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_euis: Option<JoinEuiRange>,
    /// To whom the IEEE has assigned them.
    #[serde(skip_serializing_if = "Option::is_none")]
    organisation: Option<String>,
    domain: String,
    /// The TXT record that proves it.
    name: String,
    text: String,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    proven: Option<u64>,
    /// DNSSEC proves it.
    secure: bool,
}

fn challenge_name(domain: &str) -> String {
    format!("_roamgate-challenge.{domain}")
}

/// To whom the IEEE has assigned JoinEUIs. An error: to nobody, where assignments are known.
fn organisation(book: &Book<'_>, thing: Thing) -> Result<Option<String>, Halt> {
    let Thing::Join(range) = thing else { return Ok(None) };
    for (_, first, bits) in rules::claims_to(thing) {
        if let Some(found) = book.assignment(&first, bits)? {
            return Ok(Some(found.organisation));
        }
    }
    match book.has_assignments()? {
        true => Err(Refused::Invalid(format!("the IEEE has assigned {range} to nobody")).into()),
        false => Ok(None),
    }
}

fn wish(book: &Book<'_>, kept: Waiting) -> Result<WishView, Halt> {
    let claim = Claim {
        kind: kept.kind.clone(),
        first: kept.first.clone(),
        bits: kept.bits,
        member: kept.member,
        since: 0,
    };
    let thing = rules::thing(&claim);
    let (net_id, join_euis) = thing.map_or((None, None), parts);
    let organisation = thing.and_then(|thing| organisation(book, thing).ok().flatten());
    let Waiting { id, member, domain, challenge, proven, secure, .. } = kept;
    let name = challenge_name(&domain);
    Ok(WishView {
        id,
        member,
        net_id,
        join_euis,
        organisation,
        domain,
        name,
        text: challenge,
        proven,
        secure,
    })
}

/// A domain in which a TXT record can stand.
fn domain(text: &str) -> Result<String, Problem> {
    let text = text.trim().trim_end_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.len() <= 63 && label.chars().all(good)
    };
    let fits = text.len() <= 200 && text.split('.').count() >= 2 && text.split('.').all(label);
    match fits {
        true => Ok(text),
        false => Err(Problem::Form("domain: one that people know to be yours, such as acme.example".into())),
    }
}

pub(super) async fn add_wish(State(desk): Shared, asking: Asking, body: Bytes) -> Result<Response, Problem> {
    let NewWish { net_id, join_euis, domain: of } = read(&body)?;
    let thing = either(net_id, join_euis)?;
    let domain = domain(&of)?;
    let challenge = format!("roamgate={}", hex::encode(desk.clock.random::<16>()));
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        let member = caller.member.id;
        organisation(book, thing)?;
        if !is_free(book, thing, member)? {
            return Err(Refused::InTheWay(format!("{thing} is yours already")).into());
        }
        let Claim { kind, first, bits, .. } = claim(thing, member);
        let mine = book.all_waiting(Some(member))?;
        let same = |kept: &&Waiting| (&kept.kind, &kept.first, kept.bits) == (&kind, &first, bits);
        if mine.iter().any(|kept| same(&kept)) {
            return Err(Refused::InTheWay(format!("{thing} is asked for already")).into());
        }
        if mine.len() >= MOST_WISHES {
            return Err(Refused::InTheWay(format!("{MOST_WISHES} wishes wait already")).into());
        }
        let (domain, challenge) = (domain.clone(), challenge.clone());
        let mut kept =
            Waiting { id: 0, member, kind, first, bits, domain, challenge, proven: None, secure: false };
        kept.id = book.keep_waiting(&kept)?;
        note(book, caller, "claim asked for", &format!("{thing}, by {}", kept.domain))?;
        wish(book, kept)
    });
    Ok((StatusCode::CREATED, axum::Json(told.await?)).into_response())
}

pub(super) async fn wishes(State(desk): Shared, asking: Asking) -> Told<Vec<WishView>> {
    let told = desk.within(asking, Scope::Read, |book, caller| {
        let whose = (!caller.member.operator).then_some(caller.member.id);
        book.all_waiting(whose)?.into_iter().map(|kept| wish(book, kept)).collect()
    });
    told.await.map(axum::Json)
}

/// One of the caller's; the operator's are all.
fn theirs(book: &Book<'_>, caller: &Caller, id: i64) -> Result<Waiting, Halt> {
    let kept = book.waiting(id)?;
    let kept = kept.filter(|kept| caller.member.operator || kept.member == caller.member.id);
    Ok(kept.ok_or_else(|| Refused::Missing(format!("wish {id}")))?)
}

/// Look whether the proof stands where it must.
pub(super) async fn prove(State(desk): Shared, asking: Asking, Path(id): Path<String>) -> Told<WishView> {
    let id: i64 = parse(&id, "number of a wish")?;
    let kept = desk.within(asking.clone(), Scope::Admin, move |book, caller| theirs(book, caller, id));
    let kept = kept.await?;
    let name = challenge_name(&kept.domain);
    let found = desk.resolver.records(&name, RecordType::TXT).await;
    let (records, security) = found.map_err(|trouble| {
        Refused::Invalid(format!("TXT record {:?} was not found at {name}: {trouble}", kept.challenge))
    })?;
    let is_it = |data: &RData| match data {
        RData::TXT(text) => text.txt_data.concat() == kept.challenge.as_bytes(),
        _ => false,
    };
    if !records.iter().any(is_it) {
        let why = format!("{name} has no TXT record {:?}", kept.challenge);
        return Err(Refused::Invalid(why).into());
    }
    let secure = security == Security::Secure;
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        let kept = Waiting { proven: Some(book.now()), secure, ..theirs(book, caller, id)? };
        book.keep_waiting(&kept)?;
        let how = if secure { "proven by DNSSEC" } else { "not proven by DNSSEC" };
        note(book, caller, "claim proven", &format!("wish {id}, in {}, {how}", kept.domain))?;
        wish(book, kept)
    });
    told.await.map(axum::Json)
}

/// The operator has compared whose the domain is with whose the wish is for.
pub(super) async fn fulfil(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id: i64 = parse(&id, "number of a wish")?;
    let at = desk.clone();
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        let kept = theirs(book, caller, id)?;
        if kept.proven.is_none() {
            let why = format!("wish {id} has no proof yet: POST /v1/claims/waiting/{id}/prove");
            return Err(Refused::InTheWay(why).into());
        }
        let Waiting { member, kind, first, bits, .. } = kept;
        let claim = Claim { kind, first, bits, member, since: 0 };
        let thing = rules::thing(&claim).ok_or_else(|| Refused::Missing(format!("wish {id}")))?;
        is_free(book, thing, member)?;
        book.remove_waiting(id)?;
        grant(&at, book, caller, thing, member)
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn remove_wish(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id: i64 = parse(&id, "number of a wish")?;
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        let kept = theirs(book, caller, id)?;
        book.remove_waiting(id)?;
        note(book, caller, "wish withdrawn", &format!("{id}, of member {}", kept.member))?;
        Ok(())
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}
