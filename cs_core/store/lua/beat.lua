-- Say that a member lives for a while longer (0: it leaves), and answer who lives, by the server's clock.
-- KEYS: members.  ARGV: instance, life (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if tonumber(ARGV[2]) > 0 then
  -- Nobody announces so far ahead: it was said before the server's clock went back.
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. (now + 2 * tonumber(ARGV[2])), '+inf')
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return redis.call('ZRANGE', KEYS[1], 0, -1)
