//! Certificates of members: asked for, approved, renewed, struck off. Called by `api` only.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::{Asking, Caller, Desk, Halt, PAGE, Problem, Shared, Told, note, operates, parse, read};
use crate::pki::request::Request;
use crate::registry::access::Scope;
use crate::registry::certificates::Office;
use crate::registry::rules::Refused;
use crate::store::registry::{Book, Certificate, MemberId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    request: String,
}

#[derive(Serialize)]
pub(super) struct CertificateView {
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

pub(super) async fn ask_certificate(
    State(desk): Shared,
    asking: Asking,
    body: Bytes,
) -> Result<Response, Problem> {
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

pub(super) async fn certificates(State(desk): Shared, asking: Asking) -> Told<Vec<CertificateView>> {
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

pub(super) async fn certificate(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Told<CertificateView> {
    let id: i64 = parse(&id, "number of a certificate")?;
    let told = desk.within(asking, Scope::Read, move |book, caller| Ok(theirs(book, caller, id)?.into()));
    told.await.map(axum::Json)
}

pub(super) async fn approve(
    State(desk): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Told<CertificateView> {
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

pub(super) async fn revoke_certificate(
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
pub(super) async fn revoked_list(State(desk): Shared) -> Result<Response, Problem> {
    let failed = |error: String| Problem::Failed(error);
    let office = office(&desk)?;
    let revoked = desk.store.registry(|book| Ok((book.revoked_serials()?, false))).await;
    let pem = office.list(revoked.map_err(|error| failed(error.to_string()))?);
    let pem = pem.map_err(|error| failed(format!("{error:#}")))?;
    Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response())
}
