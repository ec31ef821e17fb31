-- Pages of the profiles whose name is not MAX's, in the order of their last change. Most names are MAX's: their pages are
-- full without an index, and whoever writes them does not pay for one.

CREATE INDEX profiles_rare_sources_idx ON profiles (source, updated_at, user_id) WHERE source <> 'webhook';
