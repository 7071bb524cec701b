//! All state at rest: SQLite, one writer, migrations.
