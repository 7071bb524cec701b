-- What visitors of other networks were carried (TS002 table 10), by month (YYYY-MM, UTC).
CREATE TABLE usage_traffic (
    month      TEXT NOT NULL,
    net_id     TEXT NOT NULL,
    ul_packets INTEGER NOT NULL,
    dl_packets INTEGER NOT NULL,
    ul_bytes   INTEGER NOT NULL,
    dl_bytes   INTEGER NOT NULL,
    PRIMARY KEY (month, net_id)
) STRICT, WITHOUT ROWID;

-- When visitors began and ended to roam here (TS002 table 9, individual records).
CREATE TABLE usage_roaming (
    number  INTEGER PRIMARY KEY,
    month   TEXT NOT NULL,
    net_id  TEXT NOT NULL,
    dev_eui TEXT NOT NULL,
    active  INTEGER NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_roaming_by_month ON usage_roaming (month);
