-- purge: remove dead or parked entries for good.
--
-- KEYS  1 where they are (dead or parked) · 2 count · 3 audit
-- ARGV  1 'dead' or 'parked' · 2 who · 3 why · then entry ids
-- gives how many were there and are gone

register('purge', {'allow-oom'}, function(keys, args)
  local bad = wrong_type(keys[1], 'stream') or wrong_type(keys[2], 'hash') or wrong_type(keys[3], 'stream')
  if bad then return bad end
  local gone = 0
  for i = 4, #args do gone = gone + redis.call('XDEL', keys[1], args[i]) end
  if gone > 0 then
    if args[1] == 'dead' then redis.call('HINCRBY', keys[2], 'dead', -gone) end
    redis.call('HINCRBY', keys[2], 'purged', gone)
    redis.call('XADD', keys[3], '*', 'act', 'purge', 'from', args[1], 'who', args[2], 'why', args[3],
      'count', gone, 'first', args[4], 'last', args[#args])
  end
  return gone
end)
