-- Take messages of one partition under a lease: first what was delivered before and lost its lease, then the lanes by
-- weight; what was delayed and is due joins its lane before.
-- KEYS: bodies, ready of lane 1, ready of lane 2, leases, delayed, receipts, deliveries.
-- ARGV: limit, lease (ms), receipt, whether lane 2 goes first this time (0 or 1).
-- Answers a flat list: id, deliveries, body, ...
local limit = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken = {}

local function take(id)
  local body = redis.call('HGET', KEYS[1], id)
  if not body then
    redis.call('ZREM', KEYS[4], id)
    return
  end
  redis.call('ZADD', KEYS[4], now + tonumber(ARGV[2]), id)
  redis.call('HSET', KEYS[6], id, ARGV[3])
  taken[#taken + 1] = id
  taken[#taken + 1] = redis.call('HINCRBY', KEYS[7], id, 1)
  taken[#taken + 1] = body
end

local function draw(lane, count)
  if count > 0 then
    for _, id in ipairs(redis.call('LRANGE', lane, 0, count - 1)) do
      take(id)
    end
    redis.call('LTRIM', lane, count, -1)
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, limit)) do
  take(id)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('RPUSH', string.sub(id, 1, 1) == '2' and KEYS[3] or KEYS[2], id)
  redis.call('ZREM', KEYS[5], id)
end
local left = limit - #taken / 3
if left > 0 then
  local sizes = {redis.call('LLEN', KEYS[2]), redis.call('LLEN', KEYS[3])}
  -- Of a batch, lane 2 gets a fifth at least; a batch of one alternates, by the caller's count. What one lane does not
  -- use goes to the other.
  local share = left == 1 and tonumber(ARGV[4]) or math.max(1, math.floor(left / 5))
  local from_second = math.min(sizes[2], math.max(share, left - sizes[1]))
  local from_first = math.min(sizes[1], left - from_second)
  draw(KEYS[2], from_first)
  draw(KEYS[3], from_second)
end
return taken
