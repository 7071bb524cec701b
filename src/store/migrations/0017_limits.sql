-- Networks that do not want to be asked about a device for a while (fNS). `device`: DevEUI or DevAddr.
CREATE TABLE hold_offs (
    net_id TEXT NOT NULL,
    device TEXT NOT NULL,
    until  INTEGER NOT NULL,
    PRIMARY KEY (net_id, device)
) STRICT, WITHOUT ROWID;

-- What a network has used of the air on its last day (fNS), in microseconds.
CREATE TABLE airtime (
    net_id TEXT NOT NULL PRIMARY KEY,
    day    INTEGER NOT NULL,
    micros INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
