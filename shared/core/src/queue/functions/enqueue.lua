-- enqueue: dedupe and append a batch to one partition.
--
-- KEYS  1 ingest stream · 2 count · 3 seen:meta · then per item its bucket in this epoch · then, unless there is no
--       epoch before, per item its bucket in that one
-- ARGV  1 epoch the caller believes in · 2 entries the stream may hold · 3 window in ms · 4 ids an epoch may hold ·
--       5 '1' when a duplicate has to write too (level replica) · 6 entry version · then three per item: digest
--       (12 bytes), fingerprint (7 bytes), envelope
-- gives {'OK', blob, text}: 17 bytes per item, 'N' new | 'D' known | 'E' error, then ms (6) seq (3) fingerprint (7) of
--       the first message; text is the first error's text or ''
--       {'EPOCH', epoch, buckets, epoch before, its buckets}: nothing was written, ask again with these
--       {'FULL', length}: nothing was written
--
-- A call of Redis from here costs more than what it does, so a message has two: its dedupe field is set if it is not
-- there, which also tells whether it is, and the entry is added. The field names the entry, so entries get the numbers
-- behind that of the first one, which Redis chose and which costs a call more. A field whose entry could not be added is
-- taken back: it would answer every retry with "duplicate" for a message that never existed.

local IDS_PER_BUCKET = 24
local FULL_BUCKET = 44
local FIRST_BUCKETS = 10240

local function epoch_reply(meta)
  return {'EPOCH', meta.epoch, meta.buckets, meta.before, meta.before_buckets}
end

-- Starts a new epoch when there is none, when its time is over or when it holds as many ids as it may.
local function turn_epoch(key, window, cap)
  local m = redis.call('HMGET', key, 'epoch', 'buckets', 'before', 'before_buckets', 'count', 'started', 'sweep')
  local meta = {epoch = m[1], buckets = m[2], before = m[3], before_buckets = m[4]}
  local now = now_ms()
  local count, started = tonumber(m[5] or 0), tonumber(m[6] or 0)
  if m[1] then
    local limit = math.min(cap, tonumber(m[2]) * FULL_BUCKET)
    if (now - started < window and count < limit) or m[7] then return meta end
  end
  local buckets = FIRST_BUCKETS
  if m[1] then
    local expected = math.min(cap, count * window / math.max(now - started, 1))
    buckets = math.max(64, math.ceil(expected / IDS_PER_BUCKET))
  end
  local epoch = math.floor(now / 1000)
  if m[1] then epoch = math.max(epoch, tonumber(m[1]) + 1) end
  local next_meta = {
    epoch = string.format('%.0f', epoch), buckets = string.format('%.0f', buckets),
    before = m[1] or '0', before_buckets = m[2] or '0',
  }
  redis.call('HSET', key, 'epoch', next_meta.epoch, 'buckets', next_meta.buckets, 'before', next_meta.before,
    'before_buckets', next_meta.before_buckets, 'count', 0, 'started', string.format('%.0f', now),
    'before_started', m[6] or string.format('%.0f', now))
  if m[3] and m[3] ~= '0' then redis.call('HSET', key, 'sweep', m[3], 'sweep_buckets', m[4]) end
  return next_meta
end

-- Adds the fresh messages of one call.
local function appender(stream, version)
  local ms, seq, ms_bytes
  local call = redis.pcall

  local function add(id, envelope) return call('XADD', stream, id, 'v', version, 'e', envelope) end

  local function first(bucket, digest, fingerprint, envelope)
    local seen = call('HGET', bucket, digest)
    if seen then return seen end
    local id = add('*', envelope)
    if type(id) == 'table' then return id end
    local first_ms, first_seq = split_id(id)
    ms, seq, ms_bytes = string.format('%.0f-', first_ms), first_seq, struct.pack('>I6', first_ms)
    local value = ms_bytes .. struct.pack('>I3', seq) .. fingerprint
    call('HSET', bucket, digest, value)
    return nil, value
  end

  -- gives what is known of the message, or an error; or nil and the dedupe value of its new entry
  return function(bucket, digest, fingerprint, envelope)
    if not ms then return first(bucket, digest, fingerprint, envelope) end
    local value = ms_bytes .. struct.pack('>I3', seq + 1) .. fingerprint
    local set = call('HSETNX', bucket, digest, value)
    if set == 0 then return call('HGET', bucket, digest) end
    if set ~= 1 then return set end
    local id = add(ms .. seq + 1, envelope)
    if type(id) == 'table' then
      call('HDEL', bucket, digest)
      return id
    end
    seq = seq + 1
    return nil, value
  end
end

register('enqueue', {}, function(keys, args)
  -- Each of the first three calls touches one of the keys: one that holds something else ends the call before anything
  -- is written.
  local length = redis.call('XLEN', keys[1])
  if length >= tonumber(args[2]) then return {'FULL', length} end
  local meta = turn_epoch(keys[3], tonumber(args[3]), tonumber(args[4]))
  if meta.epoch ~= args[1] then return epoch_reply(meta) end
  local version, two_epochs = args[6], meta.before ~= '0'
  local items = (#args - 6) / 3
  redis.call('HINCRBY', keys[2], 'accepted', items)

  local out, fresh, known, text = {}, 0, false, ''
  local append = appender(keys[1], version)
  local a = 7
  for i = 1, items do
    local digest, seen, value = args[a], false, nil
    if two_epochs then seen = redis.pcall('HGET', keys[3 + items + i], digest) end
    if not seen then seen, value = append(keys[3 + i], digest, args[a + 1], args[a + 2]) end
    if value then
      fresh = fresh + 1
      out[i] = 'N' .. value
    elseif type(seen) == 'table' then
      text = seen.err
      out[i] = 'E' .. string.rep('\0', 16)
    else
      known = true
      out[i] = 'D' .. seen
    end
    a = a + 3
  end
  if fresh < items then redis.call('HINCRBY', keys[2], 'accepted', fresh - items) end
  count_open(keys[2], keys[1], fresh)
  if fresh > 0 then
    redis.call('HINCRBY', keys[3], 'count', fresh)
  elseif known and args[5] == '1' then
    redis.call('HINCRBY', keys[3], 'count', 0)
  end
  return {'OK', table.concat(out), text}
end)
