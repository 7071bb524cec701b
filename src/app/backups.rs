//! What belongs into a backup of this node, and making one now and then.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use crate::backend::server::Keeping;
use crate::backup::archive::{self, Contents, Lock};
use crate::backup::kept::Kept;
use crate::backup::shelf::{self, Bring, Shelf};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::{Room, Store, snapshot};

/// Everything that makes this node this node, as it is now.
pub async fn contents(config: &Config, store: &Store, clock: &Clock) -> anyhow::Result<Contents> {
    let config_file = match &config.file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Some((path.clone(), text))
        }
        None => None,
    };
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for (key, path) in config.files() {
        // the set in use, not the link to it
        let path: PathBuf = std::fs::canonicalize(&path).unwrap_or(path);
        if !seen.insert(path.clone()) {
            continue;
        }
        let secret = std::fs::metadata(&path)
            .is_ok_and(|file| std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o077 == 0);
        files.push(archive::keep(&path, secret).with_context(|| format!("{key}: {}", path.display()))?);
    }
    let sealing_key = snapshot::sealing_key(&config.store, clock)?;
    let database = store.snapshot().await.context("the database")?;
    let net_ids = config.network.net_ids.all().iter().map(ToString::to_string).collect();
    Ok(Contents { made: clock.unix(), net_ids, config: config_file, database, sealing_key, files })
}

/// One backup, locked: what is written to a file or sent away.
pub async fn packed(config: &Config, store: &Store, clock: &Clock, lock: Lock) -> anyhow::Result<Vec<u8>> {
    let contents = contents(config, store, clock).await?;
    let packed = tokio::task::spawn_blocking(move || {
        let mut packed = Vec::new();
        archive::pack(&contents, lock, &mut packed).map(|()| packed)
    });
    Ok(packed.await??)
}

/// A snapshot beside the database, for the day on which it is found damaged: one a day, so that a card bears it.
pub async fn keep_good(config: Config, store: Store, clock: Clock) {
    const DAY: u64 = 86_400;
    let database = config.store.url.path().to_owned();
    loop {
        let due = snapshot::last_good(&database).map_or(0, |last| last + DAY);
        // not in the rush of a start
        let wait = due.saturating_sub(clock.unix()).clamp(600, DAY);
        clock.sleep(std::time::Duration::from_secs(wait)).await;
        if clock.unix() < due {
            continue;
        }
        if store.room() >= Room::Low {
            continue;
        }
        let kept = async {
            let (image, database) = (store.snapshot().await?, database.clone());
            tokio::task::spawn_blocking(move || snapshot::keep_good(&database, &image)).await??;
            anyhow::Ok(())
        };
        if let Err(error) = kept.await {
            tracing::warn!("no snapshot of the database was kept: {error:#}");
        }
    }
}

/// Where those of partners are kept: beside the database.
pub fn kept(config: &Config) -> Kept {
    Kept::at(config.store.folder().join("kept"))
}

/// The same for partners that ask, as long as the disk has room.
pub fn keeping(config: &Config, store: &Store) -> Keeping {
    let store = store.clone();
    Keeping { kept: kept(config), has_room: Arc::new(move || store.room() < Room::Low) }
}

/// Make one to every place now and then, as `[backup]` says. `bring`: the way to partners.
pub async fn keep(config: Config, store: Store, bring: Option<Arc<dyn Bring>>, clock: Clock) {
    let Some(backup) = &config.backup else { return };
    loop {
        // a node that is started often makes no more of them
        let last = store.last_backup().await.unwrap_or(None).unwrap_or(0);
        let next = last + u64::from(backup.every.seconds());
        let wait = next.saturating_sub(clock.unix());
        clock.sleep(std::time::Duration::from_secs(wait.clamp(60, 3600))).await;
        if clock.unix() < next || !clock.is_trusted() {
            continue;
        }
        match once(&config, backup, &store, bring.as_ref(), &clock).await {
            Ok(()) => {}
            Err(error) => tracing::error!("no backup was made: {error:#}; it is tried again within the hour"),
        }
    }
}

/// Make one to every place.
pub async fn once(
    config: &Config,
    backup: &crate::backup::Config,
    store: &Store,
    bring: Option<&Arc<dyn Bring>>,
    clock: &Clock,
) -> anyhow::Result<()> {
    let packed = packed(config, store, clock, Lock::Recipients(backup.recipients.clone())).await?;
    let net_id = config.network.net_ids.first().to_string();
    let name = shelf::name(&net_id, clock.wall());
    let mut failed = Vec::new();
    for shelf in Shelf::all(backup, bring, clock)? {
        if shelf.is_here(&config.store.folder()) && store.room() >= Room::Low {
            failed.push(format!("{shelf}: it is on the disk of the database, which is nearly full"));
            continue;
        }
        let done = async {
            shelf.put(&name, &packed).await?;
            shelf.tidy(&net_id, backup.keep).await
        };
        match done.await {
            Ok(()) => tracing::info!(name, bytes = packed.len(), "a backup was made at {shelf}"),
            Err(error) => failed.push(format!("{shelf}: {error}")),
        }
    }
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
    store.note_backup().await.context("note the backup")?;
    Ok(())
}
