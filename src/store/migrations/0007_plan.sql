-- sns: the region that a session was made in, and what its device knows of the channels.
ALTER TABLE sessions ADD COLUMN region TEXT;
ALTER TABLE sessions ADD COLUMN sub_bands INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN plan_told INTEGER NOT NULL DEFAULT 0;
