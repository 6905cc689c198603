-- Move the relay's cursor of a tenant, and trim the mutation log behind it.
-- Only what was relayed is trimmed, and only what is older than the retention; the entry at the cursor stays.
-- KEYS: relay state of the tenant, its mutation log.
-- ARGV: fencing token, cursor, milliseconds since the epoch before which entries are no longer retained.
-- Answers the number of entries that were trimmed, or -1 when a later token was here.
if tonumber(redis.call('HGET', KEYS[1], 'token') or '0') > tonumber(ARGV[1]) then
  return -1
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'cursor', ARGV[2])
if tonumber(ARGV[3]) <= 0 then
  return 0
end
local lowest = ARGV[2]
if tonumber(string.match(lowest, '^%d+')) >= tonumber(ARGV[3]) then
  lowest = ARGV[3] .. '-0'
end
local last = redis.call('XREVRANGE', KEYS[2], '(' .. lowest, '-', 'COUNT', 1)
if #last == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'trimmed', last[1][1])
return redis.call('XTRIM', KEYS[2], 'MINID', lowest)
