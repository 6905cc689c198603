-- Move a leased message to the dead letters of its topic, and let those go that are past their life.
-- KEYS: bodies, leases, receipts, deliveries, dead bodies, dead order, dead redrives.
-- ARGV: id, receipt, envelope, life (ms).
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[6], id)
  redis.call('HDEL', KEYS[5], id)
  redis.call('HDEL', KEYS[7], id)
end
redis.call('HSET', KEYS[5], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[6], now, ARGV[1])
for position = 5, 7 do
  redis.call('PEXPIRE', KEYS[position], ARGV[4])
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
return 1
