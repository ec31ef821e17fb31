-- beat: take or renew the leases of one worker process in one partition.
--
-- KEYS  1 alive
-- ARGV  1 lease in ms · 2 'join' or 'renew' · then the consumer names
-- gives 'OK' | 'FENCED' when one of the names has lost its lease (renew) or is taken (join): nothing was written
--
-- Who renews a lease that has run out was away, or Redis was, or its clock leapt ahead: then nobody is dead because of
-- that, and every other lease that has run out gets a new term. A clock that was set back would keep the leases of the
-- dead for as long: none lasts longer than ten minutes.

local LONGEST = 10 * 60 * 1000

local function renew_all(alive, from, to, deadline)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', alive, from, to)) do redis.call('ZADD', alive, deadline, name) end
end

register('beat', {'allow-oom'}, function(keys, args)
  local join, now, late = args[2] == 'join', now_ms(), false
  for i = 3, #args do
    local held = redis.call('ZSCORE', keys[1], args[i])
    if join and held then return 'FENCED' end
    if not join and (not held or tonumber(held) < 0) then return 'FENCED' end
    late = late or (not join and tonumber(held) < now)
  end
  local deadline = string.format('%.0f', now + tonumber(args[1]))
  if late then renew_all(keys[1], 0, string.format('%.0f', now), deadline) end
  renew_all(keys[1], string.format('(%.0f', now + LONGEST), '+inf', string.format('%.0f', now + LONGEST))
  for i = 3, #args do redis.call('ZADD', keys[1], deadline, args[i]) end
  return 'OK'
end)
