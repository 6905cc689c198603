-- Let a failed activation wait for its next run, for its owner only; keep the failed run and its log lines. The wait is
-- measured by the server's clock.
-- KEYS: record, logs.  ARGV: owner, wait (ms), failed run (a serialized history of one), life of the logs (s), lines of this run
-- stored before, log lines...
-- Answers {1} when it waits, {0, result bytes} when terminal before, {-1} when not the owner's, {-2} when missing, {-3}
-- when it was asked to stop.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner', 'result', 'cancel', 'history', 'run_lines')
local state = record[1]
if not state then
  return {-2}
end
if state ~= 'QUEUED' and state ~= 'RUNNING' then
  return {0, record[3] or ''}
end
if state ~= 'RUNNING' or record[2] ~= ARGV[1] then
  return {-1}
end
if record[4] then
  return {-3}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Serialized messages joined end to end are one message with the lists joined.
redis.call('HSET', KEYS[1], 'state', 'QUEUED', 'owner', '', 'lease_until', 0, 'crashes', 0,
  'next_ms', now + tonumber(ARGV[2]), 'history', (record[5] or '') .. ARGV[3])
redis.call('HINCRBY', KEYS[1], 'retries', 1)
local stored = math.max(tonumber(record[6] or '0') - tonumber(ARGV[5]), 0)
for first = 6 + stored, #ARGV, 1000 do
  redis.call('RPUSH', KEYS[2], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('EXPIRE', KEYS[2], ARGV[4])
return {1}
