-- js: the last JoinNonce of devices that were removed. A device that comes back with the same root
-- key goes on from there, because a JoinNonce is never used twice.
CREATE TABLE retired (
    dev_eui    TEXT PRIMARY KEY,
    join_nonce INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
