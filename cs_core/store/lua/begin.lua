-- Take an activation to run it. The lease is measured by the server's clock, so that clocks of processes do not matter.
-- A run whose owner let its lease end is a crash; one that was handed back or that waits for a retry is not. An owner
-- that asks again did not hear the first answer: it gets the same one, for that is no other run.
-- KEYS: record.  ARGV: owner, lease (ms), start time (ms since the epoch, for people).
-- Answers {'run', attempt, crashes since the last retry, retries, cancel message or ''}, {'busy', ms left},
-- {'done', result bytes} or {'missing'}.
local record = redis.call('HMGET', KEYS[1], 'state', 'lease_until', 'result', 'owner', 'next_ms', 'retries', 'cancel',
  'attempt', 'crashes')
local state = record[1]
if not state then
  return {'missing'}
end
if state ~= 'QUEUED' and state ~= 'RUNNING' then
  return {'done', record[3] or ''}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ours = state == 'RUNNING' and record[4] == ARGV[1]
local left = tonumber(record[2]) - now
if state == 'RUNNING' and left > 0 and not ours then
  return {'busy', left}
end
local wait = tonumber(record[5] or '0') - now
if state == 'QUEUED' and wait > 0 then
  return {'busy', wait}
end
local attempt, crashes = tonumber(record[8] or '0'), tonumber(record[9] or '0')
if not ours then
  attempt = attempt + 1
  crashes = crashes + (state == 'RUNNING' and 1 or 0)
end
redis.call('HSET', KEYS[1], 'state', 'RUNNING', 'owner', ARGV[1], 'lease_until', now + tonumber(ARGV[2]),
  'attempt', attempt, 'crashes', crashes, 'start_ms', ARGV[3], 'run_lines', 0)
return {'run', attempt, crashes, tonumber(record[6] or '0'), record[7] or ''}
