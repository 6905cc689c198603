-- Give a message back, at once (in front of its lane: it was there before the others) or after a delay.
-- KEYS: ready (of its lane), leases, delayed, receipts.  ARGV: id, receipt, delay (ms), bell channel, partition.
if redis.call('HGET', KEYS[4], ARGV[1]) ~= ARGV[2] then
  return 0
end
local delay = tonumber(ARGV[3])
if delay > 0 then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + delay, ARGV[1])
else
  redis.call('LPUSH', KEYS[1], ARGV[1])
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
if delay <= 0 then
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return 1
