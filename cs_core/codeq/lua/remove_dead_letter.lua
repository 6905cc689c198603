-- Remove a dead letter. KEYS: dead bodies, dead order, dead redrives.  ARGV: id.
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
