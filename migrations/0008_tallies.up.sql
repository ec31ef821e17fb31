-- Counts over time, kept up with what they count. A count is the sum over its shards: writers that count the same thing
-- at once do so in different rows.

CREATE TABLE tallies (
    -- What is counted; all names stand in shared/store/src/tally.rs.
    what text COLLATE "C" NOT NULL,
    -- Start of the minute or day that it is counted in.
    at timestamptz NOT NULL,
    shard smallint NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (what, at, shard)
)
WITH (fillfactor = 50);
