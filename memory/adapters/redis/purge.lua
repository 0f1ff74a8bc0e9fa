-- Remove those of some conversations that are expired; answer how many.
-- KEYS: of each conversation the key and that of its positions. ARGV: now, and of each the beginning of its runs' keys.

return answered(function()
  local removed = 0
  for n = 2, #ARGV do
    local key, positions_key = KEYS[2 * n - 3], KEYS[2 * n - 2]
    local expires_at = look('HGET', key, 'expires_at')
    if is_expired(key, expires_at, ARGV[1]) then
      look('ZCARD', positions_key)
      must_be_allowed_to_remove(key, positions_key, ARGV[n])
      remove_conversation(key, positions_key, ARGV[n])
      removed = removed + 1
    end
  end
  return {removed}
end)
