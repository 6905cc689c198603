-- Note that a tenant's worker bindings change about now. Noted before the change is made, so that no change goes unseen.
-- KEYS: index of tenants.  ARGV: tenant.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
return 1
