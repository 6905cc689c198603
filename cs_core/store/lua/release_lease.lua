-- Hand a lease back, for the holder of this fence only. The fence stays: the next holder's is larger.
-- KEYS: lease.  ARGV: owner, fence.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[1], 'owner', 'until')
return 1
