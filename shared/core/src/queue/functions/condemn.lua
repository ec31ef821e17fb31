-- condemn: a supervisor that saw a worker's process end says so.
--
-- KEYS  1 alive
-- ARGV  1 consumer
-- gives 1 when it had a lease, else 0

register('condemn', {'allow-oom'}, function(keys, args)
  if not redis.call('ZSCORE', keys[1], args[1]) then return 0 end
  redis.call('ZADD', keys[1], -1, args[1])
  return 1
end)
