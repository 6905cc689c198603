-- Announce a change of a schedule before it is made, so that it reaches the shard even if who makes it dies halfway.
-- KEYS: intents.  ARGV: intent.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
return 1
