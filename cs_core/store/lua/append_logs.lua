-- Append log lines of a running activation, for its owner only. What of them an earlier try stored is not stored again.
-- KEYS: record, logs.  ARGV: owner, life (s), lines of this run before these, log lines...
local record = redis.call('HMGET', KEYS[1], 'state', 'owner', 'run_lines')
if record[1] ~= 'RUNNING' or record[2] ~= ARGV[1] then
  return 0
end
local stored = math.max(tonumber(record[3] or '0') - tonumber(ARGV[3]), 0)
for first = 4 + stored, #ARGV, 1000 do
  redis.call('RPUSH', KEYS[2], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('HSET', KEYS[1], 'run_lines', tonumber(ARGV[3]) + #ARGV - 3)
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
