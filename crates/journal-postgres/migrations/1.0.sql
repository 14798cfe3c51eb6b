-- Which of the databases of a store this is: a wrong list of databases would look for shards where they are not.
CREATE TABLE kapell_journal.store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL,
    -- How many there are, from the beginning: the shard of a run follows from its key.
    shards integer NOT NULL,
    place integer NOT NULL,
    databases integer NOT NULL,
    -- All databases of the store have their row.
    complete boolean NOT NULL DEFAULT false);

-- Who may append. A row is locked by each append of its shard, so it holds nothing that changes with an append: a long
-- chain of old versions would slow down every one after it.
CREATE TABLE kapell_journal.shards (
    shard integer PRIMARY KEY,
    epoch bigint NOT NULL,
    -- Counts the acquisitions: the same epoch may acquire again, and what it sent before must not arrive afterwards.
    generation bigint NOT NULL) WITH (fillfactor = 50);

CREATE TABLE kapell_journal.marks (
    shard integer PRIMARY KEY,
    -- How many checkpoints were stored; their images are those of one moment as long as it stays.
    checkpoints bigint NOT NULL,
    checkpointed bigint NOT NULL,
    trimmed bigint NOT NULL) WITH (fillfactor = 50);

CREATE TABLE kapell_journal.images (
    shard integer NOT NULL,
    run uuid NOT NULL,
    crc integer NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (shard, run));

-- Empty: the entries are in the segments, which inherit from it. Good for a look at all of them.
CREATE TABLE kapell_journal.entries (
    shard integer NOT NULL,
    seq bigint NOT NULL,
    run uuid NOT NULL,
    crc integer NOT NULL,
    payload bytea NOT NULL);

CREATE TABLE kapell_journal.segments (
    segment integer PRIMARY KEY,
    -- Nothing is added any more, and the spans are known.
    sealed boolean NOT NULL DEFAULT false);

-- What a sealed segment holds of each shard.
CREATE TABLE kapell_journal.spans (
    shard integer NOT NULL,
    segment integer NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    entries bigint NOT NULL,
    PRIMARY KEY (shard, segment));
CREATE INDEX spans_segment ON kapell_journal.spans (segment);

CREATE FUNCTION kapell_journal.refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the segment is sealed' USING ERRCODE = 'KJ001'; END $$;
