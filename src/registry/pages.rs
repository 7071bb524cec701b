//! The registry's pages, for people with a browser. They ask the API of [`super::api`] within the program, in the name of whoever has
//! signed in, so that both doors follow the same rules; what a form means to the API is said in `deed`, what a page shows in `show`.

mod deed;
mod show;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use zeroize::Zeroizing;

use super::access;
use super::api::{self, Desk, SignedIn, Who};
use crate::web::page::{self, Field, Form, Kind, Link, Notice, Page, Section, Visitor};
use crate::web::session::Sessions;

/// A page's name in its address, and in the menu.
const PAGES: [(&str, &str); 5] = [
    ("names", "Names"),
    ("certificates", "Certificates"),
    ("people", "People and keys"),
    ("zone", "Zone"),
    ("audit", "Log"),
];
/// And for the operator.
const MEMBERS: (&str, &str) = ("members", "Members");

/// Somebody who has signed in.
#[derive(Clone)]
struct Guest {
    who: Who,
    /// What the next page tells him first.
    news: Arc<Mutex<Option<Notice>>>,
}

struct Site {
    desk: Arc<Desk>,
    api: Router,
    sessions: Sessions<Guest>,
    title: String,
}

/// Whoever asks, signed in.
struct Visit<'a> {
    site: &'a Site,
    guest: Guest,
    visitor: Visitor,
    from: SocketAddr,
}

/// The pages and the API.
pub fn router(desk: Arc<Desk>) -> Router {
    let api = api::router(desk.clone());
    let zone = desk.served.apex().origin.to_ascii();
    let title = format!("Registry of {}", zone.trim_end_matches('.'));
    let sessions = Sessions::new(desk.clock.clone());
    let site = Arc::new(Site { desk, api: api.clone(), sessions, title });
    Router::new()
        .route("/", get(async || moved("/pages/names")))
        .route("/style.css", get(page::style))
        .route("/signin", get(door).post(sign_in))
        .route("/signout", post(sign_out))
        .route("/pages/{page}", get(look))
        .route("/at/{*path}", get(look_at))
        .route("/do/{deed}", post(act))
        .with_state(site)
        .merge(api)
}

type Of = State<Arc<Site>>;

/// Fields of a form.
type Fields = BTreeMap<String, String>;

fn fields(body: &Bytes) -> Fields {
    url::form_urlencoded::parse(body).into_owned().collect()
}

fn moved(to: &str) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

impl Site {
    fn door(&self, notice: Option<Notice>, status: StatusCode) -> Response {
        let with_name = Form {
            action: "/signin".into(),
            button: "Sign in",
            fields: vec![
                Field::line("name", "Name", ""),
                Field::line("password", "Password", "").of(Kind::Password),
            ],
            ..Form::default()
        };
        let with_key = Form {
            action: "/signin".into(),
            button: "Sign in with a key",
            fields: vec![Field::line("key", "Key", "rg_…, as it was shown once").of(Kind::Password)],
            ..Form::default()
        };
        let help = "Members of the federation look after their names here. The registry's operator makes a member, and hands it its first key.";
        let section = Section {
            title: "Sign in".into(),
            help: help.into(),
            forms: vec![with_name, with_key],
            ..Section::default()
        };
        let (site, title) = (self.title.clone(), "Welcome".into());
        Page { site, title, notice, sections: vec![section], ..Page::default() }.answer(status)
    }

    /// Who has this name and password, or this key, and what he is called.
    async fn known(&self, fields: &mut Fields) -> Result<Option<(Who, String)>, String> {
        let mut take = |name: &str| Zeroizing::new(fields.remove(name).unwrap_or_default());
        let (key, name, password) = (take("key"), take("name"), take("password"));
        let store = &self.desk.store;
        let words = |error: crate::backend::door::StoreError| error.to_string();
        if !key.is_empty() {
            let shown = key.clone();
            let caller = store.registry(move |book| Ok((access::caller(book, &shown)?, false)));
            let caller = caller.await.map_err(words)?;
            return Ok(caller.map(|caller| (Who::Key(key), caller.member.name)));
        }
        let asked = name.trim().to_owned();
        let user = store.registry(move |book| Ok((book.user(&asked)?, false))).await.map_err(words)?;
        // nobody learns by the time it takes who is known
        let kept = user.as_ref().map_or_else(|| vec![0; 48], |user| user.hash.clone());
        let fits = tokio::task::spawn_blocking(move || access::password_fits(&password, &kept)).await;
        let fits = fits.map_err(|error| error.to_string())?;
        Ok(user.filter(|_| fits).map(|user| (Who::User(user.name.clone()), user.name)))
    }

    fn visit(&self, headers: &HeaderMap, from: SocketAddr) -> Option<Visit<'_>> {
        let (guest, visitor) = self.sessions.of(headers)?;
        Some(Visit { site: self, guest, visitor, from })
    }
}

fn bad(text: impl Into<String>, more: impl Into<String>) -> Notice {
    Notice { bad: true, text: text.into(), more: more.into() }
}

async fn door(State(site): Of) -> Response {
    site.door(None, StatusCode::OK)
}

async fn sign_in(
    State(site): Of,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut fields = fields(&body);
    // each try costs, right or wrong
    let guess = site.desk.guesses.wrong(api::whence(from, &headers));
    if let Err(wait) = guess {
        let text = format!("Too many tries. Wait {} s.", wait.0.as_secs().max(1));
        return site.door(Some(bad(text, "")), StatusCode::TOO_MANY_REQUESTS);
    }
    match site.known(&mut fields).await {
        Ok(Some((who, name))) => {
            let cookie = site.sessions.begin(Guest { who, news: Arc::default() }, &name, &headers);
            let mut response = moved("/pages/names");
            if let Ok(value) = cookie.parse() {
                response.headers_mut().insert(header::SET_COOKIE, value);
            }
            response
        }
        Ok(None) => {
            let text = "That is not right: nobody has this name with this password, or this key.";
            site.door(Some(bad(text, "")), StatusCode::UNAUTHORIZED)
        }
        Err(error) => {
            tracing::error!(error, "somebody could not sign in");
            let text = "The registry could not do it; its log says why.";
            site.door(Some(bad(text, "")), StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

async fn sign_out(State(site): Of, headers: HeaderMap, body: Bytes) -> Response {
    let sent = fields(&body).remove("proof").unwrap_or_default();
    if site.sessions.of(&headers).is_some_and(|(_, visitor)| visitor.sent(&sent)) {
        site.sessions.end(&headers);
    }
    moved("/signin")
}

/// What the API said to something that was not done.
struct Trouble {
    status: StatusCode,
    error: String,
    remedy: String,
}

impl Visit<'_> {
    /// Ask the API in the visitor's name.
    async fn api(&self, method: Method, path: &str, body: &Value) -> Result<Value, Trouble> {
        let trouble = |status, error: String| Trouble { status, error, remedy: String::new() };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .extension(ConnectInfo(self.from))
            .extension(SignedIn(self.guest.who.clone()))
            .body(Body::from(text));
        let request = request.map_err(|error| trouble(StatusCode::BAD_REQUEST, error.to_string()))?;
        let Ok(response) = self.site.api.clone().oneshot(request).await;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| trouble(StatusCode::BAD_GATEWAY, error.to_string()))?.to_bytes();
        let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let said = |what: &str| value[what].as_str().unwrap_or_default().to_owned();
        Err(Trouble { status, error: said("error"), remedy: said("remedy") })
    }

    async fn get(&self, path: &str) -> Result<Value, Trouble> {
        self.api(Method::GET, path, &Value::Null).await
    }

    /// A page with its sections, in the frame of all pages.
    fn page(&self, title: &str, here: &str, operates: bool, sections: Vec<Section>) -> Page {
        let also = operates.then_some(MEMBERS);
        let link = |(name, text): (&str, &str)| Link {
            to: format!("/pages/{name}"),
            text: text.into(),
            here: name == here,
        };
        Page {
            site: self.site.title.clone(),
            title: title.into(),
            menu: PAGES.into_iter().chain(also).map(link).collect(),
            visitor: Some(self.visitor.clone()),
            notice: self.guest.news.lock().unwrap_or_else(PoisonError::into_inner).take(),
            sections,
        }
    }

    fn tell(&self, notice: Notice) {
        *self.guest.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(notice);
    }

    fn answer(&self, page: Result<Page, Trouble>) -> Response {
        match page {
            Ok(page) => page.answer(StatusCode::OK),
            // revoked meanwhile
            Err(Trouble { status: StatusCode::UNAUTHORIZED, .. }) => moved("/signin"),
            Err(trouble) => {
                let mut page = self.page("That did not work", "", false, Vec::new());
                page.notice = Some(bad(trouble.error, trouble.remedy));
                page.answer(trouble.status)
            }
        }
    }
}

async fn look(
    State(site): Of,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(page): Path<String>,
) -> Response {
    let Some(visit) = site.visit(&headers, from) else { return moved("/signin") };
    visit.answer(show::page(&visit, &page).await)
}

async fn look_at(
    State(site): Of,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(path): Path<String>,
) -> Response {
    let Some(visit) = site.visit(&headers, from) else { return moved("/signin") };
    visit.answer(show::name(&visit, &path).await)
}

async fn act(
    State(site): Of,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    let Some(visit) = site.visit(&headers, from) else { return moved("/signin") };
    let fields = fields(&body);
    if !visit.visitor.sent(fields.get("proof").map_or("", String::as_str)) {
        let trouble = Trouble {
            status: StatusCode::FORBIDDEN,
            error: "this form was not sent from a page of yours".into(),
            remedy: "sign in, and send it from there".into(),
        };
        return visit.answer(Err(trouble));
    }
    let deed = match deed::read(&name, &fields) {
        Ok(deed) => deed,
        Err(why) => {
            visit.tell(bad(why, ""));
            return moved(&deed::back(&name, &fields));
        }
    };
    let done = visit.api(deed.method, &deed.path, &deed.body).await;
    visit.tell(match done {
        Ok(answer) => Notice { bad: false, text: deed.done.into(), more: deed::shown_once(&answer) },
        Err(Trouble { status: StatusCode::UNAUTHORIZED, .. }) => return moved("/signin"),
        Err(trouble) => bad(trouble.error, trouble.remedy),
    });
    moved(&deed::back(&name, &fields))
}
