-- Alerts of the monitoring, one row from firing to resolving.

CREATE TABLE alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    -- What was measured when it fired, and the bound.
    value double precision NOT NULL,
    threshold double precision NOT NULL,
    fired_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
-- Each fires once, whoever looks.
CREATE UNIQUE INDEX alerts_firing_idx ON alerts (name) WHERE resolved_at IS NULL;
CREATE INDEX alerts_fired_idx ON alerts (fired_at DESC);
