-- sns: what sessions of LoRaWAN 1.1, of personalised devices and of class C add.
ALTER TABLE sessions ADD COLUMN s_nwk_s_int_key BLOB;
ALTER TABLE sessions ADD COLUMN nwk_s_enc_key BLOB;
ALTER TABLE sessions ADD COLUMN a_fcnt_down INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN confirmed_down INTEGER;
ALTER TABLE sessions ADD COLUMN class_c INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN personalised INTEGER NOT NULL DEFAULT 0;
