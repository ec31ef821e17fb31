-- condemn: a supervisor that saw a worker's process end says so.
--
-- KEYS  1 alive
-- ARGV  1 name of the worker: its consumers are called so, or begin with it and a dot
-- gives how many consumers had a lease

register('condemn', {'allow-oom'}, function(keys, args)
  local name, found = args[1], 0
  for _, consumer in ipairs(redis.call('ZRANGE', keys[1], 0, -1)) do
    if consumer == name or string.sub(consumer, 1, #name + 1) == name .. '.' then
      redis.call('ZADD', keys[1], -1, consumer)
      found = found + 1
    end
  end
  return found
end)
