-- Take a lease that is free: never taken, handed back, ended, or one's own. Every change of hands makes the fence larger.
-- A lease that seems to end later than any lease can was given before the server's clock went back; it counts as ended.
-- KEYS: lease.  ARGV: owner, length (ms).  Answers {1, fence} when taken, {0, ms left} when another holds it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('HMGET', KEYS[1], 'owner', 'until', 'fence')
local left = tonumber(lease[2] or '0') - now
local live = left > 0 and left <= 2 * tonumber(ARGV[2])
if lease[1] and lease[1] ~= ARGV[1] and live then
  return {0, left}
end
local fence = tonumber(lease[3] or '0')
if lease[1] ~= ARGV[1] or not live then
  fence = fence + 1
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', now + tonumber(ARGV[2]), 'fence', fence)
return {1, fence}
