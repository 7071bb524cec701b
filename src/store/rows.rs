//! How values look in columns, and what a changed list means for its rows.

use std::fmt::Display;
use std::str::FromStr;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

/// An identifier in its text form.
pub(super) struct Text<T>(pub T);

impl<T: Display> ToSql for Text<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}

impl<T: FromStr<Err: std::error::Error + Send + Sync + 'static>> FromSql for Text<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Text<T>> {
        value.as_str()?.parse().map(Text).map_err(FromSqlError::other)
    }
}

/// Any 64 bits; SQLite's integers are signed, only equality is asked of these.
pub(super) struct Bits(pub u64);

impl ToSql for Bits {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.cast_signed().into())
    }
}

impl FromSql for Bits {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Bits> {
        Ok(Bits(value.as_i64()?.cast_unsigned()))
    }
}

/// Seconds since 1970, or another number that keeps its order.
pub(super) struct Seconds(pub u64);

impl ToSql for Seconds {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Seconds {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Seconds> {
        Ok(Seconds(value.as_i64()?.max(0).cast_unsigned()))
    }
}

/// What a decision did to a list whose rows are ordered by id.
pub(super) struct Changes<'a, T> {
    /// Rows to delete, first of all.
    pub gone: Vec<i64>,
    /// Rows to rewrite.
    pub changed: Vec<(i64, &'a T)>,
    /// Rows to append, in this order.
    pub new: &'a [T],
}

/// Compare a list with its rows. `same`: this row is that item, changed perhaps. Items keep their
/// rows as far as their order allows; the rest is written anew.
pub(super) fn changes<'a, T: PartialEq>(
    rows: &[(i64, T)],
    items: &'a [T],
    same: impl Fn(&T, &T) -> bool,
) -> Changes<'a, T> {
    let mut found = Changes { gone: Vec::new(), changed: Vec::new(), new: items };
    let mut rows = rows;
    while let [item, rest @ ..] = found.new
        && let Some(at) = rows.iter().position(|(_, row)| same(row, item))
        && let (skipped, [(id, row), later @ ..]) = rows.split_at(at)
    {
        found.gone.extend(skipped.iter().map(|(id, _)| *id));
        if row != item {
            found.changed.push((*id, item));
        }
        (rows, found.new) = (later, rest);
    }
    found.gone.extend(rows.iter().map(|(id, _)| *id));
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn applying_the_changes_gives_the_new_list(
            before in prop::collection::vec((0u8..5, 0u8..3), 0..6),
            after in prop::collection::vec((0u8..5, 0u8..3), 0..6),
        ) {
            let rows: Vec<(i64, (u8, u8))> = (1..).zip(before).collect();
            let changes = changes(&rows, &after, |a, b| a.0 == b.0);
            let mut table = rows.clone();
            table.retain(|(id, _)| !changes.gone.contains(id));
            for (id, item) in changes.changed {
                let row = table.iter_mut().find(|(row, _)| *row == id).unwrap();
                prop_assert_eq!(row.1.0, item.0);
                row.1 = *item;
            }
            table.extend((100..).zip(changes.new.iter().copied()));
            prop_assert_eq!(table.into_iter().map(|(_, item)| item).collect::<Vec<_>>(), after);
        }
    }

    #[test]
    fn the_front_of_a_queue_goes_without_touching_the_rest() {
        let rows = [(7, "a"), (8, "b"), (9, "c")];
        let changes = changes(&rows, &["b", "c", "d"], |a, b| a == b);
        assert_eq!((changes.gone, changes.changed.len(), changes.new), (vec![7], 0, &["d"][..]));
    }
}
