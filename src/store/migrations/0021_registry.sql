-- The federation's registry (`roamgate registry`): who its members are, what is theirs, and the zone.
CREATE TABLE registry_member (
    id       INTEGER NOT NULL PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    operator INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    revoked  INTEGER
) STRICT;

-- Secrets of members' programs and people, as SHA-256 of 32 random bytes.
CREATE TABLE registry_key (
    id      TEXT NOT NULL PRIMARY KEY,
    member  INTEGER NOT NULL REFERENCES registry_member (id),
    label   TEXT NOT NULL,
    scope   TEXT NOT NULL,
    hash    BLOB NOT NULL,
    since   INTEGER NOT NULL,
    revoked INTEGER
) STRICT, WITHOUT ROWID;

-- NetIDs and blocks of JoinEUIs: `first` in hex digits, `bits` of it count.
CREATE TABLE registry_claim (
    kind   TEXT NOT NULL,
    first  TEXT NOT NULL,
    bits   INTEGER NOT NULL,
    member INTEGER NOT NULL REFERENCES registry_member (id),
    since  INTEGER NOT NULL,
    PRIMARY KEY (kind, first, bits)
) STRICT, WITHOUT ROWID;
CREATE INDEX registry_claim_of ON registry_claim (member);

-- The zone. `place`: the labels below the apex, the last first, each ended by a zero byte, so that the order of the bytes is
-- the canonical order of DNSSEC (RFC 4034, 6.1). `kind`: the number of the record type. `data`: as in a zone file.
CREATE TABLE registry_record (
    place  BLOB NOT NULL,
    kind   INTEGER NOT NULL,
    data   TEXT NOT NULL,
    ttl    INTEGER NOT NULL,
    member INTEGER NOT NULL REFERENCES registry_member (id),
    PRIMARY KEY (place, kind, data)
) STRICT, WITHOUT ROWID;
CREATE INDEX registry_cut ON registry_record (place) WHERE kind = 2;
CREATE INDEX registry_record_of ON registry_record (member);

CREATE TABLE registry_zone (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    serial INTEGER NOT NULL
) STRICT;
INSERT INTO registry_zone (id, serial) VALUES (1, 1);

-- Keys that sign the zone, sealed. `state`, since when: made (not in the zone yet) or signing.
CREATE TABLE registry_zone_key (
    id     INTEGER NOT NULL PRIMARY KEY,
    sealed BLOB NOT NULL,
    state  TEXT NOT NULL,
    since  INTEGER NOT NULL
) STRICT;

CREATE TABLE registry_certificate (
    id      INTEGER NOT NULL PRIMARY KEY,
    member  INTEGER NOT NULL REFERENCES registry_member (id),
    request TEXT NOT NULL,
    names   TEXT NOT NULL,
    state   TEXT NOT NULL,
    chain   TEXT,
    serial  TEXT,
    since   INTEGER NOT NULL
) STRICT;

CREATE TABLE registry_audit (
    id     INTEGER NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    member INTEGER,
    key    TEXT,
    what   TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
