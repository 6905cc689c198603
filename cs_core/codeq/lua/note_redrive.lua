-- Note on a dead letter which activation redrove it, once; the notes live as long as what they are on.
-- KEYS: dead bodies, dead redrives.  ARGV: id, activation id.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
local noted = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if not string.find(noted, ARGV[2], 1, true) then
  redis.call('HSET', KEYS[2], ARGV[1], noted .. ' ' .. ARGV[2])
  local left = redis.call('PTTL', KEYS[1])
  if left > 0 then
    redis.call('PEXPIRE', KEYS[2], left)
  end
end
return 1
