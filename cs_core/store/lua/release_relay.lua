-- Let the lease of the relay end now, if it is still held under this token.
-- KEYS: lease.  ARGV: token.
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'until', 0)
  return 1
end
return 0
