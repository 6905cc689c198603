-- Make an activation's record unless there is one, index it, and count it in. The record has a life from the first moment
-- on. Its message may be lost with its publisher: what has not ended long after its deadline is found in the ends.
-- KEYS: record, index of the function, the tenant's open activations, the partition's ends.  ARGV: activation id, accept time (ms), digest,
-- request bytes, index floor (ms), life of record and index (s), moment after which it no longer counts as open (ms),
-- its name among the ends.
-- Answers {1} when made, else {0, digest}.
local digest = redis.call('HGET', KEYS[1], 'digest')
if digest then
  return {0, digest}
end
redis.call('HSET', KEYS[1], 'state', 'QUEUED', 'attempt', 0, 'owner', '', 'lease_until', 0,
  'digest', ARGV[3], 'request', ARGV[4], 'accept_ms', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('ZADD', KEYS[3], ARGV[7], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[6])
redis.call('ZADD', KEYS[4], ARGV[7], ARGV[8])
redis.call('EXPIRE', KEYS[4], ARGV[6])
return {1}
