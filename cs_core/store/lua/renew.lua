-- Make a lease longer, for its owner only. KEYS: record.  ARGV: owner, lease (ms).
-- Answers {1, cancel message or ''} when it is still the owner's, {0, ''} otherwise.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner', 'cancel')
if record[1] ~= 'RUNNING' or record[2] ~= ARGV[1] then
  return {0, ''}
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'lease_until', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]))
return {1, record[3] or ''}
