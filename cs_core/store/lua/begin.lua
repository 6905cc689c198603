-- Take an activation to run it. The lease is measured by the server's clock, so that clocks of processes do not matter.
-- KEYS: record.  ARGV: owner, lease (ms), start time (ms since the epoch, for people).
-- Answers {'run', attempt}, {'busy', ms left}, {'done', result bytes} or {'missing'}.
local record = redis.call('HMGET', KEYS[1], 'state', 'lease_until', 'result', 'owner')
local state = record[1]
if not state then
  return {'missing'}
end
if state ~= 'QUEUED' and state ~= 'RUNNING' then
  return {'done', record[3] or ''}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = tonumber(record[2]) - now
if state == 'RUNNING' and left > 0 and record[4] ~= ARGV[1] then
  return {'busy', left}
end
local attempt = redis.call('HINCRBY', KEYS[1], 'attempt', 1)
redis.call('HSET', KEYS[1], 'state', 'RUNNING', 'owner', ARGV[1], 'lease_until', now + tonumber(ARGV[2]),
  'start_ms', ARGV[3])
return {'run', attempt}
