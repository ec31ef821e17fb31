DROP TABLE profile_history;
DROP TABLE profiles;
DROP EXTENSION pg_trgm;
