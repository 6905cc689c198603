-- Change the record of a task, unless another instance took it over or it is answered.
-- KEYS: tasks, owners.  ARGV: task, record, instance.
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
