-- application: events that a sink has not taken yet, in the order of their ids, which have no gaps.
-- Without a rowid there is one tree to write.
CREATE TABLE outbox (
    sink    TEXT NOT NULL,
    id      INTEGER NOT NULL,
    dev_eui TEXT NOT NULL,
    kind    TEXT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (sink, id)
) STRICT, WITHOUT ROWID;
