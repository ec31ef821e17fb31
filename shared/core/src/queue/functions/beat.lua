-- beat: take or renew the leases of one worker process in one partition.
--
-- KEYS  1 alive
-- ARGV  1 lease in ms · 2 'join' or 'renew' · then the consumer names
-- gives 'OK' | 'FENCED' when one of the names has lost its lease (renew) or is taken (join): nothing was written

register('beat', {'allow-oom'}, function(keys, args)
  local join = args[2] == 'join'
  for i = 3, #args do
    local held = redis.call('ZSCORE', keys[1], args[i])
    if join and held then return 'FENCED' end
    if not join and (not held or tonumber(held) < 0) then return 'FENCED' end
  end
  local deadline = string.format('%.0f', now_ms() + tonumber(args[1]))
  for i = 3, #args do redis.call('ZADD', keys[1], deadline, args[i]) end
  return 'OK'
end)
