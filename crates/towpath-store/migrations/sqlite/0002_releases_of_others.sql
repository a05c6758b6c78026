-- Releases that others recorded in an environment come with their own numbers, and one that was refused here may have had
-- the same.
CREATE TABLE all_releases (
    id          TEXT PRIMARY KEY,
    environment TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    running     INTEGER NOT NULL,
    row         TEXT    NOT NULL
) STRICT;
INSERT INTO all_releases SELECT id, environment, number, running, row FROM releases;
DROP TABLE releases;
ALTER TABLE all_releases RENAME TO releases;
CREATE INDEX releases_by_number ON releases (environment, number);
