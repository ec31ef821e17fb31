-- due: bring back the retries whose time has come.
--
-- KEYS  1 due · 2 due:body · 3 retry stream · 4 count
-- ARGV  1 how many at most
-- gives how many were moved; a member without a body is dropped and not counted
--
-- ZREM decides: of two callers at the same moment one moves an entry.

register('due', {'allow-oom'}, function(keys, args)
  local bad = wrong_type(keys[3], 'stream') or wrong_type(keys[4], 'hash')
  if bad then return bad end
  local moved = 0
  local ripe = redis.call('ZRANGEBYSCORE', keys[1], '-inf', string.format('%.0f', now_ms()), 'LIMIT', 0, tonumber(args[1]))
  for _, member in ipairs(ripe) do
    local body = redis.call('HGET', keys[2], member)
    if redis.call('ZREM', keys[1], member) == 1 and body then
      local v, a, o, c, r, e = string.match(body, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
      redis.call('XADD', keys[3], '*', 'v', v, 'a', a, 'o', o, 'c', c, 'r', r, 'e', e)
      redis.call('HDEL', keys[2], member)
      moved = moved + 1
    end
  end
  count_open(keys[4], keys[3], moved)
  return moved
end)
