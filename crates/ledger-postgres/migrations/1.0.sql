-- Texts are compared byte by byte, whatever the database's collation: the order of a list is a promise.
CREATE TABLE kapell_ledger.watermarks (
    shard integer PRIMARY KEY,
    -- All entries up to here are contained.
    through bigint NOT NULL,
    -- The farthest part that was stored; as far as `through`, or beyond it while a last part is missing.
    told bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE kapell_ledger.runs (
    run uuid PRIMARY KEY,
    accepted bigint NOT NULL,
    ended bigint,
    parent uuid,
    -- Of `key`: a key may be longer than an index allows.
    key_hash bigint,
    approvals integer NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    version text NOT NULL,
    key text COLLATE "C",
    error_class text,
    error_message text,
    output text,
    outcome text,
    entities text
) WITH (
    -- Room for the next state of a row beside it.
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX runs_by_workflow ON kapell_ledger.runs (namespace, workflow, state, accepted, run);
CREATE INDEX runs_by_key ON kapell_ledger.runs (key_hash, namespace, accepted, run) WHERE key_hash IS NOT NULL;

CREATE TABLE kapell_ledger.run_entities (
    run uuid NOT NULL,
    place integer NOT NULL,
    accepted bigint NOT NULL,
    entity_hash bigint NOT NULL,
    -- Of all entities of the run, with its namespace and time: equal means that nothing is to be done.
    digest uuid NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    entity text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, place)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX run_entities_by_entity ON kapell_ledger.run_entities (entity_hash, namespace, accepted, run);

CREATE TABLE kapell_ledger.approvals (
    run uuid NOT NULL,
    place integer NOT NULL,
    accepted bigint NOT NULL,
    expires bigint,
    -- Of all questions of the run, with its namespace and time: equal means that nothing is to be done.
    digest uuid NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    step text NOT NULL,
    kind text NOT NULL,
    ask text NOT NULL,
    show text NOT NULL,
    PRIMARY KEY (run, place)
);
CREATE INDEX approvals_by_time ON kapell_ledger.approvals (accepted, run);
CREATE INDEX approvals_by_namespace ON kapell_ledger.approvals (namespace, accepted, run);
