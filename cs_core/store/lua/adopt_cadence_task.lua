-- Take a task over from an instance that is gone, unless another did.
-- KEYS: tasks, owners.  ARGV: task, instance that is gone, instance.
-- Answers the record, or nothing.
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return false
end
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then
  redis.call('HDEL', KEYS[2], ARGV[1])
  return false
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return record
