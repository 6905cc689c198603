-- Look at the first messages of a lane without taking them.
-- KEYS: bodies, ready (of the lane).  ARGV: most messages, bytes of each body.
-- Answers a flat list: id, begin of the body, ...
local seen = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[2], 0, tonumber(ARGV[1]) - 1)) do
  local body = redis.call('HGET', KEYS[1], id)
  if body then
    seen[#seen + 1] = id
    seen[#seen + 1] = string.sub(body, 1, tonumber(ARGV[2]))
  end
end
return seen
