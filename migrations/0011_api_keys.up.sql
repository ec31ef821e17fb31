-- Who may call the API.

CREATE TABLE api_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- For people.
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('admin', 'write', 'read', 'monitor')),
    -- The part of the key by which it is found; not secret.
    prefix text COLLATE "C" NOT NULL UNIQUE,
    -- SHA-256 of the whole key. A key has more than 128 random bits, so there is nothing to guess.
    hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- A minute behind at most.
    last_used_at timestamptz,
    revoked_at timestamptz
);
