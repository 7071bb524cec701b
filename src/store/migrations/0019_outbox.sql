-- application: a table for each sink, so that an event is found by its number alone. Its row is longer than what a tree of
-- composite keys keeps in one place: there each step of a search read a second page.
CREATE TABLE outbox_mqtt (
    id      INTEGER PRIMARY KEY,
    dev_eui TEXT NOT NULL,
    kind    TEXT NOT NULL,
    body    TEXT NOT NULL
) STRICT;
CREATE TABLE outbox_http (
    id      INTEGER PRIMARY KEY,
    dev_eui TEXT NOT NULL,
    kind    TEXT NOT NULL,
    body    TEXT NOT NULL
) STRICT;
INSERT INTO outbox_mqtt SELECT id, dev_eui, kind, body FROM outbox WHERE sink = 'mqtt';
INSERT INTO outbox_http SELECT id, dev_eui, kind, body FROM outbox WHERE sink = 'http';
DROP TABLE outbox;
