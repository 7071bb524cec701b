-- Identifiers are text in hexadecimal, as TS002 writes them, so that a person with `sqlite3` can read
-- a stopped store. Columns that hold keys are sealed (src/store/secrets.rs).

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- A row that is rewritten to push earlier, lazy commits to the disk (src/store/writer.rs).
INSERT INTO meta (name, value) VALUES ('flushes', 0);

CREATE TABLE secrets (
    name   TEXT PRIMARY KEY,
    secret BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- sns
CREATE TABLE sessions (
    id            INTEGER PRIMARY KEY,
    dev_eui       TEXT NOT NULL,
    dev_addr      TEXT NOT NULL,
    net_id        TEXT NOT NULL,
    nwk_s_key     BLOB NOT NULL,
    fcnt_up       INTEGER,
    fcnt_down     INTEGER NOT NULL,
    pending       INTEGER NOT NULL,
    rx_delay      INTEGER NOT NULL,
    rx1_dr_offset INTEGER NOT NULL,
    rx2_frequency INTEGER NOT NULL,
    rx2_data_rate INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    expires       INTEGER
) STRICT;
-- Neither index holds a counter: an uplink rewrites one page of the table and none of these.
CREATE INDEX sessions_by_dev_addr ON sessions (dev_addr);
CREATE INDEX sessions_by_dev_eui ON sessions (dev_eui);

-- sns: uplinks that the hNS has not answered yet. Without a rowid there is one tree to write.
CREATE TABLE forward (
    session INTEGER NOT NULL,
    fcnt_up INTEGER NOT NULL,
    arrival INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (session, fcnt_up)
) STRICT, WITHOUT ROWID;

-- hns
CREATE TABLE devices (
    dev_eui     TEXT PRIMARY KEY,
    join_eui    TEXT NOT NULL,
    name        TEXT NOT NULL,
    mac_version TEXT NOT NULL,
    enabled     INTEGER NOT NULL,
    roaming     INTEGER NOT NULL,
    last_seen   INTEGER,
    last_via    TEXT
) STRICT, WITHOUT ROWID;

-- The order of the ids is the order of the list, in this table and in the next.
CREATE TABLE activations (
    id              INTEGER PRIMARY KEY,
    dev_eui         TEXT NOT NULL REFERENCES devices ON DELETE CASCADE,
    dev_addr        TEXT NOT NULL,
    session_key_id  BLOB,
    app_s_key       BLOB,
    app_s_key_label TEXT,
    fcnt_up         INTEGER,
    created         INTEGER NOT NULL
) STRICT;
CREATE INDEX activations_by_dev_eui ON activations (dev_eui);

CREATE TABLE queue (
    id        INTEGER PRIMARY KEY,
    dev_eui   TEXT NOT NULL REFERENCES devices ON DELETE CASCADE,
    item      TEXT NOT NULL,
    f_port    INTEGER NOT NULL,
    payload   BLOB NOT NULL,
    confirmed INTEGER NOT NULL,
    sent_as   INTEGER,
    attempts  INTEGER NOT NULL
) STRICT;
CREATE INDEX queue_by_dev_eui ON queue (dev_eui);

-- js
CREATE TABLE root_keys (
    dev_eui     TEXT PRIMARY KEY,
    join_eui    TEXT NOT NULL,
    mac_version TEXT NOT NULL,
    app_key     BLOB NOT NULL,
    nwk_key     BLOB,
    home        TEXT NOT NULL,
    enabled     INTEGER NOT NULL,
    join_nonce  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE dev_nonces (
    dev_eui   TEXT NOT NULL REFERENCES root_keys ON DELETE CASCADE,
    dev_nonce INTEGER NOT NULL,
    PRIMARY KEY (dev_eui, dev_nonce)
) STRICT, WITHOUT ROWID;

-- fns
CREATE TABLE learned (
    net_id TEXT PRIMARY KEY,
    since  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
