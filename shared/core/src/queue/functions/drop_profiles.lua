-- drop_profiles: take values out of the cache that nobody can read, unless others have come in their place.
--
-- KEYS  profile:user:<id> of each
-- ARGV  for each key: the value that was read
-- gives how many are gone

register('drop_profiles', {'allow-oom'}, function(keys, args)
  local gone = 0
  for i, key in ipairs(keys) do
    if redis.pcall('GET', key) == args[i] then gone = gone + redis.call('UNLINK', key) end
  end
  return gone
end)
