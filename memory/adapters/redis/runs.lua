-- Read runs, and which conversation and version they belong to.
-- KEYS: conversation, positions. ARGV: now, beginning of the runs' keys, after, before, limit (-1: all), from the end (or '').
-- Answer: {} where there is no conversation, else {incarnation, version, positions, and each run's fields}.
-- (SORT ... GET would read all runs at a third of the cost, but it unpacks a packed sorted set for good: 75 bytes a run.)

local now, run_prefix, after, before, limit, from_end = unpack(ARGV)

return answered(function()
  local incarnation, version, expires_at =
    unpack(look('HMGET', KEYS[1], 'incarnation', 'version', 'expires_at'), 1, 3)
  if not incarnation or not version then
    return look('EXISTS', KEYS[1]) == 1 and {'corrupt', KEYS[1]} or {}
  elseif expires_at and not tonumber(expires_at) then
    return {'corrupt', KEYS[1]}
  elseif is_expired(expires_at, now) then
    return {}
  end
  local positions
  if from_end ~= '' then
    positions = look('ZRANGE', KEYS[2], '(' .. before, '(' .. after, 'BYSCORE', 'REV', 'LIMIT', 0, limit)
  else
    positions = look('ZRANGE', KEYS[2], '(' .. after, '(' .. before, 'BYSCORE', 'LIMIT', 0, limit)
  end
  local result = {incarnation, version, positions}
  for n, position in ipairs(positions) do
    looked_at = run_prefix .. position
    result[n + 3] = redis.call('HMGET', looked_at, 'id', 'input', 'output', 'metadata', 'created_at')
  end
  return result
end)
