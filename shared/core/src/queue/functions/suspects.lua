-- suspects: read what dead workers left behind. Entries that have not been in suspect at a death come together; one that
-- has been comes alone, so that the next death tells whether it was its fault.
--
-- KEYS  1 suspect
-- ARGV  1 consumer · 2 entries at most
-- gives what XREADGROUP gives, or {} when there is nothing
--
-- Looking and reading are one step: between them somebody else could take what was seen, and what comes instead would
-- share the blame.

local function last_delivered(stream)
  for _, group in ipairs(groups_of(stream)) do
    if group['name'] == GROUP then return group['last-delivered-id'] end
  end
  return '0-0'
end

local function innocents(ahead)
  for i, item in ipairs(ahead) do
    if (tonumber(as_map(item[2])['c'] or 0) or 0) > 0 then return i - 1 end
  end
  return #ahead
end

register('suspects', {'allow-oom'}, function(keys, args)
  local ahead = redis.call('XRANGE', keys[1], '(' .. last_delivered(keys[1]), '+', 'COUNT', args[2])
  local n = math.max(innocents(ahead), 1)
  return redis.call('XREADGROUP', 'GROUP', GROUP, args[1], 'COUNT', n, 'STREAMS', keys[1], '>') or {}
end)
