//! Where names led, over restarts.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::Store;
use super::rows::Seconds;
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Commit, StoreError};
use crate::discovery::cache::{Found, Kept};

/// Rows at most.
const MOST: usize = 512;

/// The column's text, by version.
#[derive(Serialize, Deserialize)]
#[serde(tag = "v")]
enum Written {
    #[serde(rename = "1")]
    V1(Found),
}

impl Store {
    /// What was kept last. What another version of the program has written and we cannot read is left out: it is asked for anew.
    pub async fn names(&self) -> Result<Vec<Kept>, StoreError> {
        self.queue.look(names).await
    }

    /// Keep these instead; of too many those that are believed longest.
    pub async fn keep_names(&self, mut kept: Vec<Kept>) -> Result<(), StoreError> {
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.until));
        kept.truncate(MOST);
        self.queue.run(false, move |db| keep(db, &kept)).await
    }
}

fn names(db: &Db<'_>) -> Result<Vec<Kept>, Fault> {
    let mut select = db.sql.prepare_cached("SELECT name, answer, until FROM names")?;
    let rows = select.query_map([], |row| {
        Ok((
            row.get::<_, String>("name")?,
            row.get::<_, String>("answer")?,
            row.get::<_, Seconds>("until")?.0,
        ))
    })?;
    let mut all = Vec::new();
    for row in rows {
        let (name, answer, until) = row?;
        if let Ok(Written::V1(found)) = serde_json::from_str(&answer) {
            all.push(Kept { name, found, until });
        }
    }
    Ok(all)
}

fn keep(db: &Db<'_>, kept: &[Kept]) -> Result<((), Done), Fault> {
    db.run("DELETE FROM names", [])?;
    for Kept { name, found, until } in kept {
        let answer = serde_json::to_string(&Written::V1(found.clone()))
            .map_err(|error| Fault::Wrong(format!("names: {error}")))?;
        let write = "INSERT INTO names (name, answer, until) VALUES (?1, ?2, ?3)";
        db.run(write, params![name, answer, Seconds(*until)])?;
    }
    // lost, they are asked for anew
    Ok(((), Done::new(Commit::Lazy)))
}
