-- Text is compared and ordered by its bytes, as in SQLite.

-- The store's own facts: its random name.
CREATE TABLE meta (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

-- The last number that was given of each sequence: `pipelines/<project>`, `jobs/<project>`, `releases/<environment>`.
-- Fences come from a sequence of the database, which no transaction holds until it ends.
CREATE TABLE counters (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE SEQUENCE fences;

CREATE TABLE projects (
    name           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    default_branch TEXT COLLATE "C" NOT NULL,
    head           TEXT COLLATE "C",
    created_at     BIGINT NOT NULL,
    version        BIGINT NOT NULL
);

CREATE TABLE triggers (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project     TEXT COLLATE "C" NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    ref_name    TEXT COLLATE "C",
    branch      TEXT COLLATE "C",
    tag         TEXT COLLATE "C",
    commit_id   TEXT COLLATE "C" NOT NULL,
    parameters  TEXT COLLATE "C" NOT NULL,
    actor       TEXT COLLATE "C" NOT NULL,
    actor_via   TEXT COLLATE "C" NOT NULL,
    actor_right TEXT COLLATE "C" NOT NULL,
    pipeline    TEXT COLLATE "C" NOT NULL,
    number      BIGINT NOT NULL,
    status      TEXT COLLATE "C" NOT NULL,
    reason      TEXT COLLATE "C",
    created_at  BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    UNIQUE (project, number)
);
CREATE INDEX triggers_open ON triggers (created_at, id) WHERE status IN ('announced', 'received');

CREATE TABLE handled_refs (
    project   TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    commit_id TEXT COLLATE "C" NOT NULL,
    number    BIGINT NOT NULL,
    PRIMARY KEY (project, name)
);

CREATE TABLE pipelines (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    trigger     TEXT COLLATE "C" NOT NULL,
    project     TEXT COLLATE "C" NOT NULL,
    number      BIGINT NOT NULL,
    branch      TEXT COLLATE "C",
    tag         TEXT COLLATE "C",
    commit_id   TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    author      TEXT COLLATE "C" NOT NULL,
    status      TEXT COLLATE "C" NOT NULL,
    diagnostics TEXT COLLATE "C" NOT NULL,
    actor       TEXT COLLATE "C" NOT NULL,
    actor_via   TEXT COLLATE "C" NOT NULL,
    actor_right TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    UNIQUE (project, number)
);
CREATE INDEX pipelines_by_age ON pipelines (created_at, id);

CREATE TABLE pipeline_configs (
    pipeline     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    source       TEXT COLLATE "C" NOT NULL,
    processed    TEXT COLLATE "C" NOT NULL,
    project_file TEXT COLLATE "C"
);

-- A stream's events are numbered from 0 without gaps.
CREATE TABLE events (
    stream   TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    event    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (stream, sequence)
);

CREATE TABLE workflows (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    pipeline        TEXT COLLATE "C" NOT NULL,
    pipeline_number BIGINT NOT NULL,
    project         TEXT COLLATE "C" NOT NULL,
    position        BIGINT NOT NULL,
    name            TEXT COLLATE "C" NOT NULL,
    status          TEXT COLLATE "C" NOT NULL,
    branch          TEXT COLLATE "C",
    tag             TEXT COLLATE "C",
    commit_id       TEXT COLLATE "C" NOT NULL,
    message         TEXT COLLATE "C",
    created_at      BIGINT NOT NULL,
    stopped_at      BIGINT,
    version         BIGINT NOT NULL
);
CREATE INDEX workflows_by_pipeline ON workflows (pipeline, position);
CREATE INDEX workflows_unfinished ON workflows (created_at, id) WHERE status IN ('running', 'failing', 'on_hold');

CREATE TABLE jobs (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    workflow       TEXT COLLATE "C" NOT NULL,
    pipeline       TEXT COLLATE "C" NOT NULL,
    project        TEXT COLLATE "C" NOT NULL,
    position       BIGINT NOT NULL,
    number         BIGINT,
    name           TEXT COLLATE "C" NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL,
    status         TEXT COLLATE "C" NOT NULL,
    requires       TEXT COLLATE "C" NOT NULL,
    nodes          BIGINT NOT NULL,
    cpu_millis     BIGINT NOT NULL,
    memory_bytes   BIGINT NOT NULL,
    attempt        BIGINT NOT NULL,
    environment    TEXT COLLATE "C",
    queued_at      BIGINT,
    started_at     BIGINT,
    stopped_at     BIGINT,
    message        TEXT COLLATE "C",
    approved_by    TEXT COLLATE "C",
    stop_requested BIGINT NOT NULL,
    engine         TEXT COLLATE "C",
    image          TEXT COLLATE "C",
    version        BIGINT NOT NULL,
    UNIQUE (project, number)
);
CREATE INDEX jobs_by_workflow ON jobs (workflow, position);
CREATE INDEX jobs_active ON jobs (id) WHERE status IN ('claimed', 'running');

CREATE TABLE job_specs (
    job  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    spec TEXT COLLATE "C" NOT NULL
);

CREATE TABLE nodes (
    job        TEXT COLLATE "C" NOT NULL,
    attempt    BIGINT NOT NULL,
    node       BIGINT NOT NULL,
    reports    BIGINT NOT NULL,
    outcome    TEXT COLLATE "C",
    message    TEXT COLLATE "C",
    stopped_at BIGINT,
    PRIMARY KEY (job, attempt, node)
);

CREATE TABLE steps (
    job        TEXT COLLATE "C" NOT NULL,
    attempt    BIGINT NOT NULL,
    node       BIGINT NOT NULL,
    step       BIGINT NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    status     TEXT COLLATE "C" NOT NULL,
    exit_code  BIGINT,
    message    TEXT COLLATE "C",
    started_at BIGINT NOT NULL,
    stopped_at BIGINT,
    PRIMARY KEY (job, attempt, node, step)
);

CREATE TABLE artifacts (
    job     TEXT COLLATE "C" NOT NULL,
    attempt BIGINT NOT NULL,
    node    BIGINT NOT NULL,
    path    TEXT COLLATE "C" NOT NULL,
    project TEXT COLLATE "C" NOT NULL,
    digest  TEXT COLLATE "C" NOT NULL,
    bytes   BIGINT NOT NULL,
    PRIMARY KEY (job, attempt, node, path)
);

-- One row a file of results; `position` orders them by arrival.
CREATE TABLE test_files (
    position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project  TEXT COLLATE "C" NOT NULL,
    job      TEXT COLLATE "C" NOT NULL,
    attempt  BIGINT NOT NULL,
    node     BIGINT NOT NULL,
    path     TEXT COLLATE "C" NOT NULL,
    UNIQUE (job, attempt, node, path)
);
CREATE INDEX test_files_by_project ON test_files (project, position);

CREATE TABLE tests (
    test_file BIGINT NOT NULL,
    place     BIGINT NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    classname TEXT COLLATE "C",
    file      TEXT COLLATE "C",
    seconds   DOUBLE PRECISION NOT NULL,
    result    TEXT COLLATE "C" NOT NULL,
    message   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (test_file, place)
);

-- `position` orders them by age.
CREATE TABLE caches (
    position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project  TEXT COLLATE "C" NOT NULL,
    domain   TEXT COLLATE "C" NOT NULL,
    key      TEXT COLLATE "C" NOT NULL,
    digest   TEXT COLLATE "C" NOT NULL,
    bytes    BIGINT NOT NULL,
    UNIQUE (project, domain, key)
);
CREATE INDEX caches_by_age ON caches (project, domain, position);

CREATE TABLE workspace_layers (
    workflow TEXT COLLATE "C" NOT NULL,
    job      TEXT COLLATE "C" NOT NULL,
    attempt  BIGINT NOT NULL,
    node     BIGINT NOT NULL,
    step     BIGINT NOT NULL,
    digest   TEXT COLLATE "C" NOT NULL,
    bytes    BIGINT NOT NULL,
    PRIMARY KEY (workflow, job, attempt, node, step)
);

CREATE TABLE gates (
    job             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    workflow        TEXT COLLATE "C" NOT NULL,
    workflow_name   TEXT COLLATE "C" NOT NULL,
    pipeline        TEXT COLLATE "C" NOT NULL,
    pipeline_number BIGINT NOT NULL,
    project         TEXT COLLATE "C" NOT NULL,
    name            TEXT COLLATE "C" NOT NULL,
    branch          TEXT COLLATE "C",
    tag             TEXT COLLATE "C",
    commit_id       TEXT COLLATE "C" NOT NULL,
    subject         TEXT COLLATE "C" NOT NULL,
    environment     TEXT COLLATE "C",
    waiting         BIGINT NOT NULL,
    plan            TEXT COLLATE "C",
    plan_error      TEXT COLLATE "C",
    as_of           BIGINT,
    approved_by     TEXT COLLATE "C",
    created_at      BIGINT NOT NULL,
    version         BIGINT NOT NULL
);
CREATE INDEX gates_waiting ON gates (created_at, job) WHERE waiting = 1;
CREATE INDEX gates_waiting_by_project ON gates (project, created_at, job) WHERE waiting = 1;
CREATE INDEX gates_waiting_by_environment ON gates (environment, created_at, job) WHERE waiting = 1;

CREATE TABLE plans (
    digest      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    environment TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    plan        TEXT COLLATE "C" NOT NULL
);

-- Releases that others recorded in an environment come with their own numbers, so a number is not unique.
CREATE TABLE releases (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    environment TEXT COLLATE "C" NOT NULL,
    number      BIGINT NOT NULL,
    status      TEXT COLLATE "C" NOT NULL,
    outcome     TEXT COLLATE "C",
    images      TEXT COLLATE "C" NOT NULL,
    commit_id   TEXT COLLATE "C",
    actor       TEXT COLLATE "C" NOT NULL,
    actor_via   TEXT COLLATE "C" NOT NULL,
    actor_right TEXT COLLATE "C" NOT NULL,
    cause       TEXT COLLATE "C" NOT NULL,
    plan        TEXT COLLATE "C" NOT NULL,
    parent      TEXT COLLATE "C",
    job         TEXT COLLATE "C",
    created_at  BIGINT NOT NULL,
    stopped_at  BIGINT,
    message     TEXT COLLATE "C",
    repeats     BIGINT NOT NULL,
    repeated_at BIGINT,
    version     BIGINT NOT NULL
);
CREATE INDEX releases_by_number ON releases (environment, number, id);
CREATE INDEX releases_by_job ON releases (job, environment);
CREATE INDEX releases_open ON releases (created_at, id)
    WHERE status IN ('planned', 'approved', 'applying', 'watching', 'rolling_back');

CREATE TABLE runs (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    environment TEXT COLLATE "C" NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    object      TEXT COLLATE "C" NOT NULL,
    image       TEXT COLLATE "C" NOT NULL,
    actor       TEXT COLLATE "C" NOT NULL,
    actor_via   TEXT COLLATE "C" NOT NULL,
    actor_right TEXT COLLATE "C" NOT NULL,
    outcome     TEXT COLLATE "C",
    exit_code   BIGINT,
    message     TEXT COLLATE "C",
    created_at  BIGINT NOT NULL,
    stopped_at  BIGINT,
    version     BIGINT NOT NULL
);
CREATE INDEX runs_by_environment ON runs (environment, created_at, id);

CREATE TABLE image_pushes (
    position   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project    TEXT COLLATE "C" NOT NULL,
    workflow   TEXT COLLATE "C",
    registry   TEXT COLLATE "C",
    repository TEXT COLLATE "C" NOT NULL,
    tag        TEXT COLLATE "C",
    digest     TEXT COLLATE "C",
    pushed_at  BIGINT NOT NULL
);
CREATE INDEX image_pushes_by_workflow ON image_pushes (workflow, pushed_at, position);
CREATE INDEX image_pushes_by_tag ON image_pushes (repository, tag, pushed_at, position);

CREATE TABLE environments (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project      TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    kube_context TEXT COLLATE "C" NOT NULL,
    namespace    TEXT COLLATE "C" NOT NULL,
    ambiguous    TEXT COLLATE "C" NOT NULL,
    listed       BIGINT NOT NULL,
    sighting     TEXT COLLATE "C" NOT NULL,
    sighted_at   BIGINT,
    because      TEXT COLLATE "C",
    release      TEXT COLLATE "C",
    seen         TEXT COLLATE "C" NOT NULL,
    drift        TEXT COLLATE "C" NOT NULL,
    drift_at     BIGINT,
    version      BIGINT NOT NULL
);
CREATE UNIQUE INDEX environments_by_project ON environments (project, name);

CREATE TABLE orb_namespaces (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    id   TEXT COLLATE "C" NOT NULL
);

CREATE TABLE orbs (
    namespace  TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    is_private BIGINT NOT NULL,
    is_listed  BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- `position` orders them by publication.
CREATE TABLE orb_versions (
    position   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace  TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    version    TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    source     TEXT COLLATE "C" NOT NULL,
    frozen     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (namespace, name, version)
);

CREATE TABLE fetched_orbs (
    reference TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    source    TEXT COLLATE "C" NOT NULL
);

-- `claimable_at`: `due` of work that is ready, the end of the lease of leased work, nothing of work that was set aside.
-- `again`, `again_engine`: a wish for the same work that came during its lease; it takes effect when the lease ends.
CREATE TABLE work (
    kind         TEXT COLLATE "C" NOT NULL,
    key          TEXT COLLATE "C" NOT NULL,
    project      TEXT COLLATE "C",
    cpu_millis   BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    engine       TEXT COLLATE "C",
    due          BIGINT NOT NULL,
    claimable_at BIGINT,
    failures     BIGINT NOT NULL,
    last_failure TEXT COLLATE "C",
    state        TEXT COLLATE "C" NOT NULL,
    server       TEXT COLLATE "C",
    reason       TEXT COLLATE "C",
    fence        BIGINT NOT NULL,
    again        BIGINT,
    again_engine TEXT COLLATE "C",
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX work_claimable ON work (kind, claimable_at);
CREATE INDEX work_leased ON work (server) WHERE state = 'leased';
CREATE INDEX work_set_aside ON work (created_at, kind, key) WHERE state = 'set_aside';

CREATE TABLE servers (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    address    TEXT COLLATE "C" NOT NULL,
    engines    TEXT COLLATE "C" NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL
);

-- Browsers that signed in, by the digest of their token.
CREATE TABLE sessions (
    digest  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    browser TEXT COLLATE "C" NOT NULL,
    made_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);

-- Whose jobs may have a context's variables. Empty lists: any project's, any branch's.
CREATE TABLE context_rules (
    context  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    projects TEXT COLLATE "C" NOT NULL,
    branches TEXT COLLATE "C" NOT NULL
);
