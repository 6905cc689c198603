-- Note that the tenant stands in the index at a generation, unless that generation was used up meanwhile.
-- KEYS: relay state of the tenant.  ARGV: generation.
local state = redis.call('HMGET', KEYS[1], 'generation', 'listed')
if state[2] or tonumber(state[1] or '0') ~= ARGV[1] - 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'listed', ARGV[1])
return 1
