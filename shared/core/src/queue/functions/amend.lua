-- amend: replace the envelope of a dead letter; the one that came stays with it in field `original`.
--
-- KEYS  1 dead · 2 audit
-- ARGV  1 entry id · 2 who · 3 why · 4 new envelope
-- gives the letter's new id, or '' when it was not there any more

register('amend', {}, function(keys, args)
  local bad = wrong_type(keys[1], 'stream') or wrong_type(keys[2], 'stream')
  if bad then return bad end
  local fields = entry(keys[1], args[1])
  if not fields then return '' end
  local copy = {'original', fields['original'] or fields['e'] or '', 'e', args[4], 'edited', args[2]}
  for name, value in pairs(fields) do
    if name ~= 'original' and name ~= 'e' and name ~= 'edited' then
      copy[#copy + 1] = name
      copy[#copy + 1] = value
    end
  end
  local id = redis.call('XADD', keys[1], '*', unpack(copy))
  redis.call('XDEL', keys[1], args[1])
  redis.call('XADD', keys[2], '*', 'act', 'edit', 'who', args[2], 'why', args[3], 'first', args[1], 'last', id)
  return id
end)
