-- sns: sessions that came back with a backup, and when: what we accept of them may repeat once.
ALTER TABLE sessions ADD COLUMN restored INTEGER;
