-- Where names led, so that a start on a bad line need not ask anew. `answer`: JSON, by version. `until`: seconds since 1970.
CREATE TABLE names (
    name   TEXT NOT NULL PRIMARY KEY,
    answer TEXT NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
