-- Contexts and visits are looked up where they are, and not in memory.
CREATE INDEX contexts_by_addr ON contexts (dev_addr);
CREATE INDEX visits_by_addr ON visits (net_id, dev_addr);
CREATE INDEX visits_by_device ON visits (dev_eui);
