-- Put a value into the books of its tenant's quotas, unless it is there; take a name out that has no value and no entry.
-- KEYS: value, keys, sizes, expiries, bytes in all.  ARGV: key, 1 to change or 0 to look.  Answers whether it was, or is
-- to be, changed.
local present = redis.call('EXISTS', KEYS[1]) == 1
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 or not (present or redis.call('ZSCORE', KEYS[2], ARGV[1])) then
  return 0
end
if ARGV[2] == '1' then
  if present then
    local size = #ARGV[1] + redis.call('STRLEN', KEYS[1])
    local life = redis.call('PTTL', KEYS[1])
    if life > 0 then
      local time = redis.call('TIME')
      redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000) + life, ARGV[1])
    end
    redis.call('ZADD', KEYS[2], 0, ARGV[1])
    redis.call('HSET', KEYS[3], ARGV[1], size)
    redis.call('INCRBY', KEYS[5], size)
  else
    redis.call('ZREM', KEYS[2], ARGV[1])
  end
end
return 1
