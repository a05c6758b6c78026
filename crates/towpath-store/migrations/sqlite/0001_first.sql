-- What happened. A stream's events are numbered from 0 without gaps; state is a fold of them.
CREATE TABLE events (
    stream  TEXT    NOT NULL,
    version INTEGER NOT NULL,
    event   TEXT    NOT NULL,
    PRIMARY KEY (stream, version)
) STRICT, WITHOUT ROWID;

-- What pages read. Each row is written in the transaction of the events that it follows from.
CREATE TABLE pipelines (
    id         TEXT PRIMARY KEY,
    project    TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    row        TEXT    NOT NULL,
    UNIQUE (project, number)
) STRICT;

CREATE TABLE workflows (
    id       TEXT PRIMARY KEY,
    pipeline TEXT    NOT NULL REFERENCES pipelines (id),
    position INTEGER NOT NULL,
    ended    INTEGER NOT NULL,
    row      TEXT    NOT NULL
) STRICT;
CREATE INDEX workflows_by_pipeline ON workflows (pipeline, position);
CREATE INDEX workflows_unfinished ON workflows (ended) WHERE ended = 0;

CREATE TABLE jobs (
    id       TEXT PRIMARY KEY,
    workflow TEXT    NOT NULL REFERENCES workflows (id),
    project  TEXT    NOT NULL,
    position INTEGER NOT NULL,
    number   INTEGER,
    row      TEXT    NOT NULL,
    UNIQUE (project, number)
) STRICT;
CREATE INDEX jobs_by_workflow ON jobs (workflow, position);

CREATE TABLE releases (
    id          TEXT PRIMARY KEY,
    environment TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    running     INTEGER NOT NULL,
    row         TEXT    NOT NULL,
    UNIQUE (environment, number)
) STRICT;

-- Everything that only its writer reads.
CREATE TABLE documents (
    collection TEXT NOT NULL,
    key        TEXT NOT NULL,
    json       TEXT NOT NULL,
    PRIMARY KEY (collection, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE caches (
    project    TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    bytes      INTEGER NOT NULL,
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    UNIQUE (project, key)
) STRICT;

CREATE TABLE workspace_layers (
    workflow TEXT    NOT NULL,
    job      TEXT    NOT NULL,
    node     INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    digest   TEXT    NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (workflow, job, node, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (
    job    TEXT    NOT NULL,
    node   INTEGER NOT NULL,
    path   TEXT    NOT NULL,
    digest TEXT    NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (job, node, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE tests (
    job     TEXT    NOT NULL,
    node    INTEGER NOT NULL,
    path    TEXT    NOT NULL,
    project TEXT    NOT NULL,
    tests   TEXT    NOT NULL,
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    UNIQUE (job, node, path)
) STRICT;
CREATE INDEX tests_by_project ON tests (project, position);
