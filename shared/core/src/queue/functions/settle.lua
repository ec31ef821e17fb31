-- settle: ack what was committed, count it, give its memory back.
--
-- KEYS  1 the stream (ingest, retry or suspect) · 2 count · 3 alive
-- ARGV  1 consumer · 2 how many of the ids were stored · then the stored ids, then the ids of duplicates
-- gives {'OK', stored, duplicates}: what XACK returned, so a second settle of the same ids counts nothing
--       {'FENCED'}: the caller has lost its lease; nothing was changed

register('settle', {'allow-oom'}, function(keys, args)
  local bad = wrong_type(keys[2], 'hash')
  if bad then return bad end
  if fenced(keys[3], args[1]) then return {'FENCED'} end
  local last_stored = 2 + tonumber(args[2])
  local stored = ack(keys[1], args, 3, last_stored)
  local duplicate = ack(keys[1], args, last_stored + 1, #args)
  if stored > 0 then redis.call('HINCRBY', keys[2], 'stored', stored) end
  if duplicate > 0 then redis.call('HINCRBY', keys[2], 'duplicate', duplicate) end
  count_open(keys[2], keys[1], -(stored + duplicate))
  trim(keys[1])
  return {'OK', stored, duplicate}
end)
