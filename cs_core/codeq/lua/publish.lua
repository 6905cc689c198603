-- Store a message, ready or delayed, and ring the bell.
-- KEYS: bodies, ready (of its lane), delayed.  ARGV: id, body, delay (ms), bell channel, partition.
-- The first character of an id is the message's lane.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local delay = tonumber(ARGV[3])
if delay > 0 then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + delay, ARGV[1])
else
  redis.call('RPUSH', KEYS[2], ARGV[1])
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return 1
