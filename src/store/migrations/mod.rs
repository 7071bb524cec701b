//! The schema's history: numbered SQL files, forward only, one transaction each.

use std::path::Path;

use rusqlite::Connection;

use super::{OpenError, snapshot};

/// In the file's header: "ROAM". Tells our databases from anybody else's.
pub(super) const APPLICATION_ID: i64 = 0x524F_414D;

/// Version n of the schema is what the first n of these make. A file that was ever released is never
/// edited again.
const STEPS: &[&str] = &[
    include_str!("0001_first.sql"),
    include_str!("0002_retired.sql"),
    include_str!("0003_roaming.sql"),
    include_str!("0004_outbox.sql"),
    include_str!("0005_generations.sql"),
    include_str!("0006_expiry.sql"),
    include_str!("0007_plan.sql"),
    include_str!("0008_personalised.sql"),
    include_str!("0009_contexts.sql"),
    include_str!("0010_parked.sql"),
    include_str!("0011_usage.sql"),
    include_str!("0012_handover.sql"),
    include_str!("0013_statements.sql"),
    include_str!("0014_homes.sql"),
    include_str!("0015_paths.sql"),
    include_str!("0016_context_index.sql"),
    include_str!("0017_limits.sql"),
    include_str!("0018_terms.sql"),
    include_str!("0019_outbox.sql"),
    include_str!("0020_names.sql"),
    include_str!("0021_registry.sql"),
    include_str!("0022_registry_claims.sql"),
    include_str!("0023_restored.sql"),
    include_str!("0024_seen.sql"),
];

/// The schema that this program works with.
pub(super) const NEWEST: usize = STEPS.len();

/// Whether this program can read it, or bring it to [`NEWEST`].
pub(super) fn is_known(sql: &Connection) -> bool {
    let version = sql.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    version.is_ok_and(|version| usize::try_from(version).is_ok_and(|version| version <= NEWEST))
}

/// Bring the database to [`NEWEST`].
pub(super) fn migrate(sql: &mut Connection, path: &Path) -> Result<(), OpenError> {
    migrate_to(sql, path, NEWEST)
}

/// Bring the database to a version, for tests that need an old one.
pub(super) fn migrate_to(sql: &mut Connection, path: &Path, newest: usize) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.into(), source };
    let pragma = |sql: &Connection, name| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let found = pragma(sql, "user_version").map_err(failed)?;
    let owner = pragma(sql, "application_id").map_err(failed)?;
    let objects: i64 =
        sql.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let empty = found == 0 && owner == 0 && objects == 0;
    if !empty && owner != APPLICATION_ID {
        return Err(OpenError::NotOurs { path: path.into() });
    }
    let stands = usize::try_from(found).unwrap_or(usize::MAX);
    if stands > STEPS.len() {
        return Err(OpenError::Newer { path: path.into(), found, known: STEPS.len() });
    }
    if stands < newest && !empty {
        // the way back, where the update that brought this program is taken back
        if let Err(error) = snapshot::keep(sql, path) {
            tracing::warn!(path = %path.display(), "no snapshot from before the migration was kept: {error}");
        }
    }
    for (step, version) in STEPS.iter().zip(1..=newest).skip(stands) {
        let transaction = sql.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        // Both pragmas write the header page and belong to the transaction.
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", version as i64).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    if stands < newest && !empty {
        tracing::info!(path = %path.display(), from = stands, to = newest, "the store's schema moved forward");
    }
    Ok(())
}
