-- What a home wants of the frames of a device (TS002 table 7), with the context (fNS) and the session (sNS) that carry them.
ALTER TABLE contexts ADD COLUMN terms TEXT;
ALTER TABLE sessions ADD COLUMN terms TEXT;

-- Usage by Service Profile, of visitors (`for_us` 0) and of our own devices elsewhere in one table; what is out of profile is
-- part of the totals.
CREATE TABLE usage_by_profile (
    month          TEXT NOT NULL,
    for_us         INTEGER NOT NULL,
    net_id         TEXT NOT NULL,
    roaming_type   TEXT NOT NULL,
    profile        TEXT NOT NULL,
    ul_packets     INTEGER NOT NULL,
    dl_packets     INTEGER NOT NULL,
    ul_bytes       INTEGER NOT NULL,
    dl_bytes       INTEGER NOT NULL,
    ul_packets_out INTEGER NOT NULL,
    dl_packets_out INTEGER NOT NULL,
    ul_bytes_out   INTEGER NOT NULL,
    dl_bytes_out   INTEGER NOT NULL,
    PRIMARY KEY (month, for_us, net_id, roaming_type, profile)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_by_profile
    SELECT month, 0, net_id, roaming_type, '', ul_packets, dl_packets, ul_bytes, dl_bytes, 0, 0, 0, 0 FROM usage_traffic;
INSERT INTO usage_by_profile
    SELECT month, 1, net_id, roaming_type, '', ul_packets, dl_packets, ul_bytes, dl_bytes, 0, 0, 0, 0 FROM usage_for_us;
DROP TABLE usage_traffic;
DROP TABLE usage_for_us;
ALTER TABLE usage_by_profile RENAME TO usage_traffic;

ALTER TABLE usage_roaming ADD COLUMN profile TEXT NOT NULL DEFAULT '';
CREATE INDEX usage_roaming_by_device ON usage_roaming (net_id, dev_eui);
