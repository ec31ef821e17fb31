-- sweep: forget part of a dedupe epoch that nobody looks up any more.
--
-- KEYS  1 seen:meta · then the buckets to drop
-- ARGV  1 the epoch they belong to · 2 '1' when these are its last
-- gives 1, or 0 when that epoch is not the one to be swept

register('sweep', {'allow-oom'}, function(keys, args)
  if redis.call('HGET', keys[1], 'sweep') ~= args[1] then return 0 end
  for i = 2, #keys do redis.call('UNLINK', keys[i]) end
  if args[2] == '1' then redis.call('HDEL', keys[1], 'sweep', 'sweep_buckets') end
  return 1
end)
