//! What readers of the DNS find at a name, after something was put there. Called by `api` only.

use axum::extract::State;
use serde::Serialize;

use super::claims::owns;
use super::records::At;
use super::{Asking, Shared, Told};
use crate::discovery::Resolution;
use crate::registry::access::Scope;
use crate::registry::rules::Thing;

/// A name as the registry's own resolver finds it: `[discovery]` says whom it asks, and what DNSSEC has to say.
#[derive(Serialize)]
pub(super) struct Found {
    #[serde(flatten)]
    resolution: Resolution,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

pub(super) async fn found(State(desk): Shared, asking: Asking, at: At) -> Told<Found> {
    let thing = at.thing();
    desk.within(asking, Scope::Read, move |book, caller| owns(book, caller.member.id, thing)).await?;
    // of a block, its first name stands for all
    let one = match thing {
        Thing::Join(range) => Thing::Join(range.prefix().into()),
        other => other,
    };
    let name = desk.suffixes.name(one);
    desk.resolver.flush(Some(&name));
    let resolution = desk.resolver.name(&name).await;
    let remedy = match (&resolution.error, &resolution.dnssec) {
        (None, _) => None,
        (Some(_), None) => Some("put address records there, or wait for the TTL of what readers know"),
        (Some(_), Some(_)) => {
            Some("the parent's DS record and the trust anchor have to fit the zone's keys: GET /v1/zone")
        }
    };
    Ok(axum::Json(Found { resolution, remedy }))
}
