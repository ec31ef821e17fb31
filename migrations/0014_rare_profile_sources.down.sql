DROP INDEX profiles_rare_sources_idx;
