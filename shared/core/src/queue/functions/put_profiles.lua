-- put_profiles: keep profiles in the cache, each unless a newer one is there. What cannot be read there is replaced.
--
-- KEYS  profile:user:<id> of each
-- ARGV  1 time to live in ms · then for each key: JSON, its last_updated
-- gives how many were kept

local TIME = '^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d%d%d%dZ$'

-- The last_updated of a cached profile, or nil when it is none. All have the same form, so that the later one is the
-- greater one.
local function version_of(value)
  if type(value) ~= 'string' then return nil end
  local ok, profile = pcall(cjson.decode, value)
  if not ok or type(profile) ~= 'table' then return nil end
  local version = profile['last_updated']
  if type(version) == 'string' and string.match(version, TIME) then return version end
end

register('put_profiles', {}, function(keys, args)
  local kept = 0
  for i, key in ipairs(keys) do
    local there = version_of(redis.pcall('GET', key))
    if not there or there <= args[2 * i + 1] then
      redis.call('SET', key, args[2 * i], 'PX', args[1])
      kept = kept + 1
    end
  end
  return kept
end)
