-- Tell where a message is. KEYS: bodies, ready of lane 1, ready of lane 2, leases, delayed, deliveries.  ARGV: message id.
-- Answers {'none'}, or the place, the lane, deliveries, and: messages in front ('ready'), or the end of the lease or of
-- the delay in ms ('leased', 'delayed').
for lane = 1, 2 do
  local id = lane .. ARGV[1]
  if redis.call('HEXISTS', KEYS[1], id) == 1 then
    local deliveries = tonumber(redis.call('HGET', KEYS[6], id) or '0')
    local leased = redis.call('ZSCORE', KEYS[4], id)
    if leased then
      return {'leased', lane, deliveries, tonumber(leased)}
    end
    local delayed = redis.call('ZSCORE', KEYS[5], id)
    if delayed then
      return {'delayed', lane, deliveries, tonumber(delayed)}
    end
    local ahead = redis.call('LPOS', KEYS[1 + lane], id)
    if ahead then
      return {'ready', lane, deliveries, ahead}
    end
  end
end
return {'none'}
