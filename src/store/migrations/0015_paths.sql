-- The way down to a device of class C may lead through another network: its NetID, and the ULTokens of its gateways
-- (hexadecimal, one a line). `path` stays the FNSULToken.
ALTER TABLE sessions ADD COLUMN path_via TEXT;
ALTER TABLE sessions ADD COLUMN path_gateways TEXT;
