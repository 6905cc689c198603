-- Remove a tenant that has no worker bindings from the index, unless a change of one was noted lately.
-- KEYS: index of tenants.  ARGV: tenant, how long ago counts as lately (ms).
local noted = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not noted then
  return 0
end
local time = redis.call('TIME')
if tonumber(noted) > time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[2]) then
  return 0
end
return redis.call('ZREM', KEYS[1], ARGV[1])
