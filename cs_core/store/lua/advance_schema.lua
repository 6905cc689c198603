-- Replace the record of the schema, if it is still what was read. KEYS: record.  ARGV: what was read ('': nothing), new.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
