-- Read a window of runs, and which conversation and version they belong to. reading.py does without where it can.
-- KEYS: conversation, positions. ARGV: after, before, limit (-1: all), from the end (or ''); then the arguments of SORT but for
-- LIMIT and the direction.
-- Answer: {the conversation's fields, and of each run its position and its fields}.

local after, before, limit, from_end = ARGV[1], ARGV[2], ARGV[3], ARGV[4] ~= ''

return answered(function()
  local conversation = look('HMGET', KEYS[1], 'incarnation', 'version', 'expires_at')
  local skipped = from_end and look('ZCOUNT', KEYS[2], before, '+inf') or look('ZCOUNT', KEYS[2], '-inf', after)
  local size = look('ZCOUNT', KEYS[2], '(' .. after, '(' .. before)
  if limit ~= '-1' then
    size = math.min(size, tonumber(limit))
  end
  if size == 0 then
    return {conversation, {}}
  end
  local arguments = {unpack(ARGV, 5)}
  for _, argument in ipairs({'LIMIT', digits(skipped), digits(size), from_end and 'DESC' or 'ASC'}) do
    arguments[#arguments + 1] = argument
  end
  return {conversation, look('SORT', KEYS[2], unpack(arguments))}
end)
