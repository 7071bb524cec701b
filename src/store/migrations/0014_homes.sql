-- js: devices of other networks. NULL is ours, whichever NetID we have; so far all of them were.
CREATE TABLE made (
    dev_eui    TEXT NOT NULL REFERENCES root_keys ON DELETE CASCADE,
    join_nonce INTEGER NOT NULL,
    nonce      INTEGER NOT NULL,
    net_id     TEXT NOT NULL,
    v1_1       INTEGER NOT NULL,
    rj_count0  INTEGER,
    PRIMARY KEY (dev_eui, join_nonce)
) STRICT, WITHOUT ROWID;
INSERT INTO made
    SELECT dev_eui, derivations.join_nonce, nonce, root_keys.home, v1_1, rj_count0
    FROM derivations JOIN root_keys USING (dev_eui);
DROP TABLE derivations;
ALTER TABLE made RENAME TO derivations;
ALTER TABLE root_keys DROP COLUMN home;
ALTER TABLE root_keys ADD COLUMN home TEXT;
