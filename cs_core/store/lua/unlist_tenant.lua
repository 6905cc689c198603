-- Note that nothing of the tenant waits for the relay, and use up the generation at which it stands in the index, so
-- that whoever is about to claim that generation has to list the tenant again.
-- KEYS: relay state of the tenant, its mutation log.  ARGV: fencing token, generation in the index.
-- Answers 1 when the tenant may be taken out of the index at that generation, 0 when something waits, -1 when fenced.
local state = redis.call('HMGET', KEYS[1], 'token', 'cursor', 'generation')
if tonumber(state[1] or '0') > tonumber(ARGV[1]) then
  return -1
end
local lowest = state[2] and '(' .. state[2] or '-'
if #redis.call('XRANGE', KEYS[2], lowest, '+', 'COUNT', 1) > 0 then
  return 0
end
if tonumber(state[3] or '0') < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'generation', ARGV[2])
end
redis.call('HDEL', KEYS[1], 'listed')
return 1
