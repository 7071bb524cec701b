//! People of members, who sign in to the pages with a name and a password. Called by `api` only.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Asking, Problem, Shared, Told, called, note, read};
use crate::registry::access::{self, Scope};
use crate::registry::rules::Refused;
use crate::store::registry::User;

/// Characters of a password, at least and at most.
const PASSWORD: std::ops::RangeInclusive<usize> = 12..=200;

#[derive(Serialize)]
pub(super) struct UserView {
    name: String,
    scope: String,
    /// Seconds since 1970.
    since: u64,
}

pub(super) async fn users(State(desk): Shared, asking: Asking) -> Told<Vec<UserView>> {
    let told = desk.within(asking, Scope::Read, |book, caller| {
        let all = book.users(caller.member.id)?.into_iter();
        Ok(all.map(|user| UserView { name: user.name, scope: user.scope, since: user.since }).collect())
    });
    told.await.map(axum::Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    name: String,
    password: Zeroizing<String>,
    scope: Scope,
}

pub(super) async fn add_user(
    State(desk): Shared,
    asking: Asking,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let NewUser { name, password, scope } = read(&body)?;
    let name = called(&name, "name")?;
    if !PASSWORD.contains(&password.chars().count()) {
        let (least, most) = (PASSWORD.start(), PASSWORD.end());
        return Err(Problem::Form(format!("password: {least} to {most} characters")));
    }
    // a stranger makes nobody work
    desk.within(asking.clone(), Scope::Admin, |_, _| Ok(())).await?;
    let salt = desk.clock.random();
    let hash = tokio::task::spawn_blocking(move || access::password_hash(&password, salt)).await;
    let hash = hash.map_err(|error| Problem::Failed(error.to_string()))?;
    let hash = hash.map_err(Problem::Failed)?;
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        if book.user(&name)?.is_some() {
            return Err(Refused::InTheWay(format!("somebody is called {name:?} already")).into());
        }
        let (name, member, hash) = (name.clone(), caller.member.id, hash.clone());
        let user = User { name, member, scope: scope.to_string(), hash, since: 0 };
        book.add_user(&user)?;
        note(book, caller, "user added", &format!("{} ({scope})", user.name))?;
        Ok(())
    });
    done.await.map(|()| StatusCode::CREATED)
}

pub(super) async fn remove_user(
    State(desk): Shared,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let done = desk.within(asking, Scope::Admin, move |book, caller| {
        if !book.remove_user(caller.member.id, &name)? {
            return Err(Refused::Missing(format!("{name:?} among your people")).into());
        }
        note(book, caller, "user removed", &name)?;
        Ok(())
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}
