-- ensure: the consumer groups of a partition exist, from the first entry on.
--
-- KEYS  1 count · then ingest, retry and suspect
-- ARGV  none
-- gives how many groups were made: 0 in normal operation, so that a wiped group can be told
--
-- At id 0, never at $: whatever was appended before the group existed has to be read.

register('ensure', {'allow-oom'}, function(keys)
  local made = 0
  for i = 2, #keys do
    local bad = wrong_type(keys[1], 'hash') or wrong_type(keys[i], 'stream')
    if bad then return bad end
    local reply = redis.pcall('XGROUP', 'CREATE', keys[i], GROUP, '0', 'MKSTREAM')
    if reply.ok then
      made = made + 1
      -- A group that was wiped begins again with everything that is still there.
      local open = tonumber(redis.call('HGET', keys[1], open_field(keys[i])) or 0)
      count_open(keys[1], keys[i], redis.call('XLEN', keys[i]) - open)
    end
  end
  return made
end)
