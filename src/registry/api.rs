//! The registry's REST API: JSON over HTTP, a member's key in `Authorization: Bearer`.
//!
//! Every request is one transaction: who asks, whether it is theirs, what changes, and the line of the audit log stand or fall
//! together. A wish that is refused has changed nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::access::{self, Caller, Guesses, Scope};
use super::certificates::Office;
use super::rules::{self, Refused, Suffixes, Thing};
use super::server::Served;
use crate::clock::Clock;
use crate::lorawan::{JoinEuiRange, NetId};
use crate::pki::request::Request;
use crate::store::Store;
use crate::store::registry::{Book, BookError, Certificate, Claim, MemberId};

/// Bodies longer than this are no request, bytes: a batch of 10,000 devices fits.
const BODY_LIMIT: usize = 1024 * 1024;
/// Lines of one page.
const PAGE: u32 = 500;
/// Characters of a member's name or a key's label.
const LONGEST_NAME: usize = 80;

/// Everything that the handlers share.
pub struct Desk {
    /// Members, claims, records.
    pub store: Store,
    /// Where names are.
    pub suffixes: Suffixes,
    /// The zone as it is served.
    pub served: Served,
    /// Signs certificates; `None`: this registry does not.
    pub office: Option<Office>,
    /// Wrong keys.
    pub guesses: Guesses,
    /// Time and chance.
    pub clock: Clock,
}

/// Why a request was not done.
#[derive(Debug)]
enum Problem {
    /// No key, or none that opens anything.
    Stranger,
    /// So many wrong keys.
    Guessing(u64),
    Refused(Refused),
    /// Not JSON, or not of this form.
    Form(String),
    /// Ours: told to the log, not to whoever asked.
    Failed(String),
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        Problem::Refused(refused)
    }
}

/// `{ "error": …, "remedy": … }`
#[derive(Serialize)]
struct Trouble {
    error: String,
    remedy: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, error, remedy) = match &self {
            Problem::Stranger => (
                StatusCode::UNAUTHORIZED,
                "there is no such key".into(),
                "send `Authorization: Bearer rg_…` with a key that has not been revoked",
            ),
            Problem::Guessing(_) => {
                (StatusCode::TOO_MANY_REQUESTS, "so many wrong keys".into(), "wait, and use the right one")
            }
            Problem::Form(why) => {
                (StatusCode::UNPROCESSABLE_ENTITY, why.clone(), "/v1/openapi.json says what is expected")
            }
            Problem::Failed(why) => {
                tracing::error!(why, "a request to the registry failed");
                let error = "the registry could not do it".into();
                (StatusCode::INTERNAL_SERVER_ERROR, error, "its log says why; ask its operator")
            }
            Problem::Refused(refused) => match refused {
                Refused::NotYours(_) | Refused::Forbidden(_) => (
                    StatusCode::FORBIDDEN,
                    refused.to_string(),
                    "GET /v1/claims lists what is yours, GET /v1/keys what your key may do",
                ),
                Refused::Taken(_) | Refused::InTheWay(_) => (
                    StatusCode::CONFLICT,
                    refused.to_string(),
                    "ask the registry's operator if that is wrong",
                ),
                Refused::Missing(_) => {
                    (StatusCode::NOT_FOUND, refused.to_string(), "look at what there is, or make it")
                }
                _ => (
                    StatusCode::UNPROCESSABLE_ENTITY,
                    refused.to_string(),
                    "correct it; /v1/openapi.json says what is expected",
                ),
            },
        };
        let mut response = (status, axum::Json(Trouble { error, remedy: remedy.into() })).into_response();
        if let Problem::Guessing(seconds) = self
            && let Ok(value) = seconds.to_string().parse()
        {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}

/// A wish that was refused, or a database that failed, in the middle of a transaction.
enum Halt {
    Problem(Problem),
    Book(BookError),
}

impl From<BookError> for Halt {
    fn from(error: BookError) -> Halt {
        Halt::Book(error)
    }
}

impl From<Refused> for Halt {
    fn from(refused: Refused) -> Halt {
        Halt::Problem(refused.into())
    }
}

/// The key and the address of whoever asks.
struct Asking {
    key: String,
    from: IpAddr,
}

impl<S: Send + Sync> FromRequestParts<S> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asking, Problem> {
        let from = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|from| from.0.ip());
        let key = bearer(&parts.headers).ok_or(Problem::Stranger)?;
        Ok(Asking { key, from: from.unwrap_or(IpAddr::from([127, 0, 0, 1])) })
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    Some(value.strip_prefix("Bearer ")?.trim().to_owned())
}

impl Desk {
    /// One transaction for whoever has this key and may do at least this.
    async fn within<T, F>(&self, asking: Asking, least: Scope, mut work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnMut(&Book<'_>, &Caller) -> Result<T, Halt> + Send + 'static,
    {
        let Asking { key, from } = asking;
        let done = self.store.registry(move |book| {
            let Some(caller) = access::caller(book, &key)? else {
                return Ok((Err(Problem::Stranger), false));
            };
            if caller.scope < least {
                let refused = Refused::Forbidden("your key may not do this");
                return Ok((Err(refused.into()), false));
            }
            match work(book, &caller) {
                Ok(value) => Ok((Ok(value), least > Scope::Read)),
                Err(Halt::Problem(problem)) => Ok((Err(problem), false)),
                Err(Halt::Book(error)) => Err(error),
            }
        });
        match done.await.map_err(|error| Problem::Failed(error.to_string()))? {
            Err(Problem::Stranger) => match self.guesses.wrong(from) {
                Ok(()) => Err(Problem::Stranger),
                Err(wait) => Err(Problem::Guessing(wait.0.as_secs().max(1))),
            },
            other => other,
        }
    }
}

type Shared = State<Arc<Desk>>;
type Told<T> = Result<axum::Json<T>, Problem>;

/// The router.
pub fn router(desk: Arc<Desk>) -> Router {
    let names = || get(records::look).put(records::put).delete(records::clear);
    let nothing = || async { Problem::from(Refused::Missing("thing at this address".into())) };
    Router::new()
        .route("/v1/members", get(members).post(add_member))
        .route("/v1/members/{id}", delete(revoke_member))
        .route("/v1/keys", get(keys).post(add_key))
        .route("/v1/keys/{key}", delete(revoke_key))
        .route("/v1/claims", get(claims).post(add_claim))
        .route("/v1/net-ids/{net_id}", names())
        .route("/v1/join-euis/{join_eui}", names())
        .route("/v1/join-euis/{join_eui}/devices", post(records::batch))
        .route("/v1/join-euis/{join_eui}/devices/{dev_eui}", names())
        .route("/v1/records", get(records::records))
        .route("/v1/certificates", get(certificates).post(ask_certificate))
        .route("/v1/certificates/{id}", get(certificate))
        .route("/v1/certificates/{id}/approve", post(approve))
        .route("/v1/certificates/{id}/revoke", post(revoke_certificate))
        .route("/v1/crl.pem", get(revoked_list))
        .route("/v1/openapi.json", get(async || axum::Json(super::openapi::document())))
        .route("/v1/zone", get(zone::state))
        .route("/v1/zone/keys", get(zone::keys).post(zone::add_key))
        .route("/v1/zone/keys/{id}", delete(zone::remove_key))
        .route("/v1/zone/keys/{id}/sign", post(zone::sign))
        .route("/v1/audit", get(audit))
        .fallback(nothing)
        .method_not_allowed_fallback(|| async {
            let error = "this address does not take that method".to_owned();
            let remedy = "GET reads, PUT replaces, POST adds, DELETE removes".to_owned();
            (StatusCode::METHOD_NOT_ALLOWED, axum::Json(Trouble { error, remedy }))
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(desk)
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::Form(error.to_string()))
}

fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Problem::Form(format!("{what}: {error}")))
}

fn called(name: &str, what: &'static str) -> Result<String, Problem> {
    let name = name.trim();
    let good =
        !name.is_empty() && name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control);
    match good {
        true => Ok(name.to_owned()),
        false => Err(Problem::Form(format!("{what}: 1 to {LONGEST_NAME} characters, on one line"))),
    }
}

// ---- members and their keys

#[derive(Serialize)]
struct MemberView {
    id: MemberId,
    name: String,
    operator: bool,
    revoked: bool,
}

async fn members(State(desk): Shared, asking: Asking) -> Told<Vec<MemberView>> {
    let told = desk.within(asking, Scope::Read, |book, _| {
        let all = book.members()?.into_iter();
        Ok(all
            .map(|member| MemberView {
                id: member.id,
                name: member.name,
                operator: member.operator,
                revoked: member.revoked.is_some(),
            })
            .collect())
    });
    told.await.map(axum::Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMember {
    name: String,
    #[serde(default)]
    operator: bool,
}

/// Its first key is in the answer, and never shown again.
#[derive(Serialize)]
struct Welcome {
    id: MemberId,
    key: String,
}

fn operates(caller: &Caller) -> Result<(), Refused> {
    match caller.member.operator {
        true => Ok(()),
        false => Err(Refused::Forbidden("only the registry's operator may do this")),
    }
}

fn note(book: &Book<'_>, caller: &Caller, what: &str, detail: &str) -> Result<(), BookError> {
    book.audit(Some(caller.member.id), Some(&caller.key), what, detail)
}

async fn add_member(State(desk): Shared, asking: Asking, body: Bytes) -> Result<Response, Problem> {
    let NewMember { name, operator } = read(&body)?;
    let name = called(&name, "name")?;
    let clock = desk.clock.clone();
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        if book.member_named(&name)?.is_some() {
            return Err(Refused::InTheWay(format!("there is a member {name:?}")).into());
        }
        let id = book.add_member(&name, operator)?;
        let (shown, key) = access::make(id, "first key", Scope::Admin, &clock);
        book.add_key(&key)?;
        note(book, caller, "member added", &name)?;
        Ok(Welcome { id, key: shown.to_string() })
    });
    Ok((StatusCode::CREATED, axum::Json(told.await?)).into_response())
}

async fn revoke_member(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id: MemberId = parse(&id, "number of a member")?;
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        if id == caller.member.id {
            return Err(Refused::Forbidden("nobody revokes himself").into());
        }
        let member = book.member(id)?.filter(|member| member.revoked.is_none());
        let member = member.ok_or_else(|| Refused::Missing(format!("member {id}")))?;
        book.revoke_member(id)?;
        note(book, caller, "member revoked", &member.name)?;
        Ok(())
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
struct KeyView {
    id: String,
    label: String,
    scope: String,
    revoked: bool,
}

async fn keys(State(desk): Shared, asking: Asking) -> Told<Vec<KeyView>> {
    let told = desk.within(asking, Scope::Read, |book, caller| {
        let all = book.keys(caller.member.id)?.into_iter();
        Ok(all
            .map(|key| KeyView {
                id: key.id,
                label: key.label,
                scope: key.scope,
                revoked: key.revoked.is_some(),
            })
            .collect())
    });
    told.await.map(axum::Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    label: String,
    scope: Scope,
}

/// Shown once.
#[derive(Serialize)]
struct ShownKey {
    id: String,
    key: String,
}

async fn add_key(State(desk): Shared, asking: Asking, body: Bytes) -> Result<Response, Problem> {
    let NewKey { label, scope } = read(&body)?;
    let label = called(&label, "label")?;
    let clock = desk.clock.clone();
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        let (shown, key) = access::make(caller.member.id, &label, scope, &clock);
        book.add_key(&key)?;
        note(book, caller, "key made", &format!("{} ({scope}): {label}", key.id))?;
        Ok(ShownKey { id: key.id, key: shown.to_string() })
    });
    Ok((StatusCode::CREATED, axum::Json(told.await?)).into_response())
}

async fn revoke_key(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        if !book.revoke_key(caller.member.id, &id)? {
            return Err(Refused::Missing("such key of yours".into()).into());
        }
        note(book, caller, "key revoked", &id)?;
        Ok(())
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

// ---- what is whose

#[derive(Serialize)]
struct ClaimView {
    #[serde(skip_serializing_if = "Option::is_none")]
    net_id: Option<NetId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_euis: Option<JoinEuiRange>,
    /// Its name in the zone.
    name: String,
}

async fn claims(State(desk): Shared, asking: Asking) -> Told<Vec<ClaimView>> {
    let suffixes = desk.suffixes.clone();
    let told = desk.within(asking, Scope::Read, move |book, caller| {
        let things = book.claims(caller.member.id)?;
        let things = things.iter().filter_map(rules::thing);
        Ok(things
            .map(|thing| ClaimView {
                net_id: if let Thing::Net(net_id) = thing { Some(net_id) } else { None },
                join_euis: if let Thing::Join(range) = thing { Some(range) } else { None },
                name: suffixes.name(thing),
            })
            .collect())
    });
    told.await.map(axum::Json)
}

/// Either a NetID or JoinEUIs become a member's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewClaim {
    member: MemberId,
    net_id: Option<NetId>,
    join_euis: Option<JoinEuiRange>,
}

async fn add_claim(State(desk): Shared, asking: Asking, body: Bytes) -> Result<StatusCode, Problem> {
    let NewClaim { member, net_id, join_euis } = read(&body)?;
    let thing = match (net_id, join_euis) {
        (Some(net_id), None) => Thing::Net(net_id),
        (None, Some(range)) => Thing::Join(rules::block(range)?),
        _ => return Err(Problem::Form("either net_id or join_euis".into())),
    };
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        let is_member = book.member(member)?.is_some_and(|member| member.revoked.is_none());
        if !is_member {
            return Err(Refused::Missing(format!("member {member}")).into());
        }
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
                return Ok(());
            }
        }
        book.add_claim(&Claim { kind: kind.into(), first, bits, member, since: 0 })?;
        note(book, caller, "claim granted", &format!("{thing} to member {member}"))?;
        Ok(())
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

/// Whether a thing is this member's.
fn owns(book: &Book<'_>, member: MemberId, thing: Thing) -> Result<(), Halt> {
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

// ---- certificates

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    request: String,
}

#[derive(Serialize)]
struct CertificateView {
    id: i64,
    member: MemberId,
    names: Vec<String>,
    /// `waiting` for the operator, `signed` or `revoked`.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    /// Leaf, then the intermediate.
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
}

impl From<Certificate> for CertificateView {
    fn from(kept: Certificate) -> CertificateView {
        let Certificate { id, member, names, state, chain, serial, .. } = kept;
        let names = names.split(' ').map(ToOwned::to_owned).collect();
        CertificateView { id, member, names, state, serial, chain }
    }
}

fn office(desk: &Desk) -> Result<&Office, Refused> {
    desk.office.as_ref().ok_or_else(|| Refused::Missing("authority here: this registry signs nothing".into()))
}

fn sign(desk: &Desk, mut kept: Certificate, request: &Request) -> Result<Certificate, Refused> {
    let signed = office(desk)?.sign(request)?;
    kept.state = "signed".into();
    (kept.chain, kept.serial) = (Some(signed.chain), Some(signed.serial));
    Ok(kept)
}

async fn ask_certificate(State(desk): Shared, asking: Asking, body: Bytes) -> Result<Response, Problem> {
    let pem = read::<Asked>(&body)?.request;
    office(&desk)?;
    let at = desk.clone();
    let told = desk.within(asking, Scope::Write, move |book, caller| {
        let request = Office::read(&pem, &book.claims(caller.member.id)?, &at.suffixes)?;
        if let Some(asked) = book.certificate_of(caller.member.id, &pem)? {
            return Ok(asked.into());
        }
        let names = request.names.join(" ");
        let known = book.has_certificate(caller.member.id, &names)?;
        let mut kept = Certificate {
            id: 0,
            member: caller.member.id,
            request: pem.clone(),
            names,
            state: "waiting".into(),
            chain: None,
            serial: None,
            since: 0,
        };
        if known {
            kept = sign(&at, kept, &request)?;
        }
        kept.id = book.keep_certificate(&kept)?;
        note(
            book,
            caller,
            "certificate asked for",
            &format!("{}: {} ({})", kept.id, kept.names, kept.state),
        )?;
        Ok(CertificateView::from(kept))
    });
    Ok((StatusCode::CREATED, axum::Json(told.await?)).into_response())
}

async fn certificates(State(desk): Shared, asking: Asking) -> Told<Vec<CertificateView>> {
    let told = desk.within(asking, Scope::Read, |book, caller| {
        let whose = (!caller.member.operator).then_some(caller.member.id);
        Ok(book.certificates(whose, PAGE)?.into_iter().map(CertificateView::from).collect())
    });
    told.await.map(axum::Json)
}

/// One of the caller's; the operator's are all.
fn theirs(book: &Book<'_>, caller: &Caller, id: i64) -> Result<Certificate, Halt> {
    let kept = book.certificate(id)?;
    let kept = kept.filter(|kept| caller.member.operator || kept.member == caller.member.id);
    Ok(kept.ok_or_else(|| Refused::Missing(format!("certificate {id}")))?)
}

async fn certificate(State(desk): Shared, asking: Asking, Path(id): Path<String>) -> Told<CertificateView> {
    let id: i64 = parse(&id, "number of a certificate")?;
    let told = desk.within(asking, Scope::Read, move |book, caller| Ok(theirs(book, caller, id)?.into()));
    told.await.map(axum::Json)
}

async fn approve(State(desk): Shared, asking: Asking, Path(id): Path<String>) -> Told<CertificateView> {
    let id: i64 = parse(&id, "number of a certificate")?;
    let at = desk.clone();
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        let kept = theirs(book, caller, id)?;
        if kept.state != "waiting" {
            return Err(Refused::InTheWay(format!("certificate {id} is {} already", kept.state)).into());
        }
        // what it was asked for may have gone to somebody else meanwhile
        let request = Office::read(&kept.request, &book.claims(kept.member)?, &at.suffixes)?;
        let kept = sign(&at, kept, &request)?;
        book.keep_certificate(&kept)?;
        note(book, caller, "certificate approved", &format!("{id}: {}", kept.names))?;
        Ok(CertificateView::from(kept))
    });
    told.await.map(axum::Json)
}

async fn revoke_certificate(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Told<CertificateView> {
    let id: i64 = parse(&id, "number of a certificate")?;
    let told = desk.within(asking, Scope::Admin, move |book, caller| {
        let mut kept = theirs(book, caller, id)?;
        kept.state = "revoked".into();
        book.keep_certificate(&kept)?;
        note(book, caller, "certificate revoked", &format!("{id}: {}", kept.names))?;
        Ok(CertificateView::from(kept))
    });
    told.await.map(axum::Json)
}

/// For everybody: members' `[backend] crls` point here.
async fn revoked_list(State(desk): Shared) -> Result<Response, Problem> {
    let failed = |error: String| Problem::Failed(error);
    let office = office(&desk)?;
    let revoked = desk.store.registry(|book| Ok((book.revoked_serials()?, false))).await;
    let pem = office.list(revoked.map_err(|error| failed(error.to_string()))?);
    let pem = pem.map_err(|error| failed(format!("{error:#}")))?;
    Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response())
}

// ---- the audit log

#[derive(Serialize)]
struct Line {
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<MemberId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    what: String,
    detail: String,
}

/// The operator sees all of it, a member its own.
async fn audit(State(desk): Shared, asking: Asking) -> Told<Vec<Line>> {
    let told = desk.within(asking, Scope::Read, |book, caller| {
        let whose = (!caller.member.operator).then_some(caller.member.id);
        let lines = book.audited(whose, PAGE)?.into_iter();
        Ok(lines
            .map(|line| Line {
                at: line.at,
                member: line.member,
                key: line.key,
                what: line.what,
                detail: line.detail,
            })
            .collect())
    });
    told.await.map(axum::Json)
}

mod records;
mod zone;
