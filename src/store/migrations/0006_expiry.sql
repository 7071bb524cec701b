-- hns: from when on a waiting downlink is not sent any more.
ALTER TABLE queue ADD COLUMN expires INTEGER;
