-- Hold a lease for longer, for the holder of this fence only; one that ended and that nobody took is still the holder's.
-- KEYS: lease.  ARGV: owner, fence, length (ms).
local lease = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'until', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3]))
return 1
