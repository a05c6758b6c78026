-- The store's own facts: its random name.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The last number that was given of each sequence: `pipelines/<project>`, `jobs/<project>`, `releases/<environment>`,
-- `fences`.
CREATE TABLE counters (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE projects (
    name           TEXT    NOT NULL PRIMARY KEY,
    default_branch TEXT    NOT NULL,
    head           TEXT,
    created_at     INTEGER NOT NULL,
    version        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE triggers (
    id          TEXT    NOT NULL PRIMARY KEY,
    project     TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    ref_name    TEXT,
    branch      TEXT,
    tag         TEXT,
    commit_id   TEXT    NOT NULL,
    parameters  TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    actor_via   TEXT    NOT NULL,
    actor_right TEXT    NOT NULL,
    pipeline    TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    status      TEXT    NOT NULL,
    reason      TEXT,
    created_at  INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    UNIQUE (project, number)
) STRICT;
CREATE INDEX triggers_open ON triggers (created_at, id) WHERE status IN ('announced', 'received');

CREATE TABLE handled_refs (
    project   TEXT NOT NULL,
    name      TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    number    INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE pipelines (
    id          TEXT    NOT NULL PRIMARY KEY,
    trigger     TEXT    NOT NULL,
    project     TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    branch      TEXT,
    tag         TEXT,
    commit_id   TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    author      TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    diagnostics TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    actor_via   TEXT    NOT NULL,
    actor_right TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    UNIQUE (project, number)
) STRICT;
CREATE INDEX pipelines_by_age ON pipelines (created_at, id);

CREATE TABLE pipeline_configs (
    pipeline     TEXT NOT NULL PRIMARY KEY,
    source       TEXT NOT NULL,
    processed    TEXT NOT NULL,
    project_file TEXT
) STRICT;

-- A stream's events are numbered from 0 without gaps.
CREATE TABLE events (
    stream   TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    event    TEXT    NOT NULL,
    PRIMARY KEY (stream, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE workflows (
    id              TEXT    NOT NULL PRIMARY KEY,
    pipeline        TEXT    NOT NULL,
    pipeline_number INTEGER NOT NULL,
    project         TEXT    NOT NULL,
    position        INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    branch          TEXT,
    tag             TEXT,
    commit_id       TEXT    NOT NULL,
    message         TEXT,
    created_at      INTEGER NOT NULL,
    stopped_at      INTEGER,
    version         INTEGER NOT NULL
) STRICT;
CREATE INDEX workflows_by_pipeline ON workflows (pipeline, position);
CREATE INDEX workflows_unfinished ON workflows (created_at, id) WHERE status IN ('running', 'failing', 'on_hold');

CREATE TABLE jobs (
    id             TEXT    NOT NULL PRIMARY KEY,
    workflow       TEXT    NOT NULL,
    pipeline       TEXT    NOT NULL,
    project        TEXT    NOT NULL,
    position       INTEGER NOT NULL,
    number         INTEGER,
    name           TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    status         TEXT    NOT NULL,
    requires       TEXT    NOT NULL,
    nodes          INTEGER NOT NULL,
    cpu_millis     INTEGER NOT NULL,
    memory_bytes   INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    environment    TEXT,
    queued_at      INTEGER,
    started_at     INTEGER,
    stopped_at     INTEGER,
    message        TEXT,
    approved_by    TEXT,
    stop_requested INTEGER NOT NULL,
    engine         TEXT,
    image          TEXT,
    version        INTEGER NOT NULL,
    UNIQUE (project, number)
) STRICT;
CREATE INDEX jobs_by_workflow ON jobs (workflow, position);
CREATE INDEX jobs_active ON jobs (id) WHERE status IN ('claimed', 'running');

CREATE TABLE job_specs (
    job  TEXT NOT NULL PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT;

CREATE TABLE nodes (
    job        TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    node       INTEGER NOT NULL,
    reports    INTEGER NOT NULL,
    outcome    TEXT,
    message    TEXT,
    stopped_at INTEGER,
    PRIMARY KEY (job, attempt, node)
) STRICT, WITHOUT ROWID;

CREATE TABLE steps (
    job        TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    node       INTEGER NOT NULL,
    step       INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    exit_code  INTEGER,
    message    TEXT,
    started_at INTEGER NOT NULL,
    stopped_at INTEGER,
    PRIMARY KEY (job, attempt, node, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (
    job     TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    node    INTEGER NOT NULL,
    path    TEXT    NOT NULL,
    project TEXT    NOT NULL,
    digest  TEXT    NOT NULL,
    bytes   INTEGER NOT NULL,
    PRIMARY KEY (job, attempt, node, path)
) STRICT, WITHOUT ROWID;

-- One row a file of results; `position` orders them by arrival.
CREATE TABLE test_files (
    position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    project  TEXT    NOT NULL,
    job      TEXT    NOT NULL,
    attempt  INTEGER NOT NULL,
    node     INTEGER NOT NULL,
    path     TEXT    NOT NULL,
    UNIQUE (job, attempt, node, path)
) STRICT;
CREATE INDEX test_files_by_project ON test_files (project, position);

CREATE TABLE tests (
    test_file INTEGER NOT NULL,
    place     INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    classname TEXT,
    file      TEXT,
    seconds   REAL    NOT NULL,
    result    TEXT    NOT NULL,
    message   TEXT    NOT NULL,
    PRIMARY KEY (test_file, place)
) STRICT, WITHOUT ROWID;

-- `position` orders them by age.
CREATE TABLE caches (
    position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    project  TEXT    NOT NULL,
    domain   TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    digest   TEXT    NOT NULL,
    bytes    INTEGER NOT NULL,
    UNIQUE (project, domain, key)
) STRICT;
CREATE INDEX caches_by_age ON caches (project, domain, position);

CREATE TABLE workspace_layers (
    workflow TEXT    NOT NULL,
    job      TEXT    NOT NULL,
    attempt  INTEGER NOT NULL,
    node     INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    digest   TEXT    NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (workflow, job, attempt, node, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE gates (
    job             TEXT    NOT NULL PRIMARY KEY,
    workflow        TEXT    NOT NULL,
    workflow_name   TEXT    NOT NULL,
    pipeline        TEXT    NOT NULL,
    pipeline_number INTEGER NOT NULL,
    project         TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    branch          TEXT,
    tag             TEXT,
    commit_id       TEXT    NOT NULL,
    subject         TEXT    NOT NULL,
    environment     TEXT,
    waiting         INTEGER NOT NULL,
    plan            TEXT,
    plan_error      TEXT,
    as_of           INTEGER,
    approved_by     TEXT,
    created_at      INTEGER NOT NULL,
    version         INTEGER NOT NULL
) STRICT;
CREATE INDEX gates_waiting ON gates (created_at, job) WHERE waiting = 1;
CREATE INDEX gates_waiting_by_project ON gates (project, created_at, job) WHERE waiting = 1;
CREATE INDEX gates_waiting_by_environment ON gates (environment, created_at, job) WHERE waiting = 1;

CREATE TABLE plans (
    digest      TEXT    NOT NULL PRIMARY KEY,
    environment TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    plan        TEXT    NOT NULL
) STRICT;

-- Releases that others recorded in an environment come with their own numbers, so a number is not unique.
CREATE TABLE releases (
    id          TEXT    NOT NULL PRIMARY KEY,
    environment TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    status      TEXT    NOT NULL,
    outcome     TEXT,
    images      TEXT    NOT NULL,
    commit_id   TEXT,
    actor       TEXT    NOT NULL,
    actor_via   TEXT    NOT NULL,
    actor_right TEXT    NOT NULL,
    cause       TEXT    NOT NULL,
    plan        TEXT    NOT NULL,
    parent      TEXT,
    job         TEXT,
    created_at  INTEGER NOT NULL,
    stopped_at  INTEGER,
    message     TEXT,
    repeats     INTEGER NOT NULL,
    repeated_at INTEGER,
    version     INTEGER NOT NULL
) STRICT;
CREATE INDEX releases_by_number ON releases (environment, number, id);
CREATE INDEX releases_by_job ON releases (job, environment);
CREATE INDEX releases_open ON releases (created_at, id)
    WHERE status IN ('planned', 'approved', 'applying', 'watching', 'rolling_back');

CREATE TABLE runs (
    id          TEXT    NOT NULL PRIMARY KEY,
    environment TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    object      TEXT    NOT NULL,
    image       TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    actor_via   TEXT    NOT NULL,
    actor_right TEXT    NOT NULL,
    outcome     TEXT,
    exit_code   INTEGER,
    message     TEXT,
    created_at  INTEGER NOT NULL,
    stopped_at  INTEGER,
    version     INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_by_environment ON runs (environment, created_at, id);

CREATE TABLE image_pushes (
    position   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    project    TEXT    NOT NULL,
    workflow   TEXT,
    registry   TEXT,
    repository TEXT    NOT NULL,
    tag        TEXT,
    digest     TEXT,
    pushed_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX image_pushes_by_workflow ON image_pushes (workflow, pushed_at, position);
CREATE INDEX image_pushes_by_tag ON image_pushes (repository, tag, pushed_at, position);

CREATE TABLE environments (
    id           TEXT    NOT NULL PRIMARY KEY,
    project      TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    kube_context TEXT    NOT NULL,
    namespace    TEXT    NOT NULL,
    ambiguous    TEXT    NOT NULL,
    listed       INTEGER NOT NULL,
    sighting     TEXT    NOT NULL,
    sighted_at   INTEGER,
    because      TEXT,
    release      TEXT,
    seen         TEXT    NOT NULL,
    drift        TEXT    NOT NULL,
    drift_at     INTEGER,
    version      INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX environments_by_project ON environments (project, name);

CREATE TABLE orb_namespaces (
    name TEXT NOT NULL PRIMARY KEY,
    id   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE orbs (
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    is_private INTEGER NOT NULL,
    is_listed  INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

-- `position` orders them by publication.
CREATE TABLE orb_versions (
    position   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    frozen     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (namespace, name, version)
) STRICT;

CREATE TABLE fetched_orbs (
    reference TEXT NOT NULL PRIMARY KEY,
    source    TEXT NOT NULL
) STRICT;

-- `claimable_at`: `due` of work that is ready, the end of the lease of leased work, nothing of work that was set aside.
-- `again`, `again_engine`: a wish for the same work that came during its lease; it takes effect when the lease ends.
CREATE TABLE work (
    kind         TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    project      TEXT,
    cpu_millis   INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    engine       TEXT,
    due          INTEGER NOT NULL,
    claimable_at INTEGER,
    failures     INTEGER NOT NULL,
    last_failure TEXT,
    state        TEXT    NOT NULL,
    server       TEXT,
    reason       TEXT,
    fence        INTEGER NOT NULL,
    again        INTEGER,
    again_engine TEXT,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX work_claimable ON work (kind, claimable_at);
CREATE INDEX work_leased ON work (server) WHERE state = 'leased';
CREATE INDEX work_set_aside ON work (created_at, kind, key) WHERE state = 'set_aside';

CREATE TABLE servers (
    id         TEXT    NOT NULL PRIMARY KEY,
    address    TEXT    NOT NULL,
    engines    TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Browsers that signed in, by the digest of their token.
CREATE TABLE sessions (
    digest  TEXT    NOT NULL PRIMARY KEY,
    browser TEXT    NOT NULL,
    made_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whose jobs may have a context's variables. Empty lists: any project's, any branch's.
CREATE TABLE context_rules (
    context  TEXT NOT NULL PRIMARY KEY,
    projects TEXT NOT NULL,
    branches TEXT NOT NULL
) STRICT, WITHOUT ROWID;
