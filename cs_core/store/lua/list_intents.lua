-- The oldest intents that are older than a time, each with its age (ms) by the server's clock.
-- KEYS: intents.  ARGV: least age (ms), most intents.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]), 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for position = 2, #found, 2 do
  found[position] = now - tonumber(found[position])
end
return found
