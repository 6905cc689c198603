-- Record a Cadence task that was received: from now on its receiver answers it, whoever did before.
-- KEYS: tasks, owners.  ARGV: task, record, instance.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
