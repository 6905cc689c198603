-- Tell which tenants' worker bindings changed lately, by the server's clock.
-- KEYS: index of tenants.  ARGV: how long ago at most (ms).
local time = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1]), '+inf')
