-- replay: send dead or parked entries to the retry stream again.
--
-- KEYS  1 where they are (dead or parked) · 2 retry · 3 count · 4 audit
-- ARGV  1 'dead' or 'parked' · 2 replay id · 3 who · 4 why · then entry ids
-- gives for each id its new id in retry, or '' when it was not there any more
--
-- An entry moves only while it is there, so two replays at once, or one that is started again, move each entry once.
-- It keeps its envelope and its origin; attempts and crashes start again.

register('replay', {'allow-oom'}, function(keys, args)
  local bad = wrong_type(keys[1], 'stream') or wrong_type(keys[2], 'stream') or wrong_type(keys[3], 'hash')
    or wrong_type(keys[4], 'stream')
  if bad then return bad end
  local out, moved = {}, 0
  for i = 5, #args do
    local fields = entry(keys[1], args[i])
    out[#out + 1] = ''
    if fields then
      out[#out] = redis.call('XADD', keys[2], '*', 'v', fields['v'] or '', 'a', '', 'o', fields['o'] or args[i],
        'c', '0', 'r', args[2], 'e', fields['e'] or '')
      redis.call('XDEL', keys[1], args[i])
      moved = moved + 1
    end
  end
  if moved > 0 then
    count_open(keys[3], keys[2], moved)
    if args[1] == 'dead' then redis.call('HINCRBY', keys[3], 'dead', -moved) end
    redis.call('XADD', keys[4], '*', 'act', 'replay', 'from', args[1], 'replay', args[2], 'who', args[3],
      'why', args[4], 'count', moved, 'first', args[5], 'last', args[#args])
  end
  return out
end)
