-- sns: whether the device of a session may talk through other networks.
ALTER TABLE sessions ADD COLUMN roaming INTEGER NOT NULL DEFAULT 1;
