-- hns: when a device was heard last, and through which network. Every uplink writes it, so it has a narrow table: what reaches the
-- disk are pages, and dozens of these rows share one.
CREATE TABLE seen (
    dev_eui   TEXT PRIMARY KEY REFERENCES devices ON DELETE CASCADE,
    last_seen INTEGER NOT NULL,
    last_via  TEXT
) STRICT, WITHOUT ROWID;
INSERT INTO seen SELECT dev_eui, last_seen, last_via FROM devices WHERE last_seen IS NOT NULL;
ALTER TABLE devices DROP COLUMN last_seen;
ALTER TABLE devices DROP COLUMN last_via;
