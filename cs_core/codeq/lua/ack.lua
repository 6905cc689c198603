-- Remove messages whose lease is still this receipt's.
-- KEYS: bodies, leases, receipts, deliveries.  ARGV: id, receipt, id, receipt, ...
-- Answers how many were removed.
local removed = 0
for position = 1, #ARGV, 2 do
  local id = ARGV[position]
  if redis.call('HGET', KEYS[3], id) == ARGV[position + 1] then
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[3], id)
    redis.call('HDEL', KEYS[4], id)
    removed = removed + 1
  end
end
return removed
