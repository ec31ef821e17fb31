-- tally: count what never becomes an entry, or ceases to be one, by minute. Nothing of it is ever counted down: whoever copies
-- the numbers elsewhere takes them as they are.
--
-- KEYS  1 tally
-- ARGV  pairs: field ('<reason> <Unix minute>'), how many more
-- gives the number of fields
--
-- The field 'changes' counts the calls, so that whoever copies need not read what is as it was.

register('tally', {'allow-oom'}, function(keys, args)
  redis.call('HINCRBY', keys[1], 'changes', 1)
  for i = 1, #args, 2 do redis.call('HINCRBY', keys[1], args[i], args[i + 1]) end
  return #args / 2
end)

-- forget_tallies: drop the counts of fields that are old and copied.
--
-- KEYS  1 tally
-- ARGV  fields
-- gives how many were there

register('forget_tallies', {'allow-oom'}, function(keys, args)
  local gone = 0
  for _, field in ipairs(args) do gone = gone + redis.call('HDEL', keys[1], field) end
  return gone
end)
