-- Apply writes when every precondition holds, and append the mutation, in one step.
-- KEYS: every key touched.  ARGV: a JSON list of preconditions and one of writes, then the byte strings that they index.
--   precondition: [key index, field index or 0, value index, or 0 (must be absent) or -1 (must be there)]
--   write: [command, key index or 0 (none, as of PUBLISH), argument index...]
-- Answers 0 when applied, else the number of the first precondition that failed.
local checks, writes = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
for number, check in ipairs(checks) do
  local key, field, value = KEYS[check[1]], check[2], check[3]
  local present
  if field == 0 then
    present = redis.call('GET', key)
  else
    present = redis.call('HGET', key, ARGV[field + 2])
  end
  local fits
  if value == -1 then
    fits = present ~= false
  else
    fits = present == (value ~= 0 and ARGV[value + 2] or false)
  end
  if not fits then
    return number
  end
end
for _, write in ipairs(writes) do
  local arguments = {}
  if write[2] ~= 0 then
    arguments[1] = KEYS[write[2]]
  end
  for position = 3, #write do
    arguments[#arguments + 1] = ARGV[write[position] + 2]
  end
  redis.call(write[1], unpack(arguments))
end
return 0
