-- New ids for every request: wrk would send the same message again and again. The argument is the run, so that no two
-- runs send the same ids.

local threads = 0

function setup(thread)
  thread:set('number', threads)
  threads = threads + 1
end

function init(args)
  run = args[1] or '00000000'
  sent = 0
  headers = {['Content-Type'] = 'application/json'}
end

function request()
  sent = sent + 1
  local client = (sent * 16 + number) % 100000
  local body = string.format(
    '{"external_message_id":"%s%08x%016x","external_client_id":"fedcba0987654321abcdef12%08x",' ..
    '"client_phone":"+7919%07d","message_text":"Здравствуйте! Где мой заказ?","send_at":1760000000}',
    run, number, sent, client, client)
  return wrk.format('POST', nil, headers, body)
end
