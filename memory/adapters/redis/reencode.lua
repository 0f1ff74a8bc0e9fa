-- Give a conversation's hash new fields for the index, unless its metadata may have changed.
-- KEYS: conversation. ARGV: its incarnation and version as they were read; then names and values.

return answered(function()
  local stored = look('HMGET', KEYS[1], 'incarnation', 'version', 'updated_at')
  if stored[1] == ARGV[1] and stored[2] == ARGV[2] then
    redis.call('HSET', KEYS[1], 'by_updated_at', stored[3], unpack(ARGV, 3))
    return {'encoded'}
  end
  return {'changed'}
end)
