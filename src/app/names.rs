//! What the DNS has answered, over restarts.

use std::time::Duration;

use crate::backend::door::StoreError;
use crate::clock::Clock;
use crate::discovery::cache::{Found, Kept};
use crate::discovery::{Resolver, Way};
use crate::store::Store;

/// So often it is looked whether names lead elsewhere than what was kept says. What a power cut takes is asked for anew.
const OFTEN: Duration = Duration::from_secs(3600);

/// Begin with what the last run has learnt.
pub async fn recall(resolver: &Resolver, store: &Store) -> Result<(), StoreError> {
    resolver.restore(store.names().await?);
    Ok(())
}

/// Keep what is known now.
pub async fn shelve(resolver: &Resolver, store: &Store) -> Result<(), StoreError> {
    store.keep_names(resolver.kept()).await
}

/// Now and then, where something is new: a card wears out by what is written to it.
pub async fn keep(resolver: Resolver, store: Store, clock: Clock) {
    let mut last = Vec::new();
    loop {
        clock.sleep(OFTEN).await;
        let ways: Vec<(String, Vec<Way>)> = resolver.kept().into_iter().map(ways).collect();
        if ways == last {
            continue;
        }
        match shelve(&resolver, &store).await {
            Ok(()) => last = ways,
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

fn ways(kept: Kept) -> (String, Vec<Way>) {
    let Kept { name, found: Found { ways, .. }, .. } = kept;
    (name, ways)
}
