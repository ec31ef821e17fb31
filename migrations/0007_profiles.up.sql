-- What we know of the people who write: names and a phone, with every change of them.

-- Search by a part of a name.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE profiles (
    -- The provider's id, exactly as it wrote it.
    user_id text COLLATE "C" PRIMARY KEY,
    -- Names are null or not empty.
    max_first_name text CHECK (max_first_name <> ''),
    max_last_name text CHECK (max_last_name <> ''),
    user_provided_name text CHECK (user_provided_name <> ''),
    -- E.164, from a contact that was proven to be theirs.
    phone text,
    -- When the event happened that told the MAX names, or the phone, by the provider's clock: an older event never
    -- overwrites a newer one. Null if none has.
    names_at timestamptz,
    phone_at timestamptz,
    first_seen_at timestamptz NOT NULL,
    -- Later with every change of what is answered: it orders the versions of a profile.
    updated_at timestamptz NOT NULL,
    -- Which name counts.
    source text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN user_provided_name IS NOT NULL THEN 'user_input'
            WHEN max_first_name IS NOT NULL OR max_last_name IS NOT NULL THEN 'webhook'
            ELSE 'default'
        END
    ) STORED,
    -- Both MAX names, or a name of two words that was given by the user.
    has_full_name boolean NOT NULL GENERATED ALWAYS AS (
        (max_first_name IS NOT NULL AND max_last_name IS NOT NULL)
        OR coalesce(user_provided_name ~ '\S\s+\S', false)
    ) STORED,
    -- The words of all names in small letters, each between blanks, for the search.
    search text NOT NULL
)
WITH (fillfactor = 85);

CREATE INDEX profiles_phone_idx ON profiles (phone) WHERE phone IS NOT NULL;
-- With what is searched: a part of a name that many have is found on the way, without a look at the table.
CREATE INDEX profiles_updated_idx ON profiles (updated_at, user_id) INCLUDE (search, source);
CREATE INDEX profiles_search_idx ON profiles USING gin (search gin_trgm_ops);

-- Which of the two is faster depends on how many have it: of one profile in five hundred the usual sample of a hundred knows
-- nothing.
ALTER TABLE profiles ALTER COLUMN search SET STATISTICS 3000;

CREATE TABLE profile_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    -- The profile's updated_at after the change.
    changed_at timestamptz NOT NULL,
    -- The provider's clock, if an event did it.
    event_at timestamptz,
    -- What did it: 'webhook', 'user_input' or 'manual' (an administrator).
    cause text NOT NULL,
    -- The message id of the event, or the name of the caller's key.
    actor text NOT NULL,
    -- Names and phone before and after. Null before the profile was there.
    old jsonb,
    new jsonb NOT NULL
);
CREATE INDEX profile_history_user_idx ON profile_history (user_id, id DESC);
