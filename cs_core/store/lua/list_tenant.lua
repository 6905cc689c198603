-- Put a tenant into the index of those whose mutations may wait for the relay, at a generation; never at an older one.
-- KEYS: index.  ARGV: tenant, generation.
local present = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not present or tonumber(present) < tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
end
return 1
