-- ensure: the consumer groups of a partition exist, from the first entry on.
--
-- KEYS  ingest, retry and suspect
-- ARGV  none
-- gives how many groups were made: 0 in normal operation, so that a wiped group can be told
--
-- At id 0, never at $: whatever was appended before the group existed has to be read.

register('ensure', {'allow-oom'}, function(keys)
  local made = 0
  for _, stream in ipairs(keys) do
    local bad = wrong_type(stream, 'stream')
    if bad then return bad end
    local reply = redis.pcall('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
    if reply.ok then made = made + 1 end
  end
  return made
end)
