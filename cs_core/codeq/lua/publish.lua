-- Store a message, ready or delayed, and ring the bell; one whose id the topic still holds is there already.
-- KEYS: bodies, ready (of its lane), delayed.  ARGV: id, body, delay (ms), bell channel, partition.
-- The first character of an id is the message's lane.
local in_other_lane = (string.sub(ARGV[1], 1, 1) == '1' and '2' or '1') .. string.sub(ARGV[1], 2)
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 or redis.call('HEXISTS', KEYS[1], in_other_lane) == 1 then
  return 0
end
-- The body last: what has a body is in a list, so that a repeat may stop above.
local delay = tonumber(ARGV[3])
if delay > 0 then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + delay, ARGV[1])
else
  redis.call('RPUSH', KEYS[2], ARGV[1])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if delay <= 0 then
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return 1
