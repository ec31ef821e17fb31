-- reap: take over what a dead worker left, in bounded steps.
--
-- KEYS  1 alive · 2 count · 3 ingest · 4 retry · 5 suspect
-- ARGV  1 the caller's consumer · 2 entries at most in this call · 3 '1' when every lease that ran out means a death,
--       else only consumers that were declared dead count
-- gives {'NONE'} when nobody is dead
--       {'OK', consumer, moved, 1 when it is finished and gone, else 0}
--       {'FENCED'}
--
-- Everything goes to `suspect`, where entries are read one at a time: only a death there counts as the entry's own
-- crash (field c). The consumer is deleted only when nothing of it is pending: deleting it earlier would lose entries.
-- A consumer without any lease (its lease was wiped) is condemned first, like one whose lease ran out.

local function condemn_strangers(alive, streams)
  for _, stream in ipairs(streams) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
    if not consumers.err then
      for _, flat in ipairs(consumers) do
        local name = as_map(flat)['name']
        if not redis.call('ZSCORE', alive, name) then redis.call('ZADD', alive, -1, name) end
      end
    end
  end
end

-- A caller whose own lease has run out cannot tell who is dead: the clock leapt, or it was away itself.
local function find_dead(alive, caller, all_late)
  local on_time = tonumber(redis.call('ZSCORE', alive, caller)) >= now_ms()
  local before = all_late and on_time and string.format('(%.0f', now_ms()) or '(0'
  local late = redis.call('ZRANGEBYSCORE', alive, '-inf', before, 'LIMIT', 0, 2)
  for _, name in ipairs(late) do
    if name ~= caller then return name end
  end
end

local function pending_of(stream, name, limit)
  local found = redis.pcall('XPENDING', stream, GROUP, '-', '+', limit, name)
  if found.err then return {} end
  return found
end

-- Moves one entry to suspect; a death in suspect itself raises the crash count.
local function to_suspect(keys, stream, id)
  local fields = entry(stream, id)
  if not fields then
    redis.call('HINCRBY', keys[2], 'lost', 1)
  else
    local crashes = tonumber(fields['c'] or 0) or 0
    if stream == keys[5] then crashes = crashes + 1 end
    local copy = {'a', fields['a'] or '', 'o', fields['o'] or id, 'c', crashes}
    for name, value in pairs(fields) do
      if name ~= 'a' and name ~= 'o' and name ~= 'c' then
        copy[#copy + 1] = name
        copy[#copy + 1] = value
      end
    end
    redis.call('XADD', keys[5], '*', unpack(copy))
    count_open(keys[2], keys[5], 1)
  end
  redis.call('XACK', stream, GROUP, id)
  count_open(keys[2], stream, -1)
end

register('reap', {'allow-oom'}, function(keys, args)
  local bad = wrong_type(keys[1], 'zset') or wrong_type(keys[2], 'hash') or wrong_type(keys[5], 'stream')
  if bad then return bad end
  if fenced(keys[1], args[1]) then return {'FENCED'} end
  local streams = {keys[5], keys[3], keys[4]}
  condemn_strangers(keys[1], streams)
  local victim = find_dead(keys[1], args[1], args[3] == '1')
  if not victim then return {'NONE'} end
  redis.call('ZADD', keys[1], -1, victim)

  local left = tonumber(args[2])
  for _, stream in ipairs(streams) do
    if left > 0 then
      local found = pending_of(stream, victim, left)
      for _, pending in ipairs(found) do to_suspect(keys, stream, pending[1]) end
      if #found > 0 then trim(stream) end
      left = left - #found
    end
  end
  local moved = tonumber(args[2]) - left
  for _, stream in ipairs(streams) do
    if #pending_of(stream, victim, 1) > 0 then return {'OK', victim, moved, 0} end
  end
  for _, stream in ipairs(streams) do redis.pcall('XGROUP', 'DELCONSUMER', stream, GROUP, victim) end
  redis.call('ZREM', keys[1], victim)
  return {'OK', victim, moved, 1}
end)
