-- Take a tenant out of the index if it still stands there at a generation.
-- KEYS: index.  ARGV: tenant, generation.
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '-1') == tonumber(ARGV[2]) then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
