-- What every function of this library shares. LIBRARY is set on the line above by the loader.
-- All functions touch the keys of one partition only: one hash tag, one slot.

local GROUP = 'workers'

local function register(name, flags, callback)
  redis.register_function{function_name = LIBRARY .. '_' .. name, flags = flags, callback = callback}
end

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- A flat reply {k1, v1, k2, v2 ...} as a table.
local function as_map(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end

local function split_id(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function id_less(a, b)
  local a_ms, a_seq = split_id(a)
  local b_ms, b_seq = split_id(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

-- The groups of a stream as maps; empty when the stream does not exist.
local function groups_of(stream)
  local found = redis.pcall('XINFO', 'GROUPS', stream)
  local groups = {}
  if found.err then return groups end
  for i, flat in ipairs(found) do groups[i] = as_map(flat) end
  return groups
end

-- Trims a stream below the oldest entry that is still pending or not yet delivered, in every group. Whole nodes first,
-- at most 100000 entries in one call. Never XDEL: it would make the group's lag unknown.
local function trim(stream)
  local floor = nil
  for _, group in ipairs(groups_of(stream)) do
    local at
    if group['pending'] > 0 then
      at = redis.call('XPENDING', stream, group['name'], '-', '+', 1)[1][1]
    else
      local ms, seq = split_id(group['last-delivered-id'])
      at = string.format('%.0f-%.0f', ms, seq + 1)
    end
    if not floor or id_less(at, floor) then floor = at end
  end
  if not floor then return end
  local gone = redis.call('XTRIM', stream, 'MINID', '~', floor, 'LIMIT', 100000)
  if gone < 100000 then redis.call('XTRIM', stream, 'MINID', floor) end
end

-- Counts the entries of a stream that nobody has finished: n more, or fewer. Redis counts what a group has read, but
-- does not write that to its log: after a restart its lag is unknown or wrong.
local function open_field(stream)
  return 'open_' .. string.match(stream, '%a+$')
end

local function count_open(count, stream, n)
  if n ~= 0 then redis.call('HINCRBY', count, open_field(stream), n) end
end

-- A worker may change the queue while its lease is there and not condemned. The deadline itself is only looked at by
-- who reaps: a lease that ran out but that nobody took still fences nobody.
local function fenced(alive, worker)
  local deadline = redis.call('ZSCORE', alive, worker)
  return not deadline or tonumber(deadline) < 0
end

-- Acks in slices: unpack has a limit.
local function ack(stream, ids, from, to)
  local acked = 0
  for i = from, to, 500 do
    acked = acked + redis.call('XACK', stream, GROUP, unpack(ids, i, math.min(i + 499, to)))
  end
  return acked
end

-- An error reply when a key holds something else than we are about to write, so that nothing is half done.
local function wrong_type(key, wanted)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. kind .. ' and not a ' .. wanted)
  end
end

-- The fields of one entry as a map, or nil when the entry is gone.
local function entry(stream, id)
  local found = redis.call('XRANGE', stream, id, id)
  if found[1] then return as_map(found[1][2]) end
end
