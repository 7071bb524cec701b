-- hns: devices that were given their session, and what class a device is declared to be.
ALTER TABLE devices ADD COLUMN personalised INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN class_c INTEGER NOT NULL DEFAULT 0;
-- sns: the sealed way down to a class C device, from its last uplink.
ALTER TABLE sessions ADD COLUMN path BLOB;
-- sns: the next downlink counters of personalised sessions that were removed. A device that comes back with
-- the same address goes on from there, because its keys may be the same and no FCntDown is used twice.
CREATE TABLE retired_sessions (
    dev_eui     TEXT NOT NULL,
    dev_addr    TEXT NOT NULL,
    fcnt_down   INTEGER NOT NULL,
    a_fcnt_down INTEGER NOT NULL,
    PRIMARY KEY (dev_eui, dev_addr)
) STRICT, WITHOUT ROWID;
