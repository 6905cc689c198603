-- Hand a schedule's record to its shard, unless the shard has it or a newer one. Whoever does it, and however often,
-- the outcome is the same. A tick that is being published keeps its number: a new cursor begins with the one after it.
-- KEYS: schedule, due, ticks.  ARGV: generation, cursor generation, state (ACTIVE, PAUSED or DELETED), record (empty: the one
-- it has), nominal time of the cursor (ms; empty: none), when to look at it (ms), uid, life of what is left of a deleted schedule (s).
-- Answers {1 taken over or 0 not needed, claim in progress or ''}.
local stored = redis.call('HMGET', KEYS[1], 'generation', 'cursor_generation', 'claim', 'tick')
local claim = stored[3] or ''
if stored[1] and tonumber(stored[1]) >= tonumber(ARGV[1]) then
  return {0, claim}
end
if ARGV[3] == 'DELETED' and claim == '' then
  -- The generation stays for a while: an older change that comes late must not bring the schedule back.
  redis.call('DEL', KEYS[1], KEYS[3])
  redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'state', ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[8])
  redis.call('ZREM', KEYS[2], ARGV[7])
  return {1, ''}
end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'state', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'record', ARGV[4])
end
if not stored[2] or tonumber(stored[2]) < tonumber(ARGV[2]) then
  local tick = tonumber(stored[4] or '1')
  if claim ~= '' and tonumber(string.match(claim, '^%d+')) == tick then
    tick = tick + 1
  end
  redis.call('HSET', KEYS[1], 'cursor_generation', ARGV[2], 'tick', tick, 'nominal', ARGV[5])
  if claim ~= '' then
    -- It is still to be settled, by another leader if this one died: to be looked at now.
    redis.call('ZADD', KEYS[2], 0, ARGV[7])
  elseif ARGV[3] == 'ACTIVE' and ARGV[5] ~= '' then
    redis.call('ZADD', KEYS[2], ARGV[6], ARGV[7])
  else
    redis.call('ZREM', KEYS[2], ARGV[7])
  end
end
return {1, claim}
