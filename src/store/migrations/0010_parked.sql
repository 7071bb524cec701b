-- Frames of visitors whose home could not be reached (fNS), in the order in which they were heard.
CREATE TABLE parked (
    number   INTEGER PRIMARY KEY,
    net_id   TEXT NOT NULL,
    received INTEGER NOT NULL,
    message  TEXT NOT NULL
) STRICT;
