-- What other networks carried of our devices, as their home saw it: to be compared with their statements.
CREATE TABLE usage_for_us (
    month        TEXT NOT NULL,
    net_id       TEXT NOT NULL,
    roaming_type TEXT NOT NULL,
    ul_packets   INTEGER NOT NULL,
    dl_packets   INTEGER NOT NULL,
    ul_bytes     INTEGER NOT NULL,
    dl_bytes     INTEGER NOT NULL,
    PRIMARY KEY (month, net_id, roaming_type)
) STRICT, WITHOUT ROWID;

-- Statements that were given, to the byte: each names the one before by its hash.
CREATE TABLE usage_statements (
    net_id TEXT NOT NULL,
    month  TEXT NOT NULL,
    text   TEXT NOT NULL,
    PRIMARY KEY (net_id, month)
) STRICT, WITHOUT ROWID;
