-- balance: where every accepted message of a partition is, at one instant.
--
-- KEYS  1 count · 2 ingest · 3 retry · 4 suspect · 5 parked · 6 dead · 7 due · 8 seen:meta · 9 alive
-- ARGV  none
-- gives a flat list of name, number, … (names as in Rust's `Balance`)

local function is_read_to_the_end(stream, group)
  return as_map(redis.call('XINFO', 'STREAM', stream))['last-generated-id'] == group['last-delivered-id']
end

local function put(out, name, value)
  out[#out + 1] = name
  out[#out + 1] = value
end

-- What is open and not pending was not delivered, unless the group has read to the end: then it is gone, and the drift
-- shows it.
local function put_stream(out, name, stream, open)
  local length = redis.call('XLEN', stream)
  local undelivered, pending = length, 0
  for _, group in ipairs(groups_of(stream)) do
    if group['name'] == GROUP then
      pending = group['pending']
      undelivered = is_read_to_the_end(stream, group) and 0 or math.max(0, open - pending)
    end
  end
  put(out, name .. '_undelivered', undelivered)
  put(out, name .. '_pending', pending)
  put(out, name .. '_length', length)
end

-- The time of the oldest entry that is not settled, in ms; 0 when there is none.
local function oldest(stream)
  local at = nil
  for _, group in ipairs(groups_of(stream)) do
    if group['name'] == GROUP then
      if group['pending'] > 0 then
        at = redis.call('XPENDING', stream, GROUP, '-', '+', 1)[1][1]
      elseif not is_read_to_the_end(stream, group) then
        local next_one = redis.call('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
        at = next_one and next_one[1]
      end
      return at and split_id(at) or 0
    end
  end
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return first and split_id(first[1]) or 0
end

register('balance', {'no-writes'}, function(keys)
  local out = {}
  local counts = as_map(redis.call('HGETALL', keys[1]))
  for _, name in ipairs({'accepted', 'imported', 'stored', 'duplicate', 'dead', 'dead_total', 'retried', 'purged', 'lost'}) do
    put(out, name, tonumber(counts[name] or 0))
  end
  put_stream(out, 'ingest', keys[2], tonumber(counts[open_field(keys[2])] or 0))
  put_stream(out, 'retry', keys[3], tonumber(counts[open_field(keys[3])] or 0))
  put_stream(out, 'suspect', keys[4], tonumber(counts[open_field(keys[4])] or 0))
  put(out, 'parked', redis.call('XLEN', keys[5]))
  put(out, 'dead_length', redis.call('XLEN', keys[6]))
  put(out, 'due', redis.call('ZCARD', keys[7]))
  put(out, 'oldest_ms', oldest(keys[2]))
  put(out, 'now_ms', now_ms())
  local seen = as_map(redis.call('HGETALL', keys[8]))
  put(out, 'seen_count', tonumber(seen['count'] or 0))
  put(out, 'seen_since_ms', tonumber(seen['before_started'] or seen['started'] or 0))
  put(out, 'seen_buckets', tonumber(seen['buckets'] or 0) + tonumber(seen['before_buckets'] or 0))
  put(out, 'sweep_epoch', tonumber(seen['sweep'] or 0))
  put(out, 'sweep_buckets', tonumber(seen['sweep_buckets'] or 0))
  put(out, 'workers', redis.call('ZCARD', keys[9]))
  return out
end)
