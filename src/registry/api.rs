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
use zeroize::Zeroizing;

use super::access::{self, Caller, Guesses, Scope};
use super::certificates::Office;
use super::rules::{self, NetIds, Refused, Suffixes};
use super::server::Served;
use crate::clock::Clock;
use crate::discovery::Resolver;
use crate::store::Store;
use crate::store::registry::{Book, BookError, MemberId};

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
    /// Wrong keys and passwords.
    pub guesses: Arc<Guesses>,
    /// NetIDs that the federation hands out.
    pub net_ids: Option<NetIds>,
    /// What readers of the DNS find.
    pub resolver: Resolver,
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

/// Somebody who has signed in to the pages, which ask for him: an extension of the request.
#[derive(Debug, Clone)]
pub struct SignedIn(pub Who);

/// Who asks.
#[derive(Debug, Clone)]
pub enum Who {
    /// Whoever has this key.
    Key(Zeroizing<String>),
    /// Whoever has signed in by this name.
    User(String),
}

/// Who asks, and from where.
#[derive(Clone)]
struct Asking {
    who: Who,
    from: IpAddr,
}

impl<S: Send + Sync> FromRequestParts<S> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asking, Problem> {
        let from = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let from = from.map(|from| whence(from.0, &parts.headers));
        let who = match parts.extensions.get::<SignedIn>() {
            Some(SignedIn(who)) => who.clone(),
            None => Who::Key(bearer(&parts.headers).ok_or(Problem::Stranger)?),
        };
        Ok(Asking { who, from: from.unwrap_or(IpAddr::from([127, 0, 0, 1])) })
    }
}

/// Behind a proxy everybody comes from it: its word counts where it is on this machine.
pub(super) fn whence(from: SocketAddr, headers: &HeaderMap) -> IpAddr {
    let said = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let last = said.and_then(|said| said.rsplit(',').next()?.trim().parse().ok());
    let from = from.ip().to_canonical();
    if from.is_loopback() { last.unwrap_or(from) } else { from }
}

fn bearer(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    Some(Zeroizing::new(value.strip_prefix("Bearer ")?.trim().to_owned()))
}

impl Desk {
    /// One transaction for whoever has this key and may do at least this.
    async fn within<T, F>(&self, asking: Asking, least: Scope, mut work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnMut(&Book<'_>, &Caller) -> Result<T, Halt> + Send + 'static,
    {
        let Asking { who, from } = asking;
        let done = self.store.registry(move |book| {
            let caller = match &who {
                Who::Key(key) => access::caller(book, key)?,
                Who::User(name) => access::user(book, name)?,
            };
            let Some(caller) = caller else {
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
        .route("/v1/me", get(me))
        .route("/v1/members", get(members).post(add_member))
        .route("/v1/members/{id}", delete(revoke_member))
        .route("/v1/keys", get(keys).post(add_key))
        .route("/v1/keys/{key}", delete(revoke_key))
        .route("/v1/users", get(people::users).post(people::add_user))
        .route("/v1/users/{name}", delete(people::remove_user))
        .route("/v1/claims", get(claims::claims).post(claims::add_claim))
        .route("/v1/claims/{what}", delete(claims::remove_claim))
        .route("/v1/claims/waiting", get(claims::wishes).post(claims::add_wish))
        .route("/v1/claims/waiting/{id}", delete(claims::remove_wish))
        .route("/v1/claims/waiting/{id}/prove", post(claims::prove))
        .route("/v1/claims/waiting/{id}/fulfil", post(claims::fulfil))
        .route("/v1/net-ids", post(claims::hand_out))
        .route("/v1/net-ids/{net_id}", names())
        .route("/v1/join-euis/{join_eui}", names())
        .route("/v1/net-ids/{net_id}/found", get(found::found))
        .route("/v1/join-euis/{join_eui}/found", get(found::found))
        .route("/v1/join-euis/{join_eui}/devices/{dev_eui}/found", get(found::found))
        .route("/v1/join-euis/{join_eui}/devices", post(records::batch))
        .route("/v1/join-euis/{join_eui}/devices/{dev_eui}", names())
        .route("/v1/records", get(records::records))
        .route("/v1/certificates", get(certificates::certificates).post(certificates::ask_certificate))
        .route("/v1/certificates/{id}", get(certificates::certificate))
        .route("/v1/certificates/{id}/approve", post(certificates::approve))
        .route("/v1/certificates/{id}/revoke", post(certificates::revoke_certificate))
        .route("/v1/crl.pem", get(certificates::revoked_list))
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

/// Who asks, and what he may do.
#[derive(Serialize)]
struct Me {
    member: MemberId,
    name: String,
    operator: bool,
    scope: Scope,
    /// From where this was asked, for boxes whose address changes.
    from: IpAddr,
    /// NetIDs that the federation hands out.
    #[serde(skip_serializing_if = "Option::is_none")]
    net_ids: Option<NetIds>,
}

async fn me(State(desk): Shared, asking: Asking) -> Told<Me> {
    let (net_ids, from) = (desk.net_ids, asking.from);
    let told = desk.within(asking, Scope::Read, move |_, Caller { member, scope, .. }| {
        let name = member.name.clone();
        Ok(Me { member: member.id, name, operator: member.operator, scope: *scope, from, net_ids })
    });
    told.await.map(axum::Json)
}

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
    let at = desk.clone();
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        operates(caller)?;
        if id == caller.member.id {
            return Err(Refused::Forbidden("nobody revokes himself").into());
        }
        let member = book.member(id)?.filter(|member| member.revoked.is_none());
        let member = member.ok_or_else(|| Refused::Missing(format!("member {id}")))?;
        let claims = book.claims(id)?;
        book.revoke_member(id)?;
        for thing in claims.iter().filter_map(rules::thing) {
            claims::list(&at, book, thing)?;
        }
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

mod certificates;
mod claims;
mod found;
mod people;
mod records;
mod zone;
