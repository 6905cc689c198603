-- Remember the head of a ledger, unless a later holder of the relay's lease remembered one.
-- KEYS: head.  ARGV: fencing token, head.
if tonumber(redis.call('HGET', KEYS[1], 'token') or '0') > tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'head', ARGV[2])
return 1
