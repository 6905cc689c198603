-- Give an activation its terminal state, once. An owner finishes what it runs; without an owner only what has not started
-- can be finished (deadline, cancel).
-- KEYS: record, logs, the tenant's open activations, the partition's ends.  ARGV: owner, state, result bytes, end time
-- (ms), life (s), activation id, its name among the ends, lines of this run stored before, log lines...
-- Answers {1} when accepted, {0, result bytes} when terminal before, {-1} when not the owner's, {-2} when missing.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner', 'result', 'run_lines')
local state = record[1]
if not state then
  return {-2}
end
if state ~= 'QUEUED' and state ~= 'RUNNING' then
  return {0, record[3] or ''}
end
if (ARGV[1] == '' and state ~= 'QUEUED') or (ARGV[1] ~= '' and (state ~= 'RUNNING' or record[2] ~= ARGV[1])) then
  return {-1}
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'result', ARGV[3], 'end_ms', ARGV[4], 'owner', '', 'lease_until', 0)
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('ZREM', KEYS[3], ARGV[6])
redis.call('ZREM', KEYS[4], ARGV[7])
-- Lines go in by portions: a Lua call takes a bounded number of arguments.
local stored = math.max(tonumber(record[4] or '0') - tonumber(ARGV[8]), 0)
for first = 9 + stored, #ARGV, 1000 do
  redis.call('RPUSH', KEYS[2], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
return {1}
