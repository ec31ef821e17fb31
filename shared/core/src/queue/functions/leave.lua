-- leave: a worker that stops in good order hands back what it did not finish.
--
-- KEYS  1 alive · 2 ingest · 3 retry · 4 suspect · 5 count
-- ARGV  1 consumer · 2 entries at most in this call
-- gives {'OK', handed back, 1 when it is finished and gone, else 0} | {'FENCED'}
--
-- Entries of ingest and retry go to retry without an attempt counted; an entry of suspect goes to the end of suspect.

local function hand_back(stream, target, id, count)
  local fields = entry(stream, id)
  if not fields then
    redis.call('HINCRBY', count, 'lost', 1)
  else
    local copy = {'a', fields['a'] or '', 'o', fields['o'] or id, 'c', fields['c'] or '0'}
    for name, value in pairs(fields) do
      if name ~= 'a' and name ~= 'o' and name ~= 'c' then
        copy[#copy + 1] = name
        copy[#copy + 1] = value
      end
    end
    redis.call('XADD', target, '*', unpack(copy))
    count_open(count, target, 1)
  end
  redis.call('XACK', stream, GROUP, id)
  count_open(count, stream, -1)
end

register('leave', {'allow-oom'}, function(keys, args)
  local bad = wrong_type(keys[3], 'stream') or wrong_type(keys[4], 'stream') or wrong_type(keys[5], 'hash')
  if bad then return bad end
  if fenced(keys[1], args[1]) then return {'FENCED'} end
  local target = {[keys[2]] = keys[3], [keys[3]] = keys[3], [keys[4]] = keys[4]}
  local left, moved = tonumber(args[2]), 0
  for i = 2, 4 do
    local found = redis.pcall('XPENDING', keys[i], GROUP, '-', '+', math.max(left, 1), args[1])
    if not found.err then
      for _, pending in ipairs(found) do
        if left > 0 then
          hand_back(keys[i], target[keys[i]], pending[1], keys[5])
          left, moved = left - 1, moved + 1
        end
      end
      if #found > 0 then trim(keys[i]) end
    end
  end
  if left == 0 then return {'OK', moved, 0} end
  for i = 2, 4 do redis.pcall('XGROUP', 'DELCONSUMER', keys[i], GROUP, args[1]) end
  redis.call('ZREM', keys[1], args[1])
  return {'OK', moved, 1}
end)
