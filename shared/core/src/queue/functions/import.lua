-- import: add dead letters that were exported, here or elsewhere.
--
-- KEYS  1 dead · 2 count · 3 audit
-- ARGV  1 who · 2 why · then per letter: number of values, and as many values: field, value, …
-- gives how many were added

register('import', {}, function(keys, args)
  local bad = wrong_type(keys[1], 'stream') or wrong_type(keys[2], 'hash') or wrong_type(keys[3], 'stream')
  if bad then return bad end
  local added, a = 0, 3
  while a <= #args do
    local n = tonumber(args[a])
    redis.call('XADD', keys[1], '*', unpack(args, a + 1, a + n))
    added, a = added + 1, a + 1 + n
  end
  redis.call('HINCRBY', keys[2], 'imported', added)
  redis.call('HINCRBY', keys[2], 'dead', added)
  redis.call('XADD', keys[3], '*', 'act', 'import', 'who', args[1], 'why', args[2], 'count', added)
  return added
end)
