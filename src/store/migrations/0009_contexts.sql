-- Visitors that we forward by a context of their home (fNS).
CREATE TABLE contexts (
    net_id   TEXT NOT NULL,
    dev_eui  TEXT NOT NULL,
    dev_addr TEXT NOT NULL,
    until    INTEGER NOT NULL,
    lifetime INTEGER NOT NULL,
    mic_key  BLOB,
    v1_1     INTEGER NOT NULL,
    fcnt_up  INTEGER NOT NULL,
    PRIMARY KEY (net_id, dev_eui, dev_addr)
) STRICT, WITHOUT ROWID;

-- Networks that forward a device of ours by a context that we granted (sNS). A row outlives its session until the
-- network has heard that the session has ended.
CREATE TABLE visits (
    session  INTEGER NOT NULL,
    net_id   TEXT NOT NULL,
    dev_eui  TEXT NOT NULL,
    dev_addr TEXT NOT NULL,
    until    INTEGER NOT NULL,
    PRIMARY KEY (session, net_id)
) STRICT, WITHOUT ROWID;
