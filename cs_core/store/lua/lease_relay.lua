-- Take or renew the lease of the relay. A token is never given out twice: it goes up with each new holder.
-- KEYS: lease.  ARGV: holder, lease (ms).
-- Answers the holder's token, or 0 when another holds it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'holder', 'until', 'token')
local token = tonumber(held[3] or '0')
if held[1] ~= ARGV[1] or tonumber(held[2] or '0') <= now then
  if held[1] and tonumber(held[2] or '0') > now then
    return 0
  end
  token = token + 1
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', now + tonumber(ARGV[2]), 'token', token)
return token
