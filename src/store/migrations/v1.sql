-- A database of schema 1 as the first version left it; its sealing key is 32 times 5A.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('flushes',0);
INSERT INTO meta VALUES('sealing check',X'1c82b51d2ac08eb239cdcfd66ec7c80e3f0f6042b52ab8a255cf38e29a8bf4cfa59dc580076c8aff35d972e6c8a7b3b9');
CREATE TABLE secrets (
    name   TEXT PRIMARY KEY,
    secret BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO secrets VALUES('tokens',X'8ade4a1a67222c6fc15ce5af2612f5a6f17e76351074131804156b127d4aa4d671ef62cc6000086cb28ae8db96475c4757cf791b738e1bdd7664bcbe7a85eac6cf203e5248e73c93');
CREATE TABLE sessions (
    id            INTEGER PRIMARY KEY,
    dev_eui       TEXT NOT NULL,
    dev_addr      TEXT NOT NULL,
    net_id        TEXT NOT NULL,
    nwk_s_key     BLOB NOT NULL,
    fcnt_up       INTEGER,
    fcnt_down     INTEGER NOT NULL,
    pending       INTEGER NOT NULL,
    rx_delay      INTEGER NOT NULL,
    rx1_dr_offset INTEGER NOT NULL,
    rx2_frequency INTEGER NOT NULL,
    rx2_data_rate INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    expires       INTEGER
) STRICT;
INSERT INTO sessions VALUES(-1,'726F616D67617465','26000001','000013',X'287360c806fc9dd2db6cb2aad73b6fc63222f57431c747952b7bcfd3334077ac4957bd5a85f8b70ea2b7025bb56164a898450f9b4d74c8fc',1,0,1,1,0,869525000,0,1700000255,1700003600);
CREATE TABLE forward (
    session INTEGER NOT NULL,
    fcnt_up INTEGER NOT NULL,
    arrival INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (session, fcnt_up)
) STRICT, WITHOUT ROWID;
INSERT INTO forward VALUES(-1,1,2,'{"v":"1","frm":"010203","ack":false,"dev_eui":"726F616D67617465","dev_addr":null,"f_port":null,"fcnt_down":null,"fcnt_up":1,"confirmed":false,"data_rate":null,"ul_freq":null,"fns_ul_token":null,"recv_time":"2026-11-20T10:00:00.123456Z","rf_region":null,"gw_cnt":null,"gw_info":[]}');
CREATE TABLE devices (
    dev_eui     TEXT PRIMARY KEY,
    join_eui    TEXT NOT NULL,
    name        TEXT NOT NULL,
    mac_version TEXT NOT NULL,
    enabled     INTEGER NOT NULL,
    roaming     INTEGER NOT NULL,
    last_seen   INTEGER,
    last_via    TEXT
) STRICT, WITHOUT ROWID;
INSERT INTO devices VALUES('726F616D67617465','0000000000000001','attic','1.0.3',1,1,NULL,NULL);
CREATE TABLE activations (
    id              INTEGER PRIMARY KEY,
    dev_eui         TEXT NOT NULL REFERENCES devices ON DELETE CASCADE,
    dev_addr        TEXT NOT NULL,
    session_key_id  BLOB,
    app_s_key       BLOB,
    app_s_key_label TEXT,
    fcnt_up         INTEGER,
    created         INTEGER NOT NULL
) STRICT;
INSERT INTO activations VALUES(1,'726F616D67617465','26000001',NULL,X'c6f19004d3e1622c5da749127975cbf1926ca82eecb911438fab8819a90184aaa8534434564e79dcd901d2aa714ac5d42b67eeb415fc53ae',NULL,NULL,0);
CREATE TABLE queue (
    id        INTEGER PRIMARY KEY,
    dev_eui   TEXT NOT NULL REFERENCES devices ON DELETE CASCADE,
    item      TEXT NOT NULL,
    f_port    INTEGER NOT NULL,
    payload   BLOB NOT NULL,
    confirmed INTEGER NOT NULL,
    sent_as   INTEGER,
    attempts  INTEGER NOT NULL
) STRICT;
INSERT INTO queue VALUES(1,'726F616D67617465','5a0e6cf4-9bd1-4b4e-a5a7-3d1f65c2c001',1,X'68656c6c6f',1,NULL,0);
CREATE TABLE root_keys (
    dev_eui     TEXT PRIMARY KEY,
    join_eui    TEXT NOT NULL,
    mac_version TEXT NOT NULL,
    app_key     BLOB NOT NULL,
    nwk_key     BLOB,
    home        TEXT NOT NULL,
    enabled     INTEGER NOT NULL,
    join_nonce  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO root_keys VALUES('726F616D67617465','0000000000000001','1.0.3',X'5329a782db8ba4acca461954e6495fe549bc023a884a676f9c93b169af1f0f0e62be5cca49d787d31cc0819b9497a270e3d377600b1b06b2',NULL,'000013',1,1);
CREATE TABLE dev_nonces (
    dev_eui   TEXT NOT NULL REFERENCES root_keys ON DELETE CASCADE,
    dev_nonce INTEGER NOT NULL,
    PRIMARY KEY (dev_eui, dev_nonce)
) STRICT, WITHOUT ROWID;
INSERT INTO dev_nonces VALUES('726F616D67617465',1);
CREATE TABLE learned (
    net_id TEXT PRIMARY KEY,
    since  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO learned VALUES('C00ABC',1795168800);
CREATE INDEX sessions_by_dev_addr ON sessions (dev_addr);
CREATE INDEX sessions_by_dev_eui ON sessions (dev_eui);
CREATE INDEX activations_by_dev_eui ON activations (dev_eui);
CREATE INDEX queue_by_dev_eui ON queue (dev_eui);
COMMIT;
PRAGMA application_id = 1380925773;
PRAGMA user_version = 1;
