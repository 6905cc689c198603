-- Claim a tick before it is published, as the leader of the shard alone: from here on a pause waits for it.
-- KEYS: lease, schedule.  ARGV: owner, fence, generation, tick.
-- Answers 1 when claimed (a claim of one's own or of a leader before is taken again), 0 when the schedule has changed,
-- -1 when the caller is not the leader.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  return -1
end
local stored = redis.call('HMGET', KEYS[2], 'generation', 'tick', 'state')
if stored[1] ~= ARGV[3] or stored[2] ~= ARGV[4] or stored[3] ~= 'ACTIVE' then
  return 0
end
redis.call('HSET', KEYS[2], 'claim', ARGV[4] .. '/' .. ARGV[3] .. '/' .. ARGV[2])
return 1
