-- Cancel an activation: a queued one ends, a running one is marked for its owner.
-- KEYS: record, the tenant's open activations, the partition's ends.  ARGV: result bytes, end time (ms), life (s),
-- message, activation id, its name among the ends.
-- Answers {'ended'}, {'running', owner}, {'terminal'} or {'missing'}.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner')
if not record[1] then
  return {'missing'}
end
if record[1] == 'QUEUED' then
  redis.call('HSET', KEYS[1], 'state', 'CANCELLED', 'result', ARGV[1], 'end_ms', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  redis.call('ZREM', KEYS[2], ARGV[5])
  redis.call('ZREM', KEYS[3], ARGV[6])
  return {'ended'}
end
if record[1] == 'RUNNING' then
  redis.call('HSET', KEYS[1], 'cancel', ARGV[4])
  return {'running', record[2]}
end
return {'terminal'}
