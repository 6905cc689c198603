-- Write down what became of a tick, or of a run of them, and go on to the next, as the leader of the shard alone. Of a
-- schedule that has changed since, only the outcome of a claimed tick is written down: its cursor is another one
-- already.
-- KEYS: lease, schedule, due, ticks.  ARGV: owner, fence, generation, tick, claim (empty: the tick was not claimed), uid,
-- next tick, its nominal time (ms; empty: none), when to look at it (ms), count to grow, by how much, marker (empty: as it
-- was), last tick, error reason, error message, entry of the history, entries to keep, life of what is left of a deleted
-- schedule (s).
-- Answers 1 when written, 0 when the schedule has changed, -1 when the caller is not the leader.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  return -1
end
local stored = redis.call('HMGET', KEYS[2], 'generation', 'tick', 'claim', 'state', 'nominal')
local same = stored[1] == ARGV[3] and stored[2] == ARGV[4]
if not stored[1] or (stored[3] or '') ~= ARGV[5] or (ARGV[5] == '' and not same) then
  return 0
end
if stored[4] == 'DELETED' then
  redis.call('DEL', KEYS[4])
  redis.call('HDEL', KEYS[2], 'claim', 'record')
  redis.call('EXPIRE', KEYS[2], ARGV[18])
  redis.call('ZREM', KEYS[3], ARGV[6])
  return 1
end
redis.call('HDEL', KEYS[2], 'claim')
redis.call('HINCRBY', KEYS[2], ARGV[10], ARGV[11])
redis.call('HSET', KEYS[2], 'last_tick', ARGV[13], 'error_reason', ARGV[14], 'error_message', ARGV[15])
if ARGV[12] ~= '' then
  redis.call('HSET', KEYS[2], 'marker', ARGV[12])
end
redis.call('XADD', KEYS[4], 'MAXLEN', ARGV[17], ARGV[4] .. '-1', 't', ARGV[16])
-- A change that left the cursor where it is (another function, another policy) does not keep it there.
if stored[2] == ARGV[4] then
  redis.call('HSET', KEYS[2], 'tick', ARGV[7], 'nominal', ARGV[8])
  if stored[4] == 'ACTIVE' and ARGV[8] ~= '' then
    redis.call('ZADD', KEYS[3], ARGV[9], ARGV[6])
  else
    redis.call('ZREM', KEYS[3], ARGV[6])
  end
elseif stored[4] ~= 'ACTIVE' or stored[5] == '' then
  redis.call('ZREM', KEYS[3], ARGV[6])
end
return 1
