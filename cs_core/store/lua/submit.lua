-- Make an activation's record unless there is one, index it, and count it in. The record has a life from the first moment
-- on: one whose message was lost with its publisher goes like all others.
-- KEYS: record, index of the function, the tenant's open activations.  ARGV: activation id, accept time (ms), digest,
-- request bytes, index floor (ms), life of record and index (s), moment after which it no longer counts as open (ms).
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
return {1}
