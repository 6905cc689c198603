-- Change one value of a tenant, within its quotas. What has expired gives its room back first.
-- KEYS: value, keys, sizes, expiries, bytes in all.
-- ARGV: operation (set, incr, del), key, keys at most, bytes at most, value or step, time to live (ms; 0: none).
-- Returns {outcome, number}: 0 done, with the new counter or whether there was a value; 1 too many keys; 2 too many
-- bytes; 3 no counter.
local value, names, sizes, expiries, total = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local operation, key = ARGV[1], ARGV[2]
local keys_max, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget(gone)
  local size = redis.call('HGET', sizes, gone)
  if size then
    redis.call('HDEL', sizes, gone)
    redis.call('ZREM', names, gone)
    redis.call('ZREM', expiries, gone)
    if redis.call('DECRBY', total, size) <= 0 then
      redis.call('DEL', total)
    end
  end
end

local function reap()
  local gone = redis.call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, 100)
  for _, each in ipairs(gone) do
    forget(each)
  end
  return #gone
end

local expiry = redis.call('ZSCORE', expiries, key)
if expiry and tonumber(expiry) <= now then
  redis.call('DEL', value)
  forget(key)
end

if operation == 'del' then
  local removed = redis.call('DEL', value)
  forget(key)
  reap()
  return {0, removed}
end

local text, counter = ARGV[5], 0
if operation == 'incr' then
  local stored = redis.call('GET', value) or '0'
  if not string.match(stored, '^%-?%d+$') or #stored > 17 then
    return {3, 0}
  end
  counter = tonumber(stored) + tonumber(ARGV[5])
  if math.abs(counter) > 9007199254740991 then
    return {3, 0}
  end
  text = string.format('%.0f', counter)
end

local old = redis.call('HGET', sizes, key)
local before = tonumber(old or '0')
local size = #key + #text
local function refused()
  if not old and redis.call('ZCARD', names) >= keys_max then
    return 1
  end
  if size > before and tonumber(redis.call('GET', total) or '0') - before + size > bytes_max then
    return 2
  end
  return nil
end

-- A little at each change keeps up with what expires; more of it only when there is no room otherwise.
reap()
local why = refused()
local rounds = 0
while why and rounds < 100 and reap() > 0 do
  rounds = rounds + 1
  why = refused()
end
if why then
  return {why, 0}
end

if operation == 'incr' then
  redis.call('INCRBY', value, ARGV[5])
elseif ARGV[6] == '0' then
  redis.call('SET', value, text)
  redis.call('ZREM', expiries, key)
else
  redis.call('SET', value, text, 'PX', ARGV[6])
  redis.call('ZADD', expiries, now + tonumber(ARGV[6]), key)
end
if not old then
  redis.call('ZADD', names, 0, key)
end
redis.call('HSET', sizes, key, size)
redis.call('INCRBY', total, size - before)
return {0, counter}
