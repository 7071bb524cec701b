-- What the IEEE has assigned: an EUI-64 that begins with these bits is an organisation's. `first` in hex digits.
CREATE TABLE registry_oui (
    first        TEXT NOT NULL,
    bits         INTEGER NOT NULL,
    organisation TEXT NOT NULL,
    PRIMARY KEY (first, bits)
) STRICT, WITHOUT ROWID;

-- NetIDs and JoinEUIs that a member would like to have. It proves itself by a TXT record in a domain that people know to be its own;
-- `proven`: when that was seen there, and `secure`: whether DNSSEC proved it.
CREATE TABLE registry_waiting (
    id        INTEGER NOT NULL PRIMARY KEY,
    member    INTEGER NOT NULL REFERENCES registry_member (id),
    kind      TEXT NOT NULL,
    first     TEXT NOT NULL,
    bits      INTEGER NOT NULL,
    domain    TEXT NOT NULL,
    challenge TEXT NOT NULL,
    proven    INTEGER,
    secure    INTEGER NOT NULL DEFAULT 0,
    since     INTEGER NOT NULL,
    UNIQUE (member, kind, first, bits)
) STRICT;

-- People of members, who sign in to the pages. `hash`: Argon2id of the password, behind its salt.
CREATE TABLE registry_user (
    name    TEXT NOT NULL PRIMARY KEY,
    member  INTEGER NOT NULL REFERENCES registry_member (id),
    scope   TEXT NOT NULL,
    hash    BLOB NOT NULL,
    since   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Places whose records another primary has not been told yet (RFC 2136); kept only where `drives` is set. `change` goes up each time.
CREATE TABLE registry_outbox (
    place  BLOB NOT NULL PRIMARY KEY,
    change INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE registry_zone ADD COLUMN drives INTEGER NOT NULL DEFAULT 0;
