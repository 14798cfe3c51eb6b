-- What an append locks, instead of the row of each shard in its group. Each writer of an owner has its own, so that no two
-- lock the same; they are counted up together.
CREATE TABLE kapell_journal.fences (
    owner uuid NOT NULL,
    writer integer NOT NULL,
    -- Counts the shards that were taken from the owner. What it sent before finds another version and inserts nothing.
    -- Begins with the time, so that a row that is made again begins higher.
    version bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, writer)) WITH (fillfactor = 50);

-- Which fence stands for the shard. Programs of version 1.0 leave it as it was, and lock the row of the shard itself.
ALTER TABLE kapell_journal.shards ADD COLUMN owner uuid;

-- Waits for appends of the owner that are under way, in the order in which everybody does.
CREATE FUNCTION kapell_journal.fence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM kapell_journal.fences WHERE owner = OLD.owner ORDER BY writer FOR NO KEY UPDATE;
    UPDATE kapell_journal.fences SET version = version + 1 WHERE owner = OLD.owner;
    RETURN NEW;
END $$;
CREATE TRIGGER fence BEFORE UPDATE ON kapell_journal.shards FOR EACH ROW WHEN (OLD.owner IS NOT NULL)
    EXECUTE FUNCTION kapell_journal.fence();

-- Makes an epoch the owner of a shard, unless a later one is: then the generation is null. One statement, so that who
-- stops in the middle of it holds up nobody. Each statement in it sees what was committed before it began: the last
-- record is looked for when nobody can append any more.
CREATE FUNCTION kapell_journal.take(
    of integer, under bigint, by uuid, writers integer,
    OUT generation bigint, OUT version bigint, OUT last bigint, OUT checkpointed bigint, OUT trimmed bigint)
LANGUAGE plpgsql AS $$
DECLARE
    unsealed integer[];
    segment integer;
    found bigint;
BEGIN
    INSERT INTO kapell_journal.fences (owner, writer, version)
        SELECT by, writer, (extract(epoch FROM now()) * 1000000)::bigint
        FROM generate_series(0, writers - 1) AS writer ON CONFLICT DO NOTHING;
    INSERT INTO kapell_journal.shards AS s (shard, epoch, generation, owner) VALUES (of, under, 1, by)
        ON CONFLICT (shard) DO UPDATE
        SET epoch = excluded.epoch, generation = s.generation + 1, owner = excluded.owner
        WHERE s.epoch <= excluded.epoch
        RETURNING s.generation INTO generation;
    IF generation IS NULL THEN
        RETURN;
    END IF;
    SELECT f.version INTO version FROM kapell_journal.fences AS f WHERE f.owner = by AND f.writer = 0;
    SELECT m.checkpointed, m.trimmed INTO checkpointed, trimmed FROM kapell_journal.marks AS m WHERE m.shard = of;
    -- In one look, so that no segment is sealed between its parts.
    SELECT (SELECT max(p.last) FROM kapell_journal.spans AS p WHERE p.shard = of),
        (SELECT array_agg(g.segment) FROM kapell_journal.segments AS g WHERE NOT g.sealed)
        INTO last, unsealed;
    FOREACH segment IN ARRAY coalesce(unsealed, '{}') LOOP
        EXECUTE format('SELECT max(seq) FROM kapell_journal.entries_%s WHERE shard = $1', segment) INTO found USING of;
        last := greatest(last, found);
    END LOOP;
END $$;
