-- Note when the result of an activation reached who waited for it: the first time, and on a record that is still there.
-- KEYS: record.  ARGV: delivery time (ms since the epoch, for people).
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSETNX', KEYS[1], 'deliver_ms', ARGV[1])
end
return 1
