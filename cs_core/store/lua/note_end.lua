-- Note by when an activation that has not ended should have, unless that is noted. The ends live as long as the record.
-- KEYS: record, the partition's ends.  ARGV: its name among the ends, that moment (ms), or '' for the end of its life.
local state = redis.call('HGET', KEYS[1], 'state')
if (state ~= 'QUEUED' and state ~= 'RUNNING') or redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
local time = redis.call('TIME')
local life = redis.call('PTTL', KEYS[1])
local moment = ARGV[2]
if moment == '' then
  moment = time[1] * 1000 + math.floor(time[2] / 1000) + math.max(life, 0)
end
redis.call('ZADD', KEYS[2], moment, ARGV[1])
if life > redis.call('PTTL', KEYS[2]) then
  redis.call('PEXPIRE', KEYS[2], life)
end
return 1
