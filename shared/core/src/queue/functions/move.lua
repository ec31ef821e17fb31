-- move: take entries out of a stream and put each where it belongs, in one step.
--
-- KEYS  1 the stream · 2 count · 3 alive · 4 due · 5 due:body · 6 suspect · 7 parked · 8 dead · 9 tally
-- ARGV  1 consumer · 2 one letter that names the stream in due ids · then per entry: id, target ('due', 'suspect',
--       'parked' or 'dead'), delay in ms (due only, else 0), number of values, and as many values: field, value, …
--       (due: the values v, a, o, c, r, e in this order, without field names)
-- gives {'OK', moved}: entries that were no longer pending are left alone and not counted
--       {'FENCED'}: the caller has lost its lease; nothing was changed
--
-- XACK first and the add after it: XACK tells whether the entry is still ours, and the add cannot fail once the types
-- have been checked (allow-oom).

local function add_due(keys, letter, id, delay, values)
  local member = letter .. id
  redis.call('ZADD', keys[4], string.format('%.0f', now_ms() + delay), member)
  -- One line each but the envelope, which may hold any bytes.
  for i = 1, 5 do values[i] = string.gsub(values[i], '\n', ' ') end
  redis.call('HSET', keys[5], member, table.concat(values, '\n'))
end

-- An event of a source that sends more than messages (version 2) has failed.
local function tally_dead(key, values, from, to)
  for i = from, to, 2 do
    if values[i] == 'v' then
      if values[i + 1] ~= '2' then return end
      redis.call('HINCRBY', key, 'changes', 1)
      redis.call('HINCRBY', key, string.format('dead %.0f', math.floor(now_ms() / 60000)), 1)
      return
    end
  end
end

register('move', {'allow-oom'}, function(keys, args)
  local bad = wrong_type(keys[2], 'hash') or wrong_type(keys[4], 'zset') or wrong_type(keys[5], 'hash')
    or wrong_type(keys[6], 'stream') or wrong_type(keys[7], 'stream') or wrong_type(keys[8], 'stream')
    or wrong_type(keys[9], 'hash')
  if bad then return bad end
  if fenced(keys[3], args[1]) then return {'FENCED'} end
  local target_key = {suspect = keys[6], parked = keys[7], dead = keys[8]}
  local moved, dead, retried, a = 0, 0, 0, 3
  while a <= #args do
    local id, target, delay, n = args[a], args[a + 1], tonumber(args[a + 2]), tonumber(args[a + 3])
    if redis.call('XACK', keys[1], GROUP, id) == 1 then
      moved = moved + 1
      if target == 'due' then
        add_due(keys, args[2], id, delay, {unpack(args, a + 4, a + 3 + n)})
        retried = retried + 1
      else
        redis.call('XADD', target_key[target], '*', unpack(args, a + 4, a + 3 + n))
        if target == 'dead' then
          dead = dead + 1
          tally_dead(keys[9], args, a + 4, a + 3 + n)
        end
      end
    end
    a = a + 4 + n
  end
  if dead > 0 then
    redis.call('HINCRBY', keys[2], 'dead', dead)
    redis.call('HINCRBY', keys[2], 'dead_total', dead)
  end
  if retried > 0 then redis.call('HINCRBY', keys[2], 'retried', retried) end
  count_open(keys[2], keys[1], -moved)
  trim(keys[1])
  return {'OK', moved}
end)
