-- Read runs, with the version of the conversation that they belong to.
-- KEYS: conversation, runs, order by id. ARGV: id, now, after, before, limit (-1: all), from the end (or '').
-- Answer: {} if there is no conversation, else {incarnation, version, last position, runs}.

local id, now, after, before, limit, from_end = unpack(ARGV)

return answered(function()
  local incarnation, version, run_count, last, expires_at =
    unpack(look('HMGET', KEYS[1], 'incarnation', 'version', 'run_count', 'last_position', 'expires_at'), 1, 5)
  if not (incarnation and version and run_count and last) then
    return is_left_over(KEYS[1], KEYS[2], KEYS[3], id) and {'corrupt', KEYS[1], 'left over'} or {}
  elseif is_expired(KEYS[1], expires_at, now) then
    return {}
  elseif look('ZCARD', KEYS[2]) ~= count(KEYS[1], run_count) then
    return {'corrupt', KEYS[2]}
  end
  count(KEYS[1], version)
  count(KEYS[1], last)
  local first, final, reverse = '(' .. after, '(' .. before, nil
  if from_end ~= '' then
    first, final, reverse = final, first, 'REV'
  end
  local range = {'ZRANGE', KEYS[2], first, final, 'BYSCORE', 'LIMIT', 0, limit, reverse}
  return {incarnation, version, last, redis.call(unpack(range))}
end)
