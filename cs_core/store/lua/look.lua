-- Read what tells why an activation waits. KEYS: record.  Answers the server's time (ms), then the fields.
local time = redis.call('TIME')
local fields = redis.call('HMGET', KEYS[1], 'state', 'owner', 'lease_until', 'next_ms', 'attempt', 'request', 'result')
return {time[1] * 1000 + math.floor(time[2] / 1000), unpack(fields)}
