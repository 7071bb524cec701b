-- Devices of ours that another network serves (hNS, TS002 12.7 to 12.9). A row outlives its activation until that network
-- has heard of the end.
CREATE TABLE handovers (
    dev_eui  TEXT NOT NULL,
    dev_addr TEXT NOT NULL,
    net_id   TEXT NOT NULL,
    PRIMARY KEY (dev_eui, dev_addr)
) STRICT, WITHOUT ROWID;

-- hns: the last FCntDown that another network took.
ALTER TABLE activations ADD COLUMN fcnt_down INTEGER;
-- hns: when the Device Profile changed last.
ALTER TABLE devices ADD COLUMN profile_since INTEGER NOT NULL DEFAULT 0;
-- sns: the home of a device that we serve for another network, and the last RJcount0 of the session.
ALTER TABLE sessions ADD COLUMN home TEXT;
ALTER TABLE sessions ADD COLUMN rj_count0 INTEGER;
-- js: the last RJcount1 of a device.
ALTER TABLE root_keys ADD COLUMN rj_count1 INTEGER;

-- js: what the keys of the last sessions were derived from.
CREATE TABLE derivations (
    dev_eui    TEXT NOT NULL REFERENCES root_keys ON DELETE CASCADE,
    join_nonce INTEGER NOT NULL,
    nonce      INTEGER NOT NULL,
    v1_1       INTEGER NOT NULL,
    rj_count0  INTEGER,
    PRIMARY KEY (dev_eui, join_nonce)
) STRICT, WITHOUT ROWID;

-- What visitors were carried, by the kind of roaming too.
CREATE TABLE usage_by_kind (
    month        TEXT NOT NULL,
    net_id       TEXT NOT NULL,
    roaming_type TEXT NOT NULL,
    ul_packets   INTEGER NOT NULL,
    dl_packets   INTEGER NOT NULL,
    ul_bytes     INTEGER NOT NULL,
    dl_bytes     INTEGER NOT NULL,
    PRIMARY KEY (month, net_id, roaming_type)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_by_kind SELECT month, net_id, 'Passive', ul_packets, dl_packets, ul_bytes, dl_bytes FROM usage_traffic;
DROP TABLE usage_traffic;
ALTER TABLE usage_by_kind RENAME TO usage_traffic;
