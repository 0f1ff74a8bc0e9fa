-- Read runs, and which conversation and version they belong to.
-- KEYS: conversation, positions. ARGV: now, beginning of the runs' keys, after, before, limit (-1: all), from the end (or '').
-- Answer: {} where there is no conversation, else {incarnation, version, last position, positions, and each run's fields}.
-- (SORT ... GET would read all runs at a third of the cost, but it unpacks a packed sorted set for good: 75 bytes a run.)

local now, run_prefix, after, before, limit, from_end = unpack(ARGV)

return answered(function()
  local incarnation, version, run_count, last, expires_at =
    unpack(look('HMGET', KEYS[1], 'incarnation', 'version', 'run_count', 'last_position', 'expires_at'), 1, 5)
  if not (incarnation and version and run_count and last) then
    return is_left_over(KEYS[1], KEYS[2]) and {'corrupt', KEYS[2], 'left over'} or {}
  elseif is_expired(KEYS[1], expires_at, now) then
    return {}
  elseif look('ZCARD', KEYS[2]) ~= count(KEYS[1], run_count) then
    return {'corrupt', KEYS[2]}
  end
  count(KEYS[1], version)
  count(KEYS[1], last)
  local positions
  if from_end ~= '' then
    positions = look('ZRANGE', KEYS[2], '(' .. before, '(' .. after, 'BYSCORE', 'REV', 'LIMIT', 0, limit)
  else
    positions = look('ZRANGE', KEYS[2], '(' .. after, '(' .. before, 'BYSCORE', 'LIMIT', 0, limit)
  end
  local result = {incarnation, version, last, positions}
  for n, position in ipairs(positions) do
    looked_at = run_prefix .. position
    result[n + 4] = redis.call('HMGET', looked_at, 'id', 'input', 'output', 'metadata', 'created_at')
  end
  return result
end)
