-- Hand a running activation back, for its owner only: it waits again, and the run that ended here is no crash.
-- KEYS: record.  ARGV: owner.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner')
if record[1] ~= 'RUNNING' or record[2] ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'QUEUED', 'owner', '', 'lease_until', 0)
return 1
